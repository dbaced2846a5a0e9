"""Malformed formulas: each has its own message, with a caret where the place is known."""

import pytest

from glmmnet.errors import FormulaError
from glmmnet.formula import parse, with_part

ONE_RESPONSE = "exactly one response is needed, left of one `~`"
PARENTHESES = r"put random effects in parentheses, e.g. `(1 | g)`"
ADDED = "can only be added with `+`"

# formula, part of the message, what the carets underline ("": no place is known)
CASES = [
    ("y + x", ONE_RESPONSE, ""),
    ("y ~ x ~ z", ONE_RESPONSE, "~"),
    (" ~ x", "nothing left of `~`", "~"),
    ("~ x", ONE_RESPONSE, "~"),
    ("y ~", "nothing right of `~`", "~"),
    ("y + x ~ z", ONE_RESPONSE, "y + x"),
    ("y * x ~ z", ONE_RESPONSE, "y * x"),
    ("1 ~ x", ONE_RESPONSE, "1"),
    ("(1|g) ~ x", "not allowed left of `~`", "|"),
    ("nn(x) ~ x", "not allowed left of `~`", "nn(x)"),
    ("p(k) ~ x", "needs two arguments: p(successes, trials)", "p(k)"),
    ("cbind(k, n=2) ~ x", "cbind(successes, failures)", "cbind(k, n=2)"),
    ("y ~ x + y", "stands right of `~` too", "y"),
    ("np.log(y) ~ np.log( y )", "stands right of `~` too", "np.log( y )"),
    ("y ~ 1|g", PARENTHESES, "|"),
    ("y ~ [1|g]", PARENTHESES, "|"),
    ("y ~ x |", PARENTHESES, "|"),
    ("y ~ (|g)", "no effects before the bar", "|"),
    ("y ~ (1|)", "no grouping factor after the bar", "|"),
    ("y ~ (0|g)", "no effects left before the bar", "|"),
    ("y ~ (x - x - 1|g)", "no effects left before the bar", "|"),
    ("y ~ (1|1)", "`1` is not a grouping factor", "1"),
    ("y ~ (1|'a')", "not a grouping factor: name a column; the order is (effects | group)", "'a'"),
    ("y ~ (1|C(g))", "`C(g)` is not a column", "C(g)"),
    ("y ~ (1|g - h)", "`-` is not allowed", "-"),
    ("y ~ (1|.)", "`.` is not allowed", "."),
    ("y ~ (1|id|g)", "Only one bar is allowed", "|"),
    ("y ~ (1|||g)", "no operator `|||`", "|||"),
    ("y ~ (1| |g)", "no operator `| |`", "| |"),
    ("y ~ ((1|g)|h)", "not allowed inside a random-effect term", "|"),
    ("y ~ (1|(1|g))", "not allowed inside a random-effect term", "|"),
    ("y ~ (nn(x)|g)", "`nn()` is not allowed inside a random-effect term", "nn(x)"),
    ("y ~ (1|nn(g))", "`nn()` is not allowed inside a random-effect term", "nn(g)"),
    ("y ~ (offset(x)|g)", "`offset()` is not allowed inside a random-effect term", "offset(x)"),
    ("y ~ x:(1|g)", ADDED, "|"),
    ("y ~ (1|g)*x", ADDED, "|"),
    ("y ~ (1|g)**2", ADDED, "|"),
    ("y ~ x/(1|g)", ADDED, "|"),
    ("y ~ nn(x)*z", ADDED, "nn(x)"),
    ("y ~ z %in% nn(x)", ADDED, "nn(x)"),
    ("y ~ offset(x):z", ADDED, "offset(x)"),
    ("y ~ x - (1|g)", "drop it from the formula", "-"),
    ("y ~ x - (z + (1|g))", "drop it from the formula", "|"),
    ("y ~ x - nn(x)", "drop it from the formula", "nn(x)"),
    ("y ~ nn(x) - nn(x)", "drop it from the formula", "nn(x)"),
    ("y ~ x - offset(z)", "drop it from the formula", "offset(z)"),
    ("y ~ (1|g) + (1|g/h)", "appears twice", "|"),
    ("y ~ (1|g:h) + (1|h:g)", "appears twice", "|"),
    ("y ~ (1|g) + (x|g)", "use `||` or `0 +`", "|"),
    ("y ~ (0 + x|g) + (x||g)", "`x` varies by `g` in two terms", "|"),
    ("y ~ nn()", "needs at least one input", "nn()"),
    ("y ~ nn(layers=3)", "needs at least one input", "nn(layers=3)"),
    ("y ~ nn(1)", "input that is not a constant", "nn(1)"),
    ("y ~ nn(x|g)", "bar is not allowed inside `nn()`", "|"),
    ("y ~ nn((1|g))", "bar is not allowed inside `nn()`", "|"),
    ("y ~ nn(nn(x))", "`nn()` is not allowed inside `nn()`", "nn(x)"),
    ("y ~ nn(offset(x))", "`offset()` is not allowed inside `nn()`", "offset(x)"),
    ("y ~ nn(x, foo=1)", "no option `foo`; options are layers", " foo=1"),
    ("y ~ nn(layers=(3,), x)", "must come before its options", " x"),
    ("y ~ nn(x, name=a, name=b)", "given twice", " name=b"),
    ("y ~ nn(x, layers=(3, 0))", "positive whole numbers", " layers=(3, 0)"),
    ("y ~ nn(x, layers=True)", "positive whole numbers", " layers=True"),
    ("y ~ nn(x, dropout=1)", "from 0 to below 1", " dropout=1"),
    ("y ~ nn(x, weight_decay=-1)", "at least 0", " weight_decay=-1"),
    ("y ~ nn(x, activation=3)", "a name such as 'relu'", " activation=3"),
    ("y ~ nn(x, name='')", "must be a name", " name=''"),
    ("y ~ nn(x, net=f(2))", "a literal or a name, not `f(2)`", " net=f(2)"),
    ("y ~ nn(x,)", "stray comma", "nn(x,)"),
    ("y ~ nn(x)[0]", "cannot be indexed, called or chained", "nn(x)[0]"),
    ("y ~ nn(x)(z)", "cannot be indexed, called or chained", "nn(x)(z)"),
    ("y ~ nn(x) + nn(x)", "`nn(x)` appears twice; give the blocks different name='...'", "nn(x)"),
    ("y ~ nn(x, name=a) + nn(z, name=a)", "`a` appears twice", "nn(z, name=a)"),
    ("y ~ nn (x)", "without a blank", "nn"),
    ("y ~ offset(x) + offset(x)", "appears twice", "offset(x)"),
    ("y ~ offset(x, z)", "takes one expression", "offset(x, z)"),
    ("y ~ offset(x)[0]", "takes one expression", "offset(x)[0]"),
    ("y ~ x(1|g)", "Is a `+` missing", "x(1|g)"),
    ("y ~ x (1|g)", "Is a `+` missing", "x"),
    ("y ~ s(x)", "not available; use bs(x, df=...)", "s(x)"),
    ("y ~ te(x, z)", "use nn(x1 + x2)", "te(x, z)"),
    ("y ~ factor(x)", "use C(x)", "factor(x)"),
    ("y ~ nn(s(x))", "`s()` is not available", "s(x)"),
    ("y ~ us(1 || g)", "`||` names a covariance, and so does `us`", "||"),
    ("y ~ us(1)", "names the covariance of a random-effect term", "us(1)"),
    ("y ~ us((1|g))", "names the covariance of a random-effect term", "us((1|g))"),
    ("y ~ us(1|g)[0]", "cannot be indexed", "us(1|g)[0]"),
    ("y ~ us(us(1|g)|h)", "not allowed inside a random-effect term", "|"),
    ("y ~ nn(us(1|g))", "not allowed inside `nn()`", "|"),
    ("y ~ x us(1|g)", "Is a `+` missing", "x"),
    ("y ~ us (1|g)", "without a blank", "us"),
    ("y ~ offset (x)", "Write `offset(...)` without a blank", "offset"),
    ("y ~ C (x)", "Write `C(...)` without a blank", "C"),
    ("y ~ np.log (x)", "Write `np.log(...)` without a blank", "np.log"),
    ("y ~ nn(scale (x))", "Write `scale(...)` without a blank", "scale"),
    ("p (k, n) ~ x", "Write `p(...)` without a blank", "p"),
    ("y ~ (1|g)(1|h)", "Is a `+` missing between the parentheses?", "("),
    ("y ~ offset({np.log(w)})", "braces, which are not needed", "offset({np.log(w)})"),
    ("y ~ x:us(1|g)", "can only be added with `+`", "|"),
    ("us(1|g) ~ x", "not allowed left of `~`", "|"),
    ("y ~ us(1|g) + (x|g)", "varies by `g` in two terms", "|"),
    ("y ~ gr(g, cov=A)", "stands right of a bar", "gr(g, cov=A)"),
    ("y ~ (gr(g, cov=A) | g)", "stands right of a bar", "gr(g, cov=A)"),
    ("y ~ (1|gr(g))", "`gr(g, cov=A)`", "gr(g)"),
    ("y ~ (1|gr(g, cov=A + B))", "`gr(g, cov=A)`", "gr(g, cov=A + B)"),
    ("y ~ (1|gr(g, cov=A):h)", "stands alone right of the bar", "gr(g, cov=A)"),
    ("y ~ (1|gr(g, cov=A)/h)", "stands alone right of the bar", "gr(g, cov=A)"),
    ("y ~ (1|g) + (1|gr(g, cov=A))", "a copy of the column under another name", "|"),
    ("y ~ cs(x)", "use cr(x, df=...)", "cs(x)"),
    ("y ~ .", "needs the data's columns", "."),
    ("y ~ `1`", "taken for the intercept", "`1"),
    ("y ~ x +", "insufficient arguments", "+"),
    ("y ~ x z", "Missing operator between `x` and `z`", "x z"),
    ("y ~ x & z", "Unknown operator", "&"),
    ("y ~ x %foo% z", "only `%in%`", "%foo"),
    ("y ~ (x + z", "This bracket is not closed", "("),
    ("y ~ x)", "closes nothing", ")"),
    ("y ~ C(c", "opened here and not closed", "C(c"),
    ("y ~ `x", "opened here and not closed", "`x"),
    ("y ~ x + 2", "scale in braces, e.g. `{2 * x}`", "2"),
    ("y ~ 2:x", "scale in braces, e.g. `{2 * x}`", "2"),
    ("y ~ 0:x", "`0` is not a term", "0"),
    ("y ~ 'x'", "a column is written without quotes", "'x'"),
    ("y ~ (x > 0)", "A comparison is no term by itself; it stands in braces: `{x > 0}`", ">"),
    ("y ~ x:1", "`1` is not a term that `:` combines", "1"),
    ("y ~ x ** -1", "The power after `**` must be a positive whole number", "1"),
    ("y ~ x ^ - 1", "The power after `^` must be a positive whole number", "1"),
    ("y ~ (0 + x)", "`0` inside of parentheses removes no intercept; write it outside", "0"),
    ("y ~ (x - 1) + z", "`- 1` inside of parentheses removes no intercept; write it outside", "-"),
    ("y ~ (x - (1)):z", "`- 1` inside of parentheses", "-"),
    ("y ~ x**0", "The power after `**` must be a positive whole number", "0"),
    ("y ~ (-1 + x)", "`- 1` inside of parentheses", "-"),
    ("y ~ ((0 + x) | g)", "directly after the opening parenthesis of the random term", "0"),
    ("y ~ (z + (x - 1) | g)", "directly after the opening parenthesis of the random term", "-"),
    ("y ~ nn(x + y)", "The response `y` stands right of `~` too", "y"),
    ("y ~ y:z", "The response `y` stands right of `~` too", "y"),
    ("y ~ np.log(y)", "The response `y` stands right of `~` too", "np.log(y)"),
    ("y ~ offset(y + x)", "The response `y` stands right of `~` too", "offset(y + x)"),
    ("y ~ (1|y)", "The response `y` stands right of `~` too", "|"),
    ("y ~ (1|g/y)", "The response `y` stands right of `~` too", "|"),
    ("y ~ (1|gr(y, cov=A))", "The response `y` stands right of `~` too", "|"),
    ("y ~ (y|g)", "The response `y` stands right of `~` too", "y"),
    ("p(k, n) ~ nn(k)", "The response `k` stands right of `~` too", "k"),
    ("cbind(k, n - k) ~ {k / n}", "The response `k` stands right of `~` too", "{k / n"),
    ("y ~ np.log((1|g))", "`(effects | group)` is not allowed inside a call", "np.log((1|g))"),
    ("y ~ offset((0 + x|g))", "`(effects | group)` is not allowed inside a call", "offset((0 + x|g))"),
    ("y ~ {x - 1 | g}", "`(effects | group)` is not allowed inside a call", "{x - 1 | g"),
    ("y ~ (1|`a:b`) + (0 + x|a:b)", "Two grouping factors are called `a:b`", "|"),
    ("y ~ np.exp(class)", "A column named `class` stands in backticks", "np.exp(class)"),
    ("y ~ x**z", "must be a positive integer", "z"),
    ("y ~ {x + }", "not a valid Python expression", "{x + "),
]


