"""Fixed effects with their confidence intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from glmmnet.errors import OptionError, check_alpha
from glmmnet.plots import PLOTS
from glmmnet.plots._base import COLOURS, GREY, Plotted, axes, interval_label, name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@PLOTS.register("forest")
def forest(results: Plotted, ax: Axes | None = None, alpha: float = 0.05, intercept: bool = False) -> Axes:
    """Linear fixed effects with confidence intervals, in the order of the model.

    Parameters
    ----------
    results : GLMMNetResults
    ax : matplotlib Axes, optional
    alpha : float
        Intervals of level 1 - alpha.
    intercept : bool
        Show the intercepts, too: thresholds and those of other parts of the model (``zi:Intercept``) among them.

    Returns
    -------
    Axes
        Categorical families: one point a class beside each term.

    Raises
    ------
    TypeError
        `alpha` is no number.
    OptionError
        `alpha` is not between 0 and 1, or there is no effect to show.
    """
    alpha = check_alpha(alpha)
    params = results.params
    points = params.to_frame("") if isinstance(params, pd.Series) else params
    if not intercept:
        points = points.drop(index=list(results.intercepts))
    if points.empty:
        raise OptionError("The model has no linear fixed effects but intercepts; write intercept=True to see them.")
    ends = results.conf_int(alpha)
    ax = axes(ax, (6.0, max(3.0, 1.0 + 0.25 * points.size)))
    ax.axvline(0, color=GREY, linewidth=1, zorder=0)
    place = np.arange(len(points))[::-1]
    offsets = np.linspace(0.25, -0.25, points.shape[1]) if points.shape[1] > 1 else [0.0]
    for k, (label, offset) in enumerate(zip(points.columns, offsets, strict=True)):
        rows = points.index if isinstance(params, pd.Series) else [(term, label) for term in points.index]
        low, high = ends.loc[rows].to_numpy(float).T
        colour = COLOURS[k % len(COLOURS)]
        ax.hlines(place + offset, low, high, color=colour, linewidth=1.6)
        ax.plot(points[label], place + offset, "os^Dv*"[k % 6], color=colour, markersize=5, label=name(label))
    ax.set_yticks(place, [name(term) for term in points.index])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-0.6, len(points) - 0.4)
    ax.set_xlabel(f"coefficient ({results.family.link.scale}), {interval_label(alpha)}")
    if points.shape[1] > 1:
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small", title="class")
    return ax
