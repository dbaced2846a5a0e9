"""Tests of linear hypotheses about the fixed effects, and of nested models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats


@dataclass(frozen=True)
class ContrastResults:
    """z tests of linear combinations R beta = q, one by one.

    Attributes
    ----------
    effect, sd, tvalue, pvalue : ndarray, (m,)
        Estimated R beta, its standard error, the z value and its two-sided p-value.
    names : tuple of str
    """

    effect: np.ndarray
    sd: np.ndarray
    tvalue: np.ndarray
    pvalue: np.ndarray
    names: tuple[str, ...]

    def conf_int(self, alpha: float = 0.05) -> np.ndarray:
        """Intervals of R beta, (m, 2)."""
        check_alpha(alpha)
        half = scipy.stats.norm.ppf(1 - alpha / 2) * self.sd
        return np.column_stack([self.effect - half, self.effect + half])

    def summary_frame(self, alpha: float = 0.05) -> pd.DataFrame:
        """One row a combination: coef, std err, z, P>|z|, interval."""
        low, high = self.conf_int(alpha).T
        columns = {"coef": self.effect, "std err": self.sd, "z": self.tvalue, "P>|z|": self.pvalue}
        ends = {f"[{alpha / 2:g}": low, f"{1 - alpha / 2:g}]": high}
        return pd.DataFrame({**columns, **ends}, index=list(self.names))

    def __str__(self) -> str:
        return str(self.summary_frame().round(4))


@dataclass(frozen=True)
class WaldResult:
    """Wald test of several linear hypotheses at once: chi-squared statistic, its degrees of freedom, p-value."""

    statistic: float
    df: int
    pvalue: float

    def __str__(self) -> str:
        return f"Wald test: chi2({self.df}) = {self.statistic:.4f}, p = {self.pvalue:.4g}"


@dataclass(frozen=True)
class LRTResult:
    """Likelihood-ratio test of nested models.

    Attributes
    ----------
    statistic : float
        Twice the difference of the log-likelihoods.
    df : int
        Parameters the larger model has more.
    pvalue : float
        From the chi-squared distribution; where a variance is tested at 0 it is conservative.
    statistic_se : float
        Monte Carlo standard error of the statistic.
    """

    statistic: float
    df: int
    pvalue: float
    statistic_se: float

    def __str__(self) -> str:
        return f"LR test: chi2({self.df}) = {self.statistic:.4f} (MC se {self.statistic_se:.2g}), p = {self.pvalue:.4g}"


def check_alpha(alpha: float) -> None:
    """TypeError or ValueError unless alpha may be the error probability of an interval."""
    if isinstance(alpha, bool) or not isinstance(alpha, int | float | np.number):
        raise TypeError(f"alpha={alpha!r} must be a number between 0 and 1, e.g. 0.05.")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha!r} must lie between 0 and 1, e.g. 0.05.")


def check_contrasts(r: np.ndarray, names: list[str]) -> None:
    """ValueError unless each row of R constrains a coefficient, one column a name."""
    if r.ndim != 2 or r.shape[1] != len(names):
        raise ValueError(f"r_matrix has shape {r.shape}; it needs {len(names)} columns, one for each of {names}.")
    if not np.isfinite(r).all():
        raise ValueError("r_matrix holds values that are not finite.")
    if (empty := np.flatnonzero(~r.any(axis=1))).size:
        raise ValueError(f"row {empty[0]} of r_matrix is all zero; it constrains nothing.")


def t_test(estimate: np.ndarray, covariance: np.ndarray, r: np.ndarray, q: np.ndarray) -> ContrastResults:
    """Test each row of R beta = q."""
    effect = r @ estimate
    sd = np.sqrt(np.einsum("ij,jk,ik->i", r, covariance, r))
    z = (effect - q) / sd
    names = tuple(f"c{i}" for i in range(len(effect)))
    return ContrastResults(effect, sd, z, 2 * scipy.stats.norm.sf(np.abs(z)), names)


def wald_test(estimate: np.ndarray, covariance: np.ndarray, r: np.ndarray, q: np.ndarray) -> WaldResult:
    """Test all rows of R beta = q together."""
    difference = r @ estimate - q
    middle = r @ covariance @ r.T
    df = int(np.linalg.matrix_rank(middle))
    inverse = np.linalg.pinv(middle, hermitian=True)
    if np.abs(middle @ inverse @ difference - difference).max() > 1e-6 * np.abs(difference).max():
        raise ValueError("the hypotheses contradict each other, or constrain what the data do not identify.")
    statistic = float(difference @ inverse @ difference)
    return WaldResult(statistic, df, float(scipy.stats.chi2.sf(statistic, df)))


def lr_test(llf: float, df: int, restricted_llf: float, restricted_df: int, se: float) -> LRTResult:
    """Likelihood-ratio test of a model against one that it contains."""
    statistic = 2 * (llf - restricted_llf)
    extra = df - restricted_df
    if extra <= 0:
        raise ValueError(
            f"the other model has {restricted_df} parameters, this one {df}: compare the larger model with the "
            "smaller, larger.compare_lr_test(smaller)."
        )
    return LRTResult(statistic, extra, float(scipy.stats.chi2.sf(max(statistic, 0.0), extra)), 2 * se)
