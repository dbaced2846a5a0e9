"""Families beyond their contract: starting values from ugly data, the dispersion, whole fits with a known truth."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

import glmmnet as gn
from glmmnet import families
from glmmnet.errors import DesignError, FitError, GLMMNetError
from glmmnet.families import Family
from glmmnet.typing import Response

SEED = 20261122
TRIALS = 8
#: Family, its dispersion, and where eta lies.
KNOWN = [
    (families.Bernoulli(link="probit"), 1.0, 0.0),
    (families.Bernoulli(link="cloglog"), 1.0, -0.5),
    (families.Binomial(link="probit"), 1.0, 0.0),
    (families.Binomial(link="cloglog"), 1.0, -0.5),
    (families.Gaussian(link="log"), 0.5, 1.0),
    (families.Poisson(), 1.0, 1.0),
    (families.Poisson(link="identity"), 1.0, 4.0),
    (families.Poisson(link="sqrt"), 1.0, 3.0),
    (families.NegativeBinomial(), 2.0, 1.0),
    (families.NegativeBinomial1(), 1.5, 1.0),
    (families.Gamma(), 0.5, 1.0),
    (families.Gamma(link="inverse"), 0.3, 4.0),
    (families.Gamma(link="identity"), 0.3, 4.0),
    (families.InverseGaussian(), 0.3, 0.5),
    (families.Beta(), 6.0, 0.5),
    (families.Beta(link="probit"), 6.0, 0.0),
    (families.Beta(link="cloglog"), 6.0, -0.5),
    (families.BetaBinomial(), 3.0, 0.5),
    (families.LogNormal(), 0.5, 1.0),
    (families.Tweedie(power=1.4), 1.5, 1.0),
    (families.StudentT(df=4), 0.5, 1.0),
]
WITH_DISPERSION = [known for known in KNOWN if known[0].has_dispersion]
# pytest would make a test of no case a skip.
assert WITH_DISPERSION
every_dispersion = pytest.mark.parametrize(
    ("family", "phi", "centre"), WITH_DISPERSION, ids=[repr(known[0]) for known in WITH_DISPERSION]
)
#: Fits whose family differs from a quicker one's by the link alone, which takes long to compute.
SLOW = {"Beta(link='probit')", "Beta(link='cloglog')"}


def without_response(family: Family, n: int) -> torch.Tensor:
    """What `simulate` reads of y: the trials."""
    trials = torch.tensor([[0.0], [TRIALS]], dtype=torch.float64)
    is_counts = isinstance(family, families.Binomial)
    return trials.expand(n, 2, 1) if is_counts else torch.zeros(n, 1, 1, dtype=torch.float64)


def encoded(family: Family, drawn: torch.Tensor) -> torch.Tensor:
    if isinstance(family, families.Binomial):
        values = torch.stack([drawn, torch.full_like(drawn, TRIALS)], dim=1).numpy()
        return family.encode(Response("p(k, n)", "counts", values)).y
    return family.encode(Response("y", "numeric", drawn.numpy())).y


@every_dispersion
def test_dispersion_is_recovered_within_its_error(family: Family, phi: float, centre: float) -> None:
    n, generator = 4000, np.random.default_rng(SEED)
    eta = torch.as_tensor(centre + 0.4 * generator.normal(size=n))[:, None, None]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        y = encoded(family, family.simulate(eta, without_response(family, n), phi)[:, 0])
    found = family.dispersion(eta, y, torch.ones(n, dtype=torch.float64))
    _, information, _ = family.dispersion_derivatives(eta, y, found)
    error = float(information.sum()) ** -0.5
    assert error < 0.1
    assert abs(math.log(found / phi)) < 3.5 * error


@every_dispersion
def test_dispersion_of_many_draws_is_quick_and_nearly_that_of_all(family: Family, phi: float, centre: float) -> None:
    n, generator = 3000, torch.Generator().manual_seed(SEED)
    eta = centre + 0.2 * torch.randn(n, 1, 100, generator=generator, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        y = encoded(family, family.simulate(eta[:, :, :1], without_response(family, n), phi)[:, 0])
    ones = torch.ones(n, dtype=torch.float64)
    parts = [family.dispersion(part, y, ones) for part in eta.split(25, dim=2)]
    assert family.dispersion(eta, y, ones) == pytest.approx(np.mean(parts), rel=0.02)


UGLY_COUNTS = {
    "all but one zero": [0.0] * 49 + [1.0],
    "one huge": [0.0] * 49 + [1e12],
    "all equal": [3.0] * 50,
    "huge": list(1e9 + np.arange(50.0)),
}
UGLY_AMOUNTS = {
    "90 orders": list(np.logspace(-45, 45, 50)),
    "tiny": list(1e-90 * (1 + np.arange(50.0))),
    "huge": list(1e90 * (1 + np.arange(50.0))),
    "nearly equal": list(1.0 + 1e-6 * np.arange(50.0)),
    "one outlier": [1.0, 2.0] * 25 + [1e30],
}
UGLY_FRACTIONS = {
    "both ends": [1e-90, 1e-12, 0.5, 1 - 1e-12, 1 - 1e-16],
    "near 0": list(1e-90 * (1 + np.arange(50.0))),
    "near 1": list(1 - 1e-15 * (1 + np.arange(50.0))),
}
UGLY = [
    (family, data, values)
    for names, sets in (
        (("Poisson", "NegativeBinomial", "NegativeBinomial1"), UGLY_COUNTS),
        (("Gamma", "InverseGaussian", "LogNormal", "Tweedie", "StudentT", "Gaussian"), UGLY_AMOUNTS),
        (("Beta",), UGLY_FRACTIONS),
    )
    for name in names
    for link in getattr(families, name).links
    for data, values in sets.items()
    for family in (getattr(families, name)(link=link.name),)
]


@pytest.mark.parametrize(("family", "data", "values"), UGLY, ids=[f"{case[0]!r}-{case[1]}" for case in UGLY])
def test_start_on_ugly_data_is_finite(family: Family, data: str, values: list[float]) -> None:
    y = family.encode(Response("y", "numeric", np.array(values))).y
    eta, phi = family.start(y, torch.ones(len(y), dtype=torch.float64))
    assert bool(torch.isfinite(eta).all())
    assert 0.0 < phi < math.inf
    everywhere = eta[None, :, None].expand(len(y), -1, 1)
    log_p, score = family.log_prob_and_score(everywhere, y, phi)
    for answer in (family.log_prob(everywhere, y, phi), log_p, score, family.weight(everywhere, y, phi)):
        assert bool(torch.isfinite(answer).all())


def test_betabinomial_names_what_it_cannot_estimate() -> None:
    family = families.BetaBinomial()
    for counts, found in (
        ([[0.0, 1.0], [1.0, 1.0]], "at most 1 trial"),
        ([[0.0, 4.0], [0.0, 2.0]], "no success"),
        ([[4.0, 4.0], [2.0, 2.0]], "no failure"),
    ):
        with pytest.raises(DesignError, match=found):
            family.encode(Response("p(k, n)", "counts", np.array(counts)))


def test_negative_binomial_without_overdispersion_is_a_poisson() -> None:
    family, poisson = families.NegativeBinomial(), families.Poisson()
    y = family.encode(Response("y", "numeric", np.resize([2.0, 3.0, 4.0], 60))).y
    ones = torch.ones(60, dtype=torch.float64)
    eta, theta = family.start(y, ones)
    everywhere = eta[None, :, None].expand(60, -1, 1)
    assert theta > 1e5
    torch.testing.assert_close(
        family.log_prob(everywhere, y, theta), poisson.log_prob(everywhere, y, 1.0), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("family", [families.Gamma(), families.InverseGaussian(), families.Gaussian(link="log")])
def test_a_reproduced_response_is_refused(family: Family) -> None:
    y = family.encode(Response("y", "numeric", np.arange(1.0, 9.0))).y
    with pytest.raises(FitError, match="reproduces the response exactly"):
        family.dispersion(torch.log(y), y, torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize("df", [4.0, 8.0])
def test_mostly_reproduced_responses_have_no_estimate_of_a_t_scale(df: float) -> None:
    # scale^-35 of the equal responses outweighs scale^df of the other one.
    frame = pd.DataFrame({"x": np.linspace(-1.0, 1.0, 36), "g": np.repeat(np.arange(6), 6), "y": np.eye(36)[7]})
    with pytest.raises(FitError, match="reproduces most responses exactly"):
        gn.glmm("y ~ x + (1 | g)", frame, family=families.StudentT(df=df)).fit(seed=1, draws=10, chains=1)


def test_a_t_model_whose_levels_lie_many_scales_apart() -> None:
    rng = np.random.default_rng(SEED)
    frame = pd.DataFrame({"x": rng.normal(size=160), "g": np.repeat(np.arange(20), 8)})
    frame["y"] = 1 + frame.x + rng.normal(0, 100, 20)[frame.g] + rng.standard_t(4, 160)
    results = gn.glmm("y ~ x + (1 | g)", frame, family="studentt").fit(seed=1, draws=50, chains=2)
    assert results.converged and results.diagnostics.r_hat < 1.2
    # The integral over each level's effect on a grid that is fine and wide enough for it.
    sd, scale = (float(value) for value in results.vcomp["sd"])
    left = (frame.y - results.params["Intercept"] - results.params["x"] * frame.x).to_numpy().reshape(20, 8)
    b = np.median(left, axis=1)[:, None] + np.linspace(-10, 10, 4001) * scale
    log_p = scipy.stats.t.logpdf(left[:, :, None] - b[:, None], 4, scale=scale).sum(axis=1)
    whole = np.exp(log_p + scipy.stats.norm.logpdf(b, scale=sd))
    expected = np.log(whole.sum(axis=1) * (b[0, 1] - b[0, 0])).sum()
    assert results.llf == pytest.approx(expected, abs=0.02)


def test_one_large_count_beside_zeros() -> None:
    frame = pd.DataFrame({"x": np.linspace(-1.0, 1.0, 36), "g": np.repeat(np.arange(6), 6), "y": 1e6 * np.eye(36)[7]})
    results = gn.glmm("y ~ 1 + (1 | g)", frame, family="hurdlepoisson").fit(seed=1, draws=10, chains=1)
    assert results.converged and results.vcomp["sd"][0] == 0.0
    zeros = 35 * np.log(35 / 36) + np.log(1 / 36)
    assert results.llf == pytest.approx(zeros + scipy.stats.poisson.logpmf(10**6, 10**6), abs=1e-3)


def test_a_count_of_zero_is_improbable_where_eta_is_below_zero() -> None:
    """The mean 0 would make it certain, and effects would run away to where eta is negative."""
    family = families.Poisson(link="identity")
    eta = torch.tensor([0.5, -0.5, -2.0], dtype=torch.float64)[:, None, None]
    log_p, score = family.log_prob_and_score(eta, torch.zeros(3, 1, 1, dtype=torch.float64), 1.0)
    assert float(log_p[0]) == -0.5
    assert float(log_p[1:].max()) < -100.0
    assert bool((score[1:] > 0).all())


def test_rows_that_only_the_link_holds_above_zero_are_told() -> None:
    rng = np.random.default_rng(SEED)
    frame = pd.DataFrame({"g": np.repeat(np.arange(12), 6)})
    frame["y"] = rng.poisson(np.exp(1.5 * rng.normal(size=12))[frame.g])
    quick = {"seed": 1, "draws": 50, "max_iter": 12}
    with pytest.warns(gn.ConvergenceWarning) as told:
        gn.glmm("y ~ 1 + (1 | g)", frame, families.Poisson(link="identity")).fit(**quick)
    assert any("rows only link='identity' itself" in str(one.message) for one in told)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gn.glmm("y ~ 1 + (1 | g)", frame, families.Poisson()).fit(seed=1, draws=50)


def test_lognormal_is_the_gaussian_model_of_the_log() -> None:
    rng = np.random.default_rng(SEED)
    frame = pd.DataFrame({"g": np.repeat(np.arange(12), 10), "x": rng.normal(size=120)})
    frame["log_y"] = 0.5 * frame.x + 0.6 * rng.normal(size=12)[frame.g] + rng.normal(size=120)
    frame["y"] = np.exp(frame.log_y)
    of_y = gn.glmm("y ~ x + (1 | g)", frame, family="lognormal").fit(seed=1)
    of_log = gn.glmm("log_y ~ x + (1 | g)", frame).fit(seed=1)
    pd.testing.assert_series_equal(of_y.params, of_log.params)
    assert of_y.scale == pytest.approx(of_log.scale, rel=1e-6)
    assert of_y.llf == pytest.approx(of_log.llf - frame.log_y.sum(), abs=1e-6)
    expected = np.exp(of_log.predict(level="population") + of_log.scale / 2)
    np.testing.assert_allclose(of_y.predict(level="population"), expected, rtol=1e-6)
    np.testing.assert_allclose(of_y.resid_response, frame.y - of_y.fittedvalues)


@pytest.mark.parametrize(
    ("family", "argument"),
    [
        ("Tweedie", {"power": 2.0}),
        ("Tweedie", {"power": "a"}),
        ("StudentT", {"df": 0.0}),
        ("StudentT", {"df": "4"}),
        ("StudentT", {"df": True}),
    ],
)
def test_fixed_shapes_out_of_range_are_refused(family: str, argument: dict[str, float]) -> None:
    name, value = next(iter(argument.items()))
    with pytest.raises(ValueError, match=f"{name} is {value!r}; write"):
        getattr(families, family)(**argument)


def test_fixed_shapes_stand_in_the_representation() -> None:
    assert repr(families.Tweedie(power=1.2)) == "Tweedie(power=1.2, link='log')"
    assert repr(families.StudentT(df=7)) == "StudentT(df=7, link='identity')"


def simulated(family: Family, phi: float, centre: float) -> pd.DataFrame:
    rng = np.random.default_rng(SEED)
    g, n = np.repeat(np.arange(60), 30), 1800
    frame = pd.DataFrame({"x": rng.normal(size=n), "g": g})
    eta = torch.as_tensor(centre + 0.3 * frame.x.to_numpy() + 0.4 * rng.normal(size=60)[g])[:, None, None]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return frame.assign(y=family.simulate(eta, without_response(family, n), phi)[:, 0].numpy())


@pytest.mark.parametrize(
    ("family", "phi", "centre"),
    [
        pytest.param(*known, id=repr(known[0]), marks=[pytest.mark.slow] if repr(known[0]) in SLOW else [])
        for known in KNOWN
    ],
)
def test_fit_finds_the_truth(family: Family, phi: float, centre: float) -> None:
    frame = simulated(family, phi, centre)
    left = f"p(y, {TRIALS})" if isinstance(family, families.Binomial) else "y"
    results = gn.glmm(f"{left} ~ x + (1 | g)", frame, family=family).fit(seed=1, draws=100, chains=2)
    assert results.converged
    z = (results.params - [centre, 0.3]) / results.bse
    assert float(z.abs().max()) < 3.5
    assert float(results.vcomp.sd[0]) == pytest.approx(0.4, abs=3.5 * float(results.vcomp.se[0]))
    name = family.dispersion_name
    if family.has_dispersion:
        assert results.scale == pytest.approx(phi, abs=3.5 * float(results.dispersion.se))
        shown = "Residual" if family.residual else f"Dispersion       {name} "
        assert shown in str(results.summary())
        assert ("sigma" if family.residual else name) in results.history
    else:
        assert bool(results.dispersion[1:].isna().all())
    observed = frame.y.mean() / (TRIALS if left != "y" else 1)
    for level in ("conditional", "marginal"):
        assert float(results.predict(level=level).mean()) == pytest.approx(observed, rel=0.05)
    assert float(results.resid_pearson.std()) == pytest.approx(1.0, abs=0.25)
    assert bool(np.isfinite(results.resid_deviance).all())
    again = results.simulate(5, seed=2)
    assert float(again.to_numpy().mean()) == pytest.approx(frame.y.mean(), rel=0.15)


@pytest.mark.parametrize("family", ["poisson", "negativebinomial", "gamma", "studentt"])
def test_two_crossed_terms_and_the_whole_of_the_results(family: str) -> None:
    rng = np.random.default_rng(SEED)
    frame = pd.DataFrame({"g": rng.integers(0, 12, 300), "h": rng.integers(0, 8, 300), "x": rng.normal(size=300)})
    eta = 1.0 + 0.4 * frame.x + 0.4 * rng.normal(size=12)[frame.g] + 0.3 * rng.normal(size=8)[frame.h]
    frame["y"] = rng.poisson(np.exp(eta)) + (family == "gamma")
    results = gn.glmm("y ~ x + (1 | g) + (1 | h)", frame, family=family).fit(
        seed=1, draws=50, chains=2, warmup=20, tol=1e3, min_iter=1, burn_in=0
    )
    table = results.get_prediction(frame.head(7)).summary_frame()
    assert bool(np.isfinite(table).all(axis=None))
    groups = results.to_arviz()
    for name in ("log_likelihood", "posterior_predictive"):
        assert bool(np.isfinite(groups[name]["y"]).all())
    np.testing.assert_array_equal(groups["observed_data"]["y"], frame.y)
    assert ("phi" in groups["constant_data"]) == results.family.has_dispersion
    assert bool(np.isfinite(results.bse).all())


@pytest.mark.filterwarnings("ignore::glmmnet.errors.ConvergenceWarning")
@pytest.mark.parametrize("link", ["log", pytest.param("inverse", marks=pytest.mark.slow), "identity"])
def test_amounts_over_eighty_orders_end_in_numbers_or_an_error(link: str) -> None:
    rng = np.random.default_rng(SEED)
    frame = pd.DataFrame({"y": 10.0 ** rng.uniform(-40, 40, 60), "g": np.repeat(np.arange(10), 6)})
    model = gn.glmm("y ~ 1 + (1 | g)", frame, family=families.Gamma(link=link))
    try:
        results = model.fit(seed=1, draws=50, chains=2, max_iter=8)
    except GLMMNetError:
        return
    assert bool(np.isfinite(results.params).all())
    assert math.isfinite(results.scale)
    assert math.isfinite(results.llf)


def test_network_learns_under_a_dispersion() -> None:
    rng = np.random.default_rng(SEED)
    frame = pd.DataFrame({"x": rng.uniform(-2, 2, 600), "g": rng.integers(0, 10, 600)})
    mu = np.exp(0.5 + np.sin(2 * frame.x) + 0.3 * rng.normal(size=10)[frame.g])
    frame["y"] = rng.gamma(4.0, mu / 4.0)
    results = gn.glmm("y ~ nn(x) + (1 | g)", frame, family="gamma").fit(seed=1, draws=50, chains=2, epochs=30)
    assert results.scale == pytest.approx(0.25, abs=0.08)
    assert np.corrcoef(np.log(results.fittedvalues), np.log(mu))[0, 1] > 0.9
