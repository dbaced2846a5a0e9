"""What building a design has learned, and the same columns from new data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from glmmnet.errors import DesignError
from glmmnet.formula import FormulaSpec, NeuralSpec, RandomSpec
from glmmnet.formula.expression import name_uses, parse_expression
from glmmnet.typing import NeuralTerm, RandomTerm

from .coding import Codings
from .columns import check_frame, check_kinds, column_kind, missing_counts, tidy
from .evaluation import Environment
from .grouping import Grouping
from .matrix import Part, not_finite
from .records import Design
from .response import ResponseState
from .times import at_levels


@dataclass(frozen=True)
class Needs:
    """Data columns that each part of a formula reads."""

    response: tuple[str, ...]
    fixed: tuple[str, ...]
    effects: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """All columns that are read as values rather than as grouping factors."""
        return tuple(dict.fromkeys((*self.response, *self.fixed, *self.effects)))

    def chosen(self, response: bool, random: bool) -> tuple[str, ...]:
        """Columns read as values by the chosen parts."""
        wanted = (self.response if response else (), self.fixed, self.effects if random else ())
        return tuple(dict.fromkeys(name for part in wanted for name in part))


@dataclass(frozen=True)
class DesignState:
    """Everything needed to build the same columns from new data.

    Attributes
    ----------
    spec : FormulaSpec
    needs : Needs
    kinds : dict of str to str
        Kind of each column that is read as a value.
    context : dict
        The user's objects that the formula uses.
    codings : Codings
    response : ResponseState
    fixed : Part
    parts : tuple of (str, Part)
        Name and columns of each further part's formula.
    neural : tuple of Part
    effects : tuple of Part
        Random effects' columns, one for each random term.
    groupings : tuple of Grouping
        One for each random term.
    offset_transforms : dict
        What transforms inside offset() have learned.
    """

    spec: FormulaSpec
    needs: Needs
    kinds: dict[str, str]
    context: dict[str, Any]
    codings: Codings
    response: ResponseState
    fixed: Part
    parts: tuple[tuple[str, Part], ...]
    neural: tuple[Part, ...]
    effects: tuple[Part, ...]
    groupings: tuple[Grouping, ...]
    offset_transforms: dict[str, Any]

    @property
    def x_names(self) -> tuple[str, ...]:
        """Names of the columns of X; those of a further part begin with its name: ``zi:x``."""
        return (*self.fixed.names, *(f"{name}:{column}" for name, part in self.parts for column in part.names))

    @property
    def x_parts(self) -> tuple[str, ...]:
        """Formula that each column of X stands in."""
        return (*("" for _ in self.fixed.names), *(name for name, part in self.parts for _ in part.names))

    @property
    def x_variables(self) -> tuple[tuple[str, ...], ...]:
        """Data columns behind each column of X."""
        return tuple(one for part in (self.fixed, *(part for _, part in self.parts)) for one in column_variables(part))

    def _fixed_columns(self, environment: Environment) -> np.ndarray:
        x = self.fixed.rebuild(environment)
        return np.hstack([x, *(part.rebuild(environment) for _, part in self.parts)]) if self.parts else x

    def rebuild(
        self, data: pd.DataFrame, *, response: bool = False, random: bool = True, levels: bool = True
    ) -> Design:
        """The same columns from new data.

        Parameters
        ----------
        data : DataFrame
        response : bool, default False
            Build the response too; its columns must then be there.
        random : bool, default True
            Build the random terms too; without them, grouping columns may be missing. An unseen level of a grouping
            factor has index -1; one that a known correlation has, a number beyond those of training.
        levels : bool, default True
            Look for the levels of each row; without, every index is -1, and grouping columns may be missing but where
            levels have a known correlation.

        Returns
        -------
        Design
            Of the rows without a missing value in the columns used; `rows` tells which. `weights` is None; so is
            `response` where no row is left.

        Raises
        ------
        DesignError
            A missing column, a column of another kind, an unseen level outside of grouping factors.
        """
        columns = self.needs.chosen(response, random)
        groups = self._groups(levels) if random else ()
        data = check_frame(data, {*columns, *groups})
        complete, _ = missing_counts(data, dict.fromkeys((*columns, *groups)))
        rows = np.flatnonzero(complete)
        raw = take_rows(data, columns, rows)
        if len(rows):
            check_kinds(raw, self.kinds)
        frame = tidied(raw, self.kinds) if len(rows) else raw
        environment = Environment(frame, self.needs.variables, self.context)
        terms: list[RandomTerm] = []
        if random:
            of_rows = take_rows(data, groups, rows)
            indices: dict[tuple[tuple[str, ...], str], np.ndarray] = {}
            for spec, part, grouping in zip(self.spec.random, self.effects, self.groupings, strict=True):
                key = (spec.group, spec.known)
                if key not in indices:
                    known = levels or spec.known
                    indices[key] = grouping.locate(of_rows) if known else np.full(len(rows), -1)
                own = at_levels(spec, replace(environment, codings=self.codings.ordered))
                terms.append(random_term(spec, part, grouping, indices[key], part.rebuild(own)))
        return Design(
            response=self.response.rebuild(environment) if response and len(rows) else None,
            X=self._fixed_columns(replace(environment, codings=self.codings.fixed)),
            x_names=self.x_names,
            x_variables=self.x_variables,
            x_parts=self.x_parts,
            neural=tuple(
                neural_term(spec, part, part.rebuild(environment))
                for spec, part in zip(self.spec.neural, self.neural, strict=True)
            ),
            random=tuple(terms),
            offset=offset(self.spec, environment, self.offset_transforms),
            weights=None,
            rows=rows,
            index=data.index[rows],
            n_total=len(data),
        )

    def _groups(self, levels: bool) -> tuple[str, ...]:
        """Grouping columns; without `levels` those of known correlations alone."""
        if levels:
            return self.needs.groups
        return tuple(dict.fromkeys(name for spec in self.spec.random if spec.known for name in spec.group))

    def trials(self, data: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
        """Trials of some rows of new data, (n,): 1 where the data lack them, and of responses that are no counts.

        Raises
        ------
        DesignError
            A column of another kind, trials that are no whole numbers of at least 0.
        """
        texts = self.response.trial_expressions
        used = {use.node.id for text in texts for use in name_uses(parse_expression(text))}
        columns = [name for name in self.needs.response if name in used]
        trials = np.ones(len(rows))
        if texts and set(columns) <= set(data.columns):
            raw = take_rows(data, columns, rows)
            known = np.flatnonzero(missing_counts(raw, dict.fromkeys(columns))[0])
            if len(known):
                raw = take_rows(raw, columns, known)
                check_kinds(raw, {name: self.kinds[name] for name in columns})
                frame = tidied(raw, self.kinds)
                trials[known] = self.response.trials(Environment(frame, self.needs.variables, self.context))
        return trials


def take_rows(data: pd.DataFrame, columns: Sequence[str], rows: np.ndarray) -> pd.DataFrame:
    """`columns` of `rows`, index 0 .. n - 1."""
    if not columns:
        return pd.DataFrame(index=pd.RangeIndex(len(rows)))
    chosen = data[list(columns)]
    return (chosen if len(rows) == len(data) else chosen.iloc[rows]).reset_index(drop=True)


def tidied(frame: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """`frame` with one dtype for each kind of column."""
    if not len(frame.columns):
        return frame
    return pd.DataFrame({name: tidy(frame[name], kinds[name]) for name in frame.columns}, copy=False)


def column_variables(part: Part) -> tuple[tuple[str, ...], ...]:
    """Data columns behind each column of a matrix."""
    return tuple(block.variables for block in part.blocks for _ in range(block.start, block.stop))


def random_term(
    spec: RandomSpec,
    part: Part,
    grouping: Grouping,
    index: np.ndarray,
    z: np.ndarray,
    positions: tuple[int, ...] = (),
    correlation: np.ndarray | None = None,
) -> RandomTerm:
    """Record of one random term."""
    prefix = f"{spec.part}:" if spec.part else ""
    names = tuple(prefix + ("(Intercept)" if name == "Intercept" else name) for name in part.names)
    return RandomTerm(
        spec.label,
        grouping.name,
        names,
        spec.structure,
        grouping.levels,
        index,
        z,
        positions,
        correlation,
        grouping.relatives,
        spec.part,
    )


def neural_term(spec: NeuralSpec, part: Part, x: np.ndarray) -> NeuralTerm:
    """Record of one nn() block."""
    variables = tuple(dict.fromkeys(name for block in part.blocks for name in block.variables))
    categorical = tuple((block.start, block.stop) for block in part.blocks if block.categorical)
    return NeuralTerm(
        label=spec.label,
        name=spec.name,
        names=part.names,
        variables=variables,
        x=x.astype(np.float32),
        categorical=categorical,
        options={name: value for name, value in spec.options.items() if name != "name"},
    )


def offset(spec: FormulaSpec, environment: Environment, transforms: dict[str, Any]) -> np.ndarray:
    """Sum of the offsets, float64, (n,).

    Raises
    ------
    DesignError
        An offset is not numeric or not finite.
    """
    total = np.zeros(len(environment.frame))
    if not len(total):
        return total
    for one in spec.offsets:
        value = environment.evaluate(one.expression, transforms)
        if isinstance(value, dict) or np.ndim(value) != 1 or not types.is_numeric_dtype(pd.Series(value).dtype):
            kind = (
                "several columns" if isinstance(value, dict) or np.ndim(value) != 1 else column_kind(pd.Series(value))
            )
            raise DesignError(f"`{one.label}` is {kind}; an offset is one number for each row.")
        numbers = np.asarray(value, dtype=np.float64)
        bad = ~np.isfinite(numbers)
        if bad.any():
            raise DesignError(not_finite(f"`{one.label}`", bad))
        total += numbers
    return total
