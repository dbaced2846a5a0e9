"""Cholesky factor of a random-effects precision: the largest factor is eliminated block by block, the rest is dense.

What lme4 and MixedModels.jl do in effect. With H = [[A, B], [B', C]], A block diagonal over the levels of the
largest term: H = L L' with L = [[L_A, 0], [V', L_S]], V = L_A^-1 B and S = C - V'V the Schur complement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

#: Largest dense Schur complement (rows) that is factored; beyond it other methods must serve.
DENSE_LIMIT = 4000


@dataclass(frozen=True)
class Segment:
    """The rows of H that belong to one term: `q` levels, `m` columns a level, from row `start`."""

    start: int
    q: int
    m: int

    @property
    def size(self) -> int:
        return self.q * self.m

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.size)


def dense_size(segments: Sequence[Segment]) -> int:
    """Rows of the Schur complement that is left when the largest segment is eliminated."""
    sizes = [s.size for s in segments]
    return sum(sizes) - max(sizes, default=0)


class BlockedCholesky:
    """Factor of a symmetric positive definite H (D, D).

    Parameters
    ----------
    matrix : scipy.sparse matrix, (D, D)
        Rows ordered term by term, within a term level by level.
    segments : sequence of Segment
        The terms' rows; together they cover all D.

    Raises
    ------
    numpy.linalg.LinAlgError or torch.linalg.LinAlgError
        If H is not positive definite.
    """

    def __init__(self, matrix: sp.csr_matrix, segments: Sequence[Segment]) -> None:
        self._n = matrix.shape[0]
        first = max(segments, key=lambda s: s.size)
        self._first = first.rows
        rest = np.ones(self._n, dtype=bool)
        rest[self._first] = False
        self._rest = np.flatnonzero(rest)
        top = matrix[self._first]
        blocks = _diagonal_blocks(top[:, self._first], first.q, first.m)
        self._inverse_a, log_a = _inverse_factors(blocks)
        self._v = (self._inverse_a @ top[:, self._rest]).tocsr()
        schur = matrix[self._rest][:, self._rest].toarray() - (self._v.T @ self._v).toarray()
        # Torch keeps to the session's one thread; NumPy's BLAS on a busy machine was 30 times slower.
        self._l_s: Tensor = torch.linalg.cholesky(torch.from_numpy(schur))
        #: log determinant of H
        self.logdet = 2.0 * (log_a + float(torch.log(torch.diagonal(self._l_s)).sum()))

    def forward(self, rhs: np.ndarray) -> np.ndarray:
        """L^-1 rhs for rhs (D, k)."""
        out = np.empty_like(rhs)
        out[self._first] = self._inverse_a @ rhs[self._first]
        if len(self._rest):
            right = rhs[self._rest] - self._v.T @ out[self._first]
            out[self._rest] = _solve(self._l_s, right, upper=False)
        return out

    def backward(self, rhs: np.ndarray) -> np.ndarray:
        """L'^-1 rhs for rhs (D, k); applied to standard normals it gives draws from N(0, H^-1)."""
        out = np.empty_like(rhs)
        top = rhs[self._first]
        if len(self._rest):
            below = _solve(self._l_s.T, rhs[self._rest], upper=True)
            out[self._rest] = below
            top = top - self._v @ below
        out[self._first] = self._inverse_a.T @ top
        return out

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """H^-1 rhs for rhs (D, k)."""
        return self.backward(self.forward(rhs))


def _solve(factor: Tensor, rhs: np.ndarray, *, upper: bool) -> np.ndarray:
    right = torch.from_numpy(np.ascontiguousarray(rhs))
    solution: np.ndarray = torch.linalg.solve_triangular(factor, right, upper=upper).numpy()
    return solution


def _diagonal_blocks(matrix: sp.csr_matrix, q: int, m: int) -> np.ndarray:
    if m == 1:
        return matrix.diagonal().reshape(q, 1, 1)
    entries = matrix.tocoo()
    blocks = np.zeros((q, m, m))
    np.add.at(blocks, (entries.row // m, entries.row % m, entries.col % m), entries.data)
    return blocks


def _inverse_factors(blocks: np.ndarray) -> tuple[sp.spmatrix, float]:
    """Block diagonal L_A^-1 as a sparse matrix, and the sum of the logs of L_A's diagonal."""
    q, m, _ = blocks.shape
    if m == 1:
        diagonal = blocks[:, 0, 0]
        if not np.all(diagonal > 0):
            raise np.linalg.LinAlgError("matrix is not positive definite")
        return sp.diags(1.0 / np.sqrt(diagonal)).tocsr(), 0.5 * float(np.log(diagonal).sum())
    factor = np.linalg.cholesky(blocks)
    inverse = np.linalg.inv(factor)
    log = float(np.log(np.diagonal(factor, axis1=1, axis2=2)).sum())
    return sp.bsr_matrix((inverse, np.arange(q), np.arange(q + 1))).tocsr(), log
