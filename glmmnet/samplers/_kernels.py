"""Pyro's HMC and NUTS with their transitions written on one flat vector and Python floats.

Step-size search, dual averaging and the schedule of the warmup are Pyro's. Its transitions are not used: a
leapfrog of theirs goes through autograd, dictionaries of sites and `pyro.sample`, which costs many times what
the step itself does. Random numbers are drawn in Pyro's order: from the same
generator state the draws are Pyro's.

This module imports Pyro; it is itself imported when a sampler first runs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from pyro.infer.mcmc import HMC, NUTS
from torch import Tensor

from glmmnet.errors import FitError
from glmmnet.samplers._chain import Transition
from glmmnet.typing import LogDensity, Metric, SamplerState

# energy error beyond which a trajectory counts as diverging (the value of Stan, PyMC and Pyro)
MAX_ENERGY_ERROR = 1000.0
#: First angle of a rotation, which warmup tunes, and the range of its search and tuning: steps of several turns go
#: nowhere, while their kicks grow and multiply rounding errors.
_FIRST_ROTATION, _SMALLEST_ROTATION, _LARGEST_ROTATION = 0.5, 1e-10, 1.0


class Point(NamedTuple):
    """A point of phase space; `gradient` is that of the log density, `energy` is `kinetic` - `lp`.

    `velocity` is M^-1 momentum, `natural` M^-1 gradient and `pull` M u; the same tensors as these when the mass M is
    unit.
    """

    u: Tensor
    pull: Tensor
    momentum: Tensor
    velocity: Tensor
    gradient: Tensor
    natural: Tensor
    lp: float
    kinetic: float
    energy: float


class Tree(NamedTuple):
    """A subtrajectory: its two ends, the point proposed from it, sums over its points."""

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
    """Minus the log density, for Pyro's step-size search; the forward pass keeps the analytic gradient."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, logdensity: LogDensity) -> Tensor:
        value, gradient = logdensity(u)
        ctx.save_for_backward(gradient)
        # to the search an infinite density is as bad as none
        return -value if math.isfinite(value) else torch.full_like(value, math.inf)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return -upstream[0] * gradient, None


class FlatKernel(HMC):
    """What both kernels share: the chain's present point, its set-up, momenta, step-size adaptation.

    Parameters
    ----------
    logdensity : LogDensity
    state : SamplerState
        Where the chain starts. Its step size is used as it is, or tuned further if there is a warmup; one is
        searched for if it has none.
    warmup : int
        Transitions that tune the step size.
    target_accept : float
        Mean acceptance probability that the tuning aims at.
    metric : Metric or None
        Mass matrix; None: the unit matrix. With one the first step size is D^-1/4, not searched for.
    integrator : str
        One of `INTEGRATORS`.
    **options
        Of Pyro's kernel.
    """

    def __init__(
        self,
        logdensity: LogDensity,
        state: SamplerState,
        warmup: int,
        target_accept: float,
        metric: Metric | None = None,
        integrator: str = "leapfrog",
        **options: Any,
    ) -> None:
        self._step = INTEGRATORS[integrator]
        start = _FIRST_ROTATION if integrator == "rotation" else 1.0 if metric is None else len(state.u) ** -0.25
        super().__init__(
            potential_fn=lambda sites: _Potential.apply(sites["u"], logdensity),
            step_size=start if state.step_size is None else state.step_size,
            adapt_step_size=warmup > 0 or state.step_size is None,
            adapt_mass_matrix=False,
            target_accept_prob=target_accept,
            **options,
        )
        self.initial_params = {"u": state.u.detach()}
        self._logdensity = logdensity
        self._metric = metric
        self._uniform_buffer = torch.empty((), dtype=torch.float64)

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Evaluate the start and search a step size if there is none to go by.

        Raises
        ------
        FitError
            The log density or its gradient is not finite at the start.
        """
        u = self.initial_params["u"]
        value, gradient = self._logdensity(u)
        n_bad = int((~torch.isfinite(gradient)).sum())
        if n_bad or not math.isfinite(value):
            raise FitError(
                f"At the sampler's starting point the log density is {float(value)} and {n_bad} of the "
                f"{len(u)} entries of its gradient are not finite; start where both are."
            )
        rest = torch.zeros_like(u)
        natural = gradient if self._metric is None else self._metric.velocity(gradient)
        pull = u if self._metric is None else self._metric.pull(u)
        self._point = Point(u, pull, rest, rest, gradient, natural, float(value), 0.0, -float(value))
        self._n_warmup = warmup_steps
        self._warmup_steps = warmup_steps
        # Pyro's adapter takes dtype and device from the cached potential
        self._cache(self.initial_params, -value, {"u": -gradient})
        self._initialize_adapter()

    def _find_reasonable_step_size(self, z: dict[str, Tensor]) -> float:
        """Double or halve the step until the acceptance of one step crosses Pyro's threshold.

        Pyro's own search knows the leapfrog and the unit mass only; with a mass matrix the first step stays as it is.
        """
        if self._step is leapfrog:
            known = self._metric is None
            return float(super()._find_reasonable_step_size(z)) if known else float(self.step_size)
        start, step_size = self._fresh_momentum(), float(self.step_size)
        good = self._is_accepted(start, step_size)
        factor = 2.0 if good else 0.5
        while _SMALLEST_ROTATION < step_size < _LARGEST_ROTATION and self._is_accepted(start, step_size) == good:
            step_size *= factor
        return step_size

    def _is_accepted(self, start: Point, step_size: float) -> bool:
        end = self._step(self._logdensity, start, step_size, self._metric)
        return end.energy - start.energy < -self._direction_threshold

    def _fresh_momentum(self) -> Point:
        point = self._point
        if self._metric is None:
            momentum = velocity = torch.randn_like(point.u)
        else:
            momentum = self._metric.momentum()
            velocity = self._metric.velocity(momentum)
        kinetic = 0.5 * torch.dot(momentum, velocity).item()
        return point._replace(momentum=momentum, velocity=velocity, kinetic=kinetic, energy=kinetic - point.lp)

    def _uniform(self) -> float:
        return self._uniform_buffer.uniform_().item()

    def _move(self, point: Point, diverging: bool, depth: int, n_steps: int, accept: float) -> Transition:
        """Go to `point`; during warmup let Pyro's dual averaging see the acceptance probability."""
        self._point = point
        step_size = float(self.step_size)
        self._t += 1
        if self._t <= self._n_warmup:
            self._adapter.step(self._t, None, torch.tensor(accept))
            if self._step is rotation:
                # Where every step is accepted dual averaging knows no largest one.
                self._adapter.step_size = min(self._adapter.step_size, _LARGEST_ROTATION)
        return Transition(point.u, diverging, point.energy, depth, n_steps, accept, point.lp, step_size)


