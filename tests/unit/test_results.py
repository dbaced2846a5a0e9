"""Likelihood, information criteria, residuals and the record itself."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from _fits import bernoulli, binomial, categorical, dense, frame, gaussian, network
from matplotlib.figure import Figure

import glmmnet as gn
from glmmnet.errors import FitError


def test_the_gaussian_likelihood_is_the_multivariate_normals():
    r = gaussian()
    x, z, covariance = dense(r)
    v = z @ covariance @ z.T + r.scale * np.eye(300)
    expected = scipy.stats.multivariate_normal.logpdf(frame()["y"], x @ r.params.to_numpy(), v)
    assert r.llf == pytest.approx(expected, abs=1e-6)
    assert r.llf_method == "exact" and r.llf_se == 0


def test_the_bernoulli_likelihood_by_quadrature():
    r = bernoulli()
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    eta = (r.params["Intercept"] + r.params["x"] * frame()["x"].to_numpy())[:, None] + r.vcomp["sd"][0] * nodes
    member = (frame()["g"].to_numpy()[:, None] == np.unique(frame()["g"])).astype(float)
    log_p = member.T @ (frame()["b"].to_numpy()[:, None] * eta - np.logaddexp(0, eta))
    assert r.llf == pytest.approx(np.log(np.exp(log_p) @ (weights / weights.sum())).sum(), abs=1e-4)
    assert r.llf_method == "agq"


def test_other_methods_agree():
    r = bernoulli()
    assert r.loglike() == r.llf
    assert r.loglike("laplace") == pytest.approx(r.llf, abs=0.3)
    assert r.loglike("importance") == pytest.approx(r.llf, abs=0.3)
    assert gaussian().loglike("laplace") == pytest.approx(gaussian().llf, abs=1e-6)
    with pytest.raises(ValueError, match="no likelihood method 'aghq'"):
        r.loglike("aghq")
    with pytest.raises(FitError, match="agq"):
        gaussian().loglike("agq")


def test_information_criteria_count_every_parameter():
    r = gaussian()
    assert (r.df_linear, r.df_neural, r.df_variance, r.df_model) == (2, 0, 5, 7)
    assert r.aic == pytest.approx(-2 * r.llf + 14)
    assert r.bic == pytest.approx(-2 * r.llf + 7 * np.log(300))
    assert (categorical().df_linear, categorical().df_variance) == (4, 3)
    # 2-8-1 perceptron: 2 * 8 + 8 + 8 + 1 weights.
    assert network().df_neural == 33


def test_residuals_of_a_gaussian_model():
    r = gaussian()
    expected = frame()["y"] - r.fittedvalues
    np.testing.assert_allclose(r.resid_response, expected)
    np.testing.assert_allclose(r.resid_pearson, expected / np.sqrt(r.scale))
    np.testing.assert_allclose(r.resid_deviance, expected)
    assert r.resid_response.index.equals(frame().index)


def test_residuals_of_a_bernoulli_model():
    r, y = bernoulli(), frame()["b"]
    p = r.fittedvalues
    np.testing.assert_allclose(r.resid_response, y - p)
    np.testing.assert_allclose(r.resid_pearson, (y - p) / np.sqrt(p * (1 - p)))
    deviance = -2 * np.log(np.where(y == 1, p, 1 - p))
    np.testing.assert_allclose(r.resid_deviance, np.sign(y - p) * np.sqrt(deviance))


def test_residuals_of_counts():
    r, k, m = binomial(), frame()["k"], frame()["m"]
    p = r.fittedvalues
    np.testing.assert_allclose(r.resid_response, k / m - p)
    np.testing.assert_allclose(r.resid_pearson, (k - m * p) / np.sqrt(m * p * (1 - p)))
    saturated = scipy.stats.binom.logpmf(k, m, k / m)
    deviance = 2 * (saturated - scipy.stats.binom.logpmf(k, m, p))
    np.testing.assert_allclose(r.resid_deviance**2, deviance, atol=1e-9)


def test_residuals_of_classes():
    r = categorical("bb")
    p = r.fittedvalues
    observed = (frame()["c"].to_numpy()[:, None] == p.columns.to_numpy()).astype(float)
    np.testing.assert_allclose(r.resid_response, observed - p)
    np.testing.assert_allclose(r.resid_pearson, (observed - p) / np.sqrt(p * (1 - p)))
    np.testing.assert_allclose(r.resid_deviance**2, -2 * np.log((observed * p.to_numpy()).sum(axis=1)))
    assert r.resid_response.columns.tolist() == ["bb", "aa", "cc"]


def test_quantile_residuals_of_a_gaussian_model_are_its_standardised_errors():
    r = gaussian()
    pick = np.argmin(
        [
            np.abs(r.resid_quantile - (frame()["y"] - eta) / np.sqrt(r.scale)).max()
            for eta in (r.fitted.fixed + r.fitted.joint.random_eta(r.fitted.draws.b.double()))[:, 0].T.numpy()
        ]
    )
    eta = r.fitted.fixed + r.fitted.joint.random_eta(r.fitted.draws.b[:, :, [pick]].double())
    np.testing.assert_allclose(r.resid_quantile, (frame()["y"] - eta[:, 0, 0].numpy()) / np.sqrt(r.scale))
    assert r.resid_quantile.index.equals(frame().index)


def test_quantile_residuals_are_normal_though_levels_have_few_rows():
    rng = np.random.default_rng(20261122)
    g = np.repeat(np.arange(400), 3)
    data = pd.DataFrame({"g": g, "y": rng.poisson(np.exp(1.0 + rng.normal(size=400)[g]))})
    r = gn.glmm("y ~ 1 + (1 | g)", data, "poisson").fit(seed=1)
    assert scipy.stats.kstest(r.resid_quantile, "norm").pvalue > 0.01
    # At posterior means they would not be.
    assert r.resid_pearson.std() < 0.9
    assert r.resid_quantile.equals(dataclasses.replace(r).resid_quantile)


def test_quantile_residuals_of_classes_need_an_order():
    with pytest.raises(FitError, match="no order"):
        _ = categorical().resid_quantile


def test_what_is_computed_later_depends_on_no_order():
    # Two factors: the likelihood is a Monte Carlo estimate with a seed of its own.
    first = dataclasses.replace(bernoulli())
    second = dataclasses.replace(bernoulli())
    torch.manual_seed(3)
    a = first.loglike("importance"), first.get_prediction(frame().head(3)).summary_frame().to_numpy()
    torch.manual_seed(4)
    b = second.get_prediction(frame().head(3)).summary_frame().to_numpy(), second.loglike("importance")
    assert a[0] == b[1]
    np.testing.assert_array_equal(a[1], b[0])


def test_results_are_frozen():
    r = gaussian()
    with pytest.raises(dataclasses.FrozenInstanceError):
        r.converged = False
    before = r.params.copy()
    changed = r.params
    changed.iloc[0] = 99.0
    np.testing.assert_array_equal(r.params, before)
    assert "300 rows, converged" in repr(r)


def test_history_has_a_row_an_iteration():
    r = bernoulli()
    assert {"iteration", "phase", "deviance", "valid_deviance", "change", "sd[g, (Intercept)]"} <= set(r.history)
    assert r.history["iteration"].tolist() == list(range(1, len(r.history) + 1))
    n = network().history
    assert n["phase"].tolist()[0] == "network" and n["phase"].tolist()[-1] == "polish"
    assert "sigma" in n and n["valid_deviance"].iloc[:3].notna().all()


@pytest.mark.parametrize(
    "formula, options, expected",
    [
        ("y ~ x", {}, ("Intercept",)),
        ("y ~ 0 + x", {}, ()),
        ("y ~ x", {"dispersion": "~ x"}, ("Intercept", "dispersion:Intercept")),
        ("h ~ x", {"family": "cumulative"}, tuple(f"{k}|{k + 1}" for k in range(7))),
    ],
)
def test_intercepts_are_rows_of_params(formula, options, expected):
    r = gn.glmm(formula, data=frame(), **options).fit(seed=1)
    assert r.intercepts == expected
    assert set(expected) <= set(r.params.index)
    assert [label.get_text() for label in r.plot.forest(Figure().subplots()).get_yticklabels()] == [
        name for name in r.params.index if name not in expected
    ]


def test_not_singular():
    assert not gaussian().singular
    assert not gaussian("y ~ x").singular


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (x || g)"])
def test_a_variance_of_0_is_singular(formula):
    # Groups of equal means, as of slopes, have a likelihood that falls with their variances.
    x = np.tile([-1.0, 1.0, 0.0], 20)
    y = np.tile([0.3, -0.1, -0.2], 20) + 0.5 * x
    r = gn.glmm(formula, data=pd.DataFrame({"y": y, "x": x, "g": np.repeat(np.arange(20), 3)})).fit(seed=1)
    assert (r.vcomp["sd"].iloc[:-1] == 0).all()
    assert r.singular


def test_a_correlation_of_1_is_singular():
    # Intercepts and slopes of the levels are the same numbers.
    effect = np.repeat(np.linspace(-2, 2, 12), 25)
    y = effect * (1 + frame()["x"]) + np.random.default_rng(1).normal(size=300)
    data = pd.DataFrame({"y": y, "x": frame()["x"], "g": np.repeat(np.arange(12), 25)})
    r = gn.glmm("y ~ x + (x | g)", data=data).fit(seed=1)
    sigma = r.cov_re["g"].to_numpy()
    assert (sigma.diagonal() > 0.1).all()
    assert sigma[0, 1] / np.sqrt(sigma[0, 0] * sigma[1, 1]) == pytest.approx(1, abs=1e-4)
    assert r.singular


def test_unknown_plots_are_refused():
    with pytest.raises(AttributeError, match="caterpillar"):
        gaussian().plot.caterpilar()
