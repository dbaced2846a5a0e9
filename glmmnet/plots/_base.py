"""What the plots share: the results they read, an axes to draw on, colours, names that print as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from glmmnet.errors import OptionError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart with every kind of colour vision; yellow is too light for lines
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#767676"


class Plotted(Protocol):
    """What a fitted model has to offer to be plotted.

    Attributes
    ----------
    family : Family
        Its `link` has `scale`, what the linear predictor is measured in, and `domain`.
    history : DataFrame
        One row an EM iteration: iteration, phase, deviance, valid_deviance, ``sd[group, term]`` or
        ``sd[group, term, class]``, and sigma where the family has one.
    random_effects, random_effects_sd : dict of str to DataFrame
        A grouping factor's posterior means and sds, levels x terms; categorical: columns (term, class).
    fittedvalues, resid_pearson : Series, (n,), or DataFrame, (n, classes)
    params : Series, or DataFrame term x class
    intercepts : tuple of str
        Rows of `params` that are intercepts or thresholds.
    """

    family: Any
    history: pd.DataFrame
    random_effects: Mapping[str, pd.DataFrame]
    random_effects_sd: Mapping[str, pd.DataFrame]
    fittedvalues: pd.Series | pd.DataFrame
    resid_pearson: pd.Series | pd.DataFrame
    params: pd.Series | pd.DataFrame
    intercepts: tuple[str, ...]

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Ends of the intervals in two columns, rows as `params`; categorical: rows (term, class)."""
        ...

    def explain(self, row: pd.DataFrame | int) -> pd.DataFrame:
        """The parts of one row's linear predictors; ``random`` ones have group, term, level, effect and maybe class."""
        ...


def axes(ax: Axes | None, size: tuple[float, float] = (6.0, 4.0)) -> Axes:
    """The given axes, or one in a new figure of `size` inches; without its upper and right border."""
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=size, layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def effect_tables(results: Plotted) -> Mapping[str, pd.DataFrame]:
    """The random effects of each grouping factor; OptionError when the model has none."""
    if not results.random_effects:
        raise OptionError("The model has no random effects to show; add a term such as (1 | g) to the formula.")
    return results.random_effects


def choose(kind: str, value: Any, known: Sequence[Any]) -> Any:
    """`value`, or the first of `known` when it is None; OptionError when it is none of them."""
    if value is None:
        return known[0]
    if value not in known:
        raise OptionError(f"{kind} is {value!r}; write one of {', '.join(map(repr, known))}.")
    return value


def name(text: object, length: int = 24) -> str:
    """A name that prints as it is: no dollar opens a formula, no underscore hides it from the legend."""
    shown = str(text)
    if len(shown) > length:
        shown = shown[: length - 8] + "..." + shown[-5:]
    return shown.replace("$", r"\$").replace("_", " _", 1 if shown.startswith("_") else 0)


def effect_column(frame: pd.DataFrame, group: str, term: str | None, class_: Any) -> tuple[Any, str]:
    """The column of a random-effects table, and its title; the first one of what is not given.

    Parameters
    ----------
    frame : DataFrame, levels x terms, or levels x (term, class)
    group : str
    term : str, optional
    class_ : class label, optional
        Only for a categorical family.
    """
    if frame.columns.nlevels == 1:
        if class_ is not None:
            raise OptionError(f"class_ is {class_!r}, but the family has no classes; leave class_ out.")
        term = choose("term", term, list(frame.columns))
        return term, f"{group}: {term}"
    term = choose("term", term, list(frame.columns.unique(0)))
    class_ = choose("class_", class_, list(frame[term].columns))
    return (term, class_), f"{group}: {term}, class {class_}"


def interval_label(alpha: float) -> str:
    """Name of the interval that leaves out the share `alpha`, e.g. "95% interval"."""
    return f"{100 * (1 - alpha):g}% interval"
