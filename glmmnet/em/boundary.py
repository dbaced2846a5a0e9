"""Variances at 0: which of the estimates are, and what stands in for them where an inverse is needed."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.joint import JointModel, Parameters
from glmmnet.variance import without

#: Standard deviations below this share of the residual's (or of eta's unit) are reported as 0.
_BOUNDARY = 1e-4
#: Correlations whose smallest eigenvalue is below may belong on their boundary, for which the other eigenvalue stands:
#: nearer to it information is a difference of numbers too large.
_NEAR_EDGE, _EDGE = 0.01, 1e-4
#: Variances that EM left below this share of their standard error at 0 are 0.
_CRAWLING = 0.1


def floored(joint: JointModel, params: Parameters) -> Parameters:
    """`params` with variances of exactly 0 replaced by ones that the posterior of b can be computed with."""
    smallest = 1e-10 * (params.phi if joint.family.residual else joint.eta_unit**2)
    sigma = []
    for term, matrix in zip(joint.terms, params.sigma, strict=True):
        scale = smallest / term.columns().square().mean(dim=0).clamp_min(1e-12)
        diagonal = torch.diagonal(matrix, dim1=-2, dim2=-1)
        sigma.append(matrix + torch.diag_embed((scale - diagonal).clamp_min(0.0)))
    return Parameters(params.beta, tuple(sigma), params.phi)


def on_boundary(joint: JointModel, params: Parameters) -> Parameters:
    """Variances too small to tell from 0 are 0, with their covariances."""
    size = params.phi**0.5 if joint.family.residual else joint.eta_unit
    keep = []
    for term, matrix in zip(joint.terms, params.sigma, strict=True):
        reach = torch.diagonal(matrix, dim1=1, dim2=2).sqrt() * term.columns().square().mean(dim=0).sqrt()
        keep.append(reach > _BOUNDARY * size)
    return without(joint, params, keep)


def without_crawling(joint: JointModel, params: Parameters, f: Tensor | None) -> Parameters:
    """Variances that cannot be told from 0 are 0: EM approaches the boundary ever more slowly and never arrives.

    Such a variance is below a tenth of its standard error at 0, (2 / sum over levels of information^2)^(1/2), which
    costs less than 0.01 of deviance.
    """
    eta, keep = joint.fixed_eta(params, f), []
    for term, matrix in zip(joint.terms, params.sigma, strict=True):
        if term.loading is None:
            weight = joint.weight_diagonal(eta, params.phi)[..., 0]
            about_level = term.level_sum(term.columns().square()[:, :, None] * weight[:, None])
        else:
            about_level = term.information(joint.weight(eta, params.phi)[..., 0]).diagonal(dim1=1, dim2=2)[:, :, None]
        error = (2.0 / about_level.square().sum(dim=0).clamp_min(1e-300)).sqrt().T
        keep.append(matrix.diagonal(dim1=1, dim2=2) > _CRAWLING * error)
    return without(joint, params, keep)


def at_edge(sigma: Tensor, eigenvalue: float = _EDGE) -> Tensor | None:
    """Sigma (r, r) with correlations whose matrix has that smallest eigenvalue; None where it is not near singular."""
    sd = torch.diagonal(sigma).sqrt()
    if not bool((sd > 0).all()):
        return None
    values, vectors = torch.linalg.eigh(sigma / (sd[:, None] * sd))
    if values[0] > _NEAR_EDGE:
        return None
    flat = (vectors * values.index_fill(0, torch.tensor(0), eigenvalue)) @ vectors.T
    scale = sd / torch.diagonal(flat).sqrt()
    return flat * scale[:, None] * scale
