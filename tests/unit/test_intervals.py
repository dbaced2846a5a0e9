"""Intervals of predictions against Henderson's equations, quadrature and simulation."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from _fits import bernoulli, binomial, categorical, dense, frame, gaussian, mixed_model_equations, network

import glmmnet as gn

COLUMNS = ["mean", "mean_se", "mean_ci_lower", "mean_ci_upper", "obs_ci_lower", "obs_ci_upper"]


@pytest.fixture(scope="module")
def many_draws():
    return gaussian(draws=2000)


def test_conditional_errors_are_hendersons(many_draws):
    r = many_draws
    _, inverse = mixed_model_equations(r)
    columns = np.column_stack(dense(r)[:2])
    expected = np.sqrt(np.einsum("ni,ij,nj->n", columns, inverse, columns))
    table = r.get_prediction().summary_frame()
    assert table.columns.tolist() == COLUMNS
    np.testing.assert_allclose(table["mean_se"], expected, rtol=0.06)
    half = scipy.stats.norm.ppf(0.975) * expected
    np.testing.assert_allclose(table["mean_ci_upper"] - table["mean_ci_lower"], 2 * half, rtol=0.15)
    np.testing.assert_allclose(table["mean"], r.predict())


def test_errors_for_an_unseen_group_do_not_follow_b(many_draws):
    r = many_draws
    rows = frame().head(3).assign(g="new", h=-1)
    x = np.column_stack([np.ones(3), rows["x"]])
    expected = np.sqrt(np.einsum("ni,ij,nj->n", x, r.cov_params().to_numpy(), x))
    np.testing.assert_allclose(r.get_prediction(rows).summary_frame()["mean_se"], expected, rtol=0.05)
    population = r.get_prediction(rows, level="population").summary_frame()
    np.testing.assert_allclose(population["mean_se"], expected, rtol=0.05)


def test_observation_intervals_add_the_residual_and_the_prior(many_draws):
    r, rows = many_draws, frame().head(3)
    z = np.column_stack([np.ones(3), rows["x"]])
    spread = np.einsum("ni,ij,nj->n", z, r.cov_re["g"].to_numpy(), z) + r.cov_re["h"].iloc[0, 0]
    for level, extra in (("conditional", 0), ("population", 0), ("marginal", spread)):
        table = r.get_prediction(rows, level=level).summary_frame()
        width = 2 * 1.959964 * np.sqrt(table["mean_se"] ** 2 + r.scale + extra)
        np.testing.assert_allclose(table["obs_ci_upper"] - table["obs_ci_lower"], width, rtol=0.06)


def test_unseen_levels_integrated_out_widen_the_interval(many_draws):
    rows = frame().head(3).assign(g="new")
    narrow = many_draws.get_prediction(rows).summary_frame()["mean_se"]
    wide = many_draws.get_prediction(rows, new_levels="marginal").summary_frame()["mean_se"]
    assert (wide**2 > narrow**2 + 0.5 * many_draws.cov_re["g"].iloc[0, 0]).all()


def test_coverage_of_conditional_means():
    covered, widths = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        g, x = np.repeat(np.arange(40), 5), rng.normal(size=200)
        truth = 1 + x + rng.normal(size=40)[g]
        data = pd.DataFrame({"y": truth + rng.normal(size=200), "x": x, "g": g})
        r = gn.glmm("y ~ x + (1 | g)", data=data).fit(seed=seed, draws=100)
        table = r.get_prediction().summary_frame()
        covered.append(((table["mean_ci_lower"] < truth) & (truth < table["mean_ci_upper"])).mean())
        widths.append((table["mean_ci_upper"] - table["mean_ci_lower"]).mean())
    # 8 x 40 nearly independent groups: one standard error is sqrt(0.05 * 0.95 / 320) = 0.012.
    assert abs(np.mean(covered) - 0.95) < 0.04
    # A posterior sd near sqrt(1 / (5 + 1)) = 0.41.
    assert 1.5 < np.mean(widths) < 1.8


def test_population_probabilities_follow_the_error_of_eta():
    r, rows = bernoulli(), frame().head(20)
    x = np.column_stack([np.ones(20), rows["x"]])
    eta, se = x @ r.params.to_numpy(), np.sqrt(np.einsum("ni,ij,nj->n", x, r.cov_params().to_numpy(), x))
    table = r.get_prediction(rows, level="population").summary_frame()
    ends = 1 / (1 + np.exp(-(eta + np.array([[-1.96], [1.96]]) * se)))
    np.testing.assert_allclose(table[["mean_ci_lower", "mean_ci_upper"]].T, ends, atol=0.03)


def test_a_new_observation_has_the_trials_of_its_row():
    rng = np.random.default_rng(1)
    trials, g = np.resize([4, 40, 400], 300), np.repeat(np.arange(30), 10)
    p = 1 / (1 + np.exp(-rng.normal(size=30)[g]))
    data = pd.DataFrame({"k": rng.binomial(trials, p), "m": trials, "g": g})
    data["rest"] = data["m"] - data["k"]
    r = gn.glmm("p(k, m) ~ 1 + (1 | g)", data, "binomial").fit(seed=1)
    table = r.get_prediction().summary_frame()
    inside = (table["obs_ci_lower"] <= data["k"] / data["m"]) & (data["k"] / data["m"] <= table["obs_ci_upper"])
    assert inside.mean() > 0.9
    width = (table["obs_ci_upper"] - table["obs_ci_lower"]).groupby(data["m"]).mean()
    assert width[4] > 0.5 and 0.2 < width[40] < 0.35 and width[400] < 0.16
    # As of new rows; k is not needed, but where it is counted with the failures.
    pd.testing.assert_frame_equal(r.get_prediction(data.drop(columns="k")).summary_frame(), table)
    failures = gn.glmm("cbind(k, rest) ~ 1 + (1 | g)", data, "betabinomial").fit(seed=1, draws=50)
    assert failures.get_prediction(data.iloc[[2]]).summary_frame()["obs_ci_upper"][2] < 1
    missing = data.head(3).assign(m=[np.nan, 40, 400])
    ends = r.get_prediction(missing).summary_frame()[["obs_ci_lower", "obs_ci_upper"]]
    assert ends.loc[0].tolist() == [0, 1]
    np.testing.assert_allclose(ends[1:], table.loc[1:2, ends.columns], atol=0.03)
    ends = r.get_prediction(data[["g"]].head(3)).summary_frame()[["obs_ci_lower", "obs_ci_upper"]]
    assert ends["obs_ci_upper"].tolist() == [1, 1, 1]
    with pytest.raises(gn.errors.DesignError, match="whole numbers"):
        r.get_prediction(data.head(3).assign(m=0.5))


def test_smaller_alpha_widens():
    prediction = gaussian().get_prediction(frame().head(3))
    narrow, wide = prediction.summary_frame(0.5), prediction.summary_frame(0.01)
    assert (wide["mean_ci_lower"] < narrow["mean_ci_lower"]).all()
    assert (wide["obs_ci_upper"] > narrow["obs_ci_upper"]).all()
    for alpha in (0, 1, -1, 5):
        with pytest.raises(ValueError, match="alpha"):
            prediction.summary_frame(alpha)


def test_missing_rows_are_nan_on_the_datas_index():
    rows = frame().head(4).copy()
    rows.index = list("dcba")
    rows.loc["c", "x"] = np.nan
    table = gaussian().get_prediction(rows).summary_frame()
    assert table.index.tolist() == list("dcba")
    assert table.isna().all(axis=1).tolist() == [False, True, False, False]
    classes = categorical().get_prediction(rows).summary_frame()
    assert classes.index[:3].tolist() == [("d", "aa"), ("d", "bb"), ("d", "cc")]
    assert classes.isna().all(axis=1).sum() == 3
    assert classes.columns.tolist() == COLUMNS[:4]


@pytest.mark.parametrize("level", ["conditional", "population", "marginal"])
def test_intervals_hold_their_mean(level):
    for fit in (gaussian, bernoulli, binomial, categorical, network):
        r = fit()
        table = r.get_prediction(frame().head(30), level=level).summary_frame()
        assert np.isfinite(table.to_numpy()).all()
        assert (table["mean_se"] > 0).all()
        inside = (table["mean_ci_lower"] <= table["mean"]) & (table["mean"] <= table["mean_ci_upper"])
        assert inside.all()
        np.testing.assert_allclose(table["mean"], np.ravel(r.predict(frame().head(30), level=level)))


def test_a_model_without_random_or_linear_part():
    plain = gaussian("y ~ x").get_prediction(frame().head(5)).summary_frame()
    x = np.column_stack([np.ones(5), frame()["x"].head(5)])
    expected = np.sqrt(np.einsum("ni,ij,nj->n", x, gaussian("y ~ x").cov_params().to_numpy(), x))
    np.testing.assert_allclose(plain["mean_se"], expected, rtol=0.1)
    empty = gaussian("y ~ 0 + (1 | g)").get_prediction(frame().head(5)).summary_frame()
    assert (empty["mean_se"] > 0).all()


def test_the_same_numbers_each_time():
    first, second = (bernoulli().get_prediction(frame().head(5)).summary_frame() for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_many_rows_keep_fewer_draws(monkeypatch):
    rows = frame().head(20)
    full = bernoulli("b ~ x + (1 | g)").get_prediction(rows, new_levels="marginal")
    r = gaussian(draws=2000)
    whole = r.get_prediction(rows)
    assert full.mean_draws.shape == (20, 1, 200) and whole.mean_draws.shape == (20, 1, 8000)
    monkeypatch.setattr("glmmnet.intervals._KEPT", 20 * 2500)
    fewer = r.get_prediction(rows)
    assert fewer.mean_draws.shape == (20, 1, 2500) and fewer.new_draws.shape == (20, 2500)
    pd.testing.assert_series_equal(fewer.predicted_mean, whole.predicted_mean)
    table, expected = fewer.summary_frame(), whole.summary_frame()
    np.testing.assert_allclose(table["mean_se"], expected["mean_se"], rtol=0.08)
    np.testing.assert_allclose(table["obs_ci_upper"], expected["obs_ci_upper"], atol=0.25)
    monkeypatch.setattr("glmmnet.intervals._KEPT", 1)
    assert r.get_prediction(rows).mean_draws.shape == (20, 1, 200)


def test_blocks_of_rows_change_no_quantile(monkeypatch):
    prediction = gaussian().get_prediction(frame().head(30))
    whole = prediction.summary_frame()
    monkeypatch.setattr("glmmnet.prediction._AT_ONCE", 4 * 1000 * 7)
    pd.testing.assert_frame_equal(prediction.summary_frame(), whole)
