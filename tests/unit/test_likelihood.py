"""Marginal likelihoods against numerical integration."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch

from glmmnet import gaussian, likelihood, quadrature
from glmmnet.em import coordinates
from glmmnet.errors import FitError
from glmmnet.families import Categorical, Gaussian
from glmmnet.joint import Parameters
from glmmnet.likelihood import best_method, log_likelihood
from glmmnet.samplers import SAMPLERS

pytestmark = pytest.mark.usefixtures("seeded")


def level_density(joint, params, level):
    """p(y of the level, b) by the formula, as a function of its effects: r C numbers or arrays."""
    term = joint.terms[0]
    part = joint.subset(torch.nonzero(term.index == level)[:, 0])
    fixed, z = part.fixed_eta(params), part.terms[0].columns()
    priors = [scipy.stats.multivariate_normal(cov=s.numpy()) for s in params.sigma[0]]

    def density(*effects):
        b = torch.as_tensor(np.stack(effects)).reshape(term.r, joint.n_classes, -1)
        eta = fixed + torch.einsum("nr,rcs->ncs", z, b)
        log_p = part.log_likelihood(eta, params.phi).numpy()
        log_p = log_p + sum(p.logpdf(b[:, c].numpy().T) for c, p in enumerate(priors))
        return np.exp(log_p).reshape(np.shape(effects[0]))

    return density


@pytest.mark.parametrize("family", ["bernoulli", "binomial", "gaussian"])
@pytest.mark.parametrize("sd", [0.3, 2.0])
def test_quadrature_of_one_effect_a_level(family, sd, joint_of, parameters_of):
    joint = joint_of(family, (5, 1), n=30)
    sigma = torch.full((1, 1, 1), sd**2, dtype=torch.float64)
    params = replace(parameters_of(joint), sigma=(sigma,))
    expected = sum(
        math.log(scipy.integrate.quad(level_density(joint, params, g), -9 * sd, 9 * sd, epsabs=0, limit=200)[0])
        for g in range(5)
    )
    found = log_likelihood(joint, params, method="agq")
    assert (found.value, found.se, found.method) == (pytest.approx(expected, abs=1e-6), 0.0, "agq")


@pytest.mark.parametrize("spec", [("binomial", (3, 2)), (Categorical(reference="a"), (3, 1))])
def test_quadrature_of_two_effects_a_level(spec, joint_of, parameters_of):
    joint = joint_of(*spec, n=24)
    params = parameters_of(joint)
    grid = np.linspace(-8, 8, 161)
    first, second = np.meshgrid(grid, grid, indexing="ij")
    integrals = [
        scipy.integrate.trapezoid(scipy.integrate.trapezoid(level_density(joint, params, g)(first, second), grid), grid)
        for g in range(3)
    ]
    expected = np.log(integrals).sum()
    assert log_likelihood(joint, params, method="agq").value == pytest.approx(expected, abs=1e-4)


def test_quadrature_of_two_wide_effects_a_level(joint_of, parameters_of):
    joint = joint_of(Categorical(reference="a"), (20, 1), n=120, sd=3.0)
    sigma = torch.tensor([14.0, 3.0], dtype=torch.float64)[:, None, None]
    params = replace(parameters_of(joint), sigma=(sigma,))
    grid = np.linspace(-25, 25, 401)
    first, second = np.meshgrid(grid, grid, indexing="ij")
    trapezoid = scipy.integrate.trapezoid
    integrals = [trapezoid(trapezoid(level_density(joint, params, g)(first, second), grid), grid) for g in range(20)]
    assert log_likelihood(joint, params, method="agq").value == pytest.approx(np.log(integrals).sum(), abs=1e-3)


def test_large_data_take_fewer_points(joint_of, parameters_of, monkeypatch):
    joint = joint_of("bernoulli", (6, 2))
    params = parameters_of(joint)
    many = log_likelihood(joint, params, method="agq").value
    monkeypatch.setattr(quadrature, "_MOST_LEVELS", 6 * 31**2 - 1)
    few = log_likelihood(joint, params, method="agq").value
    assert few != many
    assert few == pytest.approx(many, abs=1e-3)
    monkeypatch.setattr(quadrature, "_MOST_LEVELS", 6 * 31**2)
    assert log_likelihood(joint, params, method="agq").value == many


def test_quadrature_with_weights_offset_and_network_output(joint_of, parameters_of):
    joint = joint_of("bernoulli", (4, 1), n=30, offset=True, weights=np.linspace(0.5, 2.0, 30))
    params = parameters_of(joint)
    f = torch.sin(torch.arange(30, dtype=torch.float64))[:, None]
    shifted = replace(joint, offset=joint.offset + f[:, :, None])
    expected = sum(
        math.log(scipy.integrate.quad(level_density(shifted, params, g), -12, 12, epsabs=0, limit=200)[0])
        for g in range(4)
    )
    assert log_likelihood(joint, params, f, method="agq").value == pytest.approx(expected, abs=1e-6)


def normal_log_density(joint, params, dense_z, dense_prior):
    z = dense_z(joint)
    v = z @ dense_prior(joint, params) @ z.T + params.phi * np.eye(joint.n)
    mean = joint.fixed_eta(params)[:, 0, 0].numpy()
    return float(scipy.stats.multivariate_normal(mean, v).logpdf(joint.target.y[:, 0, 0].numpy()))


@pytest.mark.parametrize("terms", [((7, 1),), ((7, 2),), ((6, 1), (9, 1))])
def test_all_methods_agree_on_a_gaussian_model(terms, joint_of, parameters_of, dense_z, dense_prior):
    """The Laplace approximation is exact there, so every Monte Carlo error is 0 as well."""
    joint = joint_of("gaussian", *terms)
    params = parameters_of(joint)
    expected = normal_log_density(joint, params, dense_z, dense_prior)
    assert best_method(joint) == "exact"
    methods = ["exact", "laplace", "importance", "thermodynamic", *(["agq"] if len(terms) == 1 else [])]
    for method in methods:
        found = log_likelihood(joint, params, sampler=SAMPLERS["nuts"](), method=method)
        assert found.method == method
        assert found.value == pytest.approx(expected, abs=1e-5)
        assert found.se == pytest.approx(0.0, abs=1e-6)


@pytest.fixture(scope="module")
def two_factors():
    """Binary responses, three rows and three columns, wide priors: Laplace is visibly off."""
    rng = np.random.default_rng(11)
    rows = np.repeat(np.arange(3), 6)
    columns = np.tile(np.repeat(np.arange(3), 2), 3)
    y = (
        rng.random(18) < 1 / (1 + np.exp(-(np.array([2.0, -1.0, 0.5])[rows] + np.array([1.0, -2.0, 0.0])[columns])))
    ).astype(float)
    return rows, columns, y


SDS = (2.5, 1.5)


@pytest.fixture
def crossed(two_factors, joint_of):
    """That model, its parameters and its likelihood summed over a grid, conditional on the three column effects."""
    rows, columns, y = two_factors
    joint = joint_of("bernoulli", (3, 1), (3, 1), n=18, p=1)
    terms = tuple(t.on(index, np.ones((18, 1))) for t, index in zip(joint.terms, (rows, columns), strict=True))
    joint = replace(joint, terms=terms, target=replace(joint.target, y=torch.as_tensor(y)[:, None, None]))
    sigma = tuple(torch.full((1, 1, 1), sd**2, dtype=torch.float64) for sd in SDS)
    params = Parameters(torch.full((1, 1), 0.2, dtype=torch.float64), sigma, 1.0)
    return joint, params, _grid_log_likelihood(rows, columns, y)


def _grid_log_likelihood(rows, columns, y):
    """Sum over a grid of all six effects; given the columns' effects the rows are independent."""
    nodes = np.linspace(-6.5, 6.5, 53)
    mass = scipy.stats.norm.pdf(nodes) * (nodes[1] - nodes[0])
    eta = 0.2 + SDS[0] * nodes[:, None] + SDS[1] * nodes
    total = mass[:, None, None] * mass[:, None] * mass
    for g in range(3):
        cells = [y[(rows == g) & (columns == c)] for c in range(3)]
        first, second, third = (
            np.exp(sum(scipy.special.log_expit((2 * value - 1) * eta) for value in cell)) for cell in cells
        )
        total *= np.einsum("aij,ak->ijk", mass[:, None, None] * first[:, :, None] * second[:, None], third)
    return math.log(total.sum())


