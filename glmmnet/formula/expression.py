"""Python expressions inside a formula: parsing with `quoted names`, printing, and who uses which name."""

from __future__ import annotations

import ast
import copy
import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .vocabulary import NAMESPACES

_QUOTED = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|`([^`]*)`""")

Role = Literal["value", "function", "root"]


@dataclass(frozen=True)
class NameUse:
    """One use of a name.

    Attributes
    ----------
    node : ast.Name
    role : {"value", "function", "root"}
        ``function``: the head of a call; ``root``: something follows after a dot.
    path : tuple of str
        For a root, what follows: ``("str", "upper")``.
    """

    node: ast.Name
    role: Role
    path: tuple[str, ...] = ()


def parse_expression(text: str) -> ast.Expression:
    """Syntax tree of `text`; a name in backticks becomes an ``ast.Name`` whose id is the name itself.

    Raises
    ------
    SyntaxError
    """
    names: dict[str, str] = {}
    prefix = "_quoted_"
    while prefix in text:
        prefix += "_"

    def alias(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        key = f"{prefix}{len(names)}_"
        names[key] = match[2]
        return f" {key} "

    tree = ast.parse(_QUOTED.sub(alias, text).strip(), mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
    return tree


def print_expression(tree: ast.AST) -> str:
    """Canonical text of `tree`; names that are not Python names come in backticks."""
    tree = copy.deepcopy(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = quote(node.id)
    return ast.unparse(tree).replace("\n", " ")


def quote(name: str) -> str:
    """`name` as it is written in an expression."""
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"`{name}`"


def column_names(text: str) -> set[str]:
    """Names in an expression that may be columns: neither heads of calls nor namespaces of functions."""
    return {
        use.node.id
        for use in name_uses(parse_expression(text))
        if use.role == "value" or (use.role == "root" and use.path[0] not in NAMESPACES.get(use.node.id, ()))
    }


def name_uses(tree: ast.AST) -> Iterator[NameUse]:
    """Every use of a name in `tree`."""
    if isinstance(tree, ast.Call):
        yield from _uses_of_head(tree.func)
        for child in (*tree.args, *tree.keywords):
            yield from name_uses(child)
    elif isinstance(tree, ast.Attribute):
        yield from _uses_of_attribute(tree)
    elif isinstance(tree, ast.Name):
        yield NameUse(tree, "value")
    else:
        for node in ast.iter_child_nodes(tree):
            yield from name_uses(node)


def _uses_of_head(head: ast.expr) -> Iterator[NameUse]:
    if isinstance(head, ast.Name):
        yield NameUse(head, "function")
    else:
        yield from name_uses(head)


def _uses_of_attribute(node: ast.Attribute) -> Iterator[NameUse]:
    path: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        path.insert(0, inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name):
        yield NameUse(inner, "root", tuple(path))
    else:
        yield from name_uses(inner)
