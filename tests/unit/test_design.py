"""Data frame -> Design, and the same columns from new data."""

import datetime
import json
import time

import numpy as np
import pandas as pd
import pytest

from glmmnet.design import Design, DesignState, build_design, state_from_dict, state_to_dict
from glmmnet.errors import DesignError, FormulaError
from glmmnet.formula import parse

N = 60


@pytest.fixture
def data() -> pd.DataFrame:
    rng = np.random.default_rng(20)
    return pd.DataFrame(
        {
            "y": rng.normal(size=N),
            "x": rng.normal(size=N),
            "z": rng.uniform(1, 2, N),
            "c": np.resize(["b", "a", "c"], N),
            "g": np.resize([10, 2, 7, 30], N),
            "h": np.resize(["u", "w", "v", "v", "u"], N),
            "k": np.resize([0, 1, 3], N),
            "n": np.resize([3, 4], N),
        },
        index=np.arange(N) + 100,
    )


def build(text: str, data: pd.DataFrame, **options: object) -> tuple[Design, DesignState]:
    return build_design(parse(text, [str(name) for name in data.columns]), data, **options)  # type: ignore[arg-type]


def assert_same(one: Design, other: Design) -> None:
    assert one.x_names == other.x_names
    np.testing.assert_allclose(one.X, other.X, rtol=1e-12)
    np.testing.assert_allclose(one.offset, other.offset)
    for a, b in zip(one.random, other.random, strict=True):
        assert (a.label, a.names, a.structure) == (b.label, b.names, b.structure)
        assert a.levels.equals(b.levels)
        np.testing.assert_array_equal(a.index, b.index)
        np.testing.assert_allclose(a.z, b.z)
    for c, d in zip(one.neural, other.neural, strict=True):
        assert (c.names, c.variables, c.categorical) == (d.names, d.variables, d.categorical)
        np.testing.assert_allclose(c.x, d.x)


# ------------------------------------------------------------------------------------------------ fixed part


def test_columns_and_the_variables_behind_them(data: pd.DataFrame) -> None:
    design, _ = build("y ~ x*c + np.log(z)", data)
    assert design.x_names == (
        "Intercept",
        "x",
        "c[T.b]",
        "c[T.c]",
        "np.log(z)",
        "x:c[T.b]",
        "x:c[T.c]",
    )
    assert design.x_variables == ((), ("x",), ("c",), ("c",), ("z",), ("x", "c"), ("x", "c"))
    assert design.X.dtype == np.float64
    is_b = (data["c"] == "b").to_numpy(float)
    np.testing.assert_array_equal(design.X[:, 0], 1)
    np.testing.assert_array_equal(design.X[:, 2], is_b)
    np.testing.assert_array_equal(design.X[:, 5], is_b * data["x"])
    np.testing.assert_allclose(design.X[:, 4], np.log(data["z"]))


def test_no_fixed_column(data: pd.DataFrame) -> None:
    design, state = build("y ~ 0 + (1 | g)", data)
    assert design.X.shape == (N, 0)
    assert state.rebuild(data[:7]).X.shape == (7, 0)


def test_without_intercept_a_factor_has_a_column_a_level(data: pd.DataFrame) -> None:
    design, _ = build("y ~ 0 + c", data)
    assert design.x_names == ("c[a]", "c[b]", "c[c]")
    np.testing.assert_array_equal(design.X.sum(axis=1), 1)


def test_poly_matches_r() -> None:
    # R: poly(c(1, 2, 3, 4, 7), 2); predict(poly(c(1, 2, 3, 4, 7), 2), 5)
    data = pd.DataFrame({"y": [1.0, 2, 1, 3, 2], "x": [1.0, 2, 3, 4, 7]})
    design, state = build("y ~ poly(x, 2)", data)
    first = np.array([-2.4, -1.4, -0.4, 0.6, 3.6]) / np.sqrt(21.2)
    np.testing.assert_allclose(design.X[:, 1], first, rtol=1e-12)
    np.testing.assert_allclose(design.X.T @ design.X, np.diag([5, 1, 1]), atol=1e-12)
    new = state.rebuild(pd.DataFrame({"x": [5.0]}))
    np.testing.assert_allclose(new.X[0, 1], 1.6 / np.sqrt(21.2), rtol=1e-12)


