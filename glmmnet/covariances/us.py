"""Unstructured covariance, the `|` of the formula."""

from __future__ import annotations

from torch import Tensor

from glmmnet.covariances import COVARIANCES
from glmmnet.covariances._base import Covariance, all_entries, symmetric


class Unstructured(Covariance):
    """Every variance and correlation is free."""

    name = "us"

    def free(self, r: int) -> Tensor:
        return all_entries(r)

    def project(self, matrix: Tensor) -> Tensor:
        return symmetric(matrix)


COVARIANCES.register("us")(Unstructured())
