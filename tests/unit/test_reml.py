"""REML: beta integrated out of the exact Gaussian likelihood."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from _fits import dense, frame, gaussian

import glmmnet as gn
from glmmnet.em.loop import starting_parameters
from glmmnet.errors import FitError
from glmmnet.exact import GaussianLikelihood
from glmmnet.joint import JointModel
from glmmnet.scoring import VarianceScoring

FORMULA = "y ~ x + (x | g) + (1 | h)"


def criterion(y, x, v):
    """-2 log of the normal density of y with beta integrated out over a flat prior, dense."""
    inverse = np.linalg.inv(v)
    information = x.T @ inverse @ x
    left = y - x @ np.linalg.solve(information, x.T @ inverse @ y)
    n, p = x.shape
    log_dets = np.linalg.slogdet(v)[1] + np.linalg.slogdet(information)[1]
    return (n - p) * np.log(2 * np.pi) + log_dets + left @ inverse @ left


def test_likelihood_is_that_of_the_dense_formula():
    r = gaussian(FORMULA, reml=True)
    x, z, covariance = dense(r)
    v = z @ covariance @ z.T + r.scale * np.eye(len(x))
    assert r.llf == pytest.approx(-0.5 * criterion(frame()["y"].to_numpy(), x, v), abs=1e-6)
    assert (r.llf_method, r.reml) == ("reml", True)
    assert r.loglike("exact") == pytest.approx(gaussian(FORMULA).loglike("exact"), abs=1.0)
    assert r.loglike("exact") < gaussian(FORMULA).llf
    np.testing.assert_allclose(r.cov_params(), np.linalg.inv(x.T @ np.linalg.solve(v, x)), rtol=1e-6)


def test_no_variances_are_better():
    r = gaussian("y ~ x + (1 | g)", reml=True)
    data = frame()
    x, y = np.column_stack([np.ones(300), data["x"]]), data["y"].to_numpy()
    same = (data["g"].to_numpy()[:, None] == data["g"].to_numpy()).astype(float)

    def deviance(log_sd):
        return criterion(y, x, np.exp(2 * log_sd[0]) * same + np.exp(2 * log_sd[1]) * np.eye(300))

    best = scipy.optimize.minimize(deviance, np.log(r.vcomp["sd"].to_numpy()) + 0.2, tol=1e-10)
    np.testing.assert_allclose(r.vcomp["sd"], np.exp(best.x), rtol=1e-4)
    f, h = deviance, 0.01 * np.eye(2)
    hessian = [[f(best.x + a + b) - f(best.x + a - b) - f(best.x - a + b) + f(best.x - a - b) for a in h] for b in h]
    variance = np.diag(np.linalg.inv(np.array(hessian) / 8e-4))
    np.testing.assert_allclose(r.vcomp["se"] / r.vcomp["sd"], np.sqrt(variance), rtol=2e-3)


def test_without_random_effects_the_variance_is_unbiased():
    r = gn.glmm("y ~ x + z", data=frame()).fit(seed=1, reml=True)
    x, y = np.column_stack([np.ones(300), frame()[["x", "z"]]]), frame()["y"].to_numpy()
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert r.scale == pytest.approx(left @ left / 297, rel=1e-9)
    assert r.llf == pytest.approx(-0.5 * criterion(y, x, r.scale * np.eye(300)), abs=1e-6)


def test_frequency_weights_count_as_repeated_rows():
    data = frame()
    weighted = gn.glmm("y ~ x + (1 | g)", data=data, weights="w").fit(seed=1, reml=True)
    repeated = gn.glmm("y ~ x + (1 | g)", data=data.loc[data.index.repeat(data["w"])]).fit(seed=1, reml=True)
    np.testing.assert_allclose(weighted.vcomp[["sd", "se"]], repeated.vcomp[["sd", "se"]], rtol=1e-4)
    assert weighted.llf == pytest.approx(repeated.llf, abs=1e-6)


def test_a_column_that_others_imply_changes_nothing():
    with pytest.warns(gn.errors.DataWarning, match="collinear"):
        model = gn.glmm("y ~ x + twice + (1 | g)", data=frame().assign(twice=2 * frame()["x"]))
    r, plain = model.fit(seed=1, reml=True), gaussian("y ~ x + (1 | g)", reml=True)
    assert r.llf == pytest.approx(plain.llf, abs=1e-6)
    np.testing.assert_allclose(r.vcomp["sd"], plain.vcomp["sd"], rtol=1e-5)


def test_scoring_knows_what_beta_takes():
    model = gn.glmm("y ~ x + z + C(h) + (1 | g) + (0 + x | g)", data=frame(), weights="w")
    joint = JointModel.from_design(model.design, model.family)
    torch.manual_seed(0)
    scoring = VarianceScoring(joint, None, reml=True)
    psi = scoring._psi(starting_parameters(joint)) - np.array([0.3, 0.0, 0.1])
    share, h = scoring._beta_share(psi, scoring._point(psi)), 1e-5

    def log_det(psi):
        return np.linalg.slogdet(scoring._point(psi).cross)[1]

    slopes = [(log_det(psi + h * e) - log_det(psi - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(share, -0.5 * np.array(slopes), rtol=1e-6)
    exact = GaussianLikelihood(joint, reml=True)
    start = starting_parameters(joint)
    last = list(scoring.run(start, 40, 1e-3))[-1].params
    best = exact.maximise(start)
    deviances = [exact.profile(exact.theta(p), p.phi).deviance for p in (last, best)]
    assert deviances[0] == pytest.approx(deviances[1], abs=0.01)


def test_the_summary_says_so():
    text = str(gaussian("y ~ x + (1 | g)", reml=True).summary())
    assert "REML (exact)" in text and "REML Log-Lik.:" in text
    assert "REML" not in str(gaussian("y ~ x + (1 | g)").summary())


@pytest.mark.parametrize(
    ("formula", "family", "options", "message"),
    [
        ("b ~ x + (1 | g)", "bernoulli", {}, "gaussian.*Bernoulli"),
        ("y ~ nn(x) + (1 | g)", "gaussian", {}, r"without nn\(\)"),
        ("y ~ x + (1 | g)", "gaussian", {"sampler": "nuts"}, "leave sampler='nuts' out"),
        ("y ~ x + (x | g) + (1 | h)", "gaussian", {"exact_limit": 1}, "exact_limit=1"),
    ],
)
def test_refused_where_beta_cannot_be_integrated_out(formula, family, options, message):
    with pytest.raises(FitError, match=message):
        gn.glmm(formula, data=frame(), family=family).fit(seed=1, reml=True, **options)


def test_likelihoods_of_different_fixed_effects_do_not_compare():
    big, small = gaussian(FORMULA, reml=True), gaussian("y ~ 1 + (x | g) + (1 | h)", reml=True)
    with pytest.raises(ValueError, match="different fixed effects"):
        big.compare_lr_test(small)
    with pytest.raises(ValueError, match="the other by ML"):
        big.compare_lr_test(gaussian("y ~ x + (1 | g)"))
    assert big.compare_lr_test(gaussian("y ~ x + (1 | g)", reml=True)).df == 3
    with pytest.raises(FitError, match="method='reml'"):
        gn.glmm("b ~ x + (1 | g)", data=frame(), family="bernoulli").fit(seed=1).loglike("reml")
    with pytest.raises(TypeError, match="reml='yes'"):
        gn.glmm("y ~ x", data=frame()).fit(reml="yes")


def test_random_effects_are_exact():
    """No Monte Carlo error where the posterior is known."""
    r, again = gaussian(FORMULA), gaussian(FORMULA, seed=2)
    for group in ("g", "h"):
        np.testing.assert_allclose(r.random_effects[group], again.random_effects[group], atol=1e-9)
        np.testing.assert_allclose(r.random_effects_sd[group], again.random_effects_sd[group], rtol=1e-9)
    np.testing.assert_allclose(r.fittedvalues, again.fittedvalues, atol=1e-5)
    x, z, covariance = dense(r)
    precision = z.T @ z / r.scale + np.linalg.inv(covariance)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    np.testing.assert_allclose(r.random_effects_sd["h"].iloc[:, 0], sd[24:], rtol=1e-6)
    residual = frame()["y"].to_numpy() - x @ r.params.to_numpy()
    np.testing.assert_allclose(
        r.random_effects["h"].iloc[:, 0], np.linalg.solve(precision, z.T @ residual / r.scale)[24:], rtol=1e-6
    )