def test_bs_matches_the_bernstein_basis() -> None:
    # R: bs(x, df = 3, Boundary.knots = c(0, 4)) without inner knots is the Bernstein basis of x / 4 but the first
    data = pd.DataFrame({"y": [1.0, 2, 1, 3, 2], "x": [0.0, 1, 2, 3, 4]})
    design, state = build("y ~ bs(x, df=3)", data)
    t = data["x"].to_numpy() / 4
    basis = np.column_stack([3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    np.testing.assert_allclose(design.X[:, 1:], basis, atol=1e-12)
    np.testing.assert_allclose(state.rebuild(pd.DataFrame({"x": [1.0]})).X[0, 1:], basis[1], atol=1e-12)
    with pytest.raises(DesignError, match=r"`bs\(\)` is defined from 0 to 4.* e.g. 5.*'extend'.* 'clip'"):
        state.rebuild(pd.DataFrame({"x": [5.0]}))


@pytest.mark.parametrize("name", ["cr", "cc"])
def test_cubic_splines_leave_the_intercept_to_the_model(data: pd.DataFrame, name: str) -> None:
    design, state = build(f"y ~ {name}(x, df=4)", data)
    assert np.linalg.matrix_rank(design.X) == design.X.shape[1] == 5
    np.testing.assert_allclose(design.X[:, 1:].mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(state.rebuild(data[3:5]).X, design.X[3:5], atol=1e-12)
    for written in ("df=4, constraints=None", "4, None, None, None, None"):
        free, _ = build(f"y ~ 0 + {name}(x, {written})", data)
        np.testing.assert_allclose(free.X.sum(axis=1), 1.0)


def test_scale_uses_the_training_rows(data: pd.DataFrame) -> None:
    design, state = build("y ~ scale(x) + center(z)", data)
    np.testing.assert_allclose(design.X[:, 1], (data["x"] - data["x"].mean()) / data["x"].std())
    new = state.rebuild(data[:5])
    np.testing.assert_allclose(new.X, design.X[:5])


@pytest.mark.parametrize(
    "contrasts",
    ["contr.sum", "contr.helmert", "contr.treatment('b')", "Treatment('c')", "Sum", "Helmert", "Poly", "Diff"],
)
def test_contrasts(data: pd.DataFrame, contrasts: str) -> None:
    design, state = build(f"y ~ C(c, {contrasts})", data)
    assert design.X.shape == (N, 3)
    assert np.linalg.matrix_rank(design.X) == 3
    assert_same(state.rebuild(data[4:5]), _part(design, slice(4, 5)))


def test_polynomials_of_an_ordered_factor_match_r(data: pd.DataFrame) -> None:
    """R: contr.poly(5)."""
    data["f"] = pd.Categorical(np.resize(list("cabde"), N), categories=list("badec"), ordered=True)
    design, state = build("y ~ f + (f | g)", data)
    names = ("f[.L]", "f[.Q]", "f[.C]", "f[^4]")
    assert design.x_names == ("Intercept", *names)
    assert design.random[0].names == ("(Intercept)", *names)
    expected = [
        [-0.6324555, 0.5345225, -0.3162278, 0.1195229],
        [-0.3162278, -0.2672612, 0.6324555, -0.4780914],
        [0.0, -0.5345225, 0.0, 0.7171372],
        [0.3162278, -0.2672612, -0.6324555, -0.4780914],
        [0.6324555, 0.5345225, 0.3162278, 0.1195229],
    ]
    at = [4, 1, 0, 2, 3]
    np.testing.assert_allclose(design.X[:5, 1:], np.array(expected)[at], atol=1e-7)
    np.testing.assert_allclose(design.random[0].z[:5, 1:], np.array(expected)[at], atol=1e-7)
    new = state.rebuild(data[:3].assign(f=["c", "a", "b"]))
    np.testing.assert_allclose(new.X, design.X[:3])
    np.testing.assert_allclose(new.random[0].z, design.random[0].z[:3])


def test_ordered_factor_without_intercept_has_a_column_a_level(data: pd.DataFrame) -> None:
    data["f"] = pd.Categorical(data["c"], categories=list("cba"), ordered=True)
    design, _ = build("y ~ 0 + f + nn(f) + (0 + f | g)", data)
    assert design.x_names == design.random[0].names == design.neural[0].names == ("f[c]", "f[b]", "f[a]")


CODINGS = {
    "treatment": [[0, 0], [1, 0], [0, 1]],
    "sum": [[1, 0], [0, 1], [-1, -1]],
    "helmert": [[-1, -1], [1, -1], [0, 2]],
    "poly": [[-(0.5**0.5), 6**-0.5], [0, -2 * 6**-0.5], [0.5**0.5, 6**-0.5]],
}


@pytest.mark.parametrize("name", CODINGS)
def test_named_contrasts_match_r(data: pd.DataFrame, name: str) -> None:
    """R: contr.treatment(3), contr.sum(3), contr.helmert(3), contr.poly(3)."""
    design, state = build("y ~ x + c + (c | g)", data, contrasts={"c": name})
    rows = [1, 0, 2]
    np.testing.assert_allclose(design.X[rows, 2:4], CODINGS[name], atol=1e-12)
    assert design.random[0].names == ("(Intercept)", "c[T.b]", "c[T.c]")
    again = state_from_dict(json.loads(json.dumps(state_to_dict(state), allow_nan=False)))
    np.testing.assert_allclose(again.rebuild(data[:5]).X, design.X[:5])


@pytest.mark.parametrize("matrix", ["array", "frame"])
def test_contrasts_by_a_matrix(data: pd.DataFrame, matrix: str) -> None:
    values = np.array([[1.0, 0.5], [0.0, -1.0], [-1.0, 0.5]])
    frame = pd.DataFrame(values[[2, 0, 1]], index=["c", "a", "b"], columns=["ends", "middle"])
    design, state = build("y ~ c * z", data, contrasts={"c": values if matrix == "array" else frame})
    names = ("c[1]", "c[2]") if matrix == "array" else ("c[ends]", "c[middle]")
    assert design.x_names == ("Intercept", *names, "z", f"{names[0]}:z", f"{names[1]}:z")
    np.testing.assert_allclose(design.X[[1, 0, 2], 1:3], values)
    again = state_from_dict(json.loads(json.dumps(state_to_dict(state), allow_nan=False)))
    np.testing.assert_allclose(again.rebuild(data[:5]).X, design.X[:5])
    design, _ = build("y ~ 0 + c", data, contrasts={"c": values})
    assert design.x_names == ("c[a]", "c[b]", "c[c]")


@pytest.mark.parametrize(
    ("contrasts", "fragment"),
    [
        ({"z": "sum"}, "`z`, which is not a factor of the fixed part"),
        ({"x": "sum"}, "`x`, which is numeric"),
        ({"c": "effects"}, "'effects'} is not known; write 'treatment', 'sum', 'poly', 'helmert'"),
        ({"c": np.eye(3)}, r"shape \(3, 3\); `c` has 3 levels, so write one of \(3, 2\)"),
        ({"c": [[1, 1], [0, 0], [-1, -1]]}, "linearly dependent"),
        ({"c": [[1, 0], [0, np.nan], [-1, -1]]}, "not finite"),
        ({"c": pd.DataFrame(np.eye(3)[:, :2], index=list("abd"))}, "the index must be the levels of `c`"),
        ({"c": 3.0}, "shape"),
        ({"c": [["u"]]}, "neither a matrix of numbers"),
    ],
)
def test_contrasts_refused(data: pd.DataFrame, contrasts: dict[str, object], fragment: str) -> None:
    with pytest.raises(DesignError, match=fragment):
        build("y ~ x + c + C(k)", data, contrasts=contrasts)


def _part(design: Design, rows: slice) -> Design:
    return Design(
        design.response, design.X[rows], design.x_names, design.x_variables, (), (), design.offset[rows], None,
        design.rows[rows], design.index[rows], design.n_total,
    )  # fmt: skip


def test_context(data: pd.DataFrame) -> None:
    design, state = build(
        "y ~ double(x) + {z * factor}", data, context={"double": lambda v: 2 * v, "factor": 3, "u": 1}
    )
    np.testing.assert_allclose(design.X[:, 1:], np.column_stack([2 * data["x"], 3 * data["z"]]))
    assert set(state.context) == {"double", "factor"}
    np.testing.assert_allclose(state.rebuild(data[:3]).X, design.X[:3])


def test_min_and_max_are_elementwise(data: pd.DataFrame) -> None:
    design, _ = build("y ~ max(x, 0) + min(x, z, 0.5)", data)
    np.testing.assert_array_equal(design.X[:, 1], np.maximum(data["x"], 0))
    np.testing.assert_array_equal(design.X[:, 2], np.minimum(np.minimum(data["x"], data["z"]), 0.5))
    with pytest.raises(DesignError, match="depends on the rows at hand"):
        build("y ~ max(x)", data)


# -------------------------------------------------------------------------------------------------- response


@pytest.mark.parametrize("left", ["y", "np.log1p(k)", "{x + z}"])
def test_numeric_response(data: pd.DataFrame, left: str) -> None:
    response = build(f"{left} ~ 1", data)[0].response
    assert response is not None
    expected = {"y": data["y"], "np.log1p(k)": np.log1p(data["k"]), "{x + z}": data["x"] + data["z"]}[left]
    assert (response.kind, response.label, response.levels) == ("numeric", left, ())
    np.testing.assert_allclose(response.values, expected)


@pytest.mark.parametrize("left", ["(x > 0)", "b", "nullable"])
def test_boolean_response(data: pd.DataFrame, left: str) -> None:
    data["b"] = data["x"] > 0
    data["nullable"] = data["b"].astype("boolean")
    response = build(f"{left} ~ z", data)[0].response
    assert response is not None
    assert response.kind == "boolean"
    assert response.values.dtype == bool
    np.testing.assert_array_equal(response.values, data["x"] > 0)


@pytest.mark.parametrize("dtype", ["object", "string", "category", "str"])
def test_categorical_response(data: pd.DataFrame, dtype: str) -> None:
    data["c"] = data["c"].astype(dtype)
    response = build("c ~ x", data)[0].response
    assert response is not None
    assert (response.kind, response.levels) == ("categorical", ("a", "b", "c"))
    assert response.values.dtype == np.int64
    assert [response.levels[code] for code in response.values] == list(data["c"])


def test_categorical_response_keeps_category_order_and_only_used_levels(data: pd.DataFrame) -> None:
    data["c"] = pd.Categorical(data["c"], ["c", "unused", "a", "b"], ordered=True)
    design, state = build("c ~ x", data)
    assert design.response is not None
    assert design.response.levels == ("c", "a", "b")
    again = state.rebuild(data.assign(c=data["c"].astype(object)), response=True).response
    assert again is not None
    np.testing.assert_array_equal(again.values, design.response.values)


def test_numbers_marked_as_categories(data: pd.DataFrame) -> None:
    response = build("C(k) ~ x", data)[0].response
    assert response is not None
    assert (response.kind, response.levels) == ("categorical", (0, 1, 3))


@pytest.mark.parametrize("left", ["p(k, n)", "cbind(k, n - k)"])
def test_counts(data: pd.DataFrame, left: str) -> None:
    design, state = build(f"{left} ~ x", data)
    assert design.response is not None
    assert design.response.kind == "counts"
    np.testing.assert_array_equal(design.response.values, data[["k", "n"]])
    again = state.rebuild(data[:4], response=True).response
    assert again is not None
    np.testing.assert_array_equal(again.values, data[["k", "n"]][:4])


def test_counts_of_a_constant_number_of_trials(data: pd.DataFrame) -> None:
    response = build("p(k, 5) ~ x", data)[0].response
    assert response is not None
    np.testing.assert_array_equal(response.values[:, 1], 5)


@pytest.mark.parametrize(
    ("left", "fragment"),
    [
        ("p(n, k)", "more successes than trials in 50 rows, e.g. 3 of 0"),
        ("p(x, n)", "`x` in `p(x, n)` must be whole numbers of at least 0"),
        ("cbind(k, k - n)", "`k - n` in `cbind(k, k - n)` must be whole numbers of at least 0"),
        ("p(c, n)", "must be whole numbers, not categorical"),
        ("when", "is datetime; it must be numeric, boolean or categorical"),
        ("np.log(k)", "Response `np.log(k)` is not finite in 20 rows"),
        ("poly(x, 2)", "has several columns"),
    ],
)
def test_response_that_no_family_takes(data: pd.DataFrame, left: str, fragment: str) -> None:
    data["when"] = pd.date_range("2020-01-01", periods=N).to_numpy()
    with pytest.raises(DesignError) as caught:
        build(f"{left} ~ z", data)
    assert fragment in str(caught.value)


def test_rebuilt_response_must_be_of_the_same_kind_and_levels(data: pd.DataFrame) -> None:
    _, state = build("c ~ x", data)
    with pytest.raises(DesignError, match="`c` was categorical in training and is numeric now"):
        state.rebuild(data.assign(c=1.0), response=True)
    with pytest.raises(DesignError, match="level 'd', unseen in training; known: 'a', 'b', 'c'"):
        state.rebuild(data.assign(c="d"), response=True)
    assert state.rebuild(data.drop(columns="c")).response is None


# ---------------------------------------------------------------------------------------------- random terms


def test_random_intercept(data: pd.DataFrame) -> None:
    (term,) = build("y ~ x + (1 | g)", data)[0].random
    assert (term.label, term.group, term.names, term.structure) == ("(1 | g)", "g", ("(Intercept)",), "us")
    assert list(term.levels) == [2, 7, 10, 30]
    assert pd.api.types.is_integer_dtype(term.levels.dtype)
    assert term.index.dtype == np.int64
    np.testing.assert_array_equal(term.levels[term.index], data["g"])
    np.testing.assert_array_equal(term.z, np.ones((N, 1)))


def test_random_slopes(data: pd.DataFrame) -> None:
    first, second, third = build("y ~ (x + c | g) + (x || h) + (0 + c | h:g)", data)[0].random
    assert first.names == ("(Intercept)", "x", "c[T.b]", "c[T.c]")
    assert second.structure == "diag"
    assert third.names == ("c[a]", "c[b]", "c[c]")
    np.testing.assert_array_equal(first.z[:, 1], data["x"])
    np.testing.assert_array_equal(third.z.sum(axis=1), 1)


def test_nested_and_crossed_groups(data: pd.DataFrame) -> None:
    outer, inner = build("y ~ (1 | g/h)", data)[0].random
    assert (outer.group, inner.group) == ("g", "g:h")
    expected = data["g"].astype(str) + ":" + data["h"]
    assert set(inner.levels) == set(expected)
    np.testing.assert_array_equal(inner.levels[inner.index], expected)
    assert list(inner.levels[:3]) == ["2:u", "2:v", "2:w"]
    crossed = build("y ~ (1 | g*h)", data)[0].random
    assert [term.group for term in crossed] == ["g", "h", "g:h"]


def test_three_way_group(data: pd.DataFrame) -> None:
    data["k"] = data["k"] % 2
    design, state = build("y ~ (1 | g:h:k)", data)
    (term,) = design.random
    expected = data["g"].astype(str) + ":" + data["h"] + ":" + data["k"].astype(str)
    np.testing.assert_array_equal(term.levels[term.index], expected)
    assert_same(state.rebuild(data), design)
    new = state.rebuild(data.assign(k=5))
    assert set(new.random[0].index) == {-1}


GROUP_VALUES = {
    "int": np.resize([3, -1, 20], N),
    "float of whole numbers": np.resize([3.0, -1.0, 20.0], N),
    "nullable int": pd.array(np.resize([3, -1, 20], N), dtype="Int64"),
    "object text": pd.array(np.resize(["b", "a", "c"], N), dtype=object),
    "string": pd.array(np.resize(["b", "a", "c"], N), dtype="string"),
    "category of text": pd.Categorical(np.resize(["b", "a", "c"], N), ["unused", "c", "b", "a"]),
    "category of ints": pd.Categorical(np.resize([3, -1, 20], N)),
    "bool": np.resize([True, False, False], N),
    "object bool": pd.array(np.resize([True, False, False], N), dtype=object),
    "datetime": pd.to_datetime(np.resize(["2020-01-02", "2019-05-05"], N)),
}


@pytest.mark.parametrize("name", GROUP_VALUES)
def test_grouping_dtypes(data: pd.DataFrame, name: str) -> None:
    data["g"] = GROUP_VALUES[name]
    design, state = build("y ~ (1 | g) + (1 | g:h)", data)
    term, inner = design.random
    assert list(term.levels) == sorted(set(data["g"]))
    assert list(term.levels[term.index]) == list(data["g"])
    assert inner.levels[inner.index[0]] == f"{term.levels[term.index[0]]}:u"
    assert_same(state.rebuild(data), design)


@pytest.mark.parametrize(
    ("trained", "new"),
    [
        ("int", "category of ints"),
        ("int", "nullable int"),
        ("int", "float of whole numbers"),
        ("category of ints", "int"),
        ("object text", "string"),
        ("string", "category of text"),
        ("category of text", "object text"),
        ("bool", "object bool"),
    ],
)
def test_levels_match_whatever_dtype_holds_the_values(data: pd.DataFrame, trained: str, new: str) -> None:
    design, state = build("y ~ (1 | g) + (1 | h:g)", data.assign(g=GROUP_VALUES[trained]))
    assert_same(state.rebuild(data.assign(g=GROUP_VALUES[new])), design)


def test_number_and_text_are_different_levels(data: pd.DataFrame) -> None:
    _, state = build("y ~ (1 | g)", data)
    with pytest.raises(DesignError, match="Grouping column `g` was numeric in training and is text now"):
        state.rebuild(data.assign(g=data["g"].astype(str)))
    _, state = build("y ~ (1 | h)", data)
    with pytest.raises(DesignError, match="Grouping column `h` was text in training and is numeric now"):
        state.rebuild(data.assign(h=1))


def test_unseen_levels_have_index_minus_one(data: pd.DataFrame) -> None:
    _, state = build("y ~ (1 | g) + (1 | g:h)", data)
    new = pd.DataFrame({"g": [2, 99, 2, 2], "h": ["u", "u", "new", "v"]})
    term, inner = state.rebuild(new).random
    np.testing.assert_array_equal(term.index, [0, -1, 0, 0])
    np.testing.assert_array_equal(inner.index[1:3], [-1, -1])
    assert inner.levels[inner.index[0]] == "2:u"
    pair = data[data["g"] == 30].iloc[:1].assign(h="w")
    seen = ((data["g"] == 30) & (data["h"] == "w")).any()
    (index,) = build("y ~ (1 | g:h)", data[~((data["g"] == 30) & (data["h"] == "w"))])[1].rebuild(pair).random[0].index
    assert seen
    assert index == -1


@pytest.mark.parametrize(
    ("formula", "fragment"),
    [
        ("y ~ (1 | x)", "`x` is not a grouping factor: it is continuous"),
        ("y ~ (1 | one)", "`one` has one level, 'a', in all 60 rows"),
        ("y ~ (1 | zero)", "`zero` has one level, 0, in all 60 rows"),
        ("y ~ (1 | complex)", "Grouping column `complex` holds complex numbers"),
        ("y ~ (1 | mixed)", "Grouping column `mixed` mixes values"),
        ("y ~ (1 | left:right)", "both written 'a:b:c'"),
    ],
)
def test_columns_that_cannot_group(data: pd.DataFrame, formula: str, fragment: str) -> None:
    data["row"] = range(N)
    data["one"] = "a"
    data["zero"] = 0
    data["complex"] = 1j * data["x"]
    data["mixed"] = pd.Series(np.resize(np.array([1, "a"], object), N), dtype=object, index=data.index)
    data["left"] = np.resize(["a:b", "a"], N)
    data["right"] = np.resize(["c", "b:c"], N)
    with pytest.raises(DesignError) as caught:
        build(formula, data)
    assert fragment in str(caught.value)


def test_category_of_fractions_may_group(data: pd.DataFrame) -> None:
    data["dose"] = pd.Categorical(np.resize([0.5, 0.25, 1.0], N))
    (term,) = build("y ~ (1 | dose)", data)[0].random
    assert list(term.levels) == [0.25, 0.5, 1.0]


# ------------------------------------------------------------------------------------------- neural, offset


def test_neural_block(data: pd.DataFrame) -> None:
    design, state = build("y ~ x + nn(x + c + z, h, name=f, layers=(4,))", data)
    (block,) = design.neural
    assert block.names == ("x", "c[a]", "c[b]", "c[c]", "z", "h[u]", "h[v]", "h[w]")
    assert block.categorical == ((1, 4), (5, 8))
    assert block.variables == ("x", "c", "z", "h")
    assert (block.name, block.options) == ("f", {"layers": (4,)})
    assert block.x.dtype == np.float32
    np.testing.assert_allclose(block.x[:, 4], data["z"], rtol=1e-6)
    np.testing.assert_array_equal(block.x[:, 1:4].sum(axis=1), 1)
    assert_same(state.rebuild(data), design)


def test_neural_inputs_stand_in_the_written_order(data: pd.DataFrame) -> None:
    design, state = build("y ~ nn(x:z + z + c)", data)
    assert design.neural[0].names == ("x:z", "z", "c[a]", "c[b]", "c[c]")
    assert_same(state.rebuild(data), design)


def test_offsets_add_up(data: pd.DataFrame) -> None:
    design, state = build("y ~ x + offset(np.log(z)) + offset(n)", data)
    np.testing.assert_allclose(design.offset, np.log(data["z"]) + data["n"])
    np.testing.assert_allclose(state.rebuild(data[:3]).offset, design.offset[:3])
    np.testing.assert_array_equal(build("y ~ x", data)[0].offset, np.zeros(N))
    with pytest.raises(DesignError, match=r"`offset\(c\)` is categorical"):
        build("y ~ offset(c)", data)
    with pytest.raises(DesignError, match=r"`offset\(np.log\(k\)\)` is not finite in 20 rows"):
        build("y ~ offset(np.log(k))", data)


# ------------------------------------------------------------------------------------------ rows and weights


def test_rows_with_missing_values_are_left_out_first(data: pd.DataFrame) -> None:
    data["unused"] = np.nan
    data.loc[data.index[3], "x"] = np.nan
    data.loc[data.index[5], "c"] = None
    data["g"] = data["g"].astype("Int64")
    data.loc[data.index[7], "g"] = pd.NA
    design, _ = build("y ~ scale(x) + c + (1 | g)", data)
    assert (design.n, design.n_total, design.n_dropped) == (N - 3, N, 3)
    np.testing.assert_array_equal(design.rows, np.setdiff1d(np.arange(N), [3, 5, 7]))
    assert list(design.index) == list(data.index[design.rows])
    used = data["x"].iloc[design.rows]
    np.testing.assert_allclose(design.X[:, 1], (used - used.mean()) / used.std())
    assert list(design.random[0].levels) == [2, 7, 10, 30]


def test_missing_values_may_be_refused(data: pd.DataFrame) -> None:
    data.loc[data.index[:2], "x"] = np.nan
    with pytest.raises(DesignError, match=r"Missing values in `x` \(2\) of 60 rows"):
        build("y ~ x", data, na_action="raise")
    assert build("y ~ z", data, na_action="raise")[0].n == N
    with pytest.raises(DesignError, match="'drop' or 'raise', not 'ignore'"):
        build("y ~ z", data, na_action="ignore")


def test_no_row_is_left(data: pd.DataFrame) -> None:
    with pytest.raises(DesignError, match=r"No rows are left after leaving out .* `x` \(60\): data has 60 rows"):
        build("y ~ x", data.assign(x=np.nan))
    with pytest.raises(DesignError, match="No rows are left: data has 0 rows"):
        build("y ~ x", data[:0])


def test_weights(data: pd.DataFrame) -> None:
    data["w"] = np.arange(N, dtype=float)
    data.loc[data.index[4], "w"] = np.nan
    for weights in ("w", data["w"], data["w"].tolist()):
        design, _ = build("y ~ x", data, weights=weights)
        assert design.n_dropped == 1
        assert design.weights is not None
        np.testing.assert_array_equal(design.weights, np.delete(np.arange(N), 4))
    assert build("y ~ x", data)[0].weights is None


@pytest.mark.parametrize(
    ("weights", "fragment"),
    [
        ("ww", "`ww` is not a column"),
        ([1.0, 2.0], r"shape (2,); data has 60 rows"),
        ([-1.0] + [1.0] * (N - 1), "1 rows are not, e.g. -1"),
        ([np.inf] * N, "60 rows are not, e.g. inf"),
        ([0.0] * N, "all zero"),
        ("c", "weights must be numbers"),
        (pd.Series(1.0, index=range(N)), "another index than data"),
    ],
)
def test_weights_refused(data: pd.DataFrame, weights: object, fragment: str) -> None:
    with pytest.raises(DesignError) as caught:
        build("y ~ x", data, weights=weights)
    assert fragment in str(caught.value)


# -------------------------------------------------------------------------------------------------- new data


# --------------------------------------------------------------------------------------- effects at points in time


def test_whole_numbers_are_times(data: pd.DataFrame) -> None:
    design, state = build("y ~ x + ar1(0 + k | g)", data)
    term = design.random[0]
    assert (term.names, term.positions, term.structure) == (("k[0]", "k[1]", "k[3]"), (0, 1, 3), "ar1")
    np.testing.assert_array_equal(term.z, data["k"].to_numpy()[:, None] == np.array([0, 1, 3]))
    again = state_from_dict(json.loads(json.dumps(state_to_dict(state), allow_nan=False)))
    new = again.rebuild(data[1:3].astype({"k": float}))
    np.testing.assert_array_equal(new.random[0].z, term.z[1:3])
    with pytest.raises(DesignError, match="`k` has level 2, unseen in training"):
        state.rebuild(data[:2].assign(k=2))


@pytest.mark.parametrize(
    ("levels", "categories", "positions"),
    [
        (["mon", "tue", "thu"], ["mon", "tue", "wed", "thu"], (0, 1, 3)),
        ([2, 4, 9], [2, 4, 9], (2, 4, 9)),
        (["t9", "t10", "t8"], ["t8", "t9", "t10"], (0, 1, 2)),
    ],
)
def test_levels_of_an_ordered_factor_are_times(
    data: pd.DataFrame, levels: list[object], categories: list[object], positions: tuple[int, ...]
) -> None:
    data["t"] = pd.Categorical(np.resize(levels, N), categories=categories, ordered=True)
    term = build("y ~ t + ar1(0 + t | g)", data)[0].random[0]
    assert term.positions == positions
    assert term.names == tuple(f"t[{one}]" for one in categories if one in levels)


@pytest.mark.parametrize(
    ("formula", "fragment"),
    [
        ("y ~ ar1(1 + k | g)", r"ar1\(0 \+ time \| g\)"),
        ("y ~ ar1(0 + k + z | g)", "one column without an intercept"),
        ("y ~ ar1(0 + k:z | g)", "one column without an intercept"),
        ("y ~ toep(0 + C(k) | g)", "one column without an intercept"),
        ("y ~ ar1(0 + z | g)", "are whole numbers; `z` has 1"),
        ("y ~ ar1(0 + c | g)", r"make `c` \(text\) whole numbers, or an ordered factor"),
        ("y ~ toep(0 + k | g)", r"equally spaced, and `k` has \[0, 1, 3\]; use ar1"),
    ],
)
def test_columns_that_are_no_times(data: pd.DataFrame, formula: str, fragment: str) -> None:
    with pytest.raises((DesignError, FormulaError), match=fragment):
        build(formula, data)


FORMULAS = [
    "y ~ x + c + (1 | g)",
    "p(k, n) ~ scale(x)*c + nn(x + c) + (c | g/h) + offset(np.log(z))",
    "y ~ bs(z, df=4) + poly(x, 2) + C(k) + c:h + (0 + c || h)",
    "y ~ {x > 0} + cr(z, df=4) + cc(n, df=3) + (x*z | h)",
    "c ~ 0",
    "y ~ us(1 + x | g) + cs(0 + c | h) + toep(0 + n | h) + ar1(0 + k | g:h)",
    "y ~ nn(x:z + c:x + z)",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_new_data_give_the_same_columns(data: pd.DataFrame, text: str) -> None:
    design, state = build(text, data)
    _check_new_data(state, design, data)


@pytest.mark.parametrize("text", [*FORMULAS, "log(y) ~ . - z + offset(scale(x)) + (1 | when) + (1 | d:k)"])
def test_state_travels_as_json(data: pd.DataFrame, text: str) -> None:
    data["when"] = pd.to_datetime(np.resize(["2020-01-02", "2019-07-05"], N)).tz_localize("Europe/Berlin")
    data["d"] = pd.to_timedelta(data["g"], unit="D")
    data["y"] = data["y"] ** 2
    design, state = build(text, data)
    stored = json.loads(json.dumps(state_to_dict(state), allow_nan=False))
    again = state_from_dict(stored)
    _check_new_data(again, design, data)
    assert again.spec == state.spec
    response = again.rebuild(data, response=True).response
    assert design.response is not None
    assert response is not None
    assert response.levels == design.response.levels
    np.testing.assert_array_equal(response.values, design.response.values)


def test_stored_state_asks_for_the_context(data: pd.DataFrame) -> None:
    design, state = build("y ~ double(x)", data, context={"double": lambda v: 2 * v})
    stored = state_to_dict(state)
    with pytest.raises(DesignError, match=r"pass context=\{'double': ...\}"):
        state_from_dict(stored)
    again = state_from_dict(stored, context={"double": lambda v: 2 * v, "other": 1})
    np.testing.assert_allclose(again.rebuild(data).X, design.X)


@pytest.mark.parametrize("formula", ["y ~ (1 | w)", "y ~ w", "w ~ x"])
@pytest.mark.parametrize("kind", ["interval", "interval of times", "period", "date"])
def test_intervals_periods_and_dates_travel_as_json(data: pd.DataFrame, formula: str, kind: str) -> None:
    days = pd.Series(pd.date_range("2024-01-30", periods=N), index=data.index)
    values = {
        "interval": pd.cut(data["x"], 3),
        "interval of times": pd.cut(days, 3, right=False),
        "period": pd.Categorical(days.dt.to_period("M")),
        "date": pd.Categorical(np.resize(days[:3].dt.date, N)),
    }
    data["w"] = values[kind]
    design, state = build(formula, data)
    again = state_from_dict(json.loads(json.dumps(state_to_dict(state), allow_nan=False)))
    assert_same(again.rebuild(data), design)
    response = again.rebuild(data, response=True).response
    assert response is not None and design.response is not None
    assert response.levels == design.response.levels
    np.testing.assert_array_equal(response.values, design.response.values)


def test_levels_that_cannot_be_stored_are_named(data: pd.DataFrame) -> None:
    _, state = build("y ~ (1 | w)", data.assign(w=np.resize([datetime.time(9), datetime.time(17)], N)))
    with pytest.raises(DesignError, match="type time cannot be stored"):
        state_to_dict(state)


def _check_new_data(state: DesignState, design: Design, data: pd.DataFrame) -> None:
    assert_same(state.rebuild(data), design)
    few = state.rebuild(data[7:9])
    np.testing.assert_allclose(few.X, design.X[7:9])
    assert few.x_names == design.x_names
    for term, trained in zip(few.random, design.random, strict=True):
        np.testing.assert_allclose(term.z, trained.z[7:9])
        np.testing.assert_array_equal(term.index, trained.index[7:9])
    none = state.rebuild(data[:0])
    assert none.X.shape == (0, design.X.shape[1])
    assert (none.n, len(none.random)) == (0, len(design.random))
    assert state.rebuild(data[:0], response=True).response is None


def test_new_rows_with_missing_values_are_left_out(data: pd.DataFrame) -> None:
    _, state = build("y ~ x + (1 | g)", data)
    new = pd.DataFrame({"x": [1.0, np.nan, 3.0], "g": [2, 7, None]}, index=["a", "b", "c"])
    design = state.rebuild(new)
    np.testing.assert_array_equal(design.rows, [0])
    assert list(design.index) == ["a"]
    without = state.rebuild(new[["x"]], random=False)
    np.testing.assert_array_equal(without.rows, [0, 2])
    assert without.random == ()


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"drop": "x"}, "data has no column `x`"),
        ({"drop": "g"}, "data has no column `g`"),
        ({"c": "d"}, "`c` has level 'd', unseen in training; known: 'a', 'b', 'c'"),
        ({"c": 1.0}, "Column `c` was categorical in training and is numeric now"),
        ({"x": "a"}, "Column `x` was numeric in training and is categorical now"),
        ({"x": True}, "Column `x` was numeric in training and is boolean now"),
        ({"h": "new"}, "`h` has level 'new', unseen in training"),
        ({"z": "a"}, "Column `z` was numeric in training and is categorical now"),
        ({"x": np.inf}, "Term `x` is not finite in 60 rows"),
        ({"z": -1.0}, "Term `np.log(z)` is not finite in 60 rows"),
        ({"k": 9}, "`C(k)` has level 9, unseen in training; known: 0, 1, 3"),
    ],
)
def test_new_data_that_differ(data: pd.DataFrame, change: dict[str, object], fragment: str) -> None:
    _, state = build("y ~ x + c + np.log(z) + nn(h) + (C(k) | g)", data)
    new = data.drop(columns=str(change["drop"])) if "drop" in change else data.assign(**change)  # type: ignore[arg-type]
    with pytest.raises(DesignError) as caught:
        state.rebuild(new)
    assert fragment in str(caught.value)


