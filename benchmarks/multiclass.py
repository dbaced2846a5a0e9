"""The paper's nine scenarios of several classes: glmmnet, the oracle that knows f, and four encodings."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from benchmarks._fits import fit, fit_given_f, variances, warm_up
from benchmarks._harness import Report
from benchmarks._metrics import multiclass_auroc
from benchmarks._paper import multiclass_task
from benchmarks._task import Settings, Task, add_fit_options, chosen, settings
from benchmarks.encodings import ENCODINGS

#: True variances below this belong to factors that do nothing.
_NULL = 0.01

#: Test AUROC (one against one), means of 5 repetitions, and minutes.
QUOTED = pd.DataFrame(
    [
        ("base", 0.771, 0.754, "embedding", 2.5),
        ("samples_1M", 0.784, 0.779, "", 40),
        ("features_1000", 0.554, 0.522, "", 3.2),
        ("classes_100", 0.705, 0.637, "", 18),
        ("levels_20000", 0.612, 0.621, "ignoring", 5.2),
        ("dominating", 0.914, 0.907, "", 4.9),
        ("irrelevant", 0.642, 0.646, "ignoring", 9.2),
        ("class_variations", 0.749, 0.730, "", 3.7),
        ("ten_factors", 0.901, 0.887, "", 5.3),
    ],
    columns=["scenario", "MC-GMENN AUROC", "best encoding AUROC", "which", "MC-GMENN minutes"],
)
SOURCE = "published by Tschalzev et al. (2024), IJCAI, section 4.2, on a GPU; rows as sorted there"

_QUICK = {"epochs": 3, "batch_size": 64, "max_iter": 3, "draws": 10, "chains": 1, "warmup": 5}


@dataclass(frozen=True)
class Scenario:
    """Levels of each factor, a variance for each factor and class, rows and inputs."""

    levels: Sequence[int] = (1000, 10, 1000)
    variances: Sequence[Sequence[float]] = ((1e-4,) * 5, (0.5,) * 5, (0.5,) * 5)
    n: int = 100_000
    columns: int = 10


SCENARIOS: Mapping[str, Scenario] = {
    "base": Scenario(),
    "samples_1M": Scenario(n=1_000_000),
    "features_1000": Scenario(columns=1000),
    "classes_100": Scenario(variances=((1e-4,) * 100, (0.5,) * 100, (0.5,) * 100)),
    "levels_20000": Scenario(levels=(20_000,) * 3),
    "dominating": Scenario(variances=((5.0,) * 5, (0.5,) * 5, (0.5,) * 5)),
    "irrelevant": Scenario(variances=((1e-4,) * 5,) * 3),
    "class_variations": Scenario(
        variances=((1e-4,) * 5, (1e-4, 0.25, 0.5, 0.75, 0.5), (1e-4, 0.5, 0.25, 0.5, 0.75)),
    ),
    "ten_factors": Scenario(levels=(1000,) * 10, variances=tuple(((k + 1) / 10,) * 5 for k in range(10))),
}
QUICK = {"base": Scenario((20, 5), ((1e-4,) * 3, (1.0,) * 3), n=2000)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--shuffled``, ``--set`` and ``--nn``."""
    parser.add_argument(
        "--shuffled",
        action="store_true",
        help="permute each factor along the rows; as published all are sorted, so that equal ones nearly coincide",
    )
    add_fit_options(parser)


def glmmnet(task: Task, settings: Settings) -> dict[str, Any]:
    """The network and a random intercept for each factor and class."""
    formula = f"y ~ {task.neural_part} + {task.random_part}"
    results, figures = fit(task, formula, settings, likelihood=False)
    estimates = variances(results.fitted.joint, results.fitted.params)
    return _accuracy(task, results.predict(task.test).to_numpy()) | _variance_figures(task, estimates) | figures


def oracle(task: Task, settings: Settings) -> dict[str, Any]:
    """The same E-step with the true f of each class: what the data allow."""
    p, estimates, figures = fit_given_f(task, settings)
    return _accuracy(task, p) | _variance_figures(task, estimates) | figures


