"""Newton's method on the likelihood by quadrature, which ends the polish where b can be integrated out level by level.

A few Monte Carlo iterations bring the estimates near; Newton steps over beta, log standard deviations, Fisher z and
log dispersion take them to the maximum, free of Monte Carlo error. f is held fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from glmmnet.em.boundary import at_edge
from glmmnet.em.config import EMConfig
from glmmnet.em.state import EMState
from glmmnet.joint import JointModel, Parameters
from glmmnet.quadrature import SecondOrder, derivative_nodes, has_quadrature, second_order
from glmmnet.steps import ParameterSteps, n_parameters
from glmmnet.variance import VarianceParameter, active_parameters, shifted, without

#: Quadrature points a dimension of the first searches, before as many as the likelihood takes; and the change of the
#: log-likelihood from one to the next that needs no more points.
_LADDER, _SAME_VALUE = (7, 15), 1e-3
#: Iteration of the polish after which Newton's method is tried first.
_EARLY = 3
#: Decrement to which the first steps go; below it a gain in likelihood is lost in the quadrature's error.
_NEAR = 0.05
#: Newton steps, and halvings of one, at most.
_STEPS, _HALVINGS = 20, 8
#: Most parameters.
_MOST_PARAMETERS = 100
#: A log standard deviation that is to fall by more is tried at a hair above 0, in units of eta.
_FALLING, _HAIR = 0.2, 1e-4
#: Score of a log standard deviation, a level, that the ridge on Sigma's inverse makes.
_RIDGE_SCORE = 2e-9
#: Largest decrement that counts as converged.
_TOLERANCE = 1e-3
#: A step of eta (root mean square) that is none any more; a decrement of 0 is not enough where beta runs away.
_STILL = 0.05
#: Rounding error of a log-likelihood, as a share of it.
_ROUNDING = 1e-12
#: An eigenvalue of the scaled information below is that of a direction without information.
_FLAT = 1e-10


def has_newton(joint: JointModel) -> bool:
    """Whether the polish may end by Newton's method: quadrature applies, is affordable, and is needed."""
    if joint.family.quadratic or not has_quadrature(joint):
        return False
    parameters = n_parameters(joint)
    return parameters <= _MOST_PARAMETERS and derivative_nodes(joint, parameters) is not None


def finish_by_newton(
    states: Iterator[EMState], joint: JointModel, f: Tensor | None, config: EMConfig
) -> Iterator[EMState]:
    """The states of the polish until Newton's method converges from one of them, then that maximum as the last."""

    def attempt(state: EMState) -> EMState | None:
        found = maximise(joint, state.params, f, min(config.tol / 10, _TOLERANCE))
        return None if found is None else last_state(state, joint, f, found.params, state.b, found.decrement)

    return finish_by(states, attempt, config)


def finish_by(
    states: Iterator[EMState], attempt: Callable[[EMState], EMState | None], config: EMConfig
) -> Iterator[EMState]:
    """The states until an attempt to finish from one of them succeeds, and what it finds.

    It is tried early, after the burn-in, and once more from where the states end.
    """
    tried = (min(_EARLY, max(config.burn_in, 1)), config.burn_in, config.max_iter)
    for count, state in enumerate(states, start=1):
        yield state
        if count in tried or state.converged:
            last = attempt(state)
            if last is not None:
                yield last
                return


def last_state(
    before: EMState, joint: JointModel, f: Tensor | None, params: Parameters, b: Tensor, change: float
) -> EMState:
    """The state at the maximum that was found from the one `before`, with draws b (Q, C, S)."""
    eta = joint.fixed_eta(params, f) + joint.random_eta(b)
    return replace(
        before,
        iteration=before.iteration + 1,
        phase="newton",
        params=params,
        b=b,
        deviance=-2.0 * float(joint.log_likelihood(eta, params.phi).mean()),
        change=change,
        converged=True,
    )


@dataclass(frozen=True)
class Maximum:
    """A maximum of the likelihood.

    Attributes
    ----------
    params : Parameters
        Variances whose best value is 0 are exactly 0.
    decrement : float
        (score' information^-1 score)^(1/2), no less than any parameter's remaining step in standard errors.
    value : float
        The log-likelihood.
    """

    params: Parameters
    decrement: float
    value: float


def maximise(joint: JointModel, params: Parameters, f: Tensor | None, tolerance: float) -> Maximum | None:
    """The maximum of the likelihood near `params`; None where Newton's method does not get there.

    Parameters
    ----------
    joint : JointModel
        See :func:`has_newton`.
    f : Tensor, (n, C), optional
    tolerance : float
        The largest decrement that counts as converged.
    """
    found: Maximum | None = None
    most = derivative_nodes(joint, n_parameters(joint))
    assert most is not None
    for nodes in (*(rung for rung in _LADDER if rung < most), most):
        search = _Search(joint, f, nodes, _NEAR if nodes == _LADDER[0] < most else tolerance)
        last, found = found, search.run(params if found is None else found.params)
        if found is not None and last is not None and abs(search.first - last.value) < _SAME_VALUE:
            # More points no longer change the likelihood.
            return found
    return found


