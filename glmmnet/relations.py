"""Known correlation of a grouping factor's levels: pedigree, phylogeny, distance in space."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

#: Entries of the inverse below this share of the largest are rounding error: that of a pedigree is sparse.
_NOTHING = 1e-12


class Relation:
    """A (q, q), with which the effects of a term's levels have covariance A x Sigma, level by level.

    Parameters
    ----------
    matrix : ndarray, (q, q)
        Symmetric and positive definite, in the order of the levels.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        #: A
        self.matrix: Tensor = torch.as_tensor(matrix, dtype=torch.float64)
        #: L with A = L L', lower triangular
        self.root: Tensor = torch.linalg.cholesky(self.matrix)
        inverse = torch.cholesky_inverse(self.root)
        #: A^-1
        self.precision: Tensor = torch.where(inverse.abs() > _NOTHING * inverse.abs().max(), inverse, 0.0)
        #: log |A|
        self.logdet: float = 2.0 * float(torch.log(torch.diagonal(self.root)).sum())

    def over_levels(self, matrix: Tensor, values: Tensor) -> Tensor:
        """Product of one of the matrices with values (q, ...)."""
        return (matrix.to(values.dtype) @ values.flatten(1)).reshape(values.shape)

    def sparse_precision(self) -> sp.csr_matrix:
        """A^-1 without its zeros."""
        return sp.csr_matrix(self.precision.numpy())
