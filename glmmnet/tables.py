"""The table of a fitted model: text of 80 columns, HTML, LaTeX, Markdown.

Takes finished numbers and only writes them down; nothing is computed here.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pandas as pd

WIDTH = 80
_LEFT = 38  # columns of the header's left half; two blanks, the rest is the right half
_FOLDS = 3  # a name takes at most so many lines, then it is shortened
_BREAK_AFTER = (" ,;", ":_-*+/)]")  # the first where there are any


@dataclass(frozen=True)
class Summary:
    """Table of a fitted model.

    Attributes
    ----------
    title : str
    header : tuple of (str, str)
        Label and value; the first half stands on the left, the second on the right.
    fixed : DataFrame
        One row a coefficient, index: term. Columns in this order: coef, std err, z, P>|z| and the two ends of
        the interval, under the names they are to be printed with (``[0.025``, ``0.975]``).
    neural : DataFrame
        One row an nn() block, index: label. Columns: architecture (str), weights (int), sd_f (on the scale of
        the linear predictor), var_eta (share of its variance, 0 to 1).
    random : DataFrame
        One row a variance, correlation or dispersion. Columns: kind ("variance", "corr", "residual", "dispersion"),
        group, name, class (empty unless the family is categorical), levels (int or NA), variance, sd, se, ci_low,
        ci_high. In a "corr" row the correlation stands in `sd`, in a "dispersion" row phi; se and interval are those
        of `sd`.
    notes : tuple of str
        Lines below the table.

    Notes
    -----
    A block without rows is left out. In text, a name too long for its column goes on in the next line; beyond
    three lines its middle is replaced by "...". The other formats hold every name in full.
    """

    title: str
    header: tuple[tuple[str, str], ...]
    fixed: pd.DataFrame
    neural: pd.DataFrame
    random: pd.DataFrame
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.as_text()

    def __repr__(self) -> str:
        return self.as_text()

    def _repr_html_(self) -> str:
        return self.as_html()

    def as_text(self) -> str:
        """The table in plain text, 80 columns wide, without blanks at the ends of lines."""
        double, single = "=" * WIDTH, "-" * WIDTH
        lines = [" " * ((WIDTH - _width(line)) // 2) + line for line in _fold(self.title, WIDTH)] + [double]
        if self.header:
            lines += [*_header_lines(self.header), double]
        for k, block in enumerate(self._blocks()):
            head, *rows = _text_rows(block)
            lines += ([single] if k else []) + [head, single, *rows]
        if lines[-1] != double:
            lines.append(double)
        for note in self.notes:
            lines += _fold(note, WIDTH, "  ")
        if self.notes:
            lines.append(double)
        return "\n".join(line.rstrip() for line in lines)

    def as_html(self) -> str:
        """The table as HTML; every name and value is escaped."""
        tables = "\n".join(self._tables("html"))
        notes = "<br>\n".join(html.escape(note) for note in self.notes)
        return (
            f'<div class="glmmnet-summary">\n<p><strong>{html.escape(self.title)}</strong></p>\n{tables}\n'
            + (f"<p>{notes}</p>\n" if notes else "")
            + "</div>"
        )

    def as_latex(self) -> str:
        r"""The table as a LaTeX ``table`` float; needs ``\usepackage{booktabs}``."""
        tables = "\n\n\\medskip\n".join(_latex_safe(table) for table in self._tables("latex_booktabs"))
        notes = "\n".join(rf"\par {_latex(note)}" for note in self.notes)
        return (
            f"\\begin{{table}}\n\\centering\n\\caption{{{_latex(self.title)}}}\n{tables}\n"
            + (f"\n\\medskip\n\\footnotesize\n{notes}\n" if notes else "")
            + "\\end{table}"
        )

    def as_markdown(self) -> str:
        """The table in GitHub's Markdown; signs with a meaning in Markdown are escaped."""
        tables = "\n\n".join(self._tables("github", _markdown))
        notes = "\n".join(f"- {_markdown(note)}" for note in self.notes)
        return f"**{_markdown(self.title)}**\n\n{tables}" + (f"\n\n{notes}" if notes else "")

    def _blocks(self) -> Iterator[_Block]:
        blocks = _fixed_block(self.fixed), _neural_block(self.neural), _random_block(self.random, self.fixed)
        return (block for block in blocks if block.rows)

    def _tables(self, tablefmt: str, escape: Callable[[str], str] = str) -> Iterator[str]:
        """Header and blocks as tabulate writes them."""
        from tabulate import tabulate

        if self.header:
            rows = [[escape(cell) for pair in pairs for cell in pair] for pairs in _halves(self.header)]
            # Markdown has no tables without a head
            head = [""] * 4 if tablefmt == "github" else []
            yield tabulate(rows, head, tablefmt, disable_numparse=True, colalign=("left", "right") * 2)
        for block in self._blocks():
            yield tabulate(
                [[escape(cell) for cell in block.cells(row)] for row in block.rows],
                headers=[escape(column.name) for column in block.columns],
                tablefmt=tablefmt,
                disable_numparse=True,
                colalign=["left" if column.left else "right" for column in block.columns],
            )


