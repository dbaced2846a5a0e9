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
    assert min(rates[:-1]) < e_step._POOR < rates[-1]


def test_one_poor_transition_tunes_nothing(joint_of, parameters_of):
    joint = joint_of("bernoulli", (7, 1))
    params = parameters_of(joint)
    tuned = []
    step = EStep(joint, Refusing(tuned), 1)
    for _ in range(8):
        step(joint.fixed_eta(params), params)
    # Three refusals in a row are believed, fewer are not; after tuning the past is forgotten.
    assert tuned == [0, 0, 0, e_step._RETUNING, 0, 0, e_step._RETUNING, 0]


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


class Refusing:
    """A sampler that stays where it is and refuses every step."""

    name = "refusing"

    def __init__(self, tuned):
        self.tuned = tuned

    def draw(self, logdensity, state, *, draws, warmup=0, metric=None):
        self.tuned.append(warmup)
        return Draws(state.u.expand(draws, -1), {"acceptance_rate": np.zeros(draws)}, SamplerState(state.u, 0.1))


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
