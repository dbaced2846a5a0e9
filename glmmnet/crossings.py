"""Which levels of the random terms meet in the rows: Z'WZ for any weights W, its pattern found once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from glmmnet.cholesky import Segment


def level_sum_matrix(index: np.ndarray, q: int) -> Tensor:
    """Sparse (q, n) matrix of ones whose product with (n, m) sums the rows to levels."""
    n = len(index)
    by_row = sp.csr_matrix((np.ones(n), index, np.arange(n + 1)), shape=(n, q))
    return as_csr(by_row.T.tocsr(), torch.float64)


def as_csr(matrix: sp.csr_matrix, dtype: torch.dtype) -> Tensor:
    """A sparse matrix as a torch tensor."""
    with warnings.catch_warnings():
        # Torch announces on first use that CSR tensors are in beta; the one product used here is tested.
        warnings.simplefilter("ignore")
        return torch.sparse_csr_tensor(
            torch.as_tensor(matrix.indptr, dtype=torch.int32),
            torch.as_tensor(matrix.indices, dtype=torch.int32),
            torch.as_tensor(matrix.data, dtype=dtype),
            matrix.shape,
            check_invariants=False,
        )


@dataclass(frozen=True)
class _Pair:
    """Terms k <= other and the cells, pairs of their levels that meet in a row: first (cells,), second (cells,)."""

    k: int
    other: int
    first: np.ndarray
    second: np.ndarray
    to_cells: Tensor


class Crossings:
    """The places of the nonzeros of Z'WZ, (D, D), and sums of rows to them.

    Parameters
    ----------
    indices : sequence of ndarray, each (n,)
        Level of each row, a term each.
    segments : sequence of Segment
        The terms' rows of the matrix.
    """

    def __init__(self, indices: Sequence[np.ndarray], segments: Sequence[Segment]) -> None:
        self._indices, self._segments = indices, segments

    @cached_property
    def _pairs(self) -> tuple[_Pair, ...]:
        return tuple(self._pair(k, other) for other in range(len(self._segments)) for k in range(other + 1))

    def _pair(self, k: int, other: int) -> _Pair:
        width = self._segments[other].q
        code = self._indices[k].astype(np.int64) * width + self._indices[other]
        found, cell = np.unique(code, return_inverse=True)
        return _Pair(k, other, found // width, found % width, level_sum_matrix(cell, len(found)))

    @cached_property
    def nnz(self) -> int:
        """Entries of the matrix."""
        sizes = [(1 if p.k == p.other else 2) * len(p.first) * self._block(p) for p in self._pairs]
        return sum(sizes)

    def _block(self, pair: _Pair) -> int:
        return self._segments[pair.k].m * self._segments[pair.other].m

    def matrix(self, products: Callable[[int, int, int], Tensor]) -> sp.csr_matrix:
        """Z'WZ.

        Parameters
        ----------
        products : callable
            (k, i, other) -> (n, m): what each row adds to the entries of its levels in row i of term k's block and all
            m columns of the other term's.

        Returns
        -------
        scipy.sparse.csr_matrix, (D, D)
            Float64, with sorted indices.
        """
        values = np.concatenate([part.ravel() for pair in self._pairs for part in self._values(pair, products)])
        order, indices, indptr = self._pattern
        size = len(indptr) - 1
        out = sp.csr_matrix((values[order], indices, indptr), shape=(size, size))
        out.has_sorted_indices = True
        return out

    def _values(self, pair: _Pair, products: Callable[[int, int, int], Tensor]) -> Iterator[np.ndarray]:
        """Blocks (cells, m_k, m), and their transposes where the pair is of two terms."""
        rows = [pair.to_cells @ products(pair.k, i, pair.other) for i in range(self._segments[pair.k].m)]
        blocks = torch.stack(rows, dim=1).numpy()
        yield blocks
        if pair.k != pair.other:
            yield blocks.transpose(0, 2, 1)

    @cached_property
    def _pattern(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Order of the values along the matrix, its column indices and row pointers."""
        places = [places for pair in self._pairs for places in self._places(pair)]
        rows, columns = (np.concatenate(part) for part in zip(*places, strict=True))
        size = sum(s.size for s in self._segments)
        numbered = sp.csr_matrix((np.arange(len(rows)), (rows, columns)), shape=(size, size))
        numbered.sort_indices()
        return numbered.data, numbered.indices, numbered.indptr

    def _places(self, pair: _Pair) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows and columns of the entries of :meth:`_values`."""
        k, other = self._segments[pair.k], self._segments[pair.other]
        rows = (k.start + pair.first * k.m)[:, None] + np.arange(k.m)
        columns = (other.start + pair.second * other.m)[:, None] + np.arange(other.m)
        yield np.repeat(rows, other.m, axis=1).ravel(), np.tile(columns, (1, k.m)).ravel()
        if pair.k != pair.other:
            yield np.repeat(columns, k.m, axis=1).ravel(), np.tile(rows, (1, other.m)).ravel()
