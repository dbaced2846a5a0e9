"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from glmmnet.samplers import SAMPLERS
from glmmnet.samplers._chain import run_chain
from glmmnet.samplers._options import check_target_accept
from glmmnet.typing import Draws, LogDensity, Metric, SamplerState


@SAMPLERS.register("mala")
@dataclass(frozen=True)
class MALA:
    """Metropolis-adjusted Langevin: Hamiltonian Monte Carlo with one leapfrog a transition.

    Parameters
    ----------
    target_accept : float
        Mean acceptance probability that warmup tunes the step size to; 0.574 is best in many dimensions.

    Raises
    ------
    OptionError
        An option outside its range.

    References
    ----------
    Roberts, Rosenthal (1998), Journal of the Royal Statistical Society B 60(1), 255-268.
    """

    target_accept: float = 0.574
    name = "mala"

    def __post_init__(self) -> None:
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

        kernel = FlatHMC(logdensity, state, warmup, self.target_accept, metric, max_steps=1)
        return run_chain(kernel, state, draws, warmup)
