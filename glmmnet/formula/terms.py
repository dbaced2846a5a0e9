"""Terms that formulaic's algebra may add but not multiply: random effects, nn() blocks, offsets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from formulaic.parser.types import Factor, OrderedSet, Term, Token

from .carets import error_at
from .spec import NeuralSpec, OffsetSpec, RandomSpec


class SpecialTerm(Term):
    """A term that is added and compared like any other but refuses ``*``, ``:``, ``/``, ``**`` and ``%in%``.

    Parameters
    ----------
    key : str
        Two special terms are the same when their keys are.
    what : str
        What the term is called in messages.
    spec : RandomSpec, NeuralSpec or OffsetSpec
    token : Token
        The place that messages point at.
    """

    def __init__(self, key: str, what: str, spec: RandomSpec | NeuralSpec | OffsetSpec, token: Token) -> None:
        super().__init__([Factor(key, eval_method="python", token=token)])
        self.what = what
        self.spec = spec
        self.token = token

    def _refuse(self, other: Any) -> NoReturn:
        raise error_at(
            self.token,
            f"{self.what} `{self.spec.label}` can only be added with `+`, not combined with `{other}` by `:`, `*`, "
            "`/`, `**` or `%in%`.",
        )

    __mul__ = _refuse
    __rmul__ = _refuse

    def __repr__(self) -> str:
        return self.spec.label


class SpecialToken(Token):
    """A leaf of the syntax tree that stands for a finished special term."""

    __slots__ = ("term",)

    def __init__(self, term: SpecialTerm) -> None:
        token = term.token
        super().__init__(
            token.token,
            kind=Token.Kind.PYTHON,
            source=token.source,
            source_start=token.source_start,
            source_end=token.source_end,
        )
        self.term = term

    def to_terms(self, *, context: Any = None) -> OrderedSet[Term]:
        """The term as a set of one."""
        return OrderedSet((self.term,))


def plain_products(terms: Iterable[Term]) -> list[Term]:
    """`terms` with ``1:z``, as ``(1 + x) * z`` makes it, written ``z``; each once."""
    out: dict[Term, None] = {}
    for term in terms:
        factors = [factor for factor in term.factors if factor.expr != "1"]
        out[term if len(factors) in (0, len(term.factors)) else Term(factors)] = None
    return list(out)
