from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from glmmnet.covariances import COVARIANCES
from glmmnet.em.config import EMConfig
from glmmnet.em.stopping import Distance, Drift, Pace, Patience, Scales, Streak, em_rates, reliabilities


def sure(joint):
    return [torch.ones(joint.n_classes, term.r, dtype=torch.float64) for term in joint.terms]


def scaled_change(joint, old, new, variance, reliability):
    return Scales.at(joint, new, variance, reliability).step(old, new)


def fixed_of(joint):
    return torch.zeros(joint.n, joint.n_predictors, 1, dtype=torch.float64)


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


def test_pace_takes_full_steps_until_one_turns_back():
    pace = Pace(EMConfig(burn_in=2))
    moves = [[1.0], [-1.0], [-0.5], [-0.5], [0.1], [0.1], [0.1]]
    gains = [pace.gain(torch.tensor(m, dtype=torch.float64)) for m in moves]
    assert gains == pytest.approx([1.0, 1.0, 1.0, 1.0, 1.0, 2**-0.7, 3**-0.7])
    assert pace.averaged == 3


def test_pace_ends_only_after_enough_iterations_near_the_maximum():
    pace = Pace(EMConfig(burn_in=0))
    signs = [1.0, -1.0] * 6
    ends = []
    for sign in signs:
        pace.gain(torch.tensor([sign], dtype=torch.float64))
        ends.append(pace.ended(0.01, 5))
    assert ends.index(True) == 5


def test_averages_count_later_iterations_more():
    pace, average = Pace(EMConfig(burn_in=0)), 0.0
    for k, sign in enumerate([1.0, -1.0, 1.0, -1.0, 1.0], start=1):
        pace.gain(torch.tensor([sign], dtype=torch.float64))
        average += pace.weight * (k - average)
    # Full steps, the first here, are not averaged: of 2, 3, 4 and 5 the last counts four times.
    assert average == pytest.approx((2 + 2 * 3 + 3 * 4 + 4 * 5) / 10)


def scales(rate, size=(float("inf"), float("inf"))):
    rate, size = (torch.tensor(v, dtype=torch.float64) for v in (rate, size))
    return Scales(torch.ones_like(rate), rate, size)


def test_distance_is_the_step_over_its_share_of_the_way():
    distance = Distance()
    assert distance.after(torch.tensor([0.1, -0.2]).double(), scales((1.0, 0.25)), 1.0) == pytest.approx(0.8)


def test_distance_counts_the_monte_carlo_error_of_the_mean_step():
    distance = Distance()
    for weight, step in ((1.0, 0.3), (0.5, -0.3)):
        far = distance.after(torch.tensor([step, 0.0]).double(), scales((0.5, 1.0)), weight)
    # The mean is 0; the error of a mean of two steps that vary by 0.3 is 0.3 / 2^(1/2).
    assert far == pytest.approx(0.3 / 2**0.5 / 0.5)


@pytest.mark.usefixtures("seeded")
def test_distance_is_of_the_size_of_what_the_average_lacks():
    rate, ratios = 0.2, []
    for _ in range(100):
        theta, average, pace, distance = 3.0, 0.0, Pace(EMConfig(burn_in=5)), Distance()
        for _ in range(40):
            move = -rate * theta + 0.1 * float(torch.randn(()))
            gain = min(pace.gain(torch.tensor([move]).double()) / rate, 1.0)
            theta += gain * move
            average += pace.weight * (theta - average)
            far = distance.after(torch.tensor([move]).double(), scales((rate,), (float("inf"),)), pace.weight)
        ratios.append(abs(average) / far)
    assert 0.15 < sorted(ratios)[50] < 1.0
    assert sum(ratio < 2.0 for ratio in ratios) >= 95


def test_a_variance_near_0_does_not_count_unless_it_rises():
    near = scales((1.0, 0.01), (float("inf"), 0.2))
    falling, rising = Distance(), Distance()
    for weight in (1.0, 2 / 3, 1 / 2):
        assert falling.after(torch.tensor([0.1, -0.05]).double(), near, weight) == pytest.approx(0.1)
        assert rising.after(torch.tensor([0.1, 0.05]).double(), near, weight) == pytest.approx(5.0)


def test_em_rate_is_that_of_an_exact_iteration():
    # One factor, m rows a level of normal noise: expectations of the M-step with an expanded matrix, in closed form.
    v, noise, ahead = 1.0, 0.7, 1e-4
    rho = v / (v + noise)
    total = (1.0 + ahead) * v + noise
    alpha = rho * total / (rho**2 * total + v * (1.0 - rho))
    new = alpha**2 * (rho**2 * total + v * (1.0 - rho))
    assert (new - v) / ahead == pytest.approx(float(em_rates([torch.tensor(rho)])[0]), rel=1e-3)


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


