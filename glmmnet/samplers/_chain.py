"""One chain: warm up, keep draws, collect the statistics of each transition."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from glmmnet.errors import OptionError
from glmmnet.typing import Draws, SamplerState

STATISTICS: dict[str, type] = {
    "diverging": bool,
    "energy": float,
    "tree_depth": int,
    "n_steps": int,
    "acceptance_rate": float,
    "lp": float,
    "step_size": float,
}


class Transition(NamedTuple):
    """What one transition did: the new position and the statistics that `Draws.stats` lists."""

    u: Tensor
    diverging: bool
    energy: float
    tree_depth: int
    n_steps: int
    acceptance_rate: float
    lp: float
    step_size: float


class Kernel(Protocol):
    """A Markov kernel that tunes its step size over the first `warmup_steps` transitions."""

    @property
    def step_size(self) -> float: ...

    def setup(self, warmup_steps: int) -> None: ...

    def transition(self) -> Transition: ...


def run_chain(kernel: Kernel, state: SamplerState, draws: int, warmup: int) -> Draws:
    """Run `warmup` transitions, then `draws` kept ones, and say where the chain stands.

    Parameters
    ----------
    kernel : Kernel
        Stands at ``state.u``.
    state : SamplerState
    draws, warmup : int
        Not negative.

    Returns
    -------
    Draws

    Raises
    ------
    OptionError
        A negative number of draws or warmup transitions.
    """
    for name, number in (("draws", draws), ("warmup", warmup)):
        if number < 0:
            raise OptionError(f"{name}={number}: write a number of transitions that is not negative.")
    kernel.setup(warmup)
    position = state.u
    kept: list[Transition] = []
    with torch.no_grad():
        for _ in range(warmup):
            position = kernel.transition().u
        for _ in range(draws):
            kept.append(kernel.transition())
    if kept:
        position = kept[-1].u
    u = torch.stack([t.u for t in kept]) if kept else state.u.new_empty((0, len(state.u)))
    stats: dict[str, np.ndarray] = {
        name: np.array([getattr(t, name) for t in kept], dtype=kind) for name, kind in STATISTICS.items()
    }
    return Draws(u, stats, SamplerState(position.clone(), float(kernel.step_size)))
