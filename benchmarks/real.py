"""Prediction on real clustered data: a random intercept for each group, the other columns in one network."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

import glmmnet as gn
from benchmarks import tasks
from benchmarks._fits import warm_up
from benchmarks._fitting import standard_deviations, timed_fit
from benchmarks._harness import Report, measured
from benchmarks._metrics import auroc, multiclass_auroc, r2
from benchmarks._task import Settings, add_fit_options, settings
from benchmarks.peers import PEERS, Given, NotApplicable
from benchmarks.tasks import Kind, Split, TaskData

#: Test AUROC (multiclass: one against one) or R2 by others on the rows of seed 0, one run each: read from the figures
#: that the project's issue on the engine gives (lme4 in R, the published code of Tschalzev et al. 2024, the best of
#: CatBoost, LightGBM and target encoding with boosting, a prototype of glmmnet in one file).
QUOTED = pd.DataFrame(
    [
        ("open_payments", 0.9500, 0.9484, 0.9701, 0.9492),
        ("open_payments_pairs", None, None, None, 0.9529),
        ("amazon_employee_access", None, 0.8605, 0.9099, None),
        ("nycflights13_50k", 0.6851, 0.7079, 0.7460, 0.7124),
        ("video_game_sales", None, 0.7868, 0.8032, None),
        ("midwest_survey", None, 0.8295, 0.8557, None),
        ("open_payments_iowa", 0.5131, None, 0.5890, 0.5136),
        ("open_payments_iowa_pairs", None, None, None, 0.5451),
        ("insteval", 0.1819, None, 0.1760, 0.1810),
        ("spotify", 0.4826, None, 0.6022, 0.5781),
        ("imdb", 0.4187, None, 0.4972, 0.4615),
    ],
    columns=["scenario", "lme4", "MC-GMENN code", "best of trees", "prototype"],
)
#: lme4 1.1.31 on all rows of InstEval by maximum likelihood, `tests/reference/`; seconds on a 2-core machine.
CROSSED_FORMULA = "y ~ 1 + (1 | s) + (1 | d)"
CROSSED_LME4 = "lme4 on insteval_crossed: s 0.3259, d 0.5230, Residual 1.1778 in 4.6 s (2-core machine)"

_FAMILY: dict[Kind, str] = {"binary": "bernoulli", "multiclass": "categorical", "regression": "gaussian"}
_QUICK_ROWS = 1000
_QUICK_FIT = {"epochs": 2, "max_iter": 3, "draws": 10, "chains": 2}


@dataclass(frozen=True)
class Case:
    """One scenario: rows, and the formula of glmmnet with and without its random terms."""

    name: str
    data: TaskData
    formula: str
    ignoring: str
    family: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where data come from besides those that ship with packages; options of the fit and of the network."""
    add_fit_options(parser)
    parser.add_argument("--data", type=Path, default=None, help="folder with the files of the nine tasks (*.csv.gz)")
    parser.add_argument("--csv-file", type=Path, default=None, help="any CSV file, with --formula and --family")
    parser.add_argument("--formula", default=None, help='model of --csv-file, e.g. "y ~ nn(x + z) + (1 | g)"')
    parser.add_argument("--family", default="gaussian", choices=sorted(_FAMILY.values()), help="family of --csv-file")


def run(options: argparse.Namespace, report: Report) -> None:
    """Every scenario with every method, seed by seed: the seed splits the rows and starts the fits."""
    warm_up()
    for case in _cases(options):
        for seed in range(options.seeds):
            split = _split(case.data, seed, options.quick)
            for method, peer, compute in _methods(case, split, settings(options, seed, _QUICK_FIT)):
                if options.methods is None or method in options.methods:
                    _attempt(report, compute, scenario=case.name, method=method, seed=seed, peer=peer)
    own = options.methods is None or "glmmnet" in options.methods
    if own and options.csv_file is None and _wanted("insteval_crossed", options):
        report.attempt(
            lambda: _crossed(settings(options, 0, _QUICK_FIT), options.quick),
            scenario="insteval_crossed",
            method="glmmnet",
            seed=0,
            own=True,
        )
    _print_quoted(report)