# ----------------------------------------------------------------------------------------- traps in formulaic


def test_trap_parts_do_not_share_an_encoder(data: pd.DataFrame) -> None:
    _, state = build("y ~ c + (c | g)", data)
    one = state.rebuild(data.assign(c="b")[:3])
    np.testing.assert_array_equal(one.X[:, 1:], [[1, 0]] * 3)
    np.testing.assert_array_equal(one.random[0].z[:, 1:], [[1, 0]] * 3)


def test_trap_numbers_for_text_are_not_broadcast(data: pd.DataFrame) -> None:
    _, state = build("y ~ c", data)
    with pytest.raises(DesignError, match="was categorical in training and is numeric now"):
        state.rebuild(data.assign(c=np.arange(N)))


def test_trap_one_missing_value_does_not_drop_every_row(data: pd.DataFrame) -> None:
    data.loc[data.index[0], "x"] = np.nan
    assert build("y ~ scale(x)", data)[0].n == N - 1


@pytest.mark.parametrize(("value", "count"), [(-1.0, 2), (0.0, 2), (np.inf, 2)])
def test_trap_rows_neither_vanish_nor_stay_infinite(data: pd.DataFrame, value: float, count: int) -> None:
    data.loc[data.index[:2], "z"] = value
    with pytest.raises(DesignError, match=rf"Term `np.log\(z\)` is not finite in {count} rows"):
        build("y ~ np.log(z)", data)


