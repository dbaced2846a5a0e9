"""Effective draws a second of the samplers on posteriors of random effects, whitened and not, beside NumPyro's NUTS."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import glmmnet as gn
from benchmarks._harness import Cost, Report, measured
from benchmarks._task import chosen
from glmmnet.em.coordinates import Centred, Coordinates, CoordinateSystem
from glmmnet.em.e_step import WhitenedPosterior
from glmmnet.inference_data import chain_statistics
from glmmnet.joint import JointModel, Parameters
from glmmnet.samplers import SAMPLERS
from glmmnet.simulate import paper_binary, paper_multiclass, simulate_glmm
from glmmnet.threads import torch_session
from glmmnet.typing import Draws, SamplerState

#: Effects whose draws ArviZ looks at, evenly spaced.
_EFFECTS = 200


@dataclass(frozen=True)
class Length:
    """Chains, draws of each, and the transitions that tune its step size first."""

    chains: int
    draws: int
    warmup: int


_FULL, _QUICK = Length(2, 300, 100), Length(2, 8, 8)


@dataclass(frozen=True)
class Posterior:
    """The posterior of b at the true parameters.

    Attributes
    ----------
    joint : JointModel
    fixed : Tensor, (n, C, 1)
        The part of eta that is free of b.
    params : Parameters
    """

    joint: JointModel
    fixed: Tensor
    params: Parameters

    @classmethod
    def at_truth(cls, frame: pd.DataFrame, f: np.ndarray, sds: dict[str, float], family: str, phi: float) -> Posterior:
        """For random intercepts of the columns `sds` with these standard deviations, and the true f."""
        bars = " + ".join(f"(1 | {group})" for group in sds)
        model = gn.glmm(f"y ~ 0 + {bars}", frame, family)
        joint = JointModel.from_design(model.design, model.family)
        c = joint.n_classes
        sigma = tuple(torch.full((c, 1, 1), sd**2, dtype=torch.float64) for sd in sds.values())
        params = Parameters(torch.zeros(0, c, dtype=torch.float64), sigma, phi)
        return cls(joint, joint.fixed_eta(params, torch.as_tensor(f, dtype=torch.float64).reshape(-1, c)), params)


def binary(quick: bool) -> Posterior:
    """The paper's binary scenario, variance 1, 1,000 levels."""
    data = paper_binary(1.0, 50 if quick else 1000, n=1000 if quick else 100_000)
    return Posterior.at_truth(data.frame, data.f, {"g": 1.0}, "bernoulli", 1.0)


def categorical(quick: bool) -> Posterior:
    """The paper's base multiclass scenario, five classes, its three factors sorted as published."""
    levels, n = ((20, 5, 20), 1000) if quick else ((1000, 10, 1000), 100_000)
    data = paper_multiclass(levels=levels, n=n)
    sds = {group: float(sd[0]) for group, sd in data.sd.items()}
    return Posterior.at_truth(data.frame, data.f, sds, "categorical", 1.0)


def crossed_binary(quick: bool) -> Posterior:
    """Persons crossed with items, in the numbers and standard deviations of VerbAgg of lme4."""
    groups = {"person": (30, 1.35), "item": (10, 0.5)} if quick else {"person": (316, 1.35), "item": (24, 0.5)}
    data = simulate_glmm(600 if quick else 7584, groups, family="bernoulli")
    return Posterior.at_truth(data.frame, data.f, {g: sd for g, (_, sd) in groups.items()}, "bernoulli", 1.0)


def crossed_gaussian(quick: bool) -> Posterior:
    """Students crossed with lecturers, in the numbers and standard deviations of InstEval of lme4."""
    groups = {"s": (40, 0.33), "d": (15, 0.52)} if quick else {"s": (2972, 0.33), "d": (1128, 0.52)}
    data = simulate_glmm(800 if quick else 73_421, groups, scale=1.18**2)
    return Posterior.at_truth(data.frame, data.f, {g: sd for g, (_, sd) in groups.items()}, "gaussian", 1.18**2)


SCENARIOS: dict[str, Callable[[bool], Posterior]] = {
    "binary": binary,
    "categorical": categorical,
    "crossed_binary": crossed_binary,
    "crossed_gaussian": crossed_gaussian,
}


def whitened(posterior: Posterior) -> Coordinates:
    """What the fit uses: whitened at the mode, or the precision as mass matrix."""
    return CoordinateSystem(posterior.joint).at(posterior.fixed, posterior.params, None)


def plain(posterior: Posterior) -> Coordinates:
    """B itself with unit mass, as in the published code; the chain starts at the same mode."""
    mode = whitened(posterior).mode
    return Coordinates(mode, Centred(mode), None)


COORDINATES: dict[str, Callable[[Posterior], Coordinates]] = {"whitened": whitened, "plain": plain}


