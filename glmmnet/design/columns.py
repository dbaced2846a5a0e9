"""Data columns: their kinds, complete cases, and one plain dtype for each kind."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd
from pandas.api import types

from glmmnet.errors import DesignError

_INFERRED = {
    "string": "text",
    "boolean": "boolean",
    "integer": "numeric",
    "floating": "numeric",
    "mixed-integer-float": "numeric",
    "decimal": "numeric",
    "datetime": "datetime",
    "datetime64": "datetime",
    "timedelta": "duration",
    "timedelta64": "duration",
}


def value_kind(values: pd.Series | pd.Index) -> str:
    """Kind of the values themselves, whatever the dtype that holds them; `values` has no NA.

    Returns
    -------
    str
        numeric, boolean, text, datetime, duration, or pandas' own name of something rarer (``date``, ``period``).
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        return value_kind(values.dtype.categories)
    if types.is_bool_dtype(values.dtype):
        return "boolean"
    if types.is_numeric_dtype(values.dtype):
        return "numeric"
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return "datetime with time zone"
    if types.is_datetime64_dtype(values.dtype):
        return "datetime"
    if types.is_timedelta64_dtype(values.dtype):
        return "duration"
    if isinstance(values.dtype, pd.StringDtype):
        return "text"
    inferred = types.infer_dtype(values, skipna=True)
    return _INFERRED.get(inferred, inferred)


def column_kind(values: pd.Series) -> str:
    """Kind of a column as a variable: `value_kind`, but text and the category dtype are both ``categorical``."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return "categorical"
    kind = value_kind(values)
    return "categorical" if kind == "text" else kind


def tidy(values: pd.Series, kind: str) -> pd.Series:
    """`values` in the one dtype of its kind: int64, float64, bool, object text, used categories only.

    Raises
    ------
    DesignError
        The column holds values of several kinds, or complex numbers.
    """
    if kind == "categorical":
        if isinstance(values.dtype, pd.CategoricalDtype):
            return values.cat.remove_unused_categories()
        return values.astype(object)
    if kind == "boolean":
        return values.astype(bool)
    if kind == "numeric":
        if types.is_complex_dtype(values.dtype):
            raise DesignError(f"Column `{values.name}` holds complex numbers; give their parts as columns.")
        whole = types.is_integer_dtype(values.dtype) and not types.is_unsigned_integer_dtype(values.dtype)
        return values.astype("int64" if whole else "float64")
    if kind.startswith("mixed"):
        found = sorted({type(value).__name__ for value in values})
        raise DesignError(
            f"Column `{values.name}` holds values of several types, {', '.join(found)}; bring them to one type."
        )
    return values


def check_frame(data: object, needed: Collection[str]) -> pd.DataFrame:
    """`data`, if it is a data frame that holds each needed column once.

    Raises
    ------
    DesignError
    """
    if not isinstance(data, pd.DataFrame):
        raise DesignError(f"data must be a pandas DataFrame, not {type(data).__name__}.")
    missing = sorted(set(needed) - set(data.columns))
    if missing:
        listed = ", ".join(f"`{name}`" for name in missing)
        raise DesignError(f"data has no column {listed}; its columns: {', '.join(map(str, data.columns))}.")
    repeated = sorted({str(name) for name in data.columns[data.columns.duplicated()] if name in needed})
    if repeated:
        raise DesignError(f"data has several columns named {', '.join(f'`{name}`' for name in repeated)}; rename them.")
    return data


def missing_counts(data: pd.DataFrame, columns: Iterable[str]) -> tuple[np.ndarray, dict[str, int]]:
    """Rows that are complete in `columns`, and the number of NA in each column that has any.

    Returns
    -------
    complete : ndarray of bool, (n,)
    counts : dict of str to int
    """
    complete = np.ones(len(data), bool)
    counts: dict[str, int] = {}
    for name in columns:
        missing = data[name].isna().to_numpy()
        if missing.any():
            counts[name] = int(missing.sum())
            complete &= ~missing
    return complete, counts


def check_kinds(frame: pd.DataFrame, kinds: Mapping[str, str]) -> None:
    """Refuse columns whose kind differs from training.

    Raises
    ------
    DesignError
    """
    for name, kind in kinds.items():
        if name in frame and (found := column_kind(frame[name])) != kind:
            raise DesignError(
                f"Column `{name}` was {kind} in training and is {found} now (dtype {frame[name].dtype}); convert it."
            )
