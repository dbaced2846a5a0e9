"""Densities of the estimated effects, and where one row of data stands in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import gaussian_kde

from glmmnet.plots import PLOTS
from glmmnet.plots._base import COLOURS, GREY, Plotted, axes, choose, effect_column, effect_tables, name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 0.8  # of a ridge, in distances between baselines
_POINTS = 256


@PLOTS.register("random_effects")
def random_effects(
    results: Plotted,
    ax: Axes | None = None,
    row: pd.DataFrame | int | None = None,
    term: str | None = None,
    class_: Any = None,
) -> Axes:
    """One ridge a grouping factor: the density of its levels' posterior means.

    Parameters
    ----------
    results : GLMMNetResults
    ax : matplotlib Axes, optional
    row : DataFrame of one row, or int, optional
        Data whose own effects are marked, or its position in the training data.
    term : str, optional
        Random column; the first one of the first grouping factor when not given. Grouping factors without
        it have no ridge.
    class_ : class label, optional
        Linear predictor of a categorical family; the first one when not given.

    Returns
    -------
    Axes

    Raises
    ------
    OptionError
        The model has no random effects; no grouping factor has the term; the class does not exist.

    Notes
    -----
    Ridges are scaled to one height. A factor whose levels number fewer than three, or do not differ, is shown
    as ticks.
    """
    tables = effect_tables(results)
    known = list(dict.fromkeys(label for table in tables.values() for label in table.columns.unique(0)))
    term = choose("term", term, known)
    groups = [group for group, table in tables.items() if term in table.columns.unique(0)]
    own = None if row is None else _own_effects(results, row)
    ax = axes(ax, (6.0, max(4.0, 1.2 + 0.7 * len(groups))))
    ax.axvline(0, color=GREY, linewidth=1, zorder=0)
    for k, group in enumerate(reversed(groups)):
        column, title = effect_column(tables[group], group, term, class_)
        colour = COLOURS[(len(groups) - 1 - k) % len(COLOURS)]
        _ridge(ax, tables[group][column].to_numpy(float), k, colour)
        if own is not None:
            mine = own[(own["group"] == group) & (own["term"] == term)]
            if isinstance(column, tuple):
                mine = mine[mine["class"] == column[1]]
            # One effect may add to several linear predictors.
            mine = mine.drop_duplicates(["level", "effect"])
            # A level such as 10:30 alone reads like a time of day.
            _mark(ax, mine, k, f"{group} " if ":" in group else "")
    ax.set_yticks(range(len(groups)), [name(group) for group in reversed(groups)])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(-0.25, len(groups) - 0.05)
    ax.set_xlabel(f"effect on the {results.family.link.scale}")
    ax.set_title(name(title.split(": ", 1)[1], 60), fontsize="medium")
    return ax


def _own_effects(results: Plotted, row: pd.DataFrame | int) -> pd.DataFrame:
    """The random effects among the parts of one row's linear predictors."""
    parts = results.explain(row)
    return parts[parts["part"] == "random"]


def _ridge(ax: Axes, effects: np.ndarray, base: int, colour: str) -> None:
    """The density of the effects above its baseline."""
    if len(effects) < 3 or np.ptp(effects) == 0:
        ax.plot(effects, np.full(len(effects), base), "|", color=colour, markersize=12)
        return
    density = gaussian_kde(effects)
    margin = 3 * float(np.sqrt(density.covariance[0, 0]))
    grid = np.linspace(effects.min() - margin, effects.max() + margin, _POINTS)
    height = density(grid)
    curve = base + _HEIGHT * height / height.max()
    ax.fill_between(grid, base, curve, color=colour, alpha=0.35, linewidth=0)
    ax.plot(grid, curve, color=colour, linewidth=1.4)


def _mark(ax: Axes, mine: pd.DataFrame, base: int, prefix: str) -> None:
    """One row's own effect: a point on the baseline with the level's name after `prefix`, and the effect."""
    for level, effect in mine[["level", "effect"]].itertuples(index=False, name=None):
        ax.plot([effect, effect], [base, base + 0.3], color="black", linewidth=1)
        ax.plot(effect, base, "o", color="black", markersize=5, clip_on=False)
        ax.annotate(
            f"{name(prefix)}{name(level)}  {effect:+.2f}",
            (effect, base + 0.3),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        )
