"""Contrasts of factors: those of ``contrasts=``, polynomials for ordered factors, treatment otherwise."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic.materializers.types import FactorValues
from formulaic.transforms.contrasts import (
    C,
    Contrasts,
    CustomContrasts,
    HelmertContrasts,
    PolyContrasts,
    SumContrasts,
    TreatmentContrasts,
)
from interface_meta import override

from glmmnet.errors import DesignError, as_mapping

from .columns import column_kind

_NAMED: dict[str, type[Contrasts]] = {
    "treatment": TreatmentContrasts,
    "sum": SumContrasts,
    "poly": PolyContrasts,
    "helmert": HelmertContrasts,
}
#: Smallest singular value of a contrast matrix beside the intercept, as a share of the largest.
_RANK = 1e-10


@dataclass(frozen=True)
class Coding:
    """How one factor becomes columns.

    Attributes
    ----------
    name : str
        ``treatment``, ``sum``, ``poly`` or ``helmert``; empty for a matrix.
    matrix : tuple of tuple of float, (k, k - 1)
        A row a level; empty for a name.
    columns : tuple of str
        Names of the matrix' columns.
    """

    name: str
    matrix: tuple[tuple[float, ...], ...] = ()
    columns: tuple[str, ...] = ()

    def encode(self, values: pd.Series) -> FactorValues[Any]:
        """`values` for formulaic, marked as a factor with these contrasts."""
        return C(values, _NAMED[self.name]() if self.name else _MatrixContrasts(self.matrix, self.columns))


@dataclass(frozen=True)
class Codings:
    """Contrasts of every factor that does not have treatment contrasts, by column.

    Attributes
    ----------
    ordered : dict of str to Coding
        Of ordered factors, in the fixed part and in random effects.
    given : dict of str to Coding
        Those of ``contrasts=``, for the fixed part alone.
    """

    ordered: Mapping[str, Coding]
    given: Mapping[str, Coding]

    @property
    def fixed(self) -> dict[str, Coding]:
        """Those of the fixed part."""
        return {**self.ordered, **self.given}


class _MatrixContrasts(CustomContrasts):
    """Contrasts by a matrix; a column a level, as for any other contrasts, where no intercept stands beside them."""

    @override
    def _get_coding_matrix(self, levels: Sequence[Hashable], reduced_rank: bool = True, sparse: bool = False) -> Any:
        return self.contrasts if reduced_rank else np.eye(len(levels))

    @override
    def get_coding_column_names(self, levels: Sequence[Hashable], reduced_rank: bool = True) -> Sequence[Hashable]:
        return self.contrast_names if reduced_rank else levels

    @override
    def get_spans_intercept(self, levels: Sequence[Hashable], reduced_rank: bool = True) -> bool:
        return not reduced_rank


def ordered_factors(frame: pd.DataFrame) -> dict[str, Coding]:
    """Polynomial contrasts for each ordered factor among the columns, as in R."""
    return {
        name: Coding("poly")
        for name in frame.columns
        if isinstance(frame[name].dtype, pd.CategoricalDtype) and frame[name].cat.ordered
    }


def read_contrasts(given: Mapping[str, Any] | None, frame: pd.DataFrame, fixed: Collection[str]) -> dict[str, Coding]:
    """The codings that ``contrasts=`` asks for.

    Parameters
    ----------
    given : mapping of str to {"treatment", "sum", "poly", "helmert"}, DataFrame or array-like, optional
        Of factors in the fixed part; a DataFrame has the levels as index.
    frame : DataFrame
        Complete cases, tidied.
    fixed : collection of str
        Columns that stand by their plain name in the fixed part.

    Raises
    ------
    DesignError
        A name that is no factor of the fixed part, unknown contrasts, a matrix that does not fit the levels.
    """
    codings = {}
    for name, wanted in as_mapping("contrasts", given, '{"c": "sum"}').items():
        if name not in fixed:
            raise DesignError(f"contrasts= names `{name}`, which is not a factor of the fixed part by its plain name.")
        if (kind := column_kind(frame[name])) != "categorical":
            raise DesignError(f"contrasts= names `{name}`, which is {kind}, not a factor; make it a category column.")
        if isinstance(wanted, str):
            if wanted not in _NAMED:
                raise DesignError(
                    f"contrasts={{{name!r}: {wanted!r}}} is not known; write {', '.join(map(repr, _NAMED))} or a "
                    "matrix."
                )
            codings[name] = Coding(wanted)
        else:
            codings[name] = _matrix(name, wanted, list(frame[name].astype("category").cat.categories))
    return codings


def _matrix(name: str, wanted: Any, levels: list[Any]) -> Coding:
    what = f"contrasts={{{name!r}: ...}}"
    if isinstance(wanted, pd.DataFrame):
        wrong = [level for level in (*levels, *wanted.index) if level not in levels or level not in wanted.index]
        if wrong or not wanted.index.is_unique:
            raise DesignError(
                f"{what}: the index must be the levels of `{name}`, {levels}; it is {list(wanted.index)}."
            )
        columns, wanted = tuple(str(column) for column in wanted.columns), wanted.loc[levels]
    else:
        columns = tuple(str(j) for j in range(1, len(levels)))
    try:
        matrix = np.asarray(wanted, dtype=np.float64)
    except (TypeError, ValueError):
        raise DesignError(f"{what} is neither a matrix of numbers nor one of {', '.join(map(repr, _NAMED))}.") from None
    shape = (len(levels), len(levels) - 1)
    if matrix.shape != shape:
        raise DesignError(
            f"{what} has shape {matrix.shape}; `{name}` has {len(levels)} levels, so write one of {shape}."
        )
    if not np.isfinite(matrix).all():
        raise DesignError(f"{what} holds values that are not finite.")
    size = np.linalg.svd(np.column_stack([np.ones(len(levels)), matrix]), compute_uv=False)
    if size[-1] <= _RANK * size[0]:
        raise DesignError(
            f"{what}: its columns and the intercept are linearly dependent, so levels cannot be told apart."
        )
    return Coding("", tuple(tuple(float(one) for one in row) for row in matrix), columns)
