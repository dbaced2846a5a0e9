"""Predictions: averaged over the draws of b, at b = 0, or with b integrated over its prior; known and unseen levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.api.extensions import ExtensionArray
from torch import Tensor

from glmmnet.design import Design
from glmmnet.errors import DesignError, OptionError
from glmmnet.families import Family
from glmmnet.fitted import Fitted
from glmmnet.points import gauss_hermite, in_random_order, points_and_weights
from glmmnet.random_terms import TermData
from glmmnet.spread import PriorSpread, Rows, prior_spread, relatives_of, spread_of, unknown_shares, unseen_shares
from glmmnet.typing import RandomTerm

LEVELS = ("conditional", "population", "marginal")
KINDS = ("mean", "link", "class")
NEW_LEVELS = ("population", "marginal", "error")

#: Numbers (rows x classes x draws) held at once.
_AT_ONCE = 8_000_000
#: Seed after the fit's own, of the effects of levels without data that a known correlation has.
_SEED_RELATIVES = 4_000_037
#: Points that integrate over several normal numbers; of fewer where many such integrals are only compared.
_POINTS, FEWER_POINTS = 1024, 256
#: Groups of like draws that stand for all where each is integrated further, and the points around each.
_POOLED, _AROUND = 60, 21


@dataclass(frozen=True)
class Request:
    """What is to be predicted.

    Attributes
    ----------
    level : {"conditional", "population", "marginal"}
    kind : {"mean", "link", "class"}
    new_levels : {None, "population", "marginal", "error"}
    """

    level: str = "conditional"
    kind: str = "mean"
    new_levels: str | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("level", self.level, LEVELS),
            ("kind", self.kind, KINDS),
            ("new_levels", self.new_levels, (None, *NEW_LEVELS)),
        ):
            if value not in known:
                raise OptionError(f"{name}={value!r}; write one of {', '.join(map(repr, known))}.")

    def integrates_unseen(self, family: Family) -> bool:
        """Whether ``conditional`` integrates the effects of unseen levels over their prior.

        By default of classes: at effect 0 those whose effects vary much have next to no probability, beside known
        levels whose probabilities are averaged over draws.
        """
        return self.new_levels == "marginal" or (self.new_levels is None and family.class_means)


def predict(fitted: Fitted, design: Design, request: Request) -> pd.Series | pd.DataFrame:
    """Predictions for the rows of `design`; rows of the data that had missing values get NaN.

    Returns
    -------
    Series or DataFrame
        On the index of the data; categorical: columns are class labels (``link``: names of linear predictors).
    """
    values = _link(fitted, design, request) if request.kind == "link" else _mean(fitted, design, request)
    if request.kind == "class":
        return _classes(fitted, design, values)
    labels: Any = fitted.joint.target.predictors if request.kind == "link" else fitted.joint.target.labels
    return as_frame(fitted, design, values, labels)


def as_frame(fitted: Fitted, design: Design, values: Tensor, labels: Any) -> pd.Series | pd.DataFrame:
    """Values (n, k) on the data's index; one column is a Series named as the response."""
    array = values.numpy()
    if array.shape[1] == 1 and not (fitted.joint.family.class_means and len(labels) > 1):
        return pd.Series(array[:, 0], index=design.index, name=_response_name(fitted))
    return pd.DataFrame(array, index=design.index, columns=pd.Index(labels, name=_response_name(fitted)))


def _response_name(fitted: Fitted) -> str:
    assert fitted.design.response is not None
    return fitted.design.response.label


def _classes(fitted: Fitted, design: Design, mean: Tensor) -> pd.Series:
    labels = fitted.joint.target.labels
    if not labels:
        raise OptionError(f"kind='class' needs a response with classes; family {fitted.joint.family.name!r} has none.")
    codes = (mean[:, 0] > 0.5).to(torch.int64) if mean.shape[1] == 1 else mean.argmax(dim=1)
    chosen = pd.array([labels[c] for c in codes.tolist()])
    return pd.Series(chosen, index=design.index, name=_response_name(fitted))


def fixed_eta(fitted: Fitted, design: Design) -> Tensor:
    """Offset + X beta + f for any design's rows, (n, C, 1)."""
    joint = fitted.joint
    offset = joint.loaded(torch.tensor(design.offset)[:, None])[:, :, None]
    return joint.sum_of_fixed(joint.columns_of(design), fitted.params.beta, fitted.network_output(design)) + offset


