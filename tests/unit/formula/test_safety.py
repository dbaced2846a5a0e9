"""A formula may come from a file: nothing in it runs code."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glmmnet.design import build_design
from glmmnet.errors import FormulaError
from glmmnet.formula import parse
from glmmnet.formula.expression import parse_expression
from glmmnet.formula.safety import resolve
from glmmnet.formula.vocabulary import FUNCTIONS, NUMPY

COLUMNS = ("x", "np", "C", "open", "my col", "Sepal.Length", "s")


def owners(text: str, context: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    return [(node.id, owner) for node, owner in resolve(parse_expression(text), COLUMNS, context)]


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("y ~ __import__('os')", "`__import__` is not allowed"),
        ("y ~ {__builtins__}", "`__builtins__` is not allowed"),
        ("y ~ x.__class__", "no attribute that begins with an underscore"),
        ("y ~ {x.__class__}", "`.__class__` is not allowed"),
        ("y ~ {x._mgr}", "`._mgr` is not allowed"),
        ("y ~ f(x).__globals__", "`.__globals__`: no attribute"),
        ("y ~ {(lambda: 1)()}", "a lambda"),
        ("y ~ {[a for a in x]}", "a comprehension"),
        ("y ~ {sum(a for a in x)}", "a comprehension"),
        ("y ~ {(a := x)}", "a walrus"),
        ("y ~ {f'{x}'}", "an f-string"),
        ("y ~ I(*x)", "a starred argument"),
        ("y ~ I(x^2)", "write `**`, e.g. `I(x ** 2)`"),
        ("y ~ {x^2}", "write `**`, e.g. `I(x ** 2)`"),
        ("y ~ I(**x)", "`**` is not allowed"),
        ("y ~ I(_state=x)", "`_state` is not allowed"),
        ("y ~ {x.clip(0, inplace=True)}", "`inplace` is not allowed"),
        ("__import__('os').system('true') ~ x", "`__import__` is not allowed"),
        ("y ~ offset(__import__('os'))", "`__import__` is not allowed"),
        ("y ~ nn(__import__('os'))", "`__import__` is not allowed"),
        ("y ~ (__import__('os') | g)", "`__import__` is not allowed"),
    ],
)
def test_refused_when_parsed(text: str, fragment: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse(text)
    assert fragment in str(caught.value)
    assert "^" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("eval('x')", "`eval` is not a known function"),
        ("getattr(x, 'a')", "`getattr` is not a known function"),
        ("open('f')", "is a column, not a function"),
        ("exec('x')", "builtins abs, min, max, round, int, float, str, len"),
        ("np.load('f')", "`np.load` is not allowed"),
        ("np.f2py.os.system('true')", "`np.f2py.os.system` is not allowed"),
        ("np.vectorize(x)", "`np.vectorize` is not allowed"),
        ("np.log.reduce(x)", "`np.log.reduce` is not allowed"),
        ("np.mean(x)", "depends on the rows at hand"),
        ("x.mean()", "depends on the rows at hand"),
        ("(x + 1).mean()", "depends on the rows at hand"),
        ("x.to_csv('f')", "`.to_csv` is not allowed"),
        ("x.to_frame().eval('1')", "`.eval` is not allowed"),
        ("(x + 1).to_pickle('f')", "`.to_pickle` is not allowed"),
        ("'{0}'.format(x)", "`.format` is not allowed"),
        ("x.apply(abs)", "`.apply` is not allowed"),
        ("np.exp(x, s)", "`np.exp()` takes 1 argument, not 2"),
        ("exp(x, s)", "`exp()` takes 1 argument, not 2"),
        ("np.power(x, 2, s)", "`np.power()` takes 2 arguments, not 3"),
        ("np.clip(x, 0, 1, s)", "`np.clip()` takes 3 arguments, not 4"),
        ("np.round(x, 1, s)", "`np.round()` takes 2 arguments, not 3"),
        ("np.exp(x, out=s)", "Argument `out` of `np.exp()`"),
        ("np.log(x, where=x > 0)", "Argument `where` of `np.log()`"),
        ("np.clip(x, 0, 1, out=s)", "Argument `out` of `np.clip()`"),
        ("sin(x)", "write `np.sin(...)`"),
        ("sqr(x)", "Did you mean `sqrt`?"),
        ("foo(x)", "pass it with context={'foo': ...}"),
        ("x + xs", "did you mean `x`?"),
        ("x + k", "context={'k': ...}"),
        ("np.log(Sepal.Length)", "in backticks"),
    ],
)
def test_refused_when_names_are_known(text: str, fragment: str) -> None:
    with pytest.raises(FormulaError) as caught:
        owners(text)
    assert fragment in str(caught.value)


def test_a_call_head_is_a_function_and_another_name_a_column() -> None:
    assert owners("C(C)") == [("C", "function"), ("C", "column")]
    assert owners("np.log(np)") == [("np", "function"), ("np", "column")]
    assert owners("open + `my col`") == [("open", "column"), ("my col", "column")]
    assert owners("s.str.len()") == [("s", "column")]
    assert owners("f(x, k) + mine.g(x)", ("f", "k", "mine")) == [
        ("f", "context"),
        ("x", "column"),
        ("k", "context"),
        ("mine", "context"),
        ("x", "column"),
    ]


def test_every_listed_name_exists() -> None:
    assert all(hasattr(np, name) for name in NUMPY)
    data = pd.DataFrame({"y": [1.0, 2.0, 4.0, 3.0], "x": [1.0, 2.0, 3.0, 5.0]})
    for name in sorted(FUNCTIONS - {"C", "Treatment", "Sum", "Helmert", "Diff", "Poly", "bs", "cr", "cc", "poly"}):
        if name in ("int", "float", "str", "len"):
            text = f"y ~ {{x + {name}('1')}}" if name != "str" else "y ~ {x + len(str(1))}"
        else:
            text = f"y ~ {name}(x, 2)" if name in ("min", "max") else f"y ~ {name}(x)"
        design, _ = build_design(parse(text), data)
        assert design.X.shape == (4, 2)


def test_a_formula_cannot_reach_the_callers_names_or_write_files(tmp_path: Path) -> None:
    secret = np.arange(4.0)
    data = pd.DataFrame({"y": [1.0, 2.0, 4.0, 3.0], "x": [1.0, 2.0, 3.0, 5.0]})
    with pytest.raises(FormulaError, match="`secret` is not a column"):
        build_design(parse("y ~ {x + secret}"), data)
    target = tmp_path / "written"
    with pytest.raises(FormulaError, match="to_csv"):
        build_design(parse(f"y ~ {{x.to_csv('{target}')}}"), data)
    assert not target.exists()
    design, _ = build_design(parse("y ~ {x + secret}"), data, context={"secret": secret})
    np.testing.assert_array_equal(design.X[:, 1], data["x"] + secret)
