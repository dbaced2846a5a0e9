"""Predictions with their uncertainty: intervals for the mean and for a new observation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.stats
import torch
from torch import Tensor

from glmmnet.design import Design
from glmmnet.errors import check_alpha
from glmmnet.fitted import Fitted
from glmmnet.fixed_errors import FixedCovariance, feature_columns
from glmmnet.fixed_part import FixedColumns
from glmmnet.prediction import (
    FEWER_POINTS,
    Request,
    conditional_draws,
    fixed_eta,
    marginal_mean,
    on_data,
    predict,
    random_eta,
    row_blocks,
)
from glmmnet.spread import prior_spread

#: Seeds after the fit's own, apart so that nothing correlates: coefficients, b of a new level, a new observation.
_SEED_ERRORS, _SEED_LEVELS, _SEED_NEW = 1_000_003, 2_000_003, 3_000_017
#: Numbers (rows x classes x draws) that are kept; of many rows fewer draws, but so many at least.
_KEPT, _FEWEST_DRAWS = 20_000_000, 200
#: Copies of a block's draws that are held at once.
_COPIES = 4


@dataclass(frozen=True)
class PredictionResults:
    """Predictions with uncertainty; see :meth:`summary_frame`.

    Attributes
    ----------
    predicted_mean : Series or DataFrame
        As `predict` gives it, on the index of the data.
    mean_draws : ndarray, (n, k, S)
        The mean under draws of b and of the fixed part's sampling error, which the posterior mean of b follows. Of more
        than 20 million numbers S is not all of the final draws, but as many as that allows, or 200.
    new_draws : ndarray, (n, S)
        A new observation under each of these draws; (n, 0) for classes, which have no interval.
    index : pandas.Index
        Of the data.
    rows : ndarray of int, (n,)
        Positions of the predicted rows in `index`; the others had missing values.
    labels : tuple
        Class labels; empty unless categorical.
    """

    predicted_mean: pd.Series | pd.DataFrame
    mean_draws: np.ndarray
    new_draws: np.ndarray
    index: pd.Index
    rows: np.ndarray
    labels: tuple[object, ...]

    def summary_frame(self, alpha: float = 0.05) -> pd.DataFrame:
        """Mean, its standard error and interval, and the interval of a new observation.

        Parameters
        ----------
        alpha : float
            1 - alpha is the probability of the intervals.

        Returns
        -------
        DataFrame
            Columns mean, mean_se, mean_ci_lower, mean_ci_upper, obs_ci_lower, obs_ci_upper; a row a row of the data,
            categorical: a row (row, class), without obs_ci.

        Raises
        ------
        TypeError, OptionError
            `alpha` is no number, or not between 0 and 1.
        """
        alpha = check_alpha(alpha)
        ends = [alpha / 2, 1 - alpha / 2]
        low, high = _quantiles(self.mean_draws, ends)
        values = {
            "mean": np.asarray(self.predicted_mean, dtype=float)[self.rows].reshape(low.shape),
            "mean_se": self.mean_draws.std(axis=2, ddof=1),
            "mean_ci_lower": low,
            "mean_ci_upper": high,
        }
        if self.new_draws.shape[1]:
            below, above = _quantiles(self.new_draws[:, None], ends)
            values |= {"obs_ci_lower": below, "obs_ci_upper": above}
        index = pd.MultiIndex.from_product([self.index, self.labels]) if self.labels else self.index
        full = np.full((len(self.index), low.shape[1]), np.nan)
        columns = {}
        for name, value in values.items():
            column = full.copy()
            column[self.rows] = value
            columns[name] = column.ravel()
        return pd.DataFrame(columns, index=index)


def _quantiles(draws: np.ndarray, probabilities: list[float]) -> np.ndarray:
    """Quantiles over the last axis of (n, k, S), a block of rows at a time since numpy copies what it sorts."""
    out = np.empty((len(probabilities), *draws.shape[:2]))
    for rows in row_blocks(len(draws), _COPIES * draws.shape[1] * draws.shape[2]):
        out[:, rows] = np.quantile(draws[rows], probabilities, axis=2)
    return out


def _with_fewer_draws(fitted: Fitted, numbers_a_draw: int) -> Fitted:
    """The same fit with draws evenly spaced among the final ones, so few that they can be kept for every row."""
    draws = fitted.draws
    total = draws.b.shape[2]
    most = min(total, max(_KEPT // max(numbers_a_draw, 1), _FEWEST_DRAWS))
    keep = torch.as_tensor(np.linspace(0, total - 1, most).round().astype(int))
    return replace(fitted, draws=replace(draws, b=draws.b[:, :, keep], chains=1, draws=most, stats={}))


def predict_with_error(
    fitted: Fitted,
    covariance: FixedCovariance,
    design: Design,
    index: pd.Index,
    request: Request,
    trials: np.ndarray | None = None,
) -> PredictionResults:
    """Predicted means of a design's rows with draws of their error.

    `index` is that of the data, `trials` (n,) are those of a new observation in each row, 1 unless given.
    """
    family = fitted.joint.family
    predicted = predict(fitted, design, request)
    fixed = fixed_eta(fitted, design)
    labels = fitted.joint.target.labels if family.class_means else ()
    fitted = _with_fewer_draws(fitted, design.n * fixed.shape[1])
    errors = coefficient_errors(fitted, covariance)
    columns = error_columns(fitted, design)
    by_column = errors.reshape(columns.values.shape[1], fitted.joint.n_coefficients, errors.shape[1])
    shift = -torch.einsum("qck,ks->qcs", covariance.pull, errors) if request.level == "conditional" else None
    counts = torch.ones(design.n, fitted.joint.target.y.shape[1], 1, dtype=torch.float64)
    if trials is not None:
        counts[:, -1, 0] = torch.as_tensor(trials)
    draws = errors.shape[1]
    means = np.empty((design.n, max(len(labels), 1), draws))
    new = np.empty((design.n, 0 if family.class_means else draws))
    for rows in row_blocks(design.n, _COPIES * fixed.shape[1] * draws):
        error = FixedColumns(columns.values[rows], columns.loading).eta(by_column)
        if shift is not None and design.random:
            error = error + random_eta(fitted, design.random, rows, shift)
        mean, new_eta = _mean_and_new_eta(fitted, design, rows, fixed, error, request)
        means[rows] = mean.numpy()
        new[rows] = _new_observations(fitted, new_eta, counts[rows], rows.start).numpy()
    return PredictionResults(
        on_data(predicted, design, index),
        means,
        new,
        index,
        design.rows if len(index) != design.n else np.arange(design.n),
        labels,
    )


def _mean_and_new_eta(
    fitted: Fitted, design: Design, rows: slice, fixed: Tensor, error: Tensor, request: Request
) -> tuple[Tensor, Tensor]:
    """Draws of the mean of some rows, (m, k, S), and of a new observation's linear predictor, (m, C, S)."""
    family = fitted.joint.family
    if request.level == "conditional":
        eta = conditional_draws(fitted, design, rows, fixed, request) + error
        return family.mean(eta, fitted.params.phi), eta
    eta = fixed[rows] + error
    if request.level == "population" or not fitted.joint.terms:
        return family.mean(eta, fitted.params.phi), eta
    spread = prior_spread(fitted, design.random)[rows]
    means = [marginal_mean(fitted, one[:, :, None], spread, FEWER_POINTS) for one in eta.unbind(dim=2)]
    generator = torch.Generator().manual_seed(fitted.seed + _SEED_LEVELS + rows.start)
    return torch.stack(means, dim=2), eta + spread.draw(eta.shape[2], generator)


