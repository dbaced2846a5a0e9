"""From formula to fit: seeds, options, odd data, and what is refused."""

import signal
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from _fits import QUICK, SEED, frame, gaussian

import glmmnet as gn
from glmmnet.em import loop
from glmmnet.errors import ConvergenceWarning, DataWarning, DesignError, FitError, FormulaError
from glmmnet.samplers import SAMPLERS

BERNOULLI = {"formula": "b ~ x + (1 | g)", "family": "bernoulli"}


def model(formula="y ~ x + (1 | g)", data=None, **options):
    return gn.glmm(formula, data=frame() if data is None else data, **options)


def test_the_same_seed_gives_the_same_numbers():
    m = model(**BERNOULLI)
    first, second, other = m.fit(**QUICK), m.fit(**QUICK), m.fit(**{**QUICK, "seed": 2})
    pd.testing.assert_series_equal(first.params, second.params)
    assert torch.equal(first.fitted.draws.b, second.fitted.draws.b)
    assert first.llf == second.llf
    assert not torch.equal(first.fitted.draws.b, other.fitted.draws.b)
    assert first.seed == 1


def test_no_seed_is_a_fresh_one_that_is_kept():
    m = model(**BERNOULLI)
    options = {k: v for k, v in QUICK.items() if k != "seed"}
    free = m.fit(**options)
    again = m.fit(seed=free.seed, **options)
    pd.testing.assert_series_equal(free.params, again.params)
    assert free.seed != m.fit(**options).seed


def test_no_iteration_but_the_last_is_kept(monkeypatch):
    alive, kept = [], []

    def watched(*arguments):
        for state in loop.run(*arguments):
            kept.append(sum(other() is not None for other in alive))
            alive.append(weakref.ref(state))
            yield state

    monkeypatch.setattr("glmmnet.model.run", watched)
    with pytest.warns(ConvergenceWarning):
        r = model().fit(sampler="nuts", seed=1, max_iter=6, tol=1e-9, draws=10, chains=1)
    assert len(r.history) == 6
    # The one before may still stand where the loop that makes states has it.
    assert max(kept) <= 2


def test_two_fits_share_nothing():
    m = model("y ~ nn(x + z) + (1 | g)", nn={"layers": [8]})
    first = m.fit(seed=1, epochs=2)
    before = first.predict().copy()
    second = m.fit(seed=2, epochs=4)
    np.testing.assert_array_equal(first.predict(), before)
    assert not np.array_equal(first.predict(), second.predict())
    assert m.fit(seed=1, epochs=2).predict().equals(before)


def test_generators_and_threads_are_left_alone():
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    threads = torch.get_num_threads()
    r = model("b ~ nn(x) + (1 | g)", family="bernoulli", nn={"layers": [4]}).fit(**QUICK, epochs=1)
    r.llf, r.get_prediction(), r.simulate(1), r.to_arviz(), str(r.summary())
    model().fit(seed=1, draws=5, threads=threads + 1)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
    assert torch.get_num_threads() == threads


