"""Draws by conjugate gradients are draws from the exact posterior."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from glmmnet.em import e_step
from glmmnet.em.conjugate import ConjugateDraws
from glmmnet.em.e_step import EStep
from glmmnet.gaussian import gaussian_posterior
from glmmnet.joint import JointModel, Parameters

pytestmark = pytest.mark.usefixtures("seeded")
DRAWS = 2000


def compared(joint: JointModel, params: Parameters) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Error of the mode (Q,), covariance of the exact posterior (Q, Q), deviations of draws from their mode (Q, S)."""
    fixed = joint.fixed_eta(params)
    exact = gaussian_posterior(joint, fixed, params)
    mode, b = ConjugateDraws(joint).draw(fixed, params, DRAWS)
    covariance = torch.as_tensor(exact.factor.solve(torch.eye(joint.n_effects, dtype=torch.float64).numpy()))
    return (mode - exact.mode)[:, 0], covariance, (b - mode[:, :, None])[:, 0]


def test_mode_and_covariance_are_those_of_the_posterior(joint_of, parameters_of):
    joint = joint_of("gaussian", (12, 2), (9, 1))
    params = parameters_of(joint)
    error, covariance, deviation = compared(joint, params)
    sd = covariance.diagonal().sqrt()
    assert float((error / sd).abs().max()) < 0.03
    # Signs alternate, so that there are half as many independent products.
    spread = torch.sqrt((sd[:, None] ** 2 * sd**2 + covariance**2) / (DRAWS / 2))
    z = (deviation @ deviation.T / DRAWS - covariance) / spread
    assert float(z.abs().max()) < 5.0
    assert 0.7 < float(z.std()) < 1.3


def test_what_levels_share_is_drawn_where_the_residual_is_small(joint_of, parameters_of):
    joint = joint_of("gaussian", (12, 1), (9, 1))
    params = replace(parameters_of(joint), phi=1e-6)
    error, covariance, deviation = compared(joint, params)
    sd = covariance.diagonal().sqrt()
    assert float((error / sd).abs().max()) < 0.1
    ratio = deviation.std(dim=1) / sd
    assert float(ratio.min()) > 0.9 and float(ratio.max()) < 1.1


def test_draws_that_follow_each_other_lie_on_opposite_sides_of_the_mode(joint_of, parameters_of):
    joint = joint_of("gaussian", (12, 1), (9, 1))
    params = parameters_of(joint)
    fixed = joint.fixed_eta(params)
    source = ConjugateDraws(joint)
    (mode, first), (_, second), (_, third) = (source.draw(fixed, params, 1) for _ in range(3))
    sd = (first - mode[:, :, None]).std()
    torch.testing.assert_close((first + second)[:, :, 0] / 2, mode, atol=0.05 * float(sd), rtol=0)
    assert float((third - first).std()) > 0.5 * float(sd)


def test_many_crossed_levels_are_drawn_without_a_factor(joint_of, parameters_of, monkeypatch):
    joint = joint_of("gaussian", (12, 1), (9, 1))
    params = parameters_of(joint)
    with monkeypatch.context() as patch:
        patch.setattr(e_step, "_QUICK_ROWS", 0)
        step = EStep(joint, None, 3)
    monkeypatch.setattr(e_step, "gaussian_posterior", None)
    assert step(joint.fixed_eta(params), params).shape == (joint.n_effects, 1, 3)


def test_other_families_have_no_such_draws(joint_of):
    assert not ConjugateDraws.applies_to(joint_of("bernoulli", (12, 1), (9, 1)))
