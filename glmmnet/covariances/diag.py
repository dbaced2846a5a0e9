"""Diagonal covariance, the `||` of the formula."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.covariances import COVARIANCES
from glmmnet.covariances._base import Covariance


class Diagonal(Covariance):
    """A variance a column, no correlations."""

    name = "diag"

    def free(self, r: int) -> Tensor:
        return torch.arange(r)[:, None].expand(r, 2)

    def project(self, matrix: Tensor) -> Tensor:
        return torch.diag_embed(torch.diagonal(matrix, dim1=-2, dim2=-1))


COVARIANCES.register("diag")(Diagonal())
