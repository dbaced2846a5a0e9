"""A linear binary mixed model without a network: 100,000 rows, ten columns, 1,000 levels."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

import glmmnet as gn
from benchmarks._fits import warm_up
from benchmarks._fitting import timed_fit
from benchmarks._harness import Report, measured
from glmmnet.simulate import Simulation, simulate_glmm

_ROWS, _LEVELS, _COLUMNS = 100_000, 1000, 10
_QUICK_ROWS, _QUICK_LEVELS = 3000, 50
#: Fixed effects of the simulation, in order: intercept, then the ten columns.
BETA = np.array([-0.5, 1.0, -1.0, 0.5, -0.5, 0.25, -0.25, 0.1, -0.1, 0.0, 0.0])
QUOTED = (
    "Quoted, not run here, on data of the same design (other rows, other machine; from the project's issue on the "
    "engine): glmer 75.9 s, glmmTMB 20.1 s, sd 1.0525, GPBoost 1.2 s"
)

Figures = dict[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """None of its own."""
    parser.epilog = "methods: glmmnet, GPBoost, statsmodels"


def run(options: argparse.Namespace, report: Report) -> None:
    """Each program on the same rows, seed by seed."""
    n, q = (_QUICK_ROWS, _QUICK_LEVELS) if options.quick else (_ROWS, _LEVELS)
    scenario = f"{n} rows, {q} levels"
    warm_up()
    for seed in range(options.seeds):
        data = simulate(n, q, seed)
        for method, library, fit in _methods(seed):
            if options.methods is not None and method not in options.methods:
                continue
            if library and find_spec(library) is None:
                print(f"{method}: skipped, {library} is not installed (pip install -e '.[bench]').")
                continue
            packages = (library,) if library else ()
            report.attempt(
                lambda fit=fit, data=data: fit(data),
                scenario=scenario,
                method=method,
                seed=seed,
                peer=packages,
                own=not library,
            )
    print(f"\n{QUOTED}")


def simulate(n: int, q: int, seed: int) -> Simulation:
    """Uniform columns x0 to x9, random intercepts of standard deviation 1."""
    return simulate_glmm(
        n, {"g": (q, 1.0)}, family="bernoulli", f=lambda x: BETA[0] + x @ BETA[1:], columns=_COLUMNS, seed=seed
    )


def _methods(seed: int) -> Iterator[tuple[str, str, Callable[[Simulation], Figures]]]:
    """Name, library that it needs, and fit of each program."""
    yield "glmmnet", "", lambda data: fit_glmmnet(data, seed)
    yield "GPBoost", "gpboost", fit_gpboost
    yield "statsmodels", "statsmodels", fit_statsmodels


def _figures(data: Simulation, beta: np.ndarray, sd: float) -> Figures:
    """Estimates beside the truth; `sd_effects` is the standard deviation of the very effects that were drawn."""
    return {
        "sd": float(sd),
        "sd_effects": float(np.sqrt(np.square(data.b["g"]).mean())),
        "beta_rmse": float(np.sqrt(np.square(np.asarray(beta) - BETA).mean())),
    }


def fit_glmmnet(data: Simulation, seed: int) -> Figures:
    """Seconds of building the model, fitting it and its log-likelihood, without and with the final draws."""
    inputs = " + ".join(f"x{j}" for j in range(_COLUMNS))
    results, figures = timed_fit(lambda: gn.glmm(f"y ~ {inputs} + (1 | g)", data.frame, "bernoulli"), seed=seed)
    began = time.perf_counter()
    llf = results.llf
    added = time.perf_counter() - began
    totals = {name: figures[name] + added for name in ("seconds", "seconds_final", "cpu_seconds")}
    sd = float(results.cov_re["g"].iloc[0, 0]) ** 0.5
    return {**_figures(data, results.params.to_numpy(), sd), "llf": llf, **figures, **totals}


def fit_gpboost(data: Simulation) -> Figures:
    """GPBoost's mixed model by Laplace, one thread; seconds of building and fitting it."""
    import gpboost as gpb

    x = _design(data.frame)
    with measured() as cost:
        model = gpb.GPModel(group_data=data.frame["g"].to_numpy(), likelihood="bernoulli_logit", num_parallel_threads=1)
        model.fit(y=data.frame["y"].to_numpy(float), X=x, params={"trace": False})
    sd = float(np.ravel(np.asarray(model.get_cov_pars(format_pandas=False)))[0]) ** 0.5
    beta = np.ravel(np.asarray(model.get_coef(format_pandas=False)))[: x.shape[1]]
    llf = -float(model.get_current_neg_log_likelihood())
    return {**_figures(data, beta, sd), "llf": llf, **cost.figures()}


def fit_statsmodels(data: Simulation) -> Figures:
    """The binary mixed model of statsmodels by variational Bayes: MixedLM has no binary response."""
    import scipy.sparse as sp
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    index = data.frame["g"].to_numpy()
    effects = sp.csr_matrix((np.ones(len(index)), (np.arange(len(index)), index)))
    columns = np.zeros(effects.shape[1], dtype=int)
    with measured() as cost:
        model = BinomialBayesMixedGLM(data.frame["y"].to_numpy(float), _design(data.frame), effects, columns, vcp_p=1)
        fitted = model.fit_vb(verbose=False)
    return {**_figures(data, fitted.fe_mean, float(np.exp(fitted.vcp_mean[0]))), **cost.figures()}


def _design(frame: pd.DataFrame) -> np.ndarray:
    """An intercept and the ten columns."""
    return np.column_stack([np.ones(len(frame)), frame[[f"x{j}" for j in range(_COLUMNS)]].to_numpy()])
