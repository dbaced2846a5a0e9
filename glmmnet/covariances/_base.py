"""What every covariance structure answers: which working matrices it allows, its M-step, its factor parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Covariance(ABC):
    """Structure of Sigma, the (r, r) covariance of a random term's columns; C independent copies for C classes."""

    name: str

    @abstractmethod
    def free(self, r: int) -> Tensor:
        """Entries (i, j) of the working matrix A, and of Sigma's lower Cholesky factor, that may differ from 0: (m, 2).

        The same entries serve both when the structure is closed under A S A'.
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

    def factor_entries(self, r: int) -> Tensor:
        """Entries of the lower Cholesky factor of Sigma that are parameters, (m, 2)."""
        entries = self.free(r)
        return entries[entries[:, 0] >= entries[:, 1]]

    def n_parameters(self, r: int) -> int:
        """Number of variance parameters a class."""
        return len(self.factor_entries(r))

    def correlations(self, r: int) -> list[tuple[int, int]]:
        """Pairs (i, j), i < j, of columns whose correlation is a parameter."""
        return [(int(j), int(i)) for i, j in self.factor_entries(r).tolist() if i != j]


def symmetric(matrix: Tensor) -> Tensor:
    """The symmetric part."""
    return 0.5 * (matrix + matrix.transpose(-1, -2))


def all_entries(r: int) -> Tensor:
    """Every index pair of an (r, r) matrix."""
    return torch.cartesian_prod(torch.arange(r), torch.arange(r)).reshape(-1, 2)