def add_options(parser: argparse.ArgumentParser) -> None:
    """How long the chains are."""
    parser.add_argument("--draws", type=int, default=None, help="draws of each of the 2 chains (300; quick: 8)")
    parser.epilog = (
        f"scenarios: {', '.join(SCENARIOS)}; methods: numpyro and {', '.join(SAMPLERS)}, each with "
        f"{' or '.join(COORDINATES)}, e.g. nuts-whitened"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    """Every sampler on every posterior, at the true parameters."""
    length = _QUICK if options.quick else _FULL
    if options.draws is not None:
        length = Length(length.chains, options.draws, length.warmup)
    for scenario, simulate in chosen(options.only, SCENARIOS).items():
        posterior = simulate(options.quick)
        for method, peer, compute in _methods(length):
            if options.methods is not None and method not in options.methods:
                continue
            if options.quick and options.methods is None and not _in_quick_run(scenario, method):
                continue
            for seed in range(options.seeds):
                report.attempt(
                    lambda compute=compute, posterior=posterior, seed=seed: compute(posterior, seed),
                    scenario=scenario,
                    method=method,
                    seed=seed,
                    peer=peer,
                    own=not peer,
                )


def _in_quick_run(scenario: str, method: str) -> bool:
    """Every sampler of ours on one posterior, NUTS on every one; NumPyro compiles for seconds and must be asked for."""
    return method.startswith("nuts") or (scenario == "binary" and method != "numpyro")


def _methods(length: Length) -> Iterator[tuple[str, tuple[str, ...], Callable[[Posterior, int], dict[str, Any]]]]:
    """Name, packages, and what draws."""
    for sampler in SAMPLERS:
        for coordinates, place in COORDINATES.items():
            yield f"{sampler}-{coordinates}", (), _own(sampler, place, length)
    if find_spec("numpyro") is None:
        print("numpyro: skipped, it is not installed (pip install -e '.[bench]').")
    else:
        yield "numpyro", ("numpyro", "jax"), lambda posterior, seed: sample_numpyro(posterior, seed, length)


def sample_numpyro(posterior: Posterior, seed: int, length: Length) -> dict[str, Any]:
    """NumPyro's NUTS on the same posterior; figures as of :func:`sample`, those of time without its compilation."""
    from benchmarks._numpyro import draw

    joint = posterior.joint
    size = (length.chains, length.draws, length.warmup)
    with measured() as cost:
        chains = draw(joint, posterior.fixed, posterior.params, seed, *size, _picked(joint))
    return _figures(chains.draws, cost, chains.seconds, chains.seconds_tuning, chains.steps, chains.divergences)


def _own(
    sampler: str, place: Callable[[Posterior], Coordinates], length: Length
) -> Callable[[Posterior, int], dict[str, Any]]:
    return lambda posterior, seed: sample(posterior, sampler, place, seed, length)


def sample(
    posterior: Posterior, name: str, place: Callable[[Posterior], Coordinates], seed: int, length: Length
) -> dict[str, Any]:
    """Chains of one of our samplers in the given coordinates."""
    tuning, kept, chains, steps, diverging = 0.0, 0.0, [], [], 0
    with measured() as cost, torch_session(seed, 1):
        began = time.perf_counter()
        point = place(posterior)
        target = WhitenedPosterior(posterior.joint, posterior.fixed, posterior.params, point.whitening, 1)
        picked = _picked(posterior.joint)
        for _ in range(length.chains):
            tuned = _tune(name, target, point, length)
            ready = time.perf_counter()
            draws: Draws = SAMPLERS[name]().draw(target, tuned, draws=length.draws, metric=point.metric)
            done = time.perf_counter()
            tuning, kept = tuning + ready - began, kept + done - ready
            steps.append(draws.stats["n_steps"].mean())
            diverging += int(draws.stats["diverging"].sum())
            chains.append(torch.stack([target.to_b(u).reshape(-1)[picked] for u in draws.u]).numpy())
            began = time.perf_counter()
    return _figures(np.stack(chains), cost, kept, tuning, float(np.mean(steps)), diverging)


def _tune(name: str, target: WhitenedPosterior, point: Coordinates, length: Length) -> SamplerState:
    """A chain that has found its step size; whitened ones start at a Laplace draw, plain ones at the mode."""
    u = target.start(point)
    if isinstance(point.whitening, Centred) and point.metric is None:
        u = torch.zeros_like(u)
    return SAMPLERS[name]().draw(target, SamplerState(u), draws=0, warmup=length.warmup, metric=point.metric).state


def _figures(
    draws: np.ndarray, cost: Cost, seconds: float, tuning: float, steps: float, divergences: int
) -> dict[str, float]:
    """Bulk effective sample sizes of draws (chains, draws, effects): smallest and median over effects, and a second.

    `seconds` are those of the draws, `seconds_tuning` those of all before them; CPU time and memory are of both.
    """
    r_hat, bulk, _ = chain_statistics(draws)
    smallest, middle = float(bulk.min()), float(np.median(bulk))
    return {
        "ess_min_a_second": smallest / seconds,
        "ess_median_a_second": middle / seconds,
        "ess_min": smallest,
        "ess_median": middle,
        "steps": steps,
        "r_hat": float(r_hat.max()),
        "divergences": divergences,
        **cost.figures(),
        "seconds": seconds,
        "seconds_tuning": tuning,
    }


def _picked(joint: JointModel) -> np.ndarray:
    """Effects whose draws are looked at, as positions in the flat b."""
    effects = joint.n_effects * joint.n_classes
    return np.unique(np.linspace(0, effects - 1, min(effects, _EFFECTS)).astype(int))
