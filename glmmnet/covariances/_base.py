"""What every covariance structure answers: working matrices, M-step, factor, and its variance parameters one by one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class FactorEntries:
    """What the numbers theta behind a factor of Sigma belong to, arrays (m,).

    Attributes
    ----------
    column : ndarray of int
        The column of z whose standard deviation grows with the number; -1 for an angle, a number that shapes
        correlations alone and puts them on their boundary at odd multiples of pi / 2.
    pivot : ndarray of bool
        A 0 here is a variance of 0 or a correlation of +-1.
    """

    column: np.ndarray
    pivot: np.ndarray


class Covariance(ABC):
    """Structure of Sigma, the (r, r) covariance of a random term's columns; C independent copies for C classes.

    Attributes
    ----------
    name : str
        The word of the formula.
    ordered : bool
        The columns are points in time: the effects are one ordered factor or whole-number column.
    spaced : bool
        These points are equally spaced.
    tied : bool
        The working matrix is a multiple of the identity: the entries of :meth:`free` are one number.
    """

    name: str
    ordered = False
    spaced = False
    tied = False

    def at(self, positions: Sequence[int]) -> Self:
        """The structure for columns at these points in time, (r,); only ``ar1`` looks at them."""
        return self

    @abstractmethod
    def free(self, r: int) -> Tensor:
        """Entries (i, j) of the working matrix A that may differ from those of the identity: (m, 2).

        The structure is closed under A S A'.
        """

    @abstractmethod
    def project(self, matrix: Tensor) -> Tensor:
        """The structured matrix nearest to a symmetric `matrix` (..., r, r) in likelihood."""

    def expand(self, second_moment: Tensor, working: Tensor) -> Tensor:
        """Sigma after one parameter-expanded M-step: A S A'.

        Parameters
        ----------
        second_moment : Tensor, (C, r, r)
            Mean of b b' over draws and levels, in squared units of the linear predictor.
        working : Tensor, (C, r, r)
            The working matrix A that maximises the expected complete-data log-likelihood.

        Returns
        -------
        Tensor, (C, r, r)

        References
        ----------
        Liu, Rubin, Wu (1998), Biometrika 85(4), 755-770, section 4.
        """
        return self.project(working @ self.project(second_moment) @ working.transpose(-1, -2))

    @abstractmethod
    def factor_entries(self, r: int) -> FactorEntries:
        """What the numbers of :meth:`theta` belong to."""

    @abstractmethod
    def theta(self, sigma: np.ndarray) -> np.ndarray:
        """Unbounded numbers (m,) that :meth:`factor` makes a factor of `sigma` (r, r) of."""

    @abstractmethod
    def factor(self, theta: np.ndarray, r: int) -> np.ndarray:
        """Lower triangular F (r, r) with Sigma = F F'."""

    @abstractmethod
    def deviations(self, r: int) -> list[tuple[int, ...]]:
        """Columns that share one standard deviation; each column in one of the tuples."""

    @abstractmethod
    def correlations(self, r: int) -> list[tuple[int, int]]:
        """A pair (i, j), i < j, of columns for each correlation parameter; the pair stands for it."""

    @abstractmethod
    def correlation(self, sigma: Tensor, i: int, j: int) -> float:
        """The correlation parameter of `sigma` (r, r) that a pair stands for; NaN where variances of 0 leave none."""

    @abstractmethod
    def shifted(self, sigma: Tensor, shifts: dict[tuple[int, int], float]) -> Tensor:
        """`sigma` (r, r) with each log standard deviation (i, i) and Fisher z (i, j) moved by its shift."""

    def deviation_name(self, names: Sequence[str], i: int) -> str:
        """What tables call the standard deviation of column i."""
        return names[i]

    def correlation_name(self, names: Sequence[str], i: int, j: int) -> tuple[str, str]:
        """What tables call the correlation that a pair stands for: two columns, or one name and nothing."""
        return names[i], names[j]


class EntrywiseCovariance(Covariance):
    """A structure whose entries of the factor and correlations are each free or 0."""

    def _lower(self, r: int) -> np.ndarray:
        entries = self.free(r).numpy()
        return entries[entries[:, 0] >= entries[:, 1]]

    def factor_entries(self, r: int) -> FactorEntries:
        entries = self._lower(r)
        return FactorEntries(entries[:, 0], entries[:, 0] == entries[:, 1])

    def theta(self, sigma: np.ndarray) -> np.ndarray:
        entries = self._lower(len(sigma))
        return lower_factor(sigma)[entries[:, 0], entries[:, 1]]

    def factor(self, theta: np.ndarray, r: int) -> np.ndarray:
        entries = self._lower(r)
        factor = np.zeros((r, r))
        factor[entries[:, 0], entries[:, 1]] = theta
        return factor

    def deviations(self, r: int) -> list[tuple[int, ...]]:
        return [(i,) for i in range(r)]

    def correlations(self, r: int) -> list[tuple[int, int]]:
        return [(int(j), int(i)) for i, j in self._lower(r).tolist() if i != j]

    def correlation(self, sigma: Tensor, i: int, j: int) -> float:
        scale = float((sigma[i, i] * sigma[j, j]).sqrt())
        return float(sigma[i, j]) / scale if scale > 0 else math.nan

    def shifted(self, sigma: Tensor, shifts: dict[tuple[int, int], float]) -> Tensor:
        sd = torch.diagonal(sigma).sqrt()
        correlation = sigma / (sd[:, None] * sd[None, :]).clamp_min(1e-300)
        sd = sd.clone()
        for (i, j), delta in shifts.items():
            if i == j:
                sd[i] *= float(np.exp(delta))
            else:
                correlation[i, j] = correlation[j, i] = moved_correlation(correlation[i, j], delta)
        return correlation * sd[:, None] * sd[None, :]


def moved_correlation(value: Tensor, delta: float) -> Tensor:
    """A correlation whose Fisher z is moved by `delta`."""
    return torch.tanh(torch.atanh(value.clamp(-0.999999, 0.999999)) + delta)


def lower_factor(sigma: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor of a positive semi-definite matrix; a pivot of 0 makes a column of 0."""
    factor = np.zeros_like(sigma)
    for j in range(len(sigma)):
        column = sigma[j:, j] - factor[j:, :j] @ factor[j, :j]
        if column[0] > 1e-14 * sigma[j, j]:
            factor[j:, j] = column / math.sqrt(column[0])
    return factor


def symmetric(matrix: Tensor) -> Tensor:
    """The symmetric part."""
    return 0.5 * (matrix + matrix.transpose(-1, -2))


def all_entries(r: int) -> Tensor:
    """Every index pair of an (r, r) matrix."""
    return torch.cartesian_prod(torch.arange(r), torch.arange(r)).reshape(-1, 2)


def diagonal_entries(r: int) -> Tensor:
    """Index pairs of the diagonal of an (r, r) matrix."""
    return torch.arange(r)[:, None].expand(r, 2)
