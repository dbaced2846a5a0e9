"""Linear hypotheses as text."""

import numpy as np
import pytest

from glmmnet.errors import FormulaError
from glmmnet.formula.constraints import linear_constraints

NAMES = ("Intercept", "x1", "x2", "c[T.b]", "x1:x2")


@pytest.mark.parametrize(
    ("text", "matrix", "value"),
    [
        ("x1 - x2 = 0", [[0, 1, -1, 0, 0]], [0]),
        ("x1", [[0, 1, 0, 0, 0]], [0]),
        ("2 * x1 + x2 / 4 = 3", [[0, 2, 0.25, 0, 0]], [3]),
        ("x1 = x2 + 1, Intercept = 2", [[0, 1, -1, 0, 0], [1, 0, 0, 0, 0]], [1, 2]),
        ("`c[T.b]` = 1", [[0, 0, 0, 1, 0]], [1]),
        ("c[T.b] - `x1:x2` = 1", [[0, 0, 0, 1, -1]], [1]),
        ("x1 = -0.5", [[0, 1, 0, 0, 0]], [-0.5]),
        ("x1 = -x2", [[0, 1, 1, 0, 0]], [0]),
        ("-x1=- 1.5e-1, x2 = +2E1", [[0, -1, 0, 0, 0], [0, 0, 1, 0, 0]], [-0.15, 20]),
    ],
)
def test_matrix_and_value(text: str, matrix: list[list[float]], value: list[float]) -> None:
    found, constant = linear_constraints(text, NAMES)
    np.testing.assert_array_equal(found, matrix)
    np.testing.assert_array_equal(constant, value)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("x3 = 0", "'x3' in `x3 = 0` is not a coefficient; they are Intercept, x1"),
        ("x1 * x2 = 0", "not a linear constraint"),
        ("x1 = = 0", "two `=`"),
        ("x1 = x2 = 0", "write `a = b, b = 0`"),
        ("Intercept = 1, x1 = 1 = 2", "two `=`"),
        ("x1 +", "insufficient arguments"),
        ("", "constrains nothing"),
        ("x1 - x1 = 0", "constrains nothing"),
        ("1 = 2", "constrains nothing"),
    ],
)
def test_refused(text: str, fragment: str) -> None:
    with pytest.raises(FormulaError) as caught:
        linear_constraints(text, NAMES)
    assert fragment in str(caught.value)
