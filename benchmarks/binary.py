"""The paper's nine binary scenarios: sigma^2 and predictions beside the oracle's, which knows f, and four encodings."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from benchmarks._fits import fit, warm_up
from benchmarks._harness import Report
from benchmarks._metrics import auroc, centred_mse, relative_error
from benchmarks._paper import binary_task
from benchmarks._picture import draw
from benchmarks._task import Settings, Task, add_fit_options, chosen, settings
from benchmarks.encodings import ENCODINGS

#: sigma^2, AUROC on the test rows and seconds of two published programs.
QUOTED = pd.DataFrame(
    [
        ("0.1", 100, 0.100, 0.8035, 33, 0.069, 0.8005, 20),
        ("0.1", 1000, 0.090, 0.8019, 20, 0.091, 0.8026, 29),
        ("0.1", 10000, 0.168, 0.7939, 40, 0.094, 0.7925, 64),
        ("1", 100, 0.789, 0.8360, 35, 0.500, 0.8309, 44),
        ("1", 1000, 0.833, 0.8344, 21, 0.648, 0.8310, 44),
        ("1", 10000, 0.721, 0.8048, 24, 0.873, 0.8101, 58),
        ("10", 100, 6.12, 0.9271, 27, 1.90, 0.9228, 13),
        ("10", 1000, 6.71, 0.9262, 33, 2.52, 0.9236, 45),
        ("10", 10000, 5.97, 0.8807, 17, 5.06, 0.8979, 87),
    ],
    columns=["sigma2", "q", "MC-GMENN sigma2", "AUROC", "s", "LMMNN sigma2", "AUROC ", "s "],
)
SOURCE = "one run each of the published code on the rows of seed 0, by the authors of glmmnet, 2-core CPU"

_QUICK = {"epochs": 4, "batch_size": 64, "max_iter": 12, "min_iter": 2, "burn_in": 2, "draws": 20, "chains": 2}


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--set``, ``--nn`` and ``--picture``."""
    add_fit_options(parser)
    parser.add_argument("--picture", type=Path, default=None, metavar="FILE", help="draw all rows of the CSV to FILE")


def scenarios(quick: bool) -> dict[str, Callable[[int], Task]]:
    """Name -> seed -> task."""
    if quick:
        return {"s1_q30": lambda seed: binary_task(1.0, 30, seed, n=3000)}
    return {f"s{v:g}_q{q}": partial(binary_task, v, q) for v in (0.1, 1.0, 10.0) for q in (100, 1000, 10_000)}


def glmmnet(task: Task, settings: Settings) -> dict[str, Any]:
    """The network and a random intercept."""
    return _mixed(task, f"y ~ {task.neural_part} + (1 | g)", settings)


def oracle(task: Task, settings: Settings) -> dict[str, Any]:
    """The same model with the true f given: what the data allow."""
    return _mixed(task, "y ~ 0 + offset(f) + (1 | g)", settings)


def _mixed(task: Task, formula: str, settings: Settings) -> dict[str, Any]:
    results, figures = fit(task, formula, settings, likelihood=True)
    assert task.truth is not None
    test, variance = task.test, float(task.truth.variance["g"][0])
    estimate = float(results.cov_re["g"].to_numpy()[0, 0])
    effects = results.random_effects["g"].iloc[:, 0]
    true_effects = task.truth.b["g"][effects.index.to_numpy(int), 0]
    f = results.predict(test, level="population", kind="link")
    return {
        "sigma2": estimate,
        "sigma2_error": relative_error(estimate, variance),
        "auroc": auroc(test["y"].to_numpy(), results.predict(test).to_numpy()),
        "b_correlation": float(np.corrcoef(effects, true_effects)[0, 1]),
        "f_mse": centred_mse(f.to_numpy(), test["f"].to_numpy()),
        **figures,
    }


def _encoded(name: str, task: Task, settings: Settings) -> dict[str, Any]:
    prediction, figures = ENCODINGS[name](task, settings)
    return {"auroc": auroc(task.test["y"].to_numpy(), prediction), **figures}


METHODS: Mapping[str, Callable[[Task, Settings], dict[str, Any]]] = {
    "glmmnet": glmmnet,
    "oracle": oracle,
    **{name: partial(_encoded, name) for name in ENCODINGS},
}


def run(options: argparse.Namespace, report: Report) -> None:
    """All scenarios, seeds and methods, then the figures that sum them up."""
    methods = chosen(options.methods, METHODS)
    warm_up()
    for scenario, make in chosen(options.only, scenarios(options.quick)).items():
        for seed in range(options.seeds):
            task, given = make(seed), settings(options, seed, _QUICK)
            for name, method in methods.items():
                report.attempt(
                    partial(method, task, given),
                    scenario=scenario,
                    method=name,
                    seed=seed,
                    peer=("scikit-learn",) if name == "target" else (),
                    own=True,
                )
    for line in summary(report.frame):
        report.note(line)
    if options.picture is not None:
        draw(pd.read_csv(report.path), QUOTED, options.picture)
    report.note(f"Quoted: {SOURCE}\n{tabulate(QUOTED, headers='keys', showindex=False, disable_numparse=True)}")


def summary(frame: pd.DataFrame) -> list[str]:
    """Accuracy of glmmnet beside the oracle's, and seconds beside the network's alone, over the same runs."""
    if "sigma2_error" not in frame or "glmmnet" not in set(frame["method"]):
        return []
    own = frame[frame["method"] == "glmmnet"]
    by_scenario = own.groupby("scenario")["sigma2_error"].mean()
    lines = [
        f"glmmnet: relative error of sigma^2 {own['sigma2_error'].mean():.4f}, of the worst scenario "
        f"{by_scenario.max():.4f}; seconds {own['seconds'].mean():.2f}, with final draws "
        f"{own['seconds_final'].mean():.2f}"
    ]
    keys = ["scenario", "seed"]
    for other in ("oracle", "ignoring"):
        both = own.merge(frame[frame["method"] == other], on=keys, suffixes=("", "_other")).dropna(subset="auroc_other")
        if both.empty:
            continue
        if other == "ignoring":
            lines.append(f"seconds beside the network alone: {both['seconds'].sum() / both['seconds_other'].sum():.2f}")
            continue
        ratio = both["sigma2_error"].mean() / both["sigma2_error_other"].mean()
        deficit = both["auroc_other"] - both["auroc"]
        worst = deficit.groupby(both["scenario"]).mean().max()
        lines.append(
            f"beside the oracle: error of sigma^2 times {ratio:.3f}; AUROC lower by {deficit.mean():.5f} on average, "
            f"by {worst:.5f} in the worst scenario, by {deficit.max():.5f} in the worst run"
        )
    return lines
