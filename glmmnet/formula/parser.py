"""Formula text -> FormulaSpec, by formulaic's operators and term algebra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from formulaic.errors import FormulaicError
from formulaic.formula import SimpleFormula
from formulaic.parser import DefaultFormulaParser, DefaultOperatorResolver
from formulaic.parser.types import Factor, Operator, Term, Token
from formulaic.parser.utils import merge_operator_tokens, replace_tokens

from glmmnet.errors import FormulaError

from .bars import bar_operator, check_group_names, check_random_terms, find_bars, grouping_names
from .carets import error_at, translate
from .expression import column_names, parse_expression, print_expression, quote
from .neural import block_label, read_block
from .response import read_response, response_column, response_names, split_sides
from .spec import FormulaSpec, NeuralSpec, OffsetSpec, PartSpec, RandomSpec
from .terms import SpecialTerm, SpecialToken, plain_products
from .tokens import head, is_context, is_operator, lex, names_a_call, without_blank, written

_ONE = Token("1", kind="value")
_PLUS = Token("+", kind="operator")
_MINUS = Token("-", kind="operator")


def parse(text: str, columns: Sequence[str] | None = None) -> FormulaSpec:
    """Read a formula.

    Parameters
    ----------
    text : str
        ``response ~ fixed + nn(inputs) + (effects | group) + offset(expression)``.
    columns : sequence of str, optional
        The data's columns; needed only for ``.``, which stands for all of them but the response, grouping and
        offset variables.

    Returns
    -------
    FormulaSpec

    Raises
    ------
    FormulaError
        The text is malformed; a caret shows where.
    """
    if not isinstance(text, str):
        raise FormulaError(f"A formula is a text such as 'y ~ x + (1 | g)', not {type(text).__name__}.")
    return _parse(text, columns)


def _parse(text: str, columns: Sequence[str] | None, taken: Iterable[str] = ()) -> FormulaSpec:
    """See :func:`parse`; ``.`` leaves out the columns `taken`, too."""
    left, right = split_sides(text, lex(text))
    response = read_response(left)
    _refuse_blanks(right, columns)
    bars = find_bars(right, "put random effects in parentheses, e.g. `(1 | g)`")
    offsets = [_offset(token) for token in right if head(token) == "offset"]
    used = {*taken, *response_names(response), *grouping_names(right, bars), *_offset_names(offsets)}
    _check_tokens(right, columns)
    algebra = _Algebra(text, columns, used)
    openings = {bar.opening for bar in bars}
    _refuse_inner_zeros(right, openings)
    terms = algebra.terms(algebra.special(_with_intercepts(right, openings)))
    expanded = tuple(columns) if columns is not None and algebra.dotted else None
    spec = FormulaSpec(text=text, response=response, columns=expanded, **algebra.parts(terms))
    _refuse_response(spec)
    return spec


def with_part(spec: FormulaSpec, name: str, text: str, columns: Sequence[str] | None = None) -> FormulaSpec:
    """`spec` with the one-sided formula of a further part of the model.

    Parameters
    ----------
    spec : FormulaSpec
    name : str
        What the part is called: ``zi``.
    text : str
        ``~ fixed + (effects | group)``.
    columns : sequence of str, optional
        As for :func:`parse`.

    Raises
    ------
    FormulaError
        The text is malformed, or holds a response, nn() or offset().
    """
    if not isinstance(text, str) or not text.lstrip().startswith("~"):
        raise FormulaError(f"{name}={text!r} must be a formula without a response, e.g. {name}='~ x + (1 | g)'.")
    main = {column for term in spec.random if not term.part for column in term.group}
    response = spec.response
    label = quote(response.label) if response.token.kind is Token.Kind.NAME else response.label
    own = _parse(f"{label} {text.lstrip()}", columns, main | _offset_names(spec.offsets))
    special: list[NeuralSpec | OffsetSpec] = [*own.neural, *own.offsets]
    for one in special:
        raise error_at(one.token, f"`{one.label}` is not allowed in {name}=; only in the main formula.")
    random = tuple(replace(term, part=name) for term in own.random)
    check_group_names([*spec.random, *random])
    parts = (*spec.parts, PartSpec(name, text, own.fixed))
    return replace(spec, random=spec.random + random, parts=parts, columns=spec.columns or own.columns)


@dataclass
class _Algebra:
    """Evaluates tokens to terms and keeps the special terms made on the way, so that none is lost unseen."""

    text: str
    columns: Sequence[str] | None
    used: set[str]
    made: list[SpecialTerm] = field(default_factory=list)
    dotted: bool = False

    def terms(self, tokens: Sequence[Token]) -> list[Term]:
        """Terms that `tokens` stand for, literals checked."""
        parser = DefaultFormulaParser(operator_resolver=_Resolver(self.made), feature_flags=set())
        self.dotted = self.dotted or any(_is_dot(token) for token in tokens)
        merged = list(merge_operator_tokens(tokens, symbols={"+", "-"}))
        context = {
            "__formulaic_variables_available__": [] if self.columns is None else list(self.columns),
            "__formulaic_variables_used_lhs__": self.used,
        }
        try:
            tree = parser.get_ast_from_tokens(merged, context=context)
            return plain_products(tree.to_terms(context=context))
        except FormulaicError as error:
            raise translate(error, self.text) from None

    def special(self, tokens: Iterable[Token]) -> list[Token]:
        """`tokens` with nn() and offset() calls replaced by finished terms."""
        out: list[Token] = []
        for token in tokens:
            if head(token) == "nn":
                out.append(self._leaf(token, self._neural(token)))
            elif head(token) == "offset":
                out.append(self._leaf(token, _offset(token)))
            else:
                out.append(token)
        return out

    def parts(self, terms: Sequence[Term]) -> dict[str, Any]:
        """Fields of FormulaSpec; refuses special terms that were removed or repeated."""
        check_random_terms([term for term in self.made if isinstance(term.spec, RandomSpec)])
        kept = [term for term in terms if isinstance(term, SpecialTerm)]
        names: set[str] = set()
        for term in self.made:
            if term not in kept:
                raise error_at(term.token, f"{term.what} `{term}` is removed by `-`; drop it from the formula instead.")
            name = term.spec.name if isinstance(term.spec, NeuralSpec) else str(term)
            if name in names:
                hint = "; give the blocks different name='...'" if isinstance(term.spec, NeuralSpec) else ""
                raise error_at(term.token, f"{term.what} `{name}` appears twice{hint}.")
            names.add(name)
        fixed = SimpleFormula([term for term in terms if not isinstance(term, SpecialTerm)])
        specs = [term.spec for term in kept]
        return {
            "fixed": tuple(fixed),
            "neural": tuple(spec for spec in specs if isinstance(spec, NeuralSpec)),
            "random": tuple(spec for spec in specs if isinstance(spec, RandomSpec)),
            "offsets": tuple(spec for spec in specs if isinstance(spec, OffsetSpec)),
        }

    def _leaf(self, token: Token, spec: NeuralSpec | OffsetSpec) -> SpecialToken:
        what = "Neural-network term" if isinstance(spec, NeuralSpec) else "Offset"
        # two blocks written alike are two terms to the algebra, so that the repetition is seen
        term = SpecialTerm(f"{spec.label} {token.source_start}", what, spec, token)
        self.made.append(term)
        return SpecialToken(term)

    def _neural(self, token: Token) -> NeuralSpec:
        inputs, options = read_block(token)
        _check_tokens(inputs, self.columns)
        _refuse_blanks(inputs, self.columns)
        _refuse_bars(inputs)
        inner = self.terms(list(replace_tokens(inputs, "0", [_MINUS, _ONE], kind=Token.Kind.VALUE)))
        terms = tuple(term for term in inner if term != "1")
        if not terms:
            raise error_at(token, "`nn()` needs at least one input that is not a constant, e.g. `nn(x1 + x2)`.")
        label = block_label(token)
        return NeuralSpec(label, str(options.get("name", label)), terms, options, token)


class _Resolver(DefaultOperatorResolver):
    """formulaic's operators and the bars."""

    def __init__(self, made: list[SpecialTerm]) -> None:
        super().__init__()
        self._made = made

    def resolve(self, token: Token) -> Iterator[tuple[Token, Iterable[Operator]]]:
        """Operators that `token` may stand for; the bar's is made for each token, so that errors point at it."""
        if token.token in ("|", "||"):
            yield token, [bar_operator(token, self._made)]
        else:
            yield from super().resolve(token)


