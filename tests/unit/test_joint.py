"""The joint density against a dense Z and finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from glmmnet.families import Categorical
from glmmnet.joint import Parameters, away_from_singular

MODELS = {
    "one factor": ("bernoulli", (7, 1)),
    "slopes": ("gaussian", (7, 3)),
    "one slope, no intercept column of ones": ("gaussian", (5, 2, "diag")),
    "crossed, slopes": ("binomial", (6, 2), (9, 1)),
    "three factors": ("gaussian", (6, 1), (9, 2, "diag"), (4, 1)),
    "three classes": ("categorical", (6, 1), (5, 2)),
    "related levels": ("binomial", (6, 2, "us", "related"), (9, 1)),
    "related levels, classes": ("categorical", (6, 1), (5, 2, "cs", "related")),
    "reference class": (Categorical(reference="a"), (6, 2)),
}
every_model = pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))

pytestmark = pytest.mark.usefixtures("seeded")


def some_b(joint, draws=2):
    return torch.randn(joint.n_effects, joint.n_classes, draws, dtype=torch.float64)


@every_model
def test_eta_is_fixed_part_plus_z_b(spec, joint_of, parameters_of, dense_z):
    joint = joint_of(*spec, offset=True)
    params, b, z = parameters_of(joint), some_b(joint), dense_z(joint)
    f = torch.randn(joint.n, joint.n_classes, dtype=torch.float64)
    eta = joint.fixed_eta(params, f) + joint.random_eta(b)
    expected = (joint.X @ params.beta + f + joint.offset[:, :, 0]).numpy()[:, :, None]
    np.testing.assert_allclose(eta, expected + np.einsum("nq,qcs->ncs", z, b.numpy()), atol=1e-12)
    assert float(joint.offset.abs().max()) > 0
    assert eta.shape == (joint.n, joint.n_classes, 2)


@every_model
def test_transpose_is_the_adjoint(spec, joint_of, dense_z):
    joint = joint_of(*spec)
    b, v = some_b(joint), torch.randn(joint.n, joint.n_classes, 2, dtype=torch.float64)
    pulled = joint.random_transpose(v)
    np.testing.assert_allclose(pulled, np.einsum("nq,ncs->qcs", dense_z(joint), v.numpy()), atol=1e-12)
    assert float((joint.random_eta(b) * v).sum()) == pytest.approx(float((b * pulled).sum()), rel=1e-12)


@every_model
def test_no_draws_are_as_good_as_any(spec, joint_of):
    joint = joint_of(*spec)
    nothing = some_b(joint)[:, :, :0]
    assert joint.random_eta(nothing).shape == (joint.n, joint.n_classes, 0)
    assert joint.random_transpose(joint.random_eta(nothing)).shape == nothing.shape


@every_model
def test_sparse_z_is_the_dense_one(spec, joint_of, dense_z):
    joint = joint_of(*spec)
    np.testing.assert_array_equal(joint.z_matrix.toarray(), dense_z(joint))


@every_model
def test_information_and_precision(spec, joint_of, parameters_of, dense_z, dense_prior):
    joint = joint_of(*spec)
    params, z, c = parameters_of(joint), dense_z(joint), joint.n_classes
    weight = joint.weight(torch.randn(joint.n, c, 1, dtype=torch.float64), params.phi)[..., 0]
    expected = np.einsum("nq,ncd,np->qcpd", z, weight.numpy(), z).reshape(len(z.T) * c, -1)
    np.testing.assert_allclose(joint.information(weight).toarray(), expected, atol=1e-12)
    precision = joint.precision_matrix(params).toarray()
    np.testing.assert_allclose(precision @ dense_prior(joint, params), np.eye(len(precision)), atol=1e-6)
    assert [s.start for s in joint.segments] == [t.start * c for t in joint.terms]
    assert sum(s.size for s in joint.segments) == len(precision)


@every_model
def test_prior_is_the_normal_density(spec, joint_of, parameters_of, dense_prior):
    joint = joint_of(*spec)
    params, b = parameters_of(joint), some_b(joint)
    kernel, pulled = joint.prior(b, joint.precisions(params))
    covariance = dense_prior(joint, params)
    flat = b.flatten(0, 1).numpy()
    expected = scipy.stats.multivariate_normal(cov=covariance).logpdf(flat.T)
    np.testing.assert_allclose(kernel + joint.prior_log_normalizer(params), expected, rtol=1e-6)
    np.testing.assert_allclose(pulled.flatten(0, 1), np.linalg.solve(covariance, flat), rtol=1e-5, atol=1e-6)


@every_model
def test_weights_multiply_each_rows_log_density(spec, joint_of, parameters_of):
    weights = np.random.default_rng(3).uniform(0.2, 3.0, 60)
    joint = joint_of(*spec, weights=weights)
    params, b = parameters_of(joint), some_b(joint)
    eta = joint.fixed_eta(params) + joint.random_eta(b)
    each = joint.family.log_prob(eta, joint.target.y, params.phi)
    np.testing.assert_allclose(joint.log_likelihood(eta, params.phi), weights @ each.numpy(), rtol=1e-12)
    plain = replace(joint, weights=torch.ones(60, dtype=torch.float64))
    ratio = joint.weight(eta, params.phi) / plain.weight(eta, params.phi)
    np.testing.assert_allclose(ratio[:, 0, 0, 0], weights, rtol=1e-12)


@every_model
@pytest.mark.parametrize("weighted", [False, True])
def test_score_against_finite_differences(spec, weighted, joint_of, parameters_of):
    weights = np.random.default_rng(3).uniform(0.2, 3.0, 60) if weighted else None
    joint = joint_of(*spec, weights=weights)
    params, b, direction = parameters_of(joint), some_b(joint, 1), some_b(joint, 1)
    fixed, precisions, h = joint.fixed_eta(params), joint.precisions(params), 1e-5

    def value(b):
        eta = fixed + joint.random_eta(b)
        return joint.log_likelihood_and_score(eta, params.phi)[0] + joint.prior(b, precisions)[0]

    _, score = joint.log_likelihood_and_score(fixed + joint.random_eta(b), params.phi)
    gradient = joint.random_transpose(score) - joint.prior(b, precisions)[1]
    slope = (value(b + h * direction) - value(b - h * direction)) / (2 * h)
    assert float(slope) == pytest.approx(float((gradient * direction).sum()), rel=1e-7)


def test_value_beside_the_score_differs_by_a_constant(joint_of, parameters_of):
    joint = joint_of("binomial", (6, 1))
    params = parameters_of(joint)
    eta = joint.fixed_eta(params) + joint.random_eta(some_b(joint, 4))
    difference = joint.log_likelihood(eta, 1.0) - joint.log_likelihood_and_score(eta, 1.0)[0]
    np.testing.assert_allclose(difference, difference[0].expand(4), atol=1e-10)


@every_model
def test_subset_keeps_levels_and_drops_rows(spec, joint_of, parameters_of):
    joint = joint_of(*spec, offset=True, weights=np.linspace(0.5, 1.5, 60))
    params, b, rows = parameters_of(joint), some_b(joint), torch.tensor([0, 3, 4, 17])
    part = joint.subset(rows)
    whole = joint.fixed_eta(params) + joint.random_eta(b)
    eta = part.fixed_eta(params) + part.random_eta(b)
    torch.testing.assert_close(eta, whole[rows])
    assert part.n == 4
    assert [t.q for t in part.terms] == [t.q for t in joint.terms]
    torch.testing.assert_close(part.weights, joint.weights[rows])
    torch.testing.assert_close(part.target.y, joint.target.y[rows])


def test_without_random_terms(joint_of, parameters_of):
    joint = joint_of("gaussian")
    nothing = torch.zeros(0, 1, 1, dtype=torch.float64)
    assert joint.n_effects == 0
    assert float(joint.random_eta(nothing).abs().max()) == 0.0
    assert joint.prior_log_normalizer(parameters_of(joint)) == 0.0


def test_blend_moves_every_parameter_by_the_gain(joint_of, parameters_of):
    joint = joint_of("gaussian", (7, 2))
    old, new = parameters_of(joint, 1), parameters_of(joint, 2)
    new = replace(new, phi=2.0)
    half = old.blend(new, 0.25)
    torch.testing.assert_close(half.beta, old.beta + 0.25 * (new.beta - old.beta))
    torch.testing.assert_close(half.sigma[0], old.sigma[0] + 0.25 * (new.sigma[0] - old.sigma[0]))
    assert half.phi == pytest.approx(0.7 + 0.25 * 1.3)


def test_singular_covariance_has_an_inverse_near_its_own():
    flat = torch.ones(1, 2, 2, dtype=torch.float64)
    inverse = torch.linalg.inv(away_from_singular(flat))
    assert bool(torch.isfinite(inverse).all())
    torch.testing.assert_close(away_from_singular(flat), flat, rtol=0, atol=1e-8)
    partly = torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64))[None]
    assert bool(torch.isfinite(torch.linalg.inv(away_from_singular(partly))).all())
    torch.testing.assert_close(away_from_singular(partly), partly, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_prior_does_not_depend_on_the_unit_of_a_slope(scale, joint_of, parameters_of):
    """Z b is the same when z is measured in another unit and Sigma in the matching one."""
    joint = joint_of("gaussian", (7, 2))
    params, b = parameters_of(joint), some_b(joint, 1)
    unit = torch.tensor([1.0, scale], dtype=torch.float64)
    other = Parameters(params.beta, (unit[:, None] * params.sigma[0] * unit,), params.phi)
    rescaled = b * unit.repeat(7)[:, None, None]
    before, _ = joint.prior(b, joint.precisions(params))
    after, _ = joint.prior(rescaled, joint.precisions(other))
    assert float(after) == pytest.approx(float(before), rel=1e-4)
