"""The blocked factor against dense numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from glmmnet.cholesky import (
    DENSE_LIMIT,
    BlockedCholesky,
    Factor,
    Segment,
    SparseFactor,
    dense_rows,
    dense_size,
    is_nearly_dense,
)

SEED = 7
FactorOf = Callable[[sp.csr_matrix, tuple[Segment, ...]], Factor]


def segments_of(*sizes: tuple[int, int]) -> tuple[Segment, ...]:
    segments, start = [], 0
    for q, m in sizes:
        segments.append(Segment(start, q, m))
        start += q * m
    return tuple(segments)


LAYOUTS = {
    "one, m=1": segments_of((9, 1)),
    "one, m=2": segments_of((5, 2)),
    "one, m=3": segments_of((4, 3)),
    "two, largest first": segments_of((12, 1), (4, 2)),
    "two, largest last": segments_of((4, 1), (7, 3)),
    "two, equally large": segments_of((6, 1), (3, 2)),
    "three, largest in the middle": segments_of((5, 1), (9, 2), (2, 3)),
    "three, m=1": segments_of((8, 1), (5, 1), (3, 1)),
}

layouts = pytest.mark.parametrize("segments", LAYOUTS.values(), ids=list(LAYOUTS))


def precision(segments: tuple[Segment, ...], seed: int = SEED) -> np.ndarray:
    """Positive definite; no entry between two levels of the same segment, as in Z'WZ + P."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    size = sum(s.size for s in segments)
    total = np.eye(size)
    for _ in range(60):
        row = np.zeros(size)
        for s in segments:
            at = s.start + s.m * rng.integers(s.q)
            row[at : at + s.m] = rng.normal(size=s.m)
        total += np.outer(row, row)
    return total


@layouts
def test_solve_and_logdet(segments: tuple[Segment, ...]) -> None:
    h = precision(segments)
    rhs = np.random.default_rng(SEED).normal(size=(len(h), 3))
    factor = BlockedCholesky(sp.csr_matrix(h), segments)
    np.testing.assert_allclose(factor.solve(rhs), np.linalg.solve(h, rhs), rtol=1e-10, atol=1e-12)
    assert factor.logdet == pytest.approx(np.linalg.slogdet(h)[1], rel=1e-12)


@layouts
def test_forward_and_backward_are_inverses_of_one_factor(segments: tuple[Segment, ...]) -> None:
    """L^-1 H L'^-1 = I, and backward is the transpose of forward."""
    h = precision(segments)
    factor = BlockedCholesky(sp.csr_matrix(h), segments)
    identity = np.eye(len(h))
    forward, backward = factor.forward(identity), factor.backward(identity)
    np.testing.assert_allclose(backward, forward.T, atol=1e-12)
    np.testing.assert_allclose(forward @ h @ backward, identity, atol=1e-10)


@layouts
def test_backward_draws_have_covariance_h_inverse(segments: tuple[Segment, ...]) -> None:
    h = precision(segments)
    root = BlockedCholesky(sp.csr_matrix(h), segments).backward(np.eye(len(h)))
    np.testing.assert_allclose(root @ root.T, np.linalg.inv(h), atol=1e-12)


