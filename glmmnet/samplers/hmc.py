"""Hamiltonian Monte Carlo with trajectories of one length."""

from __future__ import annotations

import math
from dataclasses import dataclass

from glmmnet.errors import OptionError
from glmmnet.samplers import SAMPLERS
from glmmnet.samplers._chain import run_chain
from glmmnet.samplers._options import check_int, check_target_accept
from glmmnet.typing import Draws, LogDensity, Metric, SamplerState


@SAMPLERS.register("hmc")
@dataclass(frozen=True)
class HMC:
    """Pyro's Hamiltonian Monte Carlo with a unit mass matrix unless `metric` is given.

    Parameters
    ----------
    trajectory_length : float
        Integration time of a transition; pi / 2 makes draws from a standard normal independent.
    max_steps : int
        Most leapfrogs a transition, however small the step size.
    target_accept : float
        Mean acceptance probability that warmup tunes the step size to.

    Raises
    ------
    OptionError
        An option outside its range.
    """

    trajectory_length: float = math.pi / 2
    max_steps: int = 255
    target_accept: float = 0.8
    name = "hmc"

    def __post_init__(self) -> None:
        if not 0.0 < self.trajectory_length < math.inf:
            raise OptionError(f"trajectory_length={self.trajectory_length!r}: write a positive number.")
        check_int("max_steps", self.max_steps)
        check_target_accept(self.target_accept)

    def draw(
        self,
        logdensity: LogDensity,
        state: SamplerState,
        *,
        draws: int,
        warmup: int = 0,
        metric: Metric | None = None,
    ) -> Draws:
        """Run one chain from `state`: `warmup` transitions that tune the step size, then `draws` kept ones.

        A state without a step size has one searched for at its position, also when `warmup` is 0.

        Raises
        ------
        FitError
            The log density or its gradient is not finite at ``state.u``.
        """
        from glmmnet.samplers._kernels import FlatHMC

        kernel = FlatHMC(
            logdensity,
            state,
            warmup,
            self.target_accept,
            metric,
            trajectory_length=self.trajectory_length,
            max_steps=self.max_steps,
        )
        return run_chain(kernel, state, draws, warmup)
