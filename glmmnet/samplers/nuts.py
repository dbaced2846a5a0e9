"""The No-U-Turn sampler."""

from __future__ import annotations

import math
from dataclasses import dataclass

from glmmnet.errors import OptionError
from glmmnet.samplers import SAMPLERS
from glmmnet.samplers._chain import run_chain
from glmmnet.samplers._options import check_int, check_target_accept
from glmmnet.typing import Draws, LogDensity, Metric, SamplerState

#: Where a trajectory should end: a little beyond half a period. With fewer than two doublings it has no inside.
_TURN, _FEWEST_DOUBLINGS = 1.15 * math.pi, 2
#: Doublings at most while the step size is tuned; those beyond half a period where the target is nearly known.
_TUNING_DEPTH, _BEYOND = 4, 1


@SAMPLERS.register("nuts")
@dataclass(frozen=True)
class NUTS:
    """Pyro's multinomial No-U-Turn sampler with a unit mass matrix unless `metric` is given.

    Parameters
    ----------
    max_tree_depth : int
        Most doublings a transition: at most 2^max_tree_depth - 1 leapfrogs. Rotations beside a mass matrix take fewer,
        see :meth:`depth_limit`.
    target_accept : float
        Mean acceptance probability that warmup tunes the step size to.
    integrator : {"rotation", "leapfrog"}
        "rotation" solves the flow of a normal target with mean 0 and the inverse of the mass matrix as covariance
        exactly, and kicks for the rest: posteriors are whitened before they come here, so longer steps are accepted.
        "leapfrog" is Pyro's, for any target.

    Raises
    ------
    OptionError
        An option outside its range.
    """

    max_tree_depth: int = 8
    target_accept: float = 0.7
    integrator: str = "rotation"
    name = "nuts"

    def __post_init__(self) -> None:
        if self.integrator not in ("rotation", "leapfrog"):
            raise OptionError(f"integrator={self.integrator!r}: write 'rotation' or 'leapfrog'.")
        check_int("max_tree_depth", self.max_tree_depth)
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
        from glmmnet.samplers._kernels import FlatNUTS

        # The first steps tried may be tiny: no reason to go far with them.
        tuning_depth = min(self.max_tree_depth, _TUNING_DEPTH)

        def kernel(state: SamplerState, warmup: int) -> FlatNUTS:
            return FlatNUTS(
                logdensity,
                state,
                warmup,
                self.target_accept,
                metric,
                integrator=self.integrator,
                max_tree_depth=tuning_depth if warmup else self.depth_limit(state.step_size, metric),
            )

        if warmup:
            state = run_chain(kernel(state, warmup), state, 0, warmup).state
            state = SamplerState(state.u, off_resonance(float(state.step_size or 1.0)))
        return run_chain(kernel(state, 0), state, draws, 0)

    def depth_limit(self, step_size: float | None, metric: Metric | None) -> int:
        """Most doublings of a kept transition: `max_tree_depth`, or one more than to half a period of a known target.

        A mass matrix is taken for the target's precision. Where it lags behind, periods differ and a turn is missed:
        trajectories went on for a thousand steps.
        """
        if metric is None or self.integrator != "rotation" or step_size is None:
            return self.max_tree_depth
        return min(self.max_tree_depth, doublings(step_size) + _BEYOND)


def doublings(step_size: float) -> int:
    """Doublings of a trajectory that ends nearest to half a period."""
    return max(round(math.log2(_TURN / step_size + 1.0)), _FEWEST_DOUBLINGS)


def off_resonance(step_size: float) -> float:
    """A step size near the tuned one for which a doubled trajectory ends soon after half a period.

    Targets here are whitened, so that all coordinates swing with a period of about 2 pi. Where the 2^k points of a
    trajectory end just short of half of it, the next doubling comes back to its start unnoticed and the trajectory goes
    on for many periods.
    """
    return _TURN / (2 ** doublings(step_size) - 1)
