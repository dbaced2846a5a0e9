"""Standard errors: marginal information for the fixed effects, Louis' formula or curvature for the variances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glmmnet.cholesky import DENSE_LIMIT, BlockedCholesky, dense_size
from glmmnet.design import Design
from glmmnet.exact import GaussianLikelihood
from glmmnet.fitted import Fitted
from glmmnet.joint import JointModel, Parameters
from glmmnet.laplace import level_blocks

#: Draws that the weights W are averaged over.
_WEIGHT_DRAWS = 50
#: Draws that Louis' formula is averaged over when the dispersion's score needs every row.
_LOUIS_DRAWS = 250
#: Penalty of the last layer's weights, as a share of the total information of a row.
_RIDGE = 1e-3
#: Relative accuracy and most steps of the conjugate gradients.
_CG_TOLERANCE, _CG_STEPS = 1e-8, 500
#: Variance parameters up to which the curvature of the exact likelihood is differenced.
_MOST_DIFFERENCED = 6


@dataclass(frozen=True)
class FixedCovariance:
    """Sampling covariance of the linear fixed effects, and of the network's last layer beside them.

    Attributes
    ----------
    matrix : Tensor, (m C, m C)
        Order: column by column (X, then last-layer features), classes innermost.
    p : int
        Columns of X among the m.
    kind : str
        What is held fixed: ``marginal``; ``marginal, last layer``; ``marginal, f fixed``.
    """

    matrix: Tensor
    p: int
    kind: str

    def beta(self, classes: int) -> Tensor:
        """Block of the fixed effects, (p C, p C)."""
        size = self.p * classes
        return self.matrix[:size, :size]


def feature_columns(fitted: Fitted, design: Design) -> Tensor | None:
    """The last layer's columns beside X for a design's rows, (n, h), less their linear share in projected columns."""
    columns = fitted.last_layer(design)
    if columns is None or fitted.projection is None:
        return columns
    picked = fitted.projection.columns
    trained = fitted.last_layer(fitted.design)
    share = torch.linalg.lstsq(fitted.joint.X[:, picked], trained).solution
    return columns - torch.tensor(design.X)[:, picked] @ share


def fixed_covariance(fitted: Fitted) -> FixedCovariance:
    """Inverse of X'WX - X'WZ (Z'WZ + Sigma^-1)^-1 Z'WX, W averaged over the final draws.

    The last hidden layer joins X as ridge-penalised columns, so that the errors of beta know of the network.
    Not Louis' formula, which is here a small difference of large Monte Carlo quantities.
    """
    joint = fitted.joint
    weight = _mean_weight(fitted)
    features = feature_columns(fitted, fitted.design)
    columns = joint.X if features is None else torch.cat([joint.X, features], dim=1)
    kind = "marginal"
    if fitted.predictor is not None:
        kind = "marginal, f fixed" if features is None else "marginal, last layer"
    if not columns.shape[1]:
        return FixedCovariance(torch.zeros(0, 0, dtype=torch.float64), 0, kind)
    information = _marginal_information(joint, fitted.working, weight, columns)
    if features is not None:
        p, classes = joint.X.shape[1], joint.n_classes
        total = torch.diagonal(weight, dim1=1, dim2=2).sum(dim=0)
        scale = float(fitted.predictor.scale) ** 2 if fitted.predictor is not None else 1.0
        penalty = torch.zeros(columns.shape[1], classes, dtype=torch.float64)
        penalty[p:] = _RIDGE * scale * total
        information = information + torch.diag(penalty.reshape(-1))
    return FixedCovariance(_pinv(information), joint.X.shape[1], kind)


def _mean_weight(fitted: Fitted) -> Tensor:
    """W averaged over draws, (n, C, C)."""
    joint, fixed = fitted.joint, fitted.fixed
    if joint.family.quadratic:
        return joint.weight(fixed, fitted.params.phi)[..., 0]
    draws = fitted.thinned(_WEIGHT_DRAWS)
    total = torch.zeros(joint.n, joint.n_classes, joint.n_classes, dtype=torch.float64)
    for b in draws.split(1, dim=2):
        total += joint.weight(fixed + joint.random_eta(b), fitted.params.phi)[..., 0]
    return total / draws.shape[2]


def _marginal_information(joint: JointModel, params: Parameters, weight: Tensor, columns: Tensor) -> Tensor:
    """Information about the coefficients of `columns` (n, m) for each class, (m C, m C)."""
    m, classes = columns.shape[1], joint.n_classes
    weighted = torch.einsum("nm,ncd->nmcd", columns, weight)
    direct = torch.einsum("nk,nmcd->kcmd", columns, weighted).reshape(m * classes, m * classes)
    if not joint.terms:
        return direct
    right = joint.random_transpose(weighted.permute(0, 2, 1, 3).reshape(joint.n, classes, m * classes))
    flat = right.reshape(-1, m * classes)
    if dense_size(joint.segments) <= DENSE_LIMIT:
        factor = BlockedCholesky(joint.information(weight) + joint.precision_matrix(params), joint.segments)
        half = torch.as_tensor(factor.forward(flat.numpy()))
        return direct - half.T @ half
    solution = _conjugate_gradients(joint, params, weight, right).reshape(-1, m * classes)
    explained = flat.T @ solution
    return direct - 0.5 * (explained + explained.T)


def _conjugate_gradients(joint: JointModel, params: Parameters, weight: Tensor, right: Tensor) -> Tensor:
    """Solve (Z'WZ + P) x = right for all columns at once, (Q, C, k), preconditioned by the per-level blocks."""
    precisions = joint.precisions(params)
    factors = [
        torch.linalg.cholesky(level_blocks(joint, term, weight, precision))
        for term, precision in zip(joint.terms, precisions, strict=True)
    ]

    def apply(v: Tensor) -> Tensor:
        eta = joint.random_eta(v)
        return joint.random_transpose(torch.einsum("ncd,nds->ncs", weight, eta)) + joint.prior(v, precisions)[1]

    def precondition(v: Tensor) -> Tensor:
        parts = []
        for term, factor in zip(joint.terms, factors, strict=True):
            own = v[term.rows].reshape(term.q, factor.shape[1], -1)
            parts.append(torch.cholesky_solve(own, factor).reshape(-1, *v.shape[1:]))
        return torch.cat(parts)

    x = torch.zeros_like(right)
    residual = right.clone()
    z = precondition(residual)
    direction = z.clone()
    rz = (residual * z).sum(dim=(0, 1))
    stop = _CG_TOLERANCE**2 * rz.clamp_min(1e-300)
    for _ in range(_CG_STEPS):
        if bool((rz <= stop).all()):
            break
        applied = apply(direction)
        step = rz / (direction * applied).sum(dim=(0, 1)).clamp_min(1e-300)
        x += step * direction
        residual -= step * applied
        z = precondition(residual)
        fresh = (residual * z).sum(dim=(0, 1))
        direction = z + fresh / rz.clamp_min(1e-300) * direction
        rz = fresh
    return x


def _pinv(matrix: Tensor) -> Tensor:
    scale = torch.diagonal(matrix).clamp_min(1e-300).rsqrt()
    inverse = torch.linalg.pinv(scale[:, None] * matrix * scale, hermitian=True, rtol=1e-10)
    return scale[:, None] * inverse * scale


@dataclass(frozen=True)
class VarianceParameter:
    """One variance parameter on the scale where its error is nearly normal.

    Attributes
    ----------
    term : int
        Position of the random term; -1 for the residual.
    class_ : int
    i, j : int
        Column of a standard deviation (i == j, log scale), pair of a correlation (i < j, Fisher z scale).
    """

    term: int
    class_: int
    i: int
    j: int


@dataclass(frozen=True)
class VarianceErrors:
    """Standard errors of the variance parameters on log-sd and Fisher-z scales; NaN where a variance is 0."""

    parameters: tuple[VarianceParameter, ...]
    se: np.ndarray

    def of(self, term: int, class_: int, i: int, j: int) -> float:
        """The standard error of one parameter; NaN if it is not one."""
        wanted = VarianceParameter(term, class_, i, j)
        return float(self.se[self.parameters.index(wanted)]) if wanted in self.parameters else float("nan")


def variance_errors(fitted: Fitted) -> VarianceErrors:
    """Standard errors of Sigma and the residual standard deviation.

    From the curvature of the exact likelihood where that is at hand and the parameters are few, else by Louis (1982):
    expected complete-data information minus the variance of the complete-data score over the draws.
    """
    joint = fitted.joint
    everything = tuple(_variance_parameters(joint))
    active = tuple(p for p in everything if _is_positive(fitted, p))
    if not active:
        return VarianceErrors(everything, np.full(len(everything), np.nan))
    exact = fitted.sampler is None and joint.family.quadratic and len(active) <= _MOST_DIFFERENCED
    information = (_curvature if exact else _louis)(fitted, active)
    variance = np.full(len(active), np.nan)
    values = np.linalg.eigvalsh(information)
    if np.all(np.isfinite(values)) and values[0] > 0:
        variance = np.diag(np.linalg.inv(information))
    se = np.full(len(everything), np.nan)
    for parameter, value in zip(active, variance, strict=True):
        se[everything.index(parameter)] = np.sqrt(value)
    return VarianceErrors(everything, se)


def _variance_parameters(joint: JointModel) -> list[VarianceParameter]:
    out = []
    for k, term in enumerate(joint.terms):
        for c in range(joint.n_classes):
            out += [VarianceParameter(k, c, i, i) for i in range(term.r)]
            out += [VarianceParameter(k, c, i, j) for i, j in term.covariance.correlations(term.r)]
    if joint.family.has_dispersion:
        out.append(VarianceParameter(-1, 0, 0, 0))
    return out


def _is_positive(fitted: Fitted, parameter: VarianceParameter) -> bool:
    if parameter.term < 0:
        return fitted.params.phi > 0
    sigma = fitted.params.sigma[parameter.term][parameter.class_]
    return bool(sigma[parameter.i, parameter.i] > 0) and bool(sigma[parameter.j, parameter.j] > 0)


def _at(params: Parameters, parameters: tuple[VarianceParameter, ...], shift: np.ndarray) -> Parameters:
    """`params` moved by `shift` on the log-sd and Fisher-z scales."""
    sds = [torch.diagonal(s, dim1=-2, dim2=-1).sqrt() for s in params.sigma]
    correlations = [
        s / (sd[:, :, None] * sd[:, None, :]).clamp_min(1e-300) for s, sd in zip(params.sigma, sds, strict=True)
    ]
    sds = [sd.clone() for sd in sds]
    phi = params.phi
    for p, delta in zip(parameters, shift, strict=True):
        if p.term < 0:
            phi *= float(np.exp(2 * delta))
        elif p.i == p.j:
            sds[p.term][p.class_, p.i] *= float(np.exp(delta))
        else:
            z = torch.atanh(correlations[p.term][p.class_, p.i, p.j].clamp(-0.999999, 0.999999)) + delta
            correlations[p.term][p.class_, p.i, p.j] = correlations[p.term][p.class_, p.j, p.i] = torch.tanh(z)
    sigma = [r * sd[:, :, None] * sd[:, None, :] for r, sd in zip(correlations, sds, strict=True)]
    return Parameters(params.beta, tuple(sigma), phi)


def _curvature(fitted: Fitted, parameters: tuple[VarianceParameter, ...]) -> np.ndarray:
    """Minus the second derivatives of the exact log-likelihood, beta profiled out."""
    likelihood = GaussianLikelihood(fitted.joint, fitted.f)

    def value(shift: np.ndarray) -> float:
        moved = _at(fitted.working, parameters, shift)
        return -0.5 * likelihood.profile(likelihood.theta(moved), moved.phi).deviance

    return -_second_differences(value, len(parameters), 0.02)


def _second_differences(value: Callable[[np.ndarray], float], k: int, h: float) -> np.ndarray:
    steps = h * np.eye(k)
    centre = value(np.zeros(k))
    ahead, behind = [value(s) for s in steps], [value(-s) for s in steps]
    out = np.empty((k, k))
    for i in range(k):
        out[i, i] = (ahead[i] - 2 * centre + behind[i]) / h**2
        for j in range(i):
            both, neither = value(steps[i] + steps[j]), value(-steps[i] - steps[j])
            mixed = both - ahead[i] - ahead[j] + 2 * centre - behind[i] - behind[j] + neither
            out[i, j] = out[j, i] = mixed / (2 * h**2)
    return out


def _louis(fitted: Fitted, parameters: tuple[VarianceParameter, ...]) -> np.ndarray:
    joint = fitted.joint
    draws = fitted.thinned(_LOUIS_DRAWS if joint.family.has_dispersion else fitted.draws.b.shape[2])
    size, samples = len(parameters), draws.shape[2]
    complete, scores = np.zeros((size, size)), np.zeros((samples, size))
    derivatives = [_derivative(fitted.working, p) for p in parameters]
    precisions = joint.precisions(fitted.working)
    moments: dict[int, Tensor] = {}
    for a, p in enumerate(parameters):
        if p.term < 0:
            scores[:, a] = _dispersion_scores(fitted, draws)
            complete[a, a] = 2.0 * float(joint.weights.sum())
            continue
        term = joint.terms[p.term]
        if p.term not in moments:
            own = draws[term.rows].reshape(term.q, term.r, joint.n_classes, samples)
            moments[p.term] = torch.einsum("qics,qjcs->scij", own, own)
        precision = precisions[p.term][p.class_]
        pulled = precision @ derivatives[a] @ precision
        trace = float((precision * derivatives[a].T).sum())
        moment = moments[p.term][:, p.class_]
        scores[:, a] = 0.5 * ((moment * pulled).sum(dim=(1, 2)) - term.q * trace).numpy()
        for b, other in enumerate(parameters):
            if other.term == p.term and other.class_ == p.class_:
                complete[a, b] = 0.5 * term.q * float((pulled * derivatives[b].T).sum())
    return complete - np.cov(scores, rowvar=False).reshape(size, size)


def _derivative(params: Parameters, parameter: VarianceParameter, h: float = 1e-5) -> Tensor:
    """Derivative of Sigma with respect to one parameter, (r, r)."""
    if parameter.term < 0:
        return torch.zeros(0, 0)
    up = _at(params, (parameter,), np.array([h])).sigma[parameter.term][parameter.class_]
    down = _at(params, (parameter,), np.array([-h])).sigma[parameter.term][parameter.class_]
    return (up - down) / (2 * h)


def _dispersion_scores(fitted: Fitted, draws: Tensor) -> np.ndarray:
    """Score of log sigma for each draw, for a family whose phi is a residual variance."""
    joint, fixed, phi = fitted.joint, fitted.fixed, fitted.params.phi
    total = float(joint.weights.sum())
    out = []
    for b in draws.split(1, dim=2):
        best = joint.family.dispersion(fixed + joint.random_eta(b), joint.target.y, joint.weights)
        out.append(total * (best / phi - 1.0))
    return np.array(out)
