"""The mock-up character by character, then names and numbers that would break a table."""

from __future__ import annotations

import html
import math
import re
import unicodedata
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from glmmnet.tables import Summary

MOCK_UP = """\
                      Mixed-Effects Neural Network Results
================================================================================
Dep. Variable:                  rating  No. Observations:                 161297
Model:                         GLMMNet  No. Groups:                   1204; 2608
Family:                       Gaussian  Df Linear:                             2
Link Function:                Identity  Df Neural:                          2304
Method:                    MCEM (NUTS)  Df Variance:                           5
Covariance Type:   marginal, last layer  Log-Likelihood:       -240351.2 +/- 0.4
================================================================================
Fixed effects                   coef  std err        z   P>|z|   [0.025   0.975]
--------------------------------------------------------------------------------
Intercept                     1.5660    0.054   28.947   0.000    1.460    1.672
--------------------------------------------------------------------------------
Neural terms                            architecture   weights    SD(f) Var(eta)
--------------------------------------------------------------------------------
nn(x1 + x2)                  2-64-32-1 silu, l2=1e-4      2304    1.284    41.2%
--------------------------------------------------------------------------------
Random effects   name         levels  variance std.dev.  std err  [0.025  0.975]
--------------------------------------------------------------------------------
manufacturer     (Intercept)    1204    1.4350   1.1979    0.087   1.039   1.381
                 x1                     0.0723   0.2688    0.041   0.199   0.363
  corr           (Int),x1                        0.3200    0.110   0.088   0.513
drug             (Intercept)    2608    0.7273   0.8528    0.033   0.790   0.921
Residual                                1.0539   1.0266    0.002   1.023   1.030
================================================================================
MCEM: converged, 38/200 iter; distance/se 0.021 < 0.05 (3x); draws 4x250
NUTS: R-hat 1.01, ESS 412/388, divergent 0/1000, depth hits 0, BFMI 0.94
================================================================================"""

FIXED = ["coef", "std err", "z", "P>|z|", "[0.025", "0.975]"]
NEURAL = ["architecture", "weights", "sd_f", "var_eta"]
RANDOM = ["kind", "group", "name", "class", "levels", "variance", "sd", "se", "ci_low", "ci_high"]
HUGE_NAME = "C(manufacturer_of_the_drug, Treatment('ACME'))[T.Größe_東京_µ]"


def fixed(*rows: tuple) -> pd.DataFrame:
    frame = pd.DataFrame([row[1:] for row in rows], columns=FIXED)
    frame.index = pd.Index([row[0] for row in rows])
    return frame


def neural(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame([row[1:] for row in rows], columns=NEURAL, index=[row[0] for row in rows])


def random(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=RANDOM)


@pytest.fixture
def summary() -> Summary:
    return Summary(
        title="Mixed-Effects Neural Network Results",
        header=(
            ("Dep. Variable:", "rating"),
            ("Model:", "GLMMNet"),
            ("Family:", "Gaussian"),
            ("Link Function:", "Identity"),
            ("Method:", "MCEM (NUTS)"),
            ("Covariance Type:", "marginal, last layer"),
            ("No. Observations:", "161297"),
            ("No. Groups:", "1204; 2608"),
            ("Df Linear:", "2"),
            ("Df Neural:", "2304"),
            ("Df Variance:", "5"),
            ("Log-Likelihood:", "-240351.2 +/- 0.4"),
        ),
        fixed=fixed(("Intercept", 1.566, 0.0541, 28.947, 1e-180, 1.46, 1.672)),
        neural=neural(("nn(x1 + x2)", "2-64-32-1 silu, l2=1e-4", 2304, 1.284, 0.412)),
        random=random(
            ("variance", "manufacturer", "(Intercept)", "", 1204, 1.435, 1.1979, 0.087, 1.039, 1.381),
            ("variance", "manufacturer", "x1", "", 1204, 0.0723, 0.2688, 0.041, 0.199, 0.363),
            ("corr", "manufacturer", "(Intercept),x1", "", pd.NA, np.nan, 0.32, 0.11, 0.088, 0.513),
            ("variance", "drug", "(Intercept)", "", 2608, 0.7273, 0.8528, 0.033, 0.79, 0.921),
            ("residual", "Residual", "", "", pd.NA, 1.0539, 1.0266, 0.0017, 1.023, 1.03),
        ),
        notes=(
            "MCEM: converged, 38/200 iter; distance/se 0.021 < 0.05 (3x); draws 4x250",
            "NUTS: R-hat 1.01, ESS 412/388, divergent 0/1000, depth hits 0, BFMI 0.94",
        ),
    )


def columns(line: str) -> int:
    """Width in a terminal."""
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in line)
    return len(line) + wide - sum(unicodedata.category(sign) == "Mn" for sign in line)


