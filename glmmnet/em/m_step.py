"""M-step for everything but the network: beta, Sigma and dispersion from the draws of b.

beta by one Newton step, after a location expansion or with b following, Sigma by parameter expansion: beta and the
working matrices A of eta = X beta + sum_k z_k' A_k b_k take that Newton step together, then Sigma_k = A_k S_k A_k'.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glmmnet.em.complete_data import Steadying, complete_step, damped_beta, in_chunks
from glmmnet.em.expansion import Carrier, relocate
from glmmnet.em.following import Following
from glmmnet.em.steady import AroundMode, steadied_moment
from glmmnet.joint import JointModel, Parameters
from glmmnet.random_terms import TermData


@dataclass(frozen=True)
class MStep:
    """Result of one M-step.

    Attributes
    ----------
    params : Parameters
        The maximisers, before averaging over iterations.
    shift : Tensor, (Q, C)
        What leaves b beside the new beta.
    beta_variance : Tensor, (p, C)
        Rough sampling variance of beta, for the stopping rule.
    deviance : float
        -2 log p(y given b) at the old estimates, averaged over the draws.
    """

    params: Parameters
    shift: Tensor
    beta_variance: Tensor
    deviance: float


def m_step(
    joint: JointModel,
    carriers: tuple[Carrier, ...],
    params: Parameters,
    b: Tensor,
    f: Tensor | None = None,
    around: AroundMode | None = None,
    following: Following | None = None,
) -> MStep:
    """One M-step from draws b (Q, C, S).

    Parameters
    ----------
    carriers : tuple of Carrier
        By which b is relocated first, unless it is `following` beta.
    f : Tensor, (n, C), optional
        The network's output.
    around : AroundMode, optional
        What steadies the draws.
    """
    if following is None:
        moved = relocate(joint, carriers, params, b.mean(dim=2))
        shift, variance = moved.b, moved.variance
        centred = Parameters(params.beta + moved.beta, params.sigma, params.phi)
        newton = complete_step(joint, centred, b - shift[:, :, None], f, Steadying(around, shift))
        beta, variance = centred.beta + newton.beta, variance + newton.variance
    else:
        newton = complete_step(joint, params, b, f, Steadying(around, torch.zeros_like(b[:, :, 0])))
        pulled = joint.prior(b.mean(dim=2, keepdim=True), joint.precisions(params))[1][..., 0]
        step = damped_beta(joint, params.beta, following.step(newton.of_beta, newton.of_b - pulled))
        shift, variance = following.shift(step), following.variance.reshape(step.shape)
        beta = params.beta + step
    b = b - shift[:, :, None]
    if joint.family.symmetric:
        # What all classes share changes no probability; the sum over classes is 0 by convention.
        beta = beta - beta.mean(dim=1, keepdim=True)
    sigma = []
    for k, (term, working) in enumerate(zip(joint.terms, newton.working, strict=True)):
        moment = _second_moment(b, term)
        if newton.controls:
            moment = steadied_moment(moment, newton.controls[k].moment / (term.q * b.shape[2]))
        sigma.append(term.covariance.expand(moment, working))
    phi = params.phi
    if joint.family.has_dispersion:
        phi = _dispersion(joint, Parameters(beta, tuple(sigma), phi), newton.working, b, f)
    return MStep(Parameters(beta, tuple(sigma), phi), shift, variance, -2.0 * newton.log_likelihood)


def _second_moment(b: Tensor, term: TermData) -> Tensor:
    own = b[term.rows].reshape(term.q, term.r, *b.shape[1:])
    return torch.einsum("qics,qjcs->cij", own, term.decorrelated(own)) / (term.q * b.shape[2])


def _dispersion(joint: JointModel, params: Parameters, working: list[Tensor], b: Tensor, f: Tensor | None) -> float:
    """Dispersion at the new beta and the rescaled draws."""
    rescaled = torch.cat(
        [
            torch.einsum("cij,qjcs->qics", a, b[t.rows].reshape(t.q, t.r, *b.shape[1:])).reshape(-1, *b.shape[1:])
            for t, a in zip(joint.terms, working, strict=True)
        ]
        or [b]
    )
    fixed = joint.fixed_eta(params, f)
    parts = list(in_chunks(rescaled, joint.n * joint.n_predictors))
    values = [joint.dispersion(fixed + joint.random_eta(d), params.phi) for d in parts]
    return sum(v * d.shape[2] for v, d in zip(values, parts, strict=True)) / b.shape[2]