def _refuse_bars(tokens: Sequence[Token]) -> None:
    """Refuse bars among the inputs of an nn() block."""
    for token in tokens:
        if is_operator(token) and "|" in token.token:
            raise error_at(token, "A random-effect bar is not allowed inside `nn()`.")


def _is_dot(token: Token) -> bool:
    return is_operator(token) and token.token == "."


def _check_tokens(tokens: Sequence[Token], columns: Sequence[str] | None) -> None:
    """Refuse literals other than 0, 1 and powers, unknown ``%operators%``, and ``.`` without usable columns."""
    for i, token in enumerate(tokens):
        if _is_dot(token):
            if columns is None:
                raise error_at(token, "`.` needs the data's columns: parse(text, columns=data.columns).")
            wrong = [name for name in columns if not isinstance(name, str) or name == "1"]
            if wrong:
                raise error_at(token, f"`.` includes the column {wrong[0]!r}, no name for a formula; rename it.")
        if token.kind is Token.Kind.NAME and token.token == "1":
            raise error_at(token, "A column named `1` would be taken for the intercept; rename it.")
        if is_operator(token) and written(token).startswith("%") and token.token != "in":
            raise error_at(token, f"There is no operator `%{token.token}%`; only `%in%`.")
        if is_operator(token) and token.token[0] in "<>=!":
            raise error_at(token, f"A comparison is no term by itself; it stands in braces: `{{x {token.token} 0}}`.")
        if token.kind is not Token.Kind.VALUE:
            continue
        if token.token[0] in "\"'":
            raise error_at(
                token, f"{token.token} is text, not a term; a column is written without quotes, or in backticks."
            )
        before = tokens[i - 1].token if i and is_operator(tokens[i - 1]) else ""
        if before in ("**", "^") and token.token != "0":
            continue
        if before.startswith(("**", "^")):
            raise error_at(token, f"The power after `{before.rstrip('+- ')}` must be a positive whole number.")
        if token.token not in ("0", "1"):
            raise error_at(
                token, f"`{token.token}` is not a term: only 0 and 1 are; scale in braces, e.g. `{{2 * x}}`."
            )
        neighbours = (*tokens[max(i - 1, 0) : i], *tokens[i + 1 : i + 2])
        for one in neighbours:
            if is_operator(one) and one.token[0] not in "+-|":
                raise error_at(
                    token,
                    f"`{token.token}` is not a term that `{one.token}` combines: 0 and 1 say whether there is an "
                    "intercept, after `+` or `-`.",
                )