@pytest.mark.parametrize("method", ["importance", "thermodynamic"])
def test_monte_carlo_methods_on_crossed_factors(method, crossed):
    joint, params, expected = crossed
    found = log_likelihood(joint, params, sampler=SAMPLERS["nuts"](), method=method)
    assert 0 < found.se < 0.2
    assert abs(found.value - expected) < 5 * found.se
    assert best_method(joint) == "thermodynamic"
    laplace = log_likelihood(joint, params, method="laplace")
    assert abs(laplace.value - expected) > 0.1


def test_thermodynamic_integration_from_the_whole_precision(crossed, monkeypatch):
    """As with many crossed levels: the precision as mass matrix, its Gaussian as the base."""
    monkeypatch.setattr(coordinates, "WHOLE_LIMIT", 0)
    monkeypatch.setattr(coordinates, "_SOLVE_COST", -1.0)
    joint, params, expected = crossed
    used = []
    chosen = coordinates.CoordinateSystem.at
    monkeypatch.setattr(
        coordinates.CoordinateSystem, "at", lambda *args, **kw: used.append(chosen(*args, **kw)) or used[-1]
    )
    found = log_likelihood(joint, params, sampler=SAMPLERS["nuts"](), method="thermodynamic")
    assert used[0].metric is not None
    assert 0 < found.se < 0.3
    assert abs(found.value - expected) < 5 * found.se


