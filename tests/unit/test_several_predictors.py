"""Columns that share linear predictors: the algebra against dense arrays, fits against the models they contain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
import torch

import glmmnet as gn
from glmmnet.em.expansion import find_carriers, relocate
from glmmnet.em.m_step import m_step
from glmmnet.joint import JointModel, Parameters

SEED = 20261122
QUICK: dict[str, Any] = {"seed": 1, "draws": 50, "chains": 2, "warmup": 20}


def frame(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(SEED)
    g, h = rng.integers(0, 12, n), rng.integers(0, 6, n)
    x = rng.normal(size=n)
    eta = 0.4 + 0.7 * x + rng.normal(size=12)[g]
    count = rng.poisson(np.exp(0.6 * eta)) * (rng.random(n) > 0.3)
    rating = np.digitize(eta + rng.logistic(size=n), [-1.0, 0.5, 2.0])
    latent = np.column_stack([0 * eta, eta, 0.5 * eta]) + rng.gumbel(size=(n, 3))
    return pd.DataFrame(
        {
            "x": x,
            "g": g,
            "h": h,
            "y": eta + np.exp(0.3 * x) * rng.normal(size=n),
            "count": count,
            "rating": pd.Categorical(rating, ordered=True),
            "high": (rating > 1).astype(int),
            "binary": pd.Categorical(np.where(rating > 1, "yes", "no"), ["no", "yes"], ordered=True),
            "kind": np.array(["a", "b", "c"])[latent.argmax(axis=1)],
        }
    )


DATA = frame()
MODELS: dict[str, dict[str, Any]] = {
    "cumulative": {"formula": "rating ~ x + (1 + x | g) + (1 | h)", "family": "cumulative"},
    "zero-inflated": {
        "formula": "count ~ x + (1 | g)",
        "family": "zeroinflatedpoisson",
        "zi": "~ x + (1 + x | g) + (1 | h)",
    },
    "hurdle": {"formula": "count ~ x + (x || g)", "family": "hurdlenegativebinomial"},
    "dispersion": {"formula": "y ~ x + (1 | g)", "dispersion": "~ x + (1 | h)"},
    "correlated classes": {
        "formula": "kind ~ x + (1 + x | g) + (1 | h)",
        "family": gn.families.Categorical(reference="a", class_cov="us"),
    },
}
every_model = pytest.mark.parametrize("name", list(MODELS))

pytestmark = pytest.mark.usefixtures("seeded")


def joint_of(name: str) -> JointModel:
    options = dict(MODELS[name])
    return gn.glmm(options.pop("formula"), DATA, **options)._joint


def parameters_of(joint: JointModel) -> Parameters:
    rng = np.random.default_rng(SEED)
    beta = torch.as_tensor(0.3 * rng.normal(size=(len(joint.x_names), joint.n_coefficients)))
    k = len(joint.target.thresholds)
    beta[:k] = torch.linspace(-1.0, 2.0, k, dtype=torch.float64)[:, None]
    sigma = []
    for term in joint.terms:
        root = rng.normal(size=(joint.n_classes, term.r, term.r + 2))
        sigma.append(term.covariance.project(torch.as_tensor(root @ root.swapaxes(1, 2) / (term.r + 2))))
    return Parameters(beta, tuple(sigma), 1.3 if joint.family.has_dispersion else 1.0)


def dense(joint: JointModel) -> tuple[np.ndarray, np.ndarray]:
    """What a unit of each coefficient and of each effect adds to every linear predictor: (n, C, p K), (n, C, Q)."""
    c, n = joint.n_predictors, joint.n
    if joint.x_loading is None:
        fixed = np.einsum("np,cd->ncpd", joint.X.numpy(), np.eye(c)).reshape(n, c, -1)
    else:
        fixed = np.einsum("np,pc->ncp", joint.X.numpy(), joint.x_loading.numpy())
    random = np.zeros((n, c, joint.n_effects))
    for term in joint.terms:
        assert term.loading is not None
        z = term.columns().numpy()
        for i, level in enumerate(term.index.tolist()):
            for j in range(term.r):
                random[i, :, term.start + level * term.r + j] = z[i, j] * term.loading[j].numpy()
    return fixed, random


def some_b(joint: JointModel, draws: int = 2) -> torch.Tensor:
    return 0.5 * torch.randn(joint.n_effects, joint.n_classes, draws, dtype=torch.float64)


@every_model
def test_eta_and_its_adjoint(name: str) -> None:
    joint = joint_of(name)
    params, b = parameters_of(joint), some_b(joint)
    fixed, random = dense(joint)
    eta = joint.fixed_eta(params) + joint.random_eta(b)
    expected = (fixed @ params.beta.numpy().reshape(-1))[:, :, None] + np.einsum("ncq,qs->ncs", random, b[:, 0].numpy())
    np.testing.assert_allclose(eta, expected, atol=1e-12)
    v = torch.randn(joint.n, joint.n_predictors, 2, dtype=torch.float64)
    np.testing.assert_allclose(joint.random_transpose(v)[:, 0], np.einsum("ncq,ncs->qs", random, v.numpy()), atol=1e-11)
    np.testing.assert_allclose(
        joint.columns.by_row(v).sum(dim=0), np.einsum("ncp,ncs->ps", fixed, v.numpy()), atol=1e-11
    )


@every_model
def test_information(name: str) -> None:
    joint = joint_of(name)
    fixed, random = dense(joint)
    root = torch.randn(joint.n, joint.n_predictors, joint.n_predictors, dtype=torch.float64)
    weight = root @ root.mT
    expected = np.einsum("nca,ncd,ndb->ab", random, weight.numpy(), random)
    np.testing.assert_allclose(joint.information(weight).toarray(), expected, atol=1e-10)
    for term in joint.terms:
        blocks = term.information(weight)
        for level in range(term.q):
            own = slice(term.start + level * term.r, term.start + (level + 1) * term.r)
            np.testing.assert_allclose(blocks[level], expected[own, own], atol=1e-10)
    of_x = np.einsum("nca,ncd,ndb->ab", fixed, weight.numpy(), fixed)
    np.testing.assert_allclose(joint.columns.information(weight), of_x, atol=1e-10)
    weighted = np.einsum("ncd,nda->nca", weight.numpy(), fixed)
    np.testing.assert_allclose(joint.columns.weighted(weight), weighted, atol=1e-12)


@every_model
def test_newton_step_of_the_m_step_goes_uphill_by_its_own_quadratic(name: str) -> None:
    """From the maximum over beta given the draws the step is none: the score in every direction is that of beta."""
    joint = replace(joint_of(name), terms=())
    params, nothing = parameters_of(joint), torch.zeros(0, joint.n_classes, 1, dtype=torch.float64)
    params = Parameters(params.beta, (), params.phi)
    for _ in range(60):
        params = m_step(joint, (), params, nothing).params
    eta = joint.fixed_eta(params)
    value = float(joint.log_likelihood(eta, params.phi)[0])
    direction = 1e-4 * torch.randn(20, *params.beta.shape, dtype=torch.float64)
    for step in direction:
        moved = joint.fixed_eta(replace(params, beta=params.beta + step))
        assert float(joint.log_likelihood(moved, params.phi)[0]) < value
    # The step is of first order in the score: a change of 1e-4 costs 1e-8 of the information.
    assert float(m_step(joint, (), params, nothing).params.beta.sub(params.beta).abs().max()) < 1e-6


@every_model
def test_location_expansion_leaves_eta_as_it_is(name: str) -> None:
    joint = joint_of(name)
    params, b = parameters_of(joint), 0.7 + some_b(joint, 1)
    moved = relocate(joint, find_carriers(joint), params, b[:, :, 0])
    assert float(moved.beta.abs().max()) > 0.1
    before = joint.fixed_eta(params) + joint.random_eta(b)
    after = joint.fixed_eta(replace(params, beta=params.beta + moved.beta)) + joint.random_eta(b - moved.b[:, :, None])
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)


def test_a_step_never_disorders_thresholds() -> None:
    joint = joint_of("cumulative")
    beta = parameters_of(joint).beta
    step = torch.zeros_like(beta)
    step[0], step[2] = 9.0, -7.0
    share = joint.admissible_step(beta, step)
    assert 0 < share < 1
    assert bool((torch.diff(beta[:3, 0] + share * step[:3, 0]) > 0).all())
    assert joint.admissible_step(beta, -0.01 * step) == 1.0


def fit(formula: str, **options: Any) -> gn.GLMMNetResults:
    return gn.glmm(formula, DATA, **options).fit(**QUICK)


def test_two_ordered_classes_are_a_binary_response() -> None:
    """P(Y <= no) = P(high = 0): the threshold is minus the intercept."""
    ordinal = fit("binary ~ x + (1 | g)", family="cumulative")
    binary = fit("high ~ x + (1 | g)", family="bernoulli")
    assert ordinal.params.index.tolist() == ["no|yes", "x"]
    np.testing.assert_allclose(ordinal.params * [-1, 1], binary.params, atol=1e-3)
    np.testing.assert_allclose(ordinal.bse, binary.bse, rtol=1e-3)
    np.testing.assert_allclose(ordinal.vcomp["sd"], binary.vcomp["sd"], rtol=1e-3)
    assert ordinal.llf == pytest.approx(binary.llf, abs=1e-4)
    mean = ordinal.predict(level="marginal")
    np.testing.assert_allclose(mean["yes"], binary.predict(level="marginal"), atol=1e-3)


def test_a_constant_dispersion_formula_is_the_gaussian_model() -> None:
    plain, modelled = fit("y ~ x + (1 | g)"), fit("y ~ x + (1 | g)", dispersion="~ 1")
    assert modelled.params.index.tolist() == ["Intercept", "x", "dispersion:Intercept"]
    np.testing.assert_allclose(modelled.params, [*plain.params, np.log(plain.scale)], atol=1e-3)
    np.testing.assert_allclose(modelled.bse[:2], plain.bse, rtol=0.01)
    assert modelled.llf == pytest.approx(plain.llf, abs=1e-3)
    assert fit("y ~ x + (1 | g)", dispersion="~ x").llf > plain.llf + 5


def heavy_tailed(df: float) -> pd.DataFrame:
    """60 levels of 30 rows, an effect x of 1/2, noise of scale 0.7."""
    rng = np.random.default_rng(SEED)
    g, x = np.repeat(np.arange(60), 30), rng.normal(size=1800)
    noise = rng.standard_t(df, size=1800) if np.isfinite(df) else rng.normal(size=1800)
    effects = 0.8 * rng.normal(size=60)[g]
    return pd.DataFrame({"x": x, "g": g, "y": 1 + 0.5 * x + effects + 0.7 * noise, "level": 1 + 0.5 * x + 0.7 * noise})


STUDENT = gn.families.StudentT(df=None)


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_degrees_of_freedom_are_recovered_in_whatever_unit(unit: float) -> None:
    data = heavy_tailed(4.0)
    results = gn.glmm("y ~ x + (1 | g)", data.assign(y=unit * data["y"]), family=STUDENT).fit(**QUICK)
    assert results.converged
    truth = {"Intercept": unit, "x": 0.5 * unit, "df:Intercept": np.log(4.0)}
    assert results.params.index.tolist() == list(truth)
    assert (abs(results.params - pd.Series(truth)) < 2 * results.bse).all()
    assert results.bse["df:Intercept"] < 0.2
    assert abs(np.log(results.scale / (0.7 * unit) ** 2)) < 2 * results.dispersion["se"] / results.scale
    assert results.predict().ndim == 1
    assert np.isfinite(results.resid_deviance).all()


def test_degrees_of_freedom_without_random_effects_are_scipys() -> None:
    data = heavy_tailed(4.0)
    results = gn.glmm("level ~ x", data, family=STUDENT).fit(**QUICK)
    y, x = torch.tensor(data["level"].to_numpy()), torch.tensor(data["x"].to_numpy())

    def loss(p: np.ndarray) -> float:
        return -float(scipy.stats.t.logpdf(y, np.exp(p[2]), p[0] + p[1] * x, np.exp(p[3])).sum())

    best = scipy.optimize.minimize(loss, [1.0, 0.5, 2.0, 0.0], method="Nelder-Mead", options={"fatol": 1e-9}).x
    np.testing.assert_allclose(results.params, best[:3], atol=1e-3)
    assert results.llf == pytest.approx(-loss(best), abs=1e-4)

    def negative(p: torch.Tensor) -> torch.Tensor:
        return -torch.distributions.StudentT(p[2].exp(), p[0] + p[1] * x, p[3].exp()).log_prob(y).sum()

    hessian = torch.autograd.functional.hessian(negative, torch.as_tensor(best))
    errors = torch.linalg.inv(hessian).diagonal().sqrt()
    # The error of df knows that phi is estimated: with phi known it is 0.08 instead of 0.11.
    np.testing.assert_allclose(results.bse, errors[:3], rtol=0.03)
    assert results.dispersion["se"] / results.scale == pytest.approx(2 * float(errors[3]), rel=0.03)


@pytest.mark.parametrize(("formula", "plain"), [("y ~ x + (1 | g)", 0.01), ("level ~ x", 1e-3)])
def test_degrees_of_freedom_of_normal_data_end_far_out(formula: str, plain: float) -> None:
    data = heavy_tailed(np.inf)
    # Lighter tails than a normal distribution's, so that df has no finite estimate.
    data["level"] = np.sign(data["level"]) * abs(data["level"]) ** 0.9
    results = gn.glmm(formula, data, family=STUDENT).fit(**QUICK)
    gaussian = gn.glmm(formula, data).fit(**QUICK)
    assert results.converged
    assert results.params["df:Intercept"] > np.log(100.0)
    np.testing.assert_allclose(results.params[:2], gaussian.params, atol=plain)
    assert results.llf == pytest.approx(gaussian.llf, abs=0.05)
    assert np.isfinite(results.bse).all()
    # The data say that df is large, not how large.
    assert results.bse["df:Intercept"] > 1.0


def test_the_zero_part_of_a_hurdle_is_a_binary_model() -> None:
    hurdle = fit("count ~ x", family="hurdlepoisson", zi="~ x")
    zero = gn.glmm("zero ~ x", DATA.assign(zero=(DATA["count"] == 0).astype(int)), family="bernoulli").fit(**QUICK)
    np.testing.assert_allclose(hurdle.params[["zi:Intercept", "zi:x"]], zero.params, atol=1e-4)
    np.testing.assert_allclose(hurdle.bse[["zi:Intercept", "zi:x"]], zero.bse, rtol=1e-3)


PLAIN = {"zeroinflatedpoisson": "poisson", "zeroinflatednegativebinomial": "negativebinomial"}


@pytest.mark.parametrize("formula", ["k ~ x", "k ~ x + (1 | g)"])
@pytest.mark.parametrize("family", PLAIN)
def test_zero_inflation_of_0_is_told_and_leaves_the_other_estimates_alone(family: str, formula: str) -> None:
    rng = np.random.default_rng(SEED)
    exact = "|" not in formula
    mean = np.exp(1.2 + 0.3 * DATA["x"] + (0.0 if exact else 0.5) * rng.normal(size=12)[DATA["g"]])
    # Ones instead of some zeros: fewer zeros than a count family has.
    counts = rng.poisson(mean) if family == "zeroinflatedpoisson" else rng.negative_binomial(3, 3 / (3 + mean))
    data = DATA.assign(k=np.where((counts == 0) & (DATA["h"] < 4), 1, counts))
    with pytest.warns(gn.errors.ConvergenceWarning, match=rf"'zi' is estimated as 0 .* zi:Intercept .*{PLAIN[family]}"):
        results = gn.glmm(formula, data, family).fit(**QUICK)
    plain = gn.glmm(formula, data, PLAIN[family]).fit(**QUICK)
    assert "No estimate of the part 'zi'" in str(results.summary())
    assert results.converged
    assert results.params["zi:Intercept"] < -15
    # Newton's method ends the plain fit, Monte Carlo EM the other.
    errors = results.bse[plain.params.index]
    np.testing.assert_allclose(
        (results.params[plain.params.index] - plain.params) / errors, 0, atol=1e-4 if exact else 0.1
    )
    assert results.scale == pytest.approx(plain.scale, rel=1e-4 if exact else 0.05)
    np.testing.assert_allclose(results.vcomp["sd"].astype(float), plain.vcomp["sd"].astype(float), rtol=0.05)
    assert results.llf == pytest.approx(plain.llf, abs=1e-6 if exact else 0.05)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3])
def test_zero_inflation_is_no_false_alarm(share: float) -> None:
    """Down to a single zero among counts that have none; a warning would be an error."""
    rng = np.random.default_rng(SEED)
    counts = rng.poisson(np.exp(3 + 0.1 * DATA["x"])) * (rng.random(len(DATA)) >= share)
    counts[0] = 0
    results = gn.glmm("k ~ x", DATA.assign(k=counts), "zeroinflatedpoisson").fit(**QUICK)
    assert results.fitted.vanished is None
    zeros = np.mean(counts == 0)
    assert results.params["zi:Intercept"] == pytest.approx(np.log(zeros / (1 - zeros)), abs=1e-3)
    assert "No estimate" not in str(results.summary())


def test_two_correlated_classes_are_a_binary_response() -> None:
    family = gn.families.Categorical(reference="no", class_cov="us")
    classes, binary = fit("binary ~ x + (1 | g)", family=family), fit("high ~ x + (1 | g)", family="bernoulli")
    np.testing.assert_allclose(classes.params["yes"], binary.params, atol=1e-3)
    np.testing.assert_allclose(classes.vcomp["sd"], binary.vcomp["sd"], rtol=1e-3)
    assert classes.llf == pytest.approx(binary.llf, abs=1e-4)


def test_every_path_of_the_results_knows_the_zero_part() -> None:
    results = fit("count ~ x + (1 | g)", family="zeroinflatedpoisson", zi="~ x + (1 | g)")
    assert results.params.index.tolist() == ["Intercept", "x", "zi:Intercept", "zi:x"]
    assert results.vcomp["term"].tolist() == ["(Intercept)", "zi:(Intercept)"]
    new = DATA.head(4).assign(g=[0, 99, 3, 4])
    for level in ("conditional", "population", "marginal"):
        assert np.isfinite(results.predict(new, level=level)).all()
        assert np.isfinite(results.get_prediction(new, level=level).summary_frame()).all(axis=None)
        assert results.simulate(2, level=level).shape == (len(DATA), 2)
    assert results.predict(new, kind="link").columns.tolist() == ["count", "zi"]
    assert {"1|g", "zi:1|g"} == set(results.to_arviz()["posterior"].data_vars)
    assert np.isfinite(results.resid_pearson).all()
    assert np.isfinite(results.resid_deviance).all()
    assert "zi:x" in str(results.summary())


@pytest.mark.parametrize("family", ["zeroinflatedpoisson", "hurdlepoisson"])
def test_pearson_residuals_where_a_single_row_moves_its_effect(family: str) -> None:
    """The squared mean over the draws of such a row's effect lies above the second moment at their centre."""
    rng = np.random.default_rng(1)
    g = np.concatenate([np.arange(60), np.repeat(np.arange(100, 170), 2)])
    effects = 0.7 * rng.normal(size=170)
    count = rng.poisson(np.exp(3 + effects[g])) * (rng.random(200) > 0.1)
    results = gn.glmm("count ~ 1 + (1 | g)", pd.DataFrame({"count": count, "g": g}), family).fit(**QUICK)
    pearson = results.resid_pearson
    assert pearson.abs().max() < 5
    assert 0.5 < pearson.std() < 1.2


