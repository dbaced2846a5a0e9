"""A crossed model of 6,000 effects ends at the maximum of its likelihood by Newton's method, and near it without."""

import numpy as np
import pandas as pd
import pytest

import glmmnet as gn
from glmmnet import observed

#: Standard deviations at the maximum, as Newton's method finds them, and their standard errors there.
SDS, ERRORS = np.array([0.6274, 0.3842]), np.array([0.058, 0.043])


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(12)
    n, q, r = 10_000, 6000, 1200
    d = pd.DataFrame(
        {"x": rng.normal(size=n), "g": rng.integers(q, size=n).astype(str), "h": rng.integers(r, size=n).astype(str)}
    )
    of_g, of_h = 0.5 * rng.normal(size=q), 0.35 * rng.normal(size=r)
    eta = 0.3 + 0.5 * d["x"].to_numpy() + of_g[d["g"].astype(int)] + of_h[d["h"].astype(int)]
    d["y"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int)
    return gn.glmm("y ~ x + (1 | g) + (1 | h)", data=d, family="bernoulli")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_monte_carlo_em_ends_within_its_tolerance(model, seed, monkeypatch):
    monkeypatch.setattr(observed, "_MOST_EFFECTS", 5000)
    r = model.fit(seed=seed, chains=1, draws=4)
    assert r.converged
    assert r.history["phase"].iloc[-1] == "polish"
    assert np.all(np.abs(r.vcomp["sd"] - SDS) < 0.3 * ERRORS)


@pytest.mark.slow
def test_newtons_method_ends_at_the_maximum(model):
    r = model.fit(seed=1, chains=1, draws=4)
    assert r.history["phase"].iloc[-1] == "newton"
    assert np.all(np.abs(r.vcomp["sd"] - SDS) < 0.1 * ERRORS)
    assert np.allclose(r.vcomp["se"], ERRORS, rtol=0.05)