def assert_80_columns(text: str) -> None:
    lines = text.splitlines()
    assert {columns(line) for line in lines if set(line) <= set("=-")} == {80}
    assert max(columns(line) for line in lines) == 80
    assert not [line for line in lines if line != line.rstrip()]


def test_text_is_the_mock_up(summary: Summary) -> None:
    assert summary.as_text() == MOCK_UP
    assert str(summary) == MOCK_UP


@pytest.mark.parametrize(
    "block, word", [("fixed", "Fixed effects"), ("neural", "Neural terms"), ("random", "Random effects")]
)
def test_empty_block_is_left_out(summary: Summary, block: str, word: str) -> None:
    empty = replace(summary, **{block: getattr(summary, block).iloc[:0]})
    assert word in MOCK_UP
    for text in (empty.as_text(), empty.as_html(), empty.as_latex(), empty.as_markdown()):
        assert word not in text
    assert not re.search(r"[=-]\n[=-]{2}", empty.as_text())  # no two rules in a row


def test_nothing_but_a_title_and_no_columns() -> None:
    text = Summary("Empty", (), pd.DataFrame(), pd.DataFrame(), pd.DataFrame()).as_text()
    assert text.splitlines() == [" " * 37 + "Empty", "=" * 80]


def test_no_fixed_columns_leaves_the_interval_its_own_names(summary: Summary) -> None:
    text = replace(summary, fixed=pd.DataFrame()).as_text()
    assert "std err  ci_low ci_high" in text
    assert_80_columns(text)


@pytest.mark.parametrize("exponent", range(-12, 13))
@pytest.mark.parametrize("sign", [1, -1])
def test_every_size_of_number_fits_and_keeps_its_value(exponent: int, sign: int) -> None:
    value = sign * 1.234567 * 10.0**exponent
    table = Summary(
        "t",
        (),
        fixed(("x", value, value, value, 0.5, value, value)),
        neural(("nn(x)", "1-1", 10**12, value, 0.1)),
        random(("variance", "g", "(Intercept)", "", 10**5, value, value, value, value, value)),
    )
    text = table.as_text()
    assert_80_columns(text)
    for start, numbers in (("x ", 6), ("g ", 6)):
        line = next(line for line in text.splitlines() if line.startswith(start))
        printed = [float(word) for word in line.split()[-numbers:]]
        kept = [number for number in printed if number not in (0.5, 10**5)]
        assert len(kept) == 5
        np.testing.assert_allclose(kept, value, rtol=0.2)  # at least one digit is right


def test_p_values_are_printed_with_three_decimals(summary: Summary) -> None:
    rows = [("a", 1, 1, 1, p, 1, 1) for p in (1e-300, 0.0004, 0.04999, 1.0)]
    lines = replace(summary, fixed=fixed(*rows)).as_text().splitlines()[11:15]
    assert [line[55:62].strip() for line in lines] == ["0.000", "0.000", "0.050", "1.000"]


