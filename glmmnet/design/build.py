"""FormulaSpec + data frame -> Design."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from formulaic.parser.types import Term

from glmmnet.covariances import COVARIANCES
from glmmnet.errors import DesignError, as_mapping
from glmmnet.formula import FormulaSpec, NeuralSpec
from glmmnet.formula.carets import error_at
from glmmnet.formula.expression import name_uses, parse_expression
from glmmnet.formula.safety import resolve, unknown_column

from .coding import Codings, ordered_factors, read_contrasts
from .columns import check_frame, column_kind, missing_counts
from .evaluation import Environment
from .grouping import learn_grouping, refuse_single_level
from .known import known_correlation
from .matrix import factor_variables, learn_part, plain_names
from .records import Design
from .response import learn_response
from .state import (
    DesignState,
    Needs,
    neural_term,
    offset,
    random_term,
    take_rows,
    tidied,
)
from .times import at_levels, learn_positions


def build_design(
    spec: FormulaSpec,
    data: pd.DataFrame,
    *,
    na_action: Literal["drop", "raise"] = "drop",
    context: Mapping[str, Any] | None = None,
    weights: str | Sequence[float] | np.ndarray | pd.Series | None = None,
    contrasts: Mapping[str, Any] | None = None,
) -> tuple[Design, DesignState]:
    """Build the matrices and codes that a formula asks for.

    Parameters
    ----------
    spec : FormulaSpec
    data : DataFrame
    na_action : {"drop", "raise"}
        What to do with rows that have a missing value in a column that the formula uses, or in `weights`: leave them
        out before anything is computed (`Design.n_dropped` counts them), or raise.
    context : mapping of str to object, optional
        What expressions may use besides columns and the documented transforms.
    weights : str or array-like, (n_total,), optional
        Column or values; finite, not negative, not all zero.
    contrasts : mapping, optional
        Of factors in the fixed part: ``treatment``, ``sum``, ``poly``, ``helmert``, or a matrix (levels, levels - 1),
        with the levels as index if a DataFrame. Ordered factors have polynomial contrasts otherwise, all others
        treatment contrasts.

    Returns
    -------
    design : Design
    state : DesignState
        Builds the same columns from new data.

    Raises
    ------
    FormulaError
        The formula names something that is neither a column nor known.
    DesignError
        The data do not fit the formula; the message names column, values and rows.
    """
    if na_action not in ("drop", "raise"):
        raise DesignError(f"na_action must be 'drop' or 'raise', not {na_action!r}.")
    data = check_frame(data, ())
    context = as_mapping("context", context, '{"A": A}')
    needs = needed_columns(spec, [name for name in data.columns if isinstance(name, str)], context)
    check_frame(data, {*needs.variables, *needs.groups})
    weight = _read_weights(weights, data)
    rows = _complete_rows(data, dict.fromkeys((*needs.variables, *needs.groups)), weight, na_action)
    raw = take_rows(data, needs.variables, rows)
    kinds = {name: column_kind(raw[name]) for name in needs.variables}
    environment = Environment(tidied(raw, kinds), needs.variables, _used_context(spec, context))
    positions = [learn_positions(one, raw) for one in spec.random]
    del raw
    response_state, response = learn_response(spec.response, environment)
    every = [term for one in spec.parts for term in one.fixed]
    codings = Codings(
        ordered=ordered_factors(environment.frame),
        given=read_contrasts(contrasts, environment.frame, plain_names([*spec.fixed, *every])),
    )
    fixed, x = learn_part(spec.fixed, replace(environment, codings=codings.fixed))
    parts = [(one.name, *learn_part(one.fixed, replace(environment, codings=codings.fixed))) for one in spec.parts]
    neural = [learn_part(one.inputs, environment, ordering="none", full_rank=False) for one in spec.neural]
    for block, (_, inputs) in zip(spec.neural, neural, strict=True):
        _refuse_constant_block(block, inputs)
    effects = [
        learn_part(one.effects, at_levels(one, replace(environment, codings=codings.ordered))) for one in spec.random
    ]
    frame = take_rows(data, needs.groups, rows)
    learned = {columns: learn_grouping(columns, frame) for columns in dict.fromkeys(one.group for one in spec.random)}
    for one in spec.random:
        # One series of several times shows the one variance that they share.
        if not COVARIANCES[one.structure].tied:
            refuse_single_level(learned[one.group][0], len(rows))
    known = [known_correlation(one, learned[one.group][0], context) for one in spec.random]
    transforms: dict[str, Any] = {}
    state = DesignState(
        spec=spec,
        needs=needs,
        kinds=kinds,
        context=dict(environment.context),
        codings=codings,
        response=response_state,
        fixed=fixed,
        parts=tuple((name, part) for name, part, _ in parts),
        neural=tuple(part for part, _ in neural),
        effects=tuple(part for part, _ in effects),
        groupings=tuple(grouping for grouping, _ in known),
        offset_transforms=transforms,
    )
    design = Design(
        response=response,
        X=np.hstack([x, *(columns for _, _, columns in parts)]) if parts else x,
        x_names=state.x_names,
        x_variables=state.x_variables,
        x_parts=state.x_parts,
        neural=tuple(neural_term(one, part, inputs) for one, (part, inputs) in zip(spec.neural, neural, strict=True)),
        random=tuple(
            random_term(one, part, grouping, learned[one.group][1], z, times, correlation)
            for one, (part, z), times, (grouping, correlation) in zip(
                spec.random, effects, positions, known, strict=True
            )
        ),
        offset=offset(spec, environment, transforms),
        weights=None if weight is None else _check_weights(weight[rows]),
        rows=rows,
        index=data.index[rows],
        n_total=len(data),
    )
    return design, state


def needed_columns(spec: FormulaSpec, columns: Sequence[str], context: Mapping[str, Any]) -> Needs:
    """Data columns that each part of the formula reads.

    Raises
    ------
    FormulaError
        Something is neither a column nor known; a caret shows where.
    """

    def of_terms(terms: Iterable[Term]) -> list[str]:
        return [
            name
            for term in terms
            for factor in term.factors
            for name in factor_variables(factor, columns, tuple(context))
        ]

    def of_expression(text: str, token: Any) -> list[str]:
        owners = resolve(parse_expression(text), columns, tuple(context), token)
        return [node.id for node, owner in owners if owner == "column"]

    response = [name for text in spec.response.expressions for name in of_expression(text, spec.response.token)]
    if not response:
        raise error_at(spec.response.token, f"The response `{spec.response.label}` uses no column of data.")
    fixed = of_terms(spec.fixed)
    fixed += [name for part in spec.parts for name in of_terms(part.fixed)]
    fixed += [name for block in spec.neural for name in of_terms(block.inputs)]
    fixed += [name for one in spec.offsets for name in of_expression(one.expression, one.token)]
    effects = [name for term in spec.random for name in of_terms(term.effects)]
    groups = [name for term in spec.random for name in term.group]
    for term in spec.random:
        for name in term.group:
            if name not in columns:
                raise error_at(term.token, unknown_column(name, columns))
    return Needs(*(tuple(dict.fromkeys(names)) for names in (response, fixed, effects, groups)))


def _refuse_constant_block(block: NeuralSpec, inputs: np.ndarray) -> None:
    """Of inputs that are the same in every row nothing can be learned."""
    if not (inputs != inputs[0]).any():
        raise DesignError(
            f"`{block.label}` needs at least one input that is not a constant; each is the same in all "
            f"{len(inputs)} rows."
        )


def _used_context(spec: FormulaSpec, context: Mapping[str, Any]) -> dict[str, Any]:
    texts = [*spec.response.expressions, *(one.expression for one in spec.offsets)]
    terms = [
        *spec.fixed,
        *(term for part in spec.parts for term in part.fixed),
        *(term for block in spec.neural for term in block.inputs),
        *(term for random in spec.random for term in random.effects),
    ]
    texts += [factor.expr for term in terms for factor in term.factors if factor.eval_method.value == "python"]
    used = {use.node.id for text in texts for use in name_uses(parse_expression(text))}
    return {name: value for name, value in context.items() if name in used}


def _complete_rows(
    data: pd.DataFrame, columns: Collection[str], weight: np.ndarray | None, na_action: str
) -> np.ndarray:
    """Positions of the rows without a missing value, int64."""
    complete, counts = missing_counts(data, columns)
    if weight is not None and np.isnan(weight).any():
        counts["weights"] = int(np.isnan(weight).sum())
        complete &= ~np.isnan(weight)
    listed = ", ".join(f"`{name}` ({count})" for name, count in counts.items())
    if counts and na_action == "raise":
        raise DesignError(f"Missing values in {listed} of {len(data)} rows; fill them in or use na_action='drop'.")
    rows = np.flatnonzero(complete)
    if not len(rows):
        reason = f" after leaving out rows with missing values in {listed}" if counts else ""
        raise DesignError(f"No rows are left{reason}: data has {len(data)} rows.")
    return rows


def _read_weights(weights: Any, data: pd.DataFrame) -> np.ndarray | None:
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights not in data.columns:
            raise DesignError(f"weights: {unknown_column(weights, [str(name) for name in data.columns])}")
        weights = check_frame(data, {weights})[weights]
    if isinstance(weights, pd.Series) and not weights.index.equals(data.index):
        raise DesignError("weights has another index than data; pass weights.to_numpy() if the order is that of data.")
    try:
        values = pd.to_numeric(pd.Series(np.asarray(weights))).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DesignError(f"weights must be numbers: {error}") from None
    if values.shape != (len(data),):
        raise DesignError(f"weights has shape {np.shape(weights)}; data has {len(data)} rows.")
    return values


def _check_weights(values: np.ndarray) -> np.ndarray:
    wrong = ~np.isfinite(values) | (values < 0)
    if wrong.any():
        raise DesignError(
            f"weights must be finite and not negative; {int(wrong.sum())} rows are not, e.g. {values[wrong][0]:g}."
        )
    if not values.any():
        raise DesignError("weights are all zero; at least one row must count.")
    return values
