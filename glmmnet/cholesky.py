"""Cholesky factor of a random-effects precision: the largest factor is eliminated block by block, the rest is dense.

What lme4 and MixedModels.jl do in effect. With H = [[A, B], [B', C]], A block diagonal over the levels of the
largest term: H = L L' with L = [[L_A, 0], [V', L_S]], V = L_A^-1 B and S = C - V'V the Schur complement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import scipy.sparse.csgraph as csgraph
import scipy.sparse.linalg as spla
import torch
from torch import Tensor

#: Most rows of a dense Schur complement that are factored; beyond it the factor must be sparse, or other methods serve.
DENSE_LIMIT = 4000
#: Up to here the dense Cholesky of the Schur complement is faster than a sparse factor.
BLOCKED_LIMIT = 2000
#: Entries of a sparse factor up to which it is tried, and the numbers of hubs that its bound looks at.
_FILL_LIMIT = 15_000_000
#: Rows of a block beyond which its own sparsity is looked for, and the share of entries that is sparse.
_LARGE_BLOCK, _FEW = 300, 0.25
#: Share of the entries of H beyond which a sparse factor is as good as dense, and ten times slower than a dense one.
NEARLY_DENSE = 0.15
_HUBS = (0, 30, 100, 300, 600, 1000, 1500, 2500, 4000)
#: Columns of an inverse that are solved for together.
_COLUMNS_AT_ONCE = 500
#: Right-hand sides that SuperLU solves for at once: more leave the cache and take three times as long each.
_AT_ONCE = 4
#: Patterns of nonzeros whose order is remembered: that of all rows and that of the rows a network learns from, twice.
_PATTERNS = 4


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
    """Rows of the Schur complement that is left when the largest segment of several blocks is eliminated."""
    return sum(s.size for s in segments) - _first(segments).size


def _first(segments: Sequence[Segment]) -> Segment:
    """The segment that is eliminated block by block; one block alone is as well left to the dense factor."""
    return max((s for s in segments if s.q > 1), key=lambda s: s.size, default=Segment(0, 0, 1))


class Factor(Protocol):
    """A factored precision H (D, D)."""

    logdet: float

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """H^-1 rhs for rhs (D, k)."""
        ...

    def spread(self, normal: np.ndarray) -> np.ndarray:
        """Of standard normals (D, k), draws from N(0, H^-1)."""
        ...

    def quadratic(self, rhs: np.ndarray) -> np.ndarray:
        """Rhs' H^-1 rhs for rhs (D, k)."""
        ...

    def inverse_blocks(self, segment: Segment) -> np.ndarray:
        """Diagonal blocks of H^-1 that belong to the segment's levels, (q, m, m)."""
        ...

    def sum_of_inverse_blocks(self, segment: Segment) -> np.ndarray:
        """The sum of those blocks, (m, m)."""
        ...


def may_factorize(nnz: int) -> bool:
    """Whether a sparse factor of an H with so many entries may be small enough; it has half of them at least."""
    return nnz <= 2 * _FILL_LIMIT


def has_sparse_factor(matrix: sp.csr_matrix) -> bool:
    """Whether the sparse factor of a matrix with H's pattern is known to be small."""
    return fill_bound(matrix) <= _FILL_LIMIT


def factorize(matrix: sp.csr_matrix, segments: Sequence[Segment]) -> Factor:
    """The factor that suits H: blocked while little or dense is what is left beside the largest term, else sparse.

    More than :data:`DENSE_LIMIT` rows need :func:`has_sparse_factor`.
    """
    rows = dense_size(segments)
    if rows > DENSE_LIMIT:
        return SparseFactor(matrix)
    factor = sparse_factor(matrix) if _prefers_sparse(matrix, segments) else None
    return BlockedCholesky(matrix, segments) if factor is None else factor


def dense_rows(matrix: sp.csr_matrix, segments: Sequence[Segment]) -> int:
    """Rows of the dense part of what :func:`factorize` makes of a matrix with H's pattern; 0 if that is sparse."""
    rows = dense_size(segments)
    return 0 if _prefers_sparse(matrix, segments) and has_sparse_factor(matrix) else rows


def _prefers_sparse(matrix: sp.csr_matrix, segments: Sequence[Segment]) -> bool:
    if _has_sparse_block(matrix, segments):
        return True
    rows = dense_size(segments)
    return rows > BLOCKED_LIMIT and (rows > DENSE_LIMIT or not is_nearly_dense(matrix))


def is_nearly_dense(matrix: sp.csr_matrix) -> bool:
    """Whether a sparse factor of a matrix with H's pattern would be nearly full, as where all levels meet."""
    return fill_bound(matrix) > NEARLY_DENSE * matrix.shape[0] ** 2


def _has_sparse_block(matrix: sp.csr_matrix, segments: Sequence[Segment]) -> bool:
    """Whether H has a large block of related levels, as of a pedigree, and a factor of far fewer entries than dense."""
    return max(s.m for s in segments) > _LARGE_BLOCK and fill_bound(matrix) <= _FEW * matrix.shape[0] ** 2


