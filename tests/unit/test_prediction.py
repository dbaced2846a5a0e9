"""Predictions against brute force: three levels, unseen groups, missing values, classes."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.stats
import torch
from _fits import QUICK, SEED, bernoulli, binomial, categorical, frame, gaussian, network

import glmmnet as gn
from glmmnet import prediction
from glmmnet.errors import DesignError, FitError


def expit(eta):
    return 1 / (1 + np.exp(-eta))


def test_gaussian_conditional_adds_the_posterior_means():
    r, data = gaussian(), frame()
    b = r.random_effects["g"].loc[data["g"]].to_numpy()
    expected = r.params["Intercept"] + r.params["x"] * data["x"] + b[:, 0] + b[:, 1] * data["x"]
    expected += r.random_effects["h"].loc[data["h"]].to_numpy()[:, 0]
    np.testing.assert_allclose(r.predict(), expected, atol=1e-6)
    np.testing.assert_allclose(r.fittedvalues, expected, atol=1e-6)
    assert r.predict().name == "y"


def test_population_sets_b_to_zero():
    r = bernoulli()
    expected = expit(r.params["Intercept"] + r.params["x"] * frame()["x"])
    np.testing.assert_allclose(r.predict(level="population"), expected)
    np.testing.assert_allclose(r.predict(level="population", kind="link"), np.log(expected / (1 - expected)))


def test_marginal_integrates_b_over_its_prior():
    r, rows = bernoulli(), frame().head(4)
    sd = r.vcomp["sd"][0]
    for x, got in zip(rows["x"], r.predict(rows, level="marginal"), strict=True):
        eta = r.params["Intercept"] + r.params["x"] * x
        expected, _ = scipy.integrate.quad(lambda u, eta=eta: expit(eta + sd * u) * scipy.stats.norm.pdf(u), -9, 9)
        assert got == pytest.approx(expected, abs=1e-6)


def test_marginal_needs_no_grouping_columns():
    r = bernoulli("b ~ x + (1 + z | g) + (1 | h)")
    rows = frame().head(6)
    whole = r.predict(rows, level="marginal")
    np.testing.assert_array_equal(r.predict(rows[["x", "z"]], level="marginal"), whole)
    np.testing.assert_array_equal(r.predict(rows.assign(g=None), level="marginal"), whole)
    for options in ({}, {"level": "marginal", "new_levels": "error"}):
        with pytest.raises(DesignError, match="no column `g`, `h`"):
            r.predict(rows[["x", "z"]], **options)


def test_marginal_of_a_gaussian_is_the_population_mean():
    r = gaussian()
    np.testing.assert_allclose(r.predict(level="marginal"), r.predict(level="population"))


def test_marginal_of_classes_is_a_mean_over_the_prior():
    r, rows = categorical(), frame().head(3)
    rng = np.random.default_rng(SEED)
    eta = r.predict(rows, level="population", kind="link").to_numpy()[:, :, None]
    scores = np.exp(eta + r.vcomp["sd"].to_numpy()[:, None] * rng.normal(size=(3, 400_000)))
    expected = (scores / scores.sum(axis=1, keepdims=True)).mean(axis=2)
    got = r.predict(rows, level="marginal")
    # The error of the 400,000 draws, and as much of evenly spread points.
    np.testing.assert_allclose(got, expected, atol=8 * 0.2 / np.sqrt(400_000))
    np.testing.assert_allclose(got.sum(axis=1), 1)
    assert got.columns.tolist() == ["aa", "bb", "cc"]


def test_conditional_averages_the_mean_over_the_draws():
    r, rows = bernoulli(), frame().head(5)
    draws = r.fitted.draws.b[:, 0].double().numpy()
    levels = r.random_effects["g"].index.get_indexer(rows["g"])
    eta = (r.params["Intercept"] + r.params["x"] * rows["x"].to_numpy())[:, None] + draws[levels]
    np.testing.assert_allclose(r.predict(rows), expit(eta).mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(r.predict(rows, kind="link"), eta.mean(axis=1), atol=1e-6)


def test_blocks_of_rows_change_nothing(monkeypatch):
    r = bernoulli()
    whole = r.predict(), r.get_prediction().summary_frame()["mean_se"]
    monkeypatch.setattr(prediction, "_AT_ONCE", 2000)
    np.testing.assert_allclose(r.predict(), whole[0])
    np.testing.assert_allclose(r.get_prediction().summary_frame()["mean_se"], whole[1])


def unseen():
    return frame().head(3).assign(g=["g1", "new", "g2"], h=[0, 1, 99])


def test_unseen_levels_have_no_effect():
    r, rows = gaussian(), unseen()
    got = r.predict(rows)
    h = r.random_effects["h"].loc[1, "(Intercept)"]
    assert got[1] == pytest.approx(r.predict(rows, level="population")[1] + h, abs=1e-6)
    b = r.random_effects["g"].loc["g2"]
    population = r.predict(rows, level="population")[2]
    assert got[2] == pytest.approx(population + b["(Intercept)"] + b["x"] * rows["x"][2], abs=1e-6)


def test_unseen_levels_may_be_integrated_out():
    r = bernoulli()
    rows = frame().head(400).assign(g="new")
    np.testing.assert_allclose(r.predict(rows, new_levels="marginal"), r.predict(rows, level="marginal"), atol=1e-12)
    np.testing.assert_allclose(r.predict(rows), r.predict(rows, level="population"))


@cache
def two_counts():
    """Counts with large effects of g beside small ones of h, and with a zero part that g has effects on."""
    rng = np.random.default_rng(SEED)
    g, h = rng.integers(0, 40, 600), rng.integers(0, 10, 600)
    mean = np.exp(0.5 + (1.8 * rng.normal(size=40))[g] + (0.4 * rng.normal(size=10))[h])
    some = rng.random(600) < expit(0.5 + rng.normal(size=40)[g])
    data = pd.DataFrame({"y": rng.poisson(mean), "k": rng.poisson(2 * mean**0.4) * some, "g": g, "h": h})
    crossed = gn.glmm("y ~ 1 + (1 | g) + (1 | h)", data, "poisson").fit(**QUICK)
    zeros = gn.glmm("k ~ 1 + (1 | g)", data, "zeroinflatedpoisson", zi="~ 1 + (1 | g)").fit(**QUICK)
    return crossed, zeros, data


def test_an_unseen_level_beside_seen_ones_is_integrated_out():
    r, _, data = two_counts()
    rows = data.head(5).assign(g=99)
    got = r.predict(rows, new_levels="marginal")
    of_h = r.fitted.draws.b[40:, 0].double().numpy()[r.random_effects["h"].index.get_indexer(rows["h"])]
    expected = np.exp(r.params["Intercept"] + 0.5 * r.vcomp["variance"][0] + of_h).mean(axis=1)
    np.testing.assert_allclose(got, expected, rtol=1e-3)
    assert r.vcomp["sd"][0] > 1.5
    # Rows with seen levels only are as they were, beside the others too.
    beside = pd.concat([rows, data.head(5)], ignore_index=True)
    np.testing.assert_allclose(r.predict(beside, new_levels="marginal")[5:], r.predict(data.head(5)), rtol=1e-12)


def test_classes_with_an_unseen_level_beside_seen_ones():
    family = gn.families.Categorical(reference=None)
    r = gn.glmm("c ~ x + (1 | g) + (1 | h)", data=frame(), family=family).fit(**QUICK)
    rows = frame().head(3).assign(g="new")
    fixed = r.predict(rows, level="population", kind="link").to_numpy()
    of_h = r.fitted.draws.b[12:].double().numpy()[r.random_effects["h"].index.get_indexer(rows["h"])]
    normal = np.random.default_rng(SEED).normal(size=(3, 400, of_h.shape[2]))
    sd = r.vcomp["sd"].to_numpy()[:3, None, None]
    scores = np.exp(fixed[:, :, None, None] + of_h[:, :, None] + sd * normal)
    expected = (scores / scores.sum(axis=1, keepdims=True)).mean(axis=(2, 3))
    np.testing.assert_allclose(r.predict(rows), expected, atol=0.004)


def test_marginal_of_counts_and_zeros_together():
    _, r, data = two_counts()
    sd, (count, zero) = r.vcomp["sd"], r.params
    none, _ = scipy.integrate.quad(lambda u: expit(zero + sd[1] * u) * scipy.stats.norm.pdf(u), -9, 9)
    expected = (1 - none) * np.exp(count + 0.5 * sd[0] ** 2)
    assert r.predict(data.head(1), level="marginal")[0] == pytest.approx(expected, rel=1e-6)
    assert r.predict(data.head(1).assign(g=99), new_levels="marginal")[0] == pytest.approx(expected, rel=1e-6)


def test_unseen_levels_of_classes_are_integrated_out():
    r = categorical()
    rows = frame().head(400).assign(g="new")
    got, marginal = r.predict(rows), r.predict(rows, level="marginal")
    np.testing.assert_allclose(got, marginal, atol=1e-12)
    population = r.predict(rows, level="population")
    np.testing.assert_allclose(r.predict(rows, new_levels="population"), population)
    assert np.abs(population - marginal).to_numpy().max() > 0.001
    # Rows alike but for their unseen level get the same probabilities.
    alike = pd.concat([rows.head(1)] * 2).assign(g=["new", "newer"])
    np.testing.assert_array_equal(r.predict(alike).iloc[0], r.predict(alike).iloc[1])


def test_unseen_levels_may_be_refused():
    with pytest.raises(DesignError, match="1 rows have a level of `g`"):
        gaussian().predict(unseen(), new_levels="error")


def test_rows_with_missing_values_get_nan():
    r = gaussian()
    rows = frame().head(4).copy()
    rows.loc[0, "x"] = np.nan
    rows.loc[1, "g"] = None
    assert r.predict(rows).isna().tolist() == [True, True, False, False]
    assert r.predict(rows, level="population").isna().tolist() == [True, False, False, False]
    np.testing.assert_allclose(r.predict(rows)[2:], r.predict(frame())[2:4])


def test_missing_values_in_inputs_of_a_network_and_of_slopes():
    rows = frame().head(3).copy()
    rows.loc[1, "z"] = np.nan
    assert network().predict(rows).isna().tolist() == [False, True, False]
    assert gaussian("y ~ x + (0 + z | g)").predict(rows).isna().tolist() == [False, True, False]
    got = categorical().predict(rows.assign(x=[0.0, np.nan, 1.0]))
    assert got.isna().all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("level", ["conditional", "population", "marginal"])
def test_empty_single_and_repeated_rows(level):
    r, data = gaussian(), frame()
    assert r.predict(data.head(0), level=level).shape == (0,)
    assert r.get_prediction(data.head(0), level=level).summary_frame().shape == (0, 6)
    whole = r.predict(data, level=level)
    assert r.predict(data.iloc[[7]], level=level)[7] == pytest.approx(whole[7])
    twice = pd.concat([data.head(2), data.head(2)])
    assert r.predict(twice, level=level).index.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(r.predict(twice, level=level), [*whole[:2], *whole[:2]])


@pytest.mark.parametrize("level", ["conditional", "population", "marginal"])
def test_no_complete_row_of_classes_is_predicted(level):
    r, data = categorical(), frame()
    assert r.predict(data.head(0), level=level).shape == (0, 3)
    assert r.get_prediction(data.head(0), level=level).summary_frame().shape == (0, 4)
    missing = data.head(2).assign(x=np.nan)
    assert r.predict(missing, level=level).isna().to_numpy().tolist() == [[True] * 3] * 2
    assert r.get_prediction(missing, level=level).summary_frame().isna().to_numpy().all()


def test_levels_of_another_type_are_converted_or_refused():
    r, rows = gaussian(), frame().head(3)
    plain = r.predict(rows)
    np.testing.assert_allclose(r.predict(rows.assign(h=rows["h"].astype(float))), plain)
    np.testing.assert_allclose(r.predict(rows.assign(g=rows["g"].astype("category"))), plain)
    with pytest.raises(DesignError, match="`h` was numeric in training and is text"):
        r.predict(rows.assign(h=rows["h"].astype(str)))


def test_columns_that_are_not_needed_may_be_missing():
    r, rows = gaussian(), frame().head(3)
    np.testing.assert_allclose(r.predict(rows[["x"]], level="population"), r.predict(rows, level="population"))
    with pytest.raises(DesignError, match="no column `g`"):
        r.predict(rows[["x", "h"]])


def test_training_rows_that_were_dropped_are_not_predicted():
    data = frame().assign(x=frame()["x"].where(frame()["x"] < 1.5))
    with pytest.warns(gn.errors.DataWarning, match="rows have a missing value"):
        r = gn.glmm("y ~ x + (1 | g)", data=data).fit(seed=1)
    kept = data["x"].notna()
    assert r.predict().index.tolist() == data.index[kept].tolist()
    assert r.n_dropped == (~kept).sum() and r.nobs == kept.sum()
    assert r.predict(data).isna().tolist() == (~kept).tolist()


def test_an_offset_counts_in_new_rows():
    r = gn.glmm("y ~ offset(x) + (1 | g)", data=frame()).fit(seed=1)
    moved = gn.glmm("d ~ 1 + (1 | g)", data=frame().assign(d=frame()["y"] - frame()["x"])).fit(seed=1)
    np.testing.assert_allclose(r.params, moved.params, rtol=1e-6)
    assert r.scale == pytest.approx(moved.scale)
    rows = frame().head(5)
    np.testing.assert_allclose(r.predict(rows), moved.predict(rows) + rows["x"], atol=1e-6)
    np.testing.assert_allclose(r.predict(rows.assign(x=rows["x"] + 2)), r.predict(rows) + 2)


@pytest.mark.parametrize("coded", [lambda b: b, lambda b: b.astype(bool), lambda b: b.map({0: "no", 1: "yes"})])
def test_classes_of_a_binary_response_are_the_datas_own(coded):
    data = frame().assign(b=coded(frame()["b"]))
    r = gn.glmm("b ~ x", data=data, family="bernoulli").fit(seed=1)
    classes = r.predict(kind="class")
    assert set(classes) == set(data["b"])
    higher = coded(pd.Series([1]))[0]
    np.testing.assert_array_equal(classes == higher, r.predict() > 0.5)
    np.testing.assert_allclose(r.params, bernoulli("b ~ x").params)


def ordered(values, levels):
    return pd.Series(pd.Categorical(values, categories=levels, ordered=True))


@pytest.mark.parametrize(
    "family, response, kinds",
    [
        ("bernoulli", frame()["b"], "iu"),
        ("bernoulli", frame()["b"].astype(bool), "b"),
        ("bernoulli", frame()["b"].map({0: "no", 1: "yes"}), "O"),
        ("bernoulli", ordered(frame()["b"].map({0: "yes", 1: "no"}), ["yes", "no"]), "O"),
        ("binomial", frame()["b"].map({0: "no", 1: "yes"}), "O"),
        ("categorical", frame()["c"], "O"),
        ("categorical", frame()["h"] % 3, "iu"),
        ("cumulative", ordered(frame()["c"], ["cc", "aa", "bb"]), "O"),
    ],
)
def test_simulated_classes_are_the_datas_own_and_can_be_fitted(family, response, kinds):
    r = gn.glmm("r ~ x", data=frame().assign(r=response), family=family).fit(seed=1)
    simulated = r.simulate(2, seed=4)
    assert (simulated.index == frame().index).all() and simulated.columns.tolist() == [0, 1]
    for _, draw in simulated.items():
        assert draw.to_numpy().dtype.kind in kinds
        assert set(draw) == set(response)
        again = gn.glmm("r ~ x", data=frame().assign(r=draw), family=family).fit(seed=1)
        assert again.fitted.joint.target.labels == r.fitted.joint.target.labels
        # The difference of two fits has a standard error of 1.4 of one's.
        pd.testing.assert_index_equal(again.params.index, r.params.index)
        assert (np.abs((again.params - r.params) / r.bse) < 4 * 1.42).all(axis=None)
    pd.testing.assert_frame_equal(simulated, r.simulate(2, seed=4))


def test_classes_of_a_categorical_response():
    for r in (categorical(), categorical("bb")):
        np.testing.assert_array_equal(r.predict(kind="class"), r.predict().idxmax(axis=1))
        link = r.predict(kind="link", level="population")
        scores = np.exp(link.assign(bb=link.get("bb", 0.0))[["aa", "bb", "cc"]])
        expected = scores.div(scores.sum(axis=1), axis=0)
        np.testing.assert_allclose(r.predict(level="population")[["aa", "bb", "cc"]], expected)


def test_counts_are_predicted_as_proportions():
    r = binomial()
    assert r.predict().between(0, 1).all()
    assert np.corrcoef(r.predict(), frame()["k"] / frame()["m"])[0, 1] > 0.5
    simulated = r.simulate(3)
    assert (simulated.le(frame()["m"], axis=0)).all(axis=None) and simulated.max(axis=None) > 1


def test_new_rows_reproduce_the_training_rows():
    for r in (gaussian(), bernoulli(), binomial(), categorical(), network(), network("y ~ x + nn(x + z) + (1 | g)")):
        for kind in ("mean", "link"):
            np.testing.assert_allclose(r.predict(frame(), kind=kind), r.predict(kind=kind), atol=1e-5)


def test_wrong_requests_are_refused():
    r = gaussian()
    for wrong in ({"level": "group"}, {"kind": "prob"}, {"new_levels": "zero"}):
        with pytest.raises(ValueError, match="write one of"):
            r.predict(**wrong)
    with pytest.raises(ValueError, match="has none"):
        r.predict(kind="class")
    with pytest.raises(DesignError, match="DataFrame"):
        r.predict([1, 2])
    with pytest.raises(DesignError, match="`x` was numeric"):
        r.predict(frame().assign(x="a"))


def test_simulate_has_the_models_variance():
    r = gaussian()
    draws = r.simulate(400, seed=3).to_numpy()
    assert draws.shape == (300, 400)
    x = frame()["x"].to_numpy()
    z = np.column_stack([np.ones(300), x])
    variance = np.einsum("ni,ij,nj->n", z, r.cov_re["g"].to_numpy(), z) + r.cov_re["h"].iloc[0, 0] + r.scale
    assert np.abs(draws.var(axis=1) / variance - 1).max() < 5 * np.sqrt(2 / 400)
    inner = r.simulate(400, seed=3, level="conditional").to_numpy()
    assert inner.var(axis=1).mean() < 0.8 * variance.mean()
    np.testing.assert_allclose(inner.mean(axis=1), r.fittedvalues, atol=6 * np.sqrt(variance.max() / 400))


def test_simulate_is_seeded_and_leaves_the_global_generator_alone():
    r = bernoulli()
    state = torch.get_rng_state()
    pd.testing.assert_frame_equal(r.simulate(2, seed=5), r.simulate(2, seed=5))
    assert not r.simulate(2, seed=5).equals(r.simulate(2, seed=6))
    assert torch.equal(state, torch.get_rng_state())
    assert set(np.unique(categorical().simulate(1))) == {"aa", "bb", "cc"}
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="replicates"):
            r.simulate(wrong)
    with pytest.raises(ValueError, match="level="):
        r.simulate(level="group")
    for wrong, error in (("a", TypeError), (True, TypeError), (1.5, TypeError), (-1, FitError), (2**62, FitError)):
        with pytest.raises(error, match=f"seed={wrong!r} must be"):
            r.simulate(seed=wrong)
    pd.testing.assert_frame_equal(r.simulate(seed=np.int64(5)), r.simulate(seed=5))


def test_simulate_from_a_singular_covariance():
    # A correlation of +-1 has no Cholesky factor.
    data = frame()
    effect = data["g"].map({f"g{i}": (i - 6) / 4 for i in range(12)})
    y = effect * (1 + data["x"]) + np.random.default_rng(1).normal(size=300)
    r = gn.glmm("y ~ x + (x | g)", data=data.assign(y=y)).fit(seed=1, **{k: QUICK[k] for k in ("draws", "chains")})
    assert r.singular
    assert np.isfinite(r.simulate(2).to_numpy()).all()
