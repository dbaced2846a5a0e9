"""Several non-Gaussian terms: the maximum and its errors against the likelihood by brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

import glmmnet as gn

SEED = 20261122
#: Spacing of the grid for the difference of the two effects of h: about its posterior standard deviation.
APART = {"bernoulli": 0.25, "poisson": 0.06}


def frame(family: str) -> pd.DataFrame:
    """Forty levels of g crossed with two of h."""
    rng = np.random.default_rng(SEED)
    g, h, x = np.repeat(np.arange(40), 8), np.tile([0, 1], 160), rng.normal(size=320)
    eta = 0.2 + 0.6 * x + (0.9 * rng.normal(size=40))[g] + np.array([0.7, -0.5])[h]
    y = rng.binomial(1, 1 / (1 + np.exp(-eta))) if family == "bernoulli" else rng.poisson(np.exp(eta))
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h})


def log_likelihood(theta: np.ndarray, data: pd.DataFrame, family: str, centre: np.ndarray) -> float:
    """Of (beta, log sds), by sums over grids: of g's effects, level by level, within one of the two effects of h."""
    grid, sd_g, sd_h = np.linspace(-5, 5, 41), *np.exp(theta[2:])
    # What the effects of h share is known as badly as the mean of g's, their difference well.
    shared, apart = (
        each.ravel() for each in np.meshgrid(np.linspace(-0.8, 0.8, 17), APART[family] * np.linspace(-5, 5, 11))
    )
    effects = np.stack([centre[0] + shared + apart / 2, centre[1] + shared - apart / 2])
    log_weight = scipy.stats.norm.logpdf(effects, scale=sd_h).sum(axis=0) + np.log(0.1 * APART[family])
    of_h = effects[data["h"]]
    fixed = theta[0] + theta[1] * data["x"].to_numpy()
    eta, y = (fixed[:, None] + of_h)[:, :, None] + sd_g * grid, data["y"].to_numpy()[:, None, None]
    log_p = y * eta - (np.logaddexp(0, eta) if family == "bernoulli" else np.exp(eta))
    by_level = np.add.reduceat(log_p, np.arange(0, 320, 8), axis=0)
    each = scipy.special.logsumexp(by_level + scipy.stats.norm.logpdf(grid) + np.log(0.25), axis=2)
    return float(scipy.special.logsumexp(each.sum(axis=0) + log_weight))


def hessian(f, at: np.ndarray) -> np.ndarray:
    e, h = 0.02 * np.eye(len(at)), 0.02
    rows = [[f(at + a + b) - f(at + a - b) - f(at - a + b) + f(at - a - b) for a in e] for b in e]
    return np.array(rows) / (4 * h**2)


@pytest.mark.parametrize("family", ["bernoulli", "poisson"])
def test_estimates_and_errors_are_those_of_the_exact_likelihood(family):
    data = frame(family)

    fits = [gn.glmm("y ~ x + (1 | g) + (1 | h)", data=data, family=family).fit(seed=seed, draws=20) for seed in (1, 2)]
    centre = fits[0].random_effects["h"].to_numpy()[:, 0]

    def minus(theta):
        return -log_likelihood(theta, data, family, centre)

    start = np.append(fits[0].params, np.log(fits[0].vcomp["sd"]))
    best = scipy.optimize.minimize(minus, start, method="BFGS", options={"gtol": 1e-3}).x
    se = np.sqrt(np.diag(np.linalg.inv(hessian(minus, best))))
    for results in fits:
        assert results.converged and results.history["phase"].iloc[-1] == "newton"
        found = np.append(results.params, np.log(results.vcomp["sd"]))
        assert (np.abs(found - best) < 0.1 * se).all()
        errors = np.append(results.bse, results.vcomp["se"] / results.vcomp["sd"])
        np.testing.assert_allclose(errors, se, rtol=0.05)


def test_a_variance_that_the_likelihood_wants_at_zero_is_zero():
    rng = np.random.default_rng(2)
    g, x, h = np.repeat(np.arange(40), 8), rng.normal(size=320), rng.permutation(np.arange(320) % 10)
    y = rng.poisson(np.exp(0.2 + 0.6 * x + (0.9 * rng.normal(size=40))[g]))
    data = pd.DataFrame({"y": y, "x": x, "g": g, "h": h})
    results = gn.glmm("y ~ x + (1 | g) + (1 | h)", data=data, family="poisson").fit(seed=1, draws=20)
    alone = gn.glmm("y ~ x + (1 | g)", data=data, family="poisson").fit(seed=1, draws=20)
    assert results.converged and results.singular
    assert results.vcomp["sd"].iloc[1] == 0.0
    assert (np.abs(results.params - alone.params) < 0.05 * alone.bse).all()
    np.testing.assert_allclose(results.bse, alone.bse, rtol=0.03)


def test_separated_responses_are_left_to_em_and_named():
    data = frame("bernoulli").assign(y=lambda d: (d["x"] > 0).astype(int))
    with pytest.warns(gn.errors.ConvergenceWarning, match="separated by x"):
        results = gn.glmm("y ~ x + (1 | g) + (1 | h)", data=data, family="bernoulli").fit(seed=1, draws=20, max_iter=15)
    assert not results.converged
