"""Linear hypotheses written as text: ``x1 - x2 = 0``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from formulaic.errors import FormulaicError
from formulaic.utils.constraints import LinearConstraints

from glmmnet.errors import FormulaError

from .carets import translate

#: What is between backticks or brackets, where names stand as they are.
_NAMES = re.compile(r"(`[^`]*`|\[[^\]]*\])")
#: A sign right after ``=``, which formulaic takes for an operator of its own; a number such as 1e-3.
_SIGN, _SCIENTIFIC = re.compile(r"=\s*(?=[-+])"), re.compile(r"(?<![\w.])((?:\d+\.?\d*|\.\d+)[eE][-+]?\d+)")


def linear_constraints(text: str, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and values of ``R beta = value``.

    Parameters
    ----------
    text : str
        One or more constraints, parted by commas: ``"x1 - x2 = 0, c[T.b] = -1"``; without ``=`` the value is 0. A
        coefficient whose name is not a plain word, such as ``c[T.b]`` or ``x:z``, may stand in backticks.
    names : sequence of str, (p,)
        Names of the coefficients.

    Returns
    -------
    R : ndarray, (m, p)
    value : ndarray, (m,)

    Raises
    ------
    FormulaError
        The text names another coefficient, is not linear, or has a part with two ``=``.
    """
    _refuse_chains(text)
    try:
        constraints = LinearConstraints.from_spec(_as_read(text), variable_names=list(names))
    except FormulaicError as error:
        raise translate(error, text) from None
    except KeyError as error:
        raise FormulaError(
            f"{error} in `{text}` is not a coefficient; they are {', '.join(names)}. A name that is not a plain word "
            "stands in backticks."
        ) from None
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise FormulaError(f"`{text}` is not a linear constraint such as `x1 - x2 = 0`: {error}") from None
    matrix = np.atleast_2d(np.asarray(constraints.constraint_matrix, float))
    if not len(matrix) or not matrix.any(axis=1).all():
        raise FormulaError(f"`{text}` constrains nothing: each part must hold a coefficient of {', '.join(names)}.")
    return matrix, np.atleast_1d(np.asarray(constraints.constraint_values, float))


def _outside_names(text: str) -> list[str]:
    """The text in pieces, every second one a name that is not to be touched."""
    return _NAMES.split(text)


def _refuse_chains(text: str) -> None:
    for part in "".join(_outside_names(text)[::2]).split(","):
        if part.count("=") > 1:
            raise FormulaError(f"`{text}` has two `=` in one part; write `a = b, b = 0` for `a = b = 0`.")


def _as_read(text: str) -> str:
    """The text as formulaic reads it: a sign after ``=`` follows a 0, numbers are decimal."""
    pieces = _outside_names(text)
    for k in range(0, len(pieces), 2):
        signed = _SIGN.sub("= 0 ", pieces[k])
        pieces[k] = _SCIENTIFIC.sub(lambda found: f"{Decimal(found[1]):f}", signed)
    return "".join(pieces)
