"""Compound symmetry: ``cs(effects | group)``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glmmnet.covariances import COVARIANCES
from glmmnet.covariances._base import all_entries
from glmmnet.covariances._patterned import PatternedCovariance


class CompoundSymmetry(PatternedCovariance):
    """A variance a column and one correlation of every pair, as glmmTMB's ``cs()`` (heterogeneous).

    The correlation lies between -1 / (r - 1) and 1.
    """

    name = "cs"

    def n_correlations(self, r: int) -> int:
        return int(r > 1)

    def pattern(self, rho: np.ndarray, r: int) -> np.ndarray:
        correlation = np.eye(r, dtype=rho.dtype)
        if len(rho):
            correlation[~np.eye(r, dtype=bool)] = rho[0]
        return correlation

    def from_angles(self, angles: np.ndarray, r: int) -> np.ndarray:
        lowest = _lowest(r)
        return 0.5 * (1.0 + lowest) + 0.5 * (1.0 - lowest) * np.sin(angles)

    def to_angles(self, rho: np.ndarray, r: int) -> np.ndarray:
        lowest = _lowest(r)
        return np.arcsin(np.clip((rho - 0.5 * (1.0 + lowest)) / (0.5 * (1.0 - lowest)), -1.0, 1.0))

    def pairs(self, r: int) -> list[np.ndarray]:
        entries = all_entries(r).numpy()
        return [entries[entries[:, 0] < entries[:, 1]]] if r > 1 else []

    def correlation_name(self, names: Sequence[str], i: int, j: int) -> tuple[str, str]:
        return ("all pairs", "") if len(names) > 2 else (names[i], names[j])


def _lowest(r: int) -> float:
    return -1.0 / max(r - 1, 1)


COVARIANCES.register("cs")(CompoundSymmetry())
