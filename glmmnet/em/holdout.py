"""Which rows are held out for early stopping, as the user marks them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from glmmnet.errors import DesignError

#: How `fit(validation=...)` may mark rows.
Marks = str | Sequence[bool] | np.ndarray | pd.Series


def held_rows(marks: Marks, booleans: pd.DataFrame, rows: np.ndarray) -> Tensor:
    """True for each used row that is held out, (n,).

    Parameters
    ----------
    marks : str or array-like of bool, (n_total,)
        A column of `booleans`, or a value a row of the data.
    booleans : DataFrame, (n_total, ...)
        The data's boolean columns.
    rows : ndarray of int, (n,)
        Positions of the used rows in the data.

    Raises
    ------
    DesignError
        No such column, another dtype, length or index, or no row or all rows marked.
    """
    if isinstance(marks, str):
        if marks not in booleans:
            known = ", ".join(map(repr, booleans)) or "none"
            raise DesignError(f"validation={marks!r} is not a boolean column of the data; there are: {known}.")
        marks = booleans[marks]
    if isinstance(marks, pd.Series) and len(marks) == len(booleans) and not marks.index.equals(booleans.index):
        raise DesignError(
            "validation has another index than data; pass validation.to_numpy() if the order is the same."
        )
    values = marks if isinstance(marks, pd.Series) else pd.Series(np.asarray(marks))
    if not pd.api.types.is_bool_dtype(values.dtype) or values.isna().any():
        raise DesignError(f"validation has dtype {values.dtype} or missing values; give True or False for each row.")
    if len(values) != len(booleans):
        raise DesignError(f"validation has {len(values)} values; the data have {len(booleans)} rows.")
    held = values.to_numpy(dtype=bool)[rows]
    if held.all() or not held.any():
        raise DesignError(
            f"validation marks {int(held.sum())} of the {len(rows)} rows used; mark some, and leave some to learn from."
        )
    return torch.as_tensor(held)
