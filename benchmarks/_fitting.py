"""A fit of glmmnet with what it costs, the final draws apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import glmmnet as gn
from benchmarks._harness import measured
from glmmnet.em.config import EMConfig
from glmmnet.em.final import final_draws
from glmmnet.threads import torch_session

#: As few final draws as a fit may have: they are made, and timed, apart.
NO_DRAWS = {"chains": 1, "draws": 4, "warmup": 0}


def timed_fit(
    build: Callable[[], gn.GLMMNet], *, seed: int, likelihood: bool = False, **options: Any
) -> tuple[gn.GLMMNetResults, dict[str, Any]]:
    """Build a model, fit it and make the final draws that `options` ask for, and tell what that cost.

    Returns
    -------
    results : GLMMNetResults
    figures : dict
        seconds, cpu_seconds and memory_mb of all but the final draws (with `likelihood` of llf too), seconds_final with
        them, seconds_build (part of both), epochs of the network, iterations (the others), converged.
    """
    with measured() as cost:
        began = time.perf_counter()
        model = build()
        built = time.perf_counter() - began
        results = model.fit(seed=seed, progress=False, **{**options, **NO_DRAWS})
        llf = {"llf": results.llf} if likelihood else {}
    with measured() as final:
        results = _with_final_draws(results, EMConfig.from_options(_of_config(options)), seed)
    history = results.history
    return results, {
        **cost.figures(),
        "seconds_final": cost.seconds + final.seconds,
        "seconds_build": built,
        "epochs": int((history["phase"] == "network").sum()),
        "iterations": int((history["phase"] != "network").sum()),
        "converged": int(results.converged),
        **llf,
    }


def _of_config(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in ("validation", "sampler")}


def _with_final_draws(results: gn.GLMMNetResults, wanted: EMConfig, seed: int) -> gn.GLMMNetResults:
    """The same results with as many final draws as are wanted."""
    fitted, centred = results.fitted, results.fitted.centred
    config = replace(fitted.config, chains=wanted.chains, draws=wanted.draws, warmup=wanted.warmup)
    with torch_session(seed, config.threads):
        fixed = centred.joint.fixed_eta(centred.working, centred.f)
        draws = final_draws(centred.joint, fixed, centred.working, centred.sampler, config)
        draws = replace(draws, b=fitted.centring.outward_effects(draws.b))
    return replace(results, fitted=replace(fitted, draws=draws, config=config))


def standard_deviations(results: gn.GLMMNetResults) -> str:
    """The standard deviations of the random effects as text: ``g 1.02, h 0.3 to 0.4`` over classes."""
    parts = []
    for term, sigma in zip(results.fitted.joint.terms, results.fitted.params.sigma, strict=True):
        for i, name in enumerate(term.names):
            sds = sigma[:, i, i].sqrt().tolist()
            label = term.group if name == "(Intercept)" else f"{name}|{term.group}"
            low, high = f"{min(sds):.4f}", f"{max(sds):.4f}"
            parts.append(f"{label} {low}" + (f" to {high}" if len(sds) > 1 else ""))
    if results.family.has_dispersion:
        parts.append(f"Residual {results.scale**0.5:.4f}")
    return ", ".join(parts)
