"""What every registered sampler must do."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.special import digamma, polygamma
from torch import Tensor

from glmmnet.errors import FitError
from glmmnet.samplers import SAMPLERS
from glmmnet.samplers._chain import STATISTICS
from glmmnet.typing import Draws, SamplerState

SEED = 20261122
SHAPE = 2.0  # of the log-gamma target: skewness -0.78

samplers = pytest.mark.parametrize("name", list(SAMPLERS))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    print(f"seed {SEED}")
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        yield


def normal(u: Tensor) -> tuple[Tensor, Tensor]:
    return -0.5 * torch.dot(u, u), -u


def log_gamma(u: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of independent Gamma(SHAPE, 1) variables."""
    g = torch.exp(u)
    return (SHAPE * u - g).sum(), SHAPE - g


class Counted:
    """A log density that counts its evaluations."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        self.n += 1
        return normal(u)


def start(d: int, step_size: float | None = None) -> SamplerState:
    return SamplerState(torch.full((d,), 0.3, dtype=torch.float64), step_size)


def effective_size(x: np.ndarray) -> float:
    """Geyer's initial positive sequence; never above the number of draws."""
    n = len(x)
    centred = x - x.mean()
    spectrum = np.abs(np.fft.rfft(centred, 2 * n)) ** 2
    rho = np.fft.irfft(spectrum)[:n] / (centred @ centred)
    pairs = rho[0 : n - 1 : 2] + rho[1:n:2]
    last = int(np.argmax(pairs < 0)) if (pairs < 0).any() else len(pairs)
    return n / max(2 * pairs[:last].sum() - 1, 1.0)


def assert_mean(x: np.ndarray, expected: float) -> None:
    """Mean of one scalar over the draws within five Monte Carlo standard errors."""
    size = effective_size(x)
    assert size > 100
    assert abs(x.mean() - expected) < 5 * x.std() / math.sqrt(size)


@samplers
def test_standard_normal(name: str) -> None:
    result = SAMPLERS[name]().draw(normal, start(20), draws=2000, warmup=100)
    u = result.u.numpy()
    for j in range(20):
        assert_mean(u[:, j], 0.0)
        assert_mean(u[:, j] ** 2, 1.0)
    assert_mean(u[:, 0] * u[:, 1], 0.0)


@samplers
def test_skewed_target(name: str) -> None:
    result = SAMPLERS[name]().draw(log_gamma, start(3), draws=3000, warmup=200)
    mean, variance = float(digamma(SHAPE)), float(polygamma(1, SHAPE))
    third = float(polygamma(2, SHAPE))
    u = result.u.numpy()
    for j in range(3):
        assert_mean(u[:, j], mean)
        assert_mean((u[:, j] - mean) ** 2, variance)
        assert_mean((u[:, j] - mean) ** 3, third)


@samplers
def test_same_generator_state_gives_the_same_draws(name: str) -> None:
    def run(seed: int) -> Draws:
        torch.manual_seed(seed)
        return SAMPLERS[name]().draw(log_gamma, start(4), draws=20, warmup=20)

    first, second, other = run(1), run(1), run(2)
    assert torch.equal(first.u, second.u)
    assert first.state.step_size == second.state.step_size
    assert not torch.equal(first.u, other.u)


@samplers
def test_step_size_is_carried_and_not_searched_again(name: str) -> None:
    sampler = SAMPLERS[name]()
    tuned = sampler.draw(normal, start(50), draws=0, warmup=50).state
    assert tuned.step_size is not None
    density = Counted()
    result = sampler.draw(density, tuned, draws=10)
    assert np.all(result.stats["step_size"] == tuned.step_size)
    assert result.state.step_size == tuned.step_size
    # one evaluation at the start, then one a leapfrog
    assert density.n == 1 + result.stats["n_steps"].sum()


@samplers
def test_warmup_reaches_the_target_acceptance(name: str) -> None:
    sampler = SAMPLERS[name](target_accept=0.7)
    tuned = sampler.draw(log_gamma, start(50), draws=0, warmup=300).state
    rate = sampler.draw(log_gamma, tuned, draws=300).stats["acceptance_rate"].mean()
    assert abs(rate - 0.7) < 0.15


@samplers
def test_untuned_state_without_warmup_gets_a_step_size(name: str) -> None:
    result = SAMPLERS[name]().draw(normal, start(20), draws=5)
    assert result.state.step_size is not None
    assert result.stats["acceptance_rate"].mean() > 0.3


