"""Errors and warnings that users see. Each names the wrong value and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any


class GLMMNetError(Exception):
    """Base of the errors raised on purpose by glmmnet; arguments of a wrong type raise TypeError."""


class FormulaError(GLMMNetError, ValueError):
    """The formula's text is malformed or asks for something the grammar does not have."""


class DesignError(GLMMNetError, ValueError):
    """The data cannot be brought into the form that the formula or the family asks for."""


class FitError(GLMMNetError, RuntimeError):
    """The estimation cannot go on, e.g. a non-finite likelihood."""


class OptionError(FitError, ValueError):
    """An option is out of range, unknown, or not for this model: a ValueError too."""


class ConvergenceWarning(UserWarning):
    """The fit ended before its stopping rule was met, or its numbers are not to be trusted."""


class DataWarning(UserWarning):
    """Rows were dropped or data were changed in a way the user should know of."""


def hint(name: object, known: Iterable[str]) -> str:
    """What to write instead of an unknown `name`: the nearest of the known ones, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}."


def as_mapping(name: str, given: Mapping[str, Any] | None, example: str) -> dict[str, Any]:
    """The argument `name` as a dict, empty for None; TypeError with an example where it is no mapping."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}={given!r} must be a mapping, e.g. {name}={example}.")
    return dict(given)


def check_seed(seed: object) -> int:
    """The seed as an int; TypeError or OptionError unless it is a whole number in [0, 2**62)."""
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed={seed!r} must be a whole number, 0 or more, or None.")
    if not 0 <= int(seed) < 2**62:
        raise OptionError(f"seed={seed!r} must be 0 or more and below 2**62.")
    return int(seed)


def is_number(value: object) -> bool:
    """Whether it is a real number, numpy's too, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_alpha(alpha: Any) -> float:
    """The error probability of an interval as a float; TypeError or OptionError unless it is a number in (0, 1)."""
    if not is_number(alpha):
        raise TypeError(f"alpha={alpha!r} must be a number between 0 and 1, e.g. 0.05.")
    if not 0 < float(alpha) < 1:
        raise OptionError(f"alpha={alpha!r} must lie between 0 and 1, e.g. 0.05.")
    return float(alpha)
