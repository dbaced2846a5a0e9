"""Fits of other programs on public data made again: estimates, errors and likelihoods side by side."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from benchmarks._harness import Report, measured
from benchmarks._references import REFERENCES, compare, fit

#: Fits of the quick form: one of each kind that takes no time.
_QUICK = ("lmer_sleepstudy_slope_ML", "glmer_cbpp_nAGQ1", "ownAGQ61_cbpp")


def add_options(parser: argparse.ArgumentParser) -> None:
    """One seed unless told otherwise: most fits are not random."""
    parser.set_defaults(seeds=1)
    parser.epilog = (
        "--only takes names of fits or how they begin, e.g. lmer_sleepstudy; columns: the fixed effect that differs "
        "most, in standard errors; relative differences of sds, SEs and dispersion; what is beyond the tolerance"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    """One fit after the other, each anew, so that its seconds are its own."""
    for name in _names(options):
        for seed in range(options.seeds):
            report.attempt(
                lambda name=name, seed=seed: figures(name, seed), scenario=name, method="glmmnet", seed=seed, own=True
            )
    if "beyond" in report.frame:
        wrong = report.frame[report.frame["beyond"].fillna("") != ""]
        report.note(f"{len(report.frame)} fits, {len(wrong)} beyond the tolerance: {', '.join(wrong['scenario'])}")


def _names(options: argparse.Namespace) -> list[str]:
    wanted = options.only or (_QUICK if options.quick else ("",))
    names = [name for name in REFERENCES if name.startswith(tuple(wanted))]
    if not names:
        raise SystemExit(f"no fit is called {', '.join(wanted)}; fits: {', '.join(REFERENCES)}.")
    return names


def figures(name: str, seed: int) -> Mapping[str, Any]:
    """One fit beside its reference; seconds are those of the fit, its errors and its likelihood."""
    with measured() as cost:
        results = fit(name, seed=seed)
        comparison = compare(results, name)
    differences = comparison.figures
    off = REFERENCES[name].get("off", ())
    return {
        "worst": comparison.worst,
        "ours": comparison.ours,
        "theirs": comparison.theirs,
        "in_se": differences.fixed,
        "sd": differences.sd,
        "cor": differences.cor,
        "se": differences.se,
        "scale": differences.scale,
        "llf": differences.llf,
        "llf_at_theirs": differences.llf_at_theirs,
        **cost.figures(),
        "beyond": ", ".join(field for field in comparison.beyond if field not in off),
        "reference_off": ", ".join(off),
    }