def test_trap_duplicate_index_and_missing_value(data: pd.DataFrame) -> None:
    data.index = pd.Index([1] * N)
    data.iloc[2, data.columns.get_loc("x")] = np.nan
    design, _ = build("y ~ x + c + (x | g)", data)
    assert design.n == N - 1
    assert list(design.index) == [1] * (N - 1)


@pytest.mark.parametrize("dtype", ["object", "string", "category", "str"])
def test_trap_text_dtypes_are_categorical(data: pd.DataFrame, dtype: str) -> None:
    plain, _ = build("y ~ c + nn(c) + (c | g)", data)
    data["c"] = data["c"].astype(dtype)
    design, state = build("y ~ c + nn(c) + (c | g)", data)
    assert_same(design, plain)
    for other in ("object", "string", "category"):
        assert_same(state.rebuild(data.assign(c=data["c"].astype(other))), plain)


def test_trap_unused_levels_give_no_column(data: pd.DataFrame) -> None:
    data["c"] = pd.Categorical(data["c"], ["unused", "b", "a", "c"])
    assert build("y ~ c", data)[0].x_names == ("Intercept", "c[T.a]", "c[T.c]")


def test_trap_columns_named_like_functions(data: pd.DataFrame) -> None:
    data = data.assign(C=data["c"], np=data["z"], scale=data["x"], id=data["g"], int=data["z"])
    design, _ = build("y ~ C(C) + np.log(np) + scale(scale) + np + {int + 0} + (1 | id)", data)
    assert design.x_names[1:] == ("C(C)[T.b]", "C(C)[T.c]", "np.log(np)", "scale(scale)", "np", "int + 0")
    np.testing.assert_allclose(design.X[:, 3], np.log(data["z"]))
    assert list(design.random[0].levels) == [2, 7, 10, 30]