def sparse_factor(matrix: sp.csr_matrix, single: bool = False) -> SparseFactor | None:
    """The sparse factor of H, or None where its fill is not known to be small."""
    return SparseFactor(matrix, single) if has_sparse_factor(matrix) else None


def fill_bound(matrix: sp.csr_matrix) -> float:
    """An upper bound of the entries of H's factor in a good order.

    Levels with many partners (hubs) come last, as a dense block; without them H falls into components, each with the
    hubs it touches, or has a narrow envelope, as where the levels of all factors follow each other along the rows. The
    bound is the best over some numbers of hubs; beyond :data:`_FILL_LIMIT` it is only some number beyond.
    """
    pattern = _pattern(matrix)
    if pattern.fill is None:
        degree = np.diff(matrix.indptr)
        order = np.argsort(-degree, kind="stable")
        pattern.fill = min(_bound_with(matrix, order[:hubs], order[hubs:]) for hubs in _HUBS if hubs < len(order))
    return pattern.fill


@dataclass
class _Pattern:
    """What depends on the places of H's nonzeros alone.

    Attributes
    ----------
    fill : float or None
        See :func:`fill_bound`.
    order : ndarray of int, (D,), or None
        Rows in the order in which they are eliminated.
    """

    fill: float | None = None
    order: np.ndarray | None = None


@lru_cache(maxsize=_PATTERNS)
def _known(digest: bytes) -> _Pattern:
    """The record of the pattern with this digest, for whoever finds something out to write into."""
    return _Pattern()


def _pattern(matrix: sp.csr_matrix) -> _Pattern:
    matrix.sort_indices()
    digest = hashlib.blake2b(matrix.indptr.tobytes())
    digest.update(matrix.indices.tobytes())
    return _known(digest.digest())


def _bound_with(matrix: sp.csr_matrix, hubs: np.ndarray, rest: np.ndarray) -> float:
    inside = matrix[rest]
    count, label = csgraph.connected_components(inside[:, rest], directed=False)
    size = np.bincount(label, minlength=count).astype(float)
    member = sp.csr_matrix((np.ones(len(rest)), (label, np.arange(len(rest)))), shape=(count, len(rest)))
    touched = np.diff((member @ inside[:, hubs]).indptr) if len(hubs) else np.zeros(count)
    in_components = 0.5 * len(hubs) ** 2 + (size * (0.5 * size + touched)).sum()
    beside_hubs = len(hubs) * matrix.shape[0]
    if beside_hubs >= min(in_components, _FILL_LIMIT):
        return float(in_components)
    return float(min(in_components, beside_hubs + _envelope(inside[:, rest])))


def _envelope(matrix: sp.csr_matrix) -> int:
    """Entries from each row's first nonzero to the diagonal, in an order that keeps nonzeros near it."""
    order = csgraph.reverse_cuthill_mckee(matrix, symmetric_mode=True)
    matrix = matrix[order][:, order].tocsr()
    matrix.sort_indices()
    place = np.arange(matrix.shape[0])
    first = matrix.indices[matrix.indptr[:-1]]
    return int((place - np.minimum(first, place) + 1).sum())


