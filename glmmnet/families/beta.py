"""Beta family: logit, probit or complementary log-log link."""

from __future__ import annotations

import scipy.special
import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target, a_row
from glmmnet.families._domain import read_fractions
from glmmnet.families._mean import SingleFamily
from glmmnet.families._of_mean import MeanFamily
from glmmnet.links import CLOGLOG, LOGIT, PROBIT, ProbabilityLink
from glmmnet.typing import Dispersion, Response

#: Log probabilities below count as this, so that their inverse squares are numbers.
_LEAST_LOG = -280.0


def shapes(link: ProbabilityLink, eta: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
    """The shapes phi mu and phi (1 - mu) of the beta distribution, each with all its digits."""
    success, failure = (torch.exp(log.clamp_min(_LEAST_LOG)) for log in link.logs(eta))
    return phi * success, phi * failure


def shapes_of_mean(mean: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Both shapes, where the mean (n,) itself is given; a mean of 0 or 1 is taken as the number next to it."""
    limits = torch.finfo(mean.dtype)
    mean = mean.clamp(limits.tiny**0.5, 1.0 - limits.eps)
    return phi * mean, phi * (1 - mean)


@FAMILIES.register("beta")
class Beta(MeanFamily, SingleFamily):
    """Fractions y between 0 and 1 with mean mu and variance mu (1 - mu) / (1 + phi).

    phi is a precision: ``phi`` in betareg and brms, the dispersion of beta_family in glmmTMB, ``kappa`` in bambi.
    Deviances are those at the estimated phi; the saturated model takes the mean under which each fraction is most
    probable, which is not the fraction itself.

    Parameters
    ----------
    link : {"logit", "probit", "cloglog"}, optional

    References
    ----------
    Ferrari, Cribari-Neto (2004), Journal of Applied Statistics 31(7), 799-815; the deviance: section 4.
    """

    name = "beta"
    has_dispersion = True
    links = (LOGIT, PROBIT, CLOGLOG)
    link: ProbabilityLink

    def encode(self, response: Response) -> Target:
        return Target(read_fractions(self, response)[:, None, None])

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        a, b = shapes(self.link, eta[:, 0], phi)
        return self._density(a, b, y[:, 0], torch.as_tensor(phi, dtype=eta.dtype))

    @staticmethod
    def _density(a: Tensor, b: Tensor, y: Tensor, phi: Tensor) -> Tensor:
        normalizer = torch.lgamma(phi) - torch.lgamma(a) - torch.lgamma(b)
        return normalizer + (a - 1.0) * torch.log(y) + (b - 1.0) * torch.log1p(-y)

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        eta, y = eta[:, 0], y[:, 0]
        a, b = shapes(self.link, eta, phi)
        value = self._density(a, b, y, torch.as_tensor(phi, dtype=eta.dtype))
        return value, (self._gap(a, b, y) * self._slope(eta, a))[:, None]

    @staticmethod
    def _gap(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
        """Log odds of y less their mean."""
        return torch.digamma(b) - torch.digamma(a) + torch.logit(y)

    def _slope(self, eta: Tensor, a: Tensor) -> Tensor:
        """Derivative of phi mu."""
        return a * self.link.slopes(eta)[0]

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        a, b = shapes(self.link, eta[:, 0], phi)
        spread = torch.polygamma(1, a) + torch.polygamma(1, b)
        return (spread * self._slope(eta[:, 0], a).square())[:, None, None]

    def curvature(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        a, b = shapes(self.link, eta[:, 0], phi)
        score = self._gap(a, b, y[:, 0]) * self._slope(eta[:, 0], a)
        return self.weight(eta, y, phi) - (score * self.link.turn(eta[:, 0]))[:, None, None]

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        y = y[:, 0]
        a, b = shapes(self.link, eta[:, 0], phi)
        phi = torch.as_tensor(phi, dtype=eta.dtype)
        of_a, of_b = torch.polygamma(1, a), torch.polygamma(1, b)
        score = (
            phi * torch.digamma(phi) + a * (torch.log(y) - torch.digamma(a)) + b * (torch.log1p(-y) - torch.digamma(b))
        )
        information = a.square() * of_a + b.square() * of_b - phi.square() * torch.polygamma(1, phi) - score
        cross = -(self._gap(a, b, y) + b * of_b - a * of_a) * self._slope(eta[:, 0], a)
        return score, information, cross[:, None]

    def rough_dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        mu = self.link.inverse(eta[:, 0])
        ratio = float((weights @ (mu * (1 - mu)).mean(dim=1)) / (weights @ (y[:, 0] - mu).square().mean(dim=1)))
        return min(max(ratio - 1.0, 0.1), 1e6)

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return draw_beta(self.link, eta[:, 0], phi)

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        a, b = (shape.numpy() for shape in shapes(self.link, eta[:, 0], phi))
        share = y[:, 0].numpy()
        return Tails.of(scipy.special.betainc(a, b, share), scipy.special.betaincc(a, b, share))

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return mean * (1 - mean) / (1.0 + a_row(phi))

    def saturated(self, y: Tensor, phi: Dispersion) -> Tensor:
        return self.most_probable(y, phi)

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        phi = torch.as_tensor(a_row(phi), dtype=y.dtype)
        return self._density(*shapes_of_mean(mean, phi), y[:, 0, 0], phi)


def draw_beta(link: ProbabilityLink, eta: Tensor, phi: Dispersion) -> Tensor:
    """A draw from the beta distribution at each eta, strictly between 0 and 1."""
    a, b = shapes(link, eta, phi)
    limits = torch.finfo(eta.dtype)
    return torch._sample_dirichlet(torch.stack([a, b], dim=-1))[..., 0].clamp(limits.tiny, 1.0 - limits.eps)
