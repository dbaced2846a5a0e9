"""Random terms as tensors: level codes and row covariates, a dense Z never exists."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from glmmnet.covariances import COVARIANCES, Covariance
from glmmnet.crossings import level_sum_matrix
from glmmnet.families import Target
from glmmnet.relations import Relation
from glmmnet.typing import RandomTerm


class TermData:
    """A random term as tensors: gathers level effects to rows and sums rows to levels.

    Attributes
    ----------
    label, group, names, levels, structure
        As in :class:`glmmnet.typing.RandomTerm`.
    covariance : Covariance
    index : Tensor of int64, (n,)
    z : Tensor, (n, r), or None when it is one column of ones
    start : int
        First row of the term in b.
    relation : Relation or None
        Known correlation of the levels; None: they are independent.
    loading : Tensor, (r, C), or None
        What a unit of each column adds to each linear predictor; None: effects of its own in each.
    """

    def __init__(
        self, term: RandomTerm, start: int, relation: Relation | None = None, loading: Tensor | None = None
    ) -> None:
        self._term = term
        self.label, self.group, self.names = term.label, term.group, term.names
        self.levels, self.structure = term.levels, term.structure
        self.covariance: Covariance = COVARIANCES[term.structure].at(term.positions)
        self.index = torch.as_tensor(term.index)
        self.q, self.r = len(term.levels), term.z.shape[1]
        ones = self.r == 1 and bool(np.all(term.z == 1.0))
        self.z = None if ones else torch.as_tensor(term.z, dtype=torch.float64)
        self.start, self.relation, self.loading = start, relation, loading
        self._double: TermData | None = None

    @cached_property
    def _sum(self) -> Tensor:
        """Sums rows to levels, (q, n); found when first used, as few rows may only be gathered."""
        if self._double is not None:
            return _as_single(self._double._sum)
        return level_sum_matrix(self.index.numpy(), self.q)

    def on(self, index: np.ndarray, z: np.ndarray) -> TermData:
        """The same term on other rows, or with other columns of the same effects."""
        return TermData(replace(self._term, index=index, z=z), self.start, self.relation, self.loading)

    def single(self) -> TermData:
        """The same term in single precision, sharing the level codes."""
        twin = copy.copy(self)
        vars(twin).pop("_sum", None)
        twin._double = self
        twin.z = None if self.z is None else self.z.to(torch.float32)
        twin.loading = None if self.loading is None else self.loading.to(torch.float32)
        return twin

    @cached_property
    def size(self) -> Tensor:
        """Root mean square of each column of z, (r,)."""
        if self.z is None:
            return torch.ones(1, dtype=torch.float64)
        return self.z.to(torch.float64).square().mean(dim=0).sqrt()

    @property
    def rows(self) -> slice:
        """Rows of the term in b."""
        return slice(self.start, self.start + self.q * self.r)

    def own_columns(self, z: Tensor) -> Tensor:
        """Columns of any rows' z as the design has them, (n, k) -> (n, r): of correlated classes each once a class."""
        return z if z.shape[1] == self.r else z.repeat_interleave(self.r // z.shape[1], dim=1)

    def columns(self) -> Tensor:
        """Z with the column of ones written out, (n, r)."""
        return torch.ones(len(self.index), 1, dtype=torch.float64) if self.z is None else self.z

    def gather(self, b: Tensor) -> Tensor:
        """Effects of each row's level, column by column: b (Q, C, S) -> (n, r, C, S)."""
        tail = b.shape[1:]
        own = b[self.rows].reshape(self.q, -1)
        # Torch gathers from one column six times faster as a vector than as a matrix.
        own = own[:, 0] if own.shape[1] == 1 else own
        return own.index_select(0, self.index).reshape(len(self.index), self.r, *tail)

    def decorrelated(self, own: Tensor) -> Tensor:
        """A^-1 own for effects (q, ...) of levels with known correlation A; `own` where they are independent."""
        return own if self.relation is None else self.relation.decorrelated(own)

    def eta(self, b: Tensor) -> Tensor:
        """The term's share of the linear predictor, (n, C, S)."""
        effects = self.gather(b)
        if self.loading is not None:
            return torch.einsum("rc,nrs->ncs", self.loading, self.scaled(effects[:, :, 0]))
        if self.z is None:
            return effects[:, 0]
        return torch.einsum("nr,nrcs->ncs", self.z, effects) if self.r > 1 else effects[:, 0] * self.z[:, :, None]

    def scaled(self, values: Tensor) -> Tensor:
        """Values (n, r, ...) times z."""
        if self.z is None:
            return values
        return values * self.z.reshape(*self.z.shape, *[1] * (values.dim() - 2)).to(values.dtype)

    def level_sum(self, values: Tensor) -> Tensor:
        """Sum rows to levels: (n, ...) -> (q, ...)."""
        flat = values.reshape(values.shape[0], -1)
        # The product with a matrix in column order takes six times as long.
        flat = flat[:, 0] if flat.shape[1] == 1 else flat.contiguous()
        return (self._sum @ flat).reshape(self.q, *values.shape[1:])

    def transpose(self, values: Tensor) -> Tensor:
        """Z' values: (n, C, S) -> (q * r, C, S)."""
        if self.loading is not None:
            own = self.scaled(torch.einsum("rc,ncs->nrs", self.loading, values))
            return self.level_sum(own).reshape(self.q * self.r, 1, values.shape[2])
        if self.z is None:
            return self.level_sum(values)
        weighted = self.z[:, :, None, None] * values[:, None]
        return self.level_sum(weighted).reshape(self.q * self.r, *values.shape[1:])

    def information(self, weight: Tensor) -> Tensor:
        """Blocks of Z'WZ that belong to a level, (q, r C, r C), for a weight (n, C, C); with loadings (q, r, r)."""
        if self.loading is not None:
            between = torch.einsum("ic,ncd,jd->nij", self.loading, weight, self.loading)
            return self.level_sum(self.scaled(self.scaled(between).mT).mT)
        size = self.r * weight.shape[1]
        if self.z is None:
            return self.level_sum(weight).reshape(self.q, size, size)
        outer = self.z[:, :, None, None, None] * self.z[:, None, None, :, None] * weight[:, None, :, None, :]
        return self.level_sum(outer).reshape(self.q, size, size)


def _as_single(matrix: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.sparse_csr_tensor(
            matrix.crow_indices(),
            matrix.col_indices(),
            matrix.values().to(torch.float32),
            matrix.shape,
            check_invariants=False,
        )


def term_data(term: RandomTerm, target: Target, start: int) -> TermData:
    """One random term as tensors; of correlated classes every column once for each class."""
    names, z, loading = term.names, term.z, target.loading(term.part)
    if target.correlated:
        classes = len(target.predictors)
        names = tuple(f"{name}[{label}]" for name in term.names for label in target.predictors)
        z = class_columns(z, classes)
        loading = torch.eye(classes, dtype=torch.float64).repeat(len(term.names), 1)
    elif loading is not None:
        loading = loading.expand(len(names), -1)
    relation = None if term.correlation is None else Relation(term.correlation, term.relatives)
    return TermData(replace(term, names=names, z=z), start, relation, loading)


def class_columns(z: np.ndarray, classes: int) -> np.ndarray:
    """Every column of z (n, r) once for each class, the classes innermost: (n, r classes)."""
    return np.repeat(z, classes, axis=1)
