"""Evaluating a checked expression on data columns, with nothing else in reach than it may use."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from formulaic.materializers.types import FactorValues
from formulaic.model_spec import ModelSpec
from formulaic.transforms import TRANSFORMS

from glmmnet.errors import DesignError
from glmmnet.formula.expression import parse_expression
from glmmnet.formula.safety import resolve
from glmmnet.formula.vocabulary import FUNCTIONS, NAMESPACES

from .coding import Coding
from .transforms import spline


def _elementwise(name: str, function: np.ufunc) -> Any:
    def apply(*values: Any) -> Any:
        if len(values) < 2:
            raise DesignError(
                f"`{name}()` of one column depends on the rows at hand, so new data would be coded differently; "
                "compute it before."
            )
        result = values[0]
        for value in values[1:]:
            result = function(result, value)
        return result

    return apply


# max and min as in R's pmax and pmin
_FUNCTIONS: dict[str, Any] = {
    **{name: TRANSFORMS[name] for name in FUNCTIONS | NAMESPACES.keys() if name in TRANSFORMS},
    **{name: spline(name) for name in ("bs", "cr", "cc")},
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "abs": abs,
    "min": _elementwise("min", np.minimum),
    "max": _elementwise("max", np.maximum),
    "round": round,
    "int": int,
    "float": float,
    "str": str,
    "len": len,
}


@dataclass(frozen=True)
class Environment:
    """What expressions may reach.

    Attributes
    ----------
    frame : DataFrame
        Tidied complete cases, index 0 .. n - 1.
    variables : tuple of str
        All columns that the formula uses, in an order that never changes: it fixes the aliases under which columns are
        evaluated, and so the keys of learned transforms.
    context : dict
        The user's objects.
    codings : dict of str to Coding
        Contrasts of factors that stand as a plain name; treatment contrasts for all others.
    """

    frame: pd.DataFrame
    variables: Sequence[str]
    context: Mapping[str, Any]
    codings: Mapping[str, Coding] = field(default_factory=dict)

    def evaluate(
        self, text: str, state: dict[str, Any], model_spec: ModelSpec | None = None, *, scalar: bool = False
    ) -> Any:
        """Value of expression `text`; stateful transforms keep what they learn in `state`.

        With `scalar`, one number stands for the same number in every row.

        Raises
        ------
        DesignError
            The expression fails, or gives another number of values than there are rows.
        """
        tree = parse_expression(text)
        aliases = {name: f"_column_{i}_" for i, name in enumerate(self.variables)}
        reach: dict[str, Any] = {**_FUNCTIONS, **self.context}
        for node, owner in resolve(tree, self.variables, self.context):
            if owner == "column":
                reach[aliases[node.id]] = self.frame[node.id]
                # a column may be called `np` or `C`: under its alias it shadows nothing
                node.id = aliases[node.id]
        try:
            with np.errstate(all="ignore"):
                value = _run(tree, reach, state, model_spec)
        except DesignError:
            raise
        except Exception as error:
            raise DesignError(f"`{text}` cannot be computed: {type(error).__name__}: {error}") from error
        if scalar and np.ndim(value) == 0 and isinstance(value, int | float | np.number):
            return np.full(len(self.frame), value)
        return self._checked(text, value)

    def _checked(self, text: str, value: Any) -> Any:
        if isinstance(value, FactorValues | dict):
            return value
        if np.ndim(value) == 0 or len(value) != len(self.frame):
            given = "one value" if np.ndim(value) == 0 else f"{len(value)} values"
            raise DesignError(f"`{text}` gives {given} for {len(self.frame)} rows; one for each row is needed.")
        if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "UO":
            return pd.Series(value, dtype=object)
        return value


def _run(tree: ast.Expression, reach: dict[str, Any], state: dict[str, Any], model_spec: ModelSpec | None) -> Any:
    """Evaluate a resolved tree; each stateful call gets what it has learned, also where it is written twice.

    formulaic's own ``stateful_eval`` hands the state to one of two equal calls only.
    """
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_stateful(node.func, reach)]
    learned = {"_spec_": model_spec}
    for call, key in [(call, ast.unparse(call)) for call in calls]:
        name = f"_state_{len(learned)}_"
        learned[name] = state.setdefault(key, {})
        call.keywords.append(ast.keyword("_state", ast.Name(name, ast.Load())))
        call.keywords.append(ast.keyword("_spec", ast.Name("_spec_", ast.Load())))
    code = compile(ast.fix_missing_locations(tree), "<formula>", "eval")
    return eval(code, {"__builtins__": {}}, {**reach, **learned})


def _is_stateful(head: ast.expr, reach: Mapping[str, Any]) -> bool:
    path: list[str] = []
    while isinstance(head, ast.Attribute):
        path.insert(0, head.attr)
        head = head.value
    function = reach.get(head.id) if isinstance(head, ast.Name) else None
    for attribute in path:
        function = getattr(function, attribute, None)
    return getattr(function, "__is_stateful_transform__", False) is True
