"""Errors that show the place in the formula with a caret line."""

from __future__ import annotations

import re

from formulaic.parser.types import Token

from glmmnet.errors import FormulaError

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_TIP = re.compile(r"\s*\(tip:[^)]*\)")


def formula_error(message: str, source: str | None = None, start: int = 0, stop: int = 0) -> FormulaError:
    """FormulaError whose text ends with the formula and carets under ``source[start:stop]``."""
    if not source:
        return FormulaError(message)
    line = re.sub(r"\s", " ", source)
    return FormulaError(f"{message}\n    {line}\n    {' ' * start}{'^' * max(1, stop - start)}")


def error_at(token: Token | None, message: str) -> FormulaError:
    """FormulaError with carets under `token`, where its place is known."""
    if token is None or token.source_start is None or token.source_end is None:
        return FormulaError(message)
    return formula_error(message, token.source, token.source_start, token.source_end + 1)


def translate(error: Exception, source: str) -> FormulaError:
    """FormulaError from an error of formulaic, whose place is marked by ``⧛`` and ``⧚``."""
    text = _ANSI.sub("", str(error))
    message, _, marked = text.partition("\n\n")
    message = _TIP.sub("", message).strip().replace("insuffient", "insufficient")
    if "quote context" in message:
        return formula_error("A quote or bracket is opened here and not closed.", source, _mark(marked), len(source))
    if "⧛" not in marked:
        return FormulaError(f"{message}\n    {source}")
    start = _mark(marked)
    if "matching context marker" in message:
        opens = source[start] in "(["
        message = "This bracket is not closed." if opens else "This bracket closes nothing: remove it."
    return formula_error(message, source, start, marked.index("⧚") - 1)


def _mark(marked: str) -> int:
    return max(marked.find("⧛"), 0)
