"""Standard errors against dense formulas and numerical derivatives."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from _fits import QUICK, bernoulli, categorical, dense, frame, gaussian, network

import glmmnet as gn
from glmmnet import marginal
from glmmnet.fixed_errors import fixed_covariance
from glmmnet.information import observed_information
from glmmnet.likelihood import log_likelihood
from glmmnet.quadrature import derivative_nodes, second_order
from glmmnet.variance import active_parameters, shifted
from glmmnet.variance_errors import _inverse, variance_errors


def test_cov_params_is_generalised_least_squares():
    r = gaussian()
    x, z, covariance = dense(r)
    v = z @ covariance @ z.T + r.scale * np.eye(len(x))
    np.testing.assert_allclose(r.cov_params(), np.linalg.inv(x.T @ np.linalg.solve(v, x)), rtol=1e-8)
    np.testing.assert_allclose(r.bse, np.sqrt(np.diag(r.cov_params())))


def test_weights_count_as_repeated_rows():
    data = frame()
    weighted = gn.glmm("y ~ x + (1 | g)", data=data, weights="w").fit(seed=1)
    repeated = gn.glmm("y ~ x + (1 | g)", data=data.loc[data.index.repeat(data["w"])]).fit(seed=1)
    np.testing.assert_allclose(weighted.params, repeated.params, rtol=1e-6)
    np.testing.assert_allclose(weighted.bse, repeated.bse, rtol=1e-4)
    np.testing.assert_allclose(weighted.vcomp["sd"], repeated.vcomp["sd"], rtol=1e-4)
    np.testing.assert_allclose(weighted.vcomp["se"], repeated.vcomp["se"], rtol=1e-2)
    assert weighted.llf == pytest.approx(repeated.llf, abs=1e-6)


def test_logistic_regression_without_random_effects():
    r = bernoulli("b ~ x")
    x, y = np.column_stack([np.ones(300), frame()["x"]]), frame()["b"].to_numpy()
    best = scipy.optimize.minimize(lambda beta: np.logaddexp(0, x @ beta).sum() - y @ x @ beta, np.zeros(2), tol=1e-10)
    p = 1 / (1 + np.exp(-x @ best.x))
    np.testing.assert_allclose(r.params, best.x, atol=1e-5)
    np.testing.assert_allclose(r.cov_params(), np.linalg.inv((x.T * (p * (1 - p))) @ x), rtol=1e-4)


def test_bernoulli_errors_follow_the_curvature_of_the_marginal_likelihood():
    r = gn.glmm("b ~ x + (1 | g)", data=frame(), family="bernoulli").fit(seed=1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    weights = weights / weights.sum()
    x, y = frame()["x"].to_numpy(), frame()["b"].to_numpy()
    member = frame()["g"].to_numpy()[:, None] == np.unique(frame()["g"])

    def minus_log_likelihood(theta):
        eta = (theta[0] + theta[1] * x)[:, None] + np.exp(theta[2]) * nodes
        by_level = member.T.astype(float) @ (y[:, None] * eta - np.logaddexp(0, eta))
        return -np.log(np.exp(by_level) @ weights).sum()

    best = scipy.optimize.minimize(minus_log_likelihood, [0.5, 1, 0], tol=1e-9)
    np.testing.assert_allclose(r.params, best.x[:2], atol=0.03)
    assert r.vcomp["sd"][0] == pytest.approx(np.exp(best.x[2]), rel=0.05)
    h = 1e-3
    steps = h * np.eye(3)
    hessian = np.array(
        [
            [
                minus_log_likelihood(best.x + a + b)
                - minus_log_likelihood(best.x + a - b)
                - minus_log_likelihood(best.x - a + b)
                + minus_log_likelihood(best.x - a - b)
                for a in steps
            ]
            for b in steps
        ]
    ) / (4 * h**2)
    inverse = np.linalg.inv(hessian)
    np.testing.assert_allclose(r.bse, np.sqrt(np.diag(inverse))[:2], rtol=0.02)
    assert r.vcomp["se"][0] / r.vcomp["sd"][0] == pytest.approx(np.sqrt(inverse[2, 2]), rel=0.05)


@pytest.mark.parametrize(
    ("formula", "family"),
    [
        ("b ~ x + (x | g)", "bernoulli"),
        ("p(k, m) ~ x + (0 + x | g)", "binomial"),
        ("c ~ 1 + (1 | g)", gn.families.Categorical(reference="bb")),
        ("b ~ 0 + (1 | g)", "bernoulli"),
    ],
)
def test_observed_information_is_the_curvature_of_the_marginal_likelihood(formula, family):
    fitted = gn.glmm(formula, data=frame(), family=family, weights="w").fit(**QUICK).fitted.centred
    joint, size = fitted.joint, fitted.params.beta.numel()
    active = active_parameters(joint, fitted.params)

    def at(shift):
        params = shifted(fitted.joint, fitted.params, active, shift[size:])
        return replace(params, beta=params.beta + torch.tensor(shift[:size]).reshape(params.beta.shape))

    def minus_log_likelihood(shift):
        return -log_likelihood(joint, at(shift), method="agq").value

    # Louis' formula is the curvature at the maximum alone, and a quick fit is not there.
    best = scipy.optimize.minimize(minus_log_likelihood, np.zeros(size + len(active)), method="BFGS", tol=1e-3).x
    steps = 0.01 * np.eye(len(best))
    f = minus_log_likelihood
    hessian = [[f(best + s + t) - f(best + s - t) - f(best - s + t) + f(best - s - t) for s in steps] for t in steps]
    fitted = replace(fitted, params=at(best), inner=at(best))
    nodes = derivative_nodes(joint, size + len(active))
    found = second_order(joint, fitted.working, None, joint.columns, active, nodes).information
    np.testing.assert_allclose(found, np.array(hessian) / 4e-4, rtol=0.01, atol=0.02)
    variance = np.linalg.pinv(found.numpy(), hermitian=True)
    np.testing.assert_allclose(
        variance_errors(fitted, observed_information(fitted)).se, np.sqrt(np.diag(variance))[size:], rtol=1e-6
    )
    covariance = fixed_covariance(fitted, observed_information(fitted))
    assert covariance.kind == ("observed" if size else "marginal")
    np.testing.assert_allclose(covariance.matrix, variance[:size, :size], rtol=1e-6, atol=1e-9)


def test_information_that_is_not_positive_gives_way_to_the_marginal_one():
    """Far from a maximum Louis' difference may be negative."""
    r = bernoulli()
    far = replace(r.fitted.params, sigma=(1e-3 * r.fitted.params.sigma[0],), beta=r.fitted.params.beta - 3.0)
    moved = replace(r.fitted, params=far, inner=far)
    assert r._fixed_covariance.kind == "observed"
    assert fixed_covariance(moved, observed_information(moved)).kind == "marginal"
    assert bool((fixed_covariance(moved, observed_information(moved)).matrix.diagonal() > 0).all())