def _wanted(name: str, options: argparse.Namespace) -> bool:
    return options.only is None or name in options.only


def _cases(options: argparse.Namespace) -> Iterator[Case]:
    if options.csv_file is not None:
        if options.formula is None:
            raise SystemExit('--csv-file needs --formula, e.g. --formula "y ~ nn(x + z) + (1 | g)".')
        yield csv_case(options.csv_file, options.formula, options.family)
        return
    names = [*tasks.BUILT_IN, *(tasks.FROM_FILES if options.data is not None else ())]
    variants = {name: _variants(tasks.TASKS[name]) for name in names}
    known = [*(f"{name}{end}" for name, own in variants.items() for end in own), "insteval_crossed"]
    if unknown := [name for name in options.only or () if name not in known]:
        hint = "" if options.data is not None else "; the tasks from files need --data FOLDER"
        raise SystemExit(f"there is no scenario {unknown[0]!r}; write one of: {', '.join(known)}{hint}.")
    for name, own in variants.items():
        for end, pairs in own.items():
            if _wanted(name + end, options):
                yield task_case(name + end, tasks.load(name, options.data), pairs)


def _variants(task: tasks.Task) -> dict[str, tuple[str, ...]]:
    """Combined groups of a task and of its variants, by what their names end in."""
    pairs, inputs = task.interactions, task.with_inputs
    every = {"": (), "_pairs": pairs, "_inputs": (*pairs, *inputs) if inputs else ()}
    return {end: groups for end, groups in every.items() if groups or not end}


def task_case(name: str, data: TaskData, pairs: tuple[str, ...] = ()) -> Case:
    """The model of a task: the ordinary columns in one network, an intercept for each group and pair of groups."""
    fixed = f"nn({' + '.join(map(_quoted, data.ordinary))})" if data.ordinary else "1"
    bars = [f"(1 | {':'.join(map(_quoted, group.split(':')))})" for group in (*data.groups, *pairs)]
    ignoring = f"{_quoted(data.target)} ~ {fixed}"
    joined = data.with_groups(pairs)
    return Case(name, joined, f"{ignoring} + {' + '.join(bars)}", ignoring, _FAMILY[data.kind])


def csv_case(path: Path, formula: str, family: str) -> Case:
    """A CSV file and a formula; other programs get the columns of its fixed and nn() terms and its grouping factors."""
    rows = pd.read_csv(path)
    design = gn.glmm(formula, rows, family).design
    if design.response is None:
        raise SystemExit(f"the formula {formula!r} has no response.")
    frame = rows.iloc[design.rows].reset_index(drop=True)
    kind: Kind = next(k for k, name in _FAMILY.items() if name == family)
    numbers = {f"x[{n}]": design.X[:, j] for j, n in enumerate(design.x_names) if n != "Intercept"}
    for block in design.neural:
        numbers |= {f"nn[{name}]": block.x[:, j] for j, name in enumerate(block.names)}
    levels = {f"group[{term.group}]": term.levels.astype(str).to_numpy()[term.index] for term in design.random}
    target = formula.split("~")[0].strip()
    if target not in frame:
        raise SystemExit(f"the response {target!r} of --formula must be a column of {path}.")
    coded = frame[target] if kind == "regression" else pd.factorize(frame[target], sort=True)[0]
    frame = frame.assign(**numbers, **levels, **{target: coded})
    data = TaskData(frame, target, kind, tuple(numbers), tuple(levels))
    ignoring = f"{target} ~ {' + '.join(f'`{name}`' for name in numbers) or '1'}"
    return Case(path.name, data, formula, ignoring, family)


def _quoted(name: str) -> str:
    return name if name.isidentifier() else f"`{name}`"


