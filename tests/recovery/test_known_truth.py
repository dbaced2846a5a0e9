"""Simulated truth is recovered; tolerances are standard errors of the estimates, seeds are fixed."""

import numpy as np
import pandas as pd
import pytest

import glmmnet as gn

SEED = 20261122


@pytest.fixture(scope="module")
def slopes():
    rng = np.random.default_rng(SEED)
    q, n = 80, 2400
    g, x = rng.integers(0, q, n), rng.normal(size=n)
    sigma = np.array([[0.64, 0.2], [0.2, 0.25]])
    b = rng.multivariate_normal([0, 0], sigma, size=q)
    y = 1 - 0.5 * x + b[g, 0] + b[g, 1] * x + 0.9 * rng.normal(size=n)
    results = gn.glmm("y ~ x + (x | g)", data=pd.DataFrame({"y": y, "x": x, "g": g})).fit(seed=1)
    return results, sigma, b


def test_gaussian_slopes(slopes):
    r, _, _ = slopes
    assert np.all(np.abs(r.params - [1, -0.5]) < 3 * r.bse)
    v = r.vcomp
    assert np.all(np.abs(np.log(v["sd"] / [0.8, 0.5, 0.9])) < 3 * v["se"] / v["sd"])
    estimate = r.cov_re["g"].to_numpy()
    correlation = estimate[0, 1] / np.sqrt(estimate[0, 0] * estimate[1, 1])
    # Fisher's z of a correlation seen through 80 levels.
    assert abs(np.arctanh(correlation) - np.arctanh(0.5)) < 3 * 1.3 / np.sqrt(80 - 3)


def test_gaussian_effects_lie_in_their_posteriors(slopes):
    r, _, b = slopes
    z = (b - r.random_effects["g"].to_numpy()) / r.random_effects_sd["g"].to_numpy()
    assert abs(np.sqrt((z**2).mean()) - 1) < 4 / np.sqrt(2 * z.size) + 0.1
    assert np.corrcoef(b[:, 0], r.random_effects["g"]["(Intercept)"])[0, 1] > 0.9


def test_standard_errors_are_the_spread_of_the_estimates():
    rng = np.random.default_rng(SEED)
    estimates, errors, replicates = [], [], 60
    g, x = np.repeat(np.arange(30), 6), rng.normal(size=180)
    for _ in range(replicates):
        y = 1 + 0.5 * x + (0.7 * rng.normal(size=30))[g] + rng.normal(size=180)
        r = gn.glmm("y ~ x + (1 | g)", data=pd.DataFrame({"y": y, "x": x, "g": g})).fit(seed=1, draws=5, chains=1)
        estimates.append(r.params)
        errors.append(r.bse)
    ratio = np.std(estimates, axis=0, ddof=1) / np.mean(errors, axis=0)
    assert np.all(np.abs(ratio - 1) < 4 / np.sqrt(2 * replicates))
    z = (np.array(estimates) - [1, 0.5]) / np.array(errors)
    assert np.all(np.abs(z.mean(axis=0)) < 4 / np.sqrt(replicates))


@pytest.mark.slow
def test_bernoulli_with_a_network():
    rng = np.random.default_rng(SEED)
    n, q = 8000, 60
    g = rng.integers(0, q, n)
    x, u, v = rng.normal(size=(3, n))
    b = 0.9 * rng.normal(size=q)
    f = np.sin(2 * u) + 0.5 * v**2
    f -= f.mean()
    eta = -0.3 + 0.8 * x + f + b[g]
    data = pd.DataFrame({"y": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int), "x": x, "u": u, "v": v, "g": g})
    r = gn.glmm("y ~ x + nn(u + v) + (1 | g)", data=data, family="bernoulli").fit(seed=1)
    assert abs(r.params["x"] - 0.8) < 3 * r.bse["x"]
    assert abs(r.params["Intercept"] + 0.3) < 3 * r.bse["Intercept"]
    assert abs(np.log(r.vcomp["sd"][0] / 0.9)) < 3 * r.vcomp["se"][0] / r.vcomp["sd"][0]
    assert r.bse["x"] < 0.05 and r.vcomp["se"][0] < 0.2
    found = r.predict(kind="link") - r.params["x"] * x - r.random_effects["g"].loc[g, "(Intercept)"].to_numpy()
    assert np.corrcoef(found, f)[0, 1] > 0.95
    assert np.corrcoef(b, r.random_effects["g"]["(Intercept)"])[0, 1] > 0.93


@pytest.mark.slow
def test_three_classes_and_two_crossed_factors():
    rng = np.random.default_rng(2)
    n, q, p = 6000, 100, 80
    g, h, x = rng.integers(0, q, n), rng.integers(0, p, n), rng.normal(size=n)
    sd_g, sd_h = np.array([0.8, 1.0, 1.2]), np.array([1.2, 0.9, 0.8])
    effect = (sd_g * rng.normal(size=(q, 3)))[g] + (sd_h * rng.normal(size=(p, 3)))[h]
    beta = np.array([0.5, 0.0, -0.5])
    classes = (effect + x[:, None] * beta + rng.gumbel(size=(n, 3))).argmax(axis=1)
    data = pd.DataFrame({"c": np.array(list("abc"))[classes], "x": x, "g": g, "h": h})
    r = gn.glmm("c ~ x + (1 | g) + (1 | h)", data=data, family="categorical").fit(seed=1, draws=500)
    truth = np.concatenate([sd_g, sd_h])
    v = r.vcomp
    # Six intervals that hold together with 95 %: 2.64 standard errors instead of 1.96.
    z = np.log(truth / v["sd"]) / (v["se"] / v["sd"])
    assert (z.abs() < 2.64).all(), v.assign(truth=truth, z=z).to_string()
    assert (v["ci_high"] / v["ci_low"] < 3).all()
    slopes = r.params.loc["x"] - r.params.loc["x"].mean()
    assert np.all(np.abs(slopes - beta) < 3 * r.bse.loc["x"])
