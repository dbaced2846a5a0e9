"""Simulated data with known truth, family by family: errors of every parameter, coverage of the intervals."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

import glmmnet as gn
from benchmarks._harness import Report, measured
from benchmarks._references import by_name, correlation, standard_deviations
from benchmarks._scenarios import LEVELS, SCENARIOS, SD, simulate
from glmmnet.families import FAMILIES

#: Data sets a family; of those with more the coverage is known to 1.5 %.
_SETS, _MANY, _WITH_MANY = 20, 200, ("gaussian", "bernoulli", "poisson")
_ERROR, _COVERED, _SD, _PHI = "error.", "covered.", "sd ", "log dispersion"
#: Share of normal numbers beyond 2.
_BEYOND = 0.0455
#: Around what `--table` writes into a page that has more to say.
_BEGIN, _END = "<!-- table: begin -->", "<!-- table: end -->"
#: Neither estimates nor standard errors need more final draws.
_FEW_DRAWS = {"chains": 2, "draws": 25}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Data sets a family and where the table goes."""
    parser.add_argument("--sets", type=int, default=None, metavar="N", help="data sets a family (20; three have 200)")
    parser.add_argument("--table", type=Path, default=None, help="write the table into this file, as Markdown")
    parser.epilog = "--only takes names of families; data set k of a family has a seed made of k and its name"


def run(options: argparse.Namespace, report: Report) -> None:
    """Fit every data set of every family, then one table of errors and coverages."""
    names = [name for name in SCENARIOS if name in FAMILIES] if options.only is None else options.only
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise SystemExit(f"no family {unknown[0]!r} here; families: {', '.join(SCENARIOS)}.")
    names = names[:1] if options.quick and options.only is None else names
    # Before hours of fits.
    before, after = ("", "") if options.table is None else _around(options.table)
    for name in names:
        for seed in range(_sets(name, options)):
            report.attempt(
                lambda name=name, seed=seed: figures(name, seed), scenario=name, method="glmmnet", seed=seed, own=True
            )
    text = table_text(report.frame)
    report.note(text)
    if options.table is not None:
        options.table.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}", encoding="utf-8")


def _sets(name: str, options: argparse.Namespace) -> int:
    if options.sets is not None:
        return int(options.sets)
    return 2 if options.quick else _MANY if name in _WITH_MANY else _SETS


def figures(name: str, seed: int) -> Mapping[str, Any]:
    """Errors of one fit, estimate minus truth, and whether the 95 % intervals hold the truth."""
    data = simulate(name, seed)
    with measured() as cost:
        results = gn.glmm(data.formula, data.frame, data.family, **data.model_options).fit(
            seed=seed, progress=False, **_FEW_DRAWS
        )
        intervals, vcomp = results.conf_int(), results.vcomp
    found, sds = by_name(results.params), standard_deviations(results)
    errors = {term: found[term] - value for term, value in data.fixed.items()}
    errors |= {_SD + part: sds[part] - value for part, value in data.sd.items()}
    errors |= {f"cor {pair}": correlation(results, pair) - value for pair, value in data.cor.items()}
    low, high = (by_name(_as_params(intervals[side])) for side in (0, 1))
    covered = {term: _holds(low[term], high[term], value) for term, value in data.fixed.items()}
    ends = dict(zip(sds, vcomp[["ci_low", "ci_high"]].to_numpy(), strict=True))
    covered |= {_SD + part: _holds(*ends[part], value) for part, value in data.sd.items()}
    if results.family.has_dispersion:
        # Of its logarithm, which is nearer to normal.
        errors[_PHI] = float(np.log(results.scale / data.phi))
        covered[_PHI] = _holds(*results.dispersion[["ci_low", "ci_high"]], data.phi)
    return {
        **{_ERROR + term: error for term, error in errors.items()},
        **{_COVERED + term: hit for term, hit in covered.items()},
        "covered": float(np.mean(list(covered.values()))),
        "converged": results.converged,
        **cost.figures(),
    }


def _holds(low: float, high: float, value: float) -> float:
    """1 where the interval holds the value, 0 where not: a variance of 0 has none, which holds nothing."""
    return float(low <= value <= high)


def _as_params(interval: pd.Series) -> pd.Series | pd.DataFrame:
    """One side of the intervals, shaped as ``results.params``."""
    return interval.unstack("class") if isinstance(interval.index, pd.MultiIndex) else interval


def table(frame: pd.DataFrame) -> list[list[Any]]:
    """One row a family and parameter: data sets, mean error, its Monte Carlo standard error, bias, rest, coverage."""
    rows: list[list[Any]] = []
    for name, own in frame.groupby("scenario", sort=False):
        for column in own.filter(like=_ERROR):
            error = own[column].dropna()
            if not len(error):
                continue
            term = column.removeprefix(_ERROR)
            mean, se = error.mean(), error.std() / np.sqrt(len(error))
            bias = small_sample_bias(term, float(error.std()))
            hit = own[_COVERED + term].mean() if _COVERED + term in own else np.nan
            rest = f"{round((mean - bias) / se, 1) + 0.0:.1f}" if se > 0 else ""
            # A bar would end the cell.
            cells = [name, term.replace("|", "\\|"), len(error), f"{mean:.4f}", f"{se:.4f}"]
            rows.append([*cells, f"{bias:.4f}" if bias else "", rest, _percent(hit)])
    return rows


def small_sample_bias(term: str, spread: float) -> float:
    """What maximum likelihood is off on average for the standard deviation of q levels; 0 of other parameters.

    ML's variance tau^2 lacks V / q, V the variance of a level's own estimate of its effect, and its root lacks an
    eighth of var(tau^2) / tau^3 more. With var(tau^2) = 2 V^2 / q the spread s of the estimated standard deviations
    tells V, and the bias is -s / (2 q)^(1/2) - s^2 / (2 tau).
    """
    if not term.startswith(_SD):
        return 0.0
    tau = next(value for part, value in SD.items() if term.startswith(_SD + part))
    return -spread / (2 * LEVELS) ** 0.5 - spread**2 / (2 * tau)


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{share:.1%}"


def table_text(frame: pd.DataFrame) -> str:
    """The table as Markdown, and how many parameters are beyond two standard errors."""
    rows = table(frame)
    beyond = [row for row in rows if row[6] and abs(float(row[6])) > 2.0]
    named = ", ".join(f"`{row[1]}` of {row[0]} ({row[6]})".replace("\\|", "|") for row in beyond)
    heads = ["family", "parameter", "sets", "mean error", "MC se", "ML bias", "(error - bias) / se"]
    heads += ["95 % interval covers"]
    lines = tabulate(rows, heads, tablefmt="github", disable_numparse=True)
    few = f"{len(beyond)} of {len(rows)} parameters are beyond 2, where chance alone lets {_BEYOND * len(rows):.0f} be"
    return f"{few}{': ' if named else ''}{named}.\n\n{lines}\n"


def _around(path: Path) -> tuple[str, str]:
    """What stands before and after the table in a page; nothing where there is no page yet."""
    if not path.exists():
        return "", "\n"
    page = path.read_text(encoding="utf-8")
    if _BEGIN not in page or _END not in page:
        raise SystemExit(f"{path} has no place for the table: the lines {_BEGIN} and {_END}.")
    return page.split(_BEGIN, 1)[0], page.split(_END, 1)[1]
