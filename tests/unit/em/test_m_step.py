"""The M-step raises the likelihood and stands still at its maximum."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

import glmmnet as gn
from glmmnet.em import complete_data
from glmmnet.em.expansion import find_carriers
from glmmnet.em.loop import starting_parameters
from glmmnet.em.m_step import m_step
from glmmnet.exact import GaussianLikelihood
from glmmnet.gaussian import gaussian_posterior
from glmmnet.joint import Parameters
from glmmnet.likelihood import log_likelihood

pytestmark = pytest.mark.usefixtures("seeded")

DRAWS = 4000
GAUSSIAN = {
    "one factor": ((9, 1),),
    "slopes": ((9, 2),),
    "diagonal": ((9, 2, "diag"),),
    "crossed": ((6, 2), (9, 1)),
    "compound symmetry": ((9, 3, "cs"),),
    "autoregression": ((9, 3, "ar1"),),
    "Toeplitz": ((9, 3, "toep"),),
    "related levels": ((9, 2, "us", "related"), (6, 1)),
}


def importance_draws(joint, params, draws=DRAWS):
    """Draws from the posterior of b of one scalar term: each level by its inverse distribution on a grid."""
    grid = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    sd = float(params.sigma[0]) ** 0.5
    b = (sd * grid)[None, None, :].expand(joint.n_effects, 1, -1)
    log_p = joint.weights[:, None] * joint.family.log_prob(
        joint.fixed_eta(params) + joint.random_eta(b), joint.target.y, params.phi
    )
    log_posterior = joint.terms[0].level_sum(log_p) - 0.5 * grid**2
    picked = torch.multinomial(torch.softmax(log_posterior, dim=1), draws, replacement=True)
    return sd * grid[picked][:, None]


@pytest.mark.parametrize("terms", GAUSSIAN.values(), ids=list(GAUSSIAN))
def test_likelihood_of_a_gaussian_model_climbs(terms, joint_of, parameters_of):
    joint = joint_of("gaussian", *terms, n=90, sd=1.5)
    carriers, params = find_carriers(joint), parameters_of(joint)
    best = GaussianLikelihood(joint).maximise(params)
    top = log_likelihood(joint, best, method="exact").value
    values = [log_likelihood(joint, params, method="exact").value]
    for _ in range(12):
        b = gaussian_posterior(joint, joint.fixed_eta(params), params).draw(DRAWS)
        params = m_step(joint, carriers, params, b).params
        values.append(log_likelihood(joint, params, method="exact").value)
    # Monotone up to the noise of 4,000 draws.
    assert all(after > before - 0.02 for before, after in pairwise(values))
    assert values[0] < top - 2
    assert values[-1] == pytest.approx(top, abs=0.3)


@pytest.mark.parametrize("family", ["bernoulli", "binomial"])
def test_likelihood_of_a_binary_model_climbs(family, joint_of, parameters_of):
    joint = joint_of(family, (30, 1), n=300, sd=1.0)
    params = replace(parameters_of(joint), sigma=(torch.full((1, 1, 1), 4.0, dtype=torch.float64),))
    carriers = find_carriers(joint)
    values = [log_likelihood(joint, params, method="agq").value]
    for _ in range(8):
        params = m_step(joint, carriers, params, importance_draws(joint, params)).params
        values.append(log_likelihood(joint, params, method="agq").value)
    assert all(after > before - 0.02 for before, after in pairwise(values))
    assert values[-1] - values[0] > 2
    assert values[-1] - values[-2] < 0.05


@pytest.mark.parametrize("terms", GAUSSIAN.values(), ids=list(GAUSSIAN))
def test_maximum_is_a_fixed_point(terms, joint_of, parameters_of):
    joint = joint_of("gaussian", *terms, n=90, sd=1.5)
    best = GaussianLikelihood(joint).maximise(parameters_of(joint))
    b = gaussian_posterior(joint, joint.fixed_eta(best), best).draw(20_000)
    step = m_step(joint, find_carriers(joint), best, b)
    torch.testing.assert_close(step.params.beta, best.beta, rtol=0, atol=0.02)
    assert step.params.phi == pytest.approx(best.phi, rel=0.01)
    for after, before in zip(step.params.sigma, best.sigma, strict=True):
        scale = torch.diagonal(before, dim1=1, dim2=2).sqrt()
        assert float(((after - before) / (scale[:, :, None] * scale[:, None])).abs().max()) < 0.03


def test_draws_in_parts_give_the_same_step(joint_of, parameters_of, monkeypatch):
    joint = joint_of("categorical", (6, 1), (5, 2))
    params, carriers = parameters_of(joint), find_carriers(joint)
    b = torch.randn(joint.n_effects, 3, 40, dtype=torch.float64)
    whole = m_step(joint, carriers, params, b)
    monkeypatch.setattr(complete_data, "_ENTRIES_AT_ONCE", 20_000)
    parts = m_step(joint, carriers, params, b)
    torch.testing.assert_close(parts.params.beta, whole.params.beta, rtol=1e-8, atol=1e-8)
    for one, other in zip(parts.params.sigma, whole.params.sigma, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    assert parts.deviance == pytest.approx(whole.deviance, rel=1e-12)


def test_without_random_terms_newton_reaches_the_estimate(joint_of):
    """The score of the generalised linear model is 0, but for a rounding error a row."""
    for family in ("gaussian", "binomial", "categorical"):
        joint = joint_of(family, p=3, n=200)
        params = starting_parameters(joint)
        _, score = joint.log_likelihood_and_score(joint.fixed_eta(params), params.phi)
        rounding = 1e-7 if joint.family.single_precision else 1e-14
        assert float((joint.X.T @ score[..., 0]).abs().max()) < joint.n * rounding


def test_fixed_effects_of_symmetric_classes_sum_to_zero(joint_of):
    params = starting_parameters(joint_of("categorical", p=3, n=200))
    assert float(params.beta.sum(dim=1).abs().max()) < 1e-12


def test_starting_variances_suit_the_unit_of_z(joint_of):
    joint = joint_of("gaussian", (9, 2), n=90)
    before = starting_parameters(joint).sigma[0]
    joint.terms[0].z[:, 1] *= 1000.0
    after = starting_parameters(joint).sigma[0]
    assert float(after[0, 1, 1] / before[0, 1, 1]) == pytest.approx(1e-6)
    assert float(after[0, 0, 0]) == float(before[0, 0, 0])


def test_deviance_is_that_of_the_old_estimates(joint_of, parameters_of):
    """No carried column: the location step leaves everything in place. Draws are in single precision."""
    joint = joint_of("bernoulli", (7, 1))
    joint = replace(joint, X=joint.X[:, 1:], x_names=("x1",))
    params = Parameters(torch.ones(1, 1, dtype=torch.float64), parameters_of(joint).sigma, 1.0)
    b = torch.randn(7, 1, 5, dtype=torch.float64)
    eta = joint.fixed_eta(params) + joint.random_eta(b)
    expected = -2 * float(joint.log_likelihood(eta, 1.0).mean())
    assert m_step(joint, find_carriers(joint), params, b).deviance == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_a_large_step_of_sigma_does_not_depend_on_units(unit):
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"x": rng.normal(size=200), "g": np.arange(200) % 20, "y": rng.integers(2, size=200)})
    joint, other = (
        gn.glmm("y ~ 1 + (x | g)", data.assign(x=data.x * size), family="bernoulli")._joint for size in (1.0, unit)
    )
    scale = torch.tensor([1.0, 1.0 / unit], dtype=torch.float64)
    # Nearly collinear effects, far too large: the working matrix goes as far as it may.
    sigma = torch.tensor([[[9.0, 8.9], [8.9, 9.0]]], dtype=torch.float64)
    b = torch.linalg.cholesky(sigma[0]) @ torch.randn(20, 2, 50, dtype=torch.float64)
    params = Parameters(torch.zeros(1, 1, dtype=torch.float64), (sigma,), 1.0)
    there = replace(params, sigma=(scale[:, None] * sigma * scale,))
    steps = []
    for one, at, factor in ((joint, params, torch.ones(2).double()), (other, there, scale)):
        torch.manual_seed(3)
        drawn = (factor[:, None] * b).reshape(40, 1, 50)
        steps.append(m_step(one, find_carriers(one), at, drawn).params.sigma[0] / (factor[:, None] * factor))
    torch.testing.assert_close(steps[1], steps[0], rtol=1e-4, atol=1e-6)
