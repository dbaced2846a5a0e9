"""Reading ``nn(inputs, option=value)``: input tokens and options."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from typing import Any

from formulaic.parser.types import Token

from .carets import error_at, formula_error
from .tokens import head, lex, shield, written

OPTIONS = ("layers", "activation", "dropout", "weight_decay", "name", "net", "embed", "bins")

_OPTION = re.compile(r"\s*([A-Za-z_]\w*)\s*=(?!=)")
_PLUS = Token("+", kind="operator")


def read_block(token: Token) -> tuple[list[Token], dict[str, Any]]:
    """Tokens of the inputs (several arguments joined by ``+``) and options of one nn() token.

    Raises
    ------
    FormulaError
    """
    source = token.source or ""
    start, stop = (token.source_start or 0) + len("nn("), (token.source_end or 0) + 1
    pieces, end = _split(shield(source), start)
    if end + 1 != stop:
        raise error_at(token, "`nn(...)` is a term of its own: it cannot be indexed, called or chained.")
    inputs: list[Token] = []
    options: dict[str, Any] = {}
    for a, b in pieces:
        match = _OPTION.match(source[a:b])
        if match:
            name, value = match[1], source[a + match.end() : b].strip()
            if name not in OPTIONS:
                raise formula_error(f"`nn()` has no option `{name}`; options are {', '.join(OPTIONS)}.", source, a, b)
            if name in options:
                raise formula_error(f"Option `{name}` of nn() is given twice.", source, a, b)
            options[name] = _read_option(name, value, source, (a, b))
        elif options:
            raise formula_error("Inputs of `nn()` must come before its options.", source, a, b)
        elif source[a:b].strip():
            inputs += [_PLUS] if inputs else []
            inputs += lex(source, a, b)
        elif len(pieces) > 1:
            raise error_at(token, "Remove the stray comma in `nn(...)`.")
    if not inputs:
        raise error_at(token, "`nn()` needs at least one input, e.g. `nn(x1 + x2)`.")
    for inner in inputs:
        if head(inner) in ("nn", "offset"):
            raise error_at(inner, f"`{head(inner)}()` is not allowed inside `nn()`.")
    return inputs, options


def block_label(token: Token) -> str:
    """The block as written, blanks normalised."""
    return re.sub(r"\s+", " ", written(token))


def _split(text: str, start: int) -> tuple[list[tuple[int, int]], int]:
    """Ranges between top-level commas of the call whose arguments begin at `start`, and its closing position."""
    pieces: list[tuple[int, int]] = []
    depth, last = 0, start
    for i in range(start, len(text)):
        if text[i] in "([{":
            depth += 1
        elif text[i] in ")]}" and depth:
            depth -= 1
        elif text[i] == "," and not depth:
            pieces.append((last, i))
            last = i + 1
        elif text[i] == ")":
            return [*pieces, (last, i)], i
    raise formula_error("This parenthesis is not closed.", text, start - 1, start)


def _read_option(name: str, text: str, source: str, place: tuple[int, int]) -> Any:
    value: Any
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if not text.isidentifier():
            raise formula_error(
                f"Option `{name}` of nn() must be a literal or a name, not `{text}`.", source, *place
            ) from None
        value = text
    accepts, wanted = _ACCEPTED[name]
    if name == "layers" and _is_count(value):
        value = (value,)
    if not accepts(value):
        raise formula_error(f"Option `{name}` of nn() must be {wanted}, not `{text}`.", source, *place)
    return tuple(value) if name == "layers" else value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_layers(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) > 0 and all(_is_count(width) for width in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


_ACCEPTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "layers": (_is_layers, "one or more positive whole numbers, e.g. (64, 32)"),
    "activation": (_is_text, "a name such as 'relu'"),
    "dropout": (lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "weight_decay": (lambda value: _is_number(value) and value >= 0, "a number of at least 0"),
    "name": (_is_text, "a name"),
    "net": (_is_text, "the name of a network passed with networks="),
    "embed": (lambda value: value is not None, "a literal or a name"),
    "bins": (lambda value: _is_number(value) and value >= 0 and value == int(value), "a whole number, 0 for none"),
}
