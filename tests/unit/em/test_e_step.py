"""The E-step keeps its coordinates and its step size in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glmmnet.em import e_step
from glmmnet.em.e_step import EStep
from glmmnet.joint import Parameters
from glmmnet.samplers import SAMPLERS
from glmmnet.typing import Draws, SamplerState

pytestmark = pytest.mark.usefixtures("seeded")


def wider(params: Parameters, factor: float) -> Parameters:
    return Parameters(params.beta, tuple(factor * sigma for sigma in params.sigma), params.phi)


def test_a_step_size_that_no_longer_fits_is_tuned_again(joint_of, parameters_of):
    joint = joint_of("bernoulli", (40, 1), (30, 1))
    params = parameters_of(joint)
    fixed = joint.fixed_eta(params)
    step = EStep(joint, SAMPLERS["nuts"](), 5)
    step(fixed, params, warmup=10)
    step.step_size = 3.0 * step.step_size
    rates = []
    for _ in range(5):
        step(fixed, params)
        rates.append(step._acceptance)
    assert min(rates[:-1]) < e_step._POOR * e_step._TARGET < rates[-1]


def tunings(joint, parameters, warmups, acceptance, target=0.7):
    """Transitions of tuning in calls that may tune so long."""
    asked = []
    step = EStep(joint, Recording(asked, acceptance, target), 1)
    for warmup in warmups:
        step(joint.fixed_eta(parameters), parameters, warmup=warmup)
    return [warmup for warmup, _ in asked]


def test_one_poor_transition_tunes_nothing(joint_of, parameters_of):
    joint = joint_of("bernoulli", (7, 1))
    # Three refusals in a row are believed, fewer are not; after tuning the past is forgotten.
    again = e_step._RETUNING
    assert tunings(joint, parameters_of(joint), [0] * 8, 0.0) == [0, 0, 0, again, 0, 0, again, 0]


@pytest.mark.parametrize(
    ("acceptance", "target", "tuned"),
    [
        pytest.param(0.7, 0.7, 0, id="as asked"),
        pytest.param(0.6, 0.9, 0, id="near a high target"),
        pytest.param(0.999, 0.7, 12, id="too good"),
        pytest.param(0.97, 0.9, 0, id="good, as asked"),
        pytest.param(None, 0.7, 12, id="not known"),
    ],
)
def test_a_step_that_suits_is_not_tuned_on_schedule(joint_of, parameters_of, acceptance, target, tuned):
    joint = joint_of("bernoulli", (7, 1))
    found = tunings(joint, parameters_of(joint), [12] + [0] * 8 + [12], acceptance, target)
    assert found == [12] + [0] * 8 + [tuned]


def test_a_step_of_other_coordinates_is_forgotten(joint_of, parameters_of):
    joint = joint_of("bernoulli", (7, 1))
    params, asked = parameters_of(joint), []
    step = EStep(joint, Recording(asked, 0.7), 1)
    step(joint.fixed_eta(params), params)
    step._kind = (1, True)
    step(joint.fixed_eta(params), params)
    step(joint.fixed_eta(params), params)
    assert asked == [(0, None), (e_step._RETUNING, None), (0, 0.1)]


def test_curvature_is_renewed_when_the_variances_have_moved(joint_of, parameters_of):
    joint = joint_of("bernoulli", (40, 1))
    params = parameters_of(joint)
    fixed = joint.fixed_eta(params)
    step = EStep(joint, SAMPLERS["nuts"](), 2)
    for _ in range(e_step._AT_FIRST + 1):
        step(fixed, params)
    kept = step._coordinates._information
    step(fixed, wider(params, 1.1))
    assert step._coordinates._information[0] is kept[0]
    step(fixed, wider(params, 4.0))
    assert step._coordinates._information[0] is not kept[0]


def test_draws_start_from_earlier_ones_however_many_copies_move(joint_of, parameters_of):
    joint = joint_of("bernoulli", (7, 1))
    params = parameters_of(joint)
    step = EStep(joint, SAMPLERS["nuts"](), 12)
    step.start_from(torch.full((7, 1, 1), 0.5, dtype=torch.float64))
    assert step(joint.fixed_eta(params), params, warmup=5).shape == (7, 1, 12)
    assert step.copies > 1


@pytest.mark.parametrize(
    ("acceptance", "warmups", "stays"),
    [
        pytest.param(0.999, [12, *[0] * 8, 12], [True] * 9 + [False], id="tuning is due"),
        pytest.param(0.0, [12, 0, 0, 0], [True] * 4, id="draws were poor"),
    ],
)
def test_chains_start_anew_only_where_tuning_is_due(joint_of, parameters_of, acceptance, warmups, stays):
    joint = joint_of("bernoulli", (7, 1))
    params, asked = parameters_of(joint), []
    fixed, far = joint.fixed_eta(params), torch.full((7, 1, 1), 50.0, dtype=torch.float64)
    step, found = EStep(joint, Recording(asked, acceptance), 1), []
    for warmup in warmups:
        step.start_from(far)
        found.append(torch.allclose(step(fixed, params, warmup=warmup), far))
    assert found == stays
    # Tuned they are in either case.
    assert asked[-1][0] > 0


class Recording:
    """A sampler that stays where it is, with a given acceptance, and writes down what tuning it is asked for."""

    name = "recording"

    def __init__(self, tuned, acceptance, target_accept=0.7):
        self.tuned, self.acceptance, self.target_accept = tuned, acceptance, target_accept

    def draw(self, logdensity, state, *, draws, warmup=0, metric=None):
        self.tuned.append((warmup, state.step_size))
        stats = {} if self.acceptance is None else {"acceptance_rate": np.full(draws, self.acceptance)}
        return Draws(state.u.expand(draws, -1), stats, SamplerState(state.u, 0.1))


class Still:
    """A sampler that stays where it is, without statistics."""

    name = "still"

    def draw(self, logdensity, state, *, draws, warmup=0, metric=None):
        return Draws(state.u.expand(draws, -1), {}, SamplerState(state.u, 0.1))


def test_a_sampler_without_acceptance_rates_is_not_tuned_again(joint_of, parameters_of):
    joint = joint_of("bernoulli", (7, 1))
    params = parameters_of(joint)
    step = EStep(joint, Still(), 3)
    first = step(joint.fixed_eta(params), params)
    torch.testing.assert_close(step(joint.fixed_eta(params), params), first)