@layouts
@pytest.mark.parametrize("kind", [BlockedCholesky, lambda h, segments: SparseFactor(h)], ids=["blocked", "sparse"])
def test_diagonal_blocks_of_the_inverse_and_their_sum(segments: tuple[Segment, ...], kind: FactorOf) -> None:
    h = precision(segments)
    factor, inverse = kind(sp.csr_matrix(h), segments), np.linalg.inv(h)
    for segment in segments:
        own = inverse[segment.rows, segment.rows].reshape(segment.q, segment.m, segment.q, segment.m)
        blocks = own[np.arange(segment.q), :, np.arange(segment.q)]
        np.testing.assert_allclose(factor.inverse_blocks(segment), blocks, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(factor.sum_of_inverse_blocks(segment), blocks.sum(axis=0), rtol=1e-9, atol=1e-12)


def test_right_hand_side_is_left_alone() -> None:
    segments = LAYOUTS["two, largest last"]
    h = precision(segments)
    rhs = np.ones((len(h), 1))
    BlockedCholesky(sp.csr_matrix(h), segments).solve(rhs)
    np.testing.assert_array_equal(rhs, 1.0)


@layouts
@pytest.mark.parametrize("which", [0, -1])
def test_indefinite_is_an_error(segments: tuple[Segment, ...], which: int) -> None:
    h = precision(segments)
    h[which, which] = -1.0
    with pytest.raises((np.linalg.LinAlgError, torch.linalg.LinAlgError)):
        BlockedCholesky(sp.csr_matrix(h), segments)


def test_dense_size_leaves_out_the_largest_segment() -> None:
    assert dense_size(LAYOUTS["three, largest in the middle"]) == 5 + 6
    assert dense_size(LAYOUTS["one, m=3"]) == 0
    assert dense_size(()) == 0


@pytest.mark.parametrize("flushed", [False, True])
def test_a_factor_leaves_subnormal_numbers_as_they_were(flushed: bool) -> None:
    if not torch.set_flush_denormal(flushed):
        pytest.skip("this processor does not flush subnormal numbers")
    try:
        SparseFactor(sp.csr_matrix(np.eye(3)), single=True)
        assert (np.float32(1e-40) * np.float32(1.0) == 0.0) == flushed
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
def test_sparse_factor_solves_and_draws(single: bool) -> None:
    """Twice the same pattern with other numbers: the remembered order must serve both, and more right-hand sides than
    are solved for at once."""
    segments = LAYOUTS["three, largest in the middle"]
    rng = np.random.default_rng(SEED)
    for factor_of in (1.0, 3.0):
        h = factor_of * precision(segments) + np.eye(sum(s.size for s in segments))
        factor = SparseFactor(sp.csr_matrix(h), single)
        rhs = rng.normal(size=(len(h), 11))
        tolerance = 1e-4 if single else 1e-10
        np.testing.assert_allclose(factor.solve(rhs), np.linalg.solve(h, rhs), rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(
            factor.solve(rhs[:, 0]), np.linalg.solve(h, rhs[:, 0]), rtol=tolerance, atol=tolerance
        )
        assert factor.logdet == pytest.approx(np.linalg.slogdet(h)[1], rel=tolerance)
        root = factor.multiply(np.eye(len(h)))
        np.testing.assert_allclose(root @ root.T, h, rtol=tolerance, atol=100 * tolerance)


def test_sparse_factor_refuses_a_matrix_that_is_not_positive_definite() -> None:
    with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
        SparseFactor(sp.csr_matrix(np.diag([1.0, -1.0, 2.0])))


def crossed(rows: int, *sizes: int, nested: bool = False) -> tuple[sp.csr_matrix, tuple[Segment, ...]]:
    """Z'Z + I for factors whose levels meet at random, or follow each other along the rows."""
    rng = np.random.default_rng(SEED)
    along = np.arange(rows) / rows
    codes = [(along * q).astype(int) if nested else rng.integers(q, size=rows) for q in sizes]
    z = sp.hstack(
        [
            sp.csr_matrix((np.ones(rows), (np.arange(rows), c)), shape=(rows, q))
            for c, q in zip(codes, sizes, strict=True)
        ]
    )
    return (z.T @ z + sp.eye(sum(sizes))).tocsr(), segments_of(*((q, 1) for q in sizes))


def test_a_factor_of_levels_that_all_meet_is_nearly_dense() -> None:
    meeting, segments = crossed(60_000, 1300, 1200, 1100)
    following, _ = crossed(60_000, 1300, 1200, 1100, nested=True)
    assert is_nearly_dense(meeting) and not is_nearly_dense(following)
    # Between the limits a nearly full factor is left to LAPACK, a sparse one is not.
    assert dense_rows(meeting, segments) == 2300 < DENSE_LIMIT
    assert dense_rows(following, segments) == 0
