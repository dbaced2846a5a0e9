"""Every line of the grammar: what a formula's text is read as."""

import pytest

from glmmnet.formula import FormulaSpec, parse, with_part


def fixed(text: str, columns: list[str] | None = None) -> list[str]:
    return [str(term) for term in parse(text, columns).fixed]


def random(text: str) -> list[str]:
    return [term.label for term in parse(text).random]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("y ~ 1", ["1"]),
        ("y ~ x", ["1", "x"]),
        ("y~x", ["1", "x"]),
        ("y ~ -1 + x", ["x"]),
        ("y~-1+x", ["x"]),
        ("y ~ 0 + x", ["x"]),
        ("y ~ x - 1", ["x"]),
        ("y ~ 0", []),
        ("y ~ x + (1 | g) - 1", ["x"]),
        ("y ~ +x", ["1", "x"]),
        ("y ~ x\n  + z", ["1", "x", "z"]),
        ("y ~ a:b", ["1", "a:b"]),
        ("y ~ a*b", ["1", "a", "b", "a:b"]),
        ("y ~ a*b - a:b", ["1", "a", "b"]),
        ("y ~ a/b", ["1", "a", "a:b"]),
        ("y ~ b %in% a", ["1", "a", "a:b"]),
        ("y ~ (a + b)**2", ["1", "a", "b", "a:b"]),
        ("y ~ (a + b)^2", ["1", "a", "b", "a:b"]),
        ("y ~ (1 + x)*z", ["1", "x", "z", "x:z"]),
        ("y ~ x + x", ["1", "x"]),
        ("y ~ x:z + w", ["1", "w", "x:z"]),
        ("y ~ bs(x, df=4) + cr(x, df = 4) + poly(x,2)", ["1", "bs(x, df=4)", "cr(x, df=4)", "poly(x, 2)"]),
        ("y ~ C(c) + scale(x) + center(x)", ["1", "C(c)", "scale(x)", "center(x)"]),
        ("y ~ {x**2} + I(x + z)", ["1", "x ** 2", "I(x + z)"]),
        ("y ~ np.log( x )", ["1", "np.log(x)"]),
        ("y ~ `my col`", ["1", "my col"]),
        ("y ~ np.log(`my col`)", ["1", "np.log(`my col`)"]),
        ("y ~ Sepal.Length", ["1", "Sepal.Length"]),
        ("y ~ class + np.exp(`class`) + np.exp(`None`)", ["1", "class", "np.exp(`class`)", "np.exp(`None`)"]),
        ("y ~ {`a b` + _quoted_0_}", ["1", "`a b` + _quoted_0_"]),
        ("y ~ {(x > 1) | (z < 0)}", ["1", "(x > 1) | (z < 0)"]),
        ("y ~ x - (1)", ["x"]),
        ("scale ~ scale(x)", ["1", "scale(x)"]),
        ("np.log(y) ~ y", ["1", "y"]),
    ],
)
def test_fixed_terms(text: str, terms: list[str]) -> None:
    assert fixed(text) == terms


def test_dot_is_every_column_but_response_grouping_and_offset() -> None:
    columns = ["y", "x", "z", "g", "h", "exposure", "n"]
    assert fixed("y ~ . + (1 | g/h) + offset(np.log(exposure))", columns) == ["1", "x", "z", "n"]
    assert fixed("p(y, n) ~ . - z", columns) == ["1", "x", "g", "h", "exposure"]
    (block,) = parse("y ~ nn(.) + (1 | g)", columns).neural
    assert [str(term) for term in block.inputs] == ["x", "z", "h", "exposure", "n"]


@pytest.mark.parametrize("response", ["y", "`my y`"])
def test_dot_of_a_part_leaves_out_what_the_main_formula_does(response: str) -> None:
    columns = [response.strip("`"), "x", "z", "g", "h", "exposure"]
    spec = parse(f"{response} ~ x + (1 | g) + offset(np.log(exposure))", columns)
    own = with_part(spec, "zi", "~ . + (1 | h)", columns)
    assert [str(term) for term in own.parts[0].fixed] == ["1", "x", "z"]


@pytest.mark.parametrize(
    ("text", "label", "form", "expressions"),
    [
        ("y ~ x", "y", "value", ("y",)),
        ("`my y` ~ x", "my y", "value", ("`my y`",)),
        ("np.log1p( amount ) ~ x", "np.log1p( amount )", "value", ("np.log1p(amount)",)),
        ("(x > 3) ~ z", "(x > 3)", "value", ("x > 3",)),
        ("x>-3 ~ z", "x>-3", "value", ("x > -3",)),
        ("(s == 'a') ~ z", "(s == 'a')", "value", ("s == 'a'",)),
        ("{a - b} ~ z", "{a - b}", "value", ("a - b",)),
        ("class ~ x", "class", "value", ("`class`",)),
        ("p(`class`, n) ~ x", "p(`class`, n)", "trials", ("`class`", "n")),
        ("p(k, n) ~ x", "p(k, n)", "trials", ("k", "n")),
        ("p(k, n) ~ offset(np.log(n))", "p(k, n)", "trials", ("k", "n")),
        ("p(k, 10) ~ x", "p(k, 10)", "trials", ("k", "10")),
        ("cbind(k, n - k) ~ x", "cbind(k, n - k)", "failures", ("k", "n - k")),
    ],
)
def test_response(text: str, label: str, form: str, expressions: tuple[str, ...]) -> None:
    response = parse(text).response
    assert (response.label, response.form, response.expressions) == (label, form, expressions)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("y ~ (1|g)", ["(1 | g)"]),
        ("y ~ (x|g)", ["(1 + x | g)"]),
        ("y ~ (x + 1|g)", ["(1 + x | g)"]),
        ("y ~ (0 + x|g)", ["(0 + x | g)"]),
        ("y ~ (-1 + x|g)", ["(0 + x | g)"]),
        ("y ~ (x - 1|g)", ["(0 + x | g)"]),
        ("y ~ (x + 0|g)", ["(0 + x | g)"]),
        ("y ~ (x||g)", ["(1 + x || g)"]),
        ("y ~ (x*z|g)", ["(1 + x + z + x:z | g)"]),
        ("y ~ (poly(x, 2)|g)", ["(1 + poly(x, 2) | g)"]),
        ("y ~ (1|a:b)", ["(1 | a:b)"]),
        ("y ~ (1|a/b)", ["(1 | a)", "(1 | a:b)"]),
        ("y ~ (1|a/b/c)", ["(1 | a)", "(1 | a:b)", "(1 | a:b:c)"]),
        ("y ~ (x|g+h)", ["(1 + x | g)", "(1 + x | h)"]),
        ("y ~ (1|g*h)", ["(1 | g)", "(1 | h)", "(1 | g:h)"]),
        ("y ~ (1|g) + (0 + x|g)", ["(1 | g)", "(0 + x | g)"]),
        ("y ~ ((1|g))", ["(1 | g)"]),
        ("y ~ z + (1 | `my group`)", ["(1 | my group)"]),
    ],
)
def test_random_terms(text: str, labels: list[str]) -> None:
    assert random(text) == labels


