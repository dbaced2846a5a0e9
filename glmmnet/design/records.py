"""The design: everything that a formula makes of a data frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from glmmnet.typing import NeuralTerm, RandomTerm, Response


@dataclass(frozen=True)
class Design:
    """Response, matrices and codes of the used rows.

    Attributes
    ----------
    response : Response or None
        None where new data were built without it.
    X : ndarray of float64, (n, p)
    x_names : tuple of str, (p,)
        ``Intercept``, ``x``, ``c[T.b]``.
    x_variables : tuple of tuple of str, (p,)
        Data columns behind each column of `X`; empty for the intercept.
    neural : tuple of NeuralTerm
    random : tuple of RandomTerm
        Empty where new data were built without random effects.
    offset : ndarray of float64, (n,)
        Sum of the offsets, 0 without.
    weights : ndarray of float64, (n,), or None
    rows : ndarray of int64, (n,)
        Positions of the used rows in the data frame.
    index : Index, (n,)
        The data frame's index of the used rows.
    n_total : int
        Rows of the data frame.
    x_parts : tuple of str, (p,)
        Formula that each column of `X` stands in: ``""`` the main one, ``zi``, ``dispersion``.
    """

    response: Response | None
    X: np.ndarray
    x_names: tuple[str, ...]
    x_variables: tuple[tuple[str, ...], ...]
    neural: tuple[NeuralTerm, ...]
    random: tuple[RandomTerm, ...]
    offset: np.ndarray
    weights: np.ndarray | None
    rows: np.ndarray
    index: pd.Index
    n_total: int
    x_parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.x_parts:
            object.__setattr__(self, "x_parts", ("",) * len(self.x_names))

    @property
    def n(self) -> int:
        """Used rows."""
        return len(self.rows)

    @property
    def n_dropped(self) -> int:
        """Rows left out because of a missing value."""
        return self.n_total - len(self.rows)
