"""R2 and intraclass correlations."""

import numpy as np
import pandas as pd
import pytest
from _fits import QUICK, SEED, bernoulli, binomial, categorical, frame, gaussian, network

import glmmnet as gn
from benchmarks._references import load
from glmmnet.errors import FitError


def test_sleepstudy_has_the_published_values():
    data = load("lme4", "sleepstudy")
    r = gn.glmm("Reaction ~ Days + (Days | Subject)", data).fit(seed=1, reml=True)
    # R: performance::r2_nakagawa and icc of lmer(Reaction ~ Days + (Days | Subject), sleepstudy), in its own tests
    np.testing.assert_allclose(r.r2(), [0.279, 0.799], atol=5e-4)
    assert r.icc().loc["Total", "adjusted"] == pytest.approx(0.72166, abs=2e-5)
    assert r.icc().loc["Total", "unadjusted"] == pytest.approx(0.521, abs=5e-4)


def test_parts_of_a_gaussian_model():
    r, x = gaussian(), frame()["x"].to_numpy()
    z = np.column_stack([np.ones(300), x])
    of_g = np.einsum("ni,ij,nj->n", z, r.cov_re["g"].to_numpy(), z).mean()
    of_h, fixed = r.cov_re["h"].iloc[0, 0], r.params["x"] ** 2 * x.var(ddof=1)
    whole = fixed + of_g + of_h + r.scale
    np.testing.assert_allclose(r.r2(), [fixed / whole, (whole - r.scale) / whole])
    expected = pd.DataFrame({"unadjusted": np.array([of_g, of_h, of_g + of_h]) / whole})
    expected["adjusted"] = expected["unadjusted"] * whole / (whole - fixed)
    np.testing.assert_allclose(r.icc(), expected[["adjusted", "unadjusted"]])
    assert r.icc().index.tolist() == ["g", "h", "Total"]


@pytest.mark.parametrize("fit", [bernoulli, binomial])
def test_latent_variance_of_odds(fit):
    r = fit()
    sigma2, fixed = r.vcomp["variance"][0], r.params["x"] ** 2 * frame()["x"].var()
    assert r.icc().loc["g", "adjusted"] == pytest.approx(sigma2 / (sigma2 + np.pi**2 / 3))
    assert r.r2()["marginal"] == pytest.approx(fixed / (fixed + sigma2 + np.pi**2 / 3))


def test_counts_and_effects_of_single_rows():
    rng = np.random.default_rng(SEED)
    data = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "row": np.arange(200)})
    data["y"] = rng.poisson(np.exp(1 + 0.5 * rng.normal(size=20)[data["g"]] + 0.4 * rng.normal(size=200)))
    r = gn.glmm("y ~ 1 + (1 | g) + (1 | row)", data, "poisson").fit(**QUICK)
    of_g, of_row = r.vcomp["variance"]
    residual = of_row + np.log1p(1 / data["y"].mean())
    assert r.icc().index.tolist() == ["g", "Total"]
    assert r.icc()["adjusted"].tolist() == pytest.approx([of_g / (of_g + residual)] * 2)


def test_a_network_counts_as_fixed():
    r = network()
    f = r.predict(level="population", kind="link")
    parts = f.var() + r.vcomp["variance"].sum()
    assert r.r2()["marginal"] == pytest.approx(f.var() / parts, rel=1e-6)


def test_weights_are_rows_and_offsets_are_not_explained():
    data = frame().assign(o=5 * frame()["z"])
    weighted = gn.glmm("y ~ x + offset(o)", data, weights="w").fit(seed=1)
    repeated = gn.glmm("y ~ x + offset(o)", data.loc[data.index.repeat(data["w"])]).fit(seed=1)
    np.testing.assert_allclose(weighted.r2(), repeated.r2(), rtol=1e-6)
    assert weighted.r2()["marginal"] < 0.1


def test_families_without_an_observation_variance_say_so():
    for ask in (categorical().r2, categorical().icc):
        with pytest.raises(FitError, match="'categorical' has no observation-level variance"):
            ask()
