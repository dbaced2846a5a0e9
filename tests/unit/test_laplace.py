"""Mode, curvature and whitening of the random effects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import torch

from glmmnet import gaussian, laplace
from glmmnet.families import Categorical, Gamma, StudentT
from glmmnet.gaussian import gaussian_posterior, has_exact_posterior
from glmmnet.joint import Parameters
from glmmnet.laplace import find_mode, laplace_posterior, level_blocks
from glmmnet.whitening import LevelWhitening, WholeWhitening

MODELS = {
    "one factor": ("bernoulli", (7, 1)),
    "slopes": ("binomial", (7, 2)),
    "crossed": ("bernoulli", (6, 1), (9, 1)),
    "crossed slopes": ("binomial", (6, 2, "diag"), (9, 1)),
    "gaussian": ("gaussian", (6, 2), (9, 1)),
    "classes": ("categorical", (6, 1), (5, 2)),
    "reference class": (Categorical(reference="a"), (6, 2)),
}
ONE_TERM = {name: spec for name, spec in MODELS.items() if len(spec) == 2}
every_model = pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))
one_term = pytest.mark.parametrize("spec", ONE_TERM.values(), ids=list(ONE_TERM))

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture
def model_of(joint_of, parameters_of):
    """A model from its terms, parameters for it, and their fixed part of eta."""

    def build(*spec, **options):
        joint = joint_of(*spec, **options)
        params = parameters_of(joint)
        return joint, params, joint.fixed_eta(params)

    return build


@pytest.fixture(params=[10**6, 0], ids=["whole", "levels"])
def limit(request, monkeypatch):
    """Whitening by the whole precision, and level by level."""
    monkeypatch.setattr(laplace, "WHOLE_LIMIT", request.param)
    return request.param


def minus_log_joint(joint, fixed, params):
    precisions = joint.precisions(params)

    def function(flat):
        b = torch.as_tensor(flat).reshape(joint.n_effects, joint.n_classes, 1)
        value, score = joint.log_likelihood_and_score(fixed + joint.random_eta(b), params.phi)
        kernel, pulled = joint.prior(b, precisions)
        gradient = joint.random_transpose(score) - pulled
        return -float(value + kernel), -gradient.reshape(-1).numpy()

    return function


def dense_curvature(joint, fixed, params, mode):
    eta = fixed + joint.random_eta(mode[:, :, None])
    weight = joint.weight(eta, params.phi)[..., 0]
    return torch.as_tensor((joint.information(weight) + joint.precision_matrix(params)).toarray())


@every_model
def test_mode_is_scipys(spec, limit, model_of):
    joint, params, fixed = model_of(*spec)
    point = find_mode(joint, fixed, params, iterations=500)
    found = scipy.optimize.minimize(
        minus_log_joint(joint, fixed, params),
        np.zeros(point.mode.numel()),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9},
    )
    np.testing.assert_allclose(point.mode.reshape(-1), found.x, atol=2e-5)
    assert isinstance(point.whitening, WholeWhitening if limit else LevelWhitening)


@every_model
def test_start_does_not_matter(spec, model_of):
    joint, params, fixed = model_of(*spec)
    start = 6.0 * torch.randn(joint.n_effects, joint.n_classes, dtype=torch.float64)
    before = start.clone()
    far, near = find_mode(joint, fixed, params, start), find_mode(joint, fixed, params)
    torch.testing.assert_close(far.mode, near.mode, rtol=0, atol=1e-5)
    torch.testing.assert_close(start, before, rtol=0, atol=0)


def test_mode_where_every_row_of_a_level_agrees(joint_of):
    """Separated levels and a wide prior: the Newton steps must not run away."""
    joint = joint_of("bernoulli", (6, 1), n=60)
    y = (joint.terms[0].index % 2).to(torch.float64)[:, None, None]
    joint = replace(joint, target=replace(joint.target, y=y))
    params = Parameters(
        torch.zeros(2, 1, dtype=torch.float64), (torch.full((1, 1, 1), 400.0, dtype=torch.float64),), 1.0
    )
    point = find_mode(joint, joint.fixed_eta(params), params)
    n, b = 10, float(point.mode[1])
    # The mode of n successes in n trials: n sigmoid(-b) = b / 400.
    assert n / (1 + np.exp(b)) == pytest.approx(b / 400, rel=1e-4)
    torch.testing.assert_close(point.mode[0::2], -point.mode[1::2], rtol=1e-5, atol=0)


def slope_in_sds(joint, fixed, params, mode):
    """The largest slope of the log posterior of b at `mode`, each times the effect's own posterior sd."""
    _, slope = minus_log_joint(joint, fixed, params)(mode.reshape(-1).numpy())
    return float(np.abs(slope / dense_curvature(joint, fixed, params, mode).diagonal().sqrt().numpy()).max())


