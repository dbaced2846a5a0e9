"""Tables of estimates against dense linear algebra and their own definitions."""

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from _fits import categorical, frame, gaussian, mixed_model_equations

import glmmnet as gn

DRAWS = 1000


def test_posterior_means_are_the_blups():
    r = gaussian()
    solution, inverse = mixed_model_equations(r)
    b = np.concatenate([r.random_effects["g"].to_numpy().T.ravel(), r.random_effects["h"].to_numpy().ravel()])
    sd = np.sqrt(np.diag(np.linalg.inv(np.linalg.inv(inverse)[2:, 2:])))
    assert np.all(np.abs(b - solution[2:]) < 5 * sd / np.sqrt(DRAWS))


def test_posterior_sds_are_those_of_the_gaussian_posterior():
    r = gaussian()
    _, inverse = mixed_model_equations(r)
    # Given beta, as lme4's condVar: the block of Henderson's matrix itself is inverted.
    sd = np.sqrt(np.diag(np.linalg.inv(np.linalg.inv(inverse)[2:, 2:])))
    got = np.concatenate([r.random_effects_sd["g"].to_numpy().T.ravel(), r.random_effects_sd["h"].to_numpy().ravel()])
    assert np.all(np.abs(got / sd - 1) < 5 / np.sqrt(2 * DRAWS))


def test_vcomp_is_consistent_with_cov_re_scale_and_its_interval():
    r = gaussian()
    v = r.vcomp
    assert v.columns.tolist() == [
        "group", "term", "class", "variance", "sd", "se", "ci_low", "ci_high", "n_levels",
    ]  # fmt: skip
    assert v["group"].tolist() == ["g", "g", "h", "Residual"]
    assert v["term"].tolist() == ["(Intercept)", "x", "(Intercept)", ""]
    assert v["n_levels"].tolist()[:3] == [12, 12, 8] and v["n_levels"].isna()[3]
    expected = [*np.diag(r.cov_re["g"]), r.cov_re["h"].iloc[0, 0], r.scale]
    np.testing.assert_allclose(v["variance"], expected)
    np.testing.assert_allclose(v["sd"] ** 2, v["variance"])
    np.testing.assert_allclose(v["ci_low"] * v["ci_high"], v["sd"] ** 2)
    np.testing.assert_allclose(np.log(v["ci_high"] / v["sd"]), 1.959964 * v["se"] / v["sd"], rtol=1e-6)


def test_params_are_indexed_by_design_column():
    r = gaussian("y ~ c + x + (1 | g)")
    assert r.params.index.tolist() == ["Intercept", "c[T.bb]", "c[T.cc]", "x"]
    assert r.bse.index.equals(r.params.index)
    np.testing.assert_allclose(r.tvalues, r.params / r.bse)


def test_levels_keep_their_type():
    r = gaussian()
    assert r.random_effects["h"].index.tolist() == list(range(8))
    assert r.random_effects["h"].index.name == "h"
    assert r.random_effects["g"].columns.tolist() == ["(Intercept)", "x"]


def test_ranef_frame_has_lme4s_columns_and_values():
    r = gaussian()
    long = r.ranef(as_frame=True)
    assert long.columns.tolist() == ["grpvar", "term", "grp", "condval", "condsd"]
    assert len(long) == 12 * 2 + 8
    row = long[(long["grpvar"] == "g") & (long["term"] == "x") & (long["grp"] == "g10")].iloc[0]
    assert row["condval"] == r.random_effects["g"].loc["g10", "x"]
    assert row["condsd"] == r.random_effects_sd["g"].loc["g10", "x"]


def test_two_terms_of_one_group_are_joined():
    r = gaussian("y ~ x + (1 | g) + (0 + x | g)")
    one = gaussian("y ~ x + (x || g)")
    assert r.cov_re["g"].columns.tolist() == ["(Intercept)", "x"]
    assert r.cov_re["g"].iloc[0, 1] == 0
    np.testing.assert_allclose(r.cov_re["g"], one.cov_re["g"], rtol=1e-3)
    assert r.random_effects["g"].shape == (12, 2)


