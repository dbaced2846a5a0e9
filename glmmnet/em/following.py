"""The step of beta by its marginal information, and how b follows it.

Where a column of X varies mostly between levels b has taken over what beta lacks, and with b held still beta crawls. In
terms of b + P beta, P = (Z'WZ + Sigma^-1)^-1 Z'WX, the complete data's information about beta is that of the
likelihood, and one step goes all the way.

References
----------
Papaspiliopoulos, Roberts and Skoeld (2007), A general framework for the parametrization of hierarchical models, Stat.
Sci. 22(1), 59-73.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glmmnet.em.complete_data import scaled_pinv
from glmmnet.exact import orthonormal_columns
from glmmnet.fixed_part import FixedColumns
from glmmnet.joint import JointModel, Parameters
from glmmnet.marginal import marginal_information

#: Eigenvalues of the scaled information that are none, as P is rough.
_RANK = 1e-6
#: Entries of P, or of WX, beyond which b stays where it is.
_MOST_ENTRIES = 50_000_000


@dataclass(frozen=True)
class Basis:
    """Orthonormal columns in place of X: beside columns far from 0, such as years, b would be solved for too roughly.

    Attributes
    ----------
    columns : FixedColumns
        k of them.
    to_beta, of_beta : Tensor, (p K, k K) and (k K, p K)
        What turns their coefficients into beta and back, the classes innermost.
    """

    columns: FixedColumns
    to_beta: Tensor
    of_beta: Tensor

    @classmethod
    def of(cls, joint: JointModel) -> Basis:
        """That of a model's X."""
        columns, to_beta, of_beta = orthonormal_columns(joint.columns)
        same = torch.eye(joint.n_coefficients, dtype=torch.float64)
        return cls(columns, torch.kron(to_beta, same), torch.kron(of_beta, same))


@dataclass(frozen=True)
class Following:
    """How b follows beta at some parameters.

    Attributes
    ----------
    basis : Basis
    pull : Tensor, (Q, C, k K)
        P for its columns, the classes innermost.
    covariance : Tensor, (k K, k K)
        Sampling covariance of their coefficients, the variances taken as known.
    """

    basis: Basis
    pull: Tensor
    covariance: Tensor

    @classmethod
    def at(cls, joint: JointModel, basis: Basis, params: Parameters, mode: Tensor, fixed: Tensor) -> Following:
        """That with W at the mode (Q, C), given the fixed part of eta (n, C, 1)."""
        weight = joint.weight(fixed + joint.random_eta(mode[:, :, None]), params.phi)[..., 0]
        information, pull = marginal_information(joint, params, weight, basis.columns, rough=True)
        return cls(basis, pull, scaled_pinv(information, _RANK))

    @property
    def variance(self) -> Tensor:
        """Sampling variance of each coefficient of X, (p K,)."""
        return torch.einsum("ik,kl,il->i", self.basis.to_beta, self.covariance, self.basis.to_beta)

    def step(self, score: Tensor, gradient: Tensor) -> Tensor:
        """The step of beta, (p, K), for the mean over draws of d log p(y, b)/d beta (p, K) and d log p(y, b)/db (Q, C).

        The latter has mean 0 under the posterior: what follows beta takes its noise along.
        """
        marginal = self.basis.to_beta.T @ score.reshape(-1) - torch.einsum("qck,qc->k", self.pull, gradient)
        return (self.basis.to_beta @ (self.covariance @ marginal)).reshape(score.shape)

    def shift(self, step: Tensor) -> Tensor:
        """What leaves b, (Q, C), when beta goes such a step (p, K)."""
        return torch.einsum("qck,k->qc", self.pull, self.basis.of_beta @ step.reshape(-1))


def has_following(joint: JointModel) -> bool:
    """Whether b should follow beta: not where exact relations between columns do it, as for intercepts."""
    rows = max(joint.n_effects * joint.n_classes, joint.n * joint.n_predictors)
    entries = rows * joint.X.shape[1] * joint.n_coefficients
    return bool(joint.terms) and not joint.only_intercepts and entries <= _MOST_ENTRIES