def underlined(message: str) -> str:
    lines = message.split("\n")
    if "^" not in lines[-1]:
        return ""
    return lines[-2][lines[-1].index("^") : lines[-1].rindex("^") + 1]


@pytest.mark.parametrize(("text", "fragment", "place"), CASES, ids=[text for text, _, _ in CASES])
def test_malformed_formula(text: str, fragment: str, place: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse(text)
    message = str(caught.value)
    assert fragment.lower() in message.lower()
    assert underlined(message) == place
    assert "\x1b" not in message
    assert "⧛" not in message


@pytest.mark.parametrize("name", [3, "1"])
def test_dot_with_a_column_that_has_no_usable_name(name: object) -> None:
    with pytest.raises(FormulaError, match=rf"`.` includes the column {name!r}"):
        parse("y ~ .", ["y", "x", name])  # type: ignore[list-item]


def test_formula_that_is_not_text() -> None:
    with pytest.raises(FormulaError, match="not int"):
        parse(3)  # type: ignore[arg-type]


def test_caret_survives_line_breaks() -> None:
    with pytest.raises(FormulaError) as caught:
        parse("y ~ x\n  + s(x)")
    assert underlined(str(caught.value)) == "s(x)"


def test_messages_are_value_errors() -> None:
    with pytest.raises(ValueError, match="exactly one response"):
        parse("x")


@pytest.mark.parametrize(
    "start, repeated, end", [("y ~ {", "-", "x}"), ("y ~ nn({", "x+", "x})"), ("(x", "+1", ">3) ~ x")]
)
def test_expressions_nested_too_deeply_are_refused(start: str, repeated: str, end: str) -> None:
    with pytest.raises(FormulaError):
        parse(start + repeated * 5000 + end)


def test_a_part_may_not_call_another_group_by_the_name_of_one_in_the_main_formula() -> None:
    with pytest.raises(FormulaError, match="Two grouping factors are called `a:b`"):
        with_part(parse("y ~ (1 | `a:b`)"), "zi", "~ (1 | a:b)")
