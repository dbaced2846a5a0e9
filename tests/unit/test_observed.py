"""Scores steadied by Stein's identity, and the information of the nearest Gaussian, against exact answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from _fits import frame
from torch import Tensor

import glmmnet as gn
from glmmnet.em import newton
from glmmnet.em.loop import starting_parameters
from glmmnet.joint import JointModel, Parameters
from glmmnet.likelihood import log_likelihood
from glmmnet.observed import ObservedScore, has_observed
from glmmnet.quadrature import level_quadrature, second_order
from glmmnet.steps import ParameterSteps
from glmmnet.variance import VarianceParameter, active_parameters

SEED = 20261123
F = gn.families


def exact_score(joint: JointModel, params: Parameters, f: Tensor | None = None) -> Tensor:
    """Central differences of the exact log-likelihood of a Gaussian model in the parameters' steps."""
    steps, active = ParameterSteps(joint), active_parameters(joint, params)
    h = 1e-4 * torch.eye(steps.size + len(active), dtype=torch.float64)
    value = [
        [log_likelihood(joint, steps.moved(params, active, s * one), f, method="exact").value for s in (1, -1)]
        for one in h
    ]
    return torch.tensor([(up - down) / 2e-4 for up, down in value], dtype=torch.float64)


@pytest.mark.parametrize(
    ("terms", "options"),
    [
        ([(8, 1)], {}),
        ([(6, 2), (5, 1)], {"offset": True}),
        ([(6, 2, "diag"), (5, 1), (4, 2, "cs")], {"weights": np.resize([1.0, 3.0, 0.0, 2.0], 60)}),
        ([(6, 2, "us", "related"), (5, 1)], {}),
    ],
)
def test_a_gaussian_posterior_leaves_nothing_of_a_scores_noise(joint_of, parameters_of, terms, options):
    """Whatever b is, the steadied score is that of the exact likelihood, but for the dispersion: quadratic in eta."""
    joint = joint_of("gaussian", *terms, **options)
    params = parameters_of(joint)
    generator = torch.Generator().manual_seed(SEED)
    b = 3.0 * torch.randn(joint.n_effects, 1, 7, generator=generator, dtype=torch.float64)
    for model in (joint, replace(joint, divisor=torch.linspace(0.5, 2.0, joint.n, dtype=torch.float64)[:, None])):
        observed = ObservedScore(model, None, active_parameters(model, params))
        here = observed.at(params)
        found, exact = observed.steadied(here)(b)[:-1], exact_score(model, params)[:-1]
        torch.testing.assert_close(found, exact[:, None].expand(found.shape), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(here.score[:-1], exact, rtol=1e-5, atol=1e-5)


def test_a_dispersions_score_is_right_on_average(joint_of, parameters_of):
    joint = joint_of("gaussian", (6, 2), (5, 1))
    params = parameters_of(joint)
    observed = ObservedScore(joint, None, active_parameters(joint, params))
    here = observed.at(params)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        each = observed.steadied(here)(here.posterior.draw(20_000))[-1]
    assert float(each.mean() - exact_score(joint, params)[-1]) == pytest.approx(
        0.0, abs=4 * float(each.std()) / 20_000**0.5
    )


def test_f_is_an_offset(joint_of, parameters_of):
    joint = joint_of("gaussian", (6, 1), (5, 1))
    params, f = parameters_of(joint), torch.linspace(-1.0, 1.0, joint.n, dtype=torch.float64)[:, None]
    here = ObservedScore(joint, f, active_parameters(joint, params)).at(params)
    torch.testing.assert_close(here.score[:-1], exact_score(joint, params, f)[:-1], rtol=1e-5, atol=1e-5)


def responses() -> pd.DataFrame:
    """The frame with one more response for each family."""
    data, rng = frame().copy(), np.random.default_rng(SEED)
    effects = 0.8 * rng.normal(size=12)
    eta = 0.3 + 0.5 * data["x"].to_numpy() + effects[pd.factorize(data["g"])[0]]
    mu, p = np.exp(eta), 1 / (1 + np.exp(-eta))
    count = rng.poisson(mu)
    return data.assign(
        count=count,
        spread=rng.negative_binomial(2, 2 / (2 + mu)),
        positive=rng.gamma(2, mu / 2),
        share=rng.beta(5 * p, 5 * (1 - p)),
        ordered=np.digitize(eta + rng.logistic(size=len(data)), [-1, 0.5, 2]),
        zeros=np.where(rng.random(len(data)) < 0.3, 0, count),
        heavy=eta + rng.standard_t(4, size=len(data)),
        # Rows whose own second derivative is many times the expected one.
        skewed=rng.wald(mu, 2.0),
        two=np.where(data["b"] == 1, "yes", "no"),
    )


MODELS = [
    ("b ~ x + (1 | g)", "bernoulli"),
    ("p(k, m) ~ x + (x | g)", "binomial"),
    ("count ~ x + (x || g)", "poisson"),
    ("spread ~ x + (1 | g)", "negativebinomial"),
    ("positive ~ x + (1 | g)", "gamma"),
    ("share ~ x + (1 | g)", "beta"),
    ("ordered ~ x + (1 | g)", "cumulative"),
    ("c ~ x + (1 | g)", F.Categorical(reference="bb")),
    ("two ~ x + (1 | g)", F.Categorical()),
    ("c ~ x + (1 | g)", F.Categorical(reference="bb", class_cov="us")),
    ("zeros ~ x + (1 | g)", "zeroinflatedpoisson"),
    ("heavy ~ x + (1 | g)", "studentt"),
    ("skewed ~ x + (1 | g)", "inversegaussian"),
]


@pytest.fixture(scope="module", params=MODELS, ids=lambda case: f"{case[0]} {getattr(case[1], 'name', case[1])}")
def at_maximum(request) -> tuple[JointModel, Parameters, tuple[VarianceParameter, ...]]:
    """A model of one random term, and the maximum of its likelihood by quadrature."""
    formula, family = request.param
    joint = gn.glmm(formula, data=responses(), family=family)._joint
    found = newton.maximise(joint, starting_parameters(joint), None, 1e-3)
    assert found is not None
    return joint, found.params, active_parameters(joint, found.params)


def test_information_is_nearly_that_of_quadrature(at_maximum):
    """What is left is the posteriors' skewness, which 25 rows a level make small: a hundredth of a standard error."""
    joint, params, active = at_maximum
    observed = ObservedScore(joint, None, active)
    here = observed.at(params)
    exact = second_order(joint, params, None, ParameterSteps(joint).basis, active, 15).information
    covariance, expected = (torch.linalg.pinv(i, hermitian=True) for i in (observed.information(here), exact))
    se = expected.diagonal().sqrt()
    torch.testing.assert_close(covariance.diagonal().sqrt() / se, torch.ones_like(se), rtol=0.0, atol=0.01)
    torch.testing.assert_close(covariance / (se[:, None] * se), expected / (se[:, None] * se), rtol=0.0, atol=0.02)
    # The nearest Gaussian's own score is off by little too.
    assert float((covariance @ here.score / se).abs().max()) < 0.1


def test_the_mean_over_the_true_posterior_is_the_score(at_maximum):
    """Stein's identity: exact but for rounding, at any parameters and with the Gaussian of any others."""
    joint, params, active = at_maximum
    steps = ParameterSteps(joint)
    away = steps.moved(params, active, torch.full((steps.size + len(active),), 0.2, dtype=torch.float64))
    observed, term = ObservedScore(joint, None, active), joint.terms[0]
    here, nodes = observed.at(away), 61
    exact = second_order(joint, away, None, steps.basis, active, nodes)
    quadrature = level_quadrature(joint, joint.fixed_eta(away), away, nodes)
    pieces = list(quadrature.points(joint.n))
    points, probability = torch.cat([b for b, _ in pieces], dim=2), torch.cat([p for _, p in pieces], dim=1)
    score, centre = observed.steadied(here), here.posterior.mode[:, :, None]
    base = score(centre)[:, 0]
    mean, squares = base.clone(), torch.zeros_like(base)
    # The score of one random term is a sum over its levels: one at a time leaves the centre.
    for level in range(term.q):
        own = slice(level * term.r, (level + 1) * term.r)
        b = centre.repeat(1, 1, points.shape[2])
        b[own] = points[own]
        moved = score(b) - base[:, None]
        mean += moved @ probability[level]
        squares += moved.square() @ probability[level]
    torch.testing.assert_close(mean, exact.score, rtol=1e-5, atol=1e-5)
    # The test could not fail if the score did not move at all.
    assert float(squares.max()) > 1e-4


def test_which_models_have_it():
    data = responses()
    assert has_observed(gn.glmm("b ~ x + (1 | g) + (1 | h)", data=data, family="bernoulli")._joint)
    assert not has_observed(gn.glmm("x ~ (1 | g)", data=data)._joint)
    assert not has_observed(gn.glmm("b ~ x", data=data, family="bernoulli")._joint)


def test_a_large_dense_factor_is_too_dear():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"b": rng.integers(2, size=9000), **{g: rng.integers(1600, size=9000) for g in "ghk"}})

    def joint(formula):
        return gn.glmm(formula, data=data, family="bernoulli")._joint

    assert has_observed(joint("b ~ 1 + (1 | g) + (1 | h)"))
    # One factor more, and what is left beside the largest has 3,200 dense rows instead of 1,600.
    assert not has_observed(joint("b ~ 1 + (1 | g) + (1 | h) + (1 | k)"))


def test_many_effects_are_affordable_with_a_blocked_factor_and_one_predictor_and_without_a_network():
    rows = np.arange(12_000)
    data = pd.DataFrame({"b": rows % 2, "g": rows // 2, "few": rows // 60, "many": rows // 4, "c": rows % 3})

    def joint(formula, family="bernoulli"):
        return gn.glmm(formula, data=data.astype({"c": str}), family=family)._joint

    assert has_observed(joint("b ~ 1 + (1 | g) + (1 | few)"))
    assert not has_observed(joint("b ~ 1 + (1 | g) + (1 | few)"), given_f=True)
    assert not has_observed(joint("c ~ 1 + (1 | many) + (1 | few)", "categorical"))
    # 3,000 rows beside the largest factor: a sparse factor, whose inverse takes a solve for each of 9,000 effects.
    assert not has_observed(joint("b ~ 1 + (1 | g) + (1 | many)"))
