"""Random effects at points in time: the columns of ``ar1(0 + time | g)`` and ``toep(0 + time | g)``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from formulaic.parser.types import Factor

from glmmnet.covariances import COVARIANCES
from glmmnet.errors import DesignError
from glmmnet.formula import RandomSpec
from glmmnet.formula.carets import error_at

from .columns import value_kind
from .evaluation import Environment


def time_column(spec: RandomSpec) -> str:
    """The column of points in time that an ordered structure stands on; empty for other structures.

    Raises
    ------
    FormulaError
        The effects are not one column without an intercept.
    """
    if not COVARIANCES[spec.structure].ordered:
        return ""
    factors = [factor for term in spec.effects for factor in term.factors]
    if len(factors) == 1 and factors[0].eval_method is Factor.EvalMethod.LOOKUP:
        return str(factors[0].expr)
    raise error_at(
        spec.token,
        f"The effects of `{spec.structure}()` are points in time: one column without an intercept, "
        f"`{spec.structure}(0 + time | {':'.join(spec.group)})`.",
    )


def at_levels(spec: RandomSpec, environment: Environment) -> Environment:
    """`environment` for the effects of `spec`: where they are points in time, each is a level."""
    name = time_column(spec)
    if not name:
        return environment
    column = environment.frame[name]
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.as_unordered()
    else:
        column = pd.Series(pd.Categorical(column), index=column.index)
    return replace(environment, frame=environment.frame.assign(**{name: column}))


def learn_positions(spec: RandomSpec, raw: pd.DataFrame) -> tuple[int, ...]:
    """Points in time of the columns of `spec`'s effects, increasing; empty where they are none.

    Whole numbers, also as levels of a factor, are times themselves; other levels of an ordered factor are counted, with
    those that do not occur.

    Raises
    ------
    DesignError
        Times that are neither whole numbers nor ordered; with ``toep``, that are not equally spaced.
    """
    name = time_column(spec)
    if not name:
        return ()
    column, call = raw[name], f"`{spec.structure}(0 + {name} | {':'.join(spec.group)})`"
    if isinstance(column.dtype, pd.CategoricalDtype):
        used = column.cat.remove_unused_categories().cat.categories
        ordered = bool(column.cat.ordered)
        values, every = used, column.cat.categories
    else:
        values = every = pd.Index(column.unique()).sort_values()
        ordered = False
    if value_kind(values) == "numeric":
        numbers = values.to_numpy(dtype=np.float64)
        wrong = numbers[~np.isfinite(numbers) | (numbers != np.floor(numbers))]
        if len(wrong):
            raise DesignError(
                f"The times of {call} are whole numbers; `{name}` has {wrong[0]:g}. Count in finer units."
            )
        if np.any(np.diff(numbers) <= 0):
            raise DesignError(f"The levels of `{name}` are times that do not increase, {list(values)}; reorder them.")
        positions = numbers.astype(np.int64)
    elif ordered:
        positions = every.get_indexer(values).astype(np.int64)
    else:
        raise DesignError(
            f"The times of {call} have an order: make `{name}` ({value_kind(values)}) whole numbers, or an ordered "
            f"factor: pd.Categorical({name}, categories=[...], ordered=True)."
        )
    if COVARIANCES[spec.structure].spaced and len(set(np.diff(positions))) > 1:
        raise DesignError(
            f"The times of {call} must be equally spaced, and `{name}` has {list(values)}; use ar1(), or an ordered "
            "factor whose levels count the times."
        )
    return tuple(int(position) for position in positions)
