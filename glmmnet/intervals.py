"""Predictions with their uncertainty: intervals for the mean and for a new observation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
import torch
from torch import Tensor

from glmmnet.design import Design
from glmmnet.fitted import Fitted
from glmmnet.information import FixedCovariance, feature_columns
from glmmnet.prediction import (
    Request,
    conditional_draws,
    fixed_eta,
    marginal_mean,
    on_data,
    predict,
    prior_variance,
)

#: Random numbers of the simulated intervals start here after the fit's own seed.
_SEED_OFFSET = 1_000_003


@dataclass(frozen=True)
class PredictionResults:
    """Predictions with uncertainty; see :meth:`summary_frame`.

    Attributes
    ----------
    predicted_mean : Series or DataFrame
        As `predict` gives it, on the index of the data.
    mean_draws : ndarray, (n, k, S)
        The mean under draws of b and of the fixed part's sampling error.
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
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha={alpha!r} must lie between 0 and 1, e.g. 0.05.")
        ends = [alpha / 2, 1 - alpha / 2]
        low, high = np.quantile(self.mean_draws, ends, axis=2)
        values = {
            "mean": np.asarray(self.predicted_mean, dtype=float)[self.rows].reshape(low.shape),
            "mean_se": self.mean_draws.std(axis=2, ddof=1),
            "mean_ci_lower": low,
            "mean_ci_upper": high,
        }
        if self.new_draws.shape[1]:
            below, above = np.quantile(self.new_draws, ends, axis=1)
            values |= {"obs_ci_lower": below[:, None], "obs_ci_upper": above[:, None]}
        index = pd.MultiIndex.from_product([self.index, self.labels]) if self.labels else self.index
        full = np.full((len(self.index), low.shape[1]), np.nan)
        columns = {}
        for name, value in values.items():
            column = full.copy()
            column[self.rows] = value
            columns[name] = column.ravel()
        return pd.DataFrame(columns, index=index)


def predict_with_error(
    fitted: Fitted, covariance: FixedCovariance, design: Design, index: pd.Index, request: Request
) -> PredictionResults:
    """Predicted means of a design's rows with draws of their error; `index` is that of the data."""
    family = fitted.joint.family
    fixed = fixed_eta(fitted, design)
    draws = fitted.draws.b.shape[2]
    error = fixed_error_draws(fitted, covariance, design, draws)
    everything = slice(0, design.n)
    predicted = predict(fitted, design, request)
    new_eta = eta = fixed + error
    if request.level == "conditional":
        new_eta = eta = conditional_draws(fitted, design, everything, fixed, request) + error
        mean = family.mean(eta)
    elif request.level == "population" or not fitted.joint.terms:
        mean = family.mean(eta)
    else:
        variance = prior_variance(fitted, design.random, unseen_only=False)
        mean = torch.stack([marginal_mean(fitted, e[:, :, None], variance) for e in eta.unbind(dim=2)], dim=2)
        generator = torch.Generator().manual_seed(fitted.seed + _SEED_OFFSET)
        new_eta = eta + variance.sqrt()[:, :, None] * torch.randn(eta.shape, generator=generator, dtype=eta.dtype)
    labels = fitted.joint.target.labels if family.class_means else ()
    new = new_observations(fitted, design, new_eta).numpy()
    return PredictionResults(
        on_data(predicted, design, index),
        mean.numpy(),
        new,
        index,
        design.rows if len(index) != design.n else np.arange(design.n),
        labels,
    )


def fixed_error_draws(fitted: Fitted, covariance: FixedCovariance, design: Design, draws: int) -> Tensor:
    """Draws of the fixed part's sampling error, (n, C, S), from beta and the last layer together.

    Normal scores stratified over the draws, so that few draws already have the right variance.
    """
    columns = torch.tensor(design.X)
    features = feature_columns(fitted, design)
    if features is not None:
        columns = torch.cat([columns, features], dim=1)
    classes, m = fitted.joint.n_classes, columns.shape[1]
    if not m:
        return torch.zeros(design.n, classes, draws, dtype=torch.float64)
    rng = np.random.default_rng(fitted.seed + _SEED_OFFSET)
    scores = scipy.stats.norm.ppf((np.arange(draws) + 0.5) / draws)
    normal = torch.as_tensor(np.stack([rng.permutation(scores) for _ in range(m * classes)]))
    values, vectors = torch.linalg.eigh(covariance.matrix)
    errors = (vectors * values.clamp_min(0.0).sqrt()) @ normal
    return torch.einsum("nm,mcs->ncs", columns, errors.reshape(m, classes, draws))


def new_observations(fitted: Fitted, design: Design, eta: Tensor) -> Tensor:
    """A new observation at each linear predictor, (n, S), on the scale of the mean; seeded by the fit's seed."""
    y = fitted.joint.target.y
    if fitted.joint.family.class_means:
        return torch.zeros(design.n, 0, dtype=torch.float64)
    trials = torch.ones(design.n, y.shape[1], 1, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fitted.seed + _SEED_OFFSET)
        return fitted.joint.family.simulate(eta, trials, fitted.params.phi)
