"""Levels with a known correlation: the matrix of ``gr(g, cov=A)``, and fits against the likelihood written out."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from scipy.stats import multivariate_normal

import glmmnet as gn
from glmmnet.design import build_design, state_from_dict, state_to_dict
from glmmnet.errors import DesignError
from glmmnet.formula import parse
from glmmnet.likelihood import log_likelihood

SEED = 20261124
ANIMALS, FOUNDERS = 80, 12
FORMULA = "y ~ x + (1 | gr(animal, cov=A))"


@cache
def pedigree(n: int = ANIMALS, founders: int = FOUNDERS) -> pd.DataFrame:
    """Additive relationships of n animals, the parents of all but the founders drawn among those before."""
    rng = np.random.default_rng(SEED)
    a = np.eye(n)
    for i in range(founders, n):
        sire, dam = rng.choice(i, 2, replace=False)
        a[i, :i] = a[:i, i] = 0.5 * (a[sire, :i] + a[dam, :i])
        a[i, i] = 1.0 + 0.5 * a[sire, dam]
    labels = [f"a{i:02d}" for i in rng.permutation(n)]
    return pd.DataFrame(a, index=labels, columns=labels)


@cache
def frame(sd: float = 1.2) -> pd.DataFrame:
    """One record an animal, some without; half of them twice."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    a = pedigree()
    u = sd * np.linalg.cholesky(a.to_numpy()) @ rng.normal(size=len(a))
    at = np.concatenate([np.arange(4, ANIMALS), np.arange(10, ANIMALS, 2)])
    x = rng.normal(size=len(at))
    eta = 1.0 + 0.5 * x + u[at]
    successes = rng.binomial(10, 1 / (1 + np.exp(-eta)))
    return pd.DataFrame(
        {"y": eta + 0.8 * rng.normal(size=len(at)), "k": successes, "m": 10, "x": x, "animal": a.index[at]}
    )


def covariance(data: pd.DataFrame, variance: float, residual: float) -> np.ndarray:
    a = pedigree().loc[data["animal"], data["animal"]].to_numpy()
    return variance * a + residual * np.eye(len(data))


@cache
def fit(family: str = "gaussian") -> gn.GLMMNetResults:
    formula = FORMULA if family == "gaussian" else FORMULA.replace("y", "p(k, m)", 1)
    return gn.glmm(formula, data=frame(), family=family, context={"A": pedigree()}).fit(seed=1)


def test_fit_is_the_maximum_of_the_likelihood_written_out() -> None:
    data, results = frame(), fit()

    def value(theta: np.ndarray) -> float:
        v = covariance(data, np.exp(2 * theta[2]), np.exp(2 * theta[3]))
        return -multivariate_normal.logpdf(data["y"], theta[0] + theta[1] * data["x"], v)

    sd = results.vcomp["sd"].to_numpy()
    found = np.concatenate([results.params, np.log(sd)])
    assert results.llf == pytest.approx(-value(found), abs=1e-8)
    best = scipy.optimize.minimize(value, found + 0.1, method="BFGS", options={"gtol": 1e-5})
    np.testing.assert_allclose(found, best.x, atol=1e-4)
    assert results.llf >= -best.fun - 1e-6


def test_standard_errors_and_predictions_know_the_correlation() -> None:
    data, results = frame(), fit()
    sd = results.vcomp["sd"].to_numpy()
    v = np.linalg.inv(covariance(data, *sd**2))
    x = np.column_stack([np.ones(len(data)), data["x"]])
    np.testing.assert_allclose(results.bse, np.sqrt(np.diag(np.linalg.inv(x.T @ v @ x))), rtol=1e-6)
    levels = results.random_effects["animal"].index
    across = pedigree().loc[levels, data["animal"]].to_numpy()
    blup = sd[0] ** 2 * across @ v @ (data["y"].to_numpy() - x @ results.params.to_numpy())
    errors = results.random_effects_sd["animal"].iloc[:, 0].to_numpy()
    # Means over 1,000 draws.
    assert np.abs(results.random_effects["animal"].iloc[:, 0].to_numpy() - blup).max() < 5 * errors.max() / 1000**0.5


