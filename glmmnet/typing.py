"""Records that travel between the floors, and the protocols that plug-ins fulfil.

Shape letters: n rows, p columns of X, q levels, r columns of a random term, S draws; C linear predictors a row, a class
each, 2 with a zero part or a modelled dispersion, else 1; K coefficients a column of X and O outputs of the network, C
of a categorical response, else 1; Q rows of b, the sum of q * r over the random terms; D = Q times the copies of b.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from torch import Tensor

ResponseKind = Literal["numeric", "boolean", "categorical", "counts"]

#: What `weights=` means, see :func:`glmmnet.glmm`.
WeightKind = Literal["frequency", "precision"]

#: phi as families take it: one number, or a Tensor that broadcasts against (n, S), e.g. a dispersion a row, (n, 1).
Dispersion = float | Tensor


@dataclass(frozen=True)
class Response:
    """The left side of a formula, as found in the data; families decide what it means.

    Attributes
    ----------
    label : str
        The left side as written.
    kind : {"numeric", "boolean", "categorical", "counts"}
        ``counts`` comes from ``p(k, n)`` or ``cbind(k, n - k)``.
    values : ndarray
        numeric: (n,) float64; boolean: (n,) bool; categorical: (n,) int64 codes into `levels`; counts: (n, 2)
        float64, successes and trials.
    levels : tuple
        The categorical response's levels as in the data (category order, else sorted); empty for other kinds.
    ordered : bool
        The levels are ordered categories.
    """

    label: str
    kind: ResponseKind
    values: np.ndarray
    levels: tuple[Any, ...] = ()
    ordered: bool = False


@dataclass(frozen=True)
class RandomTerm:
    """One random term: level codes plus row covariates; a dense Z never exists.

    Attributes
    ----------
    label : str
        As in the formula, canonical: ``(1 + x | g)``.
    group : str
        ``g`` or ``a:b``.
    names : tuple of str, (r,)
        Columns of z, the intercept as ``(Intercept)``.
    structure : str
        Name of the covariance structure: ``us`` for ``|``, ``diag`` for ``||``, else the word of the formula.
    levels : pandas.Index, (q,)
        Levels in the training data, sorted; of an interaction ``"a:b"`` strings.
    index : ndarray of int64, (n,)
        Level of each row; -1 where the level is unseen in training (new data only). A level that the known correlation
        has and training had not is q + its position among `relatives` (new data only).
    z : ndarray of float64, (n, r)
    positions : tuple of int, (r,)
        Times of the columns where the structure has an order; empty otherwise, and for new data.
    correlation : ndarray of float64, (q + m, q + m), or None
        Known correlation A of the levels and then of `relatives`, of ``gr(g, cov=A)``; None otherwise, and for new
        data.
    relatives : pandas.Index, (m,)
        Levels that A has and the training data have not.
    part : str
        Formula that the term stands in: ``""`` the main one, ``zi``, ``dispersion``.
    """

    label: str
    group: str
    names: tuple[str, ...]
    structure: str
    levels: pd.Index
    index: np.ndarray
    z: np.ndarray
    positions: tuple[int, ...] = ()
    correlation: np.ndarray | None = None
    relatives: pd.Index = field(default_factory=lambda: pd.Index([], dtype=object))
    part: str = ""


@dataclass(frozen=True)
class NeuralTerm:
    """One nn() block: raw (unstandardised) inputs and the options written in the formula.

    Attributes
    ----------
    label : str
        As written: ``nn(x1 + x2)``.
    name : str
        Option ``name=``, else the label.
    names : tuple of str, (d,)
        Input columns; categoricals are one-hot without a dropped level.
    variables : tuple of str
        The data columns that the block reads.
    x : ndarray of float32, (n, d)
    categorical : tuple of (int, int)
        Column ranges [start, stop) of `x` that are one one-hot coded variable each.
    options : dict
        layers, activation, dropout, weight_decay, net, embed, bins, as far as written.
    """

    label: str
    name: str
    names: tuple[str, ...]
    variables: tuple[str, ...]
    x: np.ndarray
    categorical: tuple[tuple[int, int], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SamplerState:
    """Where a chain stands: position u (D,) and the step size it has found (None: not yet tuned)."""

    u: Tensor
    step_size: float | None = None


@dataclass(frozen=True)
class Draws:
    """Draws of one chain.

    Attributes
    ----------
    u : Tensor, (S, D)
    stats : dict of str to ndarray, each (S,)
        diverging (bool), energy, tree_depth, n_steps, acceptance_rate, lp (log density), step_size.
    state : SamplerState
        Where the chain may go on.
    """

    u: Tensor
    stats: dict[str, np.ndarray]
    state: SamplerState


class LogDensity(Protocol):
    """An unnormalised log density with its analytic gradient: u (D,) -> (scalar Tensor, gradient (D,))."""

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]: ...


class Metric(Protocol):
    """A mass matrix M (D, D) for Hamiltonian samplers."""

    def momentum(self) -> Tensor:
        """A draw from N(0, M), (D,), from torch's global generator."""
        ...

    def velocity(self, momentum: Tensor) -> Tensor:
        """M^-1 momentum, (D,)."""
        ...

    def pull(self, u: Tensor) -> Tensor:
        """M u, (D,)."""
        ...


class Sampler(Protocol):
    """Draws from exp(logdensity). Knows no families, terms or networks."""

    name: str

    def draw(
        self,
        logdensity: LogDensity,
        state: SamplerState,
        *,
        draws: int,
        warmup: int = 0,
        metric: Metric | None = None,
    ) -> Draws:
        """Run one chain from `state`: `warmup` transitions that tune the step size, then `draws` kept ones.

        `metric` None is the unit mass matrix, right for whitened coordinates.
        """
        ...
