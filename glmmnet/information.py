"""Information about the parameters: the observed one about all of them, and what marginal information is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.exact import orthonormal_columns
from glmmnet.fitted import Fitted
from glmmnet.fixed_part import FixedColumns
from glmmnet.joint import JointModel
from glmmnet.observed import ObservedScore, has_observed
from glmmnet.quadrature import derivative_nodes, has_quadrature, second_order
from glmmnet.steps import ParameterSteps
from glmmnet.variance import VarianceParameter, active_parameters

#: Draws that the weights W are averaged over.
_WEIGHT_DRAWS = 50
#: Parameters up to which the observed information is summed by quadrature.
_MOST_PARAMETERS = 40
#: An eigenvalue of the scaled information below minus this is no rounding error.
_INDEFINITE = 1e-8


def observed_information(fitted: Fitted) -> Tensor | None:
    """Observed information about all parameters, see :class:`glmmnet.steps.ParameterSteps`.

    Those of the model in which it was estimated, see :mod:`glmmnet.centring`. None for models with a network and
    Gaussian ones, where it costs too much, and away from a maximum.
    """
    fitted = fitted.centred
    joint = fitted.joint
    if fitted.predictor is not None or joint.family.quadratic or not joint.terms:
        return None
    active = active_parameters(joint, fitted.params)
    information = _by_quadrature(fitted, active) if has_quadrature(joint) else _by_nearest_gaussian(fitted, active)
    if information is None or not bool(torch.isfinite(information).all()):
        return None
    scale = torch.diagonal(information).clamp_min(1e-300).rsqrt()
    smallest = torch.linalg.eigvalsh(scale[:, None] * information * scale)[:1]
    return None if bool((smallest < -_INDEFINITE).any()) else information


def _by_quadrature(fitted: Fitted, active: tuple[VarianceParameter, ...]) -> Tensor | None:
    joint, basis = fitted.joint, ParameterSteps(fitted.joint).basis
    scores = basis.values.shape[1] * joint.n_coefficients + len(active)
    nodes = derivative_nodes(joint, scores)
    if scores > _MOST_PARAMETERS or nodes is None:
        return None
    return second_order(joint, fitted.working, fitted.f, basis, active, nodes).information


def _by_nearest_gaussian(fitted: Fitted, active: tuple[VarianceParameter, ...]) -> Tensor | None:
    if not has_observed(fitted.joint):
        return None
    observed = ObservedScore(fitted.joint, fitted.f, active)
    return observed.information(observed.at(fitted.working))


def mean_weight(fitted: Fitted) -> Tensor:
    """W averaged over draws, (n, C, C)."""
    joint, fixed = fitted.joint, fitted.fixed
    if joint.family.quadratic:
        return joint.weight(fixed, fitted.params.phi)[..., 0]
    draws = fitted.thinned(_WEIGHT_DRAWS)
    total = torch.zeros(joint.n, joint.n_predictors, joint.n_predictors, dtype=torch.float64)
    for b in draws.split(1, dim=2):
        total += joint.weight(fixed + joint.random_eta(b), fitted.params.phi)[..., 0]
    return total / draws.shape[2]


def basis_of(joint: JointModel, features: int) -> tuple[FixedColumns, Tensor, Tensor]:
    """Orthonormal basis B of X's columns, and what turns coefficients of [B, features] into those of X and back.

    X'X would square the condition of columns far from 0, such as years.
    """
    basis, to_beta, from_beta = orthonormal_columns(joint.columns)
    rest, same = torch.eye(features, dtype=to_beta.dtype), torch.eye(joint.n_coefficients, dtype=to_beta.dtype)
    return basis, torch.kron(torch.block_diag(to_beta, rest), same), torch.kron(torch.block_diag(from_beta, rest), same)


def shares_with_dispersion(joint: JointModel) -> bool:
    """Whether some linear predictor is, like phi, no location, so that their errors are correlated."""
    return joint.family.has_dispersion and joint.x_loading is not None


def about_both(fitted: Fitted, columns: FixedColumns, pull: Tensor) -> tuple[Tensor, float]:
    """Information that the coefficients share with log phi, (m K,), and that about log phi; averaged over draws.

    What the random effects take up of the former is taken out by `pull` (Q, C, m K).
    """
    joint, fixed = fitted.joint, fitted.fixed
    draws = fitted.thinned(_WEIGHT_DRAWS)
    shared, own = torch.zeros(columns.values.shape[1] * joint.n_coefficients, dtype=torch.float64), 0.0
    for b in draws.split(1, dim=2):
        _, information, cross = joint.dispersion_derivatives(fixed + joint.random_eta(b), fitted.params.phi)
        own += float(information.sum()) / draws.shape[2]
        taken = torch.einsum("qcm,qcs->m", pull, joint.random_transpose(cross))
        shared += (columns.transpose(cross)[:, 0] - taken) / draws.shape[2]
    return shared, own


def pinv(matrix: Tensor) -> Tensor:
    """Pseudoinverse of an information, whose parameters may have any units."""
    if not len(matrix):
        return matrix
    scale = torch.diagonal(matrix).clamp_min(1e-300).rsqrt()
    inverse = torch.linalg.pinv(scale[:, None] * matrix * scale, hermitian=True, rtol=1e-10)
    return scale[:, None] * inverse * scale
