"""Formula text -> tokens of formulaic, with checked and canonical Python expressions."""

from __future__ import annotations

import keyword
import re

from formulaic.errors import FormulaSyntaxError
from formulaic.parser.algos.tokenize import tokenize
from formulaic.parser.types import Token

from .carets import error_at, translate
from .expression import parse_expression, print_expression
from .safety import check_syntax
from .vocabulary import COVARIANCES, FUNCTIONS, INSTEAD, NAMESPACES

_HEAD = re.compile(r"([A-Za-z_][\w.]*)\(")
_CALLS = {"nn", "offset", "gr", "p", "cbind", *COVARIANCES, *FUNCTIONS}
# formulaic's tokenizer counts brackets inside quoted strings; they travel as private characters of the same length
_SPECIAL = "()[]{},=|~%\"'`"
_SHIELD = {character: chr(0xE000 + i) for i, character in enumerate(_SPECIAL)}
_UNSHIELD = str.maketrans({shielded: character for character, shielded in _SHIELD.items()})


def shield(text: str) -> str:
    """`text` with the special characters inside quotes and backticks replaced, position by position."""
    out: list[str] = []
    quote = ""
    escaped = False
    for character in text:
        if escaped:
            out.append(_SHIELD.get(character, character))
            escaped = False
        elif quote and character == "\\":
            out.append(character)
            escaped = True
        elif quote:
            out.append(character if character == quote else _SHIELD.get(character, character))
            quote = "" if character == quote else quote
        else:
            out.append(character)
            quote = character if character in "\"'`" else ""
    return "".join(out)


def unshield(text: str) -> str:
    """The inverse of `shield`."""
    return text.translate(_UNSHIELD)


def lex(text: str, start: int = 0, stop: int | None = None) -> list[Token]:
    """Tokens of ``text[start:stop]``, placed in `text`; calls of nn() stay raw, see `head`.

    Raises
    ------
    FormulaError
    """
    piece = " " * start + shield(text)[start:stop]
    try:
        tokens = list(tokenize(piece))
    except FormulaSyntaxError as error:
        raise translate(error, text) from None
    out: list[Token] = []
    for token in tokens:
        token.source = text
        token.token = unshield(token.token)
        if token.token == "." and token.kind is not Token.Kind.CONTEXT:
            token.kind = Token.Kind.OPERATOR
        if token.kind is Token.Kind.PYTHON:
            _canonicalise(token)
        elif token.kind is Token.Kind.NAME and re.search(r"\._", written(token)):
            raise error_at(token, f"`{token.token}`: no attribute that begins with an underscore is allowed.")
        out += _opened(token, text) if head(token) in COVARIANCES else [token]
    return out


def _opened(token: Token, text: str) -> list[Token]:
    """Tokens of ``(effects | group)`` for a token ``word(effects | group)``; its bar keeps the word."""
    word, stop = head(token), (token.source_end or 0) + 1
    inner = lex(text, (token.source_start or 0) + len(word), stop)
    depth, bars = 0, []
    for i, one in enumerate(inner):
        depth += is_context(one, "([")
        depth -= is_context(one, ")]")
        if depth == 0 and i < len(inner) - 1:
            raise error_at(token, f"`{word}(...)` is a term of its own: it cannot be indexed, called or chained.")
        if depth == 1 and is_operator(one, "|"):
            bars.append(i)
    if not bars:
        raise error_at(token, f"`{word}()` names the covariance of a random-effect term: `{word}(effects | group)`.")
    for i in bars:
        if inner[i].token != "|":
            raise error_at(
                inner[i],
                f"`{inner[i].token}` names a covariance, and so does `{word}`; write `{word}(effects | group)`.",
            )
        inner[i] = WordBar(inner[i], word)
    return inner


def head(token: Token) -> str:
    """Name of the function that a Python token calls; empty where it does not begin with a call."""
    match = _HEAD.match(written(token)) if token.kind is Token.Kind.PYTHON else None
    return match[1] if match else ""


def written(token: Token) -> str:
    """The token's text as written in the formula."""
    if token.source is None or token.source_start is None or token.source_end is None:
        return token.token
    return token.source[token.source_start : token.source_end + 1]


def names_a_call(token: Token) -> bool:
    """Whether `token` is the name of a function or of a term of the language, without its parenthesis."""
    if token.kind is not Token.Kind.NAME or written(token).startswith("`"):
        return False
    namespace, _, name = token.token.partition(".")
    return token.token in _CALLS or name in NAMESPACES.get(namespace, ())


def without_blank(token: Token) -> str:
    """Message about the blank between the name of a call and its parenthesis."""
    return f"Write `{token.token}(...)` without a blank before the parenthesis."


class WordBar(Token):
    """The bar of a term whose covariance is named by a word, as in ``ar1(0 + time | g)``."""

    __slots__ = ("word",)

    def __init__(self, bar: Token, word: str) -> None:
        super().__init__(
            bar.token, kind=bar.kind, source=bar.source, source_start=bar.source_start, source_end=bar.source_end
        )
        self.word = word


def is_operator(token: Token, symbols: str = "") -> bool:
    """Whether `token` is an operator that begins with one of `symbols` (any operator if empty)."""
    return token.kind is Token.Kind.OPERATOR and (not symbols or token.token[:1] in symbols)


def is_context(token: Token, brackets: str) -> bool:
    """Whether `token` is one of `brackets`."""
    return token.kind is Token.Kind.CONTEXT and token.token in brackets


def _canonicalise(token: Token) -> None:
    name = head(token)
    if name == "nn":
        return
    if name in COVARIANCES and "|" in shield(token.token):
        return
    if name in COVARIANCES and name not in INSTEAD:
        raise error_at(token, f"`{name}()` names the covariance of a random-effect term: `{name}(effects | group)`.")
    if name in INSTEAD:
        raise error_at(token, f"`{name}()` is not available; use {INSTEAD[name]}.")
    if name and re.match(r"[^()]*\(\s*[01][^()]*\|", shield(written(token))):
        raise error_at(token, f"Is a `+` missing between `{name}` and the parenthesis?")
    try:
        tree = parse_expression(token.token)
        canonical = print_expression(tree)
    except (SyntaxError, ValueError):
        raise error_at(token, f"`{token.token}` is not a valid Python expression.{_keyword_hint(token)}") from None
    except (RecursionError, MemoryError):
        raise error_at(token, "This expression is nested too deeply; compute it as a column before.") from None
    check_syntax(tree, token)
    token.token = canonical


def _keyword_hint(token: Token) -> str:
    """What to write for a column that is called as a keyword of Python is."""
    words = [word for word in re.findall(r"(?<![`\w.])\w+(?![`\w])", token.token) if keyword.iskeyword(word)]
    return f" A column named `{words[0]}` stands in backticks inside a call." if words else ""
