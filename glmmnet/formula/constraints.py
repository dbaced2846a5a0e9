"""Linear hypotheses written as text: ``x1 - x2 = 0``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from formulaic.errors import FormulaicError
from formulaic.utils.constraints import LinearConstraints

from glmmnet.errors import FormulaError

from .carets import translate


def linear_constraints(text: str, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and values of ``R beta = value``.

    Parameters
    ----------
    text : str
        One or more constraints, parted by commas: ``"x1 - x2 = 0, c[T.b] = 1"``; without ``=`` the value is 0. A
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
        The text names another coefficient or is not linear.
    """
    try:
        constraints = LinearConstraints.from_spec(text, variable_names=list(names))
    except FormulaicError as error:
        raise translate(error, text) from None
    return np.asarray(constraints.constraint_matrix, float), np.asarray(constraints.constraint_values, float)
