"""What an expression may do, checked on its syntax tree before anything is evaluated.

A formula may come from a file or a saved model, so nothing in it may run code: only arithmetic, comparisons, listed
functions, and the objects that the user passes in ``context=``.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection
from typing import Literal

import numpy as np
from formulaic.parser.types import Token

from .carets import error_at
from .expression import NameUse, name_uses
from .vocabulary import FUNCTIONS, METHODS, NAMESPACES, NUMPY, REDUCTIONS

Owner = Literal["column", "context", "function"]

#: Documented functions that are numpy's, and what others of numpy's take before ``out``.
_NUMPY_FUNCTIONS = {"log", "log2", "log10", "log1p", "exp", "expm1", "sqrt"}
_MOST_ARGUMENTS = {"clip": 3, "round": 2}
_BUILTINS = "abs, min, max, round, int, float, str, len"
_ALLOWED_NODES = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.IfExp,
    ast.Call,
    ast.keyword,
    ast.Name,
    ast.Attribute,
    ast.Subscript,
    ast.Slice,
    ast.Constant,
    ast.Tuple,
    ast.List,
    ast.Dict,
    ast.expr_context,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
)
_FORBIDDEN = {
    ast.Lambda: "a lambda",
    ast.NamedExpr: "a walrus `:=`",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.JoinedStr: "an f-string",
    ast.Starred: "a starred argument",
    ast.Set: "braces, which are not needed inside of a call or of braces",
    ast.Await: "await",
    ast.Yield: "yield",
}


def check_syntax(tree: ast.AST, token: Token | None = None) -> None:
    """Refuse everything that an expression in a formula cannot hold, whatever the data.

    Raises
    ------
    FormulaError
    """
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED_NODES):
            what = _FORBIDDEN.get(type(node), f"`{type(node).__name__}`")
            raise error_at(
                token, f"An expression in a formula cannot hold {what}: only arithmetic, calls and comparisons."
            )
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
            raise error_at(token, "`^` is not a power inside a call or braces; write `**`, e.g. `I(x ** 2)`.")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and _is_sum_with_number(node.left):
            raise error_at(token, "A random-effect term `(effects | group)` is not allowed inside a call or braces.")
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            raise error_at(
                token,
                f"`.{node.attr}` is not allowed: no attribute that begins with an underscore; allowed are "
                f"{_listed(METHODS)}.",
            )
        if isinstance(node, ast.keyword) and (node.arg is None or node.arg.startswith("_") or node.arg == "inplace"):
            raise error_at(token, f"Argument `{node.arg or '**'}` is not allowed in a formula.")
        if isinstance(node, ast.Name) and node.id.startswith("__"):
            raise error_at(
                token,
                f"`{node.id}` is not allowed: an expression may use columns, the documented transforms, np, what is "
                f"passed with context=, and the builtins {_BUILTINS}.",
            )


def _is_sum_with_number(node: ast.expr) -> bool:
    """Whether `node` is what stands left of a bar, such as ``1``, ``0 + x``, ``x - 1``: no flag to combine by ``|``."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        return _is_sum_with_number(node.left) or _is_sum_with_number(node.right)
    if isinstance(node, ast.UnaryOp):
        return _is_sum_with_number(node.operand)
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def resolve(
    tree: ast.AST,
    columns: Collection[str],
    context: Collection[str] = (),
    token: Token | None = None,
) -> list[tuple[ast.Name, Owner]]:
    """Who owns each name of a checked expression: a column, the user's context or the documented functions.

    A call's head is a function even where a column has the same name; any other name is a column first.

    Raises
    ------
    FormulaError
        Unknown names (with the nearest known one), forbidden attributes and builtins.
    """
    uses = list(name_uses(tree))
    roots = {id(use.node) for use in uses if use.role == "root"}
    _check_methods(tree, roots, token)
    _check_outputs(tree, context, token)
    return [(use.node, _owner(use, columns, context, token)) for use in uses]


def _owner(use: NameUse, columns: Collection[str], context: Collection[str], token: Token | None) -> Owner:
    name = use.node.id
    if use.role == "function":
        if name in context:
            return "context"
        if name in FUNCTIONS:
            return "function"
        raise error_at(token, _unknown_function(name, columns))
    if use.role == "root" and name in NAMESPACES and name not in context:
        if use.path[0] in NAMESPACES[name] and len(use.path) == 1:
            return "function"
        if name not in columns or use.path[0] not in METHODS:
            raise error_at(token, _not_in_namespace(name, use.path))
    if name in columns:
        for attribute in use.path:
            _check_method(attribute, token)
        return "column"
    if name in context:
        return "context"
    if name in FUNCTIONS and use.role == "value":
        return "function"
    raise error_at(token, unknown_column(".".join((name, *use.path)), columns, context=True))