def test_stated_error_of_importance_sampling_is_the_error(crossed):
    joint, params, _ = crossed
    found = [log_likelihood(joint, params, method="importance") for _ in range(40)]
    spread = np.std([f.value for f in found], ddof=1)
    # The spread of 40 repetitions is known to about 11 %.
    assert np.mean([f.se for f in found]) == pytest.approx(spread, rel=0.35)


def test_stated_error_of_importance_sampling_where_pairs_agree(joint_of):
    """A success and a failure a level, eta = 0: a draw and its mirror image weigh the same."""
    joint = joint_of("bernoulli", (8, 1), n=16, p=1)
    y = torch.zeros(16, dtype=torch.float64)
    for level in range(8):
        y[torch.nonzero(joint.terms[0].index == level)[0]] = 1.0
    joint = replace(joint, target=replace(joint.target, y=y[:, None, None]))
    # Wide enough to be no Gaussian, narrow enough for weights of finite variance.
    sigma = torch.full((1, 1, 1), 1.0, dtype=torch.float64)
    params = Parameters(torch.zeros(1, 1, dtype=torch.float64), (sigma,), 1.0)
    found = [log_likelihood(joint, params, method="importance") for _ in range(300)]
    spread = np.std([f.value for f in found], ddof=1)
    # The spread of 300 repetitions is known to about 4 %.
    assert np.mean([f.se for f in found]) == pytest.approx(spread, rel=0.2)


@pytest.mark.slow
def test_stated_error_of_thermodynamic_integration_is_the_error(crossed):
    joint, params, _ = crossed
    found = [log_likelihood(joint, params, sampler=SAMPLERS["nuts"](), method="thermodynamic") for _ in range(12)]
    spread = np.std([f.value for f in found], ddof=1)
    ratio = np.sqrt(np.mean([f.se**2 for f in found])) / spread
    assert 0.4 < ratio < 2.5


