"""Beta goes all the way in one step where b follows it, however its columns vary between levels."""

import numpy as np
import pandas as pd
import pytest
import torch

import glmmnet as gn
from glmmnet.em import loop
from glmmnet.em.expansion import find_carriers
from glmmnet.em.following import Basis, Following, has_following
from glmmnet.em.m_step import m_step
from glmmnet.exact import GaussianLikelihood
from glmmnet.gaussian import gaussian_posterior
from glmmnet.joint import Parameters


def panel(rng, q=1000, visits=5):
    """Counts of persons seen once a year: age differs by decades between them, by years within."""
    person = np.repeat(np.arange(q), visits)
    age = rng.normal(0, 1.5, q)[person] + np.tile(np.arange(visits) - 2, q) * 0.1
    eta = 4.0 + 0.3 * age + 0.8 * rng.normal(size=q)[person]
    return pd.DataFrame({"y": rng.poisson(np.exp(eta)), "z": eta + rng.normal(size=len(eta)), "age": age, "g": person})


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("terms", [[(30, 1)], [(12, 2), (7, 1)]], ids=["one", "crossed"])
def test_one_step_reaches_generalised_least_squares(terms, joint_of, parameters_of):
    joint = joint_of("gaussian", *terms, n=120, sd=1.5)
    params = parameters_of(joint)
    fixed = joint.fixed_eta(params)
    posterior = gaussian_posterior(joint, fixed, params)
    b = posterior.draw(20)
    b = b - b.mean(dim=2, keepdim=True) + posterior.mode[:, :, None]
    following = Following.at(joint, Basis.of(joint), params, posterior.mode, fixed)
    step = m_step(joint, (), params, b, following=following)
    likelihood = GaussianLikelihood(joint)
    best = torch.as_tensor(likelihood.profile(likelihood.theta(params), params.phi).beta).reshape(params.beta.shape)
    error = following.variance.sqrt().reshape(params.beta.shape)
    assert float(((params.beta - best) / error).abs().max()) > 1.0
    assert float(((step.params.beta - best) / error).abs().max()) < 0.01
    # What leaves b keeps it at its posterior mean beside the new beta.
    moved = gaussian_posterior(joint, joint.fixed_eta(step.params), params).mode
    torch.testing.assert_close(posterior.mode - step.shift, moved, rtol=0, atol=0.01)
    # Without it a column like this one goes a part of the way.
    alone = m_step(joint, find_carriers(joint), params, b).params.beta
    assert float(((alone - best) / error).abs().max()) > 0.05


def test_a_column_that_varies_between_levels_does_not_crawl(monkeypatch):
    data = panel(np.random.default_rng(4))
    model = gn.glmm("y ~ age + (1 | g)", data=data, family="poisson")
    best = model.fit(seed=1)
    monkeypatch.setattr(loop, "has_newton", lambda joint: False)
    by_em = model.fit(seed=2, max_iter=100, em_draws=5)
    assert by_em.converged and by_em.history["phase"].iloc[-1] == "polish"
    assert abs(by_em.params["age"] - best.params["age"]) < 0.05 * best.bse["age"]


def test_a_column_far_from_zero_takes_the_same_steps():
    data = panel(np.random.default_rng(4), q=100)
    steps, sigma = [], torch.full((1, 1, 1), 0.6, dtype=torch.float64)
    for far in (0.0, 1e5):
        joint = gn.glmm("y ~ age + (1 | g)", data=data.assign(age=data["age"] + far), family="poisson")._joint
        params = Parameters(torch.tensor([[3.8 - 0.2 * far], [0.2]], dtype=torch.float64), (sigma,), 1.0)
        fixed = joint.fixed_eta(params)
        mode = torch.zeros(joint.n_effects, 1, dtype=torch.float64)
        following = Following.at(joint, Basis.of(joint), params, mode, fixed)
        step = m_step(joint, (), params, mode[:, :, None], following=following)
        steps.append([float(step.params.beta[1, 0] - params.beta[1, 0]), float(step.beta_variance[1, 0])])
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-3)


def test_intercepts_need_no_following():
    data = panel(np.random.default_rng(4))
    assert has_following(gn.glmm("z ~ age + (1 | g)", data=data)._joint)
    assert not has_following(gn.glmm("z ~ 1 + (1 | g)", data=data)._joint)
    assert not has_following(gn.glmm("z ~ age", data=data)._joint)
