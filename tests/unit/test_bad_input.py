"""Ugly responses for every registered family: a clear error, or a finite and honest fit; never NaN."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import glmmnet as gn
from glmmnet.errors import ConvergenceWarning, DataWarning, GLMMNetError
from glmmnet.families import FAMILIES

SEED = 20261122
LEVELS, ROWS = 6, 6
N = LEVELS * ROWS
#: Short: the numbers need to be finite, not accurate.
QUICK = {
    "seed": 1,
    "min_iter": 1,
    "burn_in": 0,
    "max_iter": 8,
    "em_draws": 3,
    "draws": 10,
    "chains": 2,
    "warmup": 5,
}

Values = Callable[[np.random.Generator, np.ndarray, np.ndarray], object]


def frame() -> pd.DataFrame:
    """A covariate x and a factor g of six levels."""
    rng = np.random.default_rng(SEED + 1)
    return pd.DataFrame({"x": rng.normal(size=N), "g": np.repeat(np.arange(LEVELS), ROWS)})


def spoiled(values: np.ndarray, bad: float, count: int = 3) -> np.ndarray:
    """`values` with a few replaced by `bad`."""
    values = np.asarray(values, dtype=float).copy()
    values[5 : 5 + count] = bad
    return values


#: Name -> response from (generator, x, g).
UGLY: dict[str, Values] = {
    # wrong domain for some family
    "negative": lambda rng, x, g: rng.normal(size=N) - 3,
    "one negative": lambda rng, x, g: spoiled(rng.poisson(2.0, N), -1.0, 1),
    "fractions": lambda rng, x, g: rng.uniform(0.1, 0.9, N),
    "a fraction among counts": lambda rng, x, g: spoiled(rng.poisson(2.0, N), 2.5, 1),
    "a 1 among fractions": lambda rng, x, g: spoiled(rng.uniform(0.1, 0.9, N), 1.0, 1),
    "a 0 among positive numbers": lambda rng, x, g: spoiled(rng.gamma(2.0, size=N), 0.0, 1),
    "two texts": lambda rng, x, g: np.where(rng.random(N) < 0.5, "no", "yes"),
    "three texts": lambda rng, x, g: rng.choice(["a", "b", "c"], N),
    "ordered grades": lambda rng, x, g: pd.Categorical(rng.choice(["1", "2", "3"], N), ordered=True),
    "texts of few rows": lambda rng, x, g: np.array([f"t{i // 5}" for i in range(N)]),
    "booleans": lambda rng, x, g: rng.random(N) < 0.5,
    # one value only
    "one text": lambda rng, x, g: np.full(N, "a"),
    "only True": lambda rng, x, g: np.full(N, True),
    "all 0": lambda rng, x, g: np.zeros(N),
    "all 1": lambda rng, x, g: np.ones(N),
    "all 3": lambda rng, x, g: np.full(N, 3.0),
    "all 0.3": lambda rng, x, g: np.full(N, 0.3),
    "one that is not 0": lambda rng, x, g: spoiled(np.zeros(N), 1.0, 1),
    "one large count": lambda rng, x, g: spoiled(np.zeros(N), 1e6, 1),
    # separated, exactly reproduced
    "a level separates": lambda rng, x, g: np.where(g < LEVELS // 2, 0.0, 1.0),
    "a level of zeros": lambda rng, x, g: np.where(g == 0, 0.0, rng.poisson(3.0, N)),
    "x separates": lambda rng, x, g: (x > 0).astype(float),
    "x separates grades": lambda rng, x, g: pd.cut(x, [-9, -0.5, 0.5, 9], labels=["1", "2", "3"]),
    "computed from x": lambda rng, x, g: np.exp(0.3 * x),
    "computed from g": lambda rng, x, g: 1.0 + g,
    # sizes
    "1e300 among others": lambda rng, x, g: spoiled(rng.gamma(2.0, size=N), 1e300, 1),
    "all near 1e300": lambda rng, x, g: 1e300 * rng.choice([1.0, 2.0, 3.0], N),
    "whole and near 1e15": lambda rng, x, g: 1e15 + rng.integers(0, 4, N),
    "1e-300 among others": lambda rng, x, g: spoiled(rng.uniform(0.1, 0.9, N), 1e-300, 1),
    "all near 1e-300": lambda rng, x, g: 1e-300 * rng.choice([1.0, 2.0, 3.0], N),
    "1e-300 to 1e300": lambda rng, x, g: rng.choice([1e-300, 1.0, 1e300], N),
    "within 1e-16 of 1": lambda rng, x, g: 1 - 2.0**-53 * rng.integers(1, 4, N),
    # not a number
    "some missing": lambda rng, x, g: spoiled(rng.integers(0, 2, N), np.nan),
    "all missing": lambda rng, x, g: np.full(N, np.nan),
    "infinite": lambda rng, x, g: spoiled(rng.integers(0, 2, N), np.inf),
}

#: Name -> successes and trials, written p(k, m).
UGLY_COUNTS: dict[str, Values] = {
    "more successes than trials": lambda rng, x, g: (np.full(N, 5), np.full(N, 4)),
    "negative trials": lambda rng, x, g: (np.zeros(N), np.full(N, -1)),
    "fractions": lambda rng, x, g: (np.full(N, 0.5), np.ones(N)),
    "no success": lambda rng, x, g: (np.zeros(N), np.full(N, 4)),
    "no failure": lambda rng, x, g: (np.full(N, 4), np.full(N, 4)),
    "no trials": lambda rng, x, g: (np.zeros(N), np.zeros(N)),
    "no trials in most rows": lambda rng, x, g: (np.where(g == 0, x > 0, 0), np.where(g == 0, 1, 0)),
    "a level of successes": lambda rng, x, g: (np.where(g < LEVELS // 2, 0, 4), np.full(N, 4)),
    "100,000 trials": lambda rng, x, g: (rng.binomial(10**5, 0.3, N), np.full(N, 10**5)),
    "1e300 trials": lambda rng, x, g: (rng.binomial(10, 0.3, N), np.full(N, 1e300)),
    "missing": lambda rng, x, g: (np.full(N, np.nan), np.full(N, 4)),
    "infinite": lambda rng, x, g: (np.zeros(N), np.full(N, np.inf)),
}


#: Kinds, and families, that take seconds.
SLOW = {
    "100,000 trials",
    "a level of successes",
    "computed from g",
    "computed from x",
    "one large count",
    "texts of few rows",
    "whole and near 1e15",
    "within 1e-16 of 1",
    "x separates grades",
}
SLOW_FAMILIES = {"studentt", "tweedie", "zeroinflatednegativebinomial"}
#: Counts as classes: seven of them in 36 rows, as many texts of few rows are.
SLOW_CASES = {("categorical", "a level of zeros")}


#: (family, kind) -> spreads beyond the data that the maximum of the likelihood itself has means at: of y = (x > 0) on a
#: log scale statsmodels' Poisson GLM has 2.548 at the largest x, its Tweedie GLM of power 1.5 has 4.866. Without excess
#: zeros a zero-inflated Poisson is the Poisson.
REACH = {
    ("negativebinomial", "x separates"): 1.55,
    ("negativebinomial1", "x separates"): 1.55,
    ("poisson", "x separates"): 1.55,
    ("tweedie", "x separates"): 3.87,
    ("zeroinflatedpoisson", "x separates"): 1.55,
}
#: Where that maximum is the limit the fit goes on as long, with as many draws, as by default: it has to come near it.
NEAR: dict[str, Any] = {"burn_in": 10, "min_iter": 20, "max_iter": 60, "em_draws": None}


def marks(family: str, kind: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] * (kind in SLOW or family in SLOW_FAMILIES or (family, kind) in SLOW_CASES)


def cases(ugly: dict[str, Values]) -> pytest.MarkDecorator:
    every = [pytest.param(family, kind, marks=marks(family, kind)) for family in FAMILIES for kind in ugly]
    return pytest.mark.parametrize(("family", "kind"), every)


def outcome(formula: str, data: pd.DataFrame, family: str, **options: Any) -> gn.GLMMNetResults | GLMMNetError:
    """A fit or glmmnet's own error; any other error, and any warning that is not glmmnet's, ends the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            return gn.glmm(formula, data, family).fit(progress=False, **{**QUICK, **options})
        except GLMMNetError as error:
            return error


