"""The size of f once the network has learned: free where the rows tell it, as learned elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import glmmnet as gn
from glmmnet.em.loop import starting_parameters
from glmmnet.em.stretch import Stretch
from glmmnet.gaussian import gaussian_posterior
from glmmnet.joint import JointModel, Parameters
from glmmnet.networks import NeuralPredictor

pytestmark = pytest.mark.usefixtures("seeded")

#: So strong a weight decay leaves f too flat.
FLAT = {"weight_decay": 1.0, "layers": (16,)}


def rows(n: int, family: str, q: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    x, g = rng.uniform(-2, 2, n), np.arange(n) % q
    eta = 2 * np.sin(x) + rng.normal(0, 0.7, q)[g]
    y = {
        "gaussian": lambda: eta + rng.normal(size=n),
        "bernoulli": lambda: (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(int),
        "zeroinflatedpoisson": lambda: rng.poisson(np.exp(0.5 * eta)) * (rng.uniform(size=n) < 0.7),
    }[family]()
    return pd.DataFrame({"y": y, "x": x, "g": g})


def fitted(data: pd.DataFrame, family: str) -> gn.GLMMNetResults:
    model = gn.glmm("y ~ nn(x) + (1 | g)", data, family=family, nn=FLAT)
    return model.fit(seed=1, epochs=3, draws=4, chains=1, progress=False)


def size_of(f: pd.Series, data: pd.DataFrame, family: str) -> float:
    """The factor of f that maximises the likelihood of a model of its own."""
    refit = gn.glmm("y ~ f + (1 | g)", data.assign(f=f), family=family).fit(seed=1, draws=4, chains=1, progress=False)
    return float(refit.params["f"])


@pytest.mark.parametrize("family", ["gaussian", "bernoulli"])
def test_f_is_as_large_as_the_likelihood_wants_it(family):
    data = rows(40_000 if family == "bernoulli" else 8000, family)
    f = fitted(data, family).predict(data, level="population", kind="link")
    assert size_of(f, data, family) == pytest.approx(1.0, abs=2e-3)


def test_few_rows_leave_f_as_it_was_learned():
    data = rows(400, "bernoulli")
    f = fitted(data, "bernoulli").predict(data, level="population", kind="link")
    assert abs(size_of(f, data, "bernoulli") - 1.0) > 0.1


@pytest.mark.parametrize("family", ["gaussian", "zeroinflatedpoisson"])
def test_the_network_and_the_estimates_belong_together(family):
    fit = fitted(rows(8000, family), family).fitted
    assert fit.params.beta.shape[0] == len(fit.joint.x_names)
    np.testing.assert_allclose(fit.network_output(fit.design), fit.f, atol=1e-5)
    assert abs(float(fit.f.mean())) < 1e-5


def test_a_fit_goes_on_from_its_checkpoint_with_the_same_f(tmp_path):
    data, path = rows(8000, "gaussian"), tmp_path / "fit"
    model = gn.glmm("y ~ nn(x) + (1 | g)", data, nn=FLAT)
    options = {"seed": 1, "epochs": 3, "draws": 4, "chains": 1, "progress": False, "checkpoint": path}
    first, again = (model.fit(**options) for _ in range(2))
    np.testing.assert_allclose(again.fitted.f, first.fitted.f, atol=1e-5)
    assert again.llf == pytest.approx(first.llf, abs=1e-4)


def test_what_other_columns_and_groups_take_of_f_tells_nothing():
    data = rows(8000, "gaussian")
    for formula, x in (("y ~ x + nn(x) + (1 | g)", data["x"]), ("y ~ nn(x) + (1 | g)", np.sin(data["g"]))):
        joint = gn.glmm(formula, data.assign(x=x), nn=FLAT)._joint
        params, b = starting_parameters(joint), torch.zeros(joint.n_effects, 1, 1, dtype=torch.float64)
        f = torch.as_tensor(np.array(x - x.mean()))[:, None]
        assert Stretch(joint, identity(), f).first_step(params, b) is None
        other = torch.as_tensor(3 * np.sin(3 * data["x"].to_numpy()))[:, None]
        assert Stretch(joint, identity(), other).first_step(params, b) is not None


def identity() -> NeuralPredictor:
    return NeuralPredictor([torch.nn.Identity()], 1)


def test_the_first_step_is_the_regression_on_f_where_eta_is_linear():
    data = rows(4000, "gaussian")
    joint = gn.glmm("y ~ nn(x) + (1 | g)", data, nn=FLAT)._joint
    f = torch.as_tensor(1.7 * np.sin(data["x"].to_numpy()))[:, None]
    stretch, params = Stretch(joint, identity(), f), replace(starting_parameters(joint), phi=1.0)
    found = stretch.first_step(params, laplace_draws(joint, params, f))
    x, v = stretch.joint.X.numpy(), joint.z_matrix.toarray()
    v = v @ v.T * float(params.sigma[0]) + np.eye(len(x)) * params.phi
    weighted = np.linalg.solve(v, x)
    expected = np.linalg.solve(x.T @ weighted, weighted.T @ data["y"].to_numpy())
    assert found == pytest.approx(expected[-1], rel=0.01)


def laplace_draws(joint: JointModel, params: Parameters, f: torch.Tensor) -> torch.Tensor:
    return gaussian_posterior(joint, joint.fixed_eta(params, f), params).draw(200)