def _refuse_blanks(tokens: Sequence[Token], columns: Sequence[str] | None) -> None:
    """Refuse a parenthesis that follows the name of a call after a blank, or another parenthesis."""
    for i, token in enumerate(tokens):
        if not _opens(tokens, i + 1):
            continue
        if is_context(token, ")"):
            raise error_at(tokens[i + 1], "Is a `+` missing between the parentheses?")
        if names_a_call(token) and token.token not in (columns or ()):
            raise error_at(token, without_blank(token))


def _refuse_inner_zeros(tokens: Sequence[Token], openings: set[int]) -> None:
    """Refuse ``0`` and ``- 1`` inside plain parentheses, where they would take no intercept away."""
    open_: list[int] = []
    for i, token in enumerate(tokens):
        if is_context(token, "(["):
            open_.append(i)
        elif is_context(token, ")]"):
            del open_[-1:]
        elif open_ and open_[-1] not in openings and _removes_intercept(tokens, i):
            inside = openings & set(open_)
            where = "directly after the opening parenthesis of the random term" if inside else "outside of them"
            what = "0" if token.kind is Token.Kind.VALUE else "- 1"
            raise error_at(token, f"`{what}` inside of parentheses removes no intercept; write it {where}.")


def _removes_intercept(tokens: Sequence[Token], i: int) -> bool:
    """Whether a ``0``, or a minus before ``1``, stands at `i`."""
    token = tokens[i]
    if token.kind is Token.Kind.VALUE:
        return token.token == "0"
    following = next((one for one in tokens[i + 1 :] if not is_context(one, "(")), None)
    return is_operator(token) and "-" in token.token and following is not None and following.token == "1"


