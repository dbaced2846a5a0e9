"""Plots of a fitted model: one file a plot, found by name as `results.plot.<name>(ax=None)`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from glmmnet._registry import Registry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOTS: Registry[Callable[..., Axes]] = Registry("plot", "glmmnet.plots")


class PlotAccessor:
    """The registered plots as methods: `plot.history(ax=None, **options)` draws on `ax` and returns it.

    Parameters
    ----------
    results : glmmnet.plots._base.Plotted
        The fitted model.
    """

    def __init__(self, results: Any) -> None:
        self._results = results

    def __getattr__(self, name: str) -> Callable[..., Axes]:
        # names with an underscore are asked for by copy and pickle before __init__ has run
        if name.startswith("_") or name not in PLOTS:
            raise AttributeError(f"There is no plot {name!r}; plots: {', '.join(PLOTS)}.")
        plot = partial(PLOTS[name], self._results)
        plot.__doc__ = PLOTS[name].__doc__
        return plot

    def __dir__(self) -> list[str]:
        return list(PLOTS)

    def __repr__(self) -> str:
        return f"<plots: {', '.join(PLOTS)}>"


__all__ = ["PLOTS", "PlotAccessor"]
