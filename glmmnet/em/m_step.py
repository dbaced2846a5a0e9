"""M-step for everything but the network: beta, Sigma and dispersion from the draws of b.

beta by location expansion and one Newton step on the complete data, Sigma by parameter expansion: beta and the working
matrices A of eta = X beta + sum_k z_k' A_k b_k take that Newton step together, then Sigma_k = A_k S_k A_k'.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from glmmnet.em.expansion import Carrier, relocate
from glmmnet.joint import MANY_CLASSES, JointModel, Parameters, TermData

#: Rows x draws x columns of the Newton step's design that are held at once.
_ENTRIES_AT_ONCE = 20_000_000
#: Rows x draws that the Hessian is summed over where no column is rare.
_HESSIAN_ROWS = 20_000
#: Entries of the working matrices move at most so far from the identity in one iteration.
_LARGEST_SCALE_STEP = 0.5
#: The fixed part of eta moves at most so far (root mean square) in one iteration, in its unit; not where quadratic.
_LARGEST_ETA_STEP = 2.0


@dataclass(frozen=True)
class MStep:
    """Result of one M-step.

    Attributes
    ----------
    params : Parameters
        The maximisers, before averaging over iterations.
    shift : Tensor, (Q, C)
        What the location expansion took out of b.
    beta_variance : Tensor, (p, C)
        Rough sampling variance of beta, for the stopping rule.
    deviance : float
        -2 log p(y given b) at the old estimates, averaged over the draws.
    """

    params: Parameters
    shift: Tensor
    beta_variance: Tensor
    deviance: float


def m_step(
    joint: JointModel, carriers: tuple[Carrier, ...], params: Parameters, b: Tensor, f: Tensor | None = None
) -> MStep:
    """One M-step from draws b (Q, C, S), given the network's output f (n, C)."""
    moved = relocate(joint, carriers, params, b.mean(dim=2))
    b = b - moved.b[:, :, None]
    centred = Parameters(params.beta + moved.beta, params.sigma, params.phi)
    newton = _newton(joint, centred, b, f)
    beta = centred.beta + newton.beta
    if joint.family.symmetric:
        # What all classes share changes no probability; the sum over classes is 0 by convention.
        beta = beta - beta.mean(dim=1, keepdim=True)
    sigma = tuple(
        term.covariance.expand(_second_moment(b, term), working)
        for term, working in zip(joint.terms, newton.working, strict=True)
    )
    phi = params.phi
    if joint.family.has_dispersion:
        phi = _dispersion(joint, Parameters(beta, sigma, phi), newton.working, b, f)
    return MStep(Parameters(beta, sigma, phi), moved.b, moved.variance + newton.variance, -2.0 * newton.log_likelihood)


def _second_moment(b: Tensor, term: TermData) -> Tensor:
    own = b[term.rows].reshape(term.q, term.r, *b.shape[1:])
    return torch.einsum("qics,qjcs->cij", own, term.decorrelated(own)) / (term.q * b.shape[2])


@dataclass(frozen=True)
class _Newton:
    beta: Tensor
    working: list[Tensor]
    variance: Tensor
    log_likelihood: float


def _newton(joint: JointModel, params: Parameters, b: Tensor, f: Tensor | None) -> _Newton:
    """One Newton step for beta and the entries of the working matrices, jointly over classes."""
    classes, p = joint.n_classes, joint.X.shape[1]
    entries = [term.covariance.free(term.r) for term in joint.terms]
    m = p + sum(len(e) for e in entries)
    # The sampler's precision is enough for sums over its draws.
    dtype = joint.parts[0][1].weights.dtype
    fixed, b = joint.fixed_eta(params, f).to(dtype), b.to(dtype)
    gradient = torch.zeros(classes, m, dtype=torch.float64)
    hessian = torch.zeros(classes, m, classes, m, dtype=torch.float64)
    log_likelihood, few = 0.0, _few_rows(joint, b.shape[2])
    for part in _chunks(b, joint.n * classes):
        value, own = _value_and_gradient(joint, entries, fixed, part, params.phi)
        log_likelihood += value
        gradient += own
        if few is not None:
            some = joint.subset(few)
            eta = fixed[few].double() + some.random_eta(part.double())
            hessian += joint.n / len(few) * _hessian(some, entries, part.double(), eta, params.phi)
    if few is None:
        for part in _chunks(b, joint.n * m * classes):
            eta = fixed.double() + joint.random_eta(part.double())
            hessian += _hessian(joint, entries, part.double(), eta, params.phi)
    draws = b.shape[2]
    tie = _ties(joint, entries, p)
    if tie is not None:
        gradient, hessian = gradient @ tie, torch.einsum("cmdn,mk,nl->ckdl", hessian, tie, tie)
        m = tie.shape[1]
    inverse = _scaled_pinv(hessian.reshape(classes * m, classes * m) / draws)
    step = (inverse @ (gradient.reshape(-1) / draws)).reshape(classes, m)
    if tie is not None:
        step = step @ tie.T
    step = _damp(joint, step, p)
    working, at = [], p
    for term, free in zip(joint.terms, entries, strict=True):
        a = torch.eye(term.r, dtype=torch.float64).repeat(classes, 1, 1)
        a[:, free[:, 0], free[:, 1]] += step[:, at : at + len(free)]
        working.append(a)
        at += len(free)
    variance = torch.diagonal(inverse).reshape(classes, m)[:, :p].T
    return _Newton(step[:, :p].T, working, variance, log_likelihood / draws)


