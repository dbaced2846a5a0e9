"""Pyro's HMC and NUTS kernels with their transitions written on one flat vector and Python floats.

Set-up of the mass matrix, step-size search and dual averaging are Pyro's. Its transitions are not used: a leapfrog
there goes through autograd, dictionaries of sites and `pyro.sample`, which costs many times what the step itself
does. The random numbers are drawn in Pyro's order, so that from the same generator state the NUTS draws are Pyro's.

This module imports Pyro; import it only when a sampler runs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from pyro.infer.mcmc import HMC, NUTS
from torch import Tensor

from glmmnet.errors import FitError
from glmmnet.samplers._chain import Transition
from glmmnet.typing import LogDensity, SamplerState

# energy error beyond which a trajectory counts as diverging (Stan's, PyMC's and Pyro's value)
MAX_ENERGY_ERROR = 1000.0


class Point(NamedTuple):
    """A point of phase space. `gradient` is of the log density; `energy` = -log density + `kinetic`."""

    u: Tensor
    momentum: Tensor
    gradient: Tensor
    lp: float
    kinetic: float
    energy: float


class Tree(NamedTuple):
    """A subtrajectory: its two ends, the state proposed from it and sums over its states."""

    left: Point
    right: Point
    proposal: Point
    momentum_sum: Tensor
    log_weight: float
    turning: bool
    diverging: bool
    acceptance_sum: float
    n_steps: int


class _Potential(torch.autograd.Function):
    """Minus the log density; the analytic gradient is kept from the forward pass."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, logdensity: LogDensity) -> Tensor:
        value, gradient = logdensity(u)
        ctx.save_for_backward(gradient)
        return -value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return -upstream[0] * gradient, None


class FlatHMC(HMC):  # type: ignore[misc]
    """Pyro's HMC on one flat vector, with the number of leapfrogs bounded.

    Parameters
    ----------
    logdensity : LogDensity
    state : SamplerState
        With a step size: used as it is, or as the start of the tuning. Without: searched for.
    warmup : int
        Transitions that tune the step size.
    target_accept : float
        Mean acceptance probability that the tuning aims at.
    trajectory_length : float
    max_steps : int
        Most leapfrogs a transition.
    """

    def __init__(
        self,
        logdensity: LogDensity,
        state: SamplerState,
        warmup: int,
        target_accept: float,
        trajectory_length: float,
        max_steps: int,
    ) -> None:
        super().__init__(**_settings(logdensity, state, warmup, target_accept), trajectory_length=trajectory_length)
        self.initial_params = {"u": state.u.detach()}
        self._logdensity = logdensity
        self._max_steps = max_steps

    @property
    def num_steps(self) -> int:
        """Leapfrogs a transition at the present step size."""
        return min(self._max_steps, int(super().num_steps))

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Evaluate the start, search a step size unless one is given; FitError at a non-finite start."""
        _setup(self, warmup_steps)

    def transition(self) -> Transition:
        """One trajectory of `num_steps` leapfrogs and its Metropolis step."""
        start = end = _fresh_momentum(self._point)
        steps = self.num_steps
        for _ in range(steps):
            end = leapfrog(self._logdensity, end, self.step_size)
        error = end.energy - start.energy
        accept = math.exp(-max(error, 0.0))
        if float(torch.rand((), dtype=torch.float64)) < accept:
            self._point = end
        _adapt(self, accept)
        return _record(self, error > MAX_ENERGY_ERROR, 0, steps, accept)


class FlatNUTS(NUTS):  # type: ignore[misc]
    """Pyro's multinomial NUTS on one flat vector.

    Parameters
    ----------
    logdensity : LogDensity
    state : SamplerState
        With a step size: used as it is, or as the start of the tuning. Without: searched for.
    warmup : int
        Transitions that tune the step size.
    target_accept : float
        Mean acceptance probability that the tuning aims at.
    max_tree_depth : int
        Most doublings a transition.

    References
    ----------
    Hoffman, Gelman (2014), JMLR 15, 1593-1623; Betancourt (2017), arXiv:1701.02434, appendix A.
    """

    def __init__(
        self,
        logdensity: LogDensity,
        state: SamplerState,
        warmup: int,
        target_accept: float,
        max_tree_depth: int,
    ) -> None:
        super().__init__(**_settings(logdensity, state, warmup, target_accept), max_tree_depth=max_tree_depth)
        self.initial_params = {"u": state.u.detach()}
        self._logdensity = logdensity

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Evaluate the start, search a step size unless one is given; FitError at a non-finite start."""
        _setup(self, warmup_steps)

    def transition(self) -> Transition:
        """Double the trajectory until it turns, diverges or reaches the greatest depth; propose from it."""
        start = _fresh_momentum(self._point)
        self._start_energy = start.energy
        left = right = proposal = start
        momentum_sum = start.momentum
        log_weight = acceptance_sum = 0.0
        n_steps = depth = 0
        diverging = False
        while depth < self._max_tree_depth:
            forward = bool(torch.bernoulli(_HALF))
            tree = self._grow(right if forward else left, self.step_size if forward else -self.step_size, depth)
            depth += 1
            acceptance_sum += tree.acceptance_sum
            n_steps += tree.n_steps
            diverging = tree.diverging
            if diverging or tree.turning:
                break
            if forward:
                right = tree.right
            else:
                left = tree.left
            if float(torch.rand((), dtype=torch.float64)) < math.exp(min(tree.log_weight - log_weight, 0.0)):
                proposal = tree.proposal
            momentum_sum = momentum_sum + tree.momentum_sum
            if is_turning(left, right, momentum_sum):
                break
            log_weight = _logaddexp(log_weight, tree.log_weight)
        self._point = proposal
        accept = acceptance_sum / n_steps
        _adapt(self, accept)
        return _record(self, diverging, depth, n_steps, accept)

    def _grow(self, end: Point, step_size: float, depth: int) -> Tree:
        """A subtree of 2^depth leapfrogs from `end`, in the direction of the sign of `step_size`."""
        if depth == 0:
            point = leapfrog(self._logdensity, end, step_size)
            error = point.energy - self._start_energy
            accept = math.exp(-max(error, 0.0))
            diverging = error > MAX_ENERGY_ERROR
            return Tree(point, point, point, point.momentum, -error, False, diverging, accept, 1)
        near = self._grow(end, step_size, depth - 1)
        if near.turning or near.diverging:
            return near
        far = self._grow(near.right if step_size > 0 else near.left, step_size, depth - 1)
        log_weight = _logaddexp(near.log_weight, far.log_weight)
        take_far = torch.bernoulli(torch.tensor(math.exp(far.log_weight - log_weight), dtype=torch.float64))
        left, right = (near.left, far.right) if step_size > 0 else (far.left, near.right)
        momentum_sum = near.momentum_sum + far.momentum_sum
        return Tree(
            left,
            right,
            far.proposal if take_far else near.proposal,
            momentum_sum,
            log_weight,
            far.turning or is_turning(left, right, momentum_sum),
            far.diverging,
            near.acceptance_sum + far.acceptance_sum,
            near.n_steps + far.n_steps,
        )


