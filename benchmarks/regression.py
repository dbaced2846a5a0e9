"""Gaussian responses with the paper's f: one factor, three crossed factors, random slopes; the oracle, four encodings,
linear mixed models."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks._fits import fit, variances, warm_up
from benchmarks._harness import Report, measured
from benchmarks._metrics import centred_mse, r2, relative_error
from benchmarks._paper import gaussian_task
from benchmarks._task import HELD, Settings, Task, add_fit_options, chosen, settings
from benchmarks.encodings import ENCODINGS
from benchmarks.peers import PEERS, Given, mixed_lm

_QUICK = {"epochs": 4, "batch_size": 64, "max_iter": 20, "draws": 20, "chains": 2}


@dataclass(frozen=True)
class Scenario:
    """Levels and standard deviation of each factor's intercept, standard deviations of slopes, the random part."""

    groups: Mapping[str, tuple[int, float]]
    random: str
    slopes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    n: int = 100_000


SCENARIOS: Mapping[str, Scenario] = {
    "one_factor": Scenario({"g0": (1000, 1.0)}, "(1 | g0)"),
    "three_crossed": Scenario(
        {"g0": (1000, 1.0), "g1": (100, 0.5), "g2": (1000, 0.7)}, "(1 | g0) + (1 | g1) + (1 | g2)"
    ),
    "slopes": Scenario({"g0": (1000, 1.0)}, "(1 + x0 | g0)", {"g0": {"x0": 0.5}}),
}
QUICK = {
    "one_factor": Scenario({"g0": (30, 1.0)}, "(1 | g0)", n=3000),
    "slopes": Scenario({"g0": (30, 1.0)}, "(1 + x0 | g0)", {"g0": {"x0": 0.5}}, n=3000),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--set`` and ``--nn``."""
    add_fit_options(parser)


def glmmnet(task: Task, settings: Settings) -> dict[str, Any]:
    """The network and the random effects."""
    return _mixed(task, f"y ~ {task.neural_part} + {task.random_part}", settings)


def oracle(task: Task, settings: Settings) -> dict[str, Any]:
    """The same model with the true f given: what the data allow."""
    return _mixed(task, f"y ~ 0 + offset(f) + {task.random_part}", settings)


def linear(task: Task, settings: Settings) -> dict[str, Any]:
    """glmmnet without a network: a linear mixed model."""
    return _mixed(task, f"y ~ {' + '.join(task.inputs)} + {task.random_part}", settings)


def _mixed(task: Task, formula: str, settings: Settings) -> dict[str, Any]:
    results, figures = fit(task, formula, settings, likelihood=True)
    assert task.truth is not None
    estimates = variances(results.fitted.joint, results.fitted.params)
    errors = {}
    for factor, values in estimates.items():
        for name, value, true in zip(_names(len(values)), values, task.truth.variance[factor], strict=True):
            errors[f"sd.{factor}.{name}"] = float(value**0.5)
            errors[f"error.{factor}.{name}"] = relative_error(float(value), float(true))
    sigma2_errors = [value for name, value in errors.items() if name.startswith("error.")]
    f = results.predict(task.test, level="population").to_numpy()
    return {
        "r2": r2(task.test["y"].to_numpy(), results.predict(task.test).to_numpy()),
        "sigma2_error": float(np.mean(sigma2_errors)),
        "residual_sd": results.scale**0.5,
        "f_mse": centred_mse(f, task.test["f"].to_numpy()),
        **errors,
        **figures,
    }


def _names(columns: int) -> list[str]:
    return ["intercept", *(f"slope{j}" for j in range(1, columns))]


def _encoded(name: str, task: Task, settings: Settings) -> dict[str, Any]:
    prediction, figures = ENCODINGS[name](task, settings)
    return {"r2": r2(task.test["y"].to_numpy(), prediction), **figures}


def statsmodels(task: Task, settings: Settings) -> dict[str, Any]:
    """MixedLM: a linear mixed model with one random intercept."""
    held = task.train[HELD].to_numpy()
    given = Given(task.train[~held], task.train[held], task.test, "y", "regression", task.inputs, task.factors)
    with measured() as cost:
        prediction = mixed_lm(given)
    return {"r2": r2(task.test["y"].to_numpy(), prediction), **cost.figures()}


METHODS: Mapping[str, Callable[[Task, Settings], dict[str, Any]]] = {
    "glmmnet": glmmnet,
    "oracle": oracle,
    **{name: partial(_encoded, name) for name in ENCODINGS},
    "linear": linear,
    "MixedLM": statsmodels,
}
#: The package of a method that is not our own.
_PEERS = {"MixedLM": "statsmodels", "target": "scikit-learn"}


def run(options: argparse.Namespace, report: Report) -> None:
    """All scenarios, seeds and methods; MixedLM where it has the model."""
    methods = dict(chosen(options.methods, METHODS))
    if "MixedLM" in methods and not any(peer.name == "MixedLM" and peer.installed for peer in PEERS):
        print("MixedLM: skipped, statsmodels is not installed (pip install -e '.[bench]').")
        del methods["MixedLM"]
    warm_up()
    for name, scenario in chosen(options.only, QUICK if options.quick else SCENARIOS).items():
        for seed in range(options.seeds):
            task = gaussian_task(scenario.groups, scenario.slopes, scenario.random, seed, scenario.n)
            given = settings(options, seed, _QUICK)
            for method, compute in methods.items():
                if method == "MixedLM" and (scenario.slopes or len(scenario.groups) > 1):
                    continue
                report.attempt(
                    partial(compute, task, given),
                    scenario=name,
                    method=method,
                    seed=seed,
                    peer=[_PEERS[method]] if method in _PEERS else [],
                    own=method != "MixedLM",
                )
    report.note("Residual standard deviation: 1. sigma2_error: mean relative error of the variances of the effects.")