def test_trap_quoted_name_and_its_plain_twin_keep_their_own_state(data: pd.DataFrame) -> None:
    data = data.assign(**{"my col": data["x"], "my_col": 100 * data["z"]})
    design, state = build("y ~ scale(`my col`) + scale(my_col)", data)
    np.testing.assert_allclose(design.X[:, 1], (data["x"] - data["x"].mean()) / data["x"].std())
    np.testing.assert_allclose(state.rebuild(data[:4]).X, design.X[:4])


def test_trap_a_transform_written_twice_in_one_expression_keeps_its_state(data: pd.DataFrame) -> None:
    design, state = build("y ~ {center(x) * center(x)} + scale(center(x)) + {scale(`x`) + scale(z) + scale(x)}", data)
    np.testing.assert_allclose(design.X[:, 1], (data["x"] - data["x"].mean()) ** 2)
    np.testing.assert_allclose(state.rebuild(data[:4]).X, design.X[:4])


def test_trap_arguments_of_transforms_are_required(data: pd.DataFrame) -> None:
    data.loc[data.index[1], "x"] = np.nan
    design, state = build("y ~ bs(x, df=4) + poly(z, 2)", data)
    assert design.n == N - 1
    with pytest.raises(DesignError, match="no column `x`"):
        state.rebuild(data[["z"]])


