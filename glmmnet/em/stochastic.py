"""Newton's method with Monte Carlo scores, which ends the polish where b cannot be integrated out level by level.

First towards the maximum of the likelihood as the nearest Gaussian of the posterior has it, free of Monte Carlo error;
then, with its information, by the score from the sampler's draws, until the error that these leave is small beside the
standard errors. f is held fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from glmmnet.em.boundary import at_edge, floored, without_crawling
from glmmnet.em.config import EMConfig
from glmmnet.em.e_step import EStep
from glmmnet.em.newton import finish_by, last_state, newton_step
from glmmnet.em.state import EMState
from glmmnet.joint import JointModel, Parameters
from glmmnet.observed import Approximation, ObservedScore, has_observed
from glmmnet.quadrature import has_quadrature
from glmmnet.steps import ParameterSteps
from glmmnet.typing import Sampler
from glmmnet.variance import VarianceParameter, active_parameters, is_singular

#: Newton steps with the nearest Gaussian at most; the length of one, in standard errors, that ends them, and the one
#: before which no variance is said to be 0: below the threshold lie starting values of effects that data hardly tell.
_STEPS, _NEAR, _CLOSE = 20, 0.1, 0.5
#: A step of eta (root mean square) that is none any more; a short step is not enough where beta runs away.
_STILL = 0.05
#: Smallest eigenvalue of correlations just inside of their boundary.
_INSIDE = 5e-4
#: An information is used again while each step is shorter than the last by this factor.
_SHRINKS = 0.3
#: Rounds of draws at most; a round's step, in standard errors, whose error no further round need mend: where counts are
#: rare half of it may be left, as the nearest Gaussian's information is not that of the likelihood.
_ROUNDS, _SMALL = 6, 0.1
#: A step of log standard deviations and Fisher z that is small, however large their standard errors are.
_STRAIGHT = 0.3
#: E-steps a round at least and at most, and transitions that tune the sampler first.
_FEWEST_CALLS, _MOST_CALLS, _TUNING = 10, 200, 12
#: Share of the fit's tolerance within which the draws bring the maximum, and standard errors within which they do.
_DRAWS_SHARE, _FURTHEST = 0.25, 0.1
#: Share of that which a round's Monte Carlo error may have, and share of the step that follows.
_SHARE, _OF_STEP = 0.5, 0.2


def finish_by_scores(
    states: Iterator[EMState],
    joint: JointModel,
    f: Tensor | None,
    sampler: Sampler | None,
    draws: int,
    config: EMConfig,
) -> Iterator[EMState]:
    """The states of the polish until the maximum is found from one of them, then that as the last.

    Parameters
    ----------
    joint : JointModel
        See :func:`has_scores`.
    draws : int
        Draws of b an E-step.
    """

    def attempt(state: EMState) -> EMState | None:
        near = climb(joint, state.params, f)
        if near is None:
            return None
        # Its chains begin at the nearest Gaussian: the draws at hand are of other parameters.
        e_step = EStep(joint, sampler, draws)
        found = _by_draws(joint, near, f, e_step, min(_DRAWS_SHARE * config.tol, _FURTHEST))
        if found is None:
            return None
        params, b, error = found
        return last_state(state, joint, f, params, b, error)

    return finish_by(states, attempt, config)


def has_scores(joint: JointModel, *, given_f: bool) -> bool:
    """Whether the polish may end here: see :func:`glmmnet.observed.has_observed`; not where quadrature is exact."""
    return has_observed(joint, given_f=given_f) and not has_quadrature(joint)


@dataclass(frozen=True)
class Near:
    """Parameters near the maximum of the likelihood, and the observed information (k, k) there."""

    params: Parameters
    information: Tensor


def climb(joint: JointModel, params: Parameters, f: Tensor | None) -> Near | None:
    """Newton's method with the nearest Gaussian's score; None where it does not get to a maximum."""
    try:
        return _climbed(joint, params, f)
    # Far from the maximum a precision may have no factor: EM goes on from there. Torch's error is not in its stubs.
    except (torch.linalg.LinAlgError, np.linalg.LinAlgError):  # type: ignore[attr-defined]
        return None


def _climbed(joint: JointModel, params: Parameters, f: Tensor | None) -> Near | None:
    steps, information, last = ParameterSteps(joint), None, float("inf")
    here: Approximation | None = None
    for _ in range(_STEPS):
        active = active_parameters(joint, params)
        if information is not None and len(information) != steps.size + len(active):
            information = None
        observed = ObservedScore(joint, f, active)
        here = observed.at(floored(joint, params), None if here is None else here.posterior)
        fresh = information is None
        information = observed.information(here) if information is None else information
        if not bool(torch.isfinite(information).all() and torch.isfinite(here.score).all()):
            return None
        step, size, concave = newton_step(here.score, information, torch.diagonal(information))
        near = size < _NEAR and concave and steps.eta_size(step) < _STILL
        if near or (size < _CLOSE and concave):
            kept = without_crawling(joint, params, f)
            left = active_parameters(joint, kept)
            if near and left == active:
                edge = _on_edge(joint, params, f)
                if edge is None:
                    return Near(params, information)
                params, information = edge, None
                continue
            falling = [step[steps.size + k] < 0 for k, p in enumerate(active) if p not in left and p.i == p.j]
            if near or (falling and all(falling)):
                own = [*range(steps.size), *(steps.size + active.index(p) for p in left)]
                params, information = kept, information[own][:, own]
                continue
        if not fresh and size > _SHRINKS * last:
            information = None
            continue
        params = steps.moved(params, active, step * steps.shortening(params, step))
        last = size
    return None


def _on_edge(joint: JointModel, params: Parameters, f: Tensor | None) -> Parameters | None:
    """`params` with a correlation of two effects on its boundary where the score points there from just inside.

    Fisher's z would go on for ever.
    """
    steps = ParameterSteps(joint)
    for k, term in enumerate(joint.terms):
        for c in range(joint.n_classes if term.structure == "us" and term.r == 2 else 0):
            own = params.sigma[k][c]
            edge, inside = at_edge(own), at_edge(own, _INSIDE)
            if edge is None or inside is None or is_singular(own):
                continue
            close = _with_sigma(params, k, c, inside)
            active = active_parameters(joint, close)
            score = ObservedScore(joint, f, active).at(floored(joint, close)).score[steps.size :]
            if float(score[active.index(VarianceParameter(k, c, 0, 1))] * own[0, 1]) >= 0:
                return _with_sigma(params, k, c, edge)
    return None


def _with_sigma(params: Parameters, term: int, class_: int, matrix: Tensor) -> Parameters:
    sigma = list(params.sigma)
    sigma[term] = sigma[term].clone()
    sigma[term][class_] = matrix
    return replace(params, sigma=tuple(sigma))


def _by_draws(
    joint: JointModel, near: Near, f: Tensor | None, e_step: EStep, tol: float
) -> tuple[Parameters, Tensor, float] | None:
    """The maximum, the last draws, and the Monte Carlo error of the parameters in standard errors."""
    steps, params, last = ParameterSteps(joint), near.params, float("inf")
    information: Tensor | None = near.information
    active = active_parameters(joint, params)
    observed = ObservedScore(joint, f, active)
    for k in range(_ROUNDS):
        working = floored(joint, params)
        here, fixed = observed.at(working), joint.fixed_eta(working, f)
        information = observed.information(here) if information is None else information
        covariance = _covariance(information)
        se, steadied = torch.diagonal(covariance).clamp_min(1e-300).sqrt(), observed.steadied(here)
        moves: list[Tensor] = []
        for call in range(_MOST_CALLS):
            b = e_step(fixed, working, warmup=_TUNING if k == call == 0 else 0)
            moves.append(covariance @ steadied(b).mean(dim=1))
            if call + 1 < _FEWEST_CALLS:
                continue
            step, each = torch.stack(moves).mean(dim=0), torch.stack(moves) / se
            size = float((step / se).abs().max())
            error = float((each.var(dim=0) / len(moves)).sqrt().max())
            enough = _OF_STEP * size if size > _SMALL else 0.0
            if error < max(_SHARE * tol, enough):
                break
        if error >= max(tol, enough):
            # As many draws tell too little: further rounds would not tell more.
            return None
        if not bool(torch.isfinite(step).all()):
            return None
        params = steps.moved(params, active, step * steps.shortening(params, step))
        if size < _SMALL and bool((step[steps.size :].abs() < _STRAIGHT).all()):
            return (params, b, error) if error < tol else None
        information, last = None if size > _SHRINKS * last else information, size
    return None


def _covariance(information: Tensor) -> Tensor:
    """Inverse of the information (k, k), as :func:`glmmnet.em.newton.newton_step` has it."""
    unit = torch.diagonal(information)
    return torch.stack([newton_step(one, information, unit)[0] for one in torch.eye(len(unit), dtype=torch.float64)])
