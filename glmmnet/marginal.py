"""Information about the coefficients of fixed columns once the random effects are integrated out."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.cholesky import factorize
from glmmnet.fixed_part import FixedColumns
from glmmnet.gaussian import has_factor
from glmmnet.joint import JointModel, Parameters
from glmmnet.laplace import level_blocks

#: Relative accuracy and most steps of the conjugate gradients; accuracy of a rough solution.
_CG_TOLERANCE, _CG_STEPS, _ROUGH = 1e-8, 500, 1e-3


def marginal_information(
    joint: JointModel, params: Parameters, weight: Tensor, columns: FixedColumns, *, rough: bool = False
) -> tuple[Tensor, Tensor]:
    """X'WX - X'WZ (Z'WZ + P)^-1 Z'WX, (m K, m K), and (Z'WZ + P)^-1 Z'WX, (Q, C, m K), for the columns X.

    Parameters
    ----------
    weight : Tensor, (n, C, C)
        W, the information of each row about its linear predictors.
    rough : bool
        Solve to three digits, without a factor.
    """
    weighted = columns.weighted(weight)
    size, direct = weighted.shape[2], columns.information(weight)
    if not joint.terms:
        return direct, torch.zeros(0, joint.n_classes, size, dtype=torch.float64)
    right = joint.random_transpose(weighted)
    flat = right.reshape(-1, size)
    if has_factor(joint) and not rough:
        factor = factorize(joint.information(weight) + joint.precision_matrix(params), joint.segments)
        pull = torch.as_tensor(factor.solve(flat.numpy())).reshape(right.shape)
    else:
        pull = _conjugate_gradients(joint, params, weight, right, _ROUGH if rough else _CG_TOLERANCE)
    explained = flat.T @ pull.reshape(-1, size)
    return direct - 0.5 * (explained + explained.T), pull


def _conjugate_gradients(
    joint: JointModel, params: Parameters, weight: Tensor, right: Tensor, tolerance: float
) -> Tensor:
    """Solve (Z'WZ + P) x = right for all columns at once, (Q, C, k), preconditioned by the per-level blocks."""
    precisions = joint.precisions(params)
    factors = [
        torch.linalg.cholesky(level_blocks(term, weight, precision))
        for term, precision in zip(joint.terms, precisions, strict=True)
    ]

    def apply(v: Tensor) -> Tensor:
        eta = joint.random_eta(v)
        return joint.random_transpose(torch.einsum("ncd,nds->ncs", weight, eta)) + joint.prior(v, precisions)[1]

    def precondition(v: Tensor) -> Tensor:
        parts = []
        for term, factor in zip(joint.terms, factors, strict=True):
            own = v[term.rows].reshape(term.q, factor.shape[1], -1)
            parts.append(torch.cholesky_solve(own, factor).reshape(-1, *v.shape[1:]))
        return torch.cat(parts)

    x = torch.zeros_like(right)
    residual = right.clone()
    z = precondition(residual)
    direction = z.clone()
    rz = (residual * z).sum(dim=(0, 1))
    stop = tolerance**2 * rz.clamp_min(1e-300)
    for _ in range(_CG_STEPS):
        if bool((rz <= stop).all()):
            break
        applied = apply(direction)
        step = rz / (direction * applied).sum(dim=(0, 1)).clamp_min(1e-300)
        x += step * direction
        residual -= step * applied
        z = precondition(residual)
        fresh = (residual * z).sum(dim=(0, 1))
        direction = z + fresh / rz.clamp_min(1e-300) * direction
        rz = fresh
    return x
