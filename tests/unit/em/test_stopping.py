from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import glmmnet as gn
from glmmnet.covariances import COVARIANCES
from glmmnet.em.config import EMConfig
from glmmnet.em.steady import AroundMode
from glmmnet.em.stopping import LEAST_GAIN, Distance, Drift, Pace, Patience, Scales, Streak, Told, told_by
from glmmnet.joint import Parameters


def sure(joint):
    return [told(torch.ones(joint.n_classes, term.r, dtype=torch.float64), term.q) for term in joint.terms]


def told(reliability, q):
    return Told(reliability, reliability * (q / 2) ** 0.5, reliability * (2 - reliability))


def scaled_change(joint, old, new, variance, told):
    scales = Scales.at(joint, new, variance, told)
    return scales.step(old, new) / scales.error


def around(joint, params, mode):
    return AroundMode.at(joint, params, mode, torch.zeros(joint.n, joint.n_predictors, 1, dtype=torch.float64))


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
        average += pace.weight(5) * (k - average)
    # Full steps, the first here, are not averaged: of 2, 3, 4 and 5 the last counts four times.
    assert average == pytest.approx((2 + 2 * 3 + 3 * 4 + 4 * 5) / 10)


def test_averages_count_iterations_as_often_as_they_have_draws():
    pace, average = Pace(EMConfig(burn_in=0)), 0.0
    for k, (sign, draws) in enumerate([(1.0, 5), (-1.0, 5), (1.0, 5), (-1.0, 20)], start=1):
        pace.gain(torch.tensor([sign], dtype=torch.float64))
        average += pace.weight(draws) * (k - average)
    assert average == pytest.approx((5 * 2 + 2 * 5 * 3 + 3 * 20 * 4) / (5 + 10 + 60))


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
            weight = pace.weight(5)
            average += weight * (theta - average)
            far = distance.after(torch.tensor([move]).double(), scales((rate,), (float("inf"),)), weight)
        ratios.append(abs(average) / far)
    assert 0.15 < sorted(ratios)[50] < 1.0
    assert sum(ratio < 2.0 for ratio in ratios) >= 95


def test_a_variance_near_0_does_not_count_unless_it_rises():
    near = scales((1.0, 0.01), (float("inf"), 0.2))
    falling, rising = Distance(), Distance()
    for weight in (1.0, 2 / 3, 1 / 2):
        assert falling.after(torch.tensor([0.1, -0.05]).double(), near, weight) == pytest.approx(0.1)
        assert rising.after(torch.tensor([0.1, 0.05]).double(), near, weight) == pytest.approx(5.0)


def of_variances(reliability, size, rate):
    """Of one variance a class."""
    column = [torch.tensor(v, dtype=torch.float64)[:, None] for v in (reliability, size, rate)]
    return Told(column[0], column[1], column[2][:, :, None])


def sigma(*variances):
    return torch.tensor(variances, dtype=torch.float64)[:, None, None]


def test_gain_of_a_variance_falls_as_slowly_as_em_nears_its_maximum():
    one, same = of_variances((0.1, 0.1), (5.0, 0.5), (0.4, 0.4)), sigma(1.0, 1.0)
    # The first class is far from 0; the second is not, and its gain is that of all else.
    assert one.gain(0.1, same, same).tolist() == pytest.approx([LEAST_GAIN / 0.4, 0.1])
    assert one.gain(0.8, same, same).tolist() == pytest.approx([1.0, 0.8])


def test_steps_that_go_a_small_share_of_the_way_are_longer_but_do_not_jump():
    slow, old = of_variances((0.1,) * 3, (5.0,) * 3, (0.02,) * 3), sigma(1.0, 1.0, 1.0)
    new = sigma(0.99, 0.9, 1.4)
    gains = slow.gain(1.0, old, new)
    assert gains.tolist() == pytest.approx([12.5, 5.0, 2.5])
    assert (old + gains[:, None, None] * (new - old)).flatten().tolist() == pytest.approx([0.875, 0.5, 2.0])


def test_one_quick_entry_keeps_the_step_of_a_matrix_from_being_longer():
    both = torch.tensor([[0.9, 0.02]], dtype=torch.float64)
    rate = (both[:, :, None] * both[:, None, :]).sqrt()
    one = Told(both, torch.full((1, 2), 5.0, dtype=torch.float64), rate)
    same = torch.eye(2, dtype=torch.float64)[None]
    assert one.gain(1.0, same, same).tolist() == [1.0]


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


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("m", [2, 4, 40])
def test_told_by_independent_levels(m):
    # m rows a level of normal noise: each level tells rho = v / (v + phi / m).
    q, v = 4000, 0.25
    level = np.arange(q * m) % q
    joint = gn.glmm(
        "y ~ 1 + (1 | g)", pd.DataFrame({"y": np.random.default_rng(1).normal(size=q * m), "g": level})
    )._joint
    rho = v / (v + 1.0 / m)
    mode = (rho * v) ** 0.5 * torch.randn(q, 1, dtype=torch.float64)
    params = Parameters(torch.zeros(1, 1).double(), (torch.full((1, 1, 1), v).double(),), 1.0)
    one = told_by(joint, around(joint, params, mode))[0]
    assert float(one.reliability) == pytest.approx(rho, rel=0.1)
    assert float(one.size) == pytest.approx(rho * (q / 2) ** 0.5, rel=0.1)
    assert float(one.rate) == pytest.approx(rho * (2 - rho), rel=0.1)
    # The rate is that of an exact iteration: here the truth is a little ahead, in closed form.
    ahead = 1e-4
    total = (1.0 + ahead) * v + 1.0 / m
    alpha = rho * total / (rho**2 * total + v * (1.0 - rho))
    new = alpha**2 * (rho**2 * total + v * (1.0 - rho))
    assert (new / v - 1.0) / ahead == pytest.approx(rho * (2 - rho), rel=1e-3)


