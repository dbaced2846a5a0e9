"""The matrix A of ``gr(g, cov=A)``, as found in ``context=``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from glmmnet.errors import DesignError
from glmmnet.formula import RandomSpec

from .grouping import Grouping

#: Entries across the diagonal may differ by this share of the largest; smallest eigenvalue, as a share of the largest.
_ASYMMETRY, _SINGULAR = 1e-8, 1e-10
_MANY = 5


def known_correlation(
    spec: RandomSpec, grouping: Grouping, context: Mapping[str, Any]
) -> tuple[Grouping, np.ndarray | None]:
    """The grouping with the further levels that A has, and A in the order of all; None where levels are independent.

    Raises
    ------
    DesignError
        A is not there, not a DataFrame with the same labels on both sides, misses levels, is not symmetric, or not
        positive definite for the levels that occur.
    """
    if not spec.known:
        return grouping, None
    name = spec.known
    if name not in context:
        raise DesignError(f"`{spec.label}` needs the matrix `{name}`: pass context={{{name!r}: ...}}.")
    given = context[name]
    if not isinstance(given, pd.DataFrame):
        raise DesignError(
            f"`{name}` is a {type(given).__name__}; give a DataFrame whose index and columns are levels of "
            f"`{grouping.name}`: pd.DataFrame({name}, index=labels, columns=labels)."
        )
    if given.index.has_duplicates or not given.index.sort_values().equals(given.columns.sort_values()):
        raise DesignError(
            f"`{name}` ({len(given)} x {len(given.columns)}) must have the same labels, each once, on both sides."
        )
    levels = grouping.levels
    missing = [level for level, found in zip(levels, levels.isin(given.index), strict=True) if not found]
    if len(missing):
        more = f" and {len(missing) - _MANY} more" if len(missing) > _MANY else ""
        raise DesignError(
            f"`{name}` has no row for {len(missing)} of the {len(levels)} levels of `{grouping.name}`: "
            f"{', '.join(map(repr, missing[:_MANY]))}{more}; its labels are like {given.index[0]!r}."
        )
    relatives = given.index[~given.index.isin(levels)]
    # By position, as labels of the two may differ in dtype.
    order = np.concatenate([given.index.get_indexer(levels), given.index.get_indexer(relatives)])
    across = given.columns.get_indexer(given.index[order])
    try:
        matrix = given.to_numpy(dtype=np.float64)[np.ix_(order, across)]
    except (TypeError, ValueError) as error:
        raise DesignError(f"`{name}` must hold numbers: {error}") from None
    if not np.isfinite(matrix).all():
        raise DesignError(f"`{name}` holds values that are not finite.")
    largest = np.abs(matrix).max()
    apart = np.abs(matrix - matrix.T)
    if apart.max() > _ASYMMETRY * largest:
        i, j = divmod(int(np.argmax(apart)), len(order))
        one, other = (given.index[order[k]] for k in (i, j))
        raise DesignError(
            f"`{name}` is not symmetric: it has {matrix[i, j]:g} for {one!r}, {other!r} and {matrix[j, i]:g} "
            "the other way round."
        )
    matrix = 0.5 * (matrix + matrix.T)
    values = np.linalg.eigvalsh(matrix[: len(levels), : len(levels)])
    if values[0] <= _SINGULAR * values[-1]:
        raise DesignError(
            f"`{name}` is not positive definite: its smallest eigenvalue is {values[0]:.3g}, its largest "
            f"{values[-1]:.3g}. Levels that are copies of each other have one effect: merge them."
        )
    return replace(grouping, relatives=relatives), matrix
