"""Wald's z, p-values and intervals from estimates and their standard errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats


def z_values(estimate: np.ndarray, se: np.ndarray) -> np.ndarray:
    """Estimates over their standard errors; NaN or infinite where those are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(estimate / se)


def p_values(z: np.ndarray) -> np.ndarray:
    """Two-sided, from the normal distribution."""
    return np.asarray(2 * scipy.stats.norm.sf(np.abs(z)))


def interval(estimate: np.ndarray, se: np.ndarray, alpha: float) -> np.ndarray:
    """Ends of the intervals of probability 1 - alpha of estimates (k,), (k, 2)."""
    half = scipy.stats.norm.ppf(1 - alpha / 2) * se
    return np.column_stack([estimate - half, estimate + half])


def coefficient_table(
    estimate: np.ndarray, se: np.ndarray, z: np.ndarray, alpha: float, names: Sequence[str]
) -> pd.DataFrame:
    """One row an estimate: coef, std err, z, P>|z| and the ends of the interval, ``[0.025`` and ``0.975]``."""
    low, high = interval(estimate, se, alpha).T
    columns = {"coef": estimate, "std err": se, "z": z, "P>|z|": p_values(z)}
    return pd.DataFrame({**columns, f"[{alpha / 2:g}": low, f"{1 - alpha / 2:g}]": high}, index=pd.Index(names))
