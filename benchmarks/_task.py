"""What every method gets: rows to learn from and to predict, and which columns are what."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

#: Column of the training rows that marks those held out for early stopping.
HELD = "held"


@dataclass(frozen=True)
class Truth:
    """What simulated rows were made from.

    Attributes
    ----------
    f : tuple of str
        Columns of the rows that hold the true fixed part, one a linear predictor.
    b : dict of str to ndarray
        Effects of each factor's levels 0, 1, ...: (q, r) or, of several classes, (q, C).
    variance : dict of str to ndarray, (r,) or (C,)
    """

    f: tuple[str, ...]
    b: dict[str, np.ndarray]
    variance: dict[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """Rows to learn from and to predict.

    Attributes
    ----------
    family : str
    train : DataFrame
        With the boolean column ``held``.
    test : DataFrame
    inputs, factors : tuple of str
    truth : Truth or None
    target : str
    random : str
        The formula's random part; empty: an intercept for every factor.
    """

    family: str
    train: pd.DataFrame
    test: pd.DataFrame
    inputs: tuple[str, ...]
    factors: tuple[str, ...]
    truth: Truth | None = None
    target: str = "y"
    random: str = ""

    @property
    def random_part(self) -> str:
        """The formula's random part."""
        return self.random or " + ".join(f"(1 | {factor})" for factor in self.factors)

    @property
    def neural_part(self) -> str:
        """The formula's network on all inputs."""
        return f"nn({' + '.join(self.inputs)})"


@dataclass(frozen=True)
class Settings:
    """Seed, fit options and network options of one run."""

    seed: int
    fit: Mapping[str, Any] = field(default_factory=dict)
    nn: Mapping[str, Any] = field(default_factory=dict)


def add_fit_options(parser: Any) -> None:
    """The options ``--set key=value`` (of the fit) and ``--nn key=value`` (of the network)."""
    parser.add_argument("--set", type=pair, action="append", default=[], metavar="KEY=VALUE", help="a fit option")
    parser.add_argument("--nn", type=pair, action="append", default=[], metavar="KEY=VALUE", help="a network option")


def pair(text: str) -> tuple[str, Any]:
    """``epochs=3`` -> ("epochs", 3); what is no Python literal is text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"{text!r} is no option; write key=value, e.g. epochs=3.")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def settings(options: Any, seed: int, quick: Mapping[str, Any]) -> Settings:
    """From the command line; `quick` are the fit options of a ``--quick`` run, which ``--set`` overrides."""
    return Settings(seed, {**(quick if options.quick else {}), **dict(options.set)}, dict(options.nn))


def chosen(names: Sequence[str] | None, known: Mapping[str, Any]) -> dict[str, Any]:
    """The entries named on the command line, or all."""
    if unknown := [name for name in names or () if name not in known]:
        raise SystemExit(f"there is no {unknown[0]!r}; write some of: {', '.join(known)}.")
    return {name: value for name, value in known.items() if names is None or name in names}