def test_results_compute_on_the_threads_of_the_fit(monkeypatch):
    r = model("b ~ nn(x) + (1 | g)", family="bernoulli", nn={"layers": [4]}).fit(**QUICK, epochs=1)
    seen: list[int] = []
    score = type(r.family).log_prob_and_score
    monkeypatch.setattr(
        type(r.family), "log_prob_and_score", lambda *args: seen.append(torch.get_num_threads()) or score(*args)
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        r.conf_int()
        r.loglike()
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {1}


def test_the_data_are_not_changed():
    data = frame().copy()
    before = data.copy()
    model("y ~ scale(x) + (1 | g)", data=data).fit(seed=1).predict(data)
    pd.testing.assert_frame_equal(data, before)


def test_one_iteration_warns():
    with pytest.warns(ConvergenceWarning, match="EM stopped after 1 iterations"):
        r = model("b ~ x + (1 | g) + (1 | h)", family="bernoulli").fit(seed=1, max_iter=1, draws=20, chains=1, tol=1e-6)
    assert not r.converged and len(r.history) == 1


class Interrupting:
    """NUTS during whose third call Ctrl-C is pressed."""

    name = "nuts"

    def __init__(self):
        self.calls = 0
        self.inner = SAMPLERS["nuts"]()

    def draw(self, logdensity, state, **options):
        self.calls += 1
        if self.calls == 3:
            signal.raise_signal(signal.SIGINT)
        return self.inner.draw(logdensity, state, **options)


def test_ctrl_c_ends_in_results():
    handler = signal.getsignal(signal.SIGINT)
    r = model(**BERNOULLI).fit(sampler=Interrupting(), seed=1, draws=20, chains=1)
    assert len(r.history) == 3 and not r.converged
    assert np.isfinite(r.predict()).all()
    assert "NOT converged" in str(r.summary())
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_while_the_network_learns_ends_in_results():
    m = model("b ~ x + nn(z) + (1 | g)", family="bernoulli", nn={"layers": [4]})
    r = m.fit(sampler=Interrupting(), seed=1, draws=20, chains=1)
    assert r.history["phase"].tolist() == ["network"] and not r.converged
    assert np.isfinite(r.predict()).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"maxiter": 3}, TypeError, "did you mean 'max_iter'"),
        ({"max_iter": 0}, FitError, "max_iter=0 must be 1 or more"),
        ({"tol": float("nan")}, FitError, "tol=nan"),
        ({"orthogonalize": "always"}, FitError, "'auto' or False"),
        ({"sampler": "nutz"}, ValueError, "did you mean 'nuts'"),
    ],
)
def test_wrong_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        model().fit(seed=1, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_iter": "3"}, TypeError, "max_iter='3' must be a whole number"),
        ({"draws": 2.5}, TypeError, "draws=2.5 must be a whole number"),
        ({"draws": 1, "chains": 1}, FitError, "draws=1 must be 4 or more"),
        ({"seed": 1.5}, TypeError, "seed=1.5 must be a whole number"),
        ({"seed": True}, TypeError, "seed=True must be a whole number"),
        ({"seed": -3}, FitError, "seed=-3 must be 0 or more"),
        ({"seed": 2**62}, FitError, "must be 0 or more and below"),
        ({"sampler": 3}, TypeError, "sampler=3 must be 'hmc', 'mala', 'nuts' or an object"),
        ({"sampler": SAMPLERS["nuts"]}, TypeError, "sampler=<class"),
    ],
)
@pytest.mark.parametrize("formula", ["b ~ x + (1 | g)", "b ~ x"])
def test_options_of_a_wrong_type_are_refused_by_name(formula, options, error, message):
    with pytest.raises(error, match=message):
        model(formula, family="bernoulli").fit(**{**QUICK, **options})


def test_numpy_numbers_are_numbers():
    r = model().fit(seed=np.int64(3), draws=np.int32(5), chains=np.uint8(1), tol=np.float32(0.1))
    assert r.seed == 3 and type(r.seed) is int
    assert r.fitted.draws.b.shape[2] == 5
    largest = model(**BERNOULLI).fit(**{**QUICK, "seed": 2**62 - 1, "draws": 4})
    assert np.isfinite(largest.get_prediction().summary_frame().to_numpy()).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data": None}, TypeError, "DataFrame"),
        ({"data": {"y": [1]}}, TypeError, "dict"),
        ({"formula": None}, FormulaError, "A formula is a text"),
        ({"family": None}, TypeError, "write a name"),
        ({"family": "weibull"}, ValueError, "no family 'weibull'"),
        ({"na_action": "omit"}, DesignError, "'drop' or 'raise'"),
        ({"weights": "nope"}, DesignError, "`nope` is not a column"),
        ({"weights": np.ones(3)}, DesignError, "300 rows"),
        ({"weights": -np.ones(300)}, DesignError, "not negative"),
        ({"weights": np.zeros(300)}, DesignError, "all zero"),
        ({"family": "bernoulli"}, DesignError, "other than 0 and 1"),
        ({"formula": "c ~ x", "family": "gaussian"}, DesignError, "categorical"),
        ({"formula": "c ~ x", "family": "bernoulli"}, DesignError, "3 levels"),
        ({"formula": "y ~ x + (1 | nope)"}, FormulaError, "nope"),
        ({"networks": {"f": 3}}, FormulaError, "networks= is given, but the formula .* has no nn"),
        ({"nn": {"layers": [8]}}, FormulaError, "nn= is given, but the formula .* has no nn"),
        ({"nn": 8}, TypeError, "nn=8 must be a mapping, e.g. nn="),
        ({"networks": ["mine"]}, TypeError, "networks=.'mine'. must be a mapping"),
        ({"context": "A"}, TypeError, "context='A' must be a mapping, e.g. context="),
        ({"contrasts": 5}, TypeError, "contrasts=5 must be a mapping"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    given = {"formula": "y ~ x + (1 | g)", "data": frame(), **arguments}
    with pytest.raises(error, match=message):
        gn.glmm(**given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.head(0), "No rows are left"),
        (lambda d: d.head(1), "one level"),
        (lambda d: d.assign(g="a"), "one level, 'a'"),
        (lambda d: d.assign(g=range(300)), "one row a level"),
        (lambda d: d.assign(y=3.0), "constant"),
        (lambda d: d.assign(y=np.inf), "finite"),
        (lambda d: d.assign(x=np.nan), "No rows are left"),
    ],
)
def test_data_that_cannot_be_fitted_are_refused(change, message):
    with pytest.raises(DesignError, match=message):
        model(data=change(frame()))


