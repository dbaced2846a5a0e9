"""Terms -> one matrix, by formulaic; each part of a formula learns its own state."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic.errors import DataMismatchWarning, FormulaicError
from formulaic.formula import SimpleFormula
from formulaic.materializers import PandasMaterializer
from formulaic.model_spec import ModelSpec
from formulaic.parser.types import Factor, Term
from formulaic.utils.variables import Variable
from interface_meta import override

from glmmnet.errors import DesignError, GLMMNetError
from glmmnet.formula.carets import error_at
from glmmnet.formula.expression import parse_expression
from glmmnet.formula.safety import resolve, unknown_column

from .columns import column_kind
from .evaluation import Environment

_MANY = 5
_MOST_BYTES = 16 * 2**30


@dataclass(frozen=True)
class Block:
    """Consecutive columns of one term."""

    term: str
    start: int
    stop: int
    variables: tuple[str, ...]
    categorical: bool


@dataclass(frozen=True)
class Part:
    """What one part of a formula (fixed, one nn() block, one set of random effects) has learned.

    Attributes
    ----------
    model_spec : ModelSpec
        formulaic's record of encodings and transforms.
    names : tuple of str
        Columns.
    blocks : tuple of Block
    """

    model_spec: ModelSpec
    names: tuple[str, ...]
    blocks: tuple[Block, ...]

    def rebuild(self, environment: Environment) -> np.ndarray:
        """The same columns from other rows, float64, (n, p)."""
        if not len(environment.frame):
            return np.empty((0, len(self.names)))
        matrix = _materialise(self.model_spec, environment)
        check_finite(matrix, self.blocks)
        return matrix


def model_spec(terms: Sequence[Term], *, ordering: str = "degree", full_rank: bool = True) -> ModelSpec:
    """Specification of `terms` for formulaic, before it has learned anything; see `learn_part`."""
    return ModelSpec(
        formula=SimpleFormula(list(terms), _ordering=ordering),
        materializer=DesignMaterializer.REGISTER_NAME,
        ensure_full_rank=full_rank,
        na_action="ignore",
        output="numpy",
    )


def learn_part(
    terms: Sequence[Term], environment: Environment, *, ordering: str = "degree", full_rank: bool = True
) -> tuple[Part, np.ndarray]:
    """Encode `terms` for the first time.

    Parameters
    ----------
    terms : sequence of Term
    environment : Environment
    ordering : {"degree", "none"}
    full_rank : bool
        Drop a level of each categorical where the columns before span it; otherwise one-hot.

    Returns
    -------
    part : Part
    matrix : ndarray of float64, (n, p)

    Raises
    ------
    DesignError
        A factor with one level, a value that is not finite, an expression that fails.
    """
    spec = model_spec(terms, ordering=ordering, full_rank=full_rank)
    materialiser = DesignMaterializer(environment.frame, environment=environment)
    matrix, spec = _run(materialiser, spec)
    _check_levels(spec, len(environment.frame))
    names: list[str] = []
    blocks: list[Block] = []
    for term, _, columns in spec.structure or ():
        variables = tuple(
            dict.fromkeys(name for factor in term.factors for name in environment_names(factor, environment))
        )
        categorical = len(term.factors) == 1 and _is_categorical_factor(spec, term.factors[0])
        blocks.append(Block(str(term), len(names), len(names) + len(columns), variables, categorical))
        names += columns
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DesignError(f"Two columns of the design are named `{twice[0]}`; rename the column of data.")
    part = Part(spec, tuple(names), tuple(blocks))
    check_finite(matrix, part.blocks)
    return part, matrix


def environment_names(factor: Factor, environment: Environment) -> tuple[str, ...]:
    """Data columns that `factor` reads."""
    return factor_variables(factor, environment.variables, tuple(environment.context))


def factor_variables(factor: Factor, columns: Sequence[str], context: Sequence[str]) -> tuple[str, ...]:
    """Data columns that `factor` reads, in order of appearance.

    Raises
    ------
    FormulaError
        It names something unknown or forbidden; a caret shows where.
    """
    if factor.eval_method is Factor.EvalMethod.LITERAL:
        return ()
    if factor.eval_method is Factor.EvalMethod.LOOKUP:
        if factor.expr not in columns:
            raise error_at(factor.token, unknown_column(factor.expr, columns))
        return (factor.expr,)
    owners = resolve(parse_expression(factor.expr), columns, context, factor.token)
    return tuple(dict.fromkeys(node.id for node, owner in owners if owner == "column"))


def plain_names(terms: Sequence[Term]) -> set[str]:
    """Columns that stand by their plain name."""
    factors = [factor for term in terms for factor in term.factors]
    return {factor.expr for factor in factors if factor.eval_method is Factor.EvalMethod.LOOKUP}


def check_finite(matrix: np.ndarray, blocks: Sequence[Block]) -> None:
    """Refuse infinite and missing values, naming the term and the number of rows.

    Raises
    ------
    DesignError
    """
    if np.isfinite(matrix).all():
        return
    for block in blocks:
        bad = ~np.isfinite(matrix[:, block.start : block.stop]).all(axis=1)
        if bad.any():
            raise DesignError(not_finite(f"Term `{block.term}`", bad))


def not_finite(what: str, bad: np.ndarray) -> str:
    """Message about rows whose value is infinite or missing."""
    first = ", ".join(map(str, np.flatnonzero(bad)[:_MANY]))
    rows = "row" if bad.sum() == 1 else "rows"
    return (
        f"{what} is not finite in {int(bad.sum())} {rows} (the first among the complete rows: {first}): an infinite "
        "value, a logarithm or root of a number that has none, or a division by zero."
    )


class DesignMaterializer(PandasMaterializer):
    """formulaic's materialiser for pandas that reaches only what `Environment` grants."""

    REGISTER_NAME = "glmmnet"
    REGISTER_INPUTS: Sequence[str] = ()

    def __init__(self, data: pd.DataFrame, context: Any = None, *, environment: Environment) -> None:
        super().__init__(data, context=context)
        self.environment = environment

    @override
    def _lookup(self, name: str) -> tuple[Any, set[Variable]]:
        values = self.environment.frame[name]
        kind = column_kind(values)
        if kind not in ("numeric", "boolean", "categorical"):
            hint = f"use a part of it, e.g. `{{{name}.dt.year}}`" if kind.startswith("datetime") else "convert it"
            raise DesignError(f"Column `{name}` is {kind}, neither numeric nor categorical: {hint}.")
        coding = self.environment.codings.get(name) if kind == "categorical" else None
        return values if coding is None else coding.encode(values), set()

    @override
    def _evaluate(self, expr: str, metadata: Any, spec: ModelSpec) -> tuple[Any, set[Variable]]:
        return self.environment.evaluate(expr, spec.transform_state, spec), set()

    @override
    def _encode_evaled_factor(
        self, factor: Any, spec: ModelSpec, drop_rows: Sequence[int], reduced_rank: bool = False
    ) -> Any:
        if factor.metadata.kind is not Factor.Kind.CATEGORICAL:
            return super()._encode_evaled_factor(factor, spec, drop_rows, reduced_rank=reduced_rank)
        found = self._check_levels(factor, spec)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DataMismatchWarning)
                return super()._encode_evaled_factor(factor, spec, drop_rows, reduced_rank=reduced_rank)
        except DataMismatchWarning:
            raise DesignError(
                f"`{factor.expr}` has values outside its levels=; name all of them: {_listed(found)}."
            ) from None
        # What formulaic and pandas raise where contrasts or levels do not fit.
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, GLMMNetError):
                raise
            raise DesignError(
                f"`{factor.expr}` cannot be coded: its contrasts or levels= do not fit the {len(found)} levels "
                f"{_listed(found)}. Write contr.treatment(base=...), contr.sum, contr.helmert, contr.diff, contr.poly "
                "or a matrix with a row a level and one column less; levels= lists each level once."
            ) from error

    def _check_levels(self, factor: Any, spec: ModelSpec) -> list[Any]:
        """The levels that occur; refused where training had not all of them, or where they are too many."""
        found = pd.unique(pd.Series(getattr(factor.values, "__wrapped__", factor.values)))
        known = spec.encoder_state.get(factor.expr, (None, {}))[1].get("categories")
        if known is not None:
            seen = set(known)
            unseen = [level for level in found if level not in seen]
            if unseen:
                raise DesignError(
                    f"`{factor.expr}` has {_levels(unseen)}, unseen in training; known: {_listed(known)}."
                )
        size = len(found) * self.nrows * np.dtype(float).itemsize
        if known is None and size > _MOST_BYTES:
            raise DesignError(
                f"Factor `{factor.expr}` has {len(found)} levels in {self.nrows} rows: a column for each needs "
                f"{size / 2**30:.0f} GiB. Make it a random effect: `(1 | {factor.expr})`."
            )
        return list(found)


