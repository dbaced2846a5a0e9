"""Where the sampler moves: whitened coordinates, or plain ones with the posterior's precision as mass matrix.

Both make the target nearly standard normal. Per-level whitening is cheap and blind to what crossed factors share; where
the whole precision has a sparse factor, using it as mass matrix costs one sparse solve a leapfrog and sees everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from glmmnet.cholesky import NEARLY_DENSE, SparseFactor, is_nearly_dense, may_factorize, sparse_factor
from glmmnet.joint import MANY_CLASSES, JointModel, Parameters
from glmmnet.laplace import WHOLE_LIMIT, damped, find_mode
from glmmnet.whitening import Whitening

#: Cost of a solve with one entry of the factor for each row and term, in gradients of the log density.
_SOLVE_COST = 0.7
#: The price at which a nearly dense factor is not worth its making.
_DEAR = 2.0
_POWER_STEPS = 25
#: Newton steps at most with which the mode is followed, the squared length of one, in posterior standard deviations of
#: all effects together, that ends them, and sweeps at most where a factor may take over or classes are many.
_STEPS, _NEAR, _FEW_SWEEPS = 4, 1.0, 3
#: Log ratio of a variance to that of the mass matrix, beyond which it no longer fits.
_MOVED = 0.7


class Centred:
    """Coordinates u = b - mode."""

    def __init__(self, mode: Tensor) -> None:
        self.mode = mode

    def to_b(self, u: Tensor) -> Tensor:
        return self.mode[:, :, None] + u

    def from_b(self, b: Tensor) -> Tensor:
        return b - self.mode[:, :, None]

    def pull(self, gradient: Tensor) -> Tensor:
        return gradient

    @property
    def log_det(self) -> float:
        return 0.0


@dataclass(frozen=True)
class PrecisionMetric:
    """The precision of b as mass matrix."""

    factor: SparseFactor
    matrix: sp.csr_matrix

    def momentum(self) -> Tensor:
        """A draw from N(0, H)."""
        return torch.from_numpy(self.factor.multiply(torch.randn(self.factor.size, dtype=torch.float64).numpy()))

    def velocity(self, momentum: Tensor) -> Tensor:
        """H^-1 momentum."""
        return torch.from_numpy(self.factor.solve(momentum.numpy()))

    def pull(self, u: Tensor) -> Tensor:
        """H u."""
        return torch.from_numpy(self.matrix @ u.numpy())


@dataclass(frozen=True)
class Coordinates:
    """Coordinates for the sampler at the present mode.

    Attributes
    ----------
    mode : Tensor, (Q, C)
    whitening : Whitening
    metric : PrecisionMetric or None
        None: unit mass.
    """

    mode: Tensor
    whitening: Whitening
    metric: PrecisionMetric | None


class CoordinateSystem:
    """Chooses coordinates once a fit, and renews them for each E-step.

    Neither whitening nor mass matrix need be up to date to be valid: what the data contribute to the curvature is
    computed anew only when asked, and the mass matrix when the variances have moved.
    """

    def __init__(self, joint: JointModel) -> None:
        self._joint = joint
        many = joint.n_effects * joint.n_classes > WHOLE_LIMIT and joint.n_classes <= MANY_CLASSES
        sparse = any(t.relation is not None and t.relation.sparse for t in joint.terms)
        self._crossed = (len(joint.terms) > 1 or sparse) and many and may_factorize(joint.crossings.nnz)
        self._metric: PrecisionMetric | None = None
        self._variances = torch.zeros(0, dtype=torch.float64)
        self._information: tuple[Tensor, ...] | None = None

    def at(
        self, fixed: Tensor, params: Parameters, start: Tensor | None, *, iterations: int = 50, renew: bool = True
    ) -> Coordinates:
        """Coordinates at the mode found from `start`; `renew` also renews curvature and mass matrix."""
        variances = torch.cat([torch.diagonal(s, dim1=-2, dim2=-1).reshape(-1) for s in params.sigma])
        renew = renew or self._have_moved(variances)
        if renew:
            self._variances = variances
        if self._metric is not None and start is not None:
            mode = self._followed(self._metric, fixed, params, start)
            self._metric = self._precision(fixed, params, mode) if renew else self._metric
            if self._metric is not None:
                return Coordinates(mode, Centred(mode), self._metric)
            self._crossed = False
        known = None if renew else self._information
        if self._crossed or self._joint.n_classes > MANY_CLASSES:
            iterations = min(iterations, _FEW_SWEEPS if renew else 1)
        point = find_mode(self._joint, fixed, params, start, iterations=iterations, information=known)
        self._information = point.information
        if self._crossed:
            self._metric = self._precision(fixed, params, point.mode)
            self._crossed = self._metric is not None
        if self._metric is None:
            return Coordinates(point.mode, point.whitening, None)
        mode = self._followed(self._metric, fixed, params, point.mode)
        return Coordinates(mode, Centred(mode), self._metric)

    def _followed(self, metric: PrecisionMetric, fixed: Tensor, params: Parameters, mode: Tensor) -> Tensor:
        """The mode by Newton steps with the precision at hand, which sees what crossed factors share."""
        joint, precisions = self._joint, self._joint.precisions(params)
        rows = joint.single if joint.family.single_precision else joint
        fixed = fixed.to(rows.weights.dtype)
        for _ in range(_STEPS):
            eta = fixed + rows.random_eta(mode[:, :, None].to(fixed.dtype))
            _, score = rows.log_likelihood_and_score(eta, params.phi)
            gradient = rows.random_transpose(score).to(torch.float64) - joint.prior(mode[:, :, None], precisions)[1]
            step = metric.velocity(gradient.reshape(-1))
            mode = mode + damped(joint, step.reshape(mode.shape))
            if float(torch.dot(gradient.reshape(-1), step)) < _NEAR:
                break
        return mode

    def _have_moved(self, variances: Tensor) -> bool:
        if len(self._variances) != len(variances):
            return True
        tiny = 1e-300
        return bool((torch.log((variances + tiny) / (self._variances + tiny)).abs() > _MOVED).any())

    def _precision(self, fixed: Tensor, params: Parameters, mode: Tensor) -> PrecisionMetric | None:
        joint = self._joint
        eta = fixed + joint.random_eta(mode[:, :, None])
        weight = joint.weight(eta, params.phi)[..., 0]
        matrix = joint.information(weight) + joint.precision_matrix(params)
        if not joint.related and is_nearly_dense(matrix) and self._price(NEARLY_DENSE * matrix.shape[0] ** 2) > _DEAR:
            return None
        factor = sparse_factor(matrix, single=True)
        if factor is None:
            return None
        if joint.related:
            # Beside related levels the whitening is a dense matrix of all effects.
            return PrecisionMetric(factor, matrix)
        # A leapfrog with the factor costs a solve more; without it a trajectory must be longer, by the root of the
        # largest posterior variance that per-level whitening leaves.
        pays = self._metric is not None or largest_variance(matrix, factor) ** 0.5 > self._price(factor.nnz)
        return PrecisionMetric(factor, matrix) if pays else None

    def _price(self, entries: float) -> float:
        """What a step with a factor of so many entries costs, in steps without."""
        joint = self._joint
        return 1.0 + _SOLVE_COST * entries / (joint.n * len(joint.terms) * joint.n_classes)


def largest_variance(matrix: sp.csr_matrix, factor: SparseFactor) -> float:
    """Largest eigenvalue of S H^-1 S, S the root of H's diagonal, by power iteration."""
    scale = np.sqrt(matrix.diagonal())
    vector = torch.randn(factor.size, dtype=torch.float64).numpy()
    value = _length(vector)
    for _ in range(_POWER_STEPS):
        vector = scale * factor.solve(scale * vector / value)
        value = _length(vector)
    return value


def _length(vector: np.ndarray) -> float:
    """The norm without numpy's BLAS, whose threads the fit does not set."""
    return math.sqrt(np.square(vector).sum())
