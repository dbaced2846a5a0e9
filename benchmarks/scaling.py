"""Seconds and memory of a fit against rows, levels, grouping factors and classes, with log-log slopes."""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

import glmmnet as gn
from benchmarks._fits import warm_up
from benchmarks._fitting import timed_fit
from benchmarks._harness import Report
from benchmarks._task import chosen
from glmmnet.simulate import paper_multiclass, simulate_glmm

_COLUMNS = 10
#: Epochs that every point but `million` trains for, so that points differ in nothing but their size.
_EPOCHS = 5
_FEW_DRAWS = {"draws": 4, "chains": 1, "warmup": 0}
#: Overall slopes are taken from this many rows on: below, what does not grow with the data hides the slope.
_BEYOND = {"rows": 1e5}


@dataclass(frozen=True)
class Point:
    """One fit: which axis it lies on, and its size on all of them; `epochs` None is the default of the fit."""

    axis: str
    rows: int = 100_000
    levels: int = 1000
    factors: int = 1
    classes: int = 2
    epochs: int | None = _EPOCHS
    max_iter: int = 200

    @property
    def name(self) -> str:
        """As in the report."""
        return self.axis if self.axis == "million" else f"{self.axis}={self.value}"

    @property
    def value(self) -> int:
        """Place on its axis."""
        return self.rows if self.axis == "million" else int(getattr(self, self.axis))