def test_missing_numbers_are_shown(summary: Summary) -> None:
    nan, inf = math.nan, math.inf
    table = replace(
        summary,
        fixed=fixed(("x", 1.0, nan, nan, nan, -inf, inf)),
        neural=neural(("nn(x)", "1-1", 2, nan, nan)),
        random=random(("variance", "g", "(Intercept)", "", pd.NA, 1.0, 1.0, nan, None, pd.NA)),
    )
    lines = [line.split() for line in table.as_text().splitlines()]
    assert ["x", "1.0000", "nan", "nan", "nan", "-inf", "inf"] in lines
    assert ["nn(x)", "1-1", "2", "nan", "nan"] in lines
    assert ["g", "(Intercept)", "1.0000", "1.0000", "nan", "nan", "nan"] in lines


@pytest.mark.parametrize(
    "name",
    [HUGE_NAME, "x" * 60, "東京" * 30, "a b " * 15, "e\u0301" * 60, "two\nlines\tand a tab " * 3, "[" * 200],
    ids=["formula", "letters", "wide", "words", "combining", "controls", "brackets"],
)
def test_long_names_stay_within_80_columns(summary: Summary, name: str) -> None:
    one = (1.0, 1.0, 0.1, 0.9, 1.1)
    table = replace(
        summary,
        title=name,
        header=((name, name), ("Model:", name), ("Family:", name), ("No. Groups:", "3")),
        fixed=fixed((name, 1.0, *one), (name + "!", 1.0, *one)),
        neural=neural((name, name, 2304, 1.284, 0.412)),
        random=random(
            ("variance", name, name, name, 12, *one),
            ("variance", name, name + "!", name, 12, *one),
            ("corr", name, f"{name},{name}", name, pd.NA, math.nan, *one[1:]),
        ),
        notes=(name, name * 3),
    )
    assert_80_columns(table.as_text())
    without_class = table.random.assign(**{"class": ""})
    assert_80_columns(replace(table, random=without_class).as_text())


def test_a_long_name_goes_on_in_the_next_line(summary: Summary) -> None:
    rows = [(f"C(manufacturer, Treatment('ACME'))[T.{level}]", *[1.0] * 6) for level in ("first", "second")]
    lines = replace(summary, fixed=fixed(*rows)).as_text().splitlines()[11:17]
    assert [line[:27].rstrip() for line in lines[:3]] == [
        "C(manufacturer,",
        "  Treatment('ACME'))",
        "  [T.first]",
    ]
    assert lines[5] == "  [T.second]"
    assert [len(line) for line in (lines[0], lines[3])] == [80, 80]


def test_an_architecture_is_broken_between_its_parts(summary: Summary) -> None:
    row = ("nn(x1 + x2 + x3 + x4)", "12-128-128-64-32-1 gelu, dropout=0.1, l2=1e-4", 2304, 1.284, 0.412)
    lines = replace(summary, neural=neural(row)).as_text().splitlines()[15:17]
    assert " 12-128-128-64-32-1 gelu, " in lines[0]
    assert lines[1].split() == ["dropout=0.1,", "l2=1e-4"]


def test_a_name_takes_the_room_that_its_neighbours_leave(summary: Summary) -> None:
    row = ("variance", "manufacturer:drug:year", "x", "", 12, 1.0, 1.0, 0.1, 0.9, 1.1)
    line = replace(summary, random=random(row)).as_text().splitlines()[19]
    assert line.startswith("manufacturer:drug:year x ")
    assert len(line) == 80


def test_long_list_of_groups_is_cut_and_counted(summary: Summary) -> None:
    groups = "; ".join(["592", "798", "2037", "1204", "2608", "31", "12", "7"])
    header = tuple((label, groups if label == "No. Groups:" else value) for label, value in summary.header)
    text = replace(summary, header=header).as_text()
    assert "No. Groups: 592; 798; 2037; ... (8)" in re.sub(" +", " ", text)
    assert_80_columns(text)
    assert groups in replace(summary, header=header).as_html()