def test_counts_may_have_effects_of_rows_and_single_trials_may_not():
    rng = np.random.default_rng(SEED)
    eta = 0.4 + 0.7 * rng.normal(size=500)
    data = pd.DataFrame({"row": np.arange(500), "m": 20, "k": rng.binomial(20, 1 / (1 + np.exp(-eta)))})
    r = gn.glmm("p(k, m) ~ 1 + (1 | row)", data, "binomial").fit(seed=1)
    assert r.params["Intercept"] == pytest.approx(0.4, abs=3 * r.bse["Intercept"])
    assert r.vcomp["sd"][0] == pytest.approx(0.7, abs=3 * r.vcomp["se"][0]) and r.vcomp["se"][0] < 0.05
    single = data.assign(one=1, b=(data["k"] > 8).astype(int))
    for family, formula in (("bernoulli", "b ~ 1 + (1 | row)"), ("binomial", "p(b, one) ~ 1 + (1 | row)")):
        with pytest.raises(DesignError, match=r"one row a level.*cannot be told from the noise"):
            gn.glmm(formula, single, family)


def test_missing_values_may_be_refused():
    data = frame().assign(x=frame()["x"].where(frame().index > 2))
    with pytest.raises(DesignError, match=r"`x` \(3\)"):
        model(data=data, na_action="raise")


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ nn(x) + nn(z) + (1 | g)",
        "y ~ nn(x + z) + (1 | g) - 1",
        "y ~ nn(x + c)",
        "y ~ x + nn(x + z) + (x || g) + (1 | h)",
        "y ~ nn(x + g) + (1 | h)",
    ],
)
def test_networks_of_many_shapes(formula):
    r = model(formula, nn={"layers": [4]}).fit(seed=1, epochs=2, draws=20, chains=2)
    assert np.isfinite(r.predict()).all() and np.isfinite(r.bse).all() and np.isfinite(r.llf)
    assert "nan" not in str(r.summary())


def test_duplicated_index_is_harmless():
    data = frame().set_axis(np.zeros(300, dtype=int))
    r = model(data=data).fit(seed=1)
    np.testing.assert_allclose(r.params, gaussian("y ~ x + (1 | g)").params)
    assert r.predict(data).shape == (300,)


def test_units_of_the_response_do_not_matter():
    plain = gaussian("y ~ x + (1 | g)")
    for unit in (1e6, 1e-6):
        r = model(data=frame().assign(y=frame()["y"] * unit)).fit(seed=1)
        np.testing.assert_allclose(r.params / unit, plain.params, rtol=1e-3)
        np.testing.assert_allclose(r.vcomp["sd"] / unit, plain.vcomp["sd"], rtol=1e-3)
        np.testing.assert_allclose(r.vcomp["se"] / unit, plain.vcomp["se"], rtol=1e-2)


