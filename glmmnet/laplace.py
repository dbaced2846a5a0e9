"""Posterior mode and curvature of b, and the coordinates u that whiten it: b = mode + L u.

In u the posterior is nearly standard normal: a sampler needs no mass matrix and no deep trees. H = -d2 log p(y, b)
at the mode; L = R^-T with H = R R'. H is taken whole where it is small, else its diagonal blocks, a block a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from glmmnet.cholesky import BLOCKED_LIMIT, Factor, can_factorize, dense_size, factorize
from glmmnet.joint import JointModel, Parameters, TermData

#: Up to this many effects (Q C) the whole precision is factored; beyond, its per-level blocks.
WHOLE_LIMIT = 512
#: Longest Newton step of one effect, in units of eta, for families whose log density is not quadratic.
_LONGEST_STEP = 1.5


class Whitening(Protocol):
    """Coordinates u of b (Q, C, S), linear and invertible."""

    mode: Tensor

    def to_b(self, u: Tensor) -> Tensor:
        """Mode + L u."""
        ...

    def from_b(self, b: Tensor) -> Tensor:
        """L^-1 (b - mode)."""
        ...

    def pull(self, gradient: Tensor) -> Tensor:
        """L' gradient: a gradient with respect to b becomes one with respect to u."""
        ...

    @property
    def log_det(self) -> float:
        """Log |det L|."""
        ...


class WholeWhitening:
    """Whitening by the Cholesky factor of the whole precision."""

    def __init__(self, mode: Tensor, precision: Tensor) -> None:
        self.mode = mode
        self._factor = torch.linalg.cholesky(precision)
        self._inverse = torch.linalg.inv(self._factor)

    def to_b(self, u: Tensor) -> Tensor:
        return self.mode[:, :, None] + (self._inverse.T @ u.flatten(0, 1)).reshape(u.shape)

    def from_b(self, b: Tensor) -> Tensor:
        centred = (b - self.mode[:, :, None]).flatten(0, 1)
        return (self._factor.T @ centred).reshape(b.shape)

    def pull(self, gradient: Tensor) -> Tensor:
        return (self._inverse @ gradient.flatten(0, 1)).reshape(gradient.shape)

    @property
    def log_det(self) -> float:
        return -float(torch.log(torch.diagonal(self._factor)).sum())


class LevelWhitening:
    """Whitening by the Cholesky factors of the per-level blocks of the precision."""

    def __init__(self, joint: JointModel, mode: Tensor, blocks: list[Tensor]) -> None:
        self.mode = mode
        self._terms = joint.terms
        self._factors = [torch.linalg.cholesky(block) for block in blocks]
        self._inverses = [torch.linalg.inv(factor) for factor in self._factors]

    def to_b(self, u: Tensor) -> Tensor:
        return self.mode[:, :, None] + self._each([inverse.mT for inverse in self._inverses], u)

    def from_b(self, b: Tensor) -> Tensor:
        return self._each([factor.mT for factor in self._factors], b - self.mode[:, :, None])

    def pull(self, gradient: Tensor) -> Tensor:
        return self._each(self._inverses, gradient)

    @property
    def log_det(self) -> float:
        return -sum(float(torch.log(torch.diagonal(f, dim1=1, dim2=2)).sum()) for f in self._factors)

    def _each(self, matrices: list[Tensor], values: Tensor) -> Tensor:
        parts = []
        for term, matrix in zip(self._terms, matrices, strict=True):
            own = values[term.rows]
            if matrix.shape[1] == 1:
                parts.append(own * matrix)
            else:
                parts.append((matrix @ own.reshape(term.q, matrix.shape[1], -1)).reshape(own.shape))
        return torch.cat(parts)


@dataclass(frozen=True)
class LaplacePoint:
    """Mode of b (Q, C), and the whitening built on the curvature there."""

    mode: Tensor
    whitening: Whitening


def level_blocks(joint: JointModel, term: TermData, weight: Tensor, precision: Tensor) -> Tensor:
    """Diagonal blocks of H that belong to one term: (q, r C, r C)."""
    r, c = term.r, joint.n_classes
    if term.z is None:
        own = term.level_sum(weight).reshape(term.q, 1, c, 1, c)
    else:
        outer = term.z[:, :, None, None, None] * term.z[:, None, None, :, None] * weight[:, None, :, None, :]
        own = term.level_sum(outer)
    prior = torch.diag_embed(precision.permute(1, 2, 0)).permute(0, 2, 1, 3)
    return (own + prior).reshape(term.q, r * c, r * c)


