"""Gaussian posteriors of b: the exact one of a quadratic family, and what stands in for another's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from glmmnet.cholesky import DENSE_LIMIT, Factor, Segment, dense_size, factorize, has_sparse_factor, may_factorize
from glmmnet.joint import JointModel, Parameters

#: Columns of an inverse that are solved for together.
_COLUMNS_AT_ONCE = 500


@dataclass(frozen=True)
class GaussianPosterior:
    """A Gaussian posterior of b, exact or approximate: mode (Q, C), the factor of its precision, the terms' rows."""

    mode: Tensor
    factor: Factor
    segments: tuple[Segment, ...]

    def draw(self, draws: int) -> Tensor:
        """Independent draws of b, (Q, C, S), from torch's global generator."""
        return self.mode[:, :, None] + self._spread(torch.randn(self.mode.numel(), draws, dtype=torch.float64))

    def balanced(self, normal: Tensor) -> Tensor:
        """Draws (Q, C, 2 S) of standard normals (Q C, S), each with its mirror image: their mean is the posterior's."""
        spread = self._spread(normal)
        return self.mode[:, :, None] + torch.cat([spread, -spread], dim=2)

    def _spread(self, normal: Tensor) -> Tensor:
        return torch.as_tensor(self.factor.spread(normal.numpy())).reshape(*self.mode.shape, -1)

    def sd(self) -> Tensor:
        """Posterior standard deviations, (Q, C): from the diagonal of the inverse precision."""
        variance = [self.factor.inverse_blocks(s).diagonal(axis1=1, axis2=2).ravel() for s in self.segments]
        return torch.as_tensor(np.concatenate(variance)).sqrt().reshape(self.mode.shape)

    def variance(self, combinations: sp.csc_matrix) -> Tensor:
        """Posterior variances of linear combinations of b, the columns (Q C, k): (k,)."""
        variance = np.empty(combinations.shape[1])
        for start in range(0, len(variance), _COLUMNS_AT_ONCE):
            own = slice(start, start + _COLUMNS_AT_ONCE)
            columns = combinations[:, own].toarray()
            variance[own] = np.einsum("ij,ij->j", columns, self.factor.solve(columns))
        return torch.as_tensor(variance)


def gaussian_posterior(joint: JointModel, fixed: Tensor, params: Parameters) -> GaussianPosterior:
    """Exact posterior of b for a quadratic family; see :func:`has_exact_posterior`."""
    weight = joint.weight(fixed, params.phi)[..., 0]
    factor = factorize(joint.information(weight) + joint.precision_matrix(params), joint.segments)
    _, score = joint.log_likelihood_and_score(fixed, params.phi)
    pulled = joint.random_transpose(score).reshape(-1, 1).numpy()
    mode = torch.as_tensor(factor.solve(np.ascontiguousarray(pulled)))
    return GaussianPosterior(mode.reshape(joint.n_effects, joint.n_classes), factor, joint.segments)


def has_exact_posterior(joint: JointModel) -> bool:
    """Whether the posterior of b is Gaussian and its precision can be factored."""
    return joint.family.quadratic and bool(joint.terms) and has_factor(joint)


def has_factor(joint: JointModel) -> bool:
    """Whether the whole precision of b can be factored, from its pattern alone."""
    if dense_size(joint.segments) <= DENSE_LIMIT:
        return True
    # H itself, which the bound of the fill looks at, takes long enough to leave out where it is in vain.
    if not may_factorize(joint.crossings.nnz):
        return False
    return has_sparse_factor(joint.pattern())
