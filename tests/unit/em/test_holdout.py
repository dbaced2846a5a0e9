from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from glmmnet.em.holdout import held_rows
from glmmnet.errors import DesignError

DATA = pd.DataFrame({"late": [True, False, False, True], "early": pd.array([True, None, True, True])}, list("abcd"))
ALL = np.arange(4)


@pytest.mark.parametrize(
    "marks", ["late", DATA["late"], [True, False, False, True], DATA["late"].to_numpy(), DATA["late"].astype("boolean")]
)
def test_rows_are_marked(marks):
    assert held_rows(marks, DATA, ALL).tolist() == [True, False, False, True]
    # Without the dropped second row.
    assert held_rows(marks, DATA, np.array([0, 2, 3])).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ("nope", "'nope' is not a boolean column .*: 'late', 'early'"),
        ("early", "missing values"),
        ([0, 1, 1, 0], "dtype int64"),
        (["a", "b", "c", "d"], "dtype"),
        ([True, False], "2 values; the data have 4"),
        ([True] * 4, "4 of the 4 rows"),
        ([False] * 4, "0 of the 4 rows"),
        (DATA["late"].reset_index(drop=True), "another index"),
    ],
)
def test_what_is_wrong_is_named(marks, message):
    with pytest.raises(DesignError, match=message):
        held_rows(marks, DATA, ALL)


def test_the_marked_row_that_is_left_must_not_be_all():
    with pytest.raises(DesignError, match="2 of the 2 rows used"):
        held_rows("late", DATA, np.array([0, 3]))
