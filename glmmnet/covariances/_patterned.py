"""Structures Sigma = D R D whose correlations R follow a pattern of few numbers, without a closed form in the M-step.

R is a function of angles w, correlations of their sines: unbounded, smooth, and on the boundary at finite values.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from glmmnet.covariances._base import Covariance, FactorEntries, diagonal_entries, lower_factor, moved_correlation

#: Step of the complex-step derivative, whose error is of its square.
_COMPLEX_STEP = 1e-20
#: Correlations that no matrix of the pattern has are shrunk by this factor until one has.
_SHRINK = 0.9
#: Deviance of a matrix that is singular to rounding.
_IMPOSSIBLE = 1e100
#: Angles of the M-step's search start no closer to the boundary, where its slope is 0.
_CLOSE = 1e-4


class PatternedCovariance(Covariance):
    """Standard deviations of the columns and a correlation matrix of few parameters rho.

    A subclass says how many (`n_correlations`), what R they make (`pattern`), how angles make them (`from_angles`) and
    are found back (`to_angles`), and which pairs show each of them (`pairs`).
    """

    @abstractmethod
    def n_correlations(self, r: int) -> int:
        """Number of parameters rho."""

    @abstractmethod
    def pattern(self, rho: np.ndarray, r: int) -> np.ndarray:
        """R (r, r) from rho, real or complex."""

    @abstractmethod
    def from_angles(self, angles: np.ndarray, r: int) -> np.ndarray:
        """Rho from angles, real or complex."""

    @abstractmethod
    def to_angles(self, rho: np.ndarray, r: int) -> np.ndarray:
        """Angles from rho; NaN where no correlation matrix has these rho."""

    @abstractmethod
    def pairs(self, r: int) -> list[np.ndarray]:
        """Pairs (i, j), i < j, that show each rho: arrays (m, 2); the first stands for it."""

    def read(self, shown: np.ndarray, r: int) -> np.ndarray:
        """Rho from the correlations of their pairs."""
        return shown

    def free(self, r: int) -> Tensor:
        return diagonal_entries(r)

    def deviations(self, r: int) -> list[tuple[int, ...]]:
        return [(i,) for i in range(r)]

    def correlations(self, r: int) -> list[tuple[int, int]]:
        return [(int(pairs[0, 0]), int(pairs[0, 1])) for pairs in self.pairs(r)]

    def correlation(self, sigma: Tensor, i: int, j: int) -> float:
        r = len(sigma)
        return float(self._rho(sigma.numpy())[self.correlations(r).index((i, j))])

    def factor_entries(self, r: int) -> FactorEntries:
        first = [columns[0] for columns in self.deviations(r)]
        angles = self.n_correlations(r)
        column = np.array(first + [-1] * angles, dtype=np.int64)
        return FactorEntries(column, column >= 0)

    def theta(self, sigma: np.ndarray) -> np.ndarray:
        return np.concatenate([self._sd(sigma), self._angles(sigma)])

    def factor(self, theta: np.ndarray, r: int) -> np.ndarray:
        count = len(self.deviations(r))
        correlation = self.pattern(self.from_angles(theta[count:], r), r)
        # A standard deviation's sign means nothing, so that a search may pass 0.
        factor: np.ndarray = self._of_columns(np.abs(theta[:count]), r)[:, None] * lower_factor(correlation)
        return factor

    def shifted(self, sigma: Tensor, shifts: dict[tuple[int, int], float]) -> Tensor:
        r = len(sigma)
        sd = self._sd(sigma.numpy())
        rho = torch.as_tensor(np.nan_to_num(self._rho(sigma.numpy())))
        first, second = [columns[0] for columns in self.deviations(r)], self.correlations(r)
        for (i, j), delta in shifts.items():
            if i == j:
                sd[first.index(i)] *= math.exp(delta)
            else:
                at = second.index((i, j))
                rho[at] = moved_correlation(rho[at], delta)
        of_columns = self._of_columns(sd, r)
        return torch.as_tensor(of_columns[:, None] * self.pattern(rho.numpy(), r) * of_columns)

    def project(self, matrix: Tensor) -> Tensor:
        r = matrix.shape[-1]
        flat = 0.5 * (matrix + matrix.mT).reshape(-1, r, r).numpy()
        return torch.as_tensor(np.stack([self._project_one(one) for one in flat])).reshape(matrix.shape)

    def _project_one(self, moment: np.ndarray) -> np.ndarray:
        """Maximise -log|Sigma| - tr(Sigma^-1 S) over log standard deviations and angles."""
        r = len(moment)
        groups = [[i for i in columns if moment[i, i] > 0] for columns in self.deviations(r)]
        # A variance of 0 stays 0, and its column says nothing of the others.
        kept = np.array(sorted(i for columns in groups for i in columns), dtype=np.int64)
        sigma = np.zeros_like(moment)
        if not len(kept):
            return sigma
        owner = np.array([next(g for g, columns in enumerate(groups) if i in columns) for i in kept])
        used, owner = np.unique(owner, return_inverse=True)
        part = moment[np.ix_(kept, kept)]
        unit = np.sqrt(np.diag(part))
        part = part / np.outer(unit, unit)
        start = np.concatenate([np.log(self._sd(moment)[used]), self._angles(moment)])

        def corner(angles: np.ndarray) -> np.ndarray:
            return self.pattern(self.from_angles(angles, r), r)[np.ix_(kept, kept)]

        def covariance(theta: np.ndarray) -> np.ndarray:
            sd = np.exp(theta[: len(used)])[owner] / unit
            inside: np.ndarray = sd[:, None] * corner(theta[len(used) :]) * sd
            return inside

        def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
            inside = covariance(theta)
            factor = lower_factor(inside)
            if not np.all(np.diag(factor) > 0):
                return _IMPOSSIBLE, np.zeros_like(theta)
            inverse = np.linalg.inv(inside)
            pulled = inverse @ part @ inverse
            slope = inverse - pulled
            sd = np.exp(theta[: len(used)])[owner] / unit
            of_sd = np.bincount(owner, 2 * np.sum(slope * inside, axis=1), minlength=len(used))
            of_angles = []
            for k in range(len(theta) - len(used)):
                angles = theta[len(used) :].astype(complex)
                angles[k] += 1j * _COMPLEX_STEP
                turned = corner(angles).imag / _COMPLEX_STEP
                of_angles.append(np.sum(slope * sd[:, None] * turned * sd))
            deviance = 2 * np.log(np.diag(factor)).sum() + np.sum(inverse * part)
            return float(deviance), np.append(of_sd, of_angles)

        limit = math.pi / 2 - _CLOSE
        start[len(used) :] = start[len(used) :].clip(-limit, limit)
        best = scipy.optimize.minimize(value, start, jac=True, method="BFGS", options={"gtol": 1e-9}).x
        scale = np.outer(unit, unit)
        sigma[np.ix_(kept, kept)] = scale * covariance(best)
        return sigma

    def _of_columns(self, sd: np.ndarray, r: int) -> np.ndarray:
        """Each column's standard deviation from those that are parameters."""
        out = np.empty(r)
        for value, columns in zip(sd, self.deviations(r), strict=True):
            out[list(columns)] = value
        return out

    def _sd(self, sigma: np.ndarray) -> np.ndarray:
        return np.sqrt([np.diag(sigma)[list(columns)].mean() for columns in self.deviations(len(sigma))])

    def _rho(self, sigma: np.ndarray) -> np.ndarray:
        """Rho of a matrix of the pattern, of any other by the average over the pairs; NaN where variances are 0."""
        sd = np.sqrt(np.diag(sigma))
        shown = []
        for pairs in self.pairs(len(sigma)):
            i, j = pairs.T
            # Sums, so that columns of hardly any variance do not count.
            size = float((sd[i] * sd[j]).sum())
            shown.append(float(sigma[i, j].sum()) / size if size > 0 else math.nan)
        return self.read(np.clip(shown, -1.0, 1.0), len(sigma))

    def _angles(self, sigma: np.ndarray) -> np.ndarray:
        r = len(sigma)
        rho = np.nan_to_num(self._rho(sigma))
        while np.isnan(angles := self.to_angles(rho, r)).any():
            rho = _SHRINK * rho
        return angles
