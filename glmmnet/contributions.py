"""What each part of a model adds to the linear predictor of one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from glmmnet.design import Design
from glmmnet.fitted import Fitted
from glmmnet.prediction import with_relatives
from glmmnet.random_terms import TermData
from glmmnet.spread import relatives_of
from glmmnet.typing import RandomTerm

_COLUMNS = ["part", "group", "term", "level", "class", "value", "effect", "contribution", "sd"]
_UNSEEN = "(unseen)"


def contributions(fitted: Fitted, design: Design, position: int, sds: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a part of eta, see :meth:`glmmnet.results.GLMMNetResults.explain`.

    Parameters
    ----------
    fitted : Fitted
    design : Design
        Holds the row.
    position : int
        Of the row in `design`.
    sds : mapping of str to DataFrame
        Posterior standard deviations of the random effects, by grouping factor.

    Raises
    ------
    IndexError
        There is no such row.
    """
    if not -design.n <= position < design.n:
        raise IndexError(f"row {position} is not among the {design.n} rows.")
    rows = [*_offset(fitted, design, position), *_fixed(fitted, design, position), *_blocks(fitted, design, position)]
    seen = dict.fromkeys(sds, 0)
    for known, term, sigma in zip(fitted.joint.terms, design.random, fitted.params.sigma, strict=True):
        width = known.r * fitted.joint.n_classes
        own = slice(seen[known.group], seen[known.group] + width)
        seen[known.group] += width
        rows += _random(fitted, known, term, position, sigma, sds[known.group].iloc[:, own])
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    return frame.drop(columns="class") if fitted.joint.target.predictors == ("",) else frame


def _row(part: str, term: str, class_: str, contribution: Any, **more: Any) -> dict[str, Any]:
    empty = {"group": "", "level": "", "value": np.nan, "effect": np.nan, "sd": np.nan}
    return {**empty, "part": part, "term": term, "class": class_, "contribution": float(contribution), **more}


def _offset(fitted: Fitted, design: Design, position: int) -> Iterator[dict[str, Any]]:
    if not fitted.design_state.spec.offsets:
        return
    value = torch.full((1, 1), design.offset[position], dtype=torch.float64)
    each = fitted.joint.loaded(value).expand(1, fitted.joint.n_predictors)[0]
    for c, label in _touched(fitted, fitted.joint.f_loading):
        yield _row("offset", "offset", label, each[c])


def _touched(fitted: Fitted, loading: Tensor | None) -> list[tuple[int, str]]:
    """The linear predictors, number and name, that something with this loading (C,) adds to."""
    every = list(enumerate(fitted.joint.target.predictors))
    return every if loading is None else [(c, label) for c, label in every if float(loading[c]) != 0.0]


def _fixed(fitted: Fitted, design: Design, position: int) -> Iterator[dict[str, Any]]:
    joint, columns = fitted.joint, fitted.joint.columns_of(design)
    for k, name in enumerate(joint.x_names):
        loading = None if columns.loading is None else columns.loading[k]
        for c, label in _touched(fitted, loading):
            x = float(columns.values[position, k]) * (1.0 if loading is None else float(loading[c]))
            coefficient = float(fitted.params.beta[k, c if loading is None else 0])
            yield _row("fixed", name, label, x * coefficient, value=x, effect=coefficient)


def _blocks(fitted: Fitted, design: Design, position: int) -> Iterator[dict[str, Any]]:
    for block, share in zip(design.neural, fitted.block_shares(design), strict=True):
        each = fitted.joint.loaded(share[[position]])[0]
        for c, label in _touched(fitted, fitted.joint.f_loading):
            yield _row("nn", block.label, label, each[c])


def _random(
    fitted: Fitted, known: TermData, term: RandomTerm, position: int, sigma: Tensor, sds: pd.DataFrame
) -> Iterator[dict[str, Any]]:
    level = int(term.index[position])
    shown = _UNSEEN if level < 0 else [*term.levels, *term.relatives][level]
    mean, sd = _effects(fitted, known, term, position, sigma, sds)
    z = known.own_columns(torch.as_tensor(term.z[[position]]))[0]
    for i, name in enumerate(known.names):
        loading = None if known.loading is None else known.loading[i]
        for c, label in _touched(fitted, loading):
            value = float(z[i]) * (1.0 if loading is None else float(loading[c]))
            effect, own = (float(one[i, c if loading is None else 0]) for one in (mean, sd))
            more = {"group": known.group, "level": shown, "value": value, "effect": effect, "sd": abs(value) * own}
            yield _row("random", name, label, value * effect, **more)


def _effects(
    fitted: Fitted, known: TermData, term: RandomTerm, position: int, sigma: Tensor, sds: pd.DataFrame
) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation of the effects of a row's level, each (r, C)."""
    index, prior = term.index[[position]], sigma.diagonal(dim1=1, dim2=2).T
    level = int(index[0])
    if level < 0:
        return torch.zeros_like(prior), prior.sqrt()
    effects, (place,) = with_relatives(known, index, fitted.draws.b.to(torch.float64))
    mean = effects[place].mean(dim=-1)
    if level < known.q:
        return mean, torch.tensor(sds.iloc[level].to_numpy(float)).reshape(prior.shape)
    assert known.relation is not None
    left = known.relation.conditional_variance(relatives_of(known, index)[0]) * prior
    return mean, (effects[place].var(dim=-1) + left).sqrt()
