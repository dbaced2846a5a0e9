"""Posterior mode of b and the curvature there, H = -d2 log p(y, b): whole where it is small, else a block a level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glmmnet.cholesky import factorize
from glmmnet.gaussian import GaussianPosterior
from glmmnet.joint import MANY_CLASSES, JointModel, Parameters
from glmmnet.random_terms import TermData
from glmmnet.whitening import (
    LevelWhitening,
    Whitening,
    WholeWhitening,
    cholesky_of_blocks,
    in_blocks,
    out_of_blocks,
    solve_blocks,
)

#: Up to this many effects (Q C) the whole precision is factored; beyond, its per-level blocks.
WHOLE_LIMIT = 512
#: Longest Newton step of one effect, in units of eta, for families whose log density is not quadratic.
_LONGEST_STEP = 1.5
#: Where the curvature in use is not the log density's own: a step is halved while it gains less than this share of what
#: its slope promises, and doubled where it gains more than the other; so often at most.
_TOO_LITTLE, _NEARLY_ALL, _CHANGES = 0.1, 0.8, 12
#: Sweeps over the levels before the first step with the whole precision.
_FIRST_SWEEPS = 5
#: Rounding error of a log density, as a share of it.
_ROUNDING = 1e-13
#: Newton steps with the whole precision at most, and the largest step of an effect that ends them.
_WHOLE_STEPS, _WHOLE_TOLERANCE = 50, 1e-8


@dataclass(frozen=True)
class LaplacePoint:
    """Mode of b (Q, C), and the whitening built on the curvature there.

    `information` is what the data contribute to the curvature: the whole matrix, or the blocks of each term.
    """

    mode: Tensor
    whitening: Whitening
    information: tuple[Tensor, ...]


def level_blocks(term: TermData, weight: Tensor, precision: Tensor) -> Tensor:
    """Diagonal blocks of H that belong to one term: (q, r C, r C)."""
    return _with_prior(term.information(weight), precision)


def _every_information(joint: JointModel, eta: Tensor, phi: float) -> tuple[Tensor, ...]:
    """What the data contribute to each term's blocks at eta (n, C, 1): (q, r C, r C), of many classes (q, C, r, r)."""
    if joint.n_classes <= MANY_CLASSES:
        weight = joint.weight(eta, phi)[..., 0]
        return tuple(term.information(weight) for term in joint.terms)
    sums = [torch.zeros(term.q, joint.n_classes, term.r, term.r, dtype=torch.float64) for term in joint.terms]
    for rows, part in joint.parts:
        weight = part.weight_diagonal(eta[rows].to(part.weights.dtype), phi)[..., 0]
        for term, total in zip(part.terms, sums, strict=True):
            total += _by_class(term, weight)
    return tuple(sums)


def _by_class(term: TermData, weight: Tensor) -> Tensor:
    """Blocks (q, C, r, r) for weights of each class by itself, (n, C)."""
    if term.z is None:
        return term.level_sum(weight)[:, :, None, None]
    outer = term.z[:, :, None] * term.z[:, None]
    return term.level_sum(weight[:, :, None, None] * outer[:, None])


def _with_prior(information: Tensor, precision: Tensor) -> Tensor:
    """Information plus the prior precision (C, r, r)."""
    if information.dim() == 4:
        return information + precision
    prior = torch.diag_embed(precision.permute(1, 2, 0)).permute(0, 2, 1, 3)
    return information + prior.reshape(information.shape[1:])


def find_mode(
    joint: JointModel,
    fixed: Tensor,
    params: Parameters,
    start: Tensor | None = None,
    *,
    iterations: int = 50,
    tolerance: float = 1e-6,
    information: tuple[Tensor, ...] | None = None,
) -> LaplacePoint:
    """Mode of log p(y, b) by damped Newton from `start`, and the whitening there.

    Parameters
    ----------
    fixed : Tensor, (n, C, 1)
        The part of eta that is free of b.
    start : Tensor, (Q, C), optional
    iterations : int
        At most so many sweeps; a few from a warm start are enough to whiten.
    tolerance : float
        Stop when no effect moves by more, in posterior standard deviations.
    information : tuple of Tensor, optional
        That of an earlier point nearby, to follow the mode with at a fraction of the cost.
    """
    mode = torch.zeros(joint.n_effects, joint.n_classes, dtype=torch.float64) if start is None else start
    # Levels that are related do not part into blocks.
    if mode.numel() <= WHOLE_LIMIT or joint.related:
        if start is None and _is_watched(joint) and not joint.related and len(joint.terms) > 1:
            # Term by term every level has a step of its own length.
            mode = _level_mode(joint, fixed, params, mode, _FIRST_SWEEPS, tolerance, None).mode
        return _whole_mode(joint, fixed, params, mode, iterations, tolerance, information)
    return _level_mode(joint, fixed, params, mode, iterations, tolerance, information)


