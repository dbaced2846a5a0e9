"""Figures of a prediction: areas under ROC curves by ranks, explained variance, errors of f and of variances."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def auroc(y: np.ndarray, score: np.ndarray) -> float:
    """P(score of a positive row > that of a negative one), ties count half."""
    positive = np.asarray(y).astype(bool)
    n1, n0 = int(positive.sum()), int((~positive).sum())
    return float((rankdata(score)[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def multiclass_auroc(y: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """Macro averages over the classes: one against one (Hand and Till 2001) and one against the rest.

    Parameters
    ----------
    y : ndarray of int, (n,)
        Codes 0 to C - 1; every class must occur.
    p : ndarray, (n, C)
    """
    classes = p.shape[1]
    counts = np.bincount(y, minlength=classes)
    if not counts.all():
        raise ValueError(f"no row has class {int(np.argmin(counts))}; the area is not defined.")
    pairs, rest = np.zeros((classes, classes)), np.zeros(classes)
    for c in range(classes):
        own = np.sort(p[y == c, c])
        below = np.searchsorted(own, p[:, c], "left") + np.searchsorted(own, p[:, c], "right")
        above = 1 - below / (2 * counts[c])  # share of the class's rows that score above each row
        pairs[c] = np.bincount(y, above, classes) / counts
        rest[c] = above[y != c].mean()
    off_diagonal = ~np.eye(classes, dtype=bool)
    return float(pairs[off_diagonal].mean()), float(rest.mean())


def r2(y: np.ndarray, mean: np.ndarray) -> float:
    """Share of the variance of y that the means explain."""
    return float(1 - np.mean((y - mean) ** 2) / np.var(y))


def centred_mse(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Mean square difference of two functions on the same rows, each less its mean over the rows."""
    error = np.asarray(estimate) - np.asarray(truth)
    return float(np.mean((error - error.mean(axis=0)) ** 2))


def relative_error(estimate: float, truth: float) -> float:
    """|estimate - truth| / truth."""
    return abs(estimate - truth) / truth
