"""Hurdle counts: all zeros from the zero part, the others from a count distribution without 0."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target
from glmmnet.families._zeros import ZeroFamily, dispersion_of, zero_part
from glmmnet.families.negativebinomial import NegativeBinomial
from glmmnet.families.poisson import Poisson
from glmmnet.typing import Dispersion, Response

#: Rounds in which counts are drawn until they are above 0, before the rest is looked for one by one.
_ROUNDS, _MOST = 20, 10_000


class Hurdle(ZeroFamily):
    """0 with probability pi, else a count f without 0: P(y) = (1 - pi) f(y) / (1 - f(0)), logit pi = eta_1."""

    def encode(self, response: Response) -> Target:
        target = super().encode(response)
        if not bool((target.y > 1).any()):
            raise self.disagree(
                response, "has no count above 1", "its counts tell nothing but zero or not; use family='bernoulli'"
            )
        return target

    def bounds(self, y: Tensor) -> tuple[Tensor, Tensor]:
        # A count of 1 is the more probable the smaller the mean: it cannot be less.
        return y > 1, y > 0

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        log_zero, log_count = zero_part(eta)
        log_none, _ = self.at_zero(eta, phi)
        counts = log_count + self.counts.log_prob(eta[:, :1], y, phi) - _log_some(log_none)
        return torch.where(y[:, 0] == 0, log_zero, counts)

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        log_zero, log_count = zero_part(eta)
        log_none, slope = self.at_zero(eta, phi)
        log_own, score = self.counts_at(eta, y, phi)
        zero = y[:, 0] == 0
        log_p = torch.where(zero, log_zero, log_count + log_own - _log_some(log_none))
        of_count = torch.where(zero, 0.0, score + _odds(log_none) * slope)
        of_zero = zero.to(eta.dtype) - torch.sigmoid(eta[:, 1])
        return log_p, torch.stack([of_count, of_zero], dim=1)

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        log_zero, log_count = zero_part(eta)
        log_none, slope = self.at_zero(eta, phi)
        complete = self.counts.weight(eta[:, :1], y, phi)[:, 0, 0]
        odds = _odds(log_none)
        own = complete * torch.exp(-_log_some(log_none)) - odds * (1 + odds) * slope.square()
        weight = torch.zeros(len(eta), 2, 2, eta.shape[2], dtype=eta.dtype)
        weight[:, 0, 0] = torch.exp(log_count) * own.clamp_min(0.0)
        weight[:, 1, 1] = torch.exp(log_zero + log_count)
        return weight

    def curvature(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        log_none, slope = self.at_zero(eta, phi)
        odds = _odds(log_none)
        own, none = (self.counts.curvature(eta[:, :1], of, phi)[:, 0, 0] for of in (y, torch.zeros_like(y)))
        curvature = torch.zeros(len(eta), 2, 2, eta.shape[2], dtype=eta.dtype)
        curved = own - odds * (1 + odds) * slope.square() + odds * none
        curvature[:, 0, 0] = torch.where(y[:, 0] == 0, 0.0, curved)
        curvature[:, 1, 1] = torch.sigmoid(eta[:, 1]) * torch.sigmoid(-eta[:, 1])
        return curvature

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        log_none, slope = self.at_zero(eta, phi)
        odds, some = _odds(log_none), (y[:, 0] > 0).to(eta.dtype)
        bend = odds * (1 + odds)
        score, information, cross = dispersion_of(self.counts, eta, y, phi)
        score_0, information_0, cross_0 = dispersion_of(self.counts, eta, torch.zeros_like(y), phi)
        total = information - bend * score_0.square() + odds * information_0
        crosses = cross - bend * slope * score_0 + odds * cross_0
        return (
            some * (score + odds * score_0),
            some * total,
            torch.stack([some * crosses, torch.zeros_like(crosses)], dim=1),
        )

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        own = self.counts.tails(eta[:, :1], y, phi)
        zero, count = (torch.exp(log) for log in zero_part(eta))
        at = torch.exp(self.log_prob(eta, y, phi))
        # Without the zeros that the count distribution has.
        more = count * own.above * torch.exp(-_log_some(self.at_zero(eta, phi)[0]))
        fewer = zero + (count - more - at).clamp_min(0.0)
        none = y[:, 0] == 0
        return Tails(torch.where(none, 0.0, fewer), at, torch.where(none, count, more))

    def moments(self, eta: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        some = torch.exp(_log_some(self.at_zero(eta, phi)[0]))[:, None]
        mean, square = super().moments(eta, phi)
        return mean / some, square / some

    def simulate_counts(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Counts above 0: drawn anew where they are 0, and where that hardly ever ends, by their probabilities."""
        drawn = self.counts.simulate(eta, y, phi)
        for _ in range(_ROUNDS):
            if not bool((drawn == 0).any()):
                return drawn
            drawn = torch.where(drawn == 0, self.counts.simulate(eta, y, phi), drawn)
        left = drawn == 0
        log_none, _ = self.at_zero(eta, phi)
        below = torch.rand_like(drawn) * torch.exp(_log_some(log_none))
        reached, value = torch.zeros_like(drawn), torch.zeros_like(y)
        while bool(left.any()) and float(value.max()) < _MOST:
            value = value + 1
            reached = reached + torch.exp(self.counts.log_prob(eta, value, phi))
            drawn = torch.where(left & (reached >= below), value[:, 0], drawn)
            left = drawn == 0
        return drawn.clamp_min(1.0)


def _log_some(log_none: Tensor) -> Tensor:
    """Log of 1 - f(0)."""
    return torch.log(-torch.expm1(log_none.clamp_max(-torch.finfo(log_none.dtype).tiny)))


def _odds(log_none: Tensor) -> Tensor:
    """f(0) / (1 - f(0))."""
    return 1.0 / torch.expm1(-log_none.clamp_max(-(torch.finfo(log_none.dtype).tiny ** 0.5)))


@FAMILIES.register("hurdlepoisson")
class HurdlePoisson(Hurdle):
    """Zeros with probability pi, else Poisson counts above 0 (log link); ``truncated_poisson`` in glmmTMB.

    ``zi=`` is the formula of logit pi; its coefficients are named ``zi:...``.

    Examples
    --------
    >>> from glmmnet.families import HurdlePoisson
    >>> HurdlePoisson()
    HurdlePoisson(link='log')

    References
    ----------
    Mullahy (1986), Specification and testing of some modified count data models, J. Econometrics 33(3), 341-365.
    """

    name = "hurdlepoisson"
    counts = Poisson()


@FAMILIES.register("hurdlenegativebinomial")
class HurdleNegativeBinomial(Hurdle):
    """Zeros with probability pi, else negative binomial counts above 0; phi is theta, ``truncated_nbinom2`` in glmmTMB.

    ``zi=`` is the formula of logit pi; its coefficients are named ``zi:...``.
    """

    name = "hurdlenegativebinomial"
    counts = NegativeBinomial()