class _Search:
    """Newton's method with one number of quadrature points; `first` is the log-likelihood where it starts."""

    def __init__(self, joint: JointModel, f: Tensor | None, nodes: int, tolerance: float) -> None:
        self._joint, self._f, self._nodes, self._tolerance = joint, f, nodes, tolerance
        self.first = float("nan")
        self._steps = ParameterSteps(joint)
        self._size = self._steps.size

    def run(self, params: Parameters) -> Maximum | None:
        here = self._at(params)
        self.first = here.value
        for _ in range(_STEPS):
            active = active_parameters(self._joint, params)
            if not bool(torch.isfinite(here.information).all()):
                return None
            # The observed information about the dispersion may be negative far from the maximum.
            step, decrement, concave = newton_step(here.score, here.information, torch.diagonal(here.complete))
            without = self._without_useless(params, here, active, step, all_of_them=decrement < self._tolerance)
            if without is None and decrement < self._tolerance:
                without = self._on_edge(params, here, active)
            if without is not None:
                params, here = without
                continue
            if decrement < self._tolerance:
                return (
                    Maximum(params, decrement, here.value) if concave and self._steps.eta_size(step) < _STILL else None
                )
            step = step * self._steps.shortening(params, step)
            for _ in range(_HALVINGS):
                moved = self._steps.moved(params, active, step)
                there = self._at(moved)
                if decrement < _NEAR or there.value >= here.value - self._rounding(here):
                    break
                step = 0.5 * step
            else:
                return None
            params, here = moved, there
        return None

    def _shared(self, p: VarianceParameter) -> tuple[int, ...]:
        """Columns whose standard deviation is that parameter."""
        term = self._joint.terms[0]
        return next(columns for columns in term.covariance.deviations(term.r) if p.i in columns)

    def _at(self, params: Parameters) -> SecondOrder:
        active = active_parameters(self._joint, params)
        return second_order(self._joint, params, self._f, self._steps.basis, active, self._nodes)

    def _rounding(self, here: SecondOrder) -> float:
        return _ROUNDING * max(abs(here.value), self._joint.n)

    def _without_useless(
        self,
        params: Parameters,
        here: SecondOrder,
        active: tuple[VarianceParameter, ...],
        step: Tensor,
        *,
        all_of_them: bool,
    ) -> tuple[Parameters, SecondOrder] | None:
        """`params` with a variance of 0 where that is as good and the likelihood falls from there; None if none is."""
        for k, p in enumerate(active):
            if p.term < 0 or p.i != p.j or not (all_of_them or step[self._size + k] < -_FALLING):
                continue
            sd = params.sigma[0][p.class_, p.i, p.i].sqrt()
            hair = _HAIR * self._joint.eta_unit / self._joint.terms[0].size[p.i].clamp_min(1e-150)
            near = self._at(shifted(self._joint, params, (p,), torch.log(hair / sd)[None].numpy()))
            falls = near.score[self._size + k] <= _RIDGE_SCORE * self._joint.terms[0].q
            if near.value >= here.value - self._rounding(here) and falls:
                keep = torch.ones(params.sigma[0].shape[:2], dtype=torch.bool)
                keep[p.class_, list(self._shared(p))] = False
                params = without(self._joint, params, [keep])
                return params, self._at(params)
        return None

    def _on_edge(
        self, params: Parameters, here: SecondOrder, active: tuple[VarianceParameter, ...]
    ) -> tuple[Parameters, SecondOrder] | None:
        """`params` with correlations on their boundary where that is as good: Fisher's z would go on for ever."""
        if self._joint.terms[0].structure != "us":
            return None
        for c in {p.class_ for p in active if p.i != p.j}:
            edge = at_edge(params.sigma[0][c])
            if edge is None:
                continue
            sigma = params.sigma[0].clone()
            sigma[c] = edge
            moved = replace(params, sigma=(sigma,))
            there = self._at(moved)
            if there.value >= here.value - self._rounding(here):
                return moved, there
        return None


def newton_step(score: Tensor, information: Tensor, unit: Tensor) -> tuple[Tensor, float, bool]:
    """Information^-1 score, its length in standard errors, and whether the information is positive.

    Directions in which the likelihood bends upwards go uphill as far as if it bent downwards.

    Parameters
    ----------
    score : Tensor, (k,)
    information : Tensor, (k, k)
    unit : Tensor, (k,)
        Information about each parameter that tells which eigenvalues are 0.
    """
    scale = unit.abs().clamp_min(1e-300).rsqrt()
    values, vectors = torch.linalg.eigh(scale[:, None] * information * scale)
    inverse = torch.where(values.abs() > _FLAT, 1.0 / values.abs(), 0.0)
    along = vectors.T @ (scale * score)
    return (
        scale * (vectors @ (inverse * along)),
        float((inverse * along.square()).sum().sqrt()),
        bool((values > -_FLAT).all()),
    )
