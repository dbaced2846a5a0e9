"""Unstructured covariance: `|` in the formula, or ``us(effects | group)``."""

from __future__ import annotations

from torch import Tensor

from glmmnet.covariances import COVARIANCES
from glmmnet.covariances._base import EntrywiseCovariance, all_entries, symmetric


class Unstructured(EntrywiseCovariance):
    """Every variance and correlation is free."""

    name = "us"

    def free(self, r: int) -> Tensor:
        return all_entries(r)

    def project(self, matrix: Tensor) -> Tensor:
        return symmetric(matrix)


COVARIANCES.register("us")(Unstructured())
