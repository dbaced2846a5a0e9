"""Grouping factors: level codes of one column or of the combination of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from glmmnet.errors import DesignError

from .columns import value_kind


@dataclass(frozen=True)
class Grouping:
    """Levels of a grouping factor, as learned in training.

    Attributes
    ----------
    columns : tuple of str
    kinds : tuple of str
        Kind of each column's values, whatever its dtype.
    values : tuple of Index
        Sorted values of each column.
    keys : tuple of ndarray
        Of a combination: after each further column, the sorted codes ``code of the columns so far * number of values +
        code of the column`` that occur.
    levels : Index, (q,)
        The values of a single column, else ``"a:b"`` strings.
    relatives : Index, (m,)
        Further values of a single column, which a known correlation has and training had not.
    """

    columns: tuple[str, ...]
    kinds: tuple[str, ...]
    values: tuple[pd.Index, ...]
    keys: tuple[np.ndarray, ...]
    levels: pd.Index
    relatives: pd.Index = field(default_factory=lambda: pd.Index([], dtype=object))

    @property
    def name(self) -> str:
        """``g`` or ``a:b``."""
        return ":".join(self.columns)

    def locate(self, frame: pd.DataFrame) -> np.ndarray:
        """Level of each row of `frame`, int64, (n,); -1 where it is unseen, q + k where it is the relative k.

        Raises
        ------
        DesignError
            A column's values are of another kind than in training.
        """
        if not len(frame):
            return np.empty(0, np.int64)
        index = self._locate_column(0, frame)
        for j, keys in enumerate(self.keys, start=1):
            code = self._locate_column(j, frame)
            combined = np.where((index < 0) | (code < 0), -1, index * len(self.values[j]) + code)
            place = np.minimum(np.searchsorted(keys, combined), len(keys) - 1)
            index = np.where(keys[place] == combined, place, -1)
        return index

    def _locate_column(self, j: int, frame: pd.DataFrame) -> np.ndarray:
        codes, values, kind = _factorise(frame[self.columns[j]])
        if kind != self.kinds[j]:
            raise DesignError(
                f"Grouping column `{self.columns[j]}` was {self.kinds[j]} in training and is {kind} now (dtype "
                f"{frame[self.columns[j]].dtype}); convert it."
            )
        index = self.values[j].get_indexer(values)
        if len(self.relatives):
            further = self.relatives.get_indexer(values)
            index = np.where((index < 0) & (further >= 0), len(self.levels) + further, index)
        return index.astype(np.int64)[codes]


def learn_grouping(columns: Sequence[str], frame: pd.DataFrame) -> tuple[Grouping, np.ndarray]:
    """Levels of the combination of `columns` and the level of each row.

    Parameters
    ----------
    columns : sequence of str
    frame : DataFrame
        Complete cases.

    Returns
    -------
    grouping : Grouping
    index : ndarray of int64, (n,)

    Raises
    ------
    DesignError
        A continuous column.
    """
    parts = [_learn_column(name, frame[name]) for name in columns]
    _, values, kinds = zip(*parts, strict=True)
    index, labels = parts[0][0], _labels(values[0])
    keys: list[np.ndarray] = []
    for code, column_values, _ in parts[1:]:
        count = len(column_values)
        index, found = _sorted_codes(index * count + code)
        keys.append(found)
        labels = labels[found // count] + ":" + _labels(column_values)[found % count]
    levels = values[0] if len(columns) == 1 else pd.Index(labels, dtype=object)
    grouping = Grouping(tuple(columns), tuple(kinds), tuple(values), tuple(keys), levels)
    if not levels.is_unique:
        twice = levels[levels.duplicated()][0]
        raise DesignError(
            f"Two combinations of `{grouping.name}` are both written {twice!r}; rename the levels that hold a colon."
        )
    return grouping, index


def _learn_column(name: str, column: pd.Series) -> tuple[np.ndarray, pd.Index, str]:
    codes, values, kind = _factorise(column)
    if kind.startswith("mixed"):
        raise DesignError(f"Grouping column `{name}` mixes values that cannot be compared; bring them to one type.")
    if kind == "complex" or values.dtype.kind == "c":
        raise DesignError(f"Grouping column `{name}` holds complex numbers; give their parts as columns.")
    categories = isinstance(column.dtype, pd.CategoricalDtype)
    if kind == "numeric" and not categories and values.dtype.kind == "f":
        numbers = values.to_numpy()
        whole = np.isfinite(numbers) & (numbers == np.floor(numbers))
        if not whole.all():
            raise DesignError(
                f"`{name}` is not a grouping factor: it is continuous, with values such as {numbers[~whole][0]:g}. Bin "
                "it or make it a category column; the order is (effects | group)."
            )
        values = values.astype(np.int64)
    order = values.argsort()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[codes], values[order], kind


def _factorise(column: pd.Series) -> tuple[np.ndarray, pd.Index, str]:
    """Codes of the rows, the distinct values that occur (in no order), and their kind."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, used = pd.factorize(column.cat.codes.to_numpy())
        values = column.cat.categories[used]
    else:
        codes, distinct = pd.factorize(column)
        values = pd.Index(distinct)
    kind = value_kind(values)
    if kind == "numeric" and values.dtype.kind != "c":
        numbers = values.astype(np.float64)
        values = values.astype(np.int64) if pd.api.types.is_integer_dtype(values.dtype) else numbers
    elif kind == "boolean":
        values = values.astype(bool)
    elif kind == "text":
        values = values.astype(object)
    return codes.astype(np.int64), values, kind


def _sorted_codes(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position of each code among the sorted distinct codes, and those."""
    positions, distinct = pd.factorize(codes)
    order = np.argsort(distinct)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[positions], distinct[order]


def _labels(values: pd.Index) -> np.ndarray:
    return np.array([str(value) for value in values], dtype=object)


def refuse_single_level(grouping: Grouping, n: int) -> None:
    """Of a factor with one level no variance can be estimated.

    Raises
    ------
    DesignError
    """
    if len(grouping.levels) < 2:
        raise DesignError(
            f"Grouping factor `{grouping.name}` has one level, {grouping.levels.tolist()[0]!r}, in all {n} rows: its "
            "variance cannot be estimated."
        )