def test_long_header_value_does_not_push_its_neighbour_out(summary: Summary) -> None:
    header = (("Covariance Type:", "marginal " * 12), ("Family:", "Gaussian"))
    text = replace(summary, header=header).as_text()
    assert text.splitlines()[2].endswith("  Family:   Gaussian")
    assert_80_columns(text)


def test_odd_number_of_header_entries(summary: Summary) -> None:
    lines = replace(summary, header=summary.header[:3]).as_text().splitlines()
    assert lines[2].split() == ["Dep.", "Variable:", "rating", "Family:", "Gaussian"]
    assert lines[3].split() == ["Model:", "GLMMNet"]


def test_categorical_shows_classes(summary: Summary) -> None:
    rows = [
        ("variance", "region", term, cls, 592, 1.4350, 1.1979, 0.087, 1.039, 1.381)
        for cls in ("b", "neutral")
        for term in ("(Intercept)", "x1")
    ]
    table = replace(
        summary,
        fixed=fixed(("Intercept[b]", *[1.0] * 6), ("Intercept[neutral]", *[1.0] * 6)),
        random=random(*rows, ("corr", "region", "(Intercept),x1", "b", pd.NA, None, -0.32, 0.11, -0.5, -0.1)),
    )
    text = table.as_text()
    assert_80_columns(text)
    lines = text.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("Random"))
    assert lines[start].split()[:5] == ["Random", "name", "class", "levels", "variance"]
    block = lines[start + 1 :]
    assert block[1].split()[:4] == ["region", "(Intercept)", "b", "592"]
    assert block[2].split()[:3] == ["x1", "b", "1.4350"]
    assert block[3].split()[:3] == ["(Intercept)", "neutral", "1.4350"]
    assert block[5].split() == ["corr", "(Int),x1", "b", "-0.3200", "0.110", "-0.500", "-0.100"]


def test_html_escapes_and_holds_every_number(summary: Summary) -> None:
    evil = "<script>alert('x')</script> & \"y\""
    table = replace(
        summary,
        title=evil,
        header=(("Model:", evil), (evil, "")),
        fixed=fixed((evil, *[1.0] * 6)),
        neural=neural((evil, evil, 1, 1.0, 0.5)),
        notes=(evil,),
    )
    page = table._repr_html_()
    assert "<script" not in page
    assert html.unescape(page).count(evil) == 7
    for word in ("1.1979", "0.3200", "(Intercept)", "1204"):
        assert word in page


def test_latex_escapes(summary: Summary) -> None:
    evil = r"a_b & 50% of $x^2$ #{1} ~ \foo"
    terms = fixed((evil, *[1.0] * 6), ("[x]", *[1.0] * 6))
    latex = replace(summary, title=evil, fixed=terms, notes=(evil,)).as_latex()
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 4
    assert latex.count(r"a\_b \& 50\% of \$x\^{}2\$ \#\{1\} \textasciitilde{} \textbackslash{}foo") == 3
    assert not re.search(r"(?<!\\)[#%$_]", latex)
    assert not re.search(r"^\s*\[", latex, re.MULTILINE) and "{[}x]" in latex
    assert "|" not in latex  # a bar is a dash in LaTeX's default font
    assert latex.startswith(r"\begin{table}") and latex.endswith(r"\end{table}")


def test_markdown_rows_have_as_many_cells_as_the_head(summary: Summary) -> None:
    text = replace(summary, fixed=fixed(("(1 | g)_*x*", *[1.0] * 6))).as_markdown()
    assert r"(1 \| g)\_\*x\*" in text
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert len(blocks) == 4
    for block, cells in zip(blocks, (4, 7, 5, 8), strict=True):
        assert {len(re.findall(r"(?<!\\)\|", line)) - 1 for line in block.splitlines()} == {cells}
        assert re.fullmatch(r"[|:-]+", block.splitlines()[1])
