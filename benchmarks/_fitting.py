"""A fit of glmmnet with its time split into estimation and final draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import glmmnet as gn
import glmmnet.model
from benchmarks._harness import measured


@dataclass
class Clock:
    """Seconds of wall and CPU time that final draws took."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


@contextmanager
def final_draws_clock() -> Iterator[Clock]:
    """Time the final draws of the fits in the block: results do not tell, so the function is wrapped."""
    clock, draw = Clock(), glmmnet.model.final_draws

    def timed(*args: Any, **options: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return draw(*args, **options)
        finally:
            clock.seconds += time.perf_counter() - wall
            clock.cpu_seconds += time.process_time() - cpu

    with mock.patch.object(glmmnet.model, "final_draws", timed):
        yield clock


def timed_fit(build: Callable[[], gn.GLMMNet], **options: Any) -> tuple[gn.GLMMNetResults, dict[str, Any]]:
    """Build a model and fit it, and tell what that cost.

    Returns
    -------
    results : GLMMNetResults
    figures : dict
        seconds and cpu_seconds (without final draws), seconds_final (with them), seconds_build (part of both),
        memory_mb (of all), epochs of the network, iterations (the others), converged.
    """
    with measured() as cost, final_draws_clock() as final:
        began = time.perf_counter()
        model = build()
        built = time.perf_counter() - began
        results = model.fit(progress=False, **options)
    history = results.history
    return results, {
        "seconds": cost.seconds - final.seconds,
        "seconds_final": cost.seconds,
        "seconds_build": built,
        "cpu_seconds": cost.cpu_seconds - final.cpu_seconds,
        "memory_mb": cost.memory_mb,
        "epochs": int((history["phase"] == "network").sum()),
        "iterations": int((history["phase"] != "network").sum()),
        "converged": int(results.converged),
    }


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