def _materialise(spec: ModelSpec, environment: Environment) -> np.ndarray:
    return _run(DesignMaterializer(environment.frame, environment=environment), spec)[0]


def _run(materialiser: DesignMaterializer, spec: ModelSpec) -> tuple[np.ndarray, ModelSpec]:
    try:
        result = materialiser.get_model_matrix(spec)
    except FormulaicError as error:
        if isinstance(error.__cause__, GLMMNetError):
            raise error.__cause__ from None
        raise DesignError(str(error)) from error
    return np.ascontiguousarray(result, dtype=np.float64), result.model_spec


def _is_categorical_factor(spec: ModelSpec, factor: Factor) -> bool:
    kind, _ = spec.encoder_state.get(factor.expr, (None, {}))
    return kind is Factor.Kind.CATEGORICAL


def _check_levels(spec: ModelSpec, n: int) -> None:
    for expression, (kind, state) in spec.encoder_state.items():
        levels = state.get("categories")
        if kind is Factor.Kind.CATEGORICAL and levels is not None and len(levels) < 2:
            raise DesignError(
                f"Factor `{expression}` has one level, {_listed(levels)}, in all {n} rows; drop it from the formula."
            )


def _levels(levels: Sequence[Any]) -> str:
    return f"level{'s' if len(levels) > 1 else ''} {_listed(levels)}"


def _listed(levels: Sequence[Any]) -> str:
    shown = [repr(level.item() if isinstance(level, np.generic) else level) for level in list(levels)[:_MANY]]
    return ", ".join(shown) + (f" and {len(levels) - _MANY} more" if len(levels) > _MANY else "")
