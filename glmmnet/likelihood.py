"""Marginal log-likelihood at the estimates: exact, by quadrature, by thermodynamic integration, or approximately.

Every method integrates b out given f; each states its Monte Carlo error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glmmnet.cholesky import dense_size, factorize
from glmmnet.em.coordinates import Coordinates, CoordinateSystem
from glmmnet.em.e_step import WhitenedPosterior
from glmmnet.errors import OptionError
from glmmnet.exact import log_volume, orthonormal
from glmmnet.gaussian import has_exact_posterior, has_factor
from glmmnet.joint import JointModel, Parameters
from glmmnet.laplace import LaplacePoint, find_mode, laplace_posterior
from glmmnet.quadrature import has_quadrature, level_quadrature, n_nodes
from glmmnet.typing import Sampler, SamplerState

#: Temperatures of thermodynamic integration; transitions that tune the step size at the first, and that forget the
#: temperature before at each.
_TEMPERATURES, _WARMUP, _FORGET = 5, 15, 5
#: Transitions a round at each temperature, rounds at most, and the Monte Carlo error that is small enough.
_TRANSITIONS, _ROUNDS, _ENOUGH = 20, 3, 0.1
#: Batches whose means tell a Monte Carlo error, at least; a copy of b makes one or more.
_BATCHES = 20
#: Draws of importance sampling.
_IMPORTANCE_DRAWS = 2000
#: Rows x draws held at once.
_ROWS_AT_ONCE = 4_000_000
#: Copies of b side by side in thermodynamic integration hold at most so many rows.
_COPIED_ROWS, _MOST_COPIES = 40_000, 50


@dataclass(frozen=True)
class LogLikelihood:
    """A marginal log-likelihood and how it was computed.

    Attributes
    ----------
    value : float
    se : float
        Monte Carlo standard error; 0 for deterministic methods.
    method : {"exact", "reml", "agq", "thermodynamic", "importance", "laplace"}
    """

    value: float
    se: float
    method: str


@dataclass(frozen=True)
class _Setting:
    joint: JointModel
    params: Parameters
    f: Tensor | None
    sampler: Sampler | None

    @property
    def fixed(self) -> Tensor:
        return self.joint.fixed_eta(self.params, self.f)


def log_likelihood(
    joint: JointModel,
    params: Parameters,
    f: Tensor | None = None,
    *,
    sampler: Sampler | None = None,
    method: str | None = None,
) -> LogLikelihood:
    """Log p(y) with b integrated out.

    Parameters
    ----------
    joint : JointModel
    params : Parameters
        Variances of exactly 0 replaced, see :func:`glmmnet.em.boundary.floored`.
    f : Tensor, (n, C), optional
        Network output, held fixed.
    sampler : Sampler, optional
        For ``thermodynamic``.
    method : str, optional
        None: the best that the model allows: exact (Gaussian), agq (one random term of at most two effects a level),
        else thermodynamic. ``reml``: of a Gaussian model, with beta integrated out as well; at its best beta.

    Raises
    ------
    OptionError
        Unknown method, or one that does not apply to this model.
    """
    setting = _Setting(joint, params, f, sampler)
    name = best_method(joint) if method is None else method
    if name not in _METHODS:
        raise OptionError(f"There is no likelihood method {name!r}; methods: {', '.join(_METHODS)}.")
    return _METHODS[name](setting)


def best_method(joint: JointModel) -> str:
    """The most accurate affordable method for this model."""
    if not joint.terms or has_exact_posterior(joint):
        return "exact"
    if has_quadrature(joint):
        return "agq"
    return "thermodynamic"


def _exact(setting: _Setting) -> LogLikelihood:
    joint = setting.joint
    if not joint.terms:
        value = float(joint.log_likelihood(setting.fixed, setting.params.phi)[0])
        return LogLikelihood(value, 0.0, "exact")
    if not joint.family.quadratic:
        raise OptionError(
            f"method='exact' needs the family gaussian with identity link, not {joint.family!r}; leave method= out for "
            "the best one."
        )
    if not has_exact_posterior(joint):
        raise _too_large("exact", joint)
    return LogLikelihood(_laplace_value(setting), 0.0, "exact")


def _too_large(method: str, joint: JointModel) -> OptionError:
    return OptionError(
        f"method={method!r} needs a factor of the random effects' precision, which is too large here: "
        f"{dense_size(joint.segments)} effects are left when the largest grouping factor is eliminated; use "
        "method='thermodynamic'."
    )


def _reml(setting: _Setting) -> LogLikelihood:
    """The exact likelihood with beta integrated out: less log|X'V^-1 X| / 2 and p of the factors (2 pi)^(-1/2)."""
    joint, params = setting.joint, setting.params
    if not joint.family.quadratic:
        raise OptionError(f"method='reml' needs the family gaussian with identity link, not {joint.family!r}.")
    value = _exact(setting).value
    weighted = joint.row_weights.sqrt()[:, None] * joint.X
    basis, _ = orthonormal(weighted)
    information = basis.T @ basis / params.phi
    if joint.terms:
        pulled = (joint.z_matrix.T @ (joint.row_weights.sqrt()[:, None] * basis).numpy()) / params.phi
        precision = joint.information(joint.weight(setting.fixed, params.phi)[..., 0]) + joint.precision_matrix(params)
        information = information - torch.as_tensor(pulled.T @ factorize(precision, joint.segments).solve(pulled))
    log_det = float(torch.linalg.slogdet(information)[1]) + 2 * log_volume(basis, weighted)
    return LogLikelihood(value - 0.5 * log_det + 0.5 * basis.shape[1] * math.log(2 * math.pi), 0.0, "reml")


