"""Steadied moments keep the posterior's means and lose the draws' noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from glmmnet.em.steady import AroundMode, steadied_moment
from glmmnet.gaussian import gaussian_posterior
from glmmnet.laplace import find_mode

pytestmark = pytest.mark.usefixtures("seeded")

MODELS = {
    "independent levels": ((9, 1),),
    "slopes": ((9, 2),),
    "crossed": ((6, 2), (9, 1)),
    "related levels": ((9, 2, "us", "related"), (6, 1)),
}


def sums(joint, params, b):
    """Sums over levels and draws of b (A^-1 b)' and of (d log p(y given b)/db) b', and their controls, a term each."""
    fixed = joint.fixed_eta(params)
    around = AroundMode.at(joint, params, find_mode(joint, fixed, params).mode, fixed)
    slope = joint.random_transpose(joint.log_likelihood_and_score(fixed + joint.random_eta(b), params.phi)[1]).double()
    out = []
    for term, control in zip(joint.terms, around.controls(joint, b, slope), strict=True):
        own, s = (one[term.rows].reshape(term.q, term.r, *b.shape[1:]) for one in (b, slope))
        moment = torch.einsum("qics,qjcs->cij", own, term.decorrelated(own))
        out.append((0.5 * (moment + moment.mT), torch.einsum("qics,qjcs->cij", s, own), control))
    return out


def test_nothing_is_left_of_the_noise_of_independent_normal_levels(joint_of, parameters_of):
    joint = joint_of("gaussian", (9, 2))
    params = parameters_of(joint)
    posterior = gaussian_posterior(joint, joint.fixed_eta(params), params)
    steady = []
    for _ in range(2):
        moment, slope, control = sums(joint, params, posterior.draw(3))[0]
        steady.append((moment + control.moment, slope + control.slope))
    torch.testing.assert_close(steady[0], steady[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("terms", MODELS.values(), ids=list(MODELS))
def test_controls_are_0_on_average(terms, joint_of, parameters_of):
    joint = joint_of("gaussian", *terms, n=90, sd=1.5)
    params = parameters_of(joint)
    posterior = gaussian_posterior(joint, joint.fixed_eta(params), params)
    batches = [sums(joint, params, posterior.draw(100)) for _ in range(200)]
    for k in range(len(joint.terms)):
        for part in ("moment", "slope"):
            values = torch.stack([getattr(batch[k][2], part) for batch in batches])
            error = values.std(dim=0) / len(values) ** 0.5
            assert float((values.mean(dim=0).abs() / error.clamp_min(1e-9)).max()) < 4.5


@pytest.mark.parametrize("family", ["bernoulli", "poisson", "categorical"])
def test_steadied_moments_have_less_noise_and_the_same_mean(family, joint_of, parameters_of):
    joint = joint_of(family, (9, 1), (6, 1), n=300)
    params = parameters_of(joint)
    params = replace(params, sigma=tuple(0.1 * sigma for sigma in params.sigma))
    fixed = joint.fixed_eta(params)
    mode = find_mode(joint, fixed, params).mode
    # Importance draws around the mode: exact but for their number.
    centre = mode[:, :, None]
    curvature = torch.stack([torch.diagonal(one) for one in _level_covariances(joint, params, mode, fixed)], dim=1)
    raw, steady = [], []
    for _ in range(60):
        proposal = centre + 1.1 * curvature.sqrt()[:, :, None] * torch.randn(*mode.shape, 4000, dtype=torch.float64)
        log_weight = _log_posterior(joint, params, fixed, proposal)
        log_weight += 0.5 * ((proposal - centre) / (1.1 * curvature.sqrt()[:, :, None])).square().sum(dim=(0, 1))
        chosen = proposal[:, :, torch.multinomial(torch.softmax(log_weight, dim=0), 5)]
        moment, _, control = sums(joint, params, chosen)[0]
        raw.append(moment)
        steady.append(moment + control.moment)
    raw, steady = torch.stack(raw), torch.stack(steady)
    assert float((steady.std(dim=0) / raw.std(dim=0)).max()) < 0.7
    apart = (steady.mean(dim=0) - raw.mean(dim=0)).abs() / (raw.std(dim=0) / len(raw) ** 0.5)
    assert float(apart.max()) < 4.0


def _log_posterior(joint, params, fixed, b):
    eta = fixed + joint.random_eta(b)
    log_p = joint.log_likelihood(eta, params.phi)
    return log_p + joint.prior(b, joint.precisions(params))[0]


def _level_covariances(joint, params, mode, fixed):
    """Of each class, (Q, Q), by the rows of all levels."""
    posterior = joint.information(joint.weight(fixed + joint.random_eta(mode[:, :, None]), params.phi)[..., 0])
    precision = torch.as_tensor((posterior + joint.precision_matrix(params)).toarray())
    whole = torch.linalg.inv(precision)
    c = joint.n_classes
    return [whole[k::c, k::c] for k in range(c)]


def test_a_steadied_moment_stays_positive_definite():
    moment = torch.tensor([[[2.0, 0.3], [0.3, 1.0]]], dtype=torch.float64)
    assert torch.allclose(steadied_moment(moment, torch.zeros_like(moment)), moment)
    small = torch.tensor([[[-0.2, 0.1], [0.1, 0.3]]], dtype=torch.float64)
    assert torch.allclose(steadied_moment(moment, small), moment + small)
    far = steadied_moment(moment, -5.0 * moment)
    torch.testing.assert_close(far, 0.25 * moment)
