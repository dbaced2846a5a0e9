"""How far effects that the data leave unknown spread eta: of unseen levels, of relatives without data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glmmnet.fitted import Fitted
from glmmnet.random_terms import TermData
from glmmnet.typing import RandomTerm

#: Some rows: a block of them, or their positions.
Rows = slice | np.ndarray


@dataclass(frozen=True)
class PriorSpread:
    """Z b over the prior of b, for some rows: roots of its covariance between the linear predictors.

    Attributes
    ----------
    root : Tensor, (n, C) or (n, C, d)
        Standard deviations of independent predictors, or what d independent normal numbers add to each.
    """

    root: Tensor

    def __getitem__(self, rows: Rows) -> PriorSpread:
        return PriorSpread(self.root[rows])

    @property
    def dimensions(self) -> int:
        """Independent normal numbers that it takes a row."""
        return self.root.shape[-1]

    def along(self, noise: Tensor) -> Tensor:
        """What normal numbers (n or 1, d, S) make of it, (n, C, S)."""
        return self.root[:, :, None] * noise if self.root.dim() == 2 else self.root @ noise

    def draw(self, draws: int, generator: torch.Generator) -> Tensor:
        """Independent draws, (n, C, S)."""
        shape = (len(self.root), self.dimensions, draws)
        return self.along(torch.randn(shape, generator=generator, dtype=self.root.dtype))


def prior_spread(fitted: Fitted, terms: tuple[RandomTerm, ...]) -> PriorSpread:
    """Spread of Z b over the prior of b."""
    return spread_of(fitted, terms, [_own_variance(k, t) for k, t in zip(fitted.joint.terms, terms, strict=True)])


def spread_of(fitted: Fitted, terms: tuple[RandomTerm, ...], shares: list[Tensor]) -> PriorSpread:
    """Spread of Z b where b has the covariance `share` times Sigma, a share (n,) a term."""
    joint = fitted.joint
    if joint.n_classes == joint.n_predictors and not joint.target.loadings:
        variance = torch.zeros(len(terms[0].index), joint.n_classes, dtype=torch.float64)
        for sigma, term, share in zip(fitted.params.sigma, terms, shares, strict=True):
            z = torch.tensor(term.z)
            variance += torch.einsum("n,ni,cij,nj->nc", share, z, sigma, z)
        return PriorSpread(variance.sqrt())
    loading = torch.cat([known.loading for known in joint.terms if known.loading is not None])
    patterns, of_column = torch.unique(loading, dim=0, return_inverse=True)
    n = len(terms[0].index)
    total, start = torch.zeros(n, len(patterns), len(patterns), dtype=torch.float64), 0
    for known, sigma, term, share in zip(joint.terms, fitted.params.sigma, terms, shares, strict=True):
        own = of_column[start : start + known.r]
        start += known.r
        z = known.own_columns(torch.tensor(term.z)) * share[:, None].sqrt()
        by_pattern = z[:, :, None] * torch.nn.functional.one_hot(own, len(patterns))
        total += torch.einsum("nia,ij,njb->nab", by_pattern, sigma[0], by_pattern)
    values, vectors = torch.linalg.eigh(total)
    return PriorSpread(patterns.T @ (vectors * values.clamp_min(0.0).sqrt()[:, None]))


def unseen_shares(terms: tuple[RandomTerm, ...]) -> list[Tensor]:
    """1 where a row's level is unseen, else 0, (n,) a term."""
    return [torch.tensor(term.index < 0, dtype=torch.float64) for term in terms]


def unknown_shares(fitted: Fitted, terms: tuple[RandomTerm, ...], *, unseen: bool) -> list[Tensor]:
    """Shares of the variance that b has given the levels in the data, (n,) a term: of relatives, of `unseen` levels."""
    shares = [share * unseen for share in unseen_shares(terms)]
    for known, term, share in zip(fitted.joint.terms, terms, shares, strict=True):
        which, of_row = relatives_of(known, term.index)
        if known.relation is not None and len(which):
            share[of_row >= 0] = known.relation.conditional_variance(which)[of_row[of_row >= 0]]
    return shares


def _own_variance(known: TermData, term: RandomTerm) -> Tensor:
    """Each row's diagonal entry of the known correlation of the levels, (n,); 1 without one."""
    index = torch.tensor(term.index)
    if known.relation is None:
        return torch.ones(len(index), dtype=torch.float64)
    # A level that the matrix does not have is taken as one that is related to none.
    return torch.where(index < 0, 1.0, known.relation.own[index.clamp_min(0)])


def relatives_of(known: TermData, index: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Relatives among the levels of some rows, (k,), and which of these each row has, (n,); -1 where it has none."""
    beyond = index >= known.q
    which, place = np.unique(index[beyond] - known.q, return_inverse=True)
    of_row = np.full(len(index), -1)
    of_row[beyond] = place
    return torch.as_tensor(which), of_row