def _check_levels(design: Design, request: Request) -> None:
    if request.new_levels != "error" or request.level != "conditional":
        return
    for term in design.random:
        unseen = int((term.index < 0).sum())
        if unseen:
            raise DesignError(
                f"{unseen} rows have a level of `{term.group}` that is not in the training data; "
                "new_levels='population' predicts them with effect 0, 'marginal' with the effect integrated out."
            )


def random_eta(fitted: Fitted, terms: tuple[RandomTerm, ...], rows: Rows, draws: Tensor) -> Tensor:
    """Z b of some rows for draws of b (Q, C, S): (m, C, S).

    An unseen level has effect 0, a relative without data what is expected of it given the effects of the levels.
    """
    total = torch.zeros(1, dtype=draws.dtype)
    for known, term in zip(fitted.joint.terms, terms, strict=True):
        effects, place = with_relatives(known, term.index[rows], draws)
        total = total + _of_rows(known, place, term.z[rows], effects)
    return total


def with_relatives(known: TermData, index: np.ndarray, b: Tensor) -> tuple[Tensor, np.ndarray]:
    """Effects of a term's levels and of the relatives that occur, (q + k, r, C, S), and each row's place among them."""
    effects = b[known.rows].reshape(known.q, known.r, *b.shape[1:])
    which, of_row = relatives_of(known, index)
    if known.relation is None or not len(which):
        return effects, index
    expected = known.relation.over_levels(known.relation.regression(which), effects)
    return torch.cat([effects, expected]), np.where(of_row < 0, index, known.q + of_row)


def _of_rows(known: TermData, place: np.ndarray, z: np.ndarray, effects: Tensor) -> Tensor:
    """A term's share of eta, each row having the effects (k, r, C, S) at its place, none where that is -1."""
    picked = effects.flatten(1).index_select(0, torch.as_tensor(np.where(place < 0, 0, place)))
    picked = picked.reshape(len(place), *effects.shape[1:])
    columns = torch.tensor(np.where(place[:, None] < 0, 0.0, z)).to(effects.dtype)
    if known.loading is None:
        return torch.einsum("nr,nrcs->ncs", columns, picked)
    own = known.own_columns(columns)[:, :, None] * picked[:, :, 0]
    return torch.einsum("rc,nrs->ncs", known.loading.to(effects.dtype), own)


def _departures(fitted: Fitted, terms: tuple[RandomTerm, ...], rows: slice, draws: int) -> Tensor:
    """Z times how far relatives are from what is expected of them, drawn given the levels: (m, C, S).

    Drawn for all rows' relatives at once, so that blocks of rows agree on them.
    """
    total = torch.zeros(1, dtype=torch.float64)
    for k, (known, sigma, term) in enumerate(zip(fitted.joint.terms, fitted.params.sigma, terms, strict=True)):
        which, of_row = relatives_of(known, term.index)
        if known.relation is None or not len(which):
            continue
        generator = torch.Generator().manual_seed(fitted.seed + _SEED_RELATIVES + k)
        shape = (len(which), known.r, fitted.joint.n_classes, draws)
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        related = known.relation.over_levels(known.relation.conditional_root(which), normal)
        effects = torch.einsum("cij,qjcs->qics", covariance_root(sigma), related)
        total = total + _of_rows(known, of_row[rows], term.z[rows], effects)
    return total


