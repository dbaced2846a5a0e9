"""First-order autoregression: ``ar1(0 + time | group)``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np

from glmmnet.covariances import COVARIANCES
from glmmnet.covariances._patterned import PatternedCovariance


class Autoregression(PatternedCovariance):
    """One variance, correlations rho^|t_i - t_j| at whole times t, as glmmTMB's ``ar1()`` but at the true times.

    Time is counted in the greatest common divisor of the distances, so that every rho in (-1, 1) is another model.

    Parameters
    ----------
    times : sequence of int, (r,), optional
        Points in time of the columns, increasing; 0, 1, ... unless given.
    """

    name = "ar1"
    ordered = True
    tied = True

    def __init__(self, times: Sequence[int] = ()) -> None:
        self._times = tuple(times)

    def at(self, positions: Sequence[int]) -> Self:
        return type(self)(positions)

    def n_correlations(self, r: int) -> int:
        return int(r > 1)

    def deviations(self, r: int) -> list[tuple[int, ...]]:
        return [tuple(range(r))]

    def pattern(self, rho: np.ndarray, r: int) -> np.ndarray:
        if not len(rho):
            return np.eye(r, dtype=rho.dtype)
        distances = np.abs(np.subtract.outer(self._steps(r), self._steps(r)))
        power = rho.real[0] ** distances
        if not np.iscomplexobj(rho):
            return power
        # numpy's complex power loses an imaginary part that is tiny.
        return power + 1j * rho.imag[0] * distances * rho.real[0] ** np.maximum(distances - 1, 0)

    def from_angles(self, angles: np.ndarray, r: int) -> np.ndarray:
        return np.sin(angles)

    def to_angles(self, rho: np.ndarray, r: int) -> np.ndarray:
        return np.arcsin(rho)

    def pairs(self, r: int) -> list[np.ndarray]:
        if r < 2:
            return []
        return [np.argwhere(self._steps(r) - self._steps(r)[:, None] == self._shown(r))]

    def read(self, shown: np.ndarray, r: int) -> np.ndarray:
        rho: np.ndarray = np.sign(shown) * np.abs(shown) ** (1.0 / self._shown(r)) if r > 1 else shown
        return rho

    def deviation_name(self, names: Sequence[str], i: int) -> str:
        return names[i].partition("[")[0]

    def correlation_name(self, names: Sequence[str], i: int, j: int) -> tuple[str, str]:
        times = self._times or (0, 1)
        return f"lag {math.gcd(*np.diff(times).tolist())}", ""

    def _steps(self, r: int) -> np.ndarray:
        """Times of the columns in units of the greatest common divisor of their distances."""
        times = np.array(self._times or range(r), dtype=np.int64)
        return (times - times[0]) // max(math.gcd(*np.diff(times).tolist()), 1)

    def _shown(self, r: int) -> int:
        """The shortest odd distance, which shows the sign of rho; there is one, as the divisor is 1."""
        distances = np.abs(np.subtract.outer(self._steps(r), self._steps(r)))
        return int(distances[distances % 2 == 1].min())


COVARIANCES.register("ar1")(Autoregression())
