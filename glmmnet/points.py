"""Points that integrate over independent normal numbers."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

#: Gauss-Hermite points over one normal number.
_NODES = 41
#: A uniform number is no closer to 0 and 1.
_CLOSEST = 2.0**-32


def points_and_weights(dimensions: int, points: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points (1, d, N) and weights (N,) for means over d normal numbers: Gauss-Hermite, of more than two Sobol."""
    if dimensions > 2:
        return evenly_spread(dimensions, points, seed), torch.full((points,), 1 / points, dtype=torch.float64)
    return gauss_hermite(dimensions, _NODES if dimensions == 1 else math.isqrt(points))


def gauss_hermite(dimensions: int, points: int) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite points (1, d, N) and weights (N,) in one or two dimensions, `points` in each."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    grid = np.meshgrid(*[nodes] * dimensions, indexing="ij")
    share = weights if dimensions == 1 else np.outer(weights, weights).ravel()
    return torch.as_tensor(np.stack([one.ravel() for one in grid])[None]), torch.as_tensor(share / share.sum())


def evenly_spread(dimensions: int, points: int, seed: int) -> Tensor:
    """Normal numbers that are evenly spread, (1, dimensions, points): the same for every row, so that rows compare.

    References
    ----------
    Owen (1998), Scrambling Sobol' and Niederreiter-Xing points, J. Complexity 14(4), 466-489.
    """
    uniform = SobolEngine(dimensions, scramble=True, seed=seed).draw(points, dtype=torch.float64)
    return torch.special.ndtri(uniform.clamp(_CLOSEST, 1 - _CLOSEST)).T[None]


def in_random_order(dimensions: int, points: int, seed: int) -> Tensor:
    """Those points in random order, as neighbours among the points, and among the draws of b, depend on each other."""
    order = torch.randperm(points, generator=torch.Generator().manual_seed(seed))
    return evenly_spread(dimensions, points, seed)[:, :, order]
