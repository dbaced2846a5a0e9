"""Covariance structures in Gaussian fits, against the likelihood written out and maximised by scipy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from scipy.stats import multivariate_normal, norm, poisson

import glmmnet as gn
from glmmnet.covariances import COVARIANCES
from glmmnet.errors import DesignError
from glmmnet.estimates import correlations
from glmmnet.formula import vocabulary
from glmmnet.likelihood import log_likelihood

SEED = 20261123
LEVELS, REPEATS = 40, 2
TIMES = np.array([0, 1, 3, 4])


def correlation(structure: str, rho: np.ndarray) -> np.ndarray:
    """R of four columns, at `TIMES` for ar1."""
    distance = np.abs(np.subtract.outer(TIMES, TIMES))
    if structure == "cs":
        return np.where(distance == 0, 1.0, rho[0])
    if structure == "ar1":
        return rho[0] ** distance
    return np.append(1.0, rho)[np.abs(np.subtract.outer(np.arange(4), np.arange(4)))]


TRUTH = {"cs": (np.array([1.0, 0.6, 1.4, 0.9]), [0.5]), "ar1": (np.ones(4), [-0.6])}
TRUTH["toep"] = (np.array([1.0, 0.6, 1.4, 0.9]), [0.6, 0.1, 0.3])


def covariance(structure: str, sd: np.ndarray, rho: np.ndarray) -> np.ndarray:
    return np.outer(sd, sd) * correlation(structure, rho)


@cache
def frame(structure: str, rho: tuple[float, ...] = ()) -> pd.DataFrame:
    """Every level twice at most times; in some levels times are missing.

    With `rho` the errors add up to 0 in each level at each time, which is less than chance has it: the correlations of
    what is left of the levels lie beyond the boundary.
    """
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    sd, true = TRUTH[structure]
    factor = np.linalg.cholesky(covariance(structure, sd, np.array(rho or true)) + 1e-12 * np.eye(4))
    b = rng.normal(size=(LEVELS, 4)) @ factor.T
    g, t = (a.ravel() for a in np.meshgrid(np.arange(LEVELS), np.repeat(np.arange(4), REPEATS), indexing="ij"))
    x = rng.normal(size=len(g))
    y, noise = 1.0 + 0.5 * x + b[g, t], pd.Series(0.7 * rng.normal(size=len(g)))
    data = pd.DataFrame({"y": y, "x": x, "g": g, "t": t, "time": TIMES[t], "noise": noise})
    data["f"] = np.array(["a", "b", "c", "d"])[t]
    data = data[rng.random(len(g)) > 0.15].reset_index(drop=True)
    if rho:
        data["noise"] -= data.groupby(["g", "t"])["noise"].transform("mean")
    return data.assign(y=data["y"] + data["noise"])


FORMULAS = {
    "cs": "y ~ x + cs(0 + f | g)",
    "ar1": "y ~ x + ar1(0 + time | g)",
    "toep": "y ~ x + toep(0 + t | g)",
}


def direct(structure: str, data: pd.DataFrame) -> Callable[[np.ndarray], float]:
    """-log-likelihood of (beta, log sd, Fisher z, log residual sd), level by level."""
    sds, rhos = (1 if structure == "ar1" else 4), (3 if structure == "toep" else 1)
    parts = [(p["y"].to_numpy(), p["x"].to_numpy(), p["t"].to_numpy()) for _, p in data.groupby("g")]

    def value(theta: np.ndarray) -> float:
        sd = np.exp(theta[2 : 2 + sds]) * np.ones(4)
        sigma = covariance(structure, sd, np.tanh(theta[2 + sds : 2 + sds + rhos]))
        if np.linalg.eigvalsh(sigma)[0] <= 0:
            return 1e10
        total = 0.0
        for y, x, t in parts:
            whole = sigma[np.ix_(t, t)] + np.exp(2 * theta[-1]) * np.eye(len(t))
            total -= multivariate_normal.logpdf(y, theta[0] + theta[1] * x, whole)
        return total

    return value


@cache
def fit(structure: str) -> gn.GLMMNetResults:
    return gn.glmm(FORMULAS[structure], data=frame(structure)).fit(seed=1)


def at_estimates(structure: str, results: gn.GLMMNetResults) -> np.ndarray:
    sigma = results.cov_re["g"].to_numpy()
    sd = np.sqrt(np.diag(sigma))
    r = sigma / np.outer(sd, sd)
    shown = {"cs": [r[0, 1]], "ar1": [r[0, 1]], "toep": [r[0, 1], r[0, 2], r[0, 3]]}[structure]
    log_sd = np.log(sd[:1] if structure == "ar1" else sd)
    return np.concatenate([results.params, log_sd, np.arctanh(shown), [0.5 * np.log(results.scale)]])


@pytest.mark.parametrize("structure", FORMULAS)
def test_fit_is_the_maximum_of_the_likelihood_written_out(structure: str) -> None:
    results = fit(structure)
    value, start = direct(structure, frame(structure)), at_estimates(structure, results)
    sigma = results.cov_re["g"].to_numpy()
    sd = np.sqrt(np.diag(sigma))
    distances = np.arctanh(np.clip((sigma / np.outer(sd, sd))[np.triu_indices(4, 1)], -0.999, 0.999))
    assert len(np.unique(np.round(distances, 8))) == {"cs": 1, "ar1": 4, "toep": 3}[structure]
    assert results.llf == pytest.approx(-value(start), abs=1e-7)
    away = start + 0.05 * np.random.default_rng(SEED).normal(size=len(start))
    best = scipy.optimize.minimize(value, away, method="BFGS", options={"gtol": 1e-4})
    assert results.llf == pytest.approx(-best.fun, abs=1e-5)
    np.testing.assert_allclose(start, best.x, atol=2e-3)


BOUNDARIES = [("cs", (1.0,)), ("cs", (-1 / 3,)), ("ar1", (1.0,)), ("ar1", (-1.0,)), ("toep", (1.0,) * 3)]


@pytest.mark.parametrize(("structure", "rho"), BOUNDARIES)
def test_correlations_on_their_boundary(structure: str, rho: tuple[float, ...]) -> None:
    data = frame(structure, rho)
    results = gn.glmm(FORMULAS[structure], data=data).fit(seed=1)
    sigma = results.cov_re["g"].to_numpy()
    assert results.singular
    assert np.linalg.eigvalsh(sigma)[0] == pytest.approx(0, abs=1e-9)
    sd = np.sqrt(np.diag(sigma))
    np.testing.assert_allclose((sigma / np.outer(sd, sd))[0, 1], rho[0], atol=1e-6)
    assert np.isfinite(results.params).all() and np.isfinite(results.bse).all() and np.isfinite(results.llf)
    assert results.vcomp["se"].notna().all()
    assert "Singular fit" in str(results.summary())


@pytest.mark.parametrize("structure", FORMULAS)
def test_variances_on_their_boundary(structure: str) -> None:
    data = frame(structure)
    noise = np.random.default_rng(SEED).normal(size=len(data))
    # Levels differ less than chance has it: their means are alike at each time.
    data = data.assign(y=noise - pd.Series(noise).groupby([data["g"], data["time"]]).transform("mean") + data["x"])
    results = gn.glmm(FORMULAS[structure], data=data).fit(seed=1)
    assert results.singular
    assert (results.cov_re["g"].to_numpy() == 0).all()
    assert np.isfinite(results.params).all() and np.isfinite(results.llf)
    assert (results.vcomp["variance"][:-1] == 0).all()
    assert not pd.concat([*results.random_effects.values()]).isna().any(axis=None)
    assert "Singular fit" in str(results.summary())


@cache
def two_times(formula: str) -> gn.GLMMNetResults:
    """A Bernoulli fit that ends by Newton's method."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    b = rng.normal(size=(60, 2)) @ np.linalg.cholesky([[1.0, 0.7], [0.7, 1.4]]).T
    g, t = (a.ravel() for a in np.meshgrid(np.arange(60), np.repeat([0, 1], 8), indexing="ij"))
    success = rng.random(len(g)) < 1 / (1 + np.exp(-0.3 - b[g, t]))
    data = pd.DataFrame({"y": success.astype(int), "g": g, "t": t, "f": np.array(["a", "b"])[t]})
    return gn.glmm(formula, data=data, family="bernoulli").fit(seed=1)


