"""The No-U-Turn sampler."""

from __future__ import annotations

from dataclasses import dataclass

from glmmnet.samplers import SAMPLERS
from glmmnet.samplers._chain import run_chain
from glmmnet.samplers._options import check_int, check_target_accept
from glmmnet.typing import Draws, LogDensity, SamplerState


@SAMPLERS.register("nuts")
@dataclass(frozen=True)
class NUTS:
    """Pyro's multinomial No-U-Turn sampler with a unit mass matrix.

    Parameters
    ----------
    max_tree_depth : int
        Most doublings a transition: at most 2^max_tree_depth - 1 leapfrogs.
    target_accept : float
        Mean acceptance probability that warmup tunes the step size to.

    Raises
    ------
    ValueError
        An option outside its range.
    """

    max_tree_depth: int = 8
    target_accept: float = 0.8
    name = "nuts"

    def __post_init__(self) -> None:
        check_int("max_tree_depth", self.max_tree_depth)
        check_target_accept(self.target_accept)

    def draw(self, logdensity: LogDensity, state: SamplerState, *, draws: int, warmup: int = 0) -> Draws:
        """Run one chain from `state`: `warmup` transitions that tune the step size, then `draws` kept ones.

        A state without a step size has one searched for at its position, also when `warmup` is 0.

        Raises
        ------
        FitError
            The log density or its gradient is not finite at ``state.u``.
        """
        from glmmnet.samplers._kernels import FlatNUTS

        kernel = FlatNUTS(logdensity, state, warmup, self.target_accept, max_tree_depth=self.max_tree_depth)
        return run_chain(kernel, state, draws, warmup)