@samplers
def test_chain_can_go_on(name: str) -> None:
    sampler = SAMPLERS[name]()
    state = start(5, step_size=0.4)
    torch.manual_seed(7)
    whole = sampler.draw(log_gamma, state, draws=12)
    torch.manual_seed(7)
    head = sampler.draw(log_gamma, state, draws=5)
    tail = sampler.draw(log_gamma, head.state, draws=7)
    assert torch.equal(head.state.u, head.u[-1])
    torch.testing.assert_close(torch.cat([head.u, tail.u]), whole.u)


@samplers
def test_draws_and_statistics_have_their_shapes(name: str) -> None:
    state = start(6)
    result = SAMPLERS[name]().draw(log_gamma, state, draws=9, warmup=10)
    assert result.u.shape == (9, 6)
    assert result.u.dtype == torch.float64
    assert result.stats.keys() == STATISTICS.keys()
    for statistic, kind in STATISTICS.items():
        assert result.stats[statistic].shape == (9,)
        assert result.stats[statistic].dtype == np.dtype(kind)
    lp = [float(log_gamma(u)[0]) for u in result.u]
    np.testing.assert_allclose(result.stats["lp"], lp, rtol=1e-12)
    assert np.all(result.stats["energy"] > -result.stats["lp"])
    assert np.all((result.stats["acceptance_rate"] >= 0) & (result.stats["acceptance_rate"] <= 1))
    assert torch.equal(state.u, start(6).u)


@samplers
@pytest.mark.parametrize("bad", [-math.inf, math.inf, math.nan])
def test_non_finite_proposals_diverge(name: str, bad: float) -> None:
    def bounded(u: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = normal(u)
        return (value, gradient) if u[0] < 0.5 else (torch.full_like(value, bad), gradient)

    result = SAMPLERS[name]().draw(bounded, start(3, step_size=0.5), draws=200)
    assert result.u[:, 0].max() < 0.5
    assert 0 < result.stats["diverging"].sum() < 200


@samplers
@pytest.mark.parametrize("bad", [-math.inf, math.inf, math.nan])
def test_step_size_is_found_beside_non_finite_densities(name: str, bad: float) -> None:
    def narrow(u: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = 1e4 * normal(u)[0], -1e4 * u
        return (value, gradient) if u.abs().max() < 0.5 else (torch.full_like(value, bad), gradient)

    result = SAMPLERS[name]().draw(narrow, start(3), draws=5)
    assert result.state.step_size is not None
    assert 1e-4 < result.state.step_size < 0.5


@samplers
def test_non_finite_gradient_at_a_proposal_diverges(name: str) -> None:
    def broken(u: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = normal(u)
        return value, gradient if u[0] < 0.5 else torch.full_like(u, math.nan)

    result = SAMPLERS[name]().draw(broken, start(3, step_size=0.5), draws=200)
    assert result.u[:, 0].max() < 0.5
    assert 0 < result.stats["diverging"].sum() < 200


@samplers
def test_absurd_step_size_stays_and_diverges(name: str) -> None:
    # NUTS is exact on a standard normal, whatever the step
    result = SAMPLERS[name]().draw(log_gamma, start(3, step_size=1e4), draws=5)
    assert result.stats["diverging"].all()
    assert torch.equal(result.u, start(3).u.expand(5, 3))


@samplers
def test_non_finite_start_is_an_error(name: str) -> None:
    def nowhere(u: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor(-math.inf, dtype=u.dtype), torch.zeros_like(u)

    def no_gradient(u: Tensor) -> tuple[Tensor, Tensor]:
        return normal(u)[0], torch.full_like(u, math.nan)

    with pytest.raises(FitError, match="log density is -inf and 0 of the 3"):
        SAMPLERS[name]().draw(nowhere, start(3), draws=1)
    with pytest.raises(FitError, match="3 of the 3 entries of its gradient"):
        SAMPLERS[name]().draw(no_gradient, start(3), draws=1, warmup=3)


@samplers
def test_negative_counts_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="draws=-1"):
        SAMPLERS[name]().draw(normal, start(3), draws=-1)
    with pytest.raises(ValueError, match="warmup=-2"):
        SAMPLERS[name]().draw(normal, start(3), draws=1, warmup=-2)


@samplers
@pytest.mark.parametrize("target", [0.0, 1.0, 1.5])
def test_target_accept_must_be_a_probability(name: str, target: float) -> None:
    with pytest.raises(ValueError, match=f"target_accept={target}"):
        SAMPLERS[name](target_accept=target)


@samplers
def test_no_setting_is_left_changed(name: str) -> None:
    before = (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.distributions.Distribution._validate_args,
    )
    SAMPLERS[name]().draw(normal, start(3), draws=2, warmup=2)
    after = (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.distributions.Distribution._validate_args,
    )
    assert before == after
    assert SAMPLERS[name]().name == name