_HALF = torch.tensor(0.5, dtype=torch.float64)


def leapfrog(logdensity: LogDensity, start: Point, step_size: float) -> Point:
    """One leapfrog with unit mass; a point whose density or gradient is not finite has infinite energy."""
    momentum = torch.add(start.momentum, start.gradient, alpha=0.5 * step_size)
    u = torch.add(start.u, momentum, alpha=step_size)
    value, gradient = logdensity(u)
    momentum = torch.add(momentum, gradient, alpha=0.5 * step_size)
    lp = float(value)
    kinetic = 0.5 * float(torch.dot(momentum, momentum))
    energy = kinetic - lp
    return Point(u, momentum, gradient, lp, kinetic, energy if math.isfinite(energy) else math.inf)


def is_turning(left: Point, right: Point, momentum_sum: Tensor) -> bool:
    """Whether the trajectory from `left` to `right` begins to come back (Betancourt 2017, A.4.2).

    The sum counts both ends by half, which lets the check hold for short trajectories.
    """
    across = float(torch.dot(left.momentum, right.momentum))
    if float(torch.dot(left.momentum, momentum_sum)) <= left.kinetic + 0.5 * across:
        return True
    return float(torch.dot(right.momentum, momentum_sum)) <= right.kinetic + 0.5 * across


def _settings(logdensity: LogDensity, state: SamplerState, warmup: int, target_accept: float) -> dict[str, Any]:
    """What both kernels hand to Pyro: a unit mass matrix, a step size tuned only if there is reason to."""
    return {
        "potential_fn": lambda sites: _Potential.apply(sites["u"], logdensity),
        "step_size": 1.0 if state.step_size is None else state.step_size,
        "adapt_step_size": warmup > 0 or state.step_size is None,
        "adapt_mass_matrix": False,
        "target_accept_prob": target_accept,
    }


def _setup(kernel: FlatHMC | FlatNUTS, warmup_steps: int) -> None:
    u = kernel.initial_params["u"]
    value, gradient = kernel._logdensity(u)
    if not (math.isfinite(value) and bool(torch.isfinite(gradient).all())):
        raise FitError(
            f"The log density at the sampler's starting point is {float(value)} and {_count_bad(gradient)} of its "
            f"gradient's {len(u)} entries are not finite; start from a point where both are."
        )
    kernel._point = Point(u, torch.zeros_like(u), gradient, float(value), 0.0, -float(value))
    kernel._warmup_steps = warmup_steps
    # Pyro reads dtype and device off the potential, and starts its search from it
    kernel._cache(kernel.initial_params, -value, {"u": -gradient})
    kernel._initialize_adapter()


def _count_bad(gradient: Tensor) -> int:
    return int((~torch.isfinite(gradient)).sum())


def _fresh_momentum(point: Point) -> Point:
    momentum = torch.randn_like(point.u)
    kinetic = 0.5 * float(torch.dot(momentum, momentum))
    return point._replace(momentum=momentum, kinetic=kinetic, energy=kinetic - point.lp)


def _adapt(kernel: FlatHMC | FlatNUTS, accept: float) -> None:
    """Count the transition; during warmup let Pyro's dual averaging see its acceptance probability."""
    kernel._t += 1
    if kernel._t <= kernel._warmup_steps:
        kernel._adapter.step(kernel._t, None, torch.tensor(accept))


def _record(kernel: FlatHMC | FlatNUTS, diverging: bool, depth: int, n_steps: int, accept: float) -> Transition:
    point = kernel._point
    return Transition(
        point.u, diverging, point.energy, depth, n_steps, accept, point.lp, float(kernel.step_size)
    )


def _logaddexp(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
