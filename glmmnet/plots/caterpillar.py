"""A grouping factor's levels in the order of their effects, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm

from glmmnet.errors import OptionError, check_alpha
from glmmnet.plots import PLOTS
from glmmnet.plots._base import COLOURS, GREY, Plotted, axes, choose, effect_column, effect_tables, interval_label, name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELLED = 60  # with more levels only the extremes are named
_EXTREMES = 3


@PLOTS.register("caterpillar")
def caterpillar(
    results: Plotted,
    ax: Axes | None = None,
    group: str | None = None,
    term: str | None = None,
    class_: Any = None,
    top: int | None = None,
    alpha: float = 0.05,
) -> Axes:
    """Posterior means of one random effect with their intervals, sorted.

    Parameters
    ----------
    results : GLMMNetResults
    ax : matplotlib Axes, optional
    group, term : str, optional
        Grouping factor and random column; the first ones when not given. The title names them.
    class_ : class label, optional
        Linear predictor of a categorical family; the first one when not given.
    top : int, optional
        Only so many levels, those with the largest absolute effect.
    alpha : float
        The intervals hold 1 - alpha of a normal posterior with the level's mean and sd.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        `top` is no whole number; `alpha` is no number.
    OptionError
        The model has no random effects; there is no such group, term or class; `top` is below 1; `alpha` is not between
        0 and 1.
    """
    alpha = check_alpha(alpha)
    if top is not None:
        _check_top(top)
    tables = effect_tables(results)
    group = choose("group", group, list(tables))
    column, title = effect_column(tables[group], group, term, class_)
    mean = tables[group][column]
    if top is not None:
        mean = mean.loc[mean.abs().nlargest(top).index]
    mean = mean.sort_values()
    half = norm.isf(alpha / 2) * results.random_effects_sd[group][column].loc[mean.index].to_numpy()
    few = len(mean) <= _LABELLED
    ax = axes(ax, (6.0, max(4.0, 0.8 + 0.15 * len(mean))) if few else (6.0, 4.0))

    rank = np.arange(len(mean))
    ax.axvline(0, color=GREY, linewidth=1, zorder=0)
    width, size = (1.4, 4.0) if few else (0.6, 1.2)
    colour = COLOURS[0] if few else "#A6C8E0"
    ax.hlines(rank, mean - half, mean + half, color=colour, linewidth=width, rasterized=len(mean) > 2000)
    ax.plot(mean, rank, "o", color=COLOURS[0], markersize=size)
    ax.set_ylim(-1, len(mean))
    if few:
        room = ax.get_window_extent().height * 72 / ax.figure.dpi / (len(mean) + 1)
        labels = [name(level) for level in mean.index]
        ax.set_yticks(rank, labels, fontsize=float(np.clip(0.9 * room, 3, 9)))
        ax.tick_params(axis="y", length=0)
    else:
        _name_extremes(ax, [name(level) for level in mean.index])
    ax.set_xlabel(f"effect on the {results.family.link.scale}, {interval_label(alpha)}")
    ax.set_title(f"{name(title, 60)}" + ("" if top is None else f" (top {len(mean)})"), fontsize="medium")
    return ax


def _check_top(top: object) -> None:
    if isinstance(top, bool) or not isinstance(top, int | np.integer):
        raise TypeError(f"top is {top!r}; write how many levels to show, a whole number.")
    if top < 1:
        raise OptionError(f"top is {top!r}; write how many levels to show, 1 or more.")


def _name_extremes(ax: Axes, names: list[str]) -> None:
    """Name the lowest and the highest levels beside the cloud, on the side that it leaves free."""
    ax.set_yticks([])
    ax.set_ylabel(f"{len(names)} levels, sorted")
    low = "\n".join(reversed(names[:_EXTREMES]))
    high = "\n".join(reversed(names[-_EXTREMES:]))
    ax.text(0.98, 0.03, f"lowest:\n{low}", transform=ax.transAxes, ha="right", va="bottom", fontsize="small")
    ax.text(0.02, 0.97, f"highest:\n{high}", transform=ax.transAxes, ha="left", va="top", fontsize="small")
