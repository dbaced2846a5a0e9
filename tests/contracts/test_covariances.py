"""What every registered covariance structure must do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from glmmnet.covariances import COVARIANCES

SEED = 5
C = 2

every_structure = pytest.mark.parametrize("name", list(COVARIANCES))
every_size = pytest.mark.parametrize("r", [1, 2, 3])


def generator() -> torch.Generator:
    print(f"seed {SEED}")
    return torch.Generator().manual_seed(SEED)


def moment(r: int) -> Tensor:
    """A positive definite (C, r, r)."""
    root = torch.randn(C, r, r + 2, dtype=torch.float64, generator=generator())
    return root @ root.mT / (r + 2)


def working(name: str, r: int) -> Tensor:
    """A working matrix with random values where the structure allows them."""
    free = COVARIANCES[name].free(r)
    a = torch.eye(r, dtype=torch.float64).repeat(C, 1, 1)
    a[:, free[:, 0], free[:, 1]] += 0.7 * torch.randn(C, len(free), dtype=torch.float64, generator=generator())
    return a


def assert_covariance(sigma: Tensor) -> None:
    torch.testing.assert_close(sigma, sigma.mT, rtol=0, atol=1e-14)
    assert float(torch.linalg.eigvalsh(sigma).min()) > -1e-12


@every_structure
@every_size
def test_expand_gives_a_covariance_of_the_structure(name: str, r: int) -> None:
    covariance = COVARIANCES[name]
    sigma = covariance.expand(moment(r), working(name, r))
    assert sigma.shape == (C, r, r)
    assert_covariance(sigma)
    torch.testing.assert_close(covariance.project(sigma), sigma)


@every_structure
@every_size
def test_expand_by_the_identity_is_the_projection(name: str, r: int) -> None:
    covariance, s = COVARIANCES[name], moment(r)
    identity = torch.eye(r, dtype=torch.float64).repeat(C, 1, 1)
    torch.testing.assert_close(covariance.expand(s, identity), covariance.project(s))


@every_structure
@every_size
def test_structure_is_closed_under_the_working_matrix(name: str, r: int) -> None:
    """A S A' loses nothing by the projection, so the expanded M-step is exact."""
    covariance, a = COVARIANCES[name], working(name, r)
    s = covariance.project(moment(r))
    torch.testing.assert_close(covariance.expand(s, a), a @ s @ a.mT)


@every_structure
@every_size
def test_projection_is_idempotent_and_symmetric(name: str, r: int) -> None:
    covariance = COVARIANCES[name]
    once = covariance.project(moment(r))
    assert_covariance(once)
    torch.testing.assert_close(covariance.project(once), once, rtol=0, atol=0)


@every_structure
@every_size
def test_projection_is_the_nearest_in_likelihood(name: str, r: int) -> None:
    """No step within the structure raises the expected log density -log|Sigma| - tr(Sigma^-1 S)."""
    covariance, s = COVARIANCES[name], moment(r)[0]

    def fit(sigma: Tensor) -> float:
        return -float(torch.linalg.slogdet(sigma)[1] + torch.trace(torch.linalg.solve(sigma, s)))

    best = covariance.project(s)
    for i, j in covariance.factor_entries(r).tolist():
        for step in (-1e-3, 1e-3):
            moved = best.clone()
            moved[i, j] += step
            moved[j, i] = moved[i, j]
            assert fit(moved) < fit(best)


@every_structure
@every_size
def test_factor_entries_span_the_structure(name: str, r: int) -> None:
    covariance = COVARIANCES[name]
    entries = covariance.factor_entries(r)
    assert bool((entries[:, 0] >= entries[:, 1]).all())
    assert len({tuple(e) for e in entries.tolist()}) == len(entries) == covariance.n_parameters(r)
    sigma = covariance.project(moment(r))
    factor = torch.linalg.cholesky(sigma)
    kept = torch.zeros_like(factor)
    kept[:, entries[:, 0], entries[:, 1]] = factor[:, entries[:, 0], entries[:, 1]]
    torch.testing.assert_close(kept @ kept.mT, sigma)


@every_structure
@every_size
def test_correlations_are_the_entries_below_the_diagonal(name: str, r: int) -> None:
    covariance = COVARIANCES[name]
    pairs = covariance.correlations(r)
    assert all(0 <= i < j < r for i, j in pairs)
    assert covariance.n_parameters(r) == r + len(pairs)
    sigma = covariance.project(moment(r))[0]
    for i in range(r):
        for j in range(i + 1, r):
            assert (float(sigma[i, j]) != 0.0) == ((i, j) in pairs)


@pytest.mark.parametrize(("name", "count"), [("us", 6), ("diag", 3)])
def test_number_of_parameters(name: str, count: int) -> None:
    assert COVARIANCES[name].n_parameters(3) == count