def find_mode(
    joint: JointModel,
    fixed: Tensor,
    params: Parameters,
    start: Tensor | None = None,
    *,
    iterations: int = 50,
    tolerance: float = 1e-6,
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
    """
    mode = torch.zeros(joint.n_effects, joint.n_classes, dtype=torch.float64) if start is None else start
    if mode.numel() <= WHOLE_LIMIT:
        return _whole_mode(joint, fixed, params, mode, iterations, tolerance)
    return _level_mode(joint, fixed, params, mode, iterations, tolerance)


def _gradient(joint: JointModel, eta: Tensor, mode: Tensor, phi: float, precisions: tuple[Tensor, ...]) -> Tensor:
    _, score = joint.log_likelihood_and_score(eta, phi)
    return (joint.random_transpose(score) - joint.prior(mode[:, :, None], precisions)[1])[:, :, 0]


def _whole_mode(
    joint: JointModel, fixed: Tensor, params: Parameters, mode: Tensor, iterations: int, tolerance: float
) -> LaplacePoint:
    precisions = joint.precisions(params)
    prior = torch.as_tensor(joint.precision_matrix(params).toarray())
    longest = torch.cat([_longest(term) for term in joint.terms])
    eta = fixed + joint.random_eta(mode[:, :, None])
    for _ in range(iterations):
        weight = joint.weight(eta, params.phi)[..., 0]
        factor = torch.linalg.cholesky(torch.as_tensor(joint.information(weight).toarray()) + prior)
        gradient = _gradient(joint, eta, mode, params.phi, precisions)
        half = torch.linalg.solve_triangular(factor, gradient.reshape(-1, 1), upper=False)
        step = torch.linalg.solve_triangular(factor.T, half, upper=True).reshape(mode.shape)
        mode = mode + _damped(joint, step, longest)
        eta = fixed + joint.random_eta(mode[:, :, None])
        if float(half.abs().max()) < tolerance:
            break
    weight = joint.weight(eta, params.phi)[..., 0]
    precision = torch.as_tensor(joint.information(weight).toarray()) + prior
    return LaplacePoint(mode, WholeWhitening(mode, precision))


def _level_mode(
    joint: JointModel, fixed: Tensor, params: Parameters, mode: Tensor, iterations: int, tolerance: float
) -> LaplacePoint:
    precisions = joint.precisions(params)
    eta = fixed + joint.random_eta(mode[:, :, None])
    for _ in range(iterations):
        largest = 0.0
        for term, precision in zip(joint.terms, precisions, strict=True):
            _, score = joint.log_likelihood_and_score(eta, params.phi)
            weight = joint.weight(eta, params.phi)[..., 0]
            factor = torch.linalg.cholesky(level_blocks(joint, term, weight, precision))
            own = mode[term.rows].reshape(term.q, term.r, -1)
            pulled = torch.einsum("cij,qjc->qic", precision, own)
            gradient = term.transpose(score)[:, :, 0].reshape(own.shape) - pulled
            half = torch.linalg.solve_triangular(factor, gradient.reshape(term.q, -1, 1), upper=False)
            step = torch.linalg.solve_triangular(factor.mT, half, upper=True).reshape(-1, joint.n_classes)
            moved = torch.zeros_like(mode)
            moved[term.rows] = _damped(joint, step, _longest(term))
            mode = mode + moved
            eta = eta + term.eta(moved[:, :, None])
            largest = max(largest, float(half.abs().max()))
        if largest < tolerance:
            break
    weight = joint.weight(eta, params.phi)[..., 0]
    blocks = [level_blocks(joint, t, weight, p) for t, p in zip(joint.terms, precisions, strict=True)]
    return LaplacePoint(mode, LevelWhitening(joint, mode, blocks))


def _longest(term: TermData) -> Tensor:
    """Longest Newton step of each effect of a term, in its own units: (q r, 1)."""
    return (_LONGEST_STEP / term.size.clamp_min(1e-150)).repeat(term.q)[:, None]


def _damped(joint: JointModel, step: Tensor, longest: Tensor) -> Tensor:
    return step if joint.family.quadratic else step.clamp(-longest, longest)


@dataclass(frozen=True)
class GaussianPosterior:
    """The posterior of b where it is exactly Gaussian: mode (Q, C) and the factor of its precision."""

    mode: Tensor
    factor: Factor

    def draw(self, draws: int) -> Tensor:
        """Independent draws of b, (Q, C, S)."""
        spread = torch.as_tensor(self.factor.draw(draws))
        return self.mode[:, :, None] + spread.reshape(*self.mode.shape, draws)


def gaussian_posterior(joint: JointModel, fixed: Tensor, params: Parameters) -> GaussianPosterior:
    """Exact posterior of b for a quadratic family; see :func:`has_exact_posterior`."""
    weight = joint.weight(fixed, params.phi)[..., 0]
    factor = factorize(joint.information(weight) + joint.precision_matrix(params), joint.segments)
    _, score = joint.log_likelihood_and_score(fixed, params.phi)
    pulled = joint.random_transpose(score).reshape(-1, 1).numpy()
    mode = torch.as_tensor(factor.solve(np.ascontiguousarray(pulled)))
    return GaussianPosterior(mode.reshape(joint.n_effects, joint.n_classes), factor)


def has_exact_posterior(joint: JointModel) -> bool:
    """Whether the posterior of b is Gaussian and its precision can be factored."""
    return joint.family.quadratic and bool(joint.terms) and has_factor(joint)


def has_factor(joint: JointModel) -> bool:
    """Whether the whole precision of b can be factored, from its pattern alone."""
    if dense_size(joint.segments) <= BLOCKED_LIMIT:
        return True
    ones = torch.ones(joint.n, joint.n_classes, joint.n_classes, dtype=torch.float64)
    return can_factorize(joint.information(ones), joint.segments)