def _gradient(joint: JointModel, eta: Tensor, mode: Tensor, phi: float, precisions: tuple[Tensor, ...]) -> Tensor:
    _, score = joint.log_likelihood_and_score(eta, phi)
    return (joint.random_transpose(score) - joint.prior(mode[:, :, None], precisions)[1])[:, :, 0]


def _whole_information(joint: JointModel, eta: Tensor, phi: float) -> Tensor:
    return torch.as_tensor(joint.information(joint.weight(eta, phi)[..., 0]).toarray())


def _whole_mode(
    joint: JointModel,
    fixed: Tensor,
    params: Parameters,
    mode: Tensor,
    iterations: int,
    tolerance: float,
    known: tuple[Tensor, ...] | None,
) -> LaplacePoint:
    precisions = joint.precisions(params)
    prior = torch.as_tensor(joint.precision_matrix(params).toarray())
    longest = torch.cat([_longest(term) for term in joint.terms])
    eta = fixed + joint.random_eta(mode[:, :, None])
    for _ in range(iterations):
        information = known[0] if known else _whole_information(joint, eta, params.phi)
        factor = torch.linalg.cholesky(information + prior)
        gradient = _gradient(joint, eta, mode, params.phi, precisions)
        half = torch.linalg.solve_triangular(factor, gradient.reshape(-1, 1), upper=False)
        step = torch.linalg.solve_triangular(factor.T, half, upper=True).reshape(mode.shape)
        step = _damped(joint, step, longest)
        if _is_watched(joint):
            step = step * _whole_share(joint, eta, mode, step, gradient, params, precisions)
        mode = mode + step
        eta = fixed + joint.random_eta(mode[:, :, None])
        if float(half.abs().max()) < tolerance:
            break
    information = known[0] if known else _whole_information(joint, eta, params.phi)
    return LaplacePoint(mode, WholeWhitening(mode, information + prior), (information,))


def _level_mode(
    joint: JointModel,
    fixed: Tensor,
    params: Parameters,
    mode: Tensor,
    iterations: int,
    tolerance: float,
    known: tuple[Tensor, ...] | None,
) -> LaplacePoint:
    precisions = joint.precisions(params)
    # With a curvature of another point, or of each class by itself, the mode is only followed: the sampler's precision
    # is enough for that.
    roughly = known is not None or joint.n_classes > MANY_CLASSES
    rows = joint.single if roughly and joint.family.single_precision else joint
    eta = (fixed + joint.random_eta(mode[:, :, None])).to(rows.weights.dtype)
    for _ in range(iterations):
        largest = 0.0
        # Of many classes the curvature costs more than the step.
        sweep = known or (_every_information(joint, eta, params.phi) if joint.n_classes > MANY_CLASSES else None)
        for k, (term, precision) in enumerate(zip(rows.terms, precisions, strict=True)):
            _, score = rows.log_likelihood_and_score(eta, params.phi)
            information = sweep[k] if sweep else term.information(joint.weight(eta, params.phi)[..., 0])
            factor = cholesky_of_blocks(_with_prior(information, precision))
            own = mode[term.rows].reshape(term.q, term.r, -1)
            pulled = torch.einsum("cij,qjc->qic", precision, own).reshape(-1, joint.n_classes)
            gradient = term.transpose(score)[:, :, 0] - pulled
            half = solve_blocks(factor, in_blocks(term, gradient[:, :, None], factor), upper=False)
            step = out_of_blocks(solve_blocks(factor.mT, half, upper=True), gradient.shape)
            step = _damped(joint, step, _longest(term))
            if _is_watched(joint) and not roughly:
                share = _level_share(joint, term, eta, mode[term.rows], step, gradient, params.phi, precision)
                step = step * share.repeat_interleave(term.r)[:, None]
            moved = torch.zeros_like(mode)
            moved[term.rows] = step
            mode = mode + moved
            eta = eta + term.eta(moved[:, :, None].to(eta.dtype))
            largest = max(largest, float(half.abs().max()))
        if largest < tolerance:
            break
    parts = known or _every_information(joint, eta, params.phi)
    return LaplacePoint(mode, _whitened(joint, mode, parts, params), parts)


def _is_watched(joint: JointModel) -> bool:
    """Whether a Newton step may miss: the curvature in use is not the log density's own."""
    return not (joint.family.canonical or joint.family.quadratic)


def _whole_share(
    joint: JointModel,
    eta: Tensor,
    mode: Tensor,
    step: Tensor,
    gradient: Tensor,
    params: Parameters,
    precisions: tuple[Tensor, ...],
) -> Tensor:
    """Share of a step of b (Q, C) to take: level by level (Q, 1) with a single term, else one for all (1, 1)."""
    if len(joint.terms) == 1 and not joint.related:
        term = joint.terms[0]
        share = _level_share(joint, term, eta, mode, step, gradient, params.phi, precisions[0])
        return share.repeat_interleave(term.r)[:, None]
    along = joint.random_eta(step[:, :, None])

    def value(share: Tensor) -> Tensor:
        own = joint.prior((mode + share * step)[:, :, None], precisions)[0]
        return joint.log_likelihood(eta + share * along, params.phi) + own

    return _share(value, (gradient * step).sum()[None])[:, None]


