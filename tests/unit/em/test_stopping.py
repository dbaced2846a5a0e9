from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from glmmnet.em.stopping import Drift, Patience, Streak, reliabilities, scaled_change


def sure(joint):
    return [1.0] * len(joint.terms)


def test_streak_needs_three_in_a_row():
    streak = Streak(0.1)
    assert [streak.met(c) for c in (0.05, 0.05, 0.2, 0.05, 0.05, 0.05, 0.05)] == [False] * 5 + [True] * 2
    assert not streak.met(0.1)


def test_streak_is_not_met_by_nan():
    streak = Streak(0.1)
    assert not any(streak.met(float("nan")) for _ in range(5))


def test_drift_ends_when_a_step_turns_back():
    drift = Drift()
    steps = [[1.0, 0.0], [0.5, 0.2], [-0.1, 0.1], [-0.1, 0.1]]
    assert [drift.ended(torch.tensor(s)) for s in steps] == [False, False, True, False]


def test_patience_counts_looks_since_the_best():
    patience = Patience(2)
    assert [patience.improved(v) for v in (3.0, 2.0, 2.5)] == [True, True, False]
    assert not patience.exhausted
    assert not patience.improved(2.0)
    assert patience.exhausted
    assert patience.best == 2.0


def test_change_is_in_standard_errors(joint_of, parameters_of):
    joint = joint_of("gaussian", (8, 2))
    old = parameters_of(joint)
    variance = torch.full_like(old.beta, 0.04)
    assert float(scaled_change(joint, old, old, variance, sure(joint)).abs().max()) == 0.0
    beta = old.beta.clone()
    beta[0] += 0.1
    change = scaled_change(joint, old, replace(old, beta=beta), variance, sure(joint))
    assert change.tolist()[0] == pytest.approx(0.1 / 0.2)
    assert len(change) == 2 + 4 + 1
    sigma = old.sigma[0].clone()
    sigma[0, 0, 0] *= 1.5
    change = scaled_change(joint, old, replace(old, sigma=(sigma,)), variance, sure(joint))
    # Variance of a sample variance of q normal effects: 2 Sigma^2 / q.
    assert float(change[2]) == pytest.approx((0.5 / 1.5) / (2 / 8) ** 0.5)
    change = scaled_change(joint, old, replace(old, phi=1.1 * old.phi), variance, sure(joint))
    assert float(change[-1]) == pytest.approx((0.1 / 1.1) / (2 / 60) ** 0.5)


@pytest.mark.usefixtures("seeded")
def test_change_does_not_depend_on_units(joint_of, parameters_of):
    joint = joint_of("gaussian", (8, 2))
    old, new = parameters_of(joint, 1), parameters_of(joint, 2)
    variance = torch.full_like(old.beta, 0.04)

    def scaled(params):
        return replace(params, beta=1e3 * params.beta, sigma=(1e6 * params.sigma[0],), phi=1e6 * params.phi)

    torch.testing.assert_close(
        scaled_change(joint, scaled(old), scaled(new), 1e6 * variance, sure(joint)),
        scaled_change(joint, old, new, variance, sure(joint)),
    )


def test_reliability_is_the_share_of_the_variance_that_the_data_tell(joint_of, parameters_of):
    joint = joint_of("gaussian", (8, 2))
    params = parameters_of(joint)
    sigma = params.sigma[0]
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(joint.n_effects, joint.n_classes, 4000, generator=generator, dtype=torch.float64)
    quarter = 0.5 * torch.diagonal(sigma, dim1=-2, dim2=-1).mean().sqrt() * noise
    assert reliabilities(joint, params, quarter)[0] == pytest.approx(0.75, abs=0.02)
    assert reliabilities(joint, params, 3 * quarter)[0] == 0.05
    assert reliabilities(joint, params, quarter[:, :, :1]) == sure(joint)