class SparseFactor:
    """Sparse factor of a symmetric positive definite H in a fill-reducing order: P H P' = L D L'.

    SuperLU in symmetric mode, without pivoting, which a positive definite matrix does not need. The order takes three
    times as long to find as the factor to compute; it is found once a pattern of nonzeros.

    Parameters
    ----------
    matrix : scipy.sparse matrix, (D, D)
    single : bool
        Factor and solve in single precision, enough for a mass matrix.
    """

    def __init__(self, matrix: sp.csr_matrix, single: bool = False) -> None:
        self._dtype = np.float32 if single else np.float64
        #: rows of H
        self.size = matrix.shape[0]
        matrix, pattern = matrix.astype(self._dtype), _pattern(matrix)
        if pattern.order is None:
            pattern.order = np.argsort(_superlu(matrix, "MMD_AT_PLUS_A").perm_c)
        self._order = pattern.order
        self._lu = _superlu(matrix[self._order][:, self._order], "NATURAL")
        diagonal = self._lu.U.diagonal()
        if not np.all(diagonal > 0):
            raise np.linalg.LinAlgError("matrix is not positive definite")
        self._diagonal = diagonal.astype(np.float64)
        #: log determinant of H
        self.logdet = float(np.log(self._diagonal).sum())
        #: entries of L
        self.nnz = int(self._lu.L.nnz)

    @cached_property
    def _root(self) -> sp.csr_matrix:
        return (self._lu.L @ sp.diags(np.sqrt(self._diagonal))).tocsr().astype(np.float64)

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """H^-1 rhs for rhs (D,) or (D, k)."""
        ordered = rhs[self._order].astype(self._dtype, copy=False)
        solution = np.empty(rhs.shape)
        if rhs.ndim == 1:
            solution[self._order] = self._lu.solve(ordered)
            return solution
        for first in range(0, rhs.shape[1], _AT_ONCE):
            columns = slice(first, first + _AT_ONCE)
            solution[self._order, columns] = self._lu.solve(np.ascontiguousarray(ordered[:, columns]))
        return solution

    def quadratic(self, rhs: np.ndarray) -> np.ndarray:
        """Rhs' H^-1 rhs for rhs (D, k)."""
        product: np.ndarray = rhs.T @ self.solve(rhs)
        return product

    def multiply(self, normal: np.ndarray) -> np.ndarray:
        """F normal with F F' = H: of standard normals it makes draws from N(0, H)."""
        product = np.empty(normal.shape)
        product[self._order] = self._root @ normal
        return product

    def spread(self, normal: np.ndarray) -> np.ndarray:
        """Of standard normals (D, k), draws from N(0, H^-1)."""
        return self.solve(self.multiply(normal))

    def inverse_blocks(self, segment: Segment) -> np.ndarray:
        """Diagonal blocks of H^-1 that belong to the segment's levels, (q, m, m)."""
        blocks = np.empty((segment.q, segment.m, segment.m))
        at_once = max(_COLUMNS_AT_ONCE // segment.m, 1)
        for level in range(0, segment.q, at_once):
            few = Segment(segment.start + level * segment.m, min(at_once, segment.q - level), segment.m)
            columns = np.zeros((self.size, few.size))
            columns[few.rows] = np.eye(few.size)
            own = self.solve(columns)[few.rows].reshape(few.q, few.m, few.q, few.m)
            blocks[level : level + few.q] = own[np.arange(few.q), :, np.arange(few.q)]
        return blocks

    def sum_of_inverse_blocks(self, segment: Segment) -> np.ndarray:
        """The sum of those blocks, (m, m)."""
        return self.inverse_blocks(segment).sum(axis=0)


def _superlu(matrix: sp.csr_matrix, order: str) -> spla.SuperLU:
    """Its rows and columns keep their places in the order "NATURAL"."""
    options = {"SymmetricMode": True}
    with _flushed():
        return spla.splu(matrix.tocsc(), permc_spec=order, diag_pivot_thresh=0.0, options=options)


@contextmanager
def _flushed() -> Iterator[None]:
    """Subnormal numbers count as 0: a factor in single precision is full of them, and took twice as long."""
    already = np.float32(1e-40) * np.float32(1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(bool(already))


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
        first = _first(segments)
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
        """L'^-1 rhs for rhs (D, k)."""
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

    def quadratic(self, rhs: np.ndarray) -> np.ndarray:
        """Rhs' H^-1 rhs for rhs (D, k)."""
        half = torch.from_numpy(self.forward(rhs))
        product: np.ndarray = (half.T @ half).numpy()
        return product

    def spread(self, normal: np.ndarray) -> np.ndarray:
        """Of standard normals (D, k), draws from N(0, H^-1)."""
        return self.backward(normal)

    def inverse_blocks(self, segment: Segment) -> np.ndarray:
        """Diagonal blocks of H^-1 that belong to the segment's levels, (q, m, m)."""
        if segment.rows != self._first:
            own = np.searchsorted(self._rest, np.arange(segment.start, segment.rows.stop))
            levels = own.reshape(segment.q, segment.m)
            inverse = self._inverse_schur
            return inverse[levels[:, :, None], levels[:, None, :]]
        # L_A'^-1 (I + U'U) L_A^-1 with U = L_S^-1 V', block by block.
        size = segment.q, segment.m
        own = self._own_factors(segment)
        right = _solve(self._l_s, self._v.T.toarray(), upper=False).reshape(-1, *size)
        inner = np.einsum("sqi,sqj->qij", right, right) + np.eye(segment.m)
        return own @ inner @ own.transpose(0, 2, 1)

    def sum_of_inverse_blocks(self, segment: Segment) -> np.ndarray:
        """The sum of those blocks, (m, m), without a dense solve a level."""
        if segment.rows != self._first:
            return self.inverse_blocks(segment).sum(axis=0)
        m = segment.m
        own = self._own_factors(segment)
        total: np.ndarray = np.einsum("qia,qja->ij", own, own)
        if not len(self._rest):
            return total
        # A^-1 + W S^-1 W' with W = A^-1 B: of its blocks' sum only the entries of S^-1 count where W_i'W_j has some.
        w = (self._inverse_a.T @ self._v).tocsr()
        rows = [w[i::m] for i in range(m)]
        for i, j in zip(*np.tril_indices(m), strict=True):
            meet = (rows[i].T @ rows[j]).tocoo()
            shared = (meet.data * self._inverse_schur[meet.row, meet.col]).sum()
            total[i, j] += shared
            if i != j:
                total[j, i] += shared
        return total

    def _own_factors(self, first: Segment) -> np.ndarray:
        """L_A'^-1 of each level, (q, m, m)."""
        return np.asarray(self._inverse_a.T.tobsr((first.m, first.m)).data).reshape(first.q, first.m, first.m)

    @cached_property
    def _inverse_schur(self) -> np.ndarray:
        inverse: np.ndarray = torch.cholesky_inverse(self._l_s).numpy()
        return inverse


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