def test_bar_names_the_covariance_structure_and_the_group() -> None:
    one, two = parse("y ~ (x | a:b) + (z || c)").random
    assert (one.structure, one.group) == ("us", ("a", "b"))
    assert (two.structure, two.group) == ("diag", ("c",))


def test_a_random_term_does_not_change_the_fixed_terms() -> None:
    assert fixed("y ~ x + (0 + z | g) + nn(w) + offset(e)") == ["1", "x"]


def test_neural_block() -> None:
    text = "y ~ nn(x1 + C(c), x2, layers=(64, 32), activation=relu, dropout=.1, weight_decay=1e-4, name='price')"
    (block,) = parse(text).neural
    assert [str(term) for term in block.inputs] == ["x1", "C(c)", "x2"]
    assert block.name == "price"
    assert block.label == text[4:]
    assert block.options == {
        "layers": (64, 32),
        "activation": "relu",
        "dropout": 0.1,
        "weight_decay": 1e-4,
        "name": "price",
    }


def test_neural_block_without_options_is_named_by_its_text() -> None:
    one, two = parse("y ~ nn( x1\n + x2 ) + nn(z, net=encoder, embed=3, layers=8)").neural
    assert one.name == one.label == "nn( x1 + x2 )"
    assert two.options == {"net": "encoder", "embed": 3, "layers": (8,)}


def test_neural_inputs_keep_the_written_order_and_have_no_intercept() -> None:
    (block,) = parse("y ~ nn(0 + z:x + a - 1)").neural
    assert [str(term) for term in block.inputs] == ["z:x", "a"]


def test_offsets() -> None:
    one, two = parse("y ~ offset( np.log(e) ) + x + offset(w)").offsets
    assert (one.label, one.expression) == ("offset(np.log(e))", "np.log(e)")
    assert two.expression == "w"


def test_brackets_commas_and_tildes_inside_quotes_are_text() -> None:
    spec = parse("y ~ C(c, contr.treatment(base='a(b')) + nn(`x,(1` + C(d, levels=['~', '|)']), name='n(,=') + `p|q`")
    assert [str(term) for term in spec.fixed] == ["1", "C(c, contr.treatment(base='a(b'))", "p|q"]
    (block,) = spec.neural
    assert [str(term) for term in block.inputs] == ["x,(1", "C(d, levels=['~', '|)'])"]
    assert block.name == "n(,="


def test_quoted_names_of_which_one_begins_the_other_stay_apart() -> None:
    assert fixed("y ~ np.log(`a b c` + `a b`)") == ["1", "np.log(`a b c` + `a b`)"]


def test_spec_keeps_the_text() -> None:
    text = "y ~ x + nn(z) + (1 + x || g) + offset(e)"
    spec = parse(text)
    assert isinstance(spec, FormulaSpec)
    assert spec.text == text


@pytest.mark.parametrize(
    ("text", "labels", "structures"),
    [
        ("y ~ us(1 + x | g)", ["us(1 + x | g)"], ["us"]),
        ("y~x+diag(x|g)", ["diag(1 + x | g)"], ["diag"]),
        ("y ~ cs(0 + f | a/b)", ["cs(0 + f | a)", "cs(0 + f | a:b)"], ["cs", "cs"]),
        ("y ~ ar1( 0+time|g ) + (1|h)", ["ar1(0 + time | g)", "(1 | h)"], ["ar1", "us"]),
        ("y ~ toep(0 + t | a:b)", ["toep(0 + t | a:b)"], ["toep"]),
        ("y ~ us(x['('] | g)", ["us(1 + x['('] | g)"], ["us"]),
    ],
)
def test_words_name_the_covariance(text: str, labels: list[str], structures: list[str]) -> None:
    spec = parse(text)
    assert [term.label for term in spec.random] == labels
    assert [term.structure for term in spec.random] == structures


def test_known_correlation_of_levels() -> None:
    (term,) = parse("y ~ . + us(x|gr(animal, cov=A))", ["y", "x", "animal"]).random
    assert (term.label, term.group, term.known) == ("us(1 + x | gr(animal, cov=A))", ("animal",), "A")
    assert fixed("y ~ . + us(x|gr(animal, cov=A))", ["y", "x", "animal"]) == ["1", "x"]
