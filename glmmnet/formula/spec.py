"""What a formula says, before any data: frozen records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from formulaic.parser.types import Term, Token

ResponseForm = Literal["value", "trials", "failures"]


@dataclass(frozen=True)
class ResponseSpec:
    """The left side.

    Attributes
    ----------
    label : str
        As written.
    form : {"value", "trials", "failures"}
        ``trials`` for ``p(k, n)``, ``failures`` for ``cbind(k, n - k)``.
    expressions : tuple of str
        One expression, or successes and trials (failures).
    token : Token
        The place that messages point at.
    """

    label: str
    form: ResponseForm
    expressions: tuple[str, ...]
    token: Token = field(repr=False, compare=False)


@dataclass(frozen=True)
class RandomSpec:
    """One random term ``(effects | group)``.

    Attributes
    ----------
    label : str
        Canonical: ``(1 + x | a:b)``.
    effects : tuple of Term
        The intercept, if any, first.
    group : tuple of str
        Columns whose combination is the grouping factor.
    structure : str
        ``us`` for ``|``, ``diag`` for ``||``, else the word before the parenthesis.
    known : str
        Name of the matrix A of ``gr(g, cov=A)``; empty without.
    token : Token
    part : str
        Formula that the term stands in: ``""`` the main one, else that of a further part.
    """

    label: str
    effects: tuple[Term, ...]
    group: tuple[str, ...]
    structure: str
    known: str
    token: Token = field(repr=False, compare=False)
    part: str = ""


@dataclass(frozen=True)
class NeuralSpec:
    """One nn() block.

    Attributes
    ----------
    label : str
        As written, blanks normalised.
    name : str
        Option ``name=``, else the label.
    inputs : tuple of Term
        In the order written, without an intercept.
    options : dict
        As written; a bare name is given as its text.
    token : Token
    """

    label: str
    name: str
    inputs: tuple[Term, ...]
    options: dict[str, Any]
    token: Token = field(repr=False, compare=False)


@dataclass(frozen=True)
class OffsetSpec:
    """One ``offset(expression)``."""

    label: str
    expression: str
    token: Token = field(repr=False, compare=False)


@dataclass(frozen=True)
class PartSpec:
    """The one-sided formula of a further part of the model; its random terms stand among those of the whole.

    Attributes
    ----------
    name : str
        ``zi``, ``dispersion``.
    text : str
        As the user wrote it.
    fixed : tuple of Term
    """

    name: str
    text: str
    fixed: tuple[Term, ...]


@dataclass(frozen=True)
class FormulaSpec:
    """A parsed formula.

    Attributes
    ----------
    text : str
        As the user wrote it.
    response : ResponseSpec
    fixed : tuple of Term
        Terms of formulaic, ordered by degree, the intercept ``1`` first where there is one.
    neural : tuple of NeuralSpec
    random : tuple of RandomSpec
    offsets : tuple of OffsetSpec
    columns : tuple of str or None
        The columns that ``.`` was expanded from; None where the formula has no ``.``.
    parts : tuple of PartSpec
        Formulas of further parts of the model.
    """

    text: str
    response: ResponseSpec
    fixed: tuple[Term, ...]
    neural: tuple[NeuralSpec, ...] = ()
    random: tuple[RandomSpec, ...] = ()
    offsets: tuple[OffsetSpec, ...] = ()
    columns: tuple[str, ...] | None = None
    parts: tuple[PartSpec, ...] = ()
