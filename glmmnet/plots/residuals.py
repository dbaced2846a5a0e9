"""Pearson residuals against the fitted mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from glmmnet.errors import OptionError
from glmmnet.plots import PLOTS
from glmmnet.plots._base import COLOURS, GREY, Plotted, axes, choose, name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 5000  # more rows are shown as counts in hexagons
_BIN_ROWS = 10  # rows in a bin of the trend, at least


@PLOTS.register("residuals")
def residuals(results: Plotted, ax: Axes | None = None, class_: Any = None) -> Axes:
    """Pearson residuals against fitted means, with binned means as their trend.

    Parameters
    ----------
    results : GLMMNetResults
    ax : matplotlib Axes, optional
    class_ : class label, optional
        Class of a categorical family; the first one when not given. The title names it.

    Returns
    -------
    Axes
        The trend's bins hold equally many rows; bars are two standard errors of a bin's mean. A trend away
        from zero says that the mean is not well described.

    Raises
    ------
    OptionError
        There is no such class.
    """
    fitted, resid = results.fittedvalues, results.resid_pearson
    title = ""
    if isinstance(fitted, pd.DataFrame) and isinstance(resid, pd.DataFrame):
        class_ = choose("class_", class_, list(fitted.columns))
        fitted, resid, title = fitted[class_], resid[class_], f"class {name(class_)}"
    elif class_ is not None:
        raise OptionError(f"class_ is {class_!r}, but the family has no classes; leave class_ out.")
    ax = axes(ax)
    x, y = np.asarray(fitted, dtype=float), np.asarray(resid, dtype=float)
    if len(x) > _POINTS:
        ax.hexbin(x, y, gridsize=50, bins="log", cmap="Greys", mincnt=1, linewidths=0.1, rasterized=True)
    else:
        ax.plot(x, y, "o", color=GREY, alpha=0.35, markersize=3, markeredgewidth=0)
    ax.axhline(0, color="black", linewidth=0.8)
    centre, mean, error = _binned(x, y)
    ax.errorbar(
        centre,
        mean,
        2 * error,
        fmt="o-",
        color=COLOURS[1],
        markersize=3.5,
        linewidth=1.4,
        label="binned mean, 2 se",
    )
    ax.legend(loc="best", frameon=False, fontsize="small")
    probability = results.family.link.domain == (0.0, 1.0)
    ax.set_xlabel("fitted probability" if probability else "fitted mean (units of the response)")
    ax.set_ylabel("Pearson residual")
    ax.set_title(title, fontsize="medium")
    return ax


def _binned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of x and y in bins of equally many rows along x, and the standard error of y's mean."""
    bins = int(np.clip(len(x) // _BIN_ROWS, 1, min(40, max(1, round(np.sqrt(len(x)))))))
    parts = np.array_split(np.argsort(x, kind="stable"), bins)
    centre = np.array([x[rows].mean() for rows in parts])
    mean = np.array([y[rows].mean() for rows in parts])
    error = np.array([y[rows].std() / np.sqrt(max(len(rows) - 1, 1)) for rows in parts])
    return centre, mean, error