#: By axis; `million` is one point with the default options.
POINTS: dict[str, tuple[Point, ...]] = {
    "rows": tuple(Point("rows", rows=round(10**e)) for e in (4, 4.5, 5, 5.5, 6, 6.5)),
    # Two rows a level at least: of one row a level the effects could not be told from the noise.
    "levels": tuple(Point("levels", rows=2_000_000, levels=10**e) for e in (2, 3, 4, 5, 6)),
    "factors": tuple(Point("factors", factors=k) for k in (1, 2, 4, 8)),
    "classes": tuple(Point("classes", rows=20_000, levels=100, classes=c) for c in (2, 5, 10, 20, 50)),
    "million": (Point("million", rows=1_000_000, levels=100_000, epochs=None),),
}
QUICK: dict[str, tuple[Point, ...]] = {
    "rows": tuple(Point("rows", rows=n, levels=50, epochs=1, max_iter=2) for n in (500, 1000, 2000)),
    "levels": tuple(Point("levels", rows=1000, levels=q, epochs=1, max_iter=2) for q in (50, 500)),
    "factors": tuple(Point("factors", rows=1000, levels=20, factors=k, epochs=1, max_iter=2) for k in (1, 2)),
    "classes": tuple(Point("classes", rows=500, levels=10, classes=c, epochs=1, max_iter=2) for c in (2, 4)),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """None of its own; ``--only`` takes axes: rows, levels, factors, classes, million."""
    parser.epilog = f"--only takes axes: {', '.join(POINTS)}. Each fit has a fresh process, but those of --quick."


def run(options: argparse.Namespace, report: Report) -> None:
    """Fit every point of the wanted axes, smallest first, then print the slopes."""
    points = QUICK if options.quick else POINTS
    compute = fit_point if options.quick else _in_fresh_process
    for own in chosen(options.only, points).values():
        for point in own:
            for seed in range(options.seeds):
                report.attempt(
                    lambda point=point, seed=seed: compute(point, seed),
                    scenario=point.name,
                    method="glmmnet",
                    seed=seed,
                    own=True,
                )
    _print_slopes(report.frame)


def _in_fresh_process(point: Point, seed: int) -> dict[str, Any]:
    """The fit in a new process: memory that an earlier one has freed would be used again unseen."""
    with multiprocessing.get_context("spawn").Pool(1, initializer=warm_up) as pool:
        return pool.apply(fit_point, (point, seed))


def fit_point(point: Point, seed: int) -> dict[str, Any]:
    """Simulate and fit: seconds of building and fitting the model, final draws aside, and memory beyond the data.

    `peak_mb` is the largest resident memory of the whole process, libraries and data among it.
    """
    frame = simulate(point, seed)
    inputs = " + ".join(f"x{j}" for j in range(_COLUMNS))
    bars = " + ".join(f"(1 | g{k})" for k in range(point.factors))
    family = "bernoulli" if point.classes == 2 else "categorical"
    _, figures = timed_fit(
        lambda: gn.glmm(f"y ~ nn({inputs}) + {bars}", frame, family),
        seed=seed,
        epochs=point.epochs,
        max_iter=point.max_iter,
        **_FEW_DRAWS,
    )
    size = {"rows": point.rows, "levels": point.levels, "factors": point.factors, "classes": point.classes}
    return {"axis": point.axis, "value": point.value, **size, **figures, "peak_mb": _peak_mb()}


def _peak_mb() -> float:
    """Largest resident memory of this process so far; Linux counts in kilobytes, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def simulate(point: Point, seed: int) -> pd.DataFrame:
    """Rows of a point: f of the paper, random intercepts whose variances add up to 1 over the factors."""
    sd = point.factors**-0.5
    if point.classes > 2:
        variances, levels = [sd**2] * point.factors, [point.levels] * point.factors
        return paper_multiclass(
            variances, levels, seed, classes=point.classes, n=point.rows, columns=_COLUMNS, shuffle=True
        ).frame
    groups = {f"g{k}": (point.levels, sd) for k in range(point.factors)}
    return simulate_glmm(point.rows, groups, family="bernoulli", f=_f, columns=_COLUMNS, seed=seed).frame


def _f(x: np.ndarray) -> np.ndarray:
    t = 1 + x.sum(axis=1)
    return t * np.cos(t) + 2 * x[:, 0] * x[:, 1]


def successive_slopes(x: Sequence[float], y: Sequence[float]) -> np.ndarray:
    """Slopes of log y between neighbouring x, one less than the points."""
    return np.diff(np.log(y)) / np.diff(np.log(x))


def overall_slope(x: Sequence[float], y: Sequence[float], beyond: float = 0.0) -> float:
    """Least-squares slope of log y on log x over x >= `beyond`; NaN with fewer than two points there."""
    kept = np.asarray(x) >= beyond
    if kept.sum() < 2:
        return float("nan")
    return float(np.polyfit(np.log(np.asarray(x)[kept]), np.log(np.asarray(y)[kept]), 1)[0])


def slope_table(frame: pd.DataFrame) -> list[list[Any]]:
    """A row a point: axis, value, seconds, slope to the point before, memory and its slope; then the overall slopes."""
    rows: list[list[Any]] = []
    for axis, own in frame.groupby("axis", sort=False):
        means = own.groupby("value")[["seconds", "memory_mb"]].mean()
        x, seconds, memory = means.index.to_numpy(float), means["seconds"].to_numpy(), means["memory_mb"].to_numpy()
        between = [[None, *successive_slopes(x, y)] for y in (seconds, memory.clip(min=1.0))]
        for i, value in enumerate(means.index):
            rows.append([axis, value, seconds[i], between[0][i], memory[i], between[1][i]])
        if len(x) > 1:
            beyond = _BEYOND.get(str(axis), 0.0) if x.max() > _BEYOND.get(str(axis), 0.0) else 0.0
            label = f"from {beyond:g}" if beyond else "all"
            overall = [overall_slope(x, y, beyond) for y in (seconds, memory.clip(min=1.0))]
            rows.append([axis, label, None, overall[0], None, overall[1]])
    return rows


def _print_slopes(frame: pd.DataFrame) -> None:
    if "axis" not in frame:
        return
    headers = ["axis", "value", "seconds", "slope", "MB", "slope"]
    print("\nlog-log slopes to the point before, and by least squares over several")
    print(tabulate(slope_table(frame.dropna(subset="axis")), headers=headers, floatfmt=".3g", missingval=""))