def assert_honest(results: gn.GLMMNetResults, highest: float, lowest: float, spreads: float = 1.0) -> None:
    """Every number is finite; of a fit that calls itself converged, errors too, and means near the observed values."""
    means = results.fittedvalues.to_numpy(dtype=float)
    for numbers in (results.params, results.vcomp["sd"], results.scale, results.llf, means):
        assert np.isfinite(np.asarray(numbers, dtype=float)).all()
    summary = str(results.summary())
    assert "converged" in summary and ("NOT converged" in summary) == (not results.converged)
    if results.converged:
        assert np.isfinite(np.asarray(results.bse, dtype=float)).all()
        # Means may go beyond the observed at the ends of x, not by orders of magnitude.
        reach = spreads * (highest - lowest) + 1e-3 * max(abs(highest), abs(lowest))
        assert (means >= lowest - reach).all() and (means <= highest + reach).all()


@cases(UGLY)
def test_ugly_response(family: str, kind: str) -> None:
    data = frame()
    data["y"] = UGLY[kind](np.random.default_rng(SEED), data["x"].to_numpy(), data["g"].to_numpy())
    found = outcome("y ~ x + (1 | g)", data, family, **(NEAR if (family, kind) in REACH else {}))
    if isinstance(found, GLMMNetError):
        assert "`y`" in str(found) or "response" in str(found).lower(), found
        return
    numbers = data["y"].dropna()
    numeric = pd.api.types.is_numeric_dtype(numbers) and not found.family.class_means
    values = numbers.astype(float) if numeric else pd.Series([0.0, 1.0])
    assert_honest(found, float(values.max()), float(values.min()), REACH.get((family, kind), 1.0))


@cases(UGLY_COUNTS)
def test_ugly_counts(family: str, kind: str) -> None:
    data = frame()
    k, m = UGLY_COUNTS[kind](np.random.default_rng(SEED), data["x"].to_numpy(), data["g"].to_numpy())
    found = outcome("p(k, m) ~ x + (1 | g)", data.assign(k=k, m=m), family)
    if isinstance(found, GLMMNetError):
        assert any(name in str(found) for name in ("p(k, m)", "`k`", "`m`")) or "response" in str(found).lower(), found
        return
    assert_honest(found, 1.0, 0.0)
