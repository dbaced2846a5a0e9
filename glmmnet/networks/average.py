"""Exponential average of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Exponential average of the weights (and float buffers) of a module over its updates.

    Parameters
    ----------
    module : Module
        The one that is followed; never changed. Its tensors are looked up once, not an update at a time.
    decay : float
        Weight of the past in each update, in [0, 1).

    Raises
    ------
    ValueError
        `decay` outside [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float = 0.98) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay={decay!r}: write a weight from 0 to below 1, e.g. 0.98.")
        self._values = _values(module)
        self._average = [value.clone() for value in self._values]
        self._lerp = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self) -> None:
        """Move the average: decay * average + (1 - decay) * weights of the module."""
        self._lerp(self._average, self._values, 0)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the average into `module`, a network of the same shape."""
        for value, average in zip(_values(module), self._average, strict=True):
            value.copy_(average)


def _values(module: nn.Module) -> list[Tensor]:
    buffers = [b for b in module.buffers() if b.is_floating_point()]
    return [p.detach() for p in module.parameters()] + buffers
