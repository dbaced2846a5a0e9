"""Diagonal covariance: `||` in the formula, or ``diag(effects | group)``."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.covariances import COVARIANCES
from glmmnet.covariances._base import EntrywiseCovariance, diagonal_entries


class Diagonal(EntrywiseCovariance):
    """A variance a column, no correlations."""

    name = "diag"

    def free(self, r: int) -> Tensor:
        return diagonal_entries(r)

    def project(self, matrix: Tensor) -> Tensor:
        return torch.diag_embed(torch.diagonal(matrix, dim1=-2, dim2=-1))


COVARIANCES.register("diag")(Diagonal())
