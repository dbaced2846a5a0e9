"""What ArviZ gets: groups, names, dimensions, values, and ArviZ's own functions on them."""

import warnings

import numpy as np
import pytest
import scipy.stats
from _fits import bernoulli, binomial, categorical, dense, frame, gaussian

from glmmnet.inference_data import import_arviz


@pytest.fixture(scope="module")
def az():
    return import_arviz()


def test_names_and_dimensions_are_bambis():
    data = gaussian().to_arviz()
    assert list(data["posterior"].data_vars) == ["1|g", "x|g", "1|h"]
    assert data["posterior"]["x|g"].dims == ("chain", "draw", "g__factor_dim")
    assert data["posterior"]["1|g"].shape == (4, 250, 12)
    assert data["posterior"]["h__factor_dim"].values.tolist() == [str(i) for i in range(8)]
    assert data["log_likelihood"]["y"].dims == ("chain", "draw", "__obs__")
    constant = data["constant_data"]
    assert float(constant["x"]) == pytest.approx(gaussian().params["x"])
    assert float(constant["1|h_sigma"]) == pytest.approx(gaussian().vcomp["sd"][2])
    assert float(constant["phi"]) == pytest.approx(gaussian().scale)


def test_draws_are_those_of_the_results():
    data = gaussian().to_arviz(log_likelihood=False, posterior_predictive=False)
    own = data["posterior"]["x|g"].mean(("chain", "draw")).to_pandas()
    expected = gaussian().random_effects["g"]["x"]
    np.testing.assert_allclose(own[expected.index], expected, atol=1e-6)
    names = list(data.groups() if callable(data.groups) else data.children)
    assert not any("log_likelihood" in name or "predictive" in name for name in names)


def test_log_likelihood_is_the_rows_density_given_b():
    r = gaussian()
    data = r.to_arviz(posterior_predictive=False)
    x, z, _ = dense(r)
    posterior = data["posterior"].isel(chain=2, draw=7)
    g = posterior["1|g"].to_pandas()[r.random_effects["g"].index]
    slopes = posterior["x|g"].to_pandas()[r.random_effects["g"].index]
    h = posterior["1|h"].to_pandas()[[str(i) for i in range(8)]]
    eta = x @ r.params.to_numpy() + z @ np.concatenate([g, slopes, h])
    expected = scipy.stats.norm.logpdf(frame()["y"], eta, np.sqrt(r.scale))
    np.testing.assert_allclose(data["log_likelihood"]["y"].isel(chain=2, draw=7), expected, atol=1e-4)


def test_counts_and_their_replicates_are_on_one_scale():
    data = binomial().to_arviz()
    np.testing.assert_array_equal(data["observed_data"]["p(k, m)"], frame()["k"])
    replicates = data["posterior_predictive"]["p(k, m)"]
    assert (replicates.values <= frame()["m"].to_numpy()).all()
    assert float(replicates.mean()) == pytest.approx(frame()["k"].mean(), rel=0.05)


def test_classes_have_a_dimension():
    data = categorical().to_arviz()
    assert data["posterior"]["1|g"].dims == ("chain", "draw", "g__factor_dim", "__class__")
    assert data["posterior"]["__class__"].values.tolist() == ["aa", "bb", "cc"]
    assert data["constant_data"]["x"].shape == (3,)
    codes = frame()["c"].map({"aa": 0, "bb": 1, "cc": 2})
    np.testing.assert_array_equal(data["observed_data"]["c"], codes)
    means = data["posterior"]["1|g"].mean(("chain", "draw")).to_numpy()
    np.testing.assert_allclose(means, categorical().random_effects["g"].to_numpy(), atol=1e-6)


def test_sample_stats_of_nuts():
    stats = bernoulli(sampler="nuts").to_arviz()["sample_stats"]
    names = {"diverging", "energy", "tree_depth", "n_steps", "acceptance_rate", "lp", "step_size"}
    assert names <= set(stats.data_vars)
    assert stats["lp"].shape == (2, 100)
    assert stats["diverging"].dtype == bool
    assert bool((stats["energy"] >= -stats["lp"]).all())


@pytest.mark.parametrize("fit", [gaussian, lambda: bernoulli("b ~ x + (1 | g)")], ids=["exact", "metropolis"])
def test_sample_stats_of_draws_that_cannot_diverge(fit):
    stats = fit().to_arviz(log_likelihood=False, posterior_predictive=False)["sample_stats"]
    assert stats["diverging"].dtype == bool and not stats["diverging"].any()
    rates = stats["acceptance_rate"].to_numpy()
    assert rates.shape == stats["diverging"].shape
    assert (rates == 1).all() if fit is gaussian else (0 < rates.mean() < 1)


def test_no_random_effects_give_no_posterior():
    data = gaussian("y ~ x").to_arviz()
    names = [str(n) for n in (data.groups() if callable(data.groups) else data.children)]
    assert "posterior" not in names and "sample_stats" not in names and "log_likelihood" in names


@pytest.mark.parametrize("fit", [gaussian, bernoulli, binomial, categorical])
def test_arviz_reads_it(az, fit):
    data = fit().to_arviz()
    with warnings.catch_warnings():
        # Few draws: ArviZ doubts some Pareto k.
        warnings.simplefilter("ignore")
        table = az.summary(data)
        loo = az.loo(data)
        az.ess(data)
        az.plot_trace(data, var_names=["1|g"])
        az.plot_forest(data, var_names=["1|g"])
    assert np.isfinite(table["mean"]).all()
    assert np.isfinite(loo.elpd_loo if hasattr(loo, "elpd_loo") else loo.elpd)
    import matplotlib.pyplot as plt

    plt.close("all")
