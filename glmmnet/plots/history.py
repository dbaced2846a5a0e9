"""How the standard deviations came to rest over the EM iterations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from glmmnet.plots import PLOTS
from glmmnet.plots._base import COLOURS, GREY, Plotted, axes, name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OWN_COLOURS = 2 * len(COLOURS)  # with more components a grouping factor's share one colour


@PLOTS.register("history")
def history(results: Plotted, ax: Axes | None = None) -> Axes:
    """Standard deviations of the random effects, and of the residual, against the EM iteration.

    Parameters
    ----------
    results : GLMMNetResults
    ax : matplotlib Axes, optional

    Returns
    -------
    Axes
        The legend's entries stand in the order of the last values. A dotted line parts the phases.
    """
    from matplotlib.ticker import MaxNLocator

    ax = axes(ax, (7.0, 4.0))
    table = results.history
    names = [column for column in table.columns if column.startswith("sd[")]
    names.sort(key=lambda column: -table[column].iloc[-1])
    groups = sorted({_group(column) for column in names})
    few = len(names) <= _OWN_COLOURS
    labelled: set[str] = set()
    for k, column in enumerate(names):
        number = k if few else groups.index(_group(column))
        style = "-" if number < len(COLOURS) else "--"
        component = column[3:-1].removesuffix(", (Intercept)") if few else _group(column)
        label = None if component in labelled else name(component)
        labelled.add(component)
        ax.plot(
            table["iteration"],
            table[column],
            style,
            color=COLOURS[number % len(COLOURS)],
            linewidth=1.6 if few else 1.0,
            label=label,
        )
    if "sigma" in table:
        ax.plot(table["iteration"], table["sigma"], ":", color="black", linewidth=1.6, label="Residual")
    _mark_phases(ax, table)
    ax.set_xlabel("EM iteration")
    ax.set_ylabel(f"standard deviation ({results.family.link.scale})")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
    return ax


def _group(column: str) -> str:
    return column[3:-1].split(", ")[0]


def _mark_phases(ax: Axes, table: pd.DataFrame) -> None:
    """A line where a phase begins, and the phases' names above the axes."""
    phases = table["phase"]
    starts = table.loc[phases.ne(phases.shift()), ["iteration", "phase"]]
    if len(starts) < 2:
        return
    for k, (iteration, phase) in enumerate(starts.itertuples(index=False, name=None)):
        begin = iteration - 0.5 if k else iteration
        if k:
            ax.axvline(begin, color=GREY, linewidth=1, linestyle=":")
        ax.annotate(
            phase,
            (begin, 1),
            (3 if k else 0, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=GREY,
            fontsize="small",
        )