def check_mode_far_out(joint, sd):
    """With effects of `sd` times the scale of t: rows far out hardly pull, and Fisher scoring crawls."""
    truth = sd * torch.randn(joint.n_effects, 1, 1, dtype=torch.float64)
    y = joint.random_eta(truth) + torch.randn(joint.n, 1, 1, dtype=torch.float64)
    joint = replace(joint, family=StudentT(df=4), target=replace(joint.target, y=y))
    sigma = tuple(sd**2 * torch.eye(term.r, dtype=torch.float64)[None] for term in joint.terms)
    params = Parameters(torch.zeros(2, 1, dtype=torch.float64), sigma, 1.0)
    fixed = joint.fixed_eta(params)
    mode = find_mode(joint, fixed, params).mode
    assert slope_in_sds(joint, fixed, params, mode) < 1e-4
    torch.testing.assert_close(joint.random_eta(mode[:, :, None]), joint.random_eta(truth), rtol=0, atol=4.0)


@pytest.mark.parametrize(("sd", "r"), [(300.0, 1), (20.0, 2)])
def test_mode_where_effects_are_many_times_the_scale_of_t(sd, r, limit, joint_of):
    check_mode_far_out(joint_of("gaussian", (7, r)), sd)


def test_mode_where_crossed_effects_are_many_times_the_scale_of_t(joint_of):
    check_mode_far_out(joint_of("gaussian", (6, 1), (9, 1), n=120), 20.0)


@pytest.mark.parametrize("terms", [((7, 1),), ((6, 1), (9, 1))], ids=["one", "crossed"])
def test_mode_where_the_curvature_is_many_times_the_expected_one(terms, limit, joint_of):
    """Responses a thousand times their means, which a narrow prior holds: Fisher scoring overshoots for ever."""
    joint = joint_of("gaussian", *terms)
    far = (joint.terms[0].index == 2).to(torch.float64)[:, None, None]
    y = torch.exp(0.3 * torch.randn(joint.n, 1, 1, dtype=torch.float64) + 7.0 * far)
    joint = replace(joint, family=Gamma(), target=replace(joint.target, y=y))
    sigma = tuple(torch.full((1, 1, 1), 0.02, dtype=torch.float64) for _ in joint.terms)
    params = Parameters(torch.zeros(2, 1, dtype=torch.float64), sigma, 0.7)
    fixed = joint.fixed_eta(params)
    for start in (None, 3.0 * torch.randn(joint.n_effects, 1, dtype=torch.float64)):
        mode = find_mode(joint, fixed, params, start, iterations=200).mode
        assert slope_in_sds(joint, fixed, params, mode) < 1e-4
    posterior = laplace_posterior(joint, fixed, params)
    assert slope_in_sds(joint, fixed, params, posterior.mode) < 1e-4


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_mode_does_not_depend_on_the_unit_of_a_slope(scale, limit, model_of):
    joint, params, fixed = model_of("bernoulli", (6, 2, "diag"), n=90)
    expected = find_mode(joint, fixed, params).mode
    unit = torch.tensor([1.0, scale], dtype=torch.float64)
    term = joint.terms[0]
    other = replace(joint, terms=(term.on(term.index.numpy(), (term.z / unit).numpy()),))
    sigma = unit[:, None] * params.sigma[0] * unit
    found = find_mode(other, fixed, Parameters(params.beta, (sigma,), 1.0)).mode
    torch.testing.assert_close(found / unit.repeat(6)[:, None], expected, rtol=1e-3, atol=1e-4)