@pytest.mark.parametrize("formula", ["y ~ cs(0 + f | g)", "y ~ toep(0 + t | g)", "y ~ us(0 + f | g)"])
def test_two_columns_are_unstructured(formula: str) -> None:
    results, wanted = two_times(formula), two_times("y ~ (0 + f | g)")
    assert results.history["phase"].iloc[-1] == wanted.history["phase"].iloc[-1] == "newton"
    assert results.df_variance == wanted.df_variance
    np.testing.assert_allclose(results.cov_re["g"], wanted.cov_re["g"], rtol=2e-3)
    np.testing.assert_allclose(results.bse, wanted.bse, rtol=1e-3)
    np.testing.assert_allclose(results.vcomp["se"], wanted.vcomp["se"], rtol=2e-3)
    assert results.llf == pytest.approx(wanted.llf, abs=1e-4)


def test_autoregression_of_two_times_is_the_restricted_maximum() -> None:
    results, wanted = two_times("y ~ ar1(0 + t | g)"), two_times("y ~ (0 + f | g)")
    assert results.history["phase"].iloc[-1] == "newton"
    assert results.df_variance == wanted.df_variance - 1
    assert wanted.llf - 4 < results.llf <= wanted.llf
    sigma = results.cov_re["g"].to_numpy()
    assert sigma[0, 0] == pytest.approx(sigma[1, 1], rel=1e-12)
    joint, params = results.fitted.joint, results.fitted.working
    for pair in ((0, 0), (0, 1)):
        for shift in (-0.05, 0.05):
            moved = replace(params, sigma=(joint.terms[0].covariance.shifted(params.sigma[0][0], {pair: shift})[None],))
            assert log_likelihood(joint, moved, None, sampler=None, method="agq").value < results.llf