def test_variance_errors_are_the_curvature_of_the_exact_likelihood():
    r = gaussian("y ~ x + (1 | g)")
    data = frame()
    x = np.column_stack([np.ones(300), data["x"]])
    same = (data["g"].to_numpy()[:, None] == data["g"].to_numpy()).astype(float)

    def deviance(log_sd):
        v = np.exp(2 * log_sd[0]) * same + np.exp(2 * log_sd[1]) * np.eye(300)
        beta = np.linalg.solve(x.T @ np.linalg.solve(v, x), x.T @ np.linalg.solve(v, data["y"]))
        return -scipy.stats.multivariate_normal.logpdf(data["y"], x @ beta, v)

    at, h = np.log(r.vcomp["sd"].to_numpy()), 0.01
    e = h * np.eye(2)
    hessian = np.array([[deviance(at + a + b) - deviance(at + a - b) - deviance(at - a + b) + deviance(at - a - b)
                         for a in e] for b in e]) / (4 * h**2)  # fmt: skip
    np.testing.assert_allclose(r.vcomp["se"] / r.vcomp["sd"], np.sqrt(np.diag(np.linalg.inv(hessian))), rtol=2e-3)


def test_a_few_draws_do_not_pass_for_information():
    """The spread of four draws may be small by chance."""
    model = gn.glmm("b ~ x + (1 | g) + (1 | h)", data=frame(), family="bernoulli")
    fitted = model.fit(**QUICK).fitted
    draws, expected = fitted.draws.b, variance_errors(fitted, None).se
    for first in range(0, 60, 4):
        few = replace(fitted, draws=replace(fitted.draws, b=draws[:, :, first : first + 4]))
        np.testing.assert_allclose(variance_errors(few, None).se, expected, rtol=0.1)