def test_nested_levels_are_pairs():
    r = gaussian("y ~ x + (1 | g/h)")
    assert set(r.random_effects) == {"g", "g:h"}
    pairs = (frame()["g"] + ":" + frame()["h"].astype(str)).unique()
    assert set(r.random_effects["g:h"].index) == set(pairs)


def profile_ends(y, g):
    """Ends of the 95 % profile-likelihood interval of the standard deviation of g, V inverted group by group."""
    _, g, n = np.unique(g, return_inverse=True, return_counts=True)
    sums = np.bincount(g, weights=y)

    def deviance(sd):
        def at(log_residual):
            residual = np.exp(2 * log_residual)
            # V^-1 = (I - share 1 1') / residual in each group.
            share = sd**2 / (residual + n * sd**2)
            ones, cross, own = n - share * n**2, sums - share * n * sums, y @ y - share @ sums**2
            rest = (own - cross.sum() ** 2 / ones.sum()) / residual
            return len(y) * np.log(residual) + np.log1p(n * sd**2 / residual).sum() + rest

        return scipy.optimize.minimize_scalar(at, bounds=(-0.3, 0.3), method="bounded").fun

    best = scipy.optimize.minimize_scalar(deviance, bounds=(0, 0.4), method="bounded", options={"xatol": 1e-3})

    def above(sd):
        return deviance(sd) - best.fun - 3.841459

    low = 0.0 if above(0.0) < 0 else scipy.optimize.brentq(above, 0.0, best.x, xtol=1e-3)
    return low, scipy.optimize.brentq(above, best.x, 2.0, xtol=1e-3)


def test_intervals_of_small_variances_are_those_of_the_profile_likelihood():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": 1 + rng.normal(size=400), "g": np.random.default_rng(6).integers(0, 40, 400)})
    row = gn.glmm("y ~ 1 + (1 | g)", data=data).fit(seed=1, draws=4).vcomp.iloc[0]
    assert row["se"] > 0.5 * row["sd"] > 0
    low, high = profile_ends(data["y"].to_numpy(), data["g"].to_numpy())
    # On the log scale they are .009 and 1.07.
    assert row["ci_low"] == low == 0
    assert row["ci_high"] == pytest.approx(high, abs=0.015)


def test_no_random_effects_give_empty_tables():
    r = gaussian("y ~ x")
    assert r.random_effects == {} and r.cov_re == {}
    assert r.ranef(as_frame=True).empty
    assert r.vcomp["group"].tolist() == ["Residual"]


def test_categorical_tables_have_a_class_dimension():
    r = categorical()
    assert r.params.columns.tolist() == ["aa", "bb", "cc"]
    assert r.vcomp["class"].tolist() == ["aa", "bb", "cc"]
    assert r.random_effects["g"].columns.tolist() == [("(Intercept)", c) for c in ("aa", "bb", "cc")]
    assert r.ranef(as_frame=True).columns.tolist() == ["grpvar", "term", "class", "grp", "condval", "condsd"]
    assert r.cov_params().columns.tolist()[:3] == ["Intercept[aa]", "Intercept[bb]", "Intercept[cc]"]
    assert isinstance(r.conf_int().index, pd.MultiIndex)


def test_symmetric_classes_sum_to_zero():
    np.testing.assert_allclose(categorical().params.sum(axis=1), 0, atol=1e-6)


def test_a_reference_class_has_no_column():
    r = categorical("bb")
    assert r.params.columns.tolist() == ["aa", "cc"]
    assert r.df_linear == 4 and r.df_variance == 2


@pytest.mark.parametrize("formula", ["y ~ 0 + (1 | g)", "y ~ x + (c || g)", "y ~ x + (0 + x | g)"])
def test_every_table_is_finite(formula):
    r = gaussian(formula)
    assert np.isfinite(np.asarray(r.params)).all() and np.isfinite(np.asarray(r.bse)).all()
    assert (r.vcomp["variance"] >= 0).all()
    for table in (*r.random_effects.values(), *r.random_effects_sd.values()):
        assert np.isfinite(table.to_numpy()).all()
