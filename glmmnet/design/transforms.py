"""Splines of formulaic: identified beside an intercept, and with an error that says what to write."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from formulaic.transforms import TRANSFORMS

from glmmnet.errors import DesignError

#: Positional arguments of cr() and cc() before ``constraints``.
_BEFORE_CONSTRAINTS = 5


def spline(name: str) -> Callable[..., Any]:
    """The transform `name` of formulaic: ``bs``, ``cr`` or ``cc``.

    The columns of a cubic spline add up to 1; with ``constraints="center"``, the default here, they leave the
    intercept to the model.
    """
    transform = TRANSFORMS[name]

    @functools.wraps(transform)
    def apply(x: Any, *args: Any, _state: dict[str, Any], **options: Any) -> Any:
        if name != "bs" and len(args) < _BEFORE_CONSTRAINTS:
            options.setdefault("constraints", "center")
        try:
            return transform(x, *args, _state=_state, **options)
        except ValueError as error:
            if "extend beyond" not in str(error) or "lower_bound" not in _state:
                raise
            raise DesignError(_outside(name, x, _state)) from None

    return apply


def _outside(name: str, x: Any, state: dict[str, Any]) -> str:
    """Message about values outside of the range that a spline is defined on."""
    low, high = state["lower_bound"], state["upper_bound"]
    values = np.asarray(x, dtype=np.float64)
    beyond = values[(values < low) | (values > high)]
    rows = "row lies" if len(beyond) == 1 else "rows lie"
    return (
        f"`{name}()` is defined from {low:g} to {high:g}, the range in training unless lower_bound= and upper_bound= "
        f"say otherwise; {len(beyond)} {rows} outside, e.g. {beyond[0]:g}. Write extrapolation='extend' to go on with "
        "its polynomials, or 'clip' to stay at its ends."
    )