def test_conjugate_gradients_agree_with_cholesky(monkeypatch):
    for r in (gaussian(), categorical("bb")):
        exact = fixed_covariance(r.fitted, observed_information(r.fitted))
        monkeypatch.setattr(marginal, "has_factor", lambda joint: False)
        other = fixed_covariance(r.fitted, observed_information(r.fitted))
        monkeypatch.undo()
        torch.testing.assert_close(other.matrix, exact.matrix, rtol=1e-6, atol=1e-10)
        torch.testing.assert_close(other.pull, exact.pull, rtol=1e-5, atol=1e-8)


def test_a_column_far_from_zero_keeps_its_errors():
    r = gaussian("y ~ x + (1 | g)")
    joint = r.fitted.joint
    moved = replace(r.fitted, joint=replace(joint, X=joint.X + torch.tensor([0.0, 1e6])))
    assert fixed_covariance(moved, observed_information(moved)).matrix[1, 1].sqrt() == pytest.approx(
        r.bse["x"], rel=1e-6
    )


def test_the_intercept_of_a_centred_network_has_the_error_of_a_mean():
    r = network("y ~ nn(x + z)")
    assert r.bse["Intercept"] == pytest.approx(np.sqrt(r.scale / r.nobs), rel=0.01)


def test_symmetric_classes_have_errors_that_sum_to_zero():
    r = categorical()
    matrix = r.cov_params().to_numpy().reshape(2, 3, 2, 3)
    np.testing.assert_allclose(matrix.sum(axis=1), 0, atol=1e-8)
    assert (r.bse.to_numpy() > 0).all()


@pytest.fixture(scope="module")
def singular():
    rng = np.random.default_rng(3)
    data = frame().assign(y=frame()["y"] - 0.3 * rng.normal(size=300))
    effect = dict(zip([f"g{i}" for i in range(12)], rng.normal(size=12), strict=True))
    b = data["g"].map(effect)
    # Slope and intercept are the same effect: correlation 1.
    return gn.glmm("y ~ x + (x | g)", data=data.assign(y=b + b * data["x"] + rng.normal(size=300))).fit(seed=1)


def test_a_correlation_of_one_leaves_the_other_errors(singular):
    assert singular.singular
    assert (singular.vcomp["se"] > 0).all()
    assert "nan" in str(singular.summary()) and "Singular fit" in str(singular.summary())


def test_inverse_drops_what_makes_the_information_indefinite():
    information_ = np.diag([4.0, -1.0, 2.0])
    known, covariance = _inverse(information_, np.arange(3))
    assert known.tolist() == [0, 2]
    np.testing.assert_allclose(covariance, np.diag([0.25, 0.5]))


def test_inverse_of_correlated_parameters():
    matrix = np.array([[2.0, 1.0], [1.0, 3.0]])
    known, covariance = _inverse(matrix, np.arange(2))
    assert known.tolist() == [0, 1]
    np.testing.assert_allclose(covariance, np.linalg.inv(matrix))
