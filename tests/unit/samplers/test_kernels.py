"""The flat kernels against Pyro's own, draw by draw."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pyro.infer.mcmc import HMC, NUTS
from torch import Tensor

from glmmnet.samplers import SAMPLERS, _kernels
from glmmnet.typing import SamplerState

SEED = 4


def log_gamma(u: Tensor) -> tuple[Tensor, Tensor]:
    g = torch.exp(u)
    return (2.0 * u - g).sum(), 2.0 - g


def pyro_draws(kernel: Callable[..., Any], u: Tensor, draws: int, **options: Any) -> Tensor:
    chain = kernel(
        potential_fn=lambda z: (torch.exp(z["u"]) - 2.0 * z["u"]).sum(),
        adapt_step_size=False,
        adapt_mass_matrix=False,
        **options,
    )
    chain.initial_params = {"u": u.clone()}
    chain.setup(0)
    params = dict(chain.initial_params)
    out = []
    for _ in range(draws):
        params = chain.sample(params)
        out.append(params["u"])
    return torch.stack(out)


@pytest.mark.parametrize(
    ("name", "kernel", "flat_options", "pyro_options"),
    [
        ("nuts", NUTS, {"max_tree_depth": 4, "integrator": "leapfrog"}, {"max_tree_depth": 4}),
        ("hmc", HMC, {"trajectory_length": 1.0}, {"trajectory_length": 1.0}),
        ("mala", HMC, {}, {"num_steps": 1}),
    ],
)
@pytest.mark.parametrize("step_size", [0.05, 0.7])
def test_same_generator_state_gives_pyros_draws(
    name: str, kernel: Callable[..., Any], flat_options: dict, pyro_options: dict, step_size: float
) -> None:
    print(f"seed {SEED}")
    u = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        theirs = pyro_draws(kernel, u, 40, step_size=step_size, **pyro_options)
        torch.manual_seed(SEED)
        ours = SAMPLERS[name](**flat_options).draw(log_gamma, SamplerState(u, step_size), draws=40)
    torch.testing.assert_close(ours.u, theirs, rtol=1e-8, atol=1e-8)
    assert len(torch.unique(ours.u, dim=0)) > 20


def test_tree_depth_is_bounded() -> None:
    state = SamplerState(torch.zeros(3, dtype=torch.float64), 0.001)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        stats = SAMPLERS["nuts"](max_tree_depth=3).draw(log_gamma, state, draws=10).stats
    assert np.all(stats["tree_depth"] == 3)
    assert np.all(stats["n_steps"] == 7)


class Scaled:
    """The mass matrix diag(`mass`)."""

    def __init__(self, mass: Tensor) -> None:
        self.mass = mass

    def momentum(self) -> Tensor:
        return self.mass.sqrt() * torch.randn_like(self.mass)

    def velocity(self, momentum: Tensor) -> Tensor:
        return momentum / self.mass

    def pull(self, u: Tensor) -> Tensor:
        return self.mass * u


@pytest.mark.parametrize("scaled", [False, True])
def test_rotations_are_exact_on_the_gaussian_they_know(scaled: bool) -> None:
    mass = torch.tensor([0.01, 1.0, 400.0], dtype=torch.float64) if scaled else torch.ones(3, dtype=torch.float64)

    def gaussian(u: Tensor) -> tuple[Tensor, Tensor]:
        return -0.5 * (mass * u.square()).sum(), -mass * u

    state = SamplerState(torch.ones(3, dtype=torch.float64), 1.2)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        result = SAMPLERS["nuts"]().draw(gaussian, state, draws=4000, metric=Scaled(mass) if scaled else None)
    assert np.abs(result.stats["acceptance_rate"] - 1.0).max() < 1e-9
    assert result.stats["n_steps"].max() <= 7
    np.testing.assert_allclose(result.u.var(dim=0) * mass, 1.0, atol=0.1)


def test_a_mass_matrix_that_lags_behind_lets_no_trajectory_run_on() -> None:
    """Half of the variances are five times as large by now: some trajectories missed the turn and took 79 steps."""
    precision = torch.ones(400, dtype=torch.float64)
    precision[:200] = 0.2

    def gaussian(u: Tensor) -> tuple[Tensor, Tensor]:
        return -0.5 * (precision * u.square()).sum(), -precision * u

    step = 1.15 * np.pi / 7
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        state = SamplerState(torch.randn(400, dtype=torch.float64) / precision.sqrt(), step)
        metric = Scaled(torch.ones(400, dtype=torch.float64))
        result = SAMPLERS["nuts"]().draw(gaussian, state, draws=400, metric=metric)
    assert result.stats["n_steps"].max() <= 15
    assert result.stats["tree_depth"].max() <= SAMPLERS["nuts"]().depth_limit(step, metric) == 4
    scaled = result.u.square() * precision
    assert float(scaled[:, :200].mean()) == pytest.approx(1.0, abs=0.02)
    assert float(scaled[:, 200:].mean()) == pytest.approx(1.0, abs=0.02)


def test_tuning_takes_no_steps_of_several_turns() -> None:
    """Every step is accepted there; the kicks of a large one multiply the rounding errors of a mass matrix."""

    def gaussian(u: Tensor) -> tuple[Tensor, Tensor]:
        return -0.5 * u.square().sum(), -u

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(SEED)
        state = SamplerState(torch.ones(6, dtype=torch.float64), None)
        kernel = _kernels.FlatNUTS(gaussian, state, 40, 0.7, integrator="rotation", max_tree_depth=4)
        kernel.setup(40)
        steps = [kernel.transition().step_size for _ in range(41)]
    assert max(steps) == 1.0


def test_rotations_accept_longer_steps_than_leapfrogs_near_a_normal_target() -> None:
    def nearly_normal(u: Tensor) -> tuple[Tensor, Tensor]:
        return -0.5 * u.square().sum() - 0.001 * u.pow(4).sum(), -u - 0.004 * u.pow(3)

    state = SamplerState(torch.zeros(400, dtype=torch.float64), None)
    steps = {}
    for integrator in ("leapfrog", "rotation"):
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            sampler = SAMPLERS["nuts"](integrator=integrator)
            steps[integrator] = sampler.draw(nearly_normal, state, draws=0, warmup=100).state.step_size
    assert steps["rotation"] > 1.5 * steps["leapfrog"]


def test_hmc_trajectory_is_bounded() -> None:
    state = SamplerState(torch.zeros(3, dtype=torch.float64), 0.001)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        stats = SAMPLERS["hmc"](max_steps=10).draw(log_gamma, state, draws=3).stats
    assert np.all(stats["n_steps"] == 10)
    assert np.all(stats["tree_depth"] == 0)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("nuts", "max_tree_depth", 0),
        ("nuts", "max_tree_depth", 2.5),
        ("nuts", "max_tree_depth", True),
        ("nuts", "integrator", "Euler"),
        ("hmc", "max_steps", 0),
        ("hmc", "trajectory_length", 0.0),
        ("hmc", "trajectory_length", float("inf")),
    ],
)
def test_wrong_options_are_named(name: str, option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{option}={value!r}"):
        SAMPLERS[name](**{option: value})


def test_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'nuts'"):
        SAMPLERS["nut"]


def test_pyro_is_not_imported_before_a_draw() -> None:
    code = "import sys; from glmmnet.samplers import SAMPLERS; SAMPLERS['nuts'](); assert 'pyro' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