def test_levels_of_unequal_size_tell_by_the_mean_of_the_squares():
    level = np.r_[np.repeat(np.arange(10), 400), np.arange(10, 1000)]
    joint = gn.glmm(
        "y ~ 1 + (1 | g)", pd.DataFrame({"y": np.random.default_rng(1).normal(size=len(level)), "g": level})
    )._joint
    v = 0.05
    params = Parameters(torch.zeros(1, 1).double(), (torch.full((1, 1, 1), v).double(),), 1.0)
    rho = torch.cat([torch.full((10,), v / (v + 1 / 400)), torch.full((990,), v / (v + 1))]).double()
    one = told_by(joint, around(joint, params, v**0.5 * torch.ones(1000, 1).double()))[0]
    assert float(one.reliability) == pytest.approx(float(rho.square().mean().sqrt()))
    square = rho.square().mean()
    assert float(one.rate) == pytest.approx(float(2 * square / (rho / (1 - rho)).mean() + square))


def test_what_other_terms_take_is_not_told(joint_of, parameters_of):
    joint = joint_of("gaussian", (8, 1))
    params = parameters_of(joint)
    mode = (0.2 * params.sigma[0][0, 0, 0]).sqrt() * torch.ones(8, 1).double()
    assert float(told_by(joint, around(joint, params, mode))[0].reliability) == pytest.approx(0.2, rel=0.1)
    assert float(told_by(joint, around(joint, params, 0.0 * mode))[0].reliability) == 1e-3


def test_columns_that_share_a_variance_are_told_alike(joint_of, parameters_of, monkeypatch):
    joint = joint_of("gaussian", (8, 2))
    monkeypatch.setattr(joint.terms[0], "covariance", COVARIANCES["ar1"])
    params = replace(parameters_of(joint), sigma=(2.0 * torch.eye(2, dtype=torch.float64)[None],))
    one = told_by(joint, around(joint, params, torch.randn(16, 1).double()))[0]
    assert one.reliability[0, 0] == one.reliability[0, 1]
    # Two columns tell as much as twice the levels.
    torch.testing.assert_close(one.size, one.reliability * 8**0.5)
    # The working matrix has no entries for what correlates them.
    assert one.rate[0, 0, 1] == pytest.approx(float(one.reliability[0, 0]) ** 2)
    assert one.rate[0, 0, 0] == one.rate[0, 1, 1] > one.rate[0, 0, 1]


def test_errors_follow_the_unit_of_a_slope():
    rng, far = np.random.default_rng(1), 2.0**20
    data = pd.DataFrame({"y": rng.normal(size=90), "x": rng.normal(size=90), "g": np.arange(90) % 9})

    def errors(unit):
        joint = gn.glmm("y ~ 1 + (x | g)", data.assign(x=unit * data["x"]))._joint
        matrix = torch.tensor([[0.5, 0.1 / unit], [0.1 / unit, 0.3 / unit**2]], dtype=torch.float64)
        params = Parameters(torch.zeros(1, 1).double(), (matrix[None],), 1.0)
        mode = matrix.diagonal().sqrt().repeat(9)[:, None]
        return Scales.at(joint, params, torch.ones(1, 1).double(), told_by(joint, around(joint, params, mode))).error

    # Of beta, four entries of Sigma, the dispersion.
    units = torch.tensor([1.0, 1.0, far, far, far**2, 1.0], dtype=torch.float64)
    torch.testing.assert_close(errors(far) * units, errors(1.0), rtol=1e-6, atol=0)


def test_a_correlated_effect_is_told_no_better_than_by_its_own_column(joint_of, parameters_of):
    joint = joint_of("gaussian", (8, 2))
    sd = torch.tensor([1.0, 1e-2], dtype=torch.float64)
    # Correlated by 1: the mode of the second is a hundredth of that of the first.
    params = replace(parameters_of(joint), sigma=((sd[:, None] * sd)[None],))
    mode = (0.8**0.5 * sd).repeat(8)[:, None]
    assert float(told_by(joint, around(joint, params, mode))[0].reliability[0, 1]) < 0.01


def test_a_poorly_told_variance_moves_by_a_smaller_share_of_its_error(joint_of, parameters_of):
    joint = joint_of("gaussian", (8, 2))
    old, new = parameters_of(joint, 1), parameters_of(joint, 2)
    variance = torch.full_like(old.beta, 0.04)
    poor = [told(torch.tensor([[1.0, 0.25]], dtype=torch.float64), 8)]
    ratio = scaled_change(joint, old, new, variance, poor) / scaled_change(joint, old, new, variance, sure(joint))
    torch.testing.assert_close(ratio[2:6], torch.tensor([1.0, 0.5, 0.5, 0.25], dtype=torch.float64))