def unknown_column(name: str, columns: Collection[str], *, context: bool = False) -> str:
    """Message about a name that is not a column, with the nearest one; `context`: it might be the user's object."""
    known = [str(column) for column in columns]
    if name in known:
        return f"Write the column `{name}` in backticks inside a call: its name is not a Python name."
    near = [column for column in known if column.lower() == name.lower()]
    near = near or difflib.get_close_matches(name, known, 1)
    if "." in name and (dotted := name.split(".", 1))[0] in known:
        return f"`{name}` is not a column of data; an attribute needs braces: `{{{dotted[0]}.{dotted[1]}}}`."
    hint = f"did you mean `{near[0]}`?" if near else f"columns: {_listed(known)}."
    own = f" An object of your own is passed with context={{{name!r}: ...}}." if context else ""
    return f"`{name}` is not a column of data; {hint}{own}"


def _unknown_function(name: str, columns: Collection[str]) -> str:
    if name in columns:
        return f"`{name}` is a column, not a function: is a `+` missing before the parenthesis?"
    if name in NUMPY:
        return f"`{name}` is not a known function; write `np.{name}(...)`."
    near = difflib.get_close_matches(name, FUNCTIONS, 1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return (
        f"`{name}` is not a known function; pass it with context={{{name!r}: ...}}.{hint} Allowed are np, the "
        f"builtins {_BUILTINS}, and the transforms {_listed(FUNCTIONS - set(_BUILTINS.split(', ')))}."
    )


def _not_in_namespace(name: str, path: tuple[str, ...]) -> str:
    full = ".".join((name, *path))
    if path[0] in REDUCTIONS:
        return (
            f"`{full}` depends on the rows at hand, so new data would be coded differently; use center(x), scale(x), "
            "or compute it before."
        )
    return f"`{full}` is not allowed in a formula; allowed of {name} are {_listed(NAMESPACES[name])}."


def _check_methods(tree: ast.AST, roots: set[int], token: Token | None) -> None:
    """Attributes of intermediate results, such as ``(x + 1).clip(0)``; those of names are checked with the name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            inner: ast.expr = node
            while isinstance(inner, ast.Attribute):
                inner = inner.value
            if id(inner) not in roots:
                _check_method(node.attr, token)


def _check_method(attribute: str, token: Token | None) -> None:
    if attribute in REDUCTIONS:
        raise error_at(token, _not_in_namespace("", (attribute,)))
    if attribute not in METHODS:
        raise error_at(token, f"`.{attribute}` is not allowed in a formula; allowed are {_listed(METHODS)}.")


def _check_outputs(tree: ast.AST, context: Collection[str], token: Token | None) -> None:
    """Refuse calls of numpy that would write their result into a column, or leave it undefined in some rows."""
    for node in ast.walk(tree):
        name = _numpy_name(node.func, context) if isinstance(node, ast.Call) else None
        if name is None:
            continue
        assert isinstance(node, ast.Call)
        written = ast.unparse(node.func)
        for keyword in node.keywords:
            if keyword.arg in ("out", "where"):
                raise error_at(token, f"Argument `{keyword.arg}` of `{written}()` is not allowed in a formula.")
        most = _MOST_ARGUMENTS.get(name, getattr(getattr(np, name), "nin", None))
        if most is not None and len(node.args) > most:
            raise error_at(token, f"`{written}()` takes {most} argument{'s' * (most > 1)}, not {len(node.args)}.")


def _numpy_name(head: ast.expr, context: Collection[str]) -> str | None:
    """Name of the numpy function that a call's head stands for, if any."""
    if isinstance(head, ast.Attribute) and isinstance(head.value, ast.Name):
        own = head.value.id == "np" and "np" not in context and head.attr in NUMPY
        return head.attr if own else None
    own = isinstance(head, ast.Name) and head.id in _NUMPY_FUNCTIONS and head.id not in context
    return head.id if own and isinstance(head, ast.Name) else None


def _listed(names: Collection[str], most: int = 60) -> str:
    shown = sorted(str(name) for name in names)
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "")
