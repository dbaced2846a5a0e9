"""A fit of glmmnet with its time split into estimation and final draws."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import glmmnet as gn
import glmmnet.model
from benchmarks._harness import measured


@dataclass
class Clock:
    """Seconds that final draws took."""

    seconds: float = 0.0


@contextmanager
def final_draws_clock() -> Iterator[Clock]:
    """Time the final draws of the fits in the block: results do not tell, so the function is wrapped."""
    clock, draw = Clock(), glmmnet.model.final_draws

    def timed(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return draw(*args, **options)
        finally:
            clock.seconds += time.perf_counter() - began

    with mock.patch.object(glmmnet.model, "final_draws", timed):
        yield clock


def timed_fit(model: gn.GLMMNet, **options: Any) -> tuple[gn.GLMMNetResults, dict[str, Any]]:
    """Fit and tell what it cost.

    Returns
    -------
    results : GLMMNetResults
    figures : dict
        seconds (without final draws), seconds_final (with them), cpu_seconds and memory_mb (with them), epochs of
        the network, iterations in all, converged.
    """
    with measured() as cost, final_draws_clock() as final:
        results = model.fit(progress=False, **options)
    history = results.history
    return results, {
        "seconds": cost.seconds - final.seconds,
        "seconds_final": cost.seconds,
        "cpu_seconds": cost.cpu_seconds,
        "memory_mb": cost.memory_mb,
        "epochs": int((history["phase"] == "network").sum()),
        "iterations": len(history),
        "converged": results.converged,
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