@dataclass(frozen=True)
class _Column:
    """One column: name, width in text, decimals of its numbers (None: text, folded when too long)."""

    name: str
    width: int
    decimals: int | None = None
    left: bool = False
    tiny: bool = True  # numbers that would be printed as 0.000 are written as 1.2e-05

    def cell(self, value: Any) -> str:
        """The value as text, a number in at most `width` characters."""
        if isinstance(value, str):
            return value
        if self.decimals is None:
            return str(value)
        return _number(math.nan if pd.isna(value) else float(value), self.decimals, self.width, self.tiny)


@dataclass(frozen=True)
class _Block:
    columns: tuple[_Column, ...]
    rows: list[list[Any]]

    def cells(self, row: list[Any]) -> list[str]:
        """One row's values as text, numbers no wider than their columns."""
        return [column.cell(value) for column, value in zip(self.columns, row, strict=True)]


def _fixed_block(fixed: pd.DataFrame) -> _Block:
    low, high = _interval_names(fixed)
    columns = (
        _Column("Fixed effects", 26, left=True),
        _Column("coef", 9, 4),
        _Column("std err", 8, 3),
        _Column("z", 8, 3),
        _Column("P>|z|", 7, 3, tiny=False),
        _Column(low, 8, 3),
        _Column(high, 8, 3),
    )
    return _Block(columns, [[str(term), *values] for term, *values in fixed.itertuples(name=None)])


def _neural_block(neural: pd.DataFrame) -> _Block:
    columns = (
        _Column("Neural terms", 23, left=True),
        _Column("architecture", 28),
        _Column("weights", 9),
        _Column("SD(f)", 8, 3),
        _Column("Var(eta)", 8),
    )
    rows: list[list[Any]] = []
    for label, row in neural.iterrows():
        share = float(row["var_eta"])
        percent = "nan" if math.isnan(share) else f"{100 * share:.1f}%"
        rows.append([str(label), str(row["architecture"]), str(row["weights"]), row["sd_f"], percent])
    return _Block(columns, rows)


def _random_block(random: pd.DataFrame, fixed: pd.DataFrame) -> _Block:
    low, high = _interval_names(fixed)
    classes = not random.empty and any(str(value) for value in random["class"])
    names = (
        (_Column("Random", 10, left=True), _Column("name", 11, left=True), _Column("class", 6, left=True))
        if classes
        else (_Column("Random effects", 16, left=True), _Column("name", 12, left=True))
    )
    columns = (
        *names,
        _Column("levels", 6),
        _Column("variance", 9, 4),
        _Column("std.dev.", 8, 4),
        _Column("std err", 8, 3),
        _Column(low, 7, 3),
        _Column(high, 7, 3),
    )
    rows: list[list[Any]] = []
    shown = None  # a group's name and number of levels are printed once
    for row in random.to_dict("records"):
        kind, name = row["kind"], str(row["name"])
        new, levels, variance = row["group"] != shown, "", row["variance"]
        if kind == "corr":
            group, name, variance = "  corr", name.replace("(Intercept)", "(Int)"), ""
        elif kind in ("residual", "dispersion"):
            group = str(row["group"])
            variance = variance if kind == "residual" else ""
        else:
            group, shown = str(row["group"]) if new else "", row["group"]
            levels = str(int(row["levels"])) if new and not pd.isna(row["levels"]) else ""
        text = [group, name, str(row["class"])] if classes else [group, name]
        rows.append([*text, levels, variance, row["sd"], row["se"], row["ci_low"], row["ci_high"]])
    return _Block(columns, rows)


def _interval_names(fixed: pd.DataFrame) -> tuple[str, str]:
    names = fixed.columns[4:] if len(fixed.columns) == 6 else ("ci_low", "ci_high")
    return str(names[0]), str(names[1])


def _halves(header: Sequence[tuple[str, str]]) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Header pairs side by side: the first half on the left."""
    half = (len(header) + 1) // 2
    return list(zip_longest(header[:half], header[half:], fillvalue=("", "")))


def _header_lines(header: Sequence[tuple[str, str]]) -> list[str]:
    lines = []
    for left, right in _halves(header):
        room = WIDTH - 2 - _width("   ".join(right))
        # a long value on the left takes the room that its neighbour leaves
        width = max(_LEFT, min(_width("   ".join(left)), room))
        lines.append(_pair(*left, width) + "  " + _pair(*right, WIDTH - 2 - width))
    return lines


def _pair(label: str, value: str, width: int) -> str:
    """Label flush left, value flush right."""
    label, value = _printable(label), _printable(value)
    if _width(label) + 1 + _width(value) > width:
        label = _shorten(label, width // 2)
    room = width - _width(label) - 1
    value = _shorten_list(value, room) if "; " in value else _shorten(value, room)
    return label + " " * (width - _width(label) - _width(value)) + value


def _text_rows(block: _Block) -> list[str]:
    """The block's lines in text, its column names first."""
    cells = [[column.name for column in block.columns], *map(block.cells, block.rows)]
    cells = [[_printable(cell) for cell in row] for row in cells]
    widths = _share([max(map(_width, column)) for column in zip(*cells, strict=True)], block.columns)
    lefts = [column.left for column in block.columns]
    lines = []
    for row in cells:
        folded = [_fold(cell, width, "  " * left, _FOLDS) for cell, width, left in zip(row, widths, lefts, strict=True)]
        for parts in zip_longest(*folded, fillvalue=""):
            lines.append(" ".join(map(_pad, parts, widths, lefts)))
    return lines


