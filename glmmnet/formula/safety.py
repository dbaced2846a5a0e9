"""What an expression may do, checked on its syntax tree before anything is evaluated.

A formula may come from a file or a saved model, so nothing in it may run code: only arithmetic, comparisons, listed
functions, and the objects that the user passes in ``context=``.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection
from typing import Literal

from formulaic.parser.types import Token

from .carets import error_at
from .expression import NameUse, name_uses
from .vocabulary import FUNCTIONS, METHODS, NAMESPACES, NUMPY, REDUCTIONS

Owner = Literal["column", "context", "function"]

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
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            raise error_at(
                token,
                f"`.{node.attr}` is not allowed: no attribute that begins with an underscore; allowed are "
                f"{_listed(METHODS)}.",
            )
        if isinstance(node, ast.keyword) and (node.arg is None or node.arg.startswith("_")):
            raise error_at(token, f"Argument `{node.arg or '**'}` is not allowed in a formula.")
        if isinstance(node, ast.Name) and node.id.startswith("__"):
            raise error_at(
                token,
                f"`{node.id}` is not allowed: an expression may use columns, the documented transforms, np, what is "
                f"passed with context=, and the builtins {_BUILTINS}.",
            )


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


def _listed(names: Collection[str], most: int = 60) -> str:
    shown = sorted(str(name) for name in names)
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "")
