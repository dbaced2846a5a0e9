"""Known correlation of a grouping factor's levels: pedigree, phylogeny, distance in space."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from glmmnet.crossings import as_csr
from glmmnet.errors import DesignError

#: Entries of the inverse below this share of the largest are rounding error: that of a pedigree is sparse.
_NOTHING = 1e-12
#: A negative eigenvalue up to this share of the largest is rounding error.
_ROUNDING = 1e-8
#: Share of nonzeros up to which the inverse counts as sparse.
_SPARSE = 0.1


class Relation:
    """A, with which the effects of a term's levels have covariance A x Sigma, level by level.

    Parameters
    ----------
    matrix : ndarray, (q + m, q + m)
        Symmetric, in the order of the q levels with data and then of the m relatives, which have none; that of the
        levels is positive definite.
    relatives : Index, (m,)
        Their labels.
    """

    def __init__(self, matrix: np.ndarray, relatives: pd.Index) -> None:
        self._whole = torch.as_tensor(matrix, dtype=torch.float64)
        q = len(matrix) - len(relatives)
        self.relatives = relatives
        #: A of the levels with data, (q, q)
        self.matrix: Tensor = self._whole[:q, :q]
        #: L with A = L L', lower triangular
        self.root: Tensor = torch.linalg.cholesky(self.matrix)
        inverse = torch.cholesky_inverse(self.root)
        #: A^-1, (q, q), without its zeros
        self.precision = sp.csr_matrix(
            torch.where(inverse.abs() > _NOTHING * inverse.abs().max(), inverse, 0.0).numpy()
        )
        #: A^-1 is mostly zeros, as that of a pedigree is
        self.sparse: bool = self.precision.nnz <= _SPARSE * q**2
        # By type of number: the sampler's many calls would otherwise convert it each time.
        self._inverses: dict[torch.dtype, Tensor] = {}
        #: log |A|
        self.logdet: float = 2.0 * float(torch.log(torch.diagonal(self.root)).sum())

    @property
    def own(self) -> Tensor:
        """Diagonal of A, levels and then relatives, (q + m,)."""
        return self._whole.diagonal()

    def over_levels(self, matrix: Tensor, values: Tensor) -> Tensor:
        """Product of one of the matrices, (k, q), with values (q, ...)."""
        return (matrix.to(values.dtype) @ values.flatten(1)).reshape(-1, *values.shape[1:])

    def decorrelated(self, values: Tensor) -> Tensor:
        """A^-1 values, (q, ...)."""
        if values.dtype not in self._inverses:
            dense = torch.as_tensor(self.precision.toarray()).to(values.dtype)
            self._inverses[values.dtype] = as_csr(self.precision, values.dtype) if self.sparse else dense
        return (self._inverses[values.dtype] @ values.flatten(1).contiguous()).reshape(values.shape)

    def regression(self, which: Tensor) -> Tensor:
        """What the effects of some relatives (k,) are expected to be, given those of the levels: (k, q) times them."""
        return torch.linalg.solve_triangular(self.root.T, self._half(which), upper=True).T

    def _half(self, which: Tensor) -> Tensor:
        """L^-1 A between the levels and some relatives, (q, k)."""
        q = len(self.root)
        return torch.linalg.solve_triangular(self.root, self._whole[q + which, :q].T, upper=False)

    def conditional(self, which: Tensor) -> Tensor:
        """A of some relatives (k,) given the effects of the levels, (k, k)."""
        at, half = len(self.root) + which, self._half(which)
        return self._whole[at[:, None], at] - half.T @ half

    def conditional_variance(self, which: Tensor) -> Tensor:
        """Diagonal of :meth:`conditional`, (k,)."""
        half = self._half(which)
        return (self.own[len(self.root) + which] - half.square().sum(dim=0)).clamp_min(0.0)

    def conditional_root(self, which: Tensor) -> Tensor:
        """R with R R' = :meth:`conditional`, (k, k).

        Raises
        ------
        DesignError
            A has a negative eigenvalue.
        """
        conditional = self.conditional(which)
        root, failed = torch.linalg.cholesky_ex(conditional)
        if not int(failed):
            return root
        # Singular, say, where a relative is another's copy.
        values, vectors = torch.linalg.eigh(conditional)
        if float(values[0]) < -_ROUNDING * float(self.own.max()):
            raise DesignError(
                f"the known correlation of {len(which)} levels without rows, {self.relatives[int(which[0])]!r} among "
                f"them, is not positive definite: given the levels with rows it has the eigenvalue {values[0]:.3g}."
            )
        return vectors * values.clamp_min(0.0).sqrt()