def _laplace(setting: _Setting) -> LogLikelihood:
    if not setting.joint.terms:
        return _exact(setting)
    return LogLikelihood(_laplace_value(setting), 0.0, "laplace")


def _laplace_value(setting: _Setting) -> float:
    """Log p(y, mode) + (D log 2 pi - log|H|) / 2 with the whole observed H."""
    joint, params, fixed = setting.joint, setting.params, setting.fixed
    if not has_factor(joint):
        raise _too_large("laplace", joint)
    posterior = laplace_posterior(joint, fixed, params)
    mode, factor = posterior.mode, posterior.factor
    if not joint.family.canonical:
        eta = fixed + joint.random_eta(mode[:, :, None])
        observed = joint.information(joint.curvature(eta, params.phi)[..., 0]) + joint.precision_matrix(params)
        factor = factorize(observed, joint.segments)
    log_joint = _log_joint(setting, mode[:, :, None])
    return float(log_joint[0]) + 0.5 * (mode.numel() * math.log(2 * math.pi) - factor.logdet)


def _log_joint(setting: _Setting, b: Tensor) -> Tensor:
    """Log p(y, b) with every constant, (S,)."""
    joint, params = setting.joint, setting.params
    eta = setting.fixed + joint.random_eta(b)
    kernel, _ = joint.prior(b, joint.precisions(params))
    return joint.log_likelihood(eta, params.phi) + kernel + joint.prior_log_normalizer(params)


def _agq(setting: _Setting) -> LogLikelihood:
    """Adaptive Gauss-Hermite quadrature, level by level, around each level's mode."""
    if not has_quadrature(setting.joint):
        raise OptionError(
            "method='agq' needs one random term with at most two effects a level; use method='thermodynamic'."
        )
    quadrature = level_quadrature(setting.joint, setting.fixed, setting.params, n_nodes(setting.joint))
    return LogLikelihood(float(torch.logsumexp(quadrature.log_mass, dim=1).sum()), 0.0, "agq")


def _log_ratio(setting: _Setting, point: Coordinates | LaplacePoint, u: Tensor) -> Tensor:
    """Log p(y, b(u)) - log q(u), q the Laplace Gaussian; u (Q, C, S) -> (S,), S = 1 with a mass matrix."""
    metric = point.metric if isinstance(point, Coordinates) else None
    constant = -0.5 * point.mode.numel() * math.log(2 * math.pi)
    if metric is None:
        log_q = -0.5 * u.square().sum(dim=(0, 1)) + constant
    else:
        flat = u.reshape(-1)
        log_q = (0.5 * metric.factor.logdet - 0.5 * flat @ metric.pull(flat) + constant)[None]
    return _log_joint(setting, point.whitening.to_b(u)) + point.whitening.log_det - log_q