def error_columns(fitted: Fitted, design: Design) -> FixedColumns:
    """X and the last layer's columns of a design's rows: what :func:`coefficient_errors` multiply."""
    columns = fitted.joint.columns_of(design)
    features = feature_columns(fitted, design)
    return columns if features is None else columns.beside(features, fitted.joint.f_loading)


def coefficient_errors(fitted: Fitted, covariance: FixedCovariance) -> Tensor:
    """Draws of the sampling error of beta and the last layer together, (m C, S).

    Normal scores stratified over the draws, so that few draws already have the right variance.
    """
    draws, size = fitted.draws.b.shape[2], len(covariance.matrix)
    if not size:
        return torch.zeros(0, draws, dtype=torch.float64)
    rng = np.random.default_rng(fitted.seed + _SEED_ERRORS)
    scores = scipy.stats.norm.ppf((np.arange(draws) + 0.5) / draws)
    normal = torch.as_tensor(np.stack([rng.permutation(scores) for _ in range(size)]))
    # By way of correlations, so that columns of very different scale keep their digits.
    se = covariance.matrix.diagonal().clamp_min(0.0).sqrt()
    values, vectors = torch.linalg.eigh(covariance.matrix / (se[:, None] * se).clamp_min(1e-300))
    return se[:, None] * (vectors * values.clamp_min(0.0).sqrt()) @ normal


def _new_observations(fitted: Fitted, eta: Tensor, counts: Tensor, start: int) -> Tensor:
    """A new observation at each linear predictor, (m, S), on the scale of the mean; seeded by the fit's seed.

    `counts` (m, k, 1) is shaped as the response: of successes out of trials, the latter are read.
    """
    if fitted.joint.family.class_means:
        return torch.zeros(len(eta), 0, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fitted.seed + _SEED_NEW + start)
        drawn = fitted.joint.family.simulate(eta, counts, fitted.params.phi)
    return drawn / counts[:, 1].clamp_min(1.0) if counts.shape[1] == 2 else drawn
