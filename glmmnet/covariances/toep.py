"""Toeplitz correlations: ``toep(0 + time | group)``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glmmnet.covariances import COVARIANCES
from glmmnet.covariances._patterned import PatternedCovariance


class Toeplitz(PatternedCovariance):
    """A variance a column and a correlation a lag |i - j|, as glmmTMB's ``toep()`` (heterogeneous).

    The angles' sines are partial autocorrelations: any in (-1, 1) make a positive definite R, and every R has some.

    References
    ----------
    Barndorff-Nielsen, Schou (1973), J. Multivariate Anal. 3(4), 408-419.
    """

    name = "toep"
    ordered = True
    spaced = True

    def n_correlations(self, r: int) -> int:
        return r - 1

    def pattern(self, rho: np.ndarray, r: int) -> np.ndarray:
        lags = np.arange(r)
        return np.append(1.0, rho)[np.abs(lags[:, None] - lags)]

    def from_angles(self, angles: np.ndarray, r: int) -> np.ndarray:
        rho, coefficients, error = np.zeros(0, angles.dtype), np.zeros(0, angles.dtype), 1.0
        for partial in np.sin(angles):
            rho = np.append(rho, coefficients @ rho[::-1] + partial * error)
            coefficients = np.append(coefficients - partial * coefficients[::-1], partial)
            error = error * (1.0 - partial**2)
        return rho

    def to_angles(self, rho: np.ndarray, r: int) -> np.ndarray:
        coefficients, error, partials = np.zeros(0), 1.0, np.zeros(r - 1)
        for k, value in enumerate(rho):
            if error > _NOTHING_LEFT:
                partials[k] = (value - coefficients @ rho[:k][::-1]) / error
            coefficients = np.append(coefficients - partials[k] * coefficients[::-1], partials[k])
            error = error * (1.0 - partials[k] ** 2)
        within = np.abs(partials) <= 1.0 + _NOTHING_LEFT
        return np.where(within, np.arcsin(np.clip(partials, -1.0, 1.0)), np.nan)

    def pairs(self, r: int) -> list[np.ndarray]:
        return [np.column_stack([np.arange(r - lag), np.arange(lag, r)]) for lag in range(1, r)]

    def correlation_name(self, names: Sequence[str], i: int, j: int) -> tuple[str, str]:
        return f"lag {j - i}", ""


#: Share of a variance that the lags before leave, below which further lags are determined by them.
_NOTHING_LEFT = 1e-12

COVARIANCES.register("toep")(Toeplitz())
