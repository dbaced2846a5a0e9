"""Draws level by level: the posterior of each level, against quadrature."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import glmmnet as gn
from glmmnet.em.config import EMConfig
from glmmnet.em.final import final_draws
from glmmnet.em.levels import LevelPosterior, has_levels
from glmmnet.joint import JointModel, Parameters
from glmmnet.laplace import find_mode
from glmmnet.quadrature import level_quadrature

CHAINS, DRAWS = 4, 2000


def frame() -> pd.DataFrame:
    """Twelve levels of 2 to 13 rows, so that some posteriors are far from normal."""
    rng = np.random.default_rng(20261122)
    g = np.repeat(np.arange(12), np.arange(2, 14))
    x = rng.normal(size=len(g))
    eta = 0.5 * x + rng.normal(scale=2.0, size=12)[g]
    return pd.DataFrame(
        {
            "x": x,
            "g": g,
            "w": 1.0 + g % 3,
            "b": rng.binomial(1, 1 / (1 + np.exp(-eta))),
            "c": rng.poisson(np.exp(np.minimum(eta, 3.0))),
            "o": pd.Categorical(np.digitize(eta + rng.logistic(size=len(g)), [-1.0, 1.0]).astype(str), ordered=True),
        }
    )


def model(formula: str, family: str, **options: object) -> tuple[JointModel, Parameters]:
    joint = gn.glmm(formula, data=frame(), family=family, **options)._joint
    size = joint.terms[0].r
    sigma = 4.0 * torch.eye(size, dtype=torch.float64) + 0.5 * (1 - torch.eye(size, dtype=torch.float64))
    beta = 0.1 + torch.arange(len(joint.x_names) * joint.n_coefficients, dtype=torch.float64)
    return joint, Parameters(beta.reshape(-1, joint.n_coefficients) / 5, (sigma[None],), 1.0)


@pytest.mark.parametrize(
    ("formula", "family", "options"),
    [
        ("b ~ x + (1 | g)", "bernoulli", {}),
        ("b ~ x + (1 | g)", "bernoulli", {"weights": "w"}),
        ("c ~ x + (x | g)", "poisson", {}),
        ("o ~ x + (1 | g)", "cumulative", {}),
    ],
)
def test_moments_of_each_level_are_those_of_quadrature(formula, family, options):
    joint, params = model(formula, family, **options)
    assert has_levels(joint)
    fixed = joint.fixed_eta(params)
    mean, square = 0.0, 0.0
    for b, probability in level_quadrature(joint, fixed, params, 25).points(joint.n):
        weight = probability.repeat_interleave(joint.terms[0].r, dim=0)
        mean, square = mean + (b[:, 0] * weight).sum(dim=1), square + (b[:, 0].square() * weight).sum(dim=1)
    sd = (square - mean**2).sqrt()
    torch.manual_seed(1)
    drawn = final_draws(joint, fixed, params, None, EMConfig(chains=CHAINS, draws=DRAWS))
    z = (drawn.b[:, 0].double() - mean[:, None]) / sd[:, None]
    assert drawn.stats["acceptance_rate"].mean() > 0.7
    # 8,000 draws, hardly correlated: five errors of a mean, with some allowance for correlation and kurtosis.
    assert float(z.mean(dim=1).abs().max()) < 5 * 1.3 / np.sqrt(CHAINS * DRAWS)
    assert float((z.square().mean(dim=1) - 1).abs().max()) < 5 * 1.3 * np.sqrt(4.0 / (CHAINS * DRAWS))


def test_a_level_without_rows_has_draws_from_the_prior():
    joint, params = model("b ~ x + (1 | g)", "bernoulli")
    none = joint.subset(torch.arange(2))
    point = find_mode(none, none.fixed_eta(params), params)
    posterior = LevelPosterior(none, none.fixed_eta(params), params, point.whitening, 500)
    torch.manual_seed(2)
    b = torch.cat(posterior.draw(posterior.start(), 10).b, dim=2)[1:, 0]
    assert float(b.std()) == pytest.approx(2.0, rel=0.03)


def test_which_models_are_drawn_level_by_level():
    data = frame().assign(h=np.arange(len(frame())) % 3)
    of = lambda formula, family: gn.glmm(formula, data=data, family=family)  # noqa: E731
    assert of("b ~ (1 | g)", "bernoulli")._sampler(None) is None
    assert of("b ~ (1 | g) + (1 | h)", "bernoulli")._sampler(None).name == "nuts"
    assert of("b ~ (1 | g)", "bernoulli")._sampler("nuts").name == "nuts"
    assert not has_levels(of("x ~ (1 | g)", "gaussian")._joint)


def test_summary_names_the_method():
    text = str(gn.glmm("b ~ x + (1 | g)", data=frame(), family="bernoulli").fit(seed=1, draws=50).summary())
    assert "MCEM (Metropolis)" in text and "Metropolis: R-hat" in text and "acceptance 0." in text
