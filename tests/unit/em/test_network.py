"""The network phase: what decides when it stops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import glmmnet as gn
from glmmnet.em.config import EMConfig
from glmmnet.em.loop import starting_parameters
from glmmnet.em.network import NetworkTraining, Rows
from glmmnet.laplace import find_mode, level_whitening
from glmmnet.model import inputs
from glmmnet.samplers import SAMPLERS

pytestmark = pytest.mark.usefixtures("seeded")


def training(variance: float = 4.0) -> NetworkTraining:
    rng = np.random.default_rng(4)
    g, x = np.repeat(np.arange(60), 6), rng.normal(size=360)
    eta = x + rng.normal(0, variance**0.5, 60)[g]
    data = pd.DataFrame({"y": (rng.uniform(size=360) < 1 / (1 + np.exp(-eta))).astype(int), "x": x, "g": g})
    model = gn.glmm("y ~ nn(x, layers=(4,)) + (1 | g)", data, family="bernoulli")
    held = torch.as_tensor(np.arange(360) % 6 == 0)
    rows = Rows(model._joint, inputs(model.design))
    return NetworkTraining(rows, model._build_predictor(), EMConfig(), SAMPLERS["nuts"](), held)


def test_held_out_deviance_integrates_over_the_laplace_approximation():
    phase = training()
    joint = phase.train.joint
    params = replace(starting_parameters(joint), sigma=(torch.full((1, 1, 1), 4.0, dtype=torch.float64),))
    f = phase.predictor.predict(phase.train.xs)
    phase.e_step.mode = find_mode(joint, joint.fixed_eta(params, f), params).mode
    valid = phase.valid.joint
    many = torch.randn(joint.n_effects, 1, 20_000, dtype=torch.float64)
    b = level_whitening(joint, phase.e_step.mode, joint.fixed_eta(params, f), params).to_b(many)
    eta = valid.fixed_eta(params, phase.predictor.predict(phase.valid.xs)) + valid.random_eta(b)
    p = torch.exp(valid.family.log_prob(eta, valid.target.y, 1.0)).mean(dim=1)
    expected = -2.0 * float(torch.log(p).mean())
    assert phase._valid_deviance(params, f) == pytest.approx(expected, rel=0.005)
    at_mode = valid.fixed_eta(params, phase.predictor.predict(phase.valid.xs))
    at_mode = at_mode + valid.random_eta(phase.e_step.mode[:, :, None])
    plugged_in = -2.0 * float(valid.log_likelihood(at_mode, 1.0)[0]) / valid.n
    assert abs(plugged_in / expected - 1.0) > 0.01


def test_the_same_weights_have_the_same_deviance():
    phase = training()
    params = starting_parameters(phase.train.joint)
    f = phase.predictor.predict(phase.train.xs)
    assert phase._valid_deviance(params, f) == phase._valid_deviance(params, f)


def test_held_out_rows_refute_a_factor_of_f_that_costs_them_deviance():
    phase = training()
    params = list(phase.run(starting_parameters(phase.train.joint)))[-1].params
    f = phase.predictor.predict(phase.train.xs)
    rows = phase.valid.joint.n
    refuted = {}
    for factor in (0.0, 0.5, 0.9, 1.0, 1.1, 2.0, 4.0):
        lost = rows * (phase._valid_deviance(params, f, factor) - phase._valid_deviance(params, f))
        refuted[factor] = phase.refutes(factor, params)
        assert refuted[factor] == (lost > 2.0)
    assert refuted[4.0] and not refuted[1.0]


def test_without_held_out_rows_no_factor_of_f_is_trusted():
    phase = training()
    phase.valid = None
    assert phase.refutes(1.0, starting_parameters(phase.train.joint))