# ------------------------------------------------------------------------------------------ other data errors


@pytest.mark.parametrize(
    ("formula", "fragment"),
    [
        ("y ~ one", "Factor `one` has one level, 'a', in all 60 rows"),
        ("y ~ C(one)", "Factor `C(one)` has one level"),
        ("y ~ nn(one)", "Factor `one` has one level"),
        ("y ~ (one | g)", "Factor `one` has one level"),
        ("y ~ when", "`when` is datetime, neither numeric nor categorical: use a part of it, e.g. `{when.dt.year}`"),
        ("y ~ mixed", "Column `mixed` holds values of several types, int, str"),
        ("y ~ complex", "Column `complex` holds complex numbers"),
        ("y ~ Intercept", "Two columns of the design are named `Intercept`"),
        ("y ~ {c + 1}", "`c + 1` cannot be computed"),
        ("y ~ {3}", "`3` gives one value for 60 rows"),
        ("{1} ~ x", "The response `{1}` uses no column of data"),
        ("y ~ C(c, levels=['a', 'b'])", "has values outside its levels=; name all of them: 'b', 'a', 'c'"),
        ("y ~ C(c, levels=3)", "`C(c, levels=3)` cannot be coded"),
        ("y ~ C(c, levels=['a', 'b', 'b', 'c'])", "levels= lists each level once"),
        ("y ~ C(c, contr.treatment(base='zz'))", "do not fit the 3 levels 'b', 'a', 'c'"),
        ("y ~ C(c, contr.poly(scores=[1, 2]))", "do not fit the 3 levels"),
        ("y ~ C(c, 'b')", "`C(c, 'b')` cannot be coded"),
        ("y ~ C(c, [1, 2, 3])", "a matrix with a row a level"),
        ("y ~ (C(c, [[1], [2]]) | g)", "a matrix with a row a level"),
        ("y ~ nn(two)", "`nn(two)` needs at least one input that is not a constant"),
    ],
)
def test_columns_that_cannot_be_used(data: pd.DataFrame, formula: str, fragment: str) -> None:
    data["one"] = "a"
    data["two"] = 2.0
    data["when"] = pd.date_range("2020-01-01", periods=N).to_numpy()
    data["mixed"] = pd.Series(np.resize(np.array([1, "a"], object), N), dtype=object, index=data.index)
    data["complex"] = 1j * data["x"]
    data["Intercept"] = 2.0
    with pytest.raises((DesignError, FormulaError)) as caught:
        build(formula, data)
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("formula", "name", "place"),
    [
        ("y ~ xx", "xx", "xx"),
        ("y ~ np.log(xx)", "xx", "np.log(xx)"),
        ("y ~ (1 | gg)", "gg", "|"),
        ("y ~ (xx | g)", "xx", "xx"),
        ("y ~ nn(z + xx)", "xx", "xx"),
        ("y ~ offset(xx)", "xx", "offset(xx)"),
        ("yy ~ x", "yy", "yy"),
        ("p(kk, n) ~ x", "kk", "p(kk, n)"),
    ],
)
def test_unknown_columns_are_pointed_at(data: pd.DataFrame, formula: str, name: str, place: str) -> None:
    with pytest.raises(FormulaError, match=f"`{name}` is not a column of data; did you mean `{name[0]}`") as caught:
        build_design(parse(formula), data)
    formula_line, carets = str(caught.value).split("\n")[-2:]
    assert formula_line[carets.index("^") : carets.rindex("^") + 1] == place


