"""Standard errors of the fixed effects.

From the observed information where that is affordable; else from the marginal one, the variances taken as known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glmmnet.design import Design
from glmmnet.fitted import Fitted
from glmmnet.information import about_both, basis_of, mean_weight, pinv, shares_with_dispersion
from glmmnet.joint import JointModel
from glmmnet.marginal import marginal_information

#: Penalty of the last layer's weights, as a share of the total information of a row.
_RIDGE = 1e-3
#: Columns of X whose singular value is below this share of the largest are linear combinations of the others.
_RANK = 1e-10


@dataclass(frozen=True)
class FixedCovariance:
    """Sampling covariance of the linear fixed effects, and of the network's last layer beside them.

    Attributes
    ----------
    matrix : Tensor, (m C, m C)
        Order: column by column (X, then last-layer features), classes innermost.
    p : int
        Columns of X among the m.
    kind : str
        ``observed``: nothing is held fixed. Else the variances are, and of a network the layers named:
        ``marginal``; ``marginal, last layer``; ``marginal, f fixed``.
    pull : Tensor, (Q, C, m C)
        (Z'WZ + Sigma^-1)^-1 Z'W X: what an error in the coefficients takes out of the posterior mean of b.
    """

    matrix: Tensor
    p: int
    kind: str
    pull: Tensor

    def beta(self, classes: int) -> Tensor:
        """Block of the fixed effects, (p C, p C)."""
        size = self.p * classes
        return self.matrix[:size, :size]

    def beta_errors(self, classes: int) -> np.ndarray:
        """Standard errors of the fixed effects, (p C,)."""
        return np.sqrt(self.beta(classes).diagonal().clamp_min(0.0).numpy())


def fixed_covariance(fitted: Fitted, observed: Tensor | None) -> FixedCovariance:
    """Inverse of the `observed` information where that is at hand, see :mod:`glmmnet.information`.

    Else of X'WX - X'WZ (Z'WZ + Sigma^-1)^-1 Z'WX, W averaged over the final draws, the variances taken as known. The
    last hidden layer joins X as ridge-penalised columns, so that the errors of beta know of the network.
    Not Louis' formula over draws, which is here a small difference of large Monte Carlo quantities.
    """
    outward, fitted = fitted.centring.outward_effects, fitted.centred
    joint = fitted.joint
    weight = mean_weight(fitted)
    features = feature_columns(fitted, fitted.design)
    basis, to_beta, from_beta = basis_of(joint, 0 if features is None else features.shape[1])
    columns = basis if features is None else basis.beside(features, joint.f_loading)
    kind = "marginal"
    if fitted.predictor is not None:
        kind = "marginal, f fixed" if features is None else "marginal, last layer"
    if not columns.values.shape[1]:
        nothing = torch.zeros(joint.n_effects, joint.n_classes, 0, dtype=torch.float64)
        return FixedCovariance(torch.zeros(0, 0, dtype=torch.float64), 0, kind, nothing)
    information, pull = marginal_information(joint, fitted.working, weight, columns)
    if observed is not None:
        kind, k = "observed", len(information)
        information = observed[:k, :k] - observed[:k, k:] @ pinv(observed[k:, k:]) @ observed[k:, :k]
    elif shares_with_dispersion(joint):
        k = basis.values.shape[1] * joint.n_coefficients
        shared, own = about_both(fitted, basis, pull[:, :, :k])
        left = information.clone()
        left[:k, :k] -= torch.outer(shared, shared) / own
        information = left if own > 0 and bool((torch.linalg.eigvalsh(left) > 0).all()) else information
    if features is not None:
        loading, classes = joint.f_loading, joint.n_coefficients
        if loading is None:
            total = torch.diagonal(weight, dim1=1, dim2=2).sum(dim=0)
        else:
            total = (loading @ weight.sum(dim=0) @ loading)[None]
        scale = float(fitted.predictor.scale) ** 2 if fitted.predictor is not None else 1.0
        penalty = torch.zeros(columns.values.shape[1], classes, dtype=torch.float64)
        penalty[basis.values.shape[1] :] = _RIDGE * scale * total
        information = information + torch.diag(penalty.reshape(-1))
    if joint.family.symmetric:
        # Coefficients of the classes sum to zero: any generalised inverse, centred.
        classes = joint.n_coefficients
        centring = torch.eye(classes, dtype=to_beta.dtype) - 1.0 / classes
        to_beta = torch.kron(torch.eye(len(to_beta) // classes, dtype=to_beta.dtype), centring) @ to_beta
    pulled = outward(pull @ from_beta)
    return FixedCovariance(to_beta @ pinv(information) @ to_beta.T, joint.X.shape[1], kind, pulled)


def feature_columns(fitted: Fitted, design: Design) -> Tensor | None:
    """The last layer's columns beside X for a design's rows, (n, h), less what of them belongs to beta.

    That is their mean, since f is centred when there is an intercept, or their linear share in projected columns.
    """
    columns = fitted.last_layer(design)
    joint = fitted.joint
    if columns is None or (fitted.projection is None and joint.constant is None):
        return columns
    if fitted.projection is None:
        picked = torch.tensor([joint.x_names.index(joint.intercepts[0])])
    else:
        picked = fitted.projection.columns
    trained = fitted.last_layer(fitted.design)
    share = torch.linalg.lstsq(joint.X[:, picked], trained).solution
    return columns - joint.columns_of(design).values[:, picked] @ share


def collinear_columns(joint: JointModel) -> tuple[str, ...]:
    """Names of the columns of X that are linear combinations of each other; their coefficients are not identified."""
    involved: set[int] = set()
    for group in joint.columns.groups():
        x = joint.X[:, group]
        norms = torch.linalg.vector_norm(x, dim=0)
        _, s, v = torch.linalg.svd(x / norms.clamp_min(1e-300), full_matrices=False)
        if len(s):
            involved.update(group[(v[s <= _RANK * s[0]].abs() > 1e-6).any(dim=0)].tolist())
    return tuple(joint.x_names[k] for k in sorted(involved))
