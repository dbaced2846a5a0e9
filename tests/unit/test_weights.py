"""Frequency and precision weights against rows written out or scaled by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from _fits import QUICK, frame

import glmmnet as gn
from glmmnet.em.loop import starting_parameters
from glmmnet.errors import DesignError
from glmmnet.exact import GaussianLikelihood
from glmmnet.scoring import VarianceScoring

#: Far from 1, so that their mean matters.
DATA = frame().assign(w=lambda d: 20.0 * np.exp(0.8 * d["z"]))
PRECISION = {"weights": "w", "weight_kind": "precision"}


class _NotKnownToBeGaussian(gn.families.Gaussian):
    """Goes the way of families whose posterior of b is not Gaussian."""

    def __init__(self) -> None:
        super().__init__()
        self.quadratic = self.canonical = False


@pytest.mark.parametrize("reml", [False, True])
def test_precision_weights_are_rows_scaled_by_their_roots(reml):
    root = np.sqrt(DATA["w"])
    scaled = DATA.assign(y=root * DATA["y"], one=root, x=root * DATA["x"])
    weighted = gn.glmm("y ~ x + (x | g) + (1 | h)", data=DATA, **PRECISION).fit(seed=1, reml=reml)
    by_hand = gn.glmm("y ~ 0 + one + x + (0 + one + x | g) + (0 + one | h)", data=scaled).fit(seed=1, reml=reml)
    np.testing.assert_allclose(weighted.params, by_hand.params, rtol=1e-5)
    np.testing.assert_allclose(weighted.bse, by_hand.bse, rtol=1e-4)
    np.testing.assert_allclose(weighted.vcomp[["sd", "se"]], by_hand.vcomp[["sd", "se"]], rtol=1e-3)
    assert weighted.scale == pytest.approx(by_hand.scale, rel=1e-5)
    assert weighted.dispersion["se"] == pytest.approx(by_hand.dispersion["se"], rel=1e-3)
    # Density of y, not of y sqrt(w).
    assert weighted.llf == pytest.approx(by_hand.llf + 0.5 * np.log(DATA["w"]).sum(), abs=1e-5)
    for group in ("g", "h"):
        np.testing.assert_allclose(weighted.random_effects[group], by_hand.random_effects[group], atol=1e-4)
    np.testing.assert_allclose(weighted.resid_pearson, by_hand.resid_pearson, atol=1e-3)
    np.testing.assert_allclose(weighted.resid_deviance, by_hand.resid_deviance, atol=1e-3)
    spread = weighted.simulate(400, level="population").std(axis=1)
    np.testing.assert_allclose(spread, np.sqrt(weighted.scale / DATA["w"]), rtol=0.2)
    assert weighted.nobs == len(DATA)
    assert "Precision weights" in str(weighted.summary())


def test_weights_of_another_kind_are_another_model():
    frequency = gn.glmm("y ~ x + (1 | g)", data=DATA, weights="w").fit(seed=1)
    precision = gn.glmm("y ~ x + (1 | g)", data=DATA, **PRECISION).fit(seed=1)
    assert precision.scale > 5 * frequency.scale
    assert precision.bse["x"] > 3 * frequency.bse["x"]


def test_bic_counts_what_the_weights_repeat():
    data = frame()
    weighted = gn.glmm("y ~ x", data=data, weights="w").fit(seed=1)
    repeated = gn.glmm("y ~ x", data=data.loc[data.index.repeat(data["w"])].reset_index(drop=True)).fit(seed=1)
    assert weighted.nobs == len(data) < repeated.nobs
    assert weighted.bic == pytest.approx(repeated.bic, abs=1e-6)
    precision = gn.glmm("y ~ x", data=DATA, **PRECISION).fit(seed=1)
    assert precision.bic == pytest.approx(-2 * precision.llf + 3 * np.log(len(DATA)))


def test_rows_of_weight_zero_have_no_part():
    out = DATA["x"] > 1
    zero = DATA.assign(w=DATA["w"].where(~out, 0.0))
    weighted = gn.glmm("y ~ x + (1 | g)", data=zero, **PRECISION).fit(seed=1)
    without = gn.glmm("y ~ x + (1 | g)", data=zero[~out], **PRECISION).fit(seed=1)
    assert weighted.llf == pytest.approx(without.llf, abs=1e-6)
    np.testing.assert_allclose(weighted.params, without.params, rtol=1e-6)
    np.testing.assert_allclose(weighted.vcomp[["sd", "se"]], without.vcomp[["sd", "se"]], rtol=1e-4)
    assert len(weighted.fittedvalues) == len(weighted.resid_response) == len(weighted.simulate(1)) == len(DATA)
    assert weighted.nobs == without.nobs == len(zero) - (zero["w"] == 0).sum()
    assert weighted.aic == pytest.approx(without.aic, abs=1e-6)
    assert weighted.bic == pytest.approx(without.bic, abs=1e-6)
    assert f"No. Observations:{without.nobs:>23}" in str(weighted.summary())


@pytest.mark.parametrize("family", ["binomial", "betabinomial"])
def test_rows_without_trials_have_no_part(family):
    rng = np.random.default_rng(20261129)
    data = pd.DataFrame({"x": rng.normal(size=200), "g": np.resize(np.arange(10), 200), "m": np.resize(range(5), 200)})
    data["k"] = rng.binomial(data["m"], 1 / (1 + np.exp(-data["x"] - 0.2 * data["g"] + 1)))
    told = data["m"] > 0
    whole, without = (gn.glmm("p(k, m) ~ x + (1 | g)", one, family).fit(seed=1, draws=50) for one in (data, data[told]))
    assert whole.nobs == without.nobs == told.sum()
    assert whole.llf == pytest.approx(without.llf, abs=1e-3)
    assert whole.bic == pytest.approx(without.bic, abs=2e-3)
    np.testing.assert_allclose(whole.params, without.params, atol=1e-3)
    for residuals in (whole.resid_response, whole.resid_pearson, whole.resid_deviance, whole.resid_quantile):
        np.testing.assert_array_equal(residuals.isna(), ~told)
    assert not whole.fittedvalues.isna().any()


def test_scoring_and_exact_likelihood_agree():
    joint = gn.glmm("y ~ x + (1 | g) + (1 | h)", data=DATA, **PRECISION)._joint
    torch.manual_seed(0)
    step = next(VarianceScoring(joint, None).run(starting_parameters(joint), 1, 1e-3))
    exact = GaussianLikelihood(joint)
    assert step.deviance == pytest.approx(exact.profile(exact.theta(step.params), step.params.phi).deviance, abs=1e-6)


def test_families_without_a_gaussian_posterior_take_them_too():
    exact = gn.glmm("y ~ x + (1 | g)", data=DATA, **PRECISION).fit(seed=1)
    found = gn.glmm("y ~ x + (1 | g)", data=DATA, family=_NotKnownToBeGaussian(), **PRECISION).fit(
        **{**QUICK, "burn_in": 3}
    )
    assert found.history["phase"].iloc[-1] == "newton"
    assert found.llf == pytest.approx(exact.llf, abs=1e-5)
    np.testing.assert_allclose(found.params, exact.params, atol=1e-3)
    np.testing.assert_allclose(found.vcomp[["sd", "se"]], exact.vcomp[["sd", "se"]], rtol=5e-3)


def test_dispersion_is_searched_from_anywhere():
    joint = gn.glmm("y ~ x + (1 | g)", data=DATA, **PRECISION)._joint
    eta = torch.tensor(0.5 + DATA["x"].to_numpy())[:, None, None]
    best = float((joint.row_weights[:, None, None] * (joint.target.y - eta).square()).mean())
    for start in (1e-6, 1.0, 1e8):
        assert joint.dispersion(eta, start) == pytest.approx(best, rel=1e-6)


def test_networks_take_them():
    constant = DATA.assign(w=4.0)
    plain, weighted = (
        gn.glmm("y ~ nn(x + z) + (1 | g)", data=constant, nn={"layers": [8]}, **options).fit(seed=1, epochs=20)
        for options in ({}, PRECISION)
    )
    assert weighted.scale == pytest.approx(4 * plain.scale, rel=0.05)
    np.testing.assert_allclose(weighted.fittedvalues, plain.fittedvalues, atol=0.3)
    assert weighted.to_arviz() is not None


@pytest.mark.parametrize(
    ("family", "response", "message"),
    [("bernoulli", "b", "'bernoulli'.*p\\(successes"), ("binomial", "p(k, m)", "p\\(")],
)
def test_refused_for_families_without_a_dispersion(family, response, message):
    with pytest.raises(DesignError, match=message):
        gn.glmm(f"{response} ~ x + (1 | g)", data=DATA, family=family, **PRECISION)


def test_refused_words():
    with pytest.raises(ValueError, match=r"weight_kind='variance'.*'frequency' or 'precision'"):
        gn.glmm("y ~ x", data=DATA, weights="w", weight_kind="variance")
    with pytest.raises(ValueError, match="no weights are given"):
        gn.glmm("y ~ x", data=DATA, weight_kind="precision")


def test_a_gamma_row_of_weight_w_is_a_mean_of_w():
    """Its dispersion is that of the single values, found by the search that needs no closed form."""
    rng = np.random.default_rng(7)
    n, weight = 2000, rng.integers(1, 30, 2000)
    x = rng.normal(size=n)
    # The mean of w gamma values of shape a is gamma of shape a w.
    y = rng.gamma(2.5 * weight, np.exp(0.4 * x) / (2.5 * weight))
    data = pd.DataFrame({"y": y, "x": x, "w": weight, "g": rng.integers(0, 20, n).astype(str)})
    r = gn.glmm("y ~ x + (1 | g)", data=data, family="gamma", **PRECISION).fit(seed=1)
    assert r.scale == pytest.approx(1 / 2.5, abs=3 * r.dispersion["se"])
    assert r.dispersion["se"] == pytest.approx(np.sqrt(2 / n) / 2.5, rel=0.2)
    assert r.params["x"] == pytest.approx(0.4, abs=3 * r.bse["x"])