def test_related_levels_do_not_part_into_blocks(model_of, monkeypatch):
    monkeypatch.setattr(laplace, "WHOLE_LIMIT", 0)
    joint, params, fixed = model_of("bernoulli", (6, 2, "us", "related"), (9, 1))
    point = find_mode(joint, fixed, params)
    assert isinstance(point.whitening, WholeWhitening)
    _, gradient = minus_log_joint(joint, fixed, params)(point.mode.reshape(-1).numpy())
    assert np.abs(gradient).max() < 1e-5
    whole = dense_curvature(joint, fixed, params, point.mode)
    assert point.whitening.log_det == pytest.approx(-0.5 * float(torch.logdet(whole)), abs=1e-8)


@every_model
def test_level_blocks_are_the_diagonal_of_the_curvature(spec, model_of):
    joint, params, fixed = model_of(*spec)
    mode = torch.randn(joint.n_effects, joint.n_classes, dtype=torch.float64)
    whole = dense_curvature(joint, fixed, params, mode)
    weight = joint.weight(fixed + joint.random_eta(mode[:, :, None]), params.phi)[..., 0]
    for term, precision, segment in zip(joint.terms, joint.precisions(params), joint.segments, strict=True):
        blocks = level_blocks(term, weight, precision)
        for level in range(term.q):
            at = slice(segment.start + level * segment.m, segment.start + (level + 1) * segment.m)
            torch.testing.assert_close(blocks[level], whole[at, at], rtol=1e-10, atol=1e-10)


@pytest.fixture(params=["full blocks", "classes one by one"])
def block_form(request, monkeypatch):
    """Levels one by one, with all classes in a block or each for itself."""
    monkeypatch.setattr(laplace, "WHOLE_LIMIT", 0)
    if request.param == "classes one by one":
        monkeypatch.setattr(laplace, "MANY_CLASSES", 1)
    return request.param


@pytest.mark.parametrize("spec", [MODELS["classes"], MODELS["reference class"]], ids=["classes", "reference class"])
def test_many_classes_have_the_same_mode_and_coordinates_that_can_be_undone(spec, block_form, model_of):
    joint, params, fixed = model_of(*spec)
    point = find_mode(joint, fixed, params, iterations=2000)
    _, slope = minus_log_joint(joint, fixed, params)(point.mode.reshape(-1).numpy())
    np.testing.assert_allclose(slope, 0.0, atol=1e-4)
    u = torch.randn(joint.n_effects, joint.n_classes, 3, dtype=torch.float64)
    b = point.whitening.to_b(u)
    torch.testing.assert_close(point.whitening.from_b(b), u, rtol=1e-9, atol=1e-9)
    centred = b - point.mode[:, :, None]
    assert float((centred * u).sum()) == pytest.approx(float((u * point.whitening.pull(u)).sum()), rel=1e-10)


@every_model
def test_mode_is_followed_with_the_curvature_of_another_point(spec, limit, model_of):
    joint, params, fixed = model_of(*spec)
    start = find_mode(joint, fixed, params, iterations=500)
    moved = Parameters(params.beta + 0.2, tuple(1.1 * sigma for sigma in params.sigma), params.phi)
    fixed = joint.fixed_eta(moved)
    followed = find_mode(joint, fixed, moved, start.mode, iterations=60, information=start.information)
    expected = find_mode(joint, fixed, moved, start.mode, iterations=500)
    assert all(old is new for old, new in zip(start.information, followed.information, strict=True))
    # single precision where the family allows it
    torch.testing.assert_close(followed.mode, expected.mode, rtol=1e-3, atol=1e-4)