def _refuse_response(spec: FormulaSpec) -> None:
    """Refuse the response right of ``~``: as it is written there, or its column in any term."""
    column, expression = response_column(spec.response), spec.response.expressions[0]
    terms = [*spec.fixed, *(term for block in spec.neural for term in block.inputs)]
    terms += [term for one in spec.random for term in one.effects]
    found: list[tuple[Token | None, set[str], str]] = []
    for factor in (factor for term in terms for factor in term.factors):
        if factor.eval_method is Factor.EvalMethod.LOOKUP:
            found.append((factor.token, {factor.expr}, quote(factor.expr)))
        elif factor.eval_method is Factor.EvalMethod.PYTHON:
            found.append((factor.token, column_names(factor.expr), factor.expr))
    found += [(one.token, column_names(one.expression), one.expression) for one in spec.offsets]
    found += [(one.token, set(one.group), "") for one in spec.random]
    for token, names, text in found:
        if column in names or text == expression:
            name = spec.response.label if column is None else column
            raise error_at(token, f"The response `{name}` stands right of `~` too; drop it there.")


def _with_intercepts(tokens: Sequence[Token], openings: set[int]) -> list[Token]:
    """`tokens` with ``1 +`` at the start and after each opening parenthesis of a random term; ``0`` is ``- 1``."""
    out: list[Token] = [_ONE, *_joint(tokens, 0)]
    for i, token in enumerate(tokens):
        if token.kind in (Token.Kind.NAME, Token.Kind.PYTHON) and _opens(tokens, i + 1):
            raise error_at(token, f"Is a `+` missing between `{written(token)}` and the parenthesis?")
        out.append(token)
        if i in openings:
            out += [_ONE, *_joint(tokens, i + 1)]
    return list(replace_tokens(out, "0", [_MINUS, _ONE], kind=Token.Kind.VALUE))


def _joint(tokens: Sequence[Token], i: int) -> list[Token]:
    """The ``+`` after an inserted intercept, unless a sign or a zero (``- 1``) follows."""
    following = tokens[i] if i < len(tokens) else None
    if following is None or is_operator(following, "+-"):
        return []
    return [] if following.kind is Token.Kind.VALUE and following.token == "0" else [_PLUS]


def _opens(tokens: Sequence[Token], i: int) -> bool:
    return i < len(tokens) and is_context(tokens[i], "(")


def _offset(token: Token) -> OffsetSpec:
    call = parse_expression(token.token).body
    arguments = getattr(call, "args", [])
    if len(arguments) != 1 or getattr(call, "keywords", []) or not token.token.startswith("offset("):
        raise error_at(token, "`offset()` takes one expression, e.g. `offset(np.log(exposure))`.")
    return OffsetSpec(token.token, print_expression(arguments[0]), token)


def _offset_names(offsets: Iterable[OffsetSpec]) -> set[str]:
    return {name for offset in offsets for name in column_names(offset.expression)}