def _split(data: TaskData, seed: int, quick: bool) -> Split:
    split = tasks.split(data, seed)
    if not quick:
        return split
    return Split(split.train[:_QUICK_ROWS], split.valid[: _QUICK_ROWS // 9], split.test[: _QUICK_ROWS // 4])


Compute = Callable[[], dict[str, Any]]


def _methods(case: Case, split: Split, chosen: Settings) -> Iterator[tuple[str, tuple[str, ...], Compute]]:
    """Name, packages and computation of each method."""
    yield "glmmnet", (), lambda: _fit(case, case.formula, split, chosen)
    yield "ignoring", (), lambda: _fit(case, case.ignoring, split, chosen)
    for peer in PEERS:
        if peer.installed:
            yield peer.name, (peer.package,), lambda peer=peer: _peer(peer.fit_predict, case.data, split)
        else:
            print(f"{peer.name}: skipped, {peer.package} is not installed (pip install -e '.[bench]').")


def _attempt(report: Report, compute: Compute, *, scenario: str, method: str, seed: int, peer: tuple[str, ...]) -> None:
    """A row of the report; a line only where the peer has no such model."""

    def applicable() -> dict[str, Any]:
        try:
            return compute()
        except NotApplicable as reason:
            return {"skipped": str(reason)}

    report.attempt(applicable, scenario=scenario, method=method, seed=seed, peer=peer, own=not peer)


def _fit(case: Case, formula: str, split: Split, chosen: Settings) -> dict[str, Any]:
    """Figures of glmmnet on the rows to learn from, the validation rows marked for its early stopping."""
    data = case.data
    rows = np.concatenate([split.train, split.valid])
    marked = np.arange(len(rows)) >= len(split.train)
    known = data.frame.iloc[rows].reset_index(drop=True).assign(held_out=marked)
    neural = "nn(" in formula
    held: dict[str, Any] = {"validation": "held_out"} if neural else {}
    results, figures = timed_fit(
        lambda: gn.glmm(formula, known, case.family, nn=chosen.nn if neural else None),
        seed=chosen.seed,
        **held,
        **chosen.fit,
    )
    test = data.frame.iloc[split.test]
    predicted = results.predict(test).to_numpy()
    return {
        **scores(test[data.target].to_numpy(), predicted, data.kind),
        **figures,
        "sds": standard_deviations(results),
    }


def _peer(fit_predict: Callable[[Given], np.ndarray], data: TaskData, split: Split) -> dict[str, Any]:
    train, valid, test = (data.frame.iloc[rows] for rows in (split.train, split.valid, split.test))
    with measured() as cost:
        predicted = fit_predict(Given(train, valid, test, data.target, data.kind, data.ordinary, data.groups))
    return {**scores(test[data.target].to_numpy(), predicted, data.kind), **cost.figures()}


def scores(y: np.ndarray, predicted: np.ndarray, kind: Kind) -> dict[str, float]:
    """AUROC of classes (several: mean over pairs, and one against the rest), R2 of numbers."""
    if kind == "regression":
        return {"r2": r2(y, predicted)}
    if kind == "binary":
        return {"auroc": auroc(y, predicted)}
    # A class that the few rows of a quick run lack has no area.
    present = np.unique(y)
    one, rest = multiclass_auroc(np.searchsorted(present, y), predicted[:, present])
    return {"auroc": one, "auroc_rest": rest}


def _crossed(chosen: Settings, quick: bool) -> dict[str, Any]:
    """InstEval as lme4 fits it: two crossed factors, all rows, no network."""
    rows = tasks.insteval()
    rows = rows.sample(_QUICK_ROWS, random_state=0) if quick else rows
    results, figures = timed_fit(lambda: gn.glmm(CROSSED_FORMULA, rows), seed=chosen.seed, **chosen.fit)
    return {**figures, "llf": results.llf, "sds": standard_deviations(results)}


def _print_quoted(report: Report) -> None:
    """Figures of others for the scenarios that were run."""
    scenarios = {row["scenario"] for row in report.rows}
    shown = QUOTED[QUOTED["scenario"].isin(scenarios)]
    if len(shown):
        cells = shown.astype(object).where(shown.notna(), "").to_numpy().tolist()
        print("\nQuoted, not run here: one run each on seed 0, from the project's issue on the engine")
        print(tabulate(cells, headers=list(shown), floatfmt=".4f"))
    if "insteval_crossed" in scenarios:
        print(CROSSED_LME4)
