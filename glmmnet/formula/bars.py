"""Bars: where ``(effects | group)`` stands among the tokens, and the operator that makes the random terms."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from formulaic.formula import SimpleFormula
from formulaic.parser.types import Factor, Operator, OrderedSet, Term, Token

from .carets import error_at
from .expression import parse_expression
from .spec import RandomSpec
from .terms import SpecialTerm, plain_products
from .tokens import WordBar, head, is_context, is_operator, written

STRUCTURES = {"|": "us", "||": "diag"}


@dataclass(frozen=True)
class Bar:
    """Token positions of one random term: opening parenthesis, bar, closing parenthesis."""

    opening: int
    bar: int
    closing: int


def find_bars(tokens: Sequence[Token], where: str) -> list[Bar]:
    """All random terms among `tokens`; `where` completes the message about a bar outside of parentheses.

    Raises
    ------
    FormulaError
        Misplaced or repeated bars, an empty side, a term that is not simply added.
    """
    open_: list[tuple[int, int | None]] = []
    bars: list[Bar] = []
    for i, token in enumerate(tokens):
        if is_context(token, "(["):
            open_.append((i, None))
        elif is_context(token, ")]") and open_:
            opening, bar = open_.pop()
            if bar is not None:
                bars.append(Bar(opening, bar, i))
        elif is_operator(token) and "|" in token.token:
            if not open_ or tokens[open_[-1][0]].token == "[":
                raise error_at(token, f"Misplaced `{token.token}`: {where}.")
            opening, bar = open_[-1]
            if bar is not None:
                raise error_at(
                    token,
                    "Only one bar is allowed in a random-effect term: `(effects | group)`; brms-style `(1 | id | g)` "
                    "is not supported.",
                )
            if token.token not in STRUCTURES or written(token) != token.token:
                raise error_at(token, f"There is no operator `{written(token)}`; use `|` or `||`, then a column.")
            open_[-1] = (opening, i)
    bars.sort(key=lambda found: found.opening)
    grouping = {i for found in bars for i in range(found.bar, found.closing)}
    for i, token in enumerate(tokens):
        if head(token) == "gr" and i not in grouping:
            raise error_at(token, "`gr()` stands right of a bar: `(effects | gr(g, cov=A))`.")
    for found in bars:
        _check(tokens, found)
    return bars


def _check(tokens: Sequence[Token], bar: Bar) -> None:
    token = tokens[bar.bar]
    if bar.bar == bar.opening + 1:
        raise error_at(token, "There are no effects before the bar; write e.g. `(1 | g)`.")
    if bar.closing == bar.bar + 1:
        raise error_at(token, "There is no grouping factor after the bar; write e.g. `(1 | g)`.")
    for inner in tokens[bar.opening + 1 : bar.closing]:
        if is_operator(inner) and "|" in inner.token and inner is not token:
            raise error_at(inner, "A random-effect term is not allowed inside a random-effect term.")
        for name in ("nn", "offset"):
            if head(inner) == name:
                raise error_at(inner, f"`{name}()` is not allowed inside a random-effect term.")
    for inner in tokens[bar.bar + 1 : bar.closing]:
        if is_operator(inner) and inner.token not in ("+", ":", "/", "*"):
            raise error_at(inner, f"A group is g, a:b, a/b, g + h or g * h; `{inner.token}` is not allowed in it.")
        if inner.kind is Token.Kind.PYTHON and head(inner) == "gr":
            if bar.closing - bar.bar > 2:
                raise error_at(inner, "`gr()` stands alone right of the bar: `(effects | gr(g, cov=A))`.")
            read_known(inner)
        elif inner.kind is Token.Kind.PYTHON:
            raise error_at(inner, f"`{inner.token}` is not a column: compute the grouping factor as a column before.")
        if inner.kind is Token.Kind.VALUE:
            raise error_at(
                inner,
                f"`{inner.token}` is not a grouping factor: name a column; the order is (effects | group).",
            )
    before = tokens[bar.opening - 1] if bar.opening else None
    if before is not None and before.kind in (Token.Kind.NAME, Token.Kind.PYTHON, Token.Kind.VALUE):
        raise error_at(before, f"Is a `+` missing between `{before.token}` and the parenthesis?")
    if before is not None and is_operator(before) and before.token.endswith("-"):
        raise error_at(
            before,
            "A random-effect term can only be added with `+`; drop it from the formula instead of subtracting it.",
        )


def bar_operator(token: Token, made: list[SpecialTerm]) -> Operator:
    """Operator of one bar token; the random terms that it makes are appended to `made`.

    ``(e | a/b)`` becomes ``(e | a) + (e | a:b)`` by formulaic's own algebra on the right side.
    """

    def to_terms(effects: OrderedSet[Term], groups: OrderedSet[Term]) -> OrderedSet[Term]:
        for term in (*effects, *groups):
            if isinstance(term, SpecialTerm):
                raise error_at(term.token, f"{term.what} `{term}` is not allowed inside a random-effect term.")
        if not effects:
            raise error_at(token, "There are no effects left before the bar; write e.g. `(1 | g)` or `(0 + x | g)`.")
        terms = [_random_term(plain_products(effects), group, token) for group in groups]
        made.extend(terms)
        return OrderedSet(terms)

    return Operator(
        token.token,
        arity=2,
        precedence=-50,
        associativity=None,
        structural=True,
        to_terms=to_terms,
        accepts_context=lambda context: bool(context) and isinstance(context[-1], Token) and context[-1].token == "(",
    )


def _random_term(effects: list[Term], group: Term, token: Token) -> SpecialTerm:
    ordered = tuple(SimpleFormula(effects))
    first = next(iter(group.factors))
    written_group = [factor.expr for factor in group.factors]
    columns, known = tuple(written_group), ""
    if first.eval_method is Factor.EvalMethod.PYTHON:
        column, known = read_known(first.token)
        columns = (column,)
    text = " + ".join(str(term) for term in ordered)
    if not any(term == "1" for term in ordered):
        text = f"0 + {text}"
    word = token.word if isinstance(token, WordBar) else ""
    spec = RandomSpec(
        label=f"{word}({text} {token.token} {':'.join(written_group)})",
        effects=ordered,
        group=columns,
        structure=word or STRUCTURES[token.token],
        known=known,
        token=token,
    )
    key = f"{word}({text} {token.token} {':'.join(sorted(written_group))})"
    return SpecialTerm(key, "Random-effect term", spec, token)


def read_known(token: Token | None) -> tuple[str, str]:
    """Column and name of the matrix of ``gr(g, cov=A)``.

    Raises
    ------
    FormulaError
    """
    call = parse_expression(token.token if token is not None else "").body
    if isinstance(call, ast.Call) and len(call.args) == len(call.keywords) == 1:
        column, keyword = call.args[0], call.keywords[0]
        if keyword.arg == "cov" and isinstance(column, ast.Name) and isinstance(keyword.value, ast.Name):
            return column.id, keyword.value.id
    raise error_at(
        token, "`gr()` takes a column and the name of a matrix that is passed with context=: `gr(g, cov=A)`."
    )


def grouping_names(tokens: Sequence[Token], bars: Sequence[Bar]) -> set[str]:
    """Columns named right of the bars."""
    right = [token for bar in bars for token in tokens[bar.bar + 1 : bar.closing]]
    names = {token.token for token in right if token.kind is Token.Kind.NAME}
    return names | {read_known(token)[0] for token in right if head(token) == "gr"}


def check_group_names(specs: Sequence[RandomSpec]) -> None:
    """Refuse a column called ``a:b`` beside the combination of a and b: one name for two grouping factors.

    Raises
    ------
    FormulaError
    """
    named: dict[str, tuple[str, ...]] = {}
    for spec in specs:
        name = ":".join(spec.group)
        if named.setdefault(name, spec.group) != spec.group:
            raise error_at(
                spec.token,
                f"Two grouping factors are called `{name}`, a column and a combination of columns; rename the column.",
            )


def check_random_terms(made: Sequence[SpecialTerm]) -> None:
    """Refuse terms that appear twice and effects that vary by one group in two terms.

    Raises
    ------
    FormulaError
    """
    check_group_names([term.spec for term in made if isinstance(term.spec, RandomSpec)])
    seen: dict[tuple[tuple[str, ...], str], Any] = {}
    keys: set[str] = set()
    for term in made:
        spec = term.spec
        assert isinstance(spec, RandomSpec)
        if term.factors[0].expr in keys:
            raise error_at(
                term.token, f"Random-effect term `{term}` appears twice; `(e | a/b)` is (e | a) + (e | a:b)."
            )
        keys.add(term.factors[0].expr)
        for effect in spec.effects:
            key = (tuple(sorted(spec.group)), ":".join(sorted(factor.expr for factor in effect.factors)))
            if key in seen:
                name = "the intercept" if key[1] == "1" else f"`{effect}`"
                known = spec.known or seen[key].spec.known
                hint = f", or, beside `cov={known}`, a copy of the column under another name" if known else ""
                raise error_at(
                    term.token,
                    f"{name[0].upper() + name[1:]} varies by `{':'.join(spec.group)}` in two terms, {seen[key]} and "
                    f"{term}, so neither variance is identified; use `||` or `0 +`{hint}.",
                )
            seen[key] = term