def test_binomial_fit_is_near_the_maximum_of_laplaces_likelihood() -> None:
    """Ten trials a row: Laplace's error is small; it is lower by about 1/2 a standard error to either side."""
    results = fit("binomial")
    assert results.converged
    (sd,), (se,) = results.vcomp["sd"], results.vcomp["se"]
    assert abs(sd - 1.2) < 3 * se
    joint, params = results.fitted.joint, results.fitted.working
    value = []
    for factor in (1 - se / sd, 1.0, 1 + se / sd):
        moved = replace(params, sigma=(params.sigma[0] * factor**2,))
        value.append(log_likelihood(joint, moved, None, sampler=None, method="laplace").value)
    print(value)
    assert value[1] - value[0] == pytest.approx(0.5, abs=0.25)
    assert value[1] - value[2] == pytest.approx(0.5, abs=0.25)


def test_marginal_predictions_know_the_diagonal() -> None:
    data = frame()
    results = gn.glmm(FORMULA, data=data, context={"A": 2.0 * pedigree()}).fit(seed=1)
    once = fit()
    assert results.llf == pytest.approx(once.llf, abs=1e-6)
    assert results.vcomp["sd"][0] == pytest.approx(once.vcomp["sd"][0] / 2**0.5, rel=1e-3)
    first = results.get_prediction(data, level="marginal").summary_frame()
    second = once.get_prediction(data, level="marginal").summary_frame()
    np.testing.assert_allclose(first["obs_ci_upper"], second["obs_ci_upper"], rtol=0.02, atol=0.02)
    assert np.isfinite(results.predict(data.head(3).assign(animal="new"), new_levels="marginal")).all()


def test_state_is_stored_without_the_matrix() -> None:
    design, state = build_design(parse(FORMULA), frame(), context={"A": pedigree()})
    (term,) = design.random
    np.testing.assert_array_equal(term.correlation, pedigree().loc[term.levels, term.levels])
    again = state_from_dict(json.loads(json.dumps(state_to_dict(state), allow_nan=False)))
    new = again.rebuild(frame().head(5)).random[0]
    assert new.correlation is None
    np.testing.assert_array_equal(new.index, term.index[:5])


A = pedigree()
ASYMMETRIC = A.copy()
ASYMMETRIC.iloc[20, 30] = 0.9
TWINS = A.copy()
TWINS.iloc[20] = TWINS.iloc[21]
TWINS.iloc[:, 20] = TWINS.iloc[:, 21]
INFINITE = A.copy()
INFINITE.iloc[30, 30] = np.inf


@pytest.mark.parametrize(
    ("matrix", "fragment"),
    [
        (None, r"needs the matrix `A`: pass context=\{'A'"),
        (A.to_numpy(), "is a ndarray; give a DataFrame whose index and columns are levels of `animal`"),
        (A.reset_index(drop=True), "the same labels, each once, on both sides"),
        (A.iloc[:, :-1], "the same labels"),
        (A.loc[A.index != "a50", A.columns != "a50"], "no row for 1 of the 76 levels of `animal`: 'a50'"),
        (pd.DataFrame(A.to_numpy()), "no row for 76 .* and 71 more; its labels are like 0"),
        (ASYMMETRIC, r"not symmetric: it has .* the other way round"),
        (TWINS, "not positive definite: its smallest eigenvalue"),
        (-A, "not positive definite"),
        (INFINITE, "not finite"),
        (A.astype(str) + "u", "must hold numbers"),
    ],
)
def test_matrices_refused(matrix: object, fragment: str) -> None:
    with pytest.raises(DesignError, match=fragment):
        gn.glmm(FORMULA, data=frame(), context={} if matrix is None else {"A": matrix})
