"""Newton's method on the likelihood by quadrature, against a derivative-free search and on the boundary."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import torch
from _fits import QUICK, frame

import glmmnet as gn
from glmmnet.em import newton
from glmmnet.em.loop import starting_parameters
from glmmnet.joint import Parameters
from glmmnet.likelihood import log_likelihood
from glmmnet.variance import active_parameters, shifted


def joint_of(formula: str, family: str | gn.families.Family, data: pd.DataFrame | None = None):
    return gn.glmm(formula, data=frame() if data is None else data, family=family, weights="w")._joint


@pytest.mark.parametrize(
    ("formula", "family"),
    [
        ("b ~ x + (1 | g)", "bernoulli"),
        ("p(k, m) ~ x + (x | g)", "binomial"),
        ("p(k, m) ~ x + (x || g)", "binomial"),
        ("c ~ x + (1 | g)", gn.families.Categorical(reference="bb")),
        ("b ~ 0 + (1 | g)", "bernoulli"),
    ],
)
def test_newton_finds_what_a_search_without_derivatives_finds(formula, family):
    joint = joint_of(formula, family)
    found = newton.maximise(joint, starting_parameters(joint), None, 1e-3)
    assert found is not None and found.decrement < 1e-3
    active, size = active_parameters(joint, found.params), found.params.beta.numel()

    def minus_log_likelihood(shift):
        beta = found.params.beta + torch.tensor(shift[:size]).reshape(found.params.beta.shape)
        moved = shifted(joint, found.params, active, shift[size:])
        return -log_likelihood(joint, Parameters(beta, moved.sigma, 1.0), method="agq").value

    best = scipy.optimize.minimize(minus_log_likelihood, np.zeros(size + len(active)), tol=1e-5)
    # A parameter within 1e-3 standard errors of the maximum costs at most half its square.
    assert minus_log_likelihood(np.zeros(size + len(active))) - best.fun < 1e-5
    np.testing.assert_allclose(best.x, 0.0, atol=2e-3)


@pytest.mark.parametrize("formula", ["b ~ x + (1 | g)", "b ~ x + (x | g)"])
def test_a_variance_that_the_likelihood_wants_at_zero_is_zero(formula):
    # Every group has as many successes as failures: less than chance would leave.
    data = frame().sort_values("g", kind="stable").assign(b=np.tile([0, 1], 150), w=1.0)
    r = gn.glmm(formula, data=data, family="bernoulli").fit(**{**QUICK, "burn_in": 5})
    assert r.history["phase"].iloc[-1] == "newton" and r.singular
    assert r.vcomp["sd"].iloc[0] == 0.0 and np.isnan(r.vcomp["se"].iloc[0])
    assert np.isfinite(r.bse).all()


def test_a_variance_of_zero_whose_slope_is_as_small_as_that_of_the_ridge():
    rng = np.random.default_rng(33)
    data = pd.DataFrame({"g": np.resize([f"g{i}" for i in range(20)], 40), "x": rng.normal(size=40)})
    data["y"] = rng.gamma(2.0, np.exp(0.3 * data["x"].to_numpy()) / 2)
    joint = gn.glmm("y ~ x + (1 | g)", data=data, family="gamma")._joint
    found = newton.maximise(joint, starting_parameters(joint), None, 1e-3)
    assert found is not None and float(found.params.sigma[0]) == 0.0


def test_where_beta_runs_away_nothing_is_found():
    joint = joint_of("b ~ x + (1 | g)", "bernoulli", frame().assign(b=(frame()["x"] > 0).astype(int)))
    assert newton.maximise(joint, starting_parameters(joint), None, 1e-3) is None


def test_fit_ends_at_the_maximum_and_says_so():
    data = frame()
    first, second = (
        gn.glmm("b ~ x + (1 | g)", data=data, family="bernoulli").fit(**{**QUICK, "seed": seed}) for seed in (1, 2)
    )
    np.testing.assert_allclose(first.params, second.params, atol=1e-3)
    assert first.converged and first.history["phase"].tolist()[-2:] == ["polish", "newton"]
    polish = int((first.history["phase"] == "polish").sum())
    assert f"MCEM: converged, {polish}/200 iter, then Newton: distance/se" in str(first.summary())


def test_f_is_an_offset():
    joint = joint_of("b ~ x + (1 | g)", "bernoulli")
    f = torch.tensor(0.3 * np.sin(frame()["z"].to_numpy()))[:, None]
    with_f = newton.maximise(joint, starting_parameters(joint), f, 1e-3)
    moved = joint_of("b ~ x + (1 | g) + offset(0.3 * np.sin(z))", "bernoulli")
    as_offset = newton.maximise(moved, starting_parameters(joint), None, 1e-3)
    assert with_f is not None and as_offset is not None
    torch.testing.assert_close(with_f.params.beta, as_offset.params.beta, atol=1e-5, rtol=0)


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "b ~ x + (1 | g) + (1 | h)", "b ~ x"])
def test_newton_is_for_models_with_quadrature(formula):
    assert not newton.has_newton(joint_of(formula, "gaussian" if formula[0] == "y" else "bernoulli"))
    assert newton.has_newton(joint_of("b ~ x + (1 | g)", "bernoulli"))


def test_more_points_are_taken_only_while_they_change_the_likelihood(monkeypatch):
    """With 6 rows a level and a large variance the first rung is not enough; with a small variance it is."""
    taken = []
    search = newton._Search

    def recorded(joint, f, nodes, tolerance):
        taken.append(nodes)
        return search(joint, f, nodes, tolerance)

    monkeypatch.setattr(newton, "_Search", recorded)
    rng = np.random.default_rng(3)
    ends = []
    for sd in (0.1, 5.0):
        taken.clear()
        g = np.repeat(np.arange(200), 6)
        eta = rng.normal(0, sd, 200)[g]
        data = pd.DataFrame({"y": (rng.uniform(size=1200) < 1 / (1 + np.exp(-eta))).astype(int), "g": g})
        joint = gn.glmm("y ~ 1 + (1 | g)", data, family="bernoulli")._joint
        assert newton.maximise(joint, starting_parameters(joint), None, 1e-3) is not None
        ends.append(taken[-1])
    assert ends == [15, 31]


class _NotKnownToBeGaussian(gn.families.Gaussian):
    """Goes the way of families whose posterior of b is not Gaussian."""

    def __init__(self) -> None:
        super().__init__()
        self.quadratic = self.canonical = False


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (x | g)"])
def test_the_dispersion_is_found_with_its_error(formula):
    exact = gn.glmm(formula, data=frame(), weights="w").fit(seed=1)
    found = gn.glmm(formula, data=frame(), family=_NotKnownToBeGaussian(), weights="w").fit(**{**QUICK, "burn_in": 3})
    assert found.history["phase"].iloc[-1] == "newton"
    assert found.scale == pytest.approx(exact.scale, rel=1e-4)
    assert found.llf == pytest.approx(exact.llf, abs=1e-5)
    np.testing.assert_allclose(found.params, exact.params, atol=1e-4)
    np.testing.assert_allclose(found.bse, exact.bse, rtol=2e-3)
    np.testing.assert_allclose(found.vcomp[["sd", "se"]], exact.vcomp[["sd", "se"]], rtol=2e-3)
