"""Zero-inflated counts: zeros that the count part does not explain."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails
from glmmnet.families._zeros import ZeroFamily, dispersion_of, zero_part
from glmmnet.families.negativebinomial import NegativeBinomial
from glmmnet.families.poisson import Poisson
from glmmnet.typing import Dispersion

#: Expected zeros of the zero part, over all rows, that are none: with a single one in the data they are about 1.
_NO_ZERO = 0.01


class ZeroInflated(ZeroFamily):
    """0 with probability pi, else a count f: P(y) = pi [y = 0] + (1 - pi) f(y), logit pi = eta_1."""

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return self._mixed(self.counts.log_prob(eta[:, :1], y, phi), eta, y)[0]

    def bounds(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y > 0, torch.ones_like(y)

    def vanished(self, eta: Tensor, weights: Tensor) -> tuple[str, str] | None:
        expected = weights @ torch.sigmoid(eta[:, 1, 0])
        return ("zi", self.counts.name) if float(expected) < _NO_ZERO else None

    def _mixed(self, own: Tensor, eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Log density from the count part's own, and the probability that the row is a count, both (n, S)."""
        log_zero, log_count = zero_part(eta)
        zero, counts = y[:, 0] == 0, log_count + own
        share = torch.where(zero, torch.sigmoid(counts - log_zero), 1.0)
        return torch.where(zero, torch.logaddexp(log_zero, counts), counts), share

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        log_own, own = self.counts_at(eta, y, phi)
        log_prob, share = self._mixed(log_own, eta, y)
        of_zero = (1 - share) - torch.sigmoid(eta[:, 1])
        return log_prob, torch.stack([share * own, of_zero], dim=1)

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        log_zero, log_count = zero_part(eta)
        log_none, slope = self.at_zero(eta, phi)
        odds = log_count + log_none - log_zero
        # Both apart, as 1 - share loses its digits where a zero of the zero part is improbable.
        share, rest = torch.sigmoid(odds), torch.sigmoid(-odds)
        zero, count, none = torch.exp(log_zero), torch.exp(log_count), torch.exp(log_none)
        complete = self.counts.weight(eta[:, :1], y, phi)[:, 0, 0]
        own = (count * complete - count * none * slope.square() * rest).clamp_min(0.0)
        # P(y > 0) over P(y = 0), times pi^2.
        about_zero = zero * rest * count * -torch.expm1(log_none)
        cross = zero * slope * share
        return _symmetric(own, cross, about_zero)

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        own = self.counts.tails(eta[:, :1], y, phi)
        zero, count = (torch.exp(log) for log in zero_part(eta))
        below = torch.where(y[:, 0] > 0, zero + count * own.below, 0.0)
        return Tails(below, torch.exp(self.log_prob(eta, y, phi)), count * own.above)

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        score, information, cross = dispersion_of(self.counts, eta, y, phi)
        log_own, own = self.counts_at(eta, y, phi)
        share = self._mixed(log_own, eta, y)[1]
        unsure = share * (1 - share)
        crosses = [share * cross - unsure * own * score, unsure * score]
        return share * score, share * information - unsure * score.square(), torch.stack(crosses, dim=1)


def _symmetric(own: Tensor, cross: Tensor, other: Tensor) -> Tensor:
    """Matrices [[own, cross], [cross, other]] of each row and draw, (n, 2, 2, S)."""
    return torch.stack([torch.stack([own, cross], dim=1), torch.stack([cross, other], dim=1)], dim=1)


@FAMILIES.register("zeroinflatedpoisson")
class ZeroInflatedPoisson(ZeroInflated):
    """Poisson counts (log link) with excess zeros: y is 0 with probability pi, else Poisson.

    ``zi=`` is the formula of logit pi; its coefficients are named ``zi:...``. ``ziformula`` in glmmTMB.

    Examples
    --------
    >>> from glmmnet.families import ZeroInflatedPoisson
    >>> ZeroInflatedPoisson()
    ZeroInflatedPoisson(link='log')

    References
    ----------
    Lambert (1992), Zero-inflated Poisson regression, Technometrics 34(1), 1-14.
    """

    name = "zeroinflatedpoisson"
    counts = Poisson()


@FAMILIES.register("zeroinflatednegativebinomial")
class ZeroInflatedNegativeBinomial(ZeroInflated):
    """Negative binomial counts (variance mu + mu^2 / theta) with excess zeros; phi is theta.

    ``zi=`` is the formula of the logit of an excess zero's probability; its coefficients are named ``zi:...``.
    """

    name = "zeroinflatednegativebinomial"
    counts = NegativeBinomial()
