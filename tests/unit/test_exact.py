"""The profiled Gaussian likelihood against the dense multivariate normal density."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from glmmnet.em.loop import starting_parameters
from glmmnet.exact import GaussianLikelihood
from glmmnet.joint import Parameters

MODELS = {
    "one factor": ((7, 1),),
    "slopes": ((7, 3),),
    "diagonal": ((7, 2, "diag"),),
    "crossed": ((6, 2), (9, 1)),
    "three factors": ((6, 1), (9, 2, "diag"), (4, 1)),
    "patterns": ((6, 3, "cs"), (9, 2, "ar1"), (4, 3, "toep")),
    "related levels": ((7, 2, "us", "related"), (9, 1)),
    "all levels related": ((6, 1, "us", "related"),),
    "none": (),
}
every_model = pytest.mark.parametrize("terms", MODELS.values(), ids=list(MODELS))


def normal_deviance(joint, params, dense_z, dense_prior, f=None):
    z = dense_z(joint)
    v = z @ dense_prior(joint, params) @ z.T + params.phi * np.eye(joint.n)
    mean = joint.fixed_eta(params, f)[:, 0, 0].numpy()
    return -2 * scipy.stats.multivariate_normal(mean, v).logpdf(joint.target.y[:, 0, 0].numpy())


@every_model
@pytest.mark.parametrize("with_f", [False, True])
def test_deviance_at_the_best_beta(terms, with_f, joint_of, parameters_of, dense_z, dense_prior):
    joint = joint_of("gaussian", *terms, offset=True)
    params = parameters_of(joint)
    f = 0.3 * torch.cos(torch.arange(60, dtype=torch.float64))[:, None] if with_f else None
    likelihood = GaussianLikelihood(joint, f)
    theta = likelihood.theta(params)
    assert len(theta) == likelihood.n_parameters
    profile = likelihood.profile(theta, params.phi)
    v = dense_z(joint) @ dense_prior(joint, params) @ dense_z(joint).T + params.phi * np.eye(60)
    y = (joint.target.y - joint.offset)[:, 0, 0].numpy() - (0 if f is None else f[:, 0].numpy())
    x, inverse = joint.X.numpy(), np.linalg.inv(v)
    beta = np.linalg.solve(x.T @ inverse @ x, x.T @ inverse @ y)
    np.testing.assert_allclose(profile.beta, beta, atol=1e-8)
    best = Parameters(torch.as_tensor(beta)[:, None], params.sigma, params.phi)
    assert profile.deviance == pytest.approx(normal_deviance(joint, best, dense_z, dense_prior, f), abs=1e-6)


@every_model
def test_profiled_phi_is_the_best(terms, joint_of, parameters_of, dense_z, dense_prior):
    joint = joint_of("gaussian", *terms)
    likelihood = GaussianLikelihood(joint)
    theta = likelihood.theta(parameters_of(joint))
    best = likelihood.profile(theta)
    params = likelihood.parameters(theta, best)
    assert best.deviance == pytest.approx(normal_deviance(joint, params, dense_z, dense_prior), abs=1e-6)
    for factor in (0.9, 1.1):
        assert likelihood.profile(theta, factor * best.phi).deviance > best.deviance


@every_model
def test_theta_and_parameters_are_inverses(terms, joint_of, parameters_of):
    joint = joint_of("gaussian", *terms)
    params, likelihood = parameters_of(joint), GaussianLikelihood(joint)
    theta = likelihood.theta(params)
    back = likelihood.parameters(theta, likelihood.profile(theta, params.phi))
    assert back.phi == params.phi
    for found, expected in zip(back.sigma, params.sigma, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_whole_weights_count_as_repeated_rows(joint_of, parameters_of):
    joint = joint_of("gaussian", (6, 2), weights=np.resize([1.0, 2.0, 3.0], 60))
    rows = torch.arange(60).repeat_interleave(joint.weights.to(torch.int64))
    repeated = joint.subset(rows)
    repeated.weights[:] = 1.0
    params = parameters_of(joint)
    first, second = GaussianLikelihood(joint), GaussianLikelihood(repeated)
    theta = first.theta(params)
    assert first.profile(theta).deviance == pytest.approx(second.profile(theta).deviance, rel=1e-12)


@pytest.mark.parametrize(
    ("seed", "terms"),
    [(4, ((7, 1),)), (12, ((7, 1),)), (22, ((7, 1),)), (8, ((6, 1), (9, 1))), (16, ((6, 1), (9, 1)))],
)
def test_maximum_is_as_high_as_a_grid_finds(seed, terms, joint_of):
    """From the starting values that a fit has."""
    joint = joint_of("gaussian", *terms, sd=0.6, seed=seed)
    likelihood = GaussianLikelihood(joint)
    params = likelihood.maximise(starting_parameters(joint))
    best = likelihood.profile(likelihood.theta(params)).deviance
    grid = itertools.product(np.linspace(0, 1, 11), repeat=len(terms))
    assert best <= min(likelihood.profile(np.array(theta)).deviance for theta in grid) + 1e-6


def test_balanced_one_way_layout_has_a_closed_form(joint_of):
    """ML of the balanced one-way layout: phi = MSW, Sigma = (SSB / q - MSW) / m."""
    joint = joint_of("gaussian", (6, 1), p=1, sd=2.0)
    y, group = joint.target.y[:, 0, 0].numpy(), joint.terms[0].index.numpy()
    means = np.array([y[group == g].mean() for g in range(6)])
    within = ((y - means[group]) ** 2).sum() / (60 - 6)
    between = 10 * ((means - y.mean()) ** 2).sum() / 6
    start = Parameters(torch.zeros(1, 1, dtype=torch.float64), (torch.ones(1, 1, 1, dtype=torch.float64),), 1.0)
    params = GaussianLikelihood(joint).maximise(start)
    assert params.phi == pytest.approx(within, rel=1e-6)
    assert float(params.sigma[0]) == pytest.approx((between - within) / 10, rel=1e-6)
    assert float(params.beta) == pytest.approx(y.mean(), rel=1e-10)


def test_variance_at_the_boundary_is_zero(joint_of, parameters_of):
    joint = joint_of("gaussian", (6, 1), p=1, sd=0.0)
    y = joint.target.y[:, 0, 0]
    group = joint.terms[0].index
    means = torch.stack([y[group == g].mean() for g in range(6)])
    joint.target.y[:, 0, 0] = y - means[group]
    params = GaussianLikelihood(joint).maximise(parameters_of(joint))
    assert float(params.sigma[0]) == 0.0


def test_start_at_zero_variance_is_left(joint_of):
    joint = joint_of("gaussian", (7, 2), n=140, sd=1.5)
    nothing = Parameters(torch.zeros(2, 1, dtype=torch.float64), (torch.zeros(1, 2, 2, dtype=torch.float64),), 1.0)
    likelihood = GaussianLikelihood(joint)
    from_zero, usual = likelihood.maximise(nothing), likelihood.maximise(starting_parameters(joint))
    torch.testing.assert_close(from_zero.sigma[0], usual.sigma[0], rtol=1e-4, atol=1e-6)
    assert float(torch.diagonal(usual.sigma[0][0]).min()) > 0.1


def test_correlation_of_one_is_on_the_boundary(joint_of, parameters_of):
    """Intercept and slope are the same effect; what is left has less noise than it costs to tell them apart."""
    joint = joint_of("gaussian", (9, 2), n=180, sd=0.0)
    term = joint.terms[0]
    effect = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[term.index]
    noise = joint.target.y[:, 0, 0]
    parts = torch.cat([term.z * (term.index == g).to(torch.float64)[:, None] for g in range(9)], dim=1)
    noise = noise - parts @ torch.linalg.lstsq(parts, noise[:, None]).solution[:, 0]
    joint.target.y[:, 0, 0] = noise + effect * term.z.sum(dim=1)
    sigma = GaussianLikelihood(joint).maximise(starting_parameters(joint)).sigma[0][0]
    assert float(sigma[0, 1] / (sigma[0, 0] * sigma[1, 1]).sqrt()) == pytest.approx(1.0, abs=1e-12)


def test_column_far_from_zero_keeps_its_coefficient(joint_of, parameters_of):
    """A year beside an intercept: X'X alone would have condition 1e18."""
    joint = joint_of("gaussian", (7, 1))
    near = GaussianLikelihood(joint)
    theta = near.theta(parameters_of(joint))
    far = GaussianLikelihood(replace(joint, X=joint.X + torch.tensor([0.0, 1e6], dtype=torch.float64)))
    assert far.profile(theta).deviance == pytest.approx(near.profile(theta).deviance, abs=1e-6)
    assert far.profile(theta).beta[1] == pytest.approx(near.profile(theta).beta[1], rel=1e-6)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_maximum_does_not_depend_on_the_unit_of_the_response(unit, joint_of, parameters_of):
    joint, scaled = (joint_of("gaussian", (9, 2), n=90) for _ in range(2))
    scaled.target.y.mul_(unit)
    start = parameters_of(joint)
    start_scaled = Parameters(unit * start.beta, (unit**2 * start.sigma[0],), unit**2 * start.phi)
    first, second = GaussianLikelihood(joint).maximise(start), GaussianLikelihood(scaled).maximise(start_scaled)
    torch.testing.assert_close(second.beta / unit, first.beta, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second.sigma[0] / unit**2, first.sigma[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_maximum_does_not_depend_on_the_unit_of_a_slope(unit, joint_of, parameters_of):
    joint, scaled = (joint_of("gaussian", (9, 2), n=90) for _ in range(2))
    scaled.terms[0].z[:, 1] /= unit
    start, scale = parameters_of(joint), torch.tensor([1.0, unit], dtype=torch.float64)
    start_scaled = Parameters(start.beta, (scale[:, None] * start.sigma[0] * scale,), start.phi)
    first, second = GaussianLikelihood(joint).maximise(start), GaussianLikelihood(scaled).maximise(start_scaled)
    back = second.sigma[0] / (scale[:, None] * scale)
    torch.testing.assert_close(back, first.sigma[0], rtol=1e-2, atol=1e-3)