class FlatHMC(FlatKernel):
    """Pyro's HMC on one flat vector; `max_steps` bounds the leapfrogs a transition (1: Langevin)."""

    def __init__(self, *args: Any, max_steps: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self._max_steps = max_steps

    def transition(self) -> Transition:
        """One trajectory of the set length, accepted or not by its energy error."""
        start = end = self._fresh_momentum()
        n_steps = min(self.num_steps, self._max_steps)
        for _ in range(n_steps):
            end = self._step(self._logdensity, end, self.step_size, self._metric)
        error = end.energy - start.energy
        accept = math.exp(-max(error, 0.0))
        kept = end if self._uniform() < accept else start
        return self._move(kept, error > MAX_ENERGY_ERROR, 0, n_steps, accept)


class FlatNUTS(FlatKernel, NUTS):
    """Pyro's multinomial NUTS on one flat vector.

    References
    ----------
    Hoffman, Gelman (2014), JMLR 15, 1593-1623; Betancourt (2017), arXiv:1701.02434, appendix A.
    """

    def transition(self) -> Transition:
        """Double the trajectory until it turns, diverges or is as deep as allowed; propose from all of it."""
        start = self._fresh_momentum()
        self._start_energy = start.energy
        left = right = proposal = start
        momentum_sum = start.momentum
        log_weight = acceptance_sum = 0.0
        n_steps = depth = 0
        diverging = False
        while depth < self._max_tree_depth:
            forward = self._uniform() < 0.5
            step_size = self.step_size if forward else -self.step_size
            tree = self._grow(right if forward else left, step_size, depth)
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
            if self._uniform() < math.exp(min(tree.log_weight - log_weight, 0.0)):
                proposal = tree.proposal
            momentum_sum = momentum_sum + tree.momentum_sum
            if is_turning(left, right, momentum_sum):
                break
            log_weight = _logaddexp(log_weight, tree.log_weight)
        return self._move(proposal, diverging, depth, n_steps, acceptance_sum / n_steps)

    def _grow(self, end: Point, step_size: float, depth: int) -> Tree:
        """A subtree of 2^depth leapfrogs from `end`, in the direction of the sign of `step_size`."""
        if depth == 0:
            point = self._step(self._logdensity, end, step_size, self._metric)
            error = point.energy - self._start_energy
            accept = math.exp(-max(error, 0.0))
            return Tree(point, point, point, point.momentum, -error, False, error > MAX_ENERGY_ERROR, accept, 1)
        near = self._grow(end, step_size, depth - 1)
        if near.turning or near.diverging:
            return near
        forward = step_size > 0
        far = self._grow(near.right if forward else near.left, step_size, depth - 1)
        log_weight = _logaddexp(near.log_weight, far.log_weight)
        take_far = self._uniform() < math.exp(far.log_weight - log_weight)
        left, right = (near.left, far.right) if forward else (far.left, near.right)
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


def leapfrog(logdensity: LogDensity, start: Point, step_size: float, metric: Metric | None = None) -> Point:
    """One leapfrog; where density or gradient is not finite the energy is infinite.

    Velocities move along with the momenta, so that a mass matrix costs one solve a step.
    """
    half = 0.5 * step_size
    momentum = torch.add(start.momentum, start.gradient, alpha=half)
    velocity = momentum if metric is None else torch.add(start.velocity, start.natural, alpha=half)
    u = torch.add(start.u, velocity, alpha=step_size)
    pull = u if metric is None else torch.add(start.pull, momentum, alpha=step_size)
    value, gradient = logdensity(u)
    natural = gradient if metric is None else metric.velocity(gradient)
    momentum = torch.add(momentum, gradient, alpha=half)
    velocity = momentum if metric is None else torch.add(velocity, natural, alpha=half)
    return _arrive(u, pull, momentum, velocity, gradient, natural, value)


def rotation(logdensity: LogDensity, start: Point, step_size: float, metric: Metric | None = None) -> Point:
    """One step that solves the Gaussian part exactly: the flow of N(0, M^-1) is a rotation, kicks are what is left.

    A leapfrog errs in every coordinate, however near the target is to that Gaussian; this errs in the difference only.

    References
    ----------
    Shahbaba, Lan, Johnson, Neal (2014), Stat. Comput. 24, 339-349.
    """
    half, cos, sin = 0.5 * step_size, math.cos(step_size), math.sin(step_size)
    kicked = _sum(start.momentum, start.gradient, start.pull, 1.0, half, half)
    quick = kicked if metric is None else _sum(start.velocity, start.natural, start.u, 1.0, half, half)
    u = torch.mul(start.u, cos).add_(quick, alpha=sin)
    pull = u if metric is None else torch.mul(start.pull, cos).add_(kicked, alpha=sin)
    value, gradient = logdensity(u)
    natural = gradient if metric is None else metric.velocity(gradient)
    momentum = _sum(kicked, start.pull, gradient, cos, -sin, half).add_(pull, alpha=half)
    velocity = momentum
    if metric is not None:
        velocity = _sum(quick, start.u, natural, cos, -sin, half).add_(u, alpha=half)
    return _arrive(u, pull, momentum, velocity, gradient, natural, value)


def _sum(x: Tensor, y: Tensor, z: Tensor, a: float, b: float, c: float) -> Tensor:
    """The sum a x + b y + c z in one place: vectors of all effects are long, and every pass through one counts."""
    out = torch.mul(x, a) if a != 1.0 else x.clone()
    return out.add_(y, alpha=b).add_(z, alpha=c)


def _arrive(
    u: Tensor, pull: Tensor, momentum: Tensor, velocity: Tensor, gradient: Tensor, natural: Tensor, value: Tensor
) -> Point:
    lp = value.item()
    kinetic = 0.5 * torch.dot(momentum, velocity).item()
    energy = kinetic - lp
    energy = energy if math.isfinite(energy) else math.inf
    return Point(u, pull, momentum, velocity, gradient, natural, lp, kinetic, energy)


def is_turning(left: Point, right: Point, momentum_sum: Tensor) -> bool:
    """Whether the trajectory from `left` to `right` begins to come back (Betancourt 2017, A.4.2).

    As in Pyro, the sum of the momenta counts each end by half.
    """
    across = torch.dot(left.velocity, right.momentum).item()
    if torch.dot(left.velocity, momentum_sum).item() <= left.kinetic + 0.5 * across:
        return True
    return torch.dot(right.velocity, momentum_sum).item() <= right.kinetic + 0.5 * across


def _logaddexp(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


INTEGRATORS = {"leapfrog": leapfrog, "rotation": rotation}