def test_factor_with_more_levels_than_fit_in_memory() -> None:
    n = 60_000
    data = pd.DataFrame({"y": np.zeros(n), "zip": np.arange(n).astype(str), "x": 1.0})
    with pytest.raises(DesignError, match=r"`zip` has 60000 levels .* 27 GiB. Make it a random effect: `\(1 \| zip\)`"):
        build("y ~ zip", data)


def test_parts_of_dates_and_texts(data: pd.DataFrame) -> None:
    data["when"] = pd.date_range("2020-12-30", periods=N).to_numpy()
    design, state = build("y ~ {when.dt.year} + {c.str.upper()} + {h.str.len()}", data)
    np.testing.assert_array_equal(design.X[:, 1], pd.DatetimeIndex(data["when"]).year)
    assert design.x_names[2:4] == ("c.str.upper()[T.B]", "c.str.upper()[T.C]")
    np.testing.assert_allclose(state.rebuild(data[:5]).X, design.X[:5])


def test_not_a_data_frame_and_repeated_columns(data: pd.DataFrame) -> None:
    with pytest.raises(DesignError, match="must be a pandas DataFrame, not dict"):
        build_design(parse("y ~ x"), {"y": [1.0], "x": [2.0]})  # type: ignore[arg-type]
    twice = pd.concat([data, data[["x"]]], axis=1)
    with pytest.raises(DesignError, match="several columns named `x`"):
        build_design(parse("y ~ x"), twice)


def test_data_are_not_changed(data: pd.DataFrame) -> None:
    before = data.copy(deep=True)
    _, state = build("y ~ scale(x) + c + (x | g:h)", data)
    state.rebuild(data)
    pd.testing.assert_frame_equal(data, before)


# -------------------------------------------------------------------------------------------------- speed


@pytest.mark.parametrize("text", [False, True])
def test_many_rows_and_levels(text: bool) -> None:
    # 0.1 s here; a Python loop over rows, or time quadratic in levels, would take many times the limit
    rng = np.random.default_rng(3)
    n, q = 200_000, 50_000
    g = rng.integers(0, q, n)
    data = pd.DataFrame({"y": rng.normal(size=n), "x": rng.normal(size=n), "z": rng.normal(size=n), "g": g})
    if text:
        data["g"] = data["g"].astype(str)
    start = time.process_time()
    design, state = build("y ~ x + z + (1 | g)", data)
    state.rebuild(data)
    assert time.process_time() - start < 3
    assert len(design.random[0].levels) == data["g"].nunique()