def test_separated_ordered_classes_have_no_estimate() -> None:
    data = DATA.assign(above=(DATA["rating"].astype(int) > 1).astype(float))
    with pytest.warns(gn.errors.ConvergenceWarning, match=r"separated by .*above"):
        results = gn.glmm("rating ~ x + above", data, family="cumulative").fit(**QUICK)
    assert not results.converged


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"formula": "count ~ x", "family": "poisson", "zi": "~ x"}, gn.errors.FormulaError, "no zero part"),
        ({"formula": "high ~ x", "family": "bernoulli", "dispersion": "~ x"}, gn.errors.FormulaError, "no dispersion"),
        ({"formula": "count ~ x", "family": "hurdlepoisson", "zi": "x"}, gn.errors.FormulaError, "without a response"),
        (
            {"formula": "count ~ x", "family": "hurdlepoisson", "zi": "~ offset(x)"},
            gn.errors.FormulaError,
            "only in the main formula",
        ),
        ({"formula": "kind ~ x", "family": "cumulative"}, gn.errors.DesignError, "without an order"),
        ({"formula": "rating ~ 0 + x", "family": "cumulative"}, gn.errors.DesignError, "place of the intercept"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    options = dict(options)
    with pytest.raises(error, match=message):
        gn.glmm(options.pop("formula"), DATA, **options)


def test_counts_without_zeros_have_no_zero_part() -> None:
    with pytest.raises(gn.errors.DesignError, match=r"has no zeros.*use family='poisson'"):
        gn.glmm("above ~ x", DATA.assign(above=DATA["count"] + 1), family="zeroinflatedpoisson")


def test_order_may_be_given() -> None:
    family = gn.families.Cumulative(order=["c", "a", "b"])
    model = gn.glmm("kind ~ x", DATA, family=family)
    assert model._joint.target.labels == ("c", "a", "b")
    assert model._joint.x_names[:2] == ("c|a", "a|b")
    with pytest.raises(gn.errors.DesignError, match="outside of order"):
        gn.glmm("kind ~ x", DATA, family=gn.families.Cumulative(order=["a", "b"]))


def test_correlated_classes_need_a_reference() -> None:
    with pytest.raises(ValueError, match="reference"):
        gn.families.Categorical(class_cov="us")