def _encoded(name: str, task: Task, settings: Settings) -> dict[str, Any]:
    p, figures = ENCODINGS[name](task, settings)
    return _accuracy(task, p) | figures


METHODS: Mapping[str, Callable[[Task, Settings], dict[str, Any]]] = {
    "glmmnet": glmmnet,
    "oracle": oracle,
    **{name: partial(_encoded, name) for name in ENCODINGS},
}


def _accuracy(task: Task, p: np.ndarray) -> dict[str, float]:
    y = task.test["y"].to_numpy()
    one, rest = multiclass_auroc(y, p)
    return {"auroc_ovo": one, "auroc_ovr": rest, "accuracy": float((p.argmax(axis=1) == y).mean())}


def _variance_figures(task: Task, estimates: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean relative error of the variances that are not null, the largest of those that are, ranges by factor."""
    assert task.truth is not None
    figures: dict[str, float] = {}
    true, found = (np.concatenate([v[k] for k in task.factors]) for v in (task.truth.variance, estimates))
    null = true < _NULL
    if not null.all():
        figures["sigma2_error"] = float(np.mean(np.abs(found - true)[~null] / true[~null]))
    if null.any():
        figures["null_max"] = float(found[null].max())
    for factor, values in estimates.items():
        figures |= {f"variance.{factor}.min": float(values.min()), f"variance.{factor}.max": float(values.max())}
    return figures


def run(options: argparse.Namespace, report: Report) -> None:
    """All scenarios, seeds and methods; the rank of glmmnet in each scenario."""
    methods = chosen(options.methods, METHODS)
    warm_up()
    for name, scenario in chosen(options.only, QUICK if options.quick else SCENARIOS).items():
        for seed in range(options.seeds):
            task = multiclass_task(
                scenario.variances,
                scenario.levels,
                seed,
                n=scenario.n,
                columns=scenario.columns,
                shuffle=options.shuffled,
            )
            given = settings(options, seed, _QUICK)
            for method, compute in methods.items():
                report.attempt(
                    partial(compute, task, given),
                    scenario=f"{name}_shuffled" if options.shuffled else name,
                    method=method,
                    seed=seed,
                    peer=("scikit-learn",) if method == "target" else (),
                    own=True,
                )
    for line in [*ranks(report.frame), *_variance_lines(report.frame)]:
        report.note(line)
    report.note(f"Quoted: {SOURCE}\n{tabulate(QUOTED, headers='keys', showindex=False, disable_numparse=True)}")


def ranks(frame: pd.DataFrame) -> list[str]:
    """In each scenario the rank of glmmnet's mean AUROC among the methods that do not know f, and the distance."""
    if "auroc_ovo" not in frame or "glmmnet" not in set(frame["method"]):
        return []
    known = frame[frame["method"] != "oracle"].dropna(subset="auroc_ovo")
    lines = []
    for scenario, means in known.groupby(["scenario", "method"], sort=False)["auroc_ovo"].mean().groupby(level=0):
        by_method = means.droplevel(0)
        if "glmmnet" not in by_method:
            continue
        own, best = by_method["glmmnet"], by_method.idxmax()
        rank = int((by_method > own).sum()) + 1
        behind = f", {by_method[best] - own:.4f} behind {best}" if rank > 1 else ""
        lines.append(f"{scenario}: glmmnet is number {rank} of {len(by_method)} (AUROC {own:.4f}{behind})")
    return lines


def _variance_lines(frame: pd.DataFrame) -> list[str]:
    """The range over classes of each factor's variance, means over the seeds."""
    columns = [c for c in frame if c.startswith("variance.") and c.endswith(".min")]
    lines = []
    for (scenario, method), rows in frame.groupby(["scenario", "method"], sort=False):
        parts = [
            f"{c.split('.')[1]} {rows[c].mean():.4f} to {rows[c[:-3] + 'max'].mean():.4f}"
            for c in columns
            if rows[c].notna().any()
        ]
        if parts:
            lines.append(f"{scenario}, variances by {method}: {', '.join(parts)}")
    return lines