def of_mode(joint, sigma, share):
    """A mode whose mean square is `share` (r,) of the variances."""
    variance = torch.diagonal(sigma[0])
    signs = torch.tensor([1.0, -1.0]).repeat_interleave(2).repeat(joint.terms[0].q // 2)
    return (share * variance).sqrt().repeat(joint.terms[0].q)[:, None] * signs[:, None].double()


def test_each_variance_has_a_reliability_of_its_own(joint_of, parameters_of, monkeypatch):
    joint = joint_of("gaussian", (8, 2))
    monkeypatch.setattr(joint.terms[0], "covariance", COVARIANCES["diag"])
    sigma = torch.diag(torch.tensor([1.0, 1e-6], dtype=torch.float64))[None]
    params = replace(parameters_of(joint), sigma=(sigma,))
    share = torch.tensor([0.75, 0.1], dtype=torch.float64)
    mode = of_mode(joint, sigma, share)
    torch.testing.assert_close(reliabilities(joint, params, mode, fixed_of(joint))[0], share[None])
    assert reliabilities(joint, params, 0.0 * mode, fixed_of(joint))[0].tolist() == [[1e-3, 1e-3]]
    assert reliabilities(joint, params, 9.0 * mode, fixed_of(joint))[0].tolist() == [[1.0, 1.0]]


def test_a_correlated_effect_is_told_no_better_than_by_its_own_column(joint_of, parameters_of):
    joint = joint_of("gaussian", (8, 2))
    sd = torch.tensor([1.0, 1e-2], dtype=torch.float64)
    params = replace(parameters_of(joint), sigma=((sd[:, None] * sd)[None],))
    # Correlated by 1: the mode of the second is a hundredth of that of the first.
    mode = of_mode(joint, params.sigma[0], torch.full((2,), 0.8, dtype=torch.float64))
    z = joint.terms[0].columns()
    noise = torch.linalg.inv(z.T @ z / (8 * params.phi)).diagonal()
    expected = torch.minimum(torch.tensor(0.8).double(), sd**2 / (sd**2 + noise))
    assert float(expected[1]) < 0.01
    torch.testing.assert_close(reliabilities(joint, params, mode, fixed_of(joint))[0], expected[None])


def test_columns_that_share_a_variance_share_its_reliability(joint_of, parameters_of, monkeypatch):
    joint = joint_of("gaussian", (8, 2))
    monkeypatch.setattr(joint.terms[0], "covariance", COVARIANCES["ar1"])
    sigma = 2.0 * torch.eye(2, dtype=torch.float64)[None]
    params = replace(parameters_of(joint), sigma=(sigma,))
    mode = of_mode(joint, sigma, torch.tensor([0.2, 0.6], dtype=torch.float64))
    torch.testing.assert_close(reliabilities(joint, params, mode, fixed_of(joint))[0], torch.full((1, 2), 0.4, dtype=torch.float64))


@pytest.mark.usefixtures("seeded")
def test_reliability_is_that_of_the_exact_posterior(joint_of, parameters_of):
    joint = joint_of("gaussian", (2000, 1))
    sigma, noise = parameters_of(joint).sigma[0], torch.randn(2000, dtype=torch.float64)
    # b observed with as much noise as it varies: half of the variance is told, and the posterior's mean is half of y.
    sd = sigma[0, 0, 0].sqrt()
    mode = 0.5 * (sd * torch.randn(2000, dtype=torch.float64) + sd * noise)[:, None]
    assert float(reliabilities(joint, parameters_of(joint), mode, fixed_of(joint))[0]) == pytest.approx(0.5, abs=0.03)


def test_a_poorly_told_variance_moves_by_a_smaller_share_of_its_error(joint_of, parameters_of):
    joint = joint_of("gaussian", (8, 2))
    old, new = parameters_of(joint, 1), parameters_of(joint, 2)
    variance = torch.full_like(old.beta, 0.04)
    poor = [torch.tensor([[1.0, 0.25]], dtype=torch.float64)]
    ratio = scaled_change(joint, old, new, variance, poor) / scaled_change(joint, old, new, variance, sure(joint))
    torch.testing.assert_close(ratio[2:6], torch.tensor([1.0, 0.5, 0.5, 0.25], dtype=torch.float64))
