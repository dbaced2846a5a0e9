"""One data set and the fits that several test files read, each made once a test run."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd

import glmmnet as gn

SEED = 20261122
#: A fit by sampling that takes a second: too short to be accurate, long enough to be read.
QUICK: dict[str, Any] = {"seed": 1, "draws": 100, "chains": 2, "warmup": 20, "tol": 1e3, "min_iter": 1, "burn_in": 0}


@cache
def frame(n: int = 300) -> pd.DataFrame:
    """Responses of every family, two covariates, a text factor g (12 levels) and an integer factor h (8)."""
    rng = np.random.default_rng(SEED)
    g, h = rng.integers(0, 12, n), rng.integers(0, 8, n)
    x, z = rng.normal(size=(2, n))
    eta = 0.5 + x + (0.8 * rng.normal(size=12))[g] + (0.5 * rng.normal(size=8))[h]
    p = 1 / (1 + np.exp(-eta))
    trials = rng.integers(1, 8, n)
    scores = np.column_stack([eta, 0 * eta, -eta]) + rng.gumbel(size=(n, 3))
    return pd.DataFrame(
        {
            "y": eta + (0.4 * rng.normal(size=12))[g] * x + 0.7 * rng.normal(size=n),
            "b": (rng.random(n) < p).astype(int),
            "k": rng.binomial(trials, p),
            "m": trials,
            "c": np.array(["aa", "bb", "cc"])[scores.argmax(axis=1)],
            "x": x,
            "z": z,
            "g": [f"g{i}" for i in g],
            "h": h,
            "w": rng.integers(1, 4, n),
        }
    )


@cache
def gaussian(formula: str = "y ~ x + (x | g) + (1 | h)", **options: Any) -> gn.GLMMNetResults:
    return gn.glmm(formula, data=frame()).fit(**{"seed": 1, **options})


@cache
def bernoulli(formula: str = "b ~ x + (1 | g)", sampler: str | None = None) -> gn.GLMMNetResults:
    return gn.glmm(formula, data=frame(), family="bernoulli").fit(sampler=sampler, **QUICK)


@cache
def binomial() -> gn.GLMMNetResults:
    return gn.glmm("p(k, m) ~ x + (1 | g)", data=frame(), family="binomial").fit(**QUICK)


@cache
def categorical(reference: str | None = None) -> gn.GLMMNetResults:
    family = gn.families.Categorical(reference=reference)
    return gn.glmm("c ~ x + (1 | g)", data=frame(), family=family).fit(**QUICK)


@cache
def network(formula: str = "y ~ nn(x + z) + (1 | g)") -> gn.GLMMNetResults:
    return gn.glmm(formula, data=frame(), nn={"layers": [8]}).fit(seed=1, epochs=3)


def dense(results: gn.GLMMNetResults, data: pd.DataFrame | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, Z and the covariance of b of ``y ~ x + (x | g) + (1 | h)``, written out."""
    data = frame() if data is None else data
    x = data["x"].to_numpy()
    g = (data["g"].to_numpy()[:, None] == results.random_effects["g"].index.to_numpy()).astype(float)
    h = (data["h"].to_numpy()[:, None] == results.random_effects["h"].index.to_numpy()).astype(float)
    covariance = np.zeros((32, 32))
    covariance[:24, :24] = np.kron(results.cov_re["g"].to_numpy(), np.eye(12))
    covariance[24:, 24:] = results.cov_re["h"].iloc[0, 0] * np.eye(8)
    return np.column_stack([np.ones(len(data)), x]), np.column_stack([g, g * x[:, None], h]), covariance


def mixed_model_equations(results: gn.GLMMNetResults) -> tuple[np.ndarray, np.ndarray]:
    """Henderson's solution (beta, b) for the gaussian fit at its variances, and the inverse of his matrix."""
    x, z, covariance = dense(results)
    columns = np.column_stack([x, z])
    matrix = columns.T @ columns / results.scale
    matrix[2:, 2:] += np.linalg.inv(covariance)
    inverse = np.linalg.inv(matrix)
    return inverse @ (columns.T @ frame()["y"].to_numpy() / results.scale), inverse