def test_bernoulli_autoregression_is_found_by_em() -> None:
    """Four times, missing in some levels: no quadrature; the truth within three standard errors."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    b = rng.normal(size=(120, 4)) @ np.linalg.cholesky(1.2**2 * correlation("ar1", np.array([0.7]))).T
    g, t = (a.ravel() for a in np.meshgrid(np.arange(120), np.repeat(np.arange(4), 6), indexing="ij"))
    success = rng.random(len(g)) < 1 / (1 + np.exp(-0.3 - b[g, t]))
    data = pd.DataFrame({"y": success.astype(int), "g": g, "time": TIMES[t]})[rng.random(len(g)) < 0.8]
    data = data[(data["g"] % 5 > 0) | (data["time"] != 3)]
    results = gn.glmm("y ~ ar1(0 + time | g)", data=data, family="bernoulli").fit(seed=1)
    assert results.converged and not results.singular
    sigma, sd = results.cov_re["g"].to_numpy(), results.vcomp["sd"].iloc[0]
    np.testing.assert_allclose(sigma, sd**2 * correlation("ar1", np.array([sigma[0, 1] / sd**2])), rtol=1e-6)
    assert abs(sd - 1.2) < 3 * results.vcomp["se"].iloc[0]
    (row,) = correlations(results.fitted, results._variance_errors, 0.05).to_dict("records")
    assert (row["first"], row["second"]) == ("lag 1", "")
    assert abs(row["correlation"] - 0.7) < 3 * row["se"]


@cache
def series(times: int, rows: int, family: str) -> pd.DataFrame:
    """One autoregressive series, seen `rows` times at each of most times."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    b = rng.normal(size=times)
    for t in range(1, times):
        b[t] = 0.7 * b[t - 1] + (1 - 0.7**2) ** 0.5 * b[t]
    t = np.repeat(np.arange(times), rows)
    t = t[rng.random(len(t)) > 0.15]
    x = rng.normal(size=len(t))
    eta = 0.8 + 0.5 * x + b[t]
    y = eta + 0.7 * rng.normal(size=len(t)) if family == "gaussian" else rng.poisson(np.exp(eta))
    return pd.DataFrame({"y": y, "x": x, "t": t, "g": "series"})


