"""Columns of the fixed part as tensors: what their coefficients add to each linear predictor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glmmnet.design import Design
from glmmnet.errors import DesignError
from glmmnet.families import Target


@dataclass(frozen=True)
class FixedColumns:
    """Columns of the fixed part, and what they add to each of the C linear predictors.

    Attributes
    ----------
    values : Tensor, (n, m)
    loading : Tensor, (m, C), or None
        What a unit of each column's one coefficient adds to each predictor. None: a coefficient for each predictor.
    """

    values: Tensor
    loading: Tensor | None

    def classes(self, predictors: int) -> int:
        """K, coefficients a column."""
        return predictors if self.loading is None else 1

    def eta(self, coefficients: Tensor) -> Tensor:
        """Their sum: coefficients (m, K, S) -> (n, C, S)."""
        if self.loading is None:
            return torch.einsum("nm,mcs->ncs", self.values, coefficients)
        return torch.einsum("nm,mc,ms->ncs", self.values, self.loading, coefficients[:, 0])

    def by_row(self, values: Tensor) -> Tensor:
        """The adjoint row by row: (n, C, S) -> (n, m K, S), the classes innermost."""
        if self.loading is None:
            return (self.values[:, :, None, None] * values[:, None]).reshape(len(values), -1, values.shape[2])
        return self.values[:, :, None] * torch.einsum("mc,ncs->nms", self.loading, values)

    def transpose(self, values: Tensor) -> Tensor:
        """The adjoint: (n, C, S) -> (m K, S), the classes innermost."""
        by_predictor = torch.einsum("nm,ncs->mcs", self.values, values)
        if self.loading is None:
            return by_predictor.flatten(0, 1)
        return torch.einsum("mc,mcs->ms", self.loading, by_predictor)

    def weighted(self, weight: Tensor) -> Tensor:
        """A weight (n, C, C) times what a unit of each coefficient adds to eta: (n, C, m K), the classes innermost."""
        if self.loading is None:
            return torch.einsum("nm,ncd->ncmd", self.values, weight).flatten(2)
        return torch.einsum("nm,ncd,md->ncm", self.values, weight, self.loading)

    def beside(self, values: Tensor, loading: Tensor | None) -> FixedColumns:
        """With further columns (n, h), which all load alike (C,)."""
        if self.loading is None or loading is None:
            return FixedColumns(torch.cat([self.values, values], dim=1), self.loading)
        more = loading.expand(values.shape[1], -1)
        return FixedColumns(torch.cat([self.values, values], dim=1), torch.cat([self.loading, more]))

    def groups(self) -> list[Tensor]:
        """Numbers of the columns that load alike."""
        if self.loading is None or not len(self.loading):
            return [torch.arange(self.values.shape[1])]
        _, of_column = torch.unique(self.loading, dim=0, return_inverse=True)
        return [(of_column == k).nonzero()[:, 0] for k in range(int(of_column.max()) + 1)]

    def information(self, weight: Tensor) -> Tensor:
        """Information about the coefficients for a weight (n, C, C): (m K, m K), the classes innermost."""
        x, size = self.values, self.values.shape[1] * self.classes(weight.shape[1])
        if self.loading is None:
            return torch.einsum("nk,ncd,nm->kcmd", x, weight, x).reshape(size, size)
        out = torch.zeros(size, size, dtype=x.dtype)
        for i in self.groups() if size else []:
            own = torch.einsum("c,ncd->nd", self.loading[i[0]], weight)
            for j in self.groups():
                out[i[:, None], j] = x[:, i].T @ ((own @ self.loading[j[0]])[:, None] * x[:, j])
        return out


def fixed_columns(design: Design, target: Target) -> tuple[Tensor, tuple[str, ...], Tensor | None]:
    """X of any design's rows, its columns' names and loadings (p, C); thresholds stand in place of the intercept."""
    x = torch.tensor(np.ascontiguousarray(design.X), dtype=torch.float64)
    if not target.loadings:
        return x, design.x_names, None
    loading = torch.stack([_of_part(target, part) for part in design.x_parts]) if len(design.x_names) else _none(target)
    if not target.thresholds:
        return x, design.x_names, loading
    if "Intercept" not in design.x_names:
        raise DesignError(
            "the thresholds of an ordinal response take the place of the intercept, which the formula leaves out; "
            "write it without `0 +` or `- 1`."
        )
    rest = [k for k, name in enumerate(design.x_names) if name != "Intercept"]
    count = len(target.thresholds)
    names = (*target.thresholds, *(design.x_names[k] for k in rest))
    values = torch.cat([torch.ones(len(x), count, dtype=torch.float64), x[:, rest]], dim=1)
    return values, names, torch.cat([torch.eye(count, dtype=torch.float64), loading[rest]])


def _of_part(target: Target, part: str) -> Tensor:
    loading = target.loading(part)
    assert loading is not None
    return loading


def _none(target: Target) -> Tensor:
    return torch.zeros(0, len(target.predictors), dtype=torch.float64)