def row_blocks(n: int, numbers_a_row: int) -> Iterator[slice]:
    """Slices of n rows that hold a limited count of numbers each."""
    size = max(1, _AT_ONCE // max(numbers_a_row, 1))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def conditional_draws(fitted: Fitted, design: Design, rows: slice, fixed: Tensor, request: Request) -> Tensor:
    """Linear predictor of some rows at every final draw of b: (m, C, S).

    A level that a known correlation has, but not the data, gets a draw given those of the levels, from the fit's seed;
    an unseen level one from its prior, if `request` integrates over it.
    """
    draws = fitted.draws.b
    if not design.random:
        return fixed[rows].expand(-1, -1, draws.shape[2])
    eta = fixed[rows] + random_eta(fitted, design.random, rows, draws)
    eta = eta + _departures(fitted, design.random, rows, eta.shape[2])
    if request.integrates_unseen(fitted.joint.family) and any((t.index[rows] < 0).any() for t in design.random):
        spread = spread_of(fitted, design.random, unseen_shares(design.random))[rows]
        eta = eta + spread.along(in_random_order(spread.dimensions, eta.shape[2], fitted.seed))
    return eta


def _link(fitted: Fitted, design: Design, request: Request) -> Tensor:
    """Mean of the linear predictor, (n, C); over the prior of b it is that at b = 0."""
    _check_levels(design, request)
    eta = fixed_eta(fitted, design)
    if request.level == "conditional" and design.random:
        eta = eta + random_eta(fitted, design.random, slice(0, design.n), fitted.mean_b)
    return eta[:, :, 0]


def _mean(fitted: Fitted, design: Design, request: Request) -> Tensor:
    """Mean of the response, (n, 1) or (n, classes)."""
    _check_levels(design, request)
    family, phi, fixed = fitted.joint.family, fitted.params.phi, fixed_eta(fitted, design)
    if request.level == "population" or not fitted.joint.terms:
        return family.mean(fixed, phi)[:, :, 0]
    if request.level == "marginal":
        return marginal_mean(fitted, fixed, prior_spread(fitted, design.random))
    if family.linear_mean:
        return family.mean(_link(fitted, design, request)[:, :, None], phi)[:, :, 0]
    return _conditional_mean(fitted, design, fixed, unseen=request.integrates_unseen(family))


def _conditional_mean(fitted: Fitted, design: Design, fixed: Tensor, *, unseen: bool) -> Tensor:
    """E of the mean over the draws of b, and what these leave unknown: effects of relatives, of `unseen` levels."""
    family, phi, draws = fitted.joint.family, fitted.params.phi, fitted.draws.b
    spread = spread_of(fitted, design.random, unknown_shares(fitted, design.random, unseen=unseen))
    unknown = spread.root.flatten(1).any(dim=1).numpy()
    drawn = np.any([term.index >= 0 for term in design.random], axis=0)
    mean = family.mean(fixed, phi)[:, :, 0]
    alone = np.flatnonzero(unknown & ~drawn)
    mean[alone] = marginal_mean(fitted, fixed[alone], spread[alone])
    for rows in _blocks_of(np.flatnonzero(drawn & ~unknown), fixed.shape[1] * draws.shape[2]):
        eta = fixed[rows] + random_eta(fitted, design.random, rows, draws)
        mean[rows] = family.mean(eta, phi).mean(dim=2)
    numbers = fixed.shape[1] * max(_POINTS, _AROUND * _POOLED, draws.shape[2])
    for rows in _blocks_of(np.flatnonzero(drawn & unknown), numbers):
        eta = fixed[rows] + random_eta(fitted, design.random, rows, draws)
        mean[rows] = _mean_beyond_draws(fitted, eta, spread[rows])
    return mean


def _blocks_of(rows: np.ndarray, numbers_a_row: int) -> Iterator[np.ndarray]:
    """The rows, a limited count of numbers at a time."""
    return (rows[block] for block in row_blocks(len(rows), numbers_a_row))


def _mean_beyond_draws(fitted: Fitted, eta: Tensor, spread: PriorSpread) -> Tensor:
    """E of the mean over draws of some rows' linear predictors (m, C, S), and over what is spread around each."""
    if spread.dimensions == 1:
        nodes, share = gauss_hermite(1, _AROUND)
        eta = _pooled(eta)
        around = (eta[..., None] + spread.along(nodes)[:, :, None]).flatten(2)
        return _weighted_mean(fitted, around, share.repeat(eta.shape[2]) / eta.shape[2])
    copies = max(round(_POINTS / eta.shape[2]), 1)
    noise = in_random_order(spread.dimensions, copies * eta.shape[2], fitted.seed)
    share = torch.full((noise.shape[2],), 1 / noise.shape[2], dtype=torch.float64)
    return _weighted_mean(fitted, eta.repeat_interleave(copies, dim=2) + spread.along(noise), share)


def _pooled(eta: Tensor) -> Tensor:
    """Means of neighbours among the draws (m, C, S) of predictors that all move along one line, (m, C, few).

    Their spread is smaller by far than what is integrated around them, and many points around each draw take long.
    """
    if eta.shape[2] <= _POOLED:
        return eta
    widest = int(eta.std(dim=2).sum(dim=0).argmax())
    order = eta[:, widest].argsort(dim=1)[:, None].expand_as(eta)
    return torch.nn.functional.adaptive_avg_pool1d(eta.gather(2, order), _POOLED)


def _weighted_mean(fitted: Fitted, eta: Tensor, share: Tensor) -> Tensor:
    """Mean of the response over linear predictors (m, C, S) with weights (S,), without values that eta cannot have."""
    family, phi = fitted.joint.family, fitted.params.phi
    if family.link.least_eta == -np.inf:
        # Not as a product of matrices, which rounds equal rows differently.
        return (family.mean(eta, phi) * share).sum(dim=2)
    # 1 / eta has no mean over all values.
    inside = share * (eta[:, :1] > family.link.least_eta)
    return (family.mean(eta, phi) * inside).sum(dim=2) / inside.sum(dim=2)


def marginal_mean(fitted: Fitted, fixed: Tensor, spread: PriorSpread, points: int = _POINTS) -> Tensor:
    """E of the mean over the prior of b: quadrature in up to two dimensions, `points` evenly spread ones in more."""
    family, phi = fitted.joint.family, fitted.params.phi
    if family.linear_mean or not len(fixed):
        return family.mean(fixed, phi)[:, :, 0]
    nodes, share = points_and_weights(spread.dimensions, points, fitted.seed)
    blocks = row_blocks(len(fixed), fixed.shape[1] * len(share))
    return torch.cat([_weighted_mean(fitted, fixed[rows] + spread[rows].along(nodes), share) for rows in blocks])


def on_data(values: pd.Series | pd.DataFrame, design: Design, index: pd.Index) -> pd.Series | pd.DataFrame:
    """Predictions of the design's rows on the whole index of the data; the other rows are NaN."""
    if len(index) == design.n:
        return values
    position = np.full(len(index), -1)
    position[design.rows] = np.arange(design.n)
    spread = values.reset_index(drop=True).reindex(position)
    spread.index = index
    return spread


def simulate(fitted: Fitted, n: int, seed: int, level: str) -> pd.DataFrame:
    """Simulated responses of the training rows, (rows, n)."""
    Request(level)
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise OptionError(f"n={n!r} must be a whole number of replicates, 1 or more.")
    joint, family = fitted.joint, fitted.joint.family
    columns = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for replicate in range(n):
            eta = fitted.fixed
            if joint.terms and level == "marginal":
                eta = eta + joint.random_eta(_prior_draw(fitted))
            elif joint.terms and level == "conditional":
                pick = replicate % fitted.draws.b.shape[2]
                eta = eta + joint.random_eta(fitted.draws.b[:, :, pick, None].to(torch.float64))
            columns.append(family.simulate(eta, joint.target.y, joint.row_phi(fitted.params.phi))[:, 0].numpy())
    if not joint.target.labels:
        return pd.DataFrame(np.column_stack(columns), index=fitted.design.index)
    classes = _class_labels(fitted)
    labelled = {replicate: classes.take(codes.astype(int)) for replicate, codes in enumerate(columns)}
    return pd.DataFrame(labelled, index=fitted.design.index)


def _class_labels(fitted: Fitted) -> ExtensionArray:
    """Class labels (classes,) of a type that a model takes as it took the data."""
    response = fitted.design.response
    assert response is not None
    # Plain text would be sorted, and lose the order of the classes, or which of the two is the success.
    dtype = pd.CategoricalDtype(list(response.levels), response.ordered) if response.kind == "categorical" else None
    return pd.Series(fitted.joint.target.labels, dtype=dtype).array


def covariance_root(sigma: Tensor) -> Tensor:
    """Factors of covariances (C, r, r), which may be singular."""
    values, vectors = torch.linalg.eigh(sigma)
    return vectors * values.clamp_min(0.0).sqrt()[:, None]


def _prior_draw(fitted: Fitted) -> Tensor:
    parts = []
    for term, sigma in zip(fitted.joint.terms, fitted.params.sigma, strict=True):
        factor = covariance_root(sigma)
        normal = torch.randn(term.q, term.r, fitted.joint.n_classes, dtype=torch.float64)
        if term.relation is not None:
            normal = term.relation.over_levels(term.relation.root, normal)
        parts.append(torch.einsum("cij,qjc->qic", factor, normal).reshape(-1, fitted.joint.n_classes, 1))
    return torch.cat(parts)
