"""Coordinates u that whiten b = mode + L u: L = R^-T with H = R R', the precision of b.

In u the posterior is nearly standard normal: a sampler needs no mass matrix and no deep trees. H is taken whole where
it is small, else its diagonal blocks, a block a level.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from glmmnet.joint import JointModel
from glmmnet.random_terms import TermData


class Whitening(Protocol):
    """Coordinates u of b (Q, C, S), linear and invertible."""

    mode: Tensor

    def to_b(self, u: Tensor) -> Tensor:
        """Mode + L u."""
        ...

    def from_b(self, b: Tensor) -> Tensor:
        """L^-1 (b - mode)."""
        ...

    def pull(self, gradient: Tensor) -> Tensor:
        """L' gradient: a gradient with respect to b becomes one with respect to u."""
        ...

    @property
    def log_det(self) -> float:
        """Log |det L|."""
        ...


class WholeWhitening:
    """Whitening by the Cholesky factor of the whole precision."""

    def __init__(self, mode: Tensor, precision: Tensor) -> None:
        self.mode, self._precision = mode, precision

    # Both when first used: where only the mode is wanted they would cost as much as finding it.
    @cached_property
    def _factor(self) -> Tensor:
        factor: Tensor = torch.linalg.cholesky(self._precision)
        return factor

    @cached_property
    def _inverse(self) -> Tensor:
        inverse: Tensor = torch.linalg.inv(self._factor)
        return inverse

    def to_b(self, u: Tensor) -> Tensor:
        return self.mode[:, :, None] + (self._inverse.T @ u.flatten(0, 1)).reshape(u.shape)

    def from_b(self, b: Tensor) -> Tensor:
        centred = (b - self.mode[:, :, None]).flatten(0, 1)
        return (self._factor.T @ centred).reshape(b.shape)

    def pull(self, gradient: Tensor) -> Tensor:
        return (self._inverse @ gradient.flatten(0, 1)).reshape(gradient.shape)

    @property
    def log_det(self) -> float:
        return -float(torch.log(torch.diagonal(self._factor)).sum())


class LevelWhitening:
    """Whitening by the Cholesky factors of the per-level blocks of the precision."""

    def __init__(self, joint: JointModel, mode: Tensor, blocks: list[Tensor]) -> None:
        self.mode = mode
        self._terms = joint.terms
        self._factors = [cholesky_of_blocks(block) for block in blocks]
        inverses = [_inverse(factor) for factor in self._factors]
        self._to_b = _scalars_as_one([inverse.mT for inverse in inverses])
        self._from_b = _scalars_as_one([factor.mT for factor in self._factors])
        self._pull = _scalars_as_one(inverses)

    def to_b(self, u: Tensor) -> Tensor:
        return self.mode[:, :, None] + self._each(self._to_b, u)

    def from_b(self, b: Tensor) -> Tensor:
        return self._each(self._from_b, b - self.mode[:, :, None])

    def pull(self, gradient: Tensor) -> Tensor:
        return self._each(self._pull, gradient)

    @property
    def log_det(self) -> float:
        return -sum(float(torch.log(torch.diagonal(f, dim1=-2, dim2=-1)).sum()) for f in self._factors)

    def _each(self, matrices: list[Tensor] | Tensor, values: Tensor) -> Tensor:
        if isinstance(matrices, Tensor):
            return values * matrices
        parts = []
        for term, matrix in zip(self._terms, matrices, strict=True):
            own = values[term.rows]
            if matrix.shape[-1] == 1:
                parts.append(own * matrix.reshape(term.q, -1, 1))
            else:
                parts.append(out_of_blocks(matrix @ in_blocks(term, own, matrix), own.shape))
        return torch.cat(parts)


def _scalars_as_one(matrices: list[Tensor]) -> list[Tensor] | Tensor:
    """One factor for each effect, (Q, C, 1), where all blocks are 1 x 1; else the blocks of each term."""
    if any(matrix.shape[-1] > 1 for matrix in matrices):
        return matrices
    return torch.cat([matrix.reshape(len(matrix), -1, 1) for matrix in matrices])


def in_blocks(term: TermData, values: Tensor, like: Tensor) -> Tensor:
    """Values (q r, C, S) ordered as the blocks of `like`: (q, r C, S) or (q, C, r, S)."""
    if like.dim() == 3:
        return values.reshape(term.q, like.shape[1], -1)
    return values.reshape(term.q, term.r, *values.shape[1:]).transpose(1, 2)


def out_of_blocks(values: Tensor, shape: torch.Size) -> Tensor:
    """What :func:`in_blocks` has ordered, in b's order and of a `shape`."""
    return (values if values.dim() == 3 else values.transpose(1, 2)).reshape(shape)


def cholesky_of_blocks(blocks: Tensor) -> Tensor:
    """Factors of blocks (..., m, m); of m = 1 in less than a tenth of the general routine's time."""
    return blocks.sqrt() if blocks.shape[-1] == 1 else torch.linalg.cholesky(blocks)


def _inverse(factors: Tensor) -> Tensor:
    return factors.reciprocal() if factors.shape[-1] == 1 else torch.linalg.inv(factors)


def solve_blocks(factors: Tensor, values: Tensor, *, upper: bool) -> Tensor:
    """Solve with triangular blocks (..., m, m)."""
    if factors.shape[-1] == 1:
        return values / factors
    return torch.linalg.solve_triangular(factors, values, upper=upper)
