"""A free Sigma knows no origin of x: fits of x and of x - c are one fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import glmmnet as gn
from glmmnet.centring import centring

YEAR = 2010.0
QUICK = {"seed": 1, "draws": 50, "chains": 2, "progress": False}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Counts, successes and numbers with a slope of the year in each of 40 levels."""
    rng = np.random.default_rng(1)
    n, q = 600, 40
    g, year = rng.integers(0, q, n), rng.integers(2000, 2021, n).astype(float)
    b = rng.normal(size=(q, 2)) * [0.8, 0.05]
    eta = 0.5 + 0.03 * (year - YEAR) + b[g, 0] + b[g, 1] * (year - YEAR)
    frame = pd.DataFrame({"g": g, "h": np.arange(n) % 17, "year": year, "c": year - YEAR})
    return frame.assign(
        count=rng.poisson(np.exp(eta)),
        number=eta + rng.normal(size=n),
        zeros=rng.poisson(np.exp(eta)) * (rng.random(n) < 0.7),
        one=(rng.random(n) < 1 / (1 + np.exp(-2 * eta))) * 1,
        kind=np.array(["a", "b", "c"])[(eta[:, None] + rng.gumbel(size=(n, 3)) * [1, 1, 2]).argmax(axis=1)],
    )


CASES = [
    ("count", "poisson", ""),
    ("one", "bernoulli", ""),
    ("number", "gaussian", ""),
    ("number", "gaussian", " + (1 | h)"),
    ("zeros", "zeroinflatedpoisson", ""),
    pytest.param("count", "poisson", " + (1 | h)", marks=pytest.mark.slow),
    pytest.param("kind", gn.families.Categorical(reference="a"), "", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("response", "family", "more"), CASES)
def test_a_column_far_from_0_is_no_other_model(rows, response, family, more):
    near, far = (gn.glmm(f"{response} ~ {x} + ({x} | g){more}", rows, family).fit(**QUICK) for x in ("c", "year"))
    assert far.converged
    assert far.llf == pytest.approx(near.llf, abs=1e-6 if more == "" else 0.02)
    assert np.isfinite(far._variance_errors.se).all()
    for name in ("params", "bse"):
        a, b = (np.asarray(getattr(r, name).loc[x], dtype=float) for r, x in ((near, "c"), (far, "year")))
        np.testing.assert_allclose(b, a, rtol=1e-5 if more == "" else 0.02)
    of_slope = [r.vcomp.loc[r.vcomp["term"] == x, ["sd", "se"]] for r, x in ((near, "c"), (far, "year"))]
    np.testing.assert_allclose(*of_slope, rtol=1e-5 if more == "" else 0.02)
    np.testing.assert_allclose(far.predict(), near.predict(), rtol=1e-3)
    a, b = (np.asarray(r.random_effects["g"][x], dtype=float) for r, x in ((near, "c"), (far, "year")))
    np.testing.assert_allclose(b, a, atol=1e-4)


def test_errors_of_the_given_columns_are_those_of_the_likelihood_in_them(rows):
    """Of a column that is not too far from 0, in whose own parameters the likelihood can be differenced."""
    frame = rows.assign(x=rows["c"] + 12)
    model = gn.glmm("number ~ x + (x | g)", frame)
    r = model.fit(**QUICK)
    names = [(0, 0), (1, 1), (0, 1)]
    sigma = r.cov_re["g"].to_numpy()
    z, x, y = (
        frame[["x"]].assign(one=1.0)[["one", "x"]].to_numpy(),
        r.fitted.joint.X.numpy(),
        frame["number"].to_numpy(),
    )
    start = np.array([0.5 * np.log(sigma[0, 0]), 0.5 * np.log(sigma[1, 1]), np.arctanh(correlation(sigma))])

    def deviance(theta: np.ndarray) -> float:
        sd, rho = np.exp(theta[:2]), np.tanh(theta[2])
        own = np.array([[sd[0] ** 2, rho * sd.prod()], [rho * sd.prod(), sd[1] ** 2]])
        same = frame["g"].to_numpy()[:, None] == frame["g"].to_numpy()
        v = np.where(same, z @ own @ z.T, 0.0) + np.exp(2 * theta[3]) * np.eye(len(y))
        solved = np.linalg.solve(v, np.column_stack([x, y]))
        residual = y - x @ np.linalg.solve(x.T @ solved[:, :-1], x.T @ solved[:, -1])
        return np.linalg.slogdet(v)[1] + residual @ np.linalg.solve(v, residual)

    at, h = np.append(start, 0.5 * np.log(r.scale)), 2e-3 * np.eye(4)
    hessian = np.array(
        [
            [deviance(at + a + b) - deviance(at + a - b) - deviance(at - a + b) + deviance(at - a - b) for b in h]
            for a in h
        ]
    )
    error = np.sqrt(np.diag(np.linalg.inv(hessian / (8 * 2e-3**2))))
    found = [r._variance_errors.of(0, 0, i, j) for i, j in names]
    np.testing.assert_allclose(found, error[:3], rtol=0.01)


def correlation(sigma: np.ndarray) -> float:
    """The one of a (2, 2) matrix."""
    return float(sigma[0, 1] / np.sqrt(sigma[0, 0] * sigma[1, 1]))


def test_centred_columns_are_uncorrelated_and_mean_the_same(rows):
    frame = rows.assign(x=rows["year"], square=rows["year"] ** 2)
    joint = gn.glmm("count ~ x + (x + square | g) + (x || h)", frame, "poisson")._joint
    back = centring(joint)
    assert [root is None for root in back.roots] == [False, True]
    z = back.joint.terms[0].columns()
    moments = z.T @ z / torch.outer(*[torch.linalg.vector_norm(z, dim=0)] * 2)
    torch.testing.assert_close(moments, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)
    b = torch.randn(joint.n_effects, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given = back.outward_effects(b)
    torch.testing.assert_close(joint.random_eta(given), back.joint.random_eta(b), rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(back.inward_effects(given), b, rtol=1e-6, atol=1e-6)


def test_rounding_of_columns_very_far_from_0_is_none_of_the_results():
    """Variances of the given columns are 10^11 and more beside one of 1 where the data are."""
    rng = np.random.default_rng(5)
    g, year = rng.integers(0, 25, 400), rng.integers(2000, 2007, 400).astype(float)
    u, b = (year - 2003) / 3, rng.normal(size=(25, 3)) * 0.7
    y = 1 + 0.3 * u + b[g, 0] + b[g, 1] * u + b[g, 2] * u**2 + 0.5 * rng.normal(size=400)
    frame = pd.DataFrame({"y": y, "g": g, "year": year, "t": year - 2003, "s": 1.6e9 + year, "r": year})
    for near, far, atol in (("t + I(t**2)", "year + I(year**2)", 1e-3), ("r", "s", 1e-6)):
        a, b = (gn.glmm(f"y ~ {x} + ({x} | g)", frame).fit(**QUICK) for x in (near, far))
        assert not b.singular
        assert b.llf == pytest.approx(a.llf, abs=1e-3)
        np.testing.assert_allclose(b.predict(), a.predict(), atol=atol)
        np.testing.assert_allclose(b.dispersion["se"], a.dispersion["se"], rtol=1e-3)
        slope = [r.random_effects_sd["g"].iloc[:, -1] for r in (a, b)]
        np.testing.assert_allclose(*slope, rtol=1e-3)


def test_a_singular_fit_is_the_same_wherever_its_columns_lie(rows):
    frame = rows.assign(f=np.array(["a", "b", "c"])[rows["h"] % 3], c=rows["c"] / 3)
    frame["far"] = frame["c"] + 2000
    a, b = (gn.glmm(f"number ~ {x} + (0 + f + {x} | g)", frame).fit(**QUICK) for x in ("c", "far"))
    assert a.singular and b.singular
    assert b.llf == pytest.approx(a.llf, abs=1e-3)


def test_a_correlation_on_its_boundary_is_called_singular():
    """Slopes that are a multiple of the intercepts: Fisher's z has no maximum."""
    rng = np.random.default_rng(2)
    g, x, b = rng.integers(0, 30, 600), rng.normal(size=600), rng.normal(size=30)
    frame = pd.DataFrame({"g": g, "x": x, "y": rng.poisson(np.exp(0.5 + 0.3 * x + 0.8 * b[g] + 0.5 * b[g] * x))})
    r = gn.glmm("y ~ x + (x | g)", frame, "poisson").fit(**QUICK)
    assert r.converged and r.singular
    assert correlation(r.cov_re["g"].to_numpy()) == pytest.approx(1.0, abs=2e-4)
    assert "Singular fit" in str(r.summary())
    # The same effects with one slope for all levels: b0 (1 + k x).
    one = gn.glmm("y ~ x + (0 + z | g)", frame.assign(z=1 + 0.537 / 0.776 * x), "poisson").fit(**QUICK)
    assert r.llf == pytest.approx(one.llf, abs=0.03)


def test_a_correlation_on_its_boundary_beside_another_term_is_called_singular():
    rng = np.random.default_rng(2)
    g, x, b, h = rng.integers(0, 30, 600), rng.normal(size=600), rng.normal(size=30), rng.integers(0, 20, 600)
    eta = 0.5 + 0.3 * x + 0.8 * b[g] + 0.5 * b[g] * x + 0.4 * rng.normal(size=20)[h]
    frame = pd.DataFrame({"g": g, "h": h, "x": x, "y": rng.poisson(np.exp(eta))})
    r = gn.glmm("y ~ x + (x | g) + (1 | h)", frame, "poisson").fit(**QUICK)
    assert r.converged and r.singular
    assert correlation(r.cov_re["g"].to_numpy()) == pytest.approx(1.0, abs=2e-4)
    assert np.isfinite(r.vcomp["se"]).all()