def _share(needs: list[int], columns: Sequence[_Column]) -> list[int]:
    """Widths of the columns: text columns give what they do not need to the ones that lack it."""
    widths = [column.width for column in columns]
    text = [k for k, column in enumerate(columns) if column.decimals is None]
    for k in text:
        for giver in text:
            taken = min(max(needs[k] - widths[k], 0), max(widths[giver] - needs[giver], 0))
            widths[k] += taken
            widths[giver] -= taken
    return widths


def _number(value: float, decimals: int, width: int, tiny: bool) -> str:
    """The number with `decimals` decimals, with fewer or in scientific notation where it does not fit.

    >>> [_number(v, 3, 7, True) for v in (1.5, 12345.678, 1e12, 0.00012, float("nan"))]
    ['1.500', '12345.7', '1e+12', '0.00012', 'nan']
    """
    if not math.isfinite(value):
        return str(value)
    if value == 0 or abs(value) >= 10.0**-decimals or not tiny:
        for places in range(decimals, 0, -1):
            if len(text := f"{value:.{places}f}") <= width:
                return text
    digits = 4 if abs(value) >= 1 else 2
    return next(text for d in range(digits, 0, -1) if len(text := f"{value:.{d}g}") <= width or d == 1)


def _printable(text: str) -> str:
    """Line breaks, tabs and control signs become blanks."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _width(text: str) -> int:
    """Columns of a terminal that the text takes: East Asian wide signs two, combining signs none."""
    shown = [sign for sign in text if unicodedata.category(sign) not in ("Mn", "Me", "Cf")]
    return len(shown) + sum(unicodedata.east_asian_width(sign) in "WF" for sign in shown)


def _prefix(text: str, width: int) -> str:
    """The longest beginning of the text that is at most `width` columns wide."""
    used = 0
    for k, sign in enumerate(text):
        used += _width(sign)
        if used > width:
            return text[:k]
    return text


def _shorten(text: str, width: int) -> str:
    """The text, its middle replaced by "..." where it is wider than `width`."""
    text = _printable(text)
    if _width(text) <= width:
        return text
    head = _prefix(text, (width - 2) // 2)
    tail = _prefix(text[::-1], width - 3 - _width(head))[::-1]
    return f"{head}...{tail}"


def _shorten_list(text: str, width: int) -> str:
    """A list "a; b; c" cut behind an entry, with the number of its entries: "a; ... (3)"."""
    if _width(text) <= width:
        return text
    entries = text.split("; ")
    for kept in range(len(entries) - 1, 0, -1):
        short = f"{'; '.join(entries[:kept])}; ... ({len(entries)})"
        if _width(short) <= width:
            return short
    return _shorten(text, width)


def _fold(text: str, width: int, indent: str = "", most: float = math.inf) -> list[str]:
    """The text in at most `most` lines of at most `width` columns, broken behind a sign where one is near."""
    text = _printable(text)
    lines: list[str] = []
    while _width(text) > width and len(lines) < most - 1:
        cut = len(_prefix(text, width))
        for signs in _BREAK_AFTER:
            if breaks := [k + 1 for k in range(cut // 2, cut) if text[k] in signs]:
                cut = breaks[-1]
                break
        lines.append(text[:cut].rstrip())
        text = indent + text[cut:].lstrip()
    return [*lines, _shorten(text, width)]


def _pad(text: str, width: int, left: bool) -> str:
    blanks = " " * (width - _width(text))
    return text + blanks if left else blanks + text


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<~])", r"\\\1", _printable(text))


def _latex(text: str) -> str:
    """One text escaped by tabulate's own rules."""
    from tabulate import tabulate

    row = tabulate([[text]], tablefmt="latex", disable_numparse=True).splitlines()[2]
    return _latex_safe(row.removesuffix(r"\\").strip())


def _latex_safe(table: str) -> str:
    """A bar prints as a dash in LaTeX's default font; a bracket that opens a row is taken for an option."""
    return re.sub(r"^(\s*)\[", r"\1{[}", table.replace("|", r"\textbar{}"), flags=re.MULTILINE)
