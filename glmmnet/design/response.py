"""The response: what its values are, and the same coding for new data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic.materializers.types import FactorValues

from glmmnet.errors import DesignError
from glmmnet.formula import ResponseSpec
from glmmnet.typing import Response, ResponseKind

from .columns import column_kind, tidy
from .evaluation import Environment
from .matrix import not_finite


@dataclass(frozen=True)
class ResponseState:
    """Kind, levels and learned transforms of the response."""

    spec: ResponseSpec
    kind: ResponseKind
    levels: tuple[Any, ...]
    transforms: dict[str, Any]

    @property
    def trial_expressions(self) -> tuple[str, ...]:
        """What adds up to the trials: n of p(k, n), both counts of cbind(k, m); nothing of other responses."""
        if self.kind != "counts":
            return ()
        return self.spec.expressions if self.spec.form == "failures" else self.spec.expressions[1:]

    def trials(self, environment: Environment) -> np.ndarray:
        """Trials of other rows, (n,)."""
        parts = [_whole_numbers(self.spec, text, environment, self.transforms) for text in self.trial_expressions]
        return np.sum(parts, axis=0)

    def rebuild(self, environment: Environment) -> Response:
        """The response of other rows.

        Raises
        ------
        DesignError
            Another kind than in training, or an unseen level.
        """
        if self.kind == "counts":
            return Response(self.spec.label, "counts", _counts(self.spec, environment, self.transforms))
        series, kind = _evaluate(self.spec, environment, self.transforms)
        if len(series) and kind != self.kind:
            raise DesignError(
                f"Response `{self.spec.label}` was {self.kind} in training and is {kind} now; convert it."
            )
        if self.kind != "categorical":
            return Response(self.spec.label, self.kind, _values(self.spec, series, self.kind))
        codes = pd.Index(self.levels).get_indexer(pd.Index(series.astype(object)))
        if (codes < 0).any():
            raise DesignError(
                f"Response `{self.spec.label}` has level {series[codes < 0].iloc[0]!r}, unseen in training; known: "
                f"{', '.join(map(repr, self.levels))}."
            )
        return Response(self.spec.label, "categorical", codes.astype(np.int64), self.levels)


def learn_response(spec: ResponseSpec, environment: Environment) -> tuple[ResponseState, Response]:
    """Find out what the response is.

    Raises
    ------
    DesignError
        Values that no family can take: infinite, dates, counts that are not ``0 <= k <= n``.
    """
    transforms: dict[str, Any] = {}
    if spec.form != "value":
        values = _counts(spec, environment, transforms)
        return ResponseState(spec, "counts", (), transforms), Response(spec.label, "counts", values)
    series, kind = _evaluate(spec, environment, transforms)
    if kind != "categorical":
        response = Response(spec.label, kind, _values(spec, series, kind))
        return ResponseState(spec, kind, (), transforms), response
    category = series.astype("category")
    levels = tuple(category.cat.categories)
    codes = category.cat.codes.to_numpy().astype(np.int64)
    ordered = bool(category.cat.ordered)
    return ResponseState(spec, kind, levels, transforms), Response(spec.label, kind, codes, levels, ordered)


def _evaluate(
    spec: ResponseSpec, environment: Environment, transforms: dict[str, Any]
) -> tuple[pd.Series, ResponseKind]:
    value = environment.evaluate(spec.expressions[0], transforms)
    marked = False
    if isinstance(value, FactorValues):
        marked = value.__formulaic_metadata__.kind.value == "categorical"
        value = value.__wrapped__
    if isinstance(value, dict) or np.ndim(value) != 1:
        raise DesignError(f"Response `{spec.label}` has several columns; one is needed.")
    series = pd.Series(value).reset_index(drop=True)
    kind = column_kind(series)
    series = tidy(series, kind)
    if marked:
        return series, "categorical"
    if kind == "numeric":
        return series, "numeric"
    if kind == "boolean":
        return series, "boolean"
    if kind == "categorical":
        return series, "categorical"
    raise DesignError(f"Response `{spec.label}` is {kind}; it must be numeric, boolean or categorical.")


def _values(spec: ResponseSpec, series: pd.Series, kind: ResponseKind) -> np.ndarray:
    if kind == "boolean":
        return series.to_numpy(dtype=bool)
    values = series.to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise DesignError(not_finite(f"Response `{spec.label}`", bad))
    return values


def _counts(spec: ResponseSpec, environment: Environment, transforms: dict[str, Any]) -> np.ndarray:
    """Successes and trials, float64, (n, 2)."""
    successes, trials = (_whole_numbers(spec, text, environment, transforms) for text in spec.expressions)
    if spec.form == "failures":
        trials = successes + trials
    over = successes > trials
    if over.any():
        k, n = successes[over][0], trials[over][0]
        raise DesignError(
            f"`{spec.label}` has more successes than trials in {int(over.sum())} rows, e.g. {k:g} of {n:g}; the order "
            "is p(successes, trials), or cbind(successes, failures)."
        )
    return np.column_stack([successes, trials])


def _whole_numbers(spec: ResponseSpec, text: str, environment: Environment, transforms: dict[str, Any]) -> np.ndarray:
    value = pd.Series(environment.evaluate(text, transforms, scalar=True))
    if column_kind(value) != "numeric":
        raise DesignError(f"`{text}` in `{spec.label}` must be whole numbers, not {column_kind(value)}.")
    numbers = value.to_numpy(dtype=np.float64)
    wrong = ~(np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers)))
    if wrong.any():
        raise DesignError(
            f"`{text}` in `{spec.label}` must be whole numbers of at least 0; {int(wrong.sum())} rows are not, "
            f"e.g. {numbers[wrong][0]:g}."
        )
    return numbers