def test_laplace_is_the_mode_and_curvature(joint_of, parameters_of):
    """One level, by hand: log p(y, m) + log(2 pi / H) / 2."""
    joint = joint_of("bernoulli", (1, 1), n=12)
    params = parameters_of(joint)
    variance = float(params.sigma[0])
    grid = torch.linspace(-4, 4, 200_001, dtype=torch.float64)[None, None, :]
    eta = joint.fixed_eta(params) + grid
    log_joint = (
        joint.log_likelihood(eta, 1.0) - 0.5 * grid[0, 0] ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)
    )
    best = int(log_joint.argmax())
    p = torch.sigmoid(eta[:, 0, best])
    curvature = float((p * (1 - p)).sum()) + 1 / variance
    expected = float(log_joint[best]) + 0.5 * math.log(2 * math.pi / curvature)
    assert log_likelihood(joint, params, method="laplace").value == pytest.approx(expected, abs=1e-5)


def test_without_random_terms_every_method_is_exact(joint_of, parameters_of):
    joint = joint_of("bernoulli")
    params = parameters_of(joint)
    eta = joint.fixed_eta(params)
    expected = float(joint.log_likelihood(eta, 1.0)[0])
    for method in ("exact", "laplace", "importance", "thermodynamic"):
        assert log_likelihood(joint, params, method=method).value == pytest.approx(expected, rel=1e-12)
    assert best_method(joint) == "exact"


def test_best_method(joint_of):
    assert best_method(joint_of("bernoulli", (6, 2))) == "agq"
    assert best_method(joint_of("bernoulli", (6, 3))) == "thermodynamic"
    assert best_method(joint_of("categorical", (6, 1))) == "thermodynamic"


def test_refusals(joint_of, parameters_of):
    crossed = joint_of("bernoulli", (6, 1), (5, 1))
    params = parameters_of(crossed)
    with pytest.raises(ValueError, match=r"'simpson'.*agq"):
        log_likelihood(crossed, params, method="simpson")
    with pytest.raises(FitError, match=r"agq.*thermodynamic"):
        log_likelihood(crossed, params, method="agq")
    with pytest.raises(FitError, match=r"exact' needs the family gaussian with identity link, not Bernoulli\("):
        log_likelihood(crossed, params, method="exact")
    with pytest.raises(FitError, match="sampler"):
        log_likelihood(crossed, params, method="thermodynamic")


@pytest.mark.parametrize("family, method", [("gaussian", "exact"), ("gaussian", "laplace"), ("bernoulli", "laplace")])
def test_a_factor_that_is_too_large_is_named_as_the_reason(monkeypatch, joint_of, parameters_of, family, method):
    monkeypatch.setattr(gaussian, "DENSE_LIMIT", 4)
    monkeypatch.setattr(gaussian, "may_factorize", lambda entries: False)
    joint = joint_of(family, (6, 1), (5, 1))
    message = f"method='{method}' needs a factor of .* too large here: 5 effects are left .* use method='thermodynamic'"
    with pytest.raises(FitError, match=message) as refusal:
        log_likelihood(joint, parameters_of(joint), method=method)
    assert "family" not in str(refusal.value)


def test_the_link_alone_is_named_as_the_reason(joint_of, parameters_of):
    joint = joint_of(Gaussian(link="log"), (6, 1))
    with pytest.raises(FitError, match=r"identity link, not Gaussian\(link='log'\)"):
        log_likelihood(joint, parameters_of(joint), method="exact")


@pytest.mark.parametrize("copies", [1, 4, 50])
def test_variance_of_the_mean_of_correlated_series(copies):
    rng = np.random.default_rng(20261122)
    found = []
    for _ in range(200):
        series = np.zeros((400, copies))
        noise = rng.normal(size=series.shape)
        for t in range(1, 400):
            series[t] = 0.5 * series[t - 1] + noise[t]
        found.append(likelihood._variance_of_mean(series))
    # The mean of an AR(1) series with coefficient 1/2 has variance (1 / (1 - 1/2))^2 / n.
    assert np.mean(found) == pytest.approx(4.0 / (400 * copies), rel=0.15)
