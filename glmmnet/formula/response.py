"""The left side of a formula."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from formulaic.parser.types import Token

from glmmnet.errors import FormulaError

from .carets import error_at, formula_error
from .expression import column_names, parse_expression, print_expression, quote
from .safety import check_syntax
from .spec import ResponseForm, ResponseSpec
from .tokens import head, is_operator, names_a_call, without_blank

_FORMS: dict[str, tuple[ResponseForm, str]] = {
    "p": ("trials", "p(successes, trials)"),
    "cbind": ("failures", "cbind(successes, failures)"),
}
_RULE = "exactly one response is needed, left of one `~`"


def split_sides(text: str, tokens: Sequence[Token]) -> tuple[list[Token], list[Token]]:
    """Tokens left and right of the one ``~``; a sign lexed together with it opens the right side.

    Raises
    ------
    FormulaError
        No ``~``, several, or an empty side.
    """
    tildes = [i for i, token in enumerate(tokens) if is_operator(token) and "~" in token.token]
    if not tildes:
        raise FormulaError(f"There is no `~`: {_RULE}.\n    {text}")
    first = tokens[tildes[0]]
    if len(tildes) > 1 or first.token.count("~") > 1:
        raise error_at(tokens[tildes[-1]], f"There are several `~`: {_RULE}.")
    if tildes[0] == 0:
        raise error_at(first, f"There is nothing left of `~`: {_RULE}.")
    before, _, after = first.token.partition("~")
    if before:
        raise error_at(first, f"`{before}` before `~` has nothing to join: {_RULE}.")
    right = list(tokens[tildes[0] + 1 :])
    if after:
        right.insert(0, first.copy_with_attrs(token=after))
    if not right:
        raise error_at(first, "There is nothing right of `~`; write e.g. `y ~ 1`.")
    return list(tokens[: tildes[0]]), right


def read_response(tokens: Sequence[Token]) -> ResponseSpec:
    """The response from the tokens left of ``~``: one column, one expression, ``p(k, n)`` or ``cbind(k, n - k)``.

    Raises
    ------
    FormulaError
    """
    source = tokens[0].source or ""
    start, stop = tokens[0].source_start or 0, (tokens[-1].source_end or 0) + 1
    if source[stop : stop + 1] in ("`", "}"):
        stop += 1
    label = source[start:stop].strip()
    place = Token(label, kind="python", source=source, source_start=start, source_end=stop - 1)
    if len(tokens) == 1:
        return _single(tokens[0], label, place)
    for token in tokens:
        if is_operator(token) and "|" in token.token:
            raise error_at(token, f"A random-effect term is not allowed left of `~`: {_RULE}.")
        if head(token) in ("nn", "offset"):
            raise error_at(token, f"`{head(token)}()` is not allowed left of `~`: {_RULE}.")
    if tokens[1].token == "(" and names_a_call(tokens[0]):
        raise error_at(tokens[0], without_blank(tokens[0]))
    try:
        tree = parse_expression(label)
        expression = print_expression(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is None or not isinstance(tree.body, ast.Compare):
        raise formula_error(
            f"`{label}` is not one response: {_RULE}; put an expression in braces, e.g. `{{y + x}} ~ z`.",
            source,
            start,
            stop,
        )
    check_syntax(tree, place)
    return ResponseSpec(label, "value", (expression,), place)


def response_names(response: ResponseSpec) -> set[str]:
    """Names that may be columns in the response."""
    return {name for text in response.expressions for name in column_names(text)}


def response_column(response: ResponseSpec) -> str | None:
    """The column that is the response, or holds its successes; None where that is an expression."""
    body = parse_expression(response.expressions[0]).body
    return body.id if isinstance(body, ast.Name) else None


def _single(token: Token, label: str, place: Token) -> ResponseSpec:
    if token.kind is Token.Kind.NAME:
        return ResponseSpec(token.token, "value", (quote(token.token),), token)
    if token.kind is not Token.Kind.PYTHON:
        raise error_at(token, f"`{label}` is not a response: {_RULE}.")
    name = head(token)
    if name in ("nn", "offset"):
        raise error_at(token, f"`{name}()` is not allowed left of `~`: {_RULE}.")
    if name not in _FORMS:
        return ResponseSpec(label, "value", (token.token,), place)
    form, wanted = _FORMS[name]
    call = parse_expression(token.token).body
    if not isinstance(call, ast.Call) or call.keywords or len(call.args) != 2:
        raise error_at(token, f"`{label}` needs two arguments: {wanted}.")
    return ResponseSpec(label, form, tuple(print_expression(argument) for argument in call.args), place)