def _importance(setting: _Setting) -> LogLikelihood:
    """One-step importance sampling from the Laplace Gaussian, antithetic pairs."""
    if not setting.joint.terms:
        return _exact(setting)
    point = find_mode(setting.joint, setting.fixed, setting.params)
    pairs = _IMPORTANCE_DRAWS // 2
    chunk = max(1, min(pairs, _ROWS_AT_ONCE // (setting.joint.n * setting.joint.n_predictors)))
    ratios = []
    for _ in range(-(-pairs // chunk)):
        u = torch.randn(*point.mode.shape, chunk, dtype=torch.float64)
        ratios.append(torch.stack([_log_ratio(setting, point, u), _log_ratio(setting, point, -u)]))
    ratio = torch.cat(ratios, dim=1)
    # The two of a pair depend on each other; pairs do not.
    weight = torch.exp(ratio - ratio.max()).mean(dim=0)
    value = float(ratio.max() + torch.log(weight.mean()))
    return LogLikelihood(value, float(weight.std() / weight.mean()) / math.sqrt(len(weight)), "importance")


class _Tempered:
    """t log p(y, b(u)) + (1 - t) log q(u), with its gradient."""

    def __init__(self, posterior: WhitenedPosterior, point: Coordinates, temperature: float) -> None:
        self._posterior, self._metric, self._t = posterior, point.metric, temperature

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self._posterior(u)
        t, pull = self._t, u if self._metric is None else self._metric.pull(u)
        return t * value - 0.5 * (1 - t) * (u @ pull), t * gradient - (1 - t) * pull


def _base(setting: _Setting) -> Coordinates:
    """Where the Laplace Gaussian is: with the whole precision where that has a factor."""
    point = CoordinateSystem(setting.joint).at(setting.fixed, setting.params, None)
    if point.metric is not None:
        return point
    found = find_mode(setting.joint, setting.fixed, setting.params)
    return Coordinates(found.mode, found.whitening, None)


def _thermodynamic(setting: _Setting) -> LogLikelihood:
    """Integral over temperature t of E_t[log p - log q], from the Laplace Gaussian (t = 0) to the posterior (t = 1)."""
    joint, params, fixed = setting.joint, setting.params, setting.fixed
    if not joint.terms:
        return _exact(setting)
    if setting.sampler is None:
        raise OptionError("method='thermodynamic' needs a sampler; fit with sampler='nuts'.")
    point = _base(setting)
    copies = 1 if point.metric is not None else max(1, min(_MOST_COPIES, _COPIED_ROWS // joint.n))
    posterior = WhitenedPosterior(joint, fixed, params, point.whitening, copies)
    shape = (*point.mode.shape, copies)
    nodes, weights = np.polynomial.legendre.leggauss(_TEMPERATURES)
    targets = [_Tempered(posterior, point, float(t)) for t in (nodes + 1) / 2]
    states: list[SamplerState] = []
    state = SamplerState(posterior.start(point))
    for target in targets:
        # The whitened targets are alike: one step size suits them all.
        warmup = 0 if states else _WARMUP
        state = setting.sampler.draw(target, state, draws=_FORGET, warmup=warmup, metric=point.metric).state
        states.append(state)
    ratios: list[list[np.ndarray]] = [[] for _ in targets]
    value = se = math.inf
    for _ in range(_ROUNDS):
        for k, target in enumerate(targets):
            result = setting.sampler.draw(target, states[k], draws=_TRANSITIONS, metric=point.metric)
            states[k] = result.state
            ratios[k] += [_log_ratio(setting, point, u.reshape(shape)).numpy() for u in result.u]
        value = float(sum(w / 2 * np.mean(r) for w, r in zip(weights, ratios, strict=True)))
        se = math.sqrt(sum((w / 2) ** 2 * _variance_of_mean(np.array(r)) for w, r in zip(weights, ratios, strict=True)))
        if se < _ENOUGH:
            break
    return LogLikelihood(value, se, "thermodynamic")


def _variance_of_mean(values: np.ndarray) -> float:
    """Variance of the mean of autocorrelated series side by side (S, copies), from the means of batches."""
    copies = values.shape[1]
    times = min(-(-_BATCHES // copies), len(values))
    batches = np.array([batch.mean(axis=0) for batch in np.array_split(values, times)])
    return float(batches.var(ddof=1)) / batches.size


_METHODS: dict[str, Callable[[_Setting], LogLikelihood]] = {
    "exact": _exact,
    "reml": _reml,
    "agq": _agq,
    "thermodynamic": _thermodynamic,
    "importance": _importance,
    "laplace": _laplace,
}