@every_model
def test_whitening_round_trip_adjoint_and_determinant(spec, limit, model_of):
    joint, params, fixed = model_of(*spec)
    point = find_mode(joint, fixed, params)
    whitening, shape = point.whitening, (joint.n_effects, joint.n_classes, 3)
    u, gradient = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    b = whitening.to_b(u)
    torch.testing.assert_close(whitening.from_b(b), u, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(whitening.to_b(torch.zeros(shape, dtype=torch.float64))[..., 0], point.mode)
    centred = b - point.mode[:, :, None]
    assert float((centred * gradient).sum()) == pytest.approx(float((u * whitening.pull(gradient)).sum()), rel=1e-10)
    size = point.mode.numel()
    basis = torch.eye(size, dtype=torch.float64).reshape(*shape[:2], size)
    matrix = (whitening.to_b(basis) - point.mode[:, :, None]).reshape(size, size)
    assert whitening.log_det == pytest.approx(float(torch.linalg.slogdet(matrix)[1]), rel=1e-9)
    if limit:
        curvature = dense_curvature(joint, fixed, params, point.mode)
        torch.testing.assert_close(matrix @ matrix.T, torch.linalg.inv(curvature), rtol=1e-7, atol=1e-9)


@one_term
def test_level_and_whole_whitening_agree_for_one_term(spec, model_of, monkeypatch):
    """The levels of one term are independent: both whiten by the same factor."""
    joint, params, fixed = model_of(*spec)
    whole = find_mode(joint, fixed, params, tolerance=1e-12)
    monkeypatch.setattr(laplace, "WHOLE_LIMIT", 0)
    levels = find_mode(joint, fixed, params, tolerance=1e-12)
    u = torch.randn(joint.n_effects, joint.n_classes, 2, dtype=torch.float64)
    torch.testing.assert_close(levels.whitening.to_b(u), whole.whitening.to_b(u), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(levels.whitening.pull(u), whole.whitening.pull(u), rtol=1e-8, atol=1e-8)
    assert levels.whitening.log_det == pytest.approx(whole.whitening.log_det, rel=1e-9)


def gaussian_truth(joint, params, dense_z, dense_prior):
    """Mean and covariance of b given y by the textbook formula, with the n x n covariance of y."""
    z, g = dense_z(joint), dense_prior(joint, params)
    residual = (joint.target.y - joint.fixed_eta(params))[:, 0, 0].numpy()
    v = z @ g @ z.T + params.phi * np.diag(1 / joint.weights.numpy())
    gain = g @ z.T @ np.linalg.inv(v)
    return gain @ residual, g - gain @ z @ g


@pytest.mark.parametrize("weighted", [False, True])
def test_gaussian_posterior(weighted, model_of, dense_z, dense_prior):
    weights = np.linspace(0.5, 2.0, 60) if weighted else None
    joint, params, fixed = model_of("gaussian", (6, 2), (9, 1), weights=weights, offset=True)
    posterior = gaussian_posterior(joint, fixed, params)
    mean, covariance = gaussian_truth(joint, params, dense_z, dense_prior)
    np.testing.assert_allclose(posterior.mode[:, 0], mean, atol=1e-6)
    draws = posterior.draw(40_000)[:, 0].numpy()
    sd = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(draws.mean(axis=1) - mean) < 5 * sd / 200)
    assert np.all(np.abs(np.cov(draws) - covariance) < 5 * np.outer(sd, sd) * np.sqrt(2) / 200)


def test_exact_posterior_needs_a_quadratic_family_and_a_precision_that_can_be_factored(joint_of, monkeypatch):
    assert has_exact_posterior(joint_of("gaussian", (6, 2), (9, 1)))
    assert not has_exact_posterior(joint_of("bernoulli", (6, 1)))
    assert not has_exact_posterior(joint_of("gaussian"))
    monkeypatch.setattr(gaussian, "DENSE_LIMIT", 8)
    monkeypatch.setattr(gaussian, "has_sparse_factor", lambda matrix: matrix.shape != (21, 21))
    assert has_exact_posterior(joint_of("gaussian", (6, 2), (8, 1)))
    assert not has_exact_posterior(joint_of("gaussian", (6, 2), (9, 1)))
