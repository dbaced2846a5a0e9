"""Draws of b where its levels are independent given f: with one random term each level is a posterior of its own.

Metropolis with independent proposals from a t distribution around each level's mode: every level accepts by itself, so
that a transition costs one evaluation of the log density and moves nearly all of them, however many there are.

References
----------
Tierney (1994), Markov chains for exploring posterior distributions, Annals of Statistics 22(4), 1701-1728, section
2.3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glmmnet.joint import JointModel, Parameters
from glmmnet.quadrature import has_quadrature
from glmmnet.whitening import Whitening

#: Degrees of freedom of the proposals: their tails must be heavier than the posterior's.
_DF = 5.0
#: Transitions a kept draw.
_A_DRAW = 2


def has_levels(joint: JointModel) -> bool:
    """Whether b is drawn level by level: one term, whose levels are independent, of one or two effects each."""
    return not joint.family.quadratic and has_quadrature(joint)


@dataclass(frozen=True)
class LevelDraws:
    """Draws of a chain.

    Attributes
    ----------
    b : list of Tensor, each (Q, C, copies)
    acceptance : Tensor, (S, copies)
        Share of the levels that accepted.
    lp : Tensor, (S, copies)
        Log density up to a constant.
    """

    b: list[Tensor]
    acceptance: Tensor
    lp: Tensor


class LevelPosterior:
    """The posteriors of all levels of the one random term, for `copies` of b side by side.

    Parameters
    ----------
    joint : JointModel
        See :func:`has_levels`.
    fixed : Tensor, (n, C, 1)
        The part of eta that is free of b.
    params : Parameters
    whitening : Whitening
        Of each level by itself: u = 0 is the mode.
    copies : int
    """

    def __init__(self, joint: JointModel, fixed: Tensor, params: Parameters, whitening: Whitening, copies: int) -> None:
        ((_, self._rows),) = joint.parts
        self._term, self._phi, self._whitening = self._rows.terms[0], params.phi, whitening
        self._fixed = fixed.to(self._rows.weights.dtype)
        self._precision = joint.precisions(params)[0]
        self._size = self._term.r * joint.n_classes
        self._shape = (joint.n_effects, joint.n_classes, copies)

    def start(self) -> Tensor:
        """Proposals, one a level: b (Q, C, copies)."""
        return self._whitening.to_b(self._propose())

    def draw(self, b: Tensor, draws: int, warmup: int = 0) -> LevelDraws:
        """Go on from b: `warmup` transitions, then `draws` kept draws."""
        weight, lp = self._log_weight(b, self._whitening.from_b(b))
        kept, acceptance, density = [], [], []
        for k in range(warmup + draws * _A_DRAW):
            u = self._propose()
            other = self._whitening.to_b(u)
            other_weight, other_lp = self._log_weight(other, u)
            accepted = torch.rand(weight.shape, dtype=torch.float64).log() < other_weight - weight
            weight, lp = (torch.where(accepted, new, old) for new, old in ((other_weight, weight), (other_lp, lp)))
            b = torch.where(self._by_effect(accepted), other, b)
            if k >= warmup and (k - warmup) % _A_DRAW == _A_DRAW - 1:
                kept.append(b)
                acceptance.append(accepted.to(torch.float64).mean(dim=0))
                density.append(lp.sum(dim=0))
        return LevelDraws(kept, torch.stack(acceptance), torch.stack(density))

    def _propose(self) -> Tensor:
        """Draws from t distributions, (Q, C, copies)."""
        copies = self._shape[2]
        normal = torch.randn(self._term.q, self._size, copies, dtype=torch.float64)
        chi2 = 2.0 * torch._standard_gamma(torch.full((self._term.q, 1, copies), _DF / 2, dtype=torch.float64))
        return (normal * torch.sqrt(_DF / chi2)).reshape(self._shape)

    def _log_weight(self, b: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Log of posterior over proposal, and log posterior, of each level: (q, copies), up to constants."""
        eta = self._fixed + self._rows.random_eta(b.to(self._fixed.dtype))
        log_p = self._term.level_sum(self._rows.log_prob(eta, self._phi)).to(torch.float64)
        own = b.reshape(self._term.q, self._term.r, *b.shape[1:])
        lp = log_p - 0.5 * torch.einsum("qics,cij,qjcs->qs", own, self._precision, own)
        square = u.reshape(self._term.q, self._size, -1).square().sum(dim=1)
        return lp + 0.5 * (_DF + self._size) * torch.log1p(square / _DF), lp

    def _by_effect(self, of_level: Tensor) -> Tensor:
        return of_level[:, None].expand(-1, self._size, -1).reshape(self._shape)