@pytest.mark.parametrize("unit", [1e9, 1e6, 1e-6, 1e-9])
def test_units_of_a_covariate_do_not_matter(unit):
    plain = gaussian("y ~ x + (x | g)")
    r = model("y ~ x + (x | g)", data=frame().assign(x=frame()["x"] * unit)).fit(seed=1)
    np.testing.assert_allclose(r.params * [1, unit], plain.params, rtol=1e-2)
    np.testing.assert_allclose(r.vcomp["sd"] * [1, unit, 1], plain.vcomp["sd"], rtol=1e-2)
    assert r.llf == pytest.approx(plain.llf, abs=0.01)


def test_an_origin_far_away_does_not_matter():
    # Days since the year 1 of dates within some weeks.
    days = 738_000 + 10 * frame()["x"]
    plain = gaussian("y ~ x + (1 | g)")
    r = model("y ~ days + (1 | g)", data=frame().assign(days=days)).fit(seed=1)
    assert 10 * r.params["days"] == pytest.approx(plain.params["x"], rel=1e-3)
    assert r.llf == pytest.approx(plain.llf, abs=0.01)


def test_units_of_a_slope_do_not_matter_for_bernoulli():
    data = frame().assign(t=1e6 * frame()["x"])
    plain = model("b ~ x + (x || g)", family="bernoulli").fit(seed=1, draws=50, tol=1.0)
    r = model("b ~ t + (t || g)", data=data, family="bernoulli").fit(seed=1, draws=50, tol=1.0)
    assert r.params["t"] * 1e6 == pytest.approx(plain.params["x"], rel=0.1)
    assert r.vcomp["sd"][1] * 1e6 == pytest.approx(plain.vcomp["sd"][1], rel=0.3)
    assert r.llf == pytest.approx(plain.llf, abs=1.0)


def test_a_small_variance_is_not_lost_at_zero():
    rng = np.random.default_rng(8)
    g, x = np.repeat(np.arange(15), 8), rng.normal(size=120)
    y = 1 + x + (0.8 * rng.normal(size=15))[g] + rng.normal(size=120)
    r = model(data=pd.DataFrame({"y": y, "x": x, "g": g})).fit(seed=1, draws=10)
    # The deviance is 1.6 lower there than at 0.
    assert r.vcomp["sd"][0] / r.vcomp["sd"][1] == pytest.approx(0.25, abs=0.1)


def test_a_variance_of_zero_is_exactly_zero():
    rng = np.random.default_rng(0)
    y = rng.normal(size=60)
    y -= pd.Series(y).groupby(np.repeat(range(6), 10)).transform("mean").to_numpy()
    r = model("y ~ 1 + (1 | g)", data=pd.DataFrame({"y": y, "g": np.repeat(range(6), 10)})).fit(seed=1)
    assert r.singular and r.vcomp["variance"][0] == 0
    assert np.isnan(r.vcomp["se"][0]) and r.vcomp["se"][1] > 0
    assert np.abs(r.random_effects["g"]).max(axis=None) < 1e-3
    assert r.scale == pytest.approx(y.var(), rel=1e-6)
    assert "Singular fit" in str(r.summary())
    assert np.isfinite(r.get_prediction().summary_frame().to_numpy()).all()


def test_perfect_separation_is_no_convergence():
    data = frame().assign(b=(frame()["x"] > 0).astype(int))
    with pytest.warns(ConvergenceWarning, match="separated by x: "):
        r = model("b ~ x + z", data=data, family="bernoulli").fit(seed=1)
    assert not r.converged and "NOT converged" in str(r.summary())
    assert "separated by: x\n" in str(r.summary())


def test_groups_of_one_outcome_each_are_no_convergence():
    data = frame().assign(b=frame()["g"].isin([f"g{i}" for i in range(6)]))
    with pytest.warns(ConvergenceWarning, match="separated by g: "):
        r = model("b ~ 1 + (1 | g)", data=data, family="bernoulli").fit(seed=1, draws=20, chains=1)
    assert not r.converged


def test_a_variance_that_ran_away_is_not_taken_for_0():
    g = np.repeat(np.arange(6), 6)
    data = pd.DataFrame({"b": g > 2, "g": g, "x": np.random.default_rng(20261123).normal(size=36)})
    with pytest.warns(ConvergenceWarning, match="separated by g: "):
        r = model("b ~ x + (1 | g)", data=data, family="bernoulli").fit(seed=1, draws=20, chains=1)
    assert r.vcomp["sd"][0] > 15 and not r.singular
    # The groups, not the intercept, reproduce the response.
    np.testing.assert_allclose(r.fittedvalues, data["b"], atol=0.05)


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + (1 | g)", "y ~ x + (1 | g) + (1 | h)"])
def test_a_response_computed_from_a_column_is_refused(formula):
    with pytest.raises(FitError, match="reproduces the response exactly"):
        model(formula, data=frame().assign(y=1e6 + 2 * frame()["x"])).fit(seed=1)