def _ties(joint: JointModel, entries: list[Tensor], p: int) -> Tensor | None:
    """Which entry of the working matrices is which free number, beta's first, (m, k); None where each is its own."""
    if not any(term.covariance.tied for term in joint.terms):
        return None
    blocks = [torch.eye(p, dtype=torch.float64)]
    for term, free in zip(joint.terms, entries, strict=True):
        own = torch.eye(len(free), dtype=torch.float64)
        blocks.append(own.sum(dim=1, keepdim=True) if term.covariance.tied else own)
    return torch.block_diag(*blocks)


def _few_rows(joint: JointModel, draws: int) -> Tensor | None:
    """Rows that stand for all in the Hessian; None: all, as where a column may differ from 0 in few rows."""
    few = max(_HESSIAN_ROWS // draws, 1)
    plain = joint.x_names in ((), ("Intercept",)) and all(term.z is None for term in joint.terms)
    return torch.randperm(joint.n)[:few] if plain and few < joint.n else None


def _value_and_gradient(
    joint: JointModel, entries: list[Tensor], fixed: Tensor, b: Tensor, phi: float
) -> tuple[float, Tensor]:
    """Log likelihood, and the score of beta and of the entries of the working matrices, over the draws: (C, m)."""
    value = 0.0
    of_beta = torch.zeros(joint.n_classes, joint.X.shape[1], dtype=torch.float64)
    of_b = torch.zeros(b.shape, dtype=torch.float64)
    for rows, part in joint.parts:
        eta = (fixed if len(rows) == joint.n else fixed[rows]) + part.random_eta(b)
        kernel, score = part.log_likelihood_and_score(eta, phi)
        # What the kernel leaves out is free of eta: the same for every draw.
        constant = part.log_likelihood(eta[:, :, :1], phi)[0] - kernel[0]
        value += float((kernel + constant).sum())
        of_beta += (part.X.to(score.dtype).T @ score.sum(dim=2)).T
        of_b += part.random_transpose(score)
    gradient = [of_beta]
    for term, free in zip(joint.terms, entries, strict=True):
        shape = (term.q, term.r, *b.shape[1:])
        own, slope = b[term.rows].reshape(shape).to(torch.float64), of_b[term.rows].reshape(shape)
        gradient.append(torch.einsum("qics,qjcs->cij", slope, own)[:, free[:, 0], free[:, 1]])
    return value, torch.cat(gradient, dim=1)


def _hessian(joint: JointModel, entries: list[Tensor], b: Tensor, eta: Tensor, phi: float) -> Tensor:
    """Information about beta and the entries of the working matrices, summed over the draws: (C, m, C, m)."""
    classes = joint.n_classes
    one_by_one = classes > MANY_CLASSES
    weight = joint.weight_diagonal(eta, phi) if one_by_one else joint.weight(eta, phi)
    features = [_features(joint, entries, b, c) for c in range(classes)]
    m = features[0].shape[1]
    hessian = torch.zeros(classes, m, classes, m, dtype=torch.float64)
    for c in range(classes):
        for d in (c,) if one_by_one else range(c + 1):
            own = weight[:, c] if one_by_one else weight[:, c, d]
            cross = features[c].T @ (own.reshape(-1, 1) * features[d])
            hessian[c, :, d] = cross
            hessian[d, :, c] = cross.T
    return hessian


def _chunks(b: Tensor, entries_a_draw: int) -> Iterator[Tensor]:
    size = max(1, _ENTRIES_AT_ONCE // max(entries_a_draw, 1))
    yield from torch.split(b, size, dim=2)


def _features(joint: JointModel, entries: list[Tensor], b: Tensor, c: int) -> Tensor:
    """Columns of the Newton step for class c: X, then z_i b_j for every free entry (i, j); (n S, m)."""
    draws = b.shape[2]
    columns = [joint.X.to(b.dtype)[:, None].expand(-1, draws, -1)]
    for term, free in zip(joint.terms, entries, strict=True):
        own = term.gather(b[:, c : c + 1])[:, :, 0].transpose(1, 2)
        effects = own[:, :, free[:, 1]]
        if term.z is None:
            columns.append(effects)
        else:
            columns.append(term.z[:, None, free[:, 0]] * effects)
    return torch.cat(columns, dim=2).reshape(joint.n * draws, -1)


def _scaled_pinv(matrix: Tensor) -> Tensor:
    """Inverse of a positive semi-definite matrix; directions without information (shared class shifts) stay put."""
    scale = torch.diagonal(matrix).clamp_min(1e-300).rsqrt()
    scaled = scale[:, None] * matrix * scale
    inverse = torch.linalg.pinv(scaled, hermitian=True, rtol=1e-9)
    return scale[:, None] * inverse * scale


def _damp(joint: JointModel, step: Tensor, p: int) -> Tensor:
    step = step.clone()
    step[:, p:] = step[:, p:].clamp(-_LARGEST_SCALE_STEP, _LARGEST_SCALE_STEP)
    if not joint.family.quadratic and p:
        size = float((joint.X @ step[:, :p].T).square().mean().sqrt())
        step[:, :p] *= min(1.0, _LARGEST_ETA_STEP * joint.eta_unit / max(size, 1e-300))
    return step


def _dispersion(joint: JointModel, params: Parameters, working: list[Tensor], b: Tensor, f: Tensor | None) -> float:
    """Dispersion at the new beta and the rescaled draws."""
    rescaled = torch.cat(
        [
            torch.einsum("cij,qjcs->qics", a, b[t.rows].reshape(t.q, t.r, *b.shape[1:])).reshape(-1, *b.shape[1:])
            for t, a in zip(joint.terms, working, strict=True)
        ]
        or [b]
    )
    fixed = joint.fixed_eta(params, f)
    parts = list(_chunks(rescaled, joint.n * joint.n_classes))
    values = [joint.dispersion(fixed + joint.random_eta(d), params.phi) for d in parts]
    return sum(v * d.shape[2] for v, d in zip(values, parts, strict=True)) / b.shape[2]
