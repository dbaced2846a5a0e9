"""Negative binomial family with variance mu (1 + phi), log link."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target, a_row
from glmmnet.families._domain import read_counts
from glmmnet.families._mean import CountFamily
from glmmnet.families.negativebinomial import negative_binomial_tails
from glmmnet.typing import Dispersion, Response

#: Points of the integral that is the information about mu.
_NODES = 24
_AT, _MASS = (values.tolist() for values in np.polynomial.laguerre.laggauss(_NODES))


@FAMILIES.register("negativebinomial1")
class NegativeBinomial1(CountFamily):
    """Counts y with mean mu and variance mu (1 + phi).

    phi is the dispersion of nbinom1 in glmmTMB and ``alpha`` in statsmodels' NegativeBinomialP with p = 1.
    Deviances are those at the estimated phi; the saturated model takes the mean under which each count is most
    probable, which is not the count itself.

    Parameters
    ----------
    link : {"log"}, optional

    References
    ----------
    Hardin, Hilbe (2018), Generalized Linear Models and Extensions, 4th ed., chapter 13 (NB1).
    """

    name = "negativebinomial1"
    has_dispersion = True

    def encode(self, response: Response) -> Target:
        return Target(read_counts(self, response)[:, None, None])

    def kernel(self, log_mu: Tensor, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        size, phi = mu / phi, torch.as_tensor(phi, dtype=mu.dtype)
        return torch.lgamma(y + size) - torch.lgamma(size) - size * torch.log1p(phi)

    def constant(self, y: Tensor, phi: Dispersion) -> Tensor:
        phi = torch.as_tensor(phi, dtype=y.dtype)
        return -y * torch.log1p(1.0 / phi) - torch.lgamma(y + 1)

    def slope(self, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        size, phi = mu / phi, torch.as_tensor(phi, dtype=mu.dtype)
        return size * (torch.digamma(y + size) - torch.digamma(size) - torch.log1p(phi))

    def bend(self, mu: Tensor, phi: Dispersion) -> Tensor:
        # E of size^2 (trigamma(size) - trigamma(y + size)), by the integral of trigamma and the generating function.
        size = mu / phi
        total = torch.zeros_like(mu)
        for x, mass in zip(_AT, _MASS, strict=True):
            part = -torch.expm1(-x / size)
            total += mass * x * -torch.expm1(-size * torch.log1p(phi * part)) / part
        return total

    def curvature(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        mu, y = self.link.inverse(eta[:, 0]), y[:, 0]
        size = mu / phi
        second = torch.polygamma(1, size) - torch.polygamma(1, y + size)
        return (size.square() * second - self.slope(mu, y, phi))[:, None, None]

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        mu, y = self.link.inverse(eta[:, 0]), y[:, 0]
        phi = torch.as_tensor(phi, dtype=mu.dtype)
        size, share = mu / phi, phi / (1.0 + phi)
        # log p = A(size) - size log(1 + phi) + y log(share); size falls by its own as log phi rises.
        first = torch.digamma(y + size) - torch.digamma(size) - torch.log1p(phi)
        second = torch.polygamma(1, y + size) - torch.polygamma(1, size)
        score = -size * first - size * share + y * (1.0 - share)
        along = size * first + size.square() * second
        information = -(along + 2.0 * size * share - (size + y) * share * (1.0 - share))
        cross = size * first + size.square() * second + size * share
        return score, information, cross[:, None]

    def rough_dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        mu = self.link.inverse(eta[:, 0])
        ratio = float((weights[:, None] * (y[:, 0] - mu).square() / mu).sum() / (weights.sum() * mu.shape[1]))
        return min(max(ratio - 1.0, 0.05), 100.0)

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        mu = self.link.inverse(eta[:, 0])
        return torch.poisson(phi * torch._standard_gamma(mu / phi))

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        mu = self.link.inverse(eta[:, 0])
        odds = torch.as_tensor(phi, dtype=mu.dtype).expand_as(mu)
        fewer, more = negative_binomial_tails(y[:, 0], mu / odds, odds)
        return Tails.of(fewer, more, torch.exp(self.log_prob(eta, y, phi)))

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return mean * (1.0 + a_row(phi))

    def saturated(self, y: Tensor, phi: Dispersion) -> Tensor:
        return self.most_probable(y, phi)

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return self.kernel(mean, mean, y[:, 0, 0], a_row(phi))
