"""How an nn() block is built: documented options, defaults, checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from glmmnet.errors import FormulaError, hint

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


@dataclass(frozen=True)
class NNOptions:
    """Options of one nn() block.

    Parameters
    ----------
    layers : tuple of int
        Widths of the hidden layers; one whole number stands for one layer, ``()`` for a linear block.
    activation : {"elu", "gelu", "relu", "silu", "softplus", "tanh"}
        After each hidden layer.
    dropout : float
        Probability in [0, 1) with which a hidden unit is left out in training.
    weight_decay : float
        Decoupled L2 penalty of the optimiser (AdamW), not negative.
    net : str or None
        Name of the user's network that takes the place of the layers.
    embed : int or None
        Columns of the embedding that each categorical input goes through; None feeds the one-hot columns.
    bins : int
        Quantile bins that join each numeric input that has ties or is far from normal, as further columns of the first
        hidden layer; fewer where there are fewer than 1,000 rows a bin. 0: none.

    Raises
    ------
    FormulaError
        A value outside what is allowed.
    """

    layers: tuple[int, ...] = (32, 32, 32, 32)
    activation: str = "silu"
    dropout: float = 0.0
    weight_decay: float = 0.03
    net: str | None = None
    embed: int | None = None
    bins: int = 16

    def __post_init__(self) -> None:
        widths = self.layers if isinstance(self.layers, tuple | list) else (self.layers,)
        if not all(_is_whole(w) and w >= 1 for w in widths):
            raise _refuse("layers", self.layers, "widths of at least 1, e.g. layers=(64, 32)")
        object.__setattr__(self, "layers", tuple(widths))
        if not (isinstance(self.activation, str) and self.activation in ACTIVATIONS):
            raise _refuse("activation", self.activation, f"one of {', '.join(sorted(ACTIVATIONS))}")
        if not (_is_number(self.dropout) and 0.0 <= self.dropout < 1.0):
            raise _refuse("dropout", self.dropout, "a probability from 0 to below 1")
        if not (_is_number(self.weight_decay) and 0.0 <= self.weight_decay < math.inf):
            raise _refuse("weight_decay", self.weight_decay, "a number that is not negative, e.g. 1e-4")
        if not (self.net is None or isinstance(self.net, str)):
            raise _refuse("net", self.net, "the name of an entry of networks=")
        if not (self.embed is None or (_is_whole(self.embed) and self.embed >= 1)):
            raise _refuse("embed", self.embed, "a number of columns of at least 1")
        if not (_is_whole(self.bins) and self.bins >= 0):
            raise _refuse("bins", self.bins, "a whole number, 0 for none")

    @classmethod
    def resolve(cls, defaults: Mapping[str, Any] | None, inline: Mapping[str, Any]) -> NNOptions:
        """Options written in the formula over those of ``nn=`` over the built-in ones.

        Parameters
        ----------
        defaults : mapping or None
            The user's ``nn=dict(...)``.
        inline : mapping
            ``NeuralTerm.options``.

        Raises
        ------
        FormulaError
            An unknown option, or a value outside what is allowed.
        """
        known = [f.name for f in fields(cls)]
        for name in (*(defaults or {}), *inline):
            if name not in known:
                raise FormulaError(f"nn() has no option {name!r}; {hint(name, known)}")
        return cls(**{**(defaults or {}), **inline})


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse(name: str, value: object, allowed: str) -> FormulaError:
    return FormulaError(f"nn(): {name}={value!r}; write {allowed}.")
