"""Levels with a known correlation: the matrix of ``gr(g, cov=A)``, and fits against the likelihood written out."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.sparse as sp
import torch
from scipy.special import gammaln
from scipy.stats import multivariate_normal

import glmmnet as gn
from glmmnet.cholesky import SparseFactor, factorize
from glmmnet.design import build_design, state_from_dict, state_to_dict
from glmmnet.errors import DesignError
from glmmnet.exact import GaussianLikelihood, exact_rows
from glmmnet.formula import parse
from glmmnet.joint import JointModel
from glmmnet.likelihood import log_likelihood
from glmmnet.relations import Relation

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


@pytest.mark.parametrize("sparse", [True, False])
def test_inverse_is_that_of_the_matrix_in_any_precision(sparse: bool) -> None:
    a = pedigree().to_numpy(copy=True) if sparse else 0.5 * np.eye(ANIMALS) + 0.5
    relation = Relation(a, pd.Index([]))
    assert relation.sparse == sparse
    values = torch.randn(ANIMALS, 2, 3, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    expected = np.linalg.solve(a, values.flatten(1).numpy()).reshape(values.shape)
    np.testing.assert_allclose(relation.decorrelated(values), expected, atol=1e-10)
    single = relation.decorrelated(values.float())
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, expected, atol=1e-4)


def large(matrix: pd.DataFrame) -> JointModel:
    data = pd.DataFrame({"animal": matrix.index, "x": np.arange(400.0) % 7, "y": np.arange(400.0) % 11})
    design, _ = build_design(parse(FORMULA, columns=list(data.columns)), data, context={"A": matrix})
    return JointModel.from_design(design, gn.families.Gaussian())


def test_exact_likelihood_by_the_inverse_is_that_by_the_root() -> None:
    joint, by_root = large(pedigree(400, 60)), large(pedigree(400, 60))
    own, other = joint.terms[0].relation, by_root.terms[0].relation
    assert own is not None and own.sparse and other is not None
    other.sparse = False
    for reml in (False, True):
        for theta in (0.0, 0.3, 4.0):
            one, two = (GaussianLikelihood(j, reml=reml).profile(np.array([theta])) for j in (joint, by_root))
            assert one.deviance == pytest.approx(two.deviance, abs=1e-7)
            np.testing.assert_allclose(one.beta, two.beta, atol=1e-9)


def test_a_large_pedigree_has_a_sparse_factor_and_a_dense_relation_has_none() -> None:
    a = pedigree(400, 60)
    dense = pd.DataFrame(0.5 * np.eye(400) + 0.5, index=a.index, columns=a.index)
    for matrix, rows in ((a, 0), (dense, 400)):
        joint = large(matrix)
        assert exact_rows(joint) == rows
        system = joint.pattern() + 400 * sp.eye(400, format="csr")
        assert isinstance(factorize(system, joint.segments), SparseFactor) == (rows == 0)


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


FOUR = np.array([[1.0, 0.8, 0.3, 0.0], [0.8, 1.0, 0.5, 0.1], [0.3, 0.5, 1.0, 0.6], [0.0, 0.1, 0.6, 1.0]])


def by_quadrature(data: pd.DataFrame, family: str, theta: np.ndarray, nodes: int = 13) -> tuple[float, np.ndarray]:
    """Log-likelihood at (beta, log sd) and posterior mean of four related effects, over a grid around their mode."""
    y, x, g = (data[name].to_numpy() for name in ("y", "x", "g"))
    fixed, prior = theta[0] + theta[1] * x, np.linalg.inv(np.exp(2 * theta[2]) * FOUR)

    def log_density(b: np.ndarray) -> np.ndarray:
        eta = fixed + b[..., g]
        rows = y * eta - (np.logaddexp(0, eta) if family == "bernoulli" else np.exp(eta) + gammaln(y + 1))
        kernel = -0.5 * np.einsum("...i,ij,...j->...", b, prior, b)
        return rows.sum(axis=-1) + kernel + 0.5 * np.linalg.slogdet(prior / (2 * np.pi))[1]

    found = scipy.optimize.minimize(lambda b: -log_density(b), np.zeros(4), method="BFGS")
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.stack(np.meshgrid(z, z, z, z, indexing="ij"), axis=-1).reshape(-1, 4)
    weight = np.prod(np.stack(np.meshgrid(w, w, w, w, indexing="ij"), axis=-1), axis=-1).ravel()
    root = np.linalg.cholesky(found.hess_inv)
    b = found.x + grid @ root.T
    log_share = log_density(b) + 0.5 * (grid**2).sum(axis=1) + np.log(weight) + np.log(np.diag(root)).sum()
    share = np.exp(log_share - log_share.max())
    return float(log_share.max() + np.log(share.sum())), share @ b / share.sum()


@pytest.mark.parametrize("family", ["bernoulli", "poisson"])
def test_fit_is_the_maximum_of_the_likelihood_by_quadrature(family: str) -> None:
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    b = 1.2 * np.linalg.cholesky(FOUR) @ rng.normal(size=4)
    g, x = np.repeat(np.arange(4), 12), rng.normal(size=48)
    eta = 0.3 + 0.5 * x + b[g]
    y = rng.random(48) < 1 / (1 + np.exp(-eta)) if family == "bernoulli" else rng.poisson(np.exp(eta))
    data = pd.DataFrame({"y": y.astype(int), "x": x, "g": g})
    results = gn.glmm("y ~ x + (1 | gr(g, cov=A))", data=data, family=family, context={"A": pd.DataFrame(FOUR)})
    results = results.fit(seed=1)
    found = np.append(results.params, np.log(results.vcomp["sd"][0]))
    best = scipy.optimize.minimize(
        lambda theta: -by_quadrature(data, family, theta)[0], found, method="Nelder-Mead", options={"xatol": 1e-4}
    )
    llf, mean = by_quadrature(data, family, found)
    print(found, best.x, results.llf, llf, -best.fun)
    assert results.converged
    assert llf > -best.fun - 0.002
    errors = np.append(results.bse, results.vcomp["se"][0] / results.vcomp["sd"][0])
    np.testing.assert_allclose(found / errors, best.x / errors, atol=0.05)
    assert results.llf == pytest.approx(llf, abs=5 * results.llf_se)
    apart = (results.random_effects["g"].iloc[:, 0] - mean) / results.random_effects_sd["g"].iloc[:, 0]
    assert apart.abs().max() < 5 / 1000**0.5


def absent() -> pd.Index:
    """Animals without records."""
    return pedigree().index[~pedigree().index.isin(frame()["animal"])]


def test_effects_of_animals_without_records_are_those_of_the_joint_density() -> None:
    data, results = frame(), fit()
    variance, residual = results.vcomp["variance"]
    x, v = np.column_stack([np.ones(len(data)), data["x"]]), np.linalg.inv(covariance(data, variance, residual))
    across = variance * pedigree().loc[absent(), data["animal"]].to_numpy()
    mean = across @ v @ (data["y"] - x @ results.params).to_numpy()
    around = variance * pedigree().loc[absent(), absent()].to_numpy() - across @ v @ across.T
    table = results.ranef(as_frame=True, relatives=True)
    assert table["grp"].tolist() == absent().tolist()
    np.testing.assert_allclose(table["condval"], mean, atol=1e-6)
    np.testing.assert_allclose(table["condsd"], np.sqrt(np.diag(around)), rtol=1e-6)
    new = pd.DataFrame({"x": 0.5, "animal": absent()})
    expected = results.params["Intercept"] + 0.5 * results.params["x"] + mean
    np.testing.assert_allclose(results.predict(new, new_levels="error"), expected, atol=1e-5)
    (own,) = [p for p in results.explain(new.iloc[[1]]).itertuples() if p.part == "random"]
    assert own.effect == pytest.approx(mean[1], abs=1e-5)
    assert own.sd == pytest.approx(np.sqrt(around[1, 1]), rel=0.1)
    assert own.level == absent()[1]
    # The error of beta moves the effects too: cov = around + D Cov(beta) D', D = x_new - across V^-1 X.
    moved = np.array([1.0, 0.5]) - across @ v @ x
    whole = around + moved @ results.cov_params().to_numpy() @ moved.T
    draws = results.get_prediction(new).mean_draws[:, 0]
    found = np.cov(draws)
    sd = np.sqrt(np.diag(whole))
    error = np.outer(sd, sd) / draws.shape[1] ** 0.5
    assert (np.abs(found - whole) / error).max() < 5


@pytest.mark.parametrize("formula", [FORMULA, FORMULA.replace("(1", "(1 + x"), "p(k, m) ~ x + (1 | gr(animal, cov=A))"])
def test_rows_of_weight_zero_change_nothing(formula: str) -> None:
    """With such a row an animal is a level of the model like all others."""
    data, family = frame(), "binomial" if "p(" in formula else "gaussian"
    rows = pd.concat([data, data.head(len(absent())).assign(animal=absent())], ignore_index=True)
    weights = np.repeat([1.0, 0.0], [len(data), len(absent())])
    results = gn.glmm(formula, data=data, family=family, context={"A": pedigree()}).fit(seed=1)
    wanted = gn.glmm(formula, data=rows, family=family, weights=weights, context={"A": pedigree()}).fit(seed=1)
    mean, sd = results.ranef(relatives=True)["animal"], wanted.random_effects_sd["animal"].loc[absent()]
    assert sd.shape == (len(absent()), 2 if "1 + x" in formula else 1)
    apart = ((mean - wanted.random_effects["animal"].loc[absent()]) / sd).abs().to_numpy().max()
    table = results.ranef(as_frame=True, relatives=True)
    ratio = table["condsd"].to_numpy() / sd.to_numpy().T.ravel()
    new = rows.tail(len(absent()))
    first, second = results.predict(new), wanted.predict(new)
    print(apart, ratio, first.to_numpy() - second.to_numpy())
    exact = family == "gaussian"
    assert apart < (1e-5 if exact else 5 * (2 / 1000) ** 0.5)
    np.testing.assert_allclose(ratio, 1, atol=1e-5 if exact else 0.1)
    np.testing.assert_allclose(first, second, atol=1e-5 if exact else 0.05)
    # What the draws leave unknown of their effects is integrated, not drawn.
    reseeded = replace(results, fitted=replace(results.fitted, seed=2))
    np.testing.assert_allclose(reseeded.predict(new), first, rtol=1e-12)


def test_copies_without_records_have_one_effect() -> None:
    label, a = absent()[0], pedigree()
    twins = a.reindex(index=[*a.index, "twin"], columns=[*a.index, "twin"])
    twins.loc["twin"] = twins.loc[label]
    twins["twin"] = twins[label]
    results = gn.glmm(FORMULA, data=frame(), context={"A": twins}).fit(seed=1)
    (one,), (other,) = results.get_prediction(pd.DataFrame({"x": 0.0, "animal": [label, "twin"]})).mean_draws
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert one.std() > 0.1


def test_matrix_that_is_indefinite_among_animals_without_records_is_refused() -> None:
    a = pedigree().copy()
    one, other = absent()[:2]
    a.loc[one, other] = a.loc[other, one] = 1.5
    results = gn.glmm(FORMULA, data=frame(), context={"A": a}).fit(seed=1)
    assert results.llf == pytest.approx(fit().llf, abs=1e-8)
    new = pd.DataFrame({"x": 0.0, "animal": [one, other]})
    with pytest.raises(DesignError, match=r"2 levels without rows, .* is not positive definite"):
        results.get_prediction(new)


def test_state_is_stored_without_the_matrix() -> None:
    design, state = build_design(parse(FORMULA), frame(), context={"A": pedigree()})
    (term,) = design.random
    every = [*term.levels, *term.relatives]
    assert len(term.levels) == ANIMALS - 4 and len(every) == ANIMALS
    np.testing.assert_array_equal(term.correlation, pedigree().loc[every, every])
    again = state_from_dict(json.loads(json.dumps(state_to_dict(state), allow_nan=False)))
    rows = frame().head(5)
    new = again.rebuild(pd.concat([rows, rows.head(3).assign(animal=[*term.relatives[[2, 0]], "new"])])).random[0]
    assert new.correlation is None
    np.testing.assert_array_equal(new.index, [*term.index[:5], ANIMALS - 4 + 2, ANIMALS - 4, -1])


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