def _level_share(
    joint: JointModel,
    term: TermData,
    eta: Tensor,
    own: Tensor,
    step: Tensor,
    gradient: Tensor,
    phi: float,
    precision: Tensor,
) -> Tensor:
    """Share of a step of one term's effects to take at each level, (q,); the levels share no row."""
    b = torch.zeros(joint.n_effects, joint.n_classes, 1, dtype=step.dtype)
    b[term.rows, :, 0] = step
    along = term.eta(b)
    shape = (term.q, term.r, joint.n_classes)

    def value(share: Tensor) -> Tensor:
        moved = (own.reshape(shape) + share[:, None, None] * step.reshape(shape)).contiguous()
        prior = -0.5 * torch.einsum("qic,cij,qjc->q", moved, precision, moved)
        return term.level_sum(joint.log_prob(eta + share[term.index][:, None, None] * along, phi))[:, 0] + prior

    return _share(value, (gradient * step).reshape(term.q, -1).sum(dim=1))


def _share(value: Callable[[Tensor], Tensor], slope: Tensor) -> Tensor:
    """Shares (m,) of m steps at which m log densities have grown, halved from 1 or doubled.

    Fisher scoring steps too far where the response is less probable than the model expects of it, and crawls where an
    outlying one hardly pulls.
    """
    share = torch.ones_like(slope)
    before = value(0.0 * share)
    noise = _ROUNDING * before.abs()
    gain = value(share) - before
    for _ in range(_CHANGES):
        short = ~(gain >= _TOO_LITTLE * share * slope - noise)
        if not bool(short.any()):
            break
        share = torch.where(short, 0.5 * share, share)
        gain = value(share) - before
    longer = gain > _NEARLY_ALL * slope + noise
    for _ in range(_CHANGES):
        if not bool(longer.any()):
            break
        farther = torch.where(longer, 2.0 * share, share)
        there = value(farther) - before
        longer &= there > gain
        share, gain = torch.where(longer, farther, share), torch.where(longer, there, gain)
    return share


def level_whitening(joint: JointModel, mode: Tensor, fixed: Tensor, params: Parameters) -> LevelWhitening:
    """Whitening by the blocks of the levels at `mode` (Q, C), given the part of eta that is free of b, (n, C, 1)."""
    eta = fixed + joint.random_eta(mode[:, :, None])
    return _whitened(joint, mode, _every_information(joint, eta, params.phi), params)


def _whitened(joint: JointModel, mode: Tensor, information: Sequence[Tensor], params: Parameters) -> LevelWhitening:
    precisions = joint.precisions(params)
    blocks = [_with_prior(i, p) for i, p in zip(information, precisions, strict=True)]
    return LevelWhitening(joint, mode, blocks)


def _longest(term: TermData) -> Tensor:
    """Longest Newton step of each effect of a term, eta's unit 1: (q r, 1)."""
    return (_LONGEST_STEP / term.size.clamp_min(1e-150)).repeat(term.q)[:, None]


def damped(joint: JointModel, step: Tensor) -> Tensor:
    """A Newton step of b (Q, C) that moves no effect by too much where the log density is not quadratic."""
    return _damped(joint, step, torch.cat([_longest(term) for term in joint.terms]))


def _damped(joint: JointModel, step: Tensor, longest: Tensor) -> Tensor:
    if joint.family.quadratic:
        return step
    longest = longest * joint.eta_unit
    return step.clamp(-longest, longest)


def laplace_posterior(joint: JointModel, fixed: Tensor, params: Parameters) -> GaussianPosterior:
    """The Laplace approximation with the whole precision.

    Ask :func:`has_factor` first. The curvature is the expected one.
    """
    mode = find_mode(joint, fixed, params).mode
    prior, precisions = joint.precision_matrix(params), joint.precisions(params)
    for _ in range(_WHOLE_STEPS):
        eta = fixed + joint.random_eta(mode[:, :, None])
        factor = factorize(joint.information(joint.weight(eta, params.phi)[..., 0]) + prior, joint.segments)
        gradient = _gradient(joint, eta, mode, params.phi, precisions)
        step = torch.as_tensor(factor.solve(gradient.reshape(-1, 1).numpy())).reshape(mode.shape)
        step = damped(joint, step)
        if _is_watched(joint):
            step = step * _whole_share(joint, eta, mode, step, gradient, params, precisions)
        mode = mode + step
        if float(step.abs().max()) < _WHOLE_TOLERANCE:
            break
    return GaussianPosterior(mode, factor, joint.segments)