def hessian(value: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """Second derivatives by central differences."""
    steps = step * np.eye(len(at))
    return np.array(
        [
            [sum(p * q * value(at + p * a + q * b) for p in (1, -1) for q in (1, -1)) / (4 * step**2) for b in steps]
            for a in steps
        ]
    )


def test_one_gaussian_series_is_the_maximum_of_the_likelihood_written_out() -> None:
    data = series(80, 2, "gaussian")
    results = gn.glmm("y ~ x + ar1(0 + t | g)", data=data).fit(seed=1)
    distance = np.abs(np.subtract.outer(data["t"].to_numpy(), data["t"].to_numpy()))

    def value(theta: np.ndarray) -> float:
        v = np.exp(2 * theta[2]) * np.tanh(theta[3]) ** distance + np.exp(2 * theta[4]) * np.eye(len(data))
        return -multivariate_normal.logpdf(data["y"], theta[0] + theta[1] * data["x"], v)

    sigma = results.cov_re["g"].to_numpy()
    sd = results.vcomp["sd"].to_numpy()
    found = np.array([*results.params, np.log(sd[0]), np.arctanh(sigma[0, 1] / sigma[0, 0]), np.log(sd[1])])
    assert results.llf == pytest.approx(-value(found), abs=1e-7)
    best = scipy.optimize.minimize(value, found + 0.05, method="BFGS", options={"gtol": 1e-5})
    assert results.llf == pytest.approx(-best.fun, abs=1e-6)
    np.testing.assert_allclose(found, best.x, atol=1e-3)
    # Expected information against observed, which is not what BFGS has gathered on its way.
    errors = np.concatenate([results.bse, results.vcomp["se"] / sd])
    observed = np.sqrt(np.diag(np.linalg.inv(hessian(value, found))))
    np.testing.assert_allclose(errors, observed[[0, 1, 2, 4]], rtol=0.05)
    new = results.predict(data.head(3).assign(g="another"))
    np.testing.assert_allclose(new, results.params["Intercept"] + results.params["x"] * data["x"].head(3))


def test_one_series_of_counts_is_the_maximum_of_the_likelihood_by_filtering() -> None:
    data = series(40, 1, "poisson")
    results = gn.glmm("y ~ x + ar1(0 + t | g)", data=data, family="poisson").fit(seed=1)
    grid = np.linspace(-5, 5, 201)
    y, x, t = (data[name].to_numpy() for name in ("y", "x", "t"))

    def value(theta: np.ndarray) -> float:
        """Minus log-likelihood of (beta, log sd, Fisher z), forwards over a grid of b / sd."""
        rho, total = np.tanh(theta[3]), 0.0
        step = norm.pdf(grid[:, None], rho * grid, (1 - rho**2) ** 0.5)
        density = norm.pdf(grid)
        for at in range(t.max() + 1):
            density = step @ density * 0.05 if at else density
            for row in np.flatnonzero(t == at):
                density = density * poisson.pmf(y[row], np.exp(theta[0] + theta[1] * x[row] + np.exp(theta[2]) * grid))
            total += np.log(density.sum() * 0.05)
            density /= density.sum() * 0.05
        return -total

    sigma = results.cov_re["g"].to_numpy()
    found = np.array([*results.params, np.log(sigma[0, 0]) / 2, np.arctanh(sigma[0, 1] / sigma[0, 0])])
    best = scipy.optimize.minimize(value, found, method="BFGS", options={"gtol": 1e-3})
    print(found, best.x, results.llf, -value(found), -best.fun)
    assert results.converged
    assert -value(found) > -best.fun - 0.005
    errors = np.sqrt(np.diag(np.linalg.inv(hessian(value, best.x))))
    np.testing.assert_allclose((found - best.x) / errors, 0, atol=0.1)
    assert results.llf == pytest.approx(-value(found), abs=5 * results.llf_se)


@pytest.mark.parametrize("effects", ["toep(0 + t | g)", "cs(0 + f | g)", "(0 + f | g)"])
def test_one_level_shows_no_variance_of_single_columns(effects: str) -> None:
    data = series(6, 4, "gaussian")
    data = data.assign(f="f" + data["t"].astype(str))
    with pytest.raises(DesignError, match=r"`g` has one level, 'series'"):
        gn.glmm(f"y ~ x + {effects}", data=data)


def test_formulas_know_every_structure():
    assert set(vocabulary.COVARIANCES) == set(COVARIANCES)