@pytest.mark.parametrize("options", [{}, {"exact_limit": 0}, {"reml": True}])
def test_a_response_computed_from_groups_is_refused(options):
    data = frame()
    y = 1 + 2 * data["x"] + np.random.default_rng(3).normal(size=12)[data["g"].str[1:].astype(int)]
    with pytest.raises(FitError, match="reproduces the response exactly"):
        model(data=data.assign(y=y)).fit(seed=1, **options)


def test_a_small_residual_is_not_refused():
    data = frame()
    y = 1 + 2 * data["x"] + 1e-3 * (data["y"] - data["x"])
    assert model("y ~ x + (1 | g)", data=data.assign(y=y)).fit(seed=1).converged


@pytest.mark.parametrize(("family", "formula"), [("gaussian", "y ~ x + t + z"), ("bernoulli", "b ~ x + t + z")])
def test_collinear_columns_are_named_and_stay_finite(family, formula):
    data = frame().assign(t=3 - 2 * frame()["x"])
    with pytest.warns(DataWarning, match="collinear: Intercept, x, t;"):
        m = model(formula + " + (1 | g)", data=data, family=family)
    r = m.fit(**QUICK)
    assert np.isfinite(r.params).all() and r.params.abs().max() < 10
    plain = model(formula.replace(" + t", "") + " + (1 | g)", data=data, family=family).fit(**QUICK)
    np.testing.assert_allclose(r.predict(), plain.predict(), atol=0.05 if family == "bernoulli" else 1e-3)


def test_rows_for_early_stopping_may_be_named():
    data = frame().assign(held=np.arange(300) >= 200)
    m = model("y ~ nn(x + z) + (1 | g)", data=data, nn={"layers": [4]})
    by_name = m.fit(seed=1, epochs=3, validation="held", draws=4)
    by_array = m.fit(seed=1, epochs=3, validation=data["held"].to_numpy(), draws=4)
    np.testing.assert_array_equal(by_name.predict(), by_array.predict())
    other = m.fit(seed=1, epochs=3, validation=~data["held"], draws=4)
    assert not np.array_equal(by_name.predict(), other.predict())
    # Held-out rows with another response change what stops the network, and nothing that it learns from.
    odd = data.assign(y=np.where(data["held"], data["y"] + 50, data["y"]))
    changed = model("y ~ nn(x + z) + (1 | g)", data=odd, nn={"layers": [4]}).fit(
        seed=1, epochs=1, validation="held", draws=4
    )
    assert changed.history["valid_deviance"][0] > 10 * by_name.history["valid_deviance"][0]
    assert changed.history["deviance"][0] < 10 * by_name.history["deviance"][0]


def test_validation_needs_a_network_and_rows():
    with pytest.raises(FormulaError, match="validation= holds rows out for nn"):
        model().fit(seed=1, validation=np.arange(300) > 200)
    with pytest.raises(DesignError, match="validation has 3 values; the data have 300"):
        model("y ~ nn(x)").fit(seed=1, validation=[True, False, False])


def test_only_the_cpu_is_supported():
    with pytest.raises(FitError, match="device='cuda' is not supported so far"):
        model().fit(seed=1, device="cuda")
    assert model().fit(seed=1, device="cpu").converged


def test_a_variance_of_zero_among_crossed_terms_is_exactly_zero():
    data = frame().sort_values("g").assign(b=np.arange(300) % 2)
    r = model("b ~ 1 + (1 | g) + (1 | h)", data=data, family="bernoulli").fit(seed=1, draws=20, chains=1)
    assert r.singular and r.vcomp["variance"].tolist() == [0, 0]
    assert "Singular fit" in str(r.summary()) and "more draws=" not in str(r.summary())
    assert np.isfinite(r.get_prediction().summary_frame().to_numpy()).all()
