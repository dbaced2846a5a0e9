"""Score and information with the nearest Gaussian: exact where the posterior is Gaussian, else against quadrature."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import glmmnet as gn
from glmmnet.likelihood import log_likelihood
from glmmnet.observed import ObservedScore, has_observed
from glmmnet.quadrature import derivative_nodes, level_quadrature, second_order
from glmmnet.steps import ParameterSteps
from glmmnet.variance import active_parameters

SEED = 20261122


@pytest.mark.parametrize(
    ("terms", "options"),
    [
        ([(6, 1)], {}),
        ([(6, 2), (9, 1)], {"offset": True}),
        ([(5, 2), (8, 1)], {"weights": np.linspace(0.5, 2.0, 60)}),
        ([(6, 2, "cs", "related"), (4, 1)], {}),
        ([(7, 2, "diag")], {}),
    ],
)
def test_a_gaussian_posterior_leaves_no_noise_in_the_score(terms, options, joint_of, parameters_of):
    joint = joint_of("gaussian", *terms, **options)
    params, steps = parameters_of(joint), ParameterSteps(joint)
    active = active_parameters(joint, params)
    observed = ObservedScore(joint, None, active)
    here = observed.at(params)
    scores = observed.steadied(here)(torch.randn(joint.n_effects, 1, 7, dtype=torch.float64))

    def value(step: np.ndarray) -> float:
        return log_likelihood(joint, steps.moved(params, active, torch.as_tensor(step)), method="exact").value

    h = 1e-4 * np.eye(len(here.score))
    slope = np.array([(value(s) - value(-s)) / 2e-4 for s in h])
    # Of the dispersion only what is linear in b is taken out.
    np.testing.assert_allclose(here.score[:-1], slope[:-1], rtol=1e-6, atol=1e-5)
    # Any b will do: what the score of the complete data has of it is taken out again.
    np.testing.assert_allclose(scores[:-1], np.tile(slope[:-1, None], 7), rtol=1e-6, atol=1e-5)


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(SEED)
    g, x, w = np.repeat(np.arange(15), 12), rng.normal(size=180), rng.integers(1, 4, 180)
    eta = 0.3 + 0.5 * x + (1.0 * rng.normal(size=15))[g] + (0.4 * rng.normal(size=15))[g] * x
    mean, trials = np.exp(eta), rng.integers(2, 6, 180)
    p = 1 / (1 + np.exp(-eta))
    cuts = np.digitize(eta + rng.logistic(size=180), [-1.0, 0.5, 2.0])
    scores = np.column_stack([eta, 0 * eta, -eta]) + rng.gumbel(size=(180, 3))
    return pd.DataFrame(
        {
            "x": x,
            "g": g,
            "w": w,
            "b": rng.binomial(1, p),
            "k": rng.binomial(trials, p),
            "m": trials,
            "c": rng.poisson(mean),
            "n": rng.poisson(mean * rng.gamma(3.0, 1 / 3.0, size=180)),
            "z": rng.poisson(mean) * rng.binomial(1, 0.7, size=180),
            "a": rng.gamma(4.0, mean / 4.0),
            "q": rng.beta(6 * p, 6 * (1 - p)),
            "o": pd.Categorical(cuts.astype(str), ordered=True),
            "u": np.array(["yes", "maybe", "no"])[scores.argmax(axis=1)],
        }
    )


CASES = [
    ("b ~ x + (1 | g)", "bernoulli", {}),
    ("b ~ x + (x | g)", "bernoulli", {"weights": "w"}),
    ("p(k, m) ~ x + (1 | g)", "binomial", {}),
    ("c ~ x + (x || g)", "poisson", {}),
    ("n ~ x + (1 | g)", "negativebinomial", {}),
    ("z ~ x + (1 | g)", "zeroinflatedpoisson", {}),
    ("a ~ x + (1 | g)", "gamma", {}),
    ("q ~ x + (1 | g)", "beta", {}),
    ("o ~ x + (1 | g)", "cumulative", {}),
    ("u ~ x + (1 | g)", gn.families.Categorical(reference="no"), {}),
]


@pytest.mark.parametrize(("formula", "family", "options"), CASES)
def test_score_and_information_are_nearly_those_of_quadrature(formula, family, options):
    fitted = gn.glmm(formula, data=frame(), family=family, **options).fit(seed=1, draws=10, chains=1).fitted
    joint, params = fitted.joint, fitted.working
    assert has_observed(joint)
    active = active_parameters(joint, fitted.params)
    observed = ObservedScore(joint, None, active)
    here = observed.at(params)
    basis = ParameterSteps(joint).basis
    nodes = derivative_nodes(joint, len(here.score))
    truth = second_order(joint, params, None, basis, active, nodes)
    exact, found = (
        torch.linalg.pinv(i, hermitian=True, rtol=1e-8) for i in (truth.information, observed.information(here))
    )
    se = exact.diagonal().sqrt()
    # The fit is at the maximum of the exact likelihood; the nearest Gaussian's maximum is not far from it.
    assert float((exact @ (here.score - truth.score)).abs().div(se).max()) < 0.1
    # Errors of 3 %; the approximation is worst for the variance of a binary response with few rows a level.
    np.testing.assert_allclose(found.diagonal().sqrt(), se, rtol=0.03)


@pytest.mark.parametrize(("formula", "family", "options"), CASES)
def test_steadied_scores_have_the_mean_of_the_scores_and_less_noise(formula, family, options):
    fitted = gn.glmm(formula, data=frame(), family=family, **options).fit(seed=1, draws=10, chains=1).fitted
    # Away from the maximum, where the score is not 0.
    joint = fitted.joint
    active = active_parameters(joint, fitted.params)
    shift = torch.full((ParameterSteps(joint).size + len(active),), 0.3, dtype=torch.float64)
    params = ParameterSteps(joint).moved(fitted.working, active, shift)
    observed = ObservedScore(joint, None, active)
    steadied = observed.steadied(observed.at(params))
    quadrature = level_quadrature(joint, joint.fixed_eta(params), params, 25)
    generator = torch.Generator().manual_seed(SEED)
    points, masses = (torch.cat(part, dim=-1) for part in zip(*quadrature.points(joint.n), strict=True))
    # Draws of each level from the nodes of its own quadrature: the posterior, but for the grid.
    picked = torch.multinomial(masses, 400, replacement=True, generator=generator)
    of_effect = picked.repeat_interleave(joint.terms[0].r, dim=0)[:, None].expand(-1, joint.n_classes, -1)
    b = points.gather(2, of_effect)
    raw, steady = observed.complete(params, b), steadied(b)
    noise = (raw - steady).std(dim=1) / 20
    assert bool(((raw.mean(dim=1) - steady.mean(dim=1)).abs() < 5 * noise + 1e-6).all())
    ratio = steady.std(dim=1) / raw.std(dim=1).clamp_min(1e-8)
    # Of the dispersion only what is linear in b is taken out.
    assert float(ratio[: len(ratio) - int(joint.family.has_dispersion)].max()) < 0.6 and float(ratio.max()) < 1.0


def test_what_is_too_large_or_has_a_network_is_left_to_the_draws():
    data = frame()
    many = gn.glmm("b ~ x + (1 | g) + (1 | w)", data=data, family="bernoulli")._joint
    assert has_observed(many)
    assert not has_observed(gn.glmm("x ~ (1 | g)", data=data)._joint)
    assert not has_observed(gn.glmm("b ~ x", data=data, family="bernoulli")._joint)
