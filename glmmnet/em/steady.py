"""Control variates of the M-step: moments of few draws of b with little of their noise.

For every field v(b), E[div v + v' d log p(y, b)/db] = 0 under the posterior (Stein). With v made from each level's own
information little is left of the noise that a level's own effects have, and all goes where levels are independent and
normal. The means stay those of the posterior, whatever the information and the mode are.

References
----------
Mira, Solgi and Imparato (2013), Zero variance Markov chain Monte Carlo for Bayesian estimators, Stat. Comput. 23(5),
653-662.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glmmnet.covariances import symmetric
from glmmnet.joint import MANY_CLASSES, JointModel, Parameters
from glmmnet.random_terms import TermData

#: Share of the draws' own second moment that a steadied one keeps at least, in every direction.
_LEAST_SHARE = 0.25


@dataclass(frozen=True)
class AroundMode:
    """What each level's own rows tell about its effects, at the posterior's mode.

    Attributes
    ----------
    params : Parameters
        Of the posterior.
    mode : Tensor, (Q, C)
    score : Tensor, (Q, C)
        d log p(y given b)/db there.
    information : list of Tensor, each (q, C, r, r)
        Z'WZ of a level's rows, a term each, within classes.
    covariance : list of Tensor, each (q, r C, r C) or (q, C, r, r)
        Inverse of Z'WZ and the prior's precision together, across classes unless there are many.
    """

    params: Parameters
    mode: Tensor
    score: Tensor
    information: list[Tensor]
    covariance: list[Tensor]

    @classmethod
    def at(cls, joint: JointModel, params: Parameters, mode: Tensor, fixed: Tensor) -> AroundMode:
        """That at a mode (Q, C), given the fixed part of eta (n, C, 1)."""
        eta = fixed + joint.random_eta(mode[:, :, None])
        score = joint.random_transpose(joint.log_likelihood_and_score(eta, params.phi)[1])[..., 0]
        across = joint.n_classes <= MANY_CLASSES
        weight = (joint.weight if across else joint.weight_diagonal)(eta, params.phi)[..., 0]
        information, covariance = [], []
        for term, precision in zip(joint.terms, joint.precisions(params), strict=True):
            whole = term.information(weight) if across else _within(term, weight)
            own = _own_classes(whole, term.r) if across else whole
            prior = _prior_diagonal(term)[:, None, None, None] * precision
            information.append(own)
            covariance.append(torch.linalg.inv(whole + (_side_by_side(prior) if across else prior)))
        return cls(params, mode, score, information, covariance)

    def controls(self, joint: JointModel, b: Tensor, slope: Tensor) -> list[Control]:
        """What the draws b (Q, C, S) add to sums over levels and draws that is 0 on average, a term each.

        `slope` is the derivative of log p(y given b) in b, (Q, C, S).
        """
        if not joint.terms:
            return []
        precisions = joint.precisions(self.params)
        gradient = slope - joint.prior(b, precisions)[1]
        out = []
        for term, covariance, precision in zip(joint.terms, self.covariance, precisions, strict=True):
            shape = (term.q, term.r, *b.shape[1:])
            own, g = b[term.rows].reshape(shape), gradient[term.rows].reshape(shape)
            centre, score = (one[term.rows].reshape(term.q, term.r, -1, 1) for one in (self.mode, self.score))
            if covariance.dim() == 3:
                pulled, within = (covariance @ g.flatten(1, 2)).reshape(shape), _own_classes(covariance, term.r)
            else:
                pulled, within = torch.einsum("qcij,qjcs->qics", covariance, g), covariance
            fixed = b.shape[2] * torch.einsum("q,qcij->cij", _prior_diagonal(term), within)
            moment = torch.einsum("qics,qjcs->cij", pulled, term.decorrelated(own + centre)) + fixed
            # Both sides of its sum are small where Sigma is nearly singular, though its inverse is large.
            shared = precision @ (torch.einsum("qics,qjcs->cij", term.decorrelated(pulled), own) + fixed)
            shared = shared + torch.einsum("qics,qjcs->cij", score.expand(shape), pulled)
            identity = term.q * b.shape[2] * torch.eye(term.r, dtype=torch.float64)
            noise = torch.einsum("qics,qjcs->cij", g, own) + identity
            out.append(Control(symmetric(moment), shared - noise))
        return out


@dataclass(frozen=True)
class Control:
    """Zero on average: minus the noise of a term's sums over levels and draws, (C, r, r) each.

    Attributes
    ----------
    moment : Tensor
        Of sum b (A^-1 b)', A the correlation of levels.
    slope : Tensor
        Of sum (d log p(y given b)/db) b', the score of the working matrix.
    """

    moment: Tensor
    slope: Tensor

    def __add__(self, other: Control) -> Control:
        """Over the draws of both."""
        return Control(self.moment + other.moment, self.slope + other.slope)


def _prior_diagonal(term: TermData) -> Tensor:
    """Diagonal of the inverse of the levels' correlation, (q,)."""
    if term.relation is None:
        return torch.ones(term.q, dtype=torch.float64)
    return torch.as_tensor(term.relation.precision.diagonal())


def steadied_moment(moment: Tensor, control: Tensor) -> Tensor:
    """The second moment (C, r, r) with its control, both means over levels and draws; positive definite as it was."""
    root, info = torch.linalg.cholesky_ex(moment)
    if bool((info > 0).any()):
        return moment
    half = torch.linalg.solve_triangular(root, control, upper=False)
    values, vectors = torch.linalg.eigh(symmetric(torch.linalg.solve_triangular(root, half.mT, upper=False)))
    share = (1.0 + values).clamp_min(_LEAST_SHARE)
    whole = root @ vectors
    return (whole * share[:, None, :]) @ whole.mT


def _within(term: TermData, weight: Tensor) -> Tensor:
    """Z'WZ of each level's rows within classes, (q, C, r, r), for a weight (n, C)."""
    z = term.columns()
    return term.level_sum(z[:, None, :, None] * z[:, None, None, :] * weight[:, :, None, None])


def _own_classes(matrix: Tensor, r: int) -> Tensor:
    """Blocks within classes, (q, C, r, r), of (q, r C, r C)."""
    c = matrix.shape[1] // r
    return matrix.reshape(-1, r, c, r, c).diagonal(dim1=2, dim2=4).permute(0, 3, 1, 2)


def _side_by_side(blocks: Tensor) -> Tensor:
    """The matrix (q, r C, r C), classes innermost, with the blocks (q, C, r, r) within classes and else 0."""
    q, c, r, _ = blocks.shape
    return torch.diag_embed(blocks.permute(0, 2, 3, 1), dim1=2, dim2=4).reshape(q, r * c, r * c)
