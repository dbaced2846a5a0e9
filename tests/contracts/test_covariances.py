"""What every registered covariance structure must do."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from glmmnet.covariances import COVARIANCES

SEED = 5
C = 2

every_structure = pytest.mark.parametrize("name", list(COVARIANCES))
every_size = pytest.mark.parametrize("r", [1, 2, 3])


def n_parameters(covariance, r):
    """Standard deviations and correlations of r columns."""
    return len(covariance.deviations(r)) + len(covariance.correlations(r))


def generator() -> torch.Generator:
    print(f"seed {SEED}")
    return torch.Generator().manual_seed(SEED)


def moment(r: int) -> Tensor:
    """A positive definite (C, r, r)."""
    root = torch.randn(C, r, r + 2, dtype=torch.float64, generator=generator())
    return root @ root.mT / (r + 2)


def working(name: str, r: int) -> Tensor:
    """A working matrix with random values where the structure allows them, no farther than an M-step goes."""
    free = COVARIANCES[name].free(r)
    step = torch.randn(C, 1 if COVARIANCES[name].tied else len(free), dtype=torch.float64, generator=generator())
    a = torch.eye(r, dtype=torch.float64).repeat(C, 1, 1)
    a[:, free[:, 0], free[:, 1]] += (0.7 * step).clamp(-0.5, 0.5)
    return a


def structured(name: str, r: int) -> Tensor:
    """A matrix of the structure inside its boundary, (r, r)."""
    return COVARIANCES[name].project(moment(r))[0]


def parameters(name: str, r: int) -> list[tuple[int, int]]:
    covariance = COVARIANCES[name]
    return [(columns[0], columns[0]) for columns in covariance.deviations(r)] + covariance.correlations(r)


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
    torch.testing.assert_close(covariance.project(once), once, rtol=1e-12, atol=1e-14)


@every_structure
@every_size
def test_projection_is_the_nearest_in_likelihood(name: str, r: int) -> None:
    """No step of a parameter raises the expected log density -log|Sigma| - tr(Sigma^-1 S)."""
    covariance, s = COVARIANCES[name], moment(r)[0]

    def fit(sigma: Tensor) -> float:
        return -float(torch.linalg.slogdet(sigma)[1] + torch.trace(torch.linalg.solve(sigma, s)))

    best = covariance.project(s)
    for pair in parameters(name, r):
        for step in (-1e-3, 1e-3):
            assert fit(covariance.shifted(best, {pair: step})) < fit(best)


@every_structure
@every_size
def test_projection_of_a_matrix_with_a_variance_of_0(name: str, r: int) -> None:
    s = moment(r)[0]
    s[0] = s[:, 0] = 0.0
    sigma = COVARIANCES[name].project(s)
    assert bool(torch.isfinite(sigma).all())
    if len(COVARIANCES[name].deviations(r)[0]) == 1:
        assert not bool(sigma[0].any())


@every_structure
@every_size
def test_factor_is_that_of_sigma(name: str, r: int) -> None:
    covariance, sigma = COVARIANCES[name], structured(name, r)
    theta, entries = covariance.theta(sigma.numpy()), covariance.factor_entries(r)
    assert len(theta) == len(entries.column) == len(entries.pivot) == n_parameters(covariance, r)
    assert ((entries.column >= -1) & (entries.column < r)).all()
    assert not (entries.pivot & (entries.column < 0)).any()
    factor = torch.as_tensor(covariance.factor(theta, r))
    torch.testing.assert_close(factor, factor.tril(), rtol=0, atol=0)
    torch.testing.assert_close(factor @ factor.mT, sigma, rtol=1e-9, atol=1e-12)


@every_structure
@every_size
def test_any_theta_is_a_covariance_of_the_structure(name: str, r: int) -> None:
    covariance = COVARIANCES[name]
    count = n_parameters(covariance, r)
    theta = 3 * torch.randn(count, dtype=torch.float64, generator=generator()).numpy()
    factor = torch.as_tensor(covariance.factor(theta, r))
    sigma = factor @ factor.mT
    torch.testing.assert_close(covariance.project(sigma), sigma, rtol=1e-6, atol=1e-9)


@every_structure
@pytest.mark.parametrize("r", [2, 3, 4])
def test_angles_at_odd_multiples_of_half_pi_are_on_the_boundary(name: str, r: int) -> None:
    covariance = COVARIANCES[name]
    entries = covariance.factor_entries(r)
    theta = covariance.theta(structured(name, r).numpy())
    for at in (entries.column < 0).nonzero()[0]:
        for boundary in (-math.pi / 2, math.pi / 2):
            moved = theta.copy()
            moved[at] = boundary
            factor = covariance.factor(moved, r)
            assert abs(torch.linalg.eigvalsh(torch.as_tensor(factor @ factor.T))[0]) < 1e-12
            assert not math.isnan(covariance.theta(factor @ factor.T).sum())


@every_structure
@every_size
def test_variances_of_0_leave_no_correlation(name: str, r: int) -> None:
    covariance, nothing = COVARIANCES[name], torch.zeros(r, r, dtype=torch.float64)
    assert all(math.isnan(covariance.correlation(nothing, i, j)) for i, j in covariance.correlations(r))
    theta = covariance.theta(nothing.numpy())
    assert not covariance.factor(theta, r).any()


@every_structure
@every_size
def test_shifts_move_one_parameter_by_that_much(name: str, r: int) -> None:
    covariance, sigma = COVARIANCES[name], structured(name, r)

    def values(matrix: Tensor) -> list[float]:
        logs = [math.log(float(matrix[i, i])) / 2 for i, *_ in covariance.deviations(r)]
        return logs + [math.atanh(covariance.correlation(matrix, i, j)) for i, j in covariance.correlations(r)]

    torch.testing.assert_close(covariance.shifted(sigma, {}), sigma)
    for k, pair in enumerate(parameters(name, r)):
        wanted = values(sigma)
        wanted[k] += 0.01
        assert values(covariance.shifted(sigma, {pair: 0.01})) == pytest.approx(wanted, abs=1e-9)


@every_structure
@every_size
def test_parameters_stand_for_all_columns(name: str, r: int) -> None:
    covariance = COVARIANCES[name]
    columns = [i for shared in covariance.deviations(r) for i in shared]
    assert sorted(columns) == list(range(r))
    pairs = covariance.correlations(r)
    assert all(0 <= i < j < r for i, j in pairs) and len(set(pairs)) == len(pairs)
    names = [f"c{i}" for i in range(r)]
    shown = [covariance.deviation_name(names, i) for i, *_ in covariance.deviations(r)]
    shown += [",".join(covariance.correlation_name(names, i, j)) for i, j in pairs]
    assert len(set(shown)) == n_parameters(covariance, r) == len(shown)


@pytest.mark.parametrize(("name", "count"), [("us", 6), ("diag", 3), ("cs", 4), ("ar1", 2), ("toep", 5)])
def test_number_of_parameters(name: str, count: int) -> None:
    assert n_parameters(COVARIANCES[name], 3) == count


@pytest.mark.parametrize("rho", [-0.7, 0.0, 0.6])
@pytest.mark.parametrize("times", [(0, 1, 2), (3, 6, 12), (0, 2, 5), (1, 500)])
def test_ar1_counts_time_in_the_greatest_common_divisor(times: tuple[int, ...], rho: float) -> None:
    covariance = COVARIANCES["ar1"].at(times)
    unit, r = math.gcd(*(b - a for a, b in itertools.pairwise(times))), len(times)
    distances = torch.tensor([[abs(a - b) // unit for a in times] for b in times])
    sigma = 2.0 * torch.tensor(rho, dtype=torch.float64) ** distances
    torch.testing.assert_close(covariance.project(sigma[None])[0], sigma, rtol=1e-6, atol=1e-9)
    pair = covariance.correlations(r)[0]
    assert covariance.correlation(sigma, *pair) == pytest.approx(rho, abs=1e-5)
    assert covariance.correlation_name(["t"] * r, *pair) == (f"lag {unit}", "")


def test_toeplitz_angles_are_partial_autocorrelations() -> None:
    """R: ARMAacf(ar = c(0.5, -0.3), lag.max = 3, pacf = TRUE) is 0.3846154, -0.3, 0."""
    acf = torch.tensor([1.0, 0.38461538461538464, -0.10769230769230770, -0.16923076923076924], dtype=torch.float64)
    lags = torch.arange(4)
    theta = COVARIANCES["toep"].theta(acf[(lags[:, None] - lags).abs()].numpy())
    assert np.sin(theta[4:]) == pytest.approx([0.38461538461538464, -0.3, 0.0], abs=1e-12)
