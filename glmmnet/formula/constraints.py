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
