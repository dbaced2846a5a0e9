"""Negative binomial family with variance mu + mu^2 / theta, log link."""

from __future__ import annotations

import numpy as np
import scipy.special
import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target, a_row
from glmmnet.families._domain import read_counts
from glmmnet.families._mean import CountFamily
from glmmnet.typing import Dispersion, Response


def negative_binomial_tails(y: Tensor, size: Tensor, odds: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """P(Y < y) and P(Y > y) of a negative binomial count with mean size times odds, (n, S)."""
    count, size_, share = y.numpy(), size.numpy(), (odds / (1.0 + odds)).numpy()
    fewer = scipy.special.betainc(size_, np.maximum(count, 1.0), (1.0 / (1.0 + odds)).numpy())
    return np.where(count > 0, fewer, 0.0), scipy.special.betainc(count + 1.0, size_, share)


@FAMILIES.register("negativebinomial")
class NegativeBinomial(CountFamily):
    """Counts y with mean mu and variance mu + mu^2 / theta; phi is theta.

    theta is ``theta`` in MASS, the dispersion of nbinom2 in glmmTMB, ``shape`` in brms, ``alpha`` in bambi and
    1 / ``alpha`` in statsmodels. It grows without end where counts vary no more than a Poisson's.
    Deviances are those at the estimated theta, as in MASS and glmmTMB.

    Parameters
    ----------
    link : {"log"}, optional

    References
    ----------
    Hardin, Hilbe (2018), Generalized Linear Models and Extensions, 4th ed., chapter 13 (NB2).
    """

    name = "negativebinomial"
    has_dispersion = True
    dispersion_name = "theta"

    def encode(self, response: Response) -> Target:
        return Target(read_counts(self, response)[:, None, None])

    def kernel(self, log_mu: Tensor, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return y * log_mu - (y + phi) * torch.log1p(mu / phi)

    def constant(self, y: Tensor, phi: Dispersion) -> Tensor:
        theta = torch.as_tensor(phi, dtype=y.dtype)
        return torch.lgamma(y + theta) - torch.lgamma(theta) - torch.lgamma(y + 1) - y * torch.log(theta)

    def slope(self, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return (y - mu) / (1.0 + mu / phi)

    def bend(self, mu: Tensor, phi: Dispersion) -> Tensor:
        return mu / (1.0 + mu / phi)

    def curvature(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        mu, y = self.link.inverse(eta[:, 0]), y[:, 0]
        return ((1.0 + y / phi) * mu / (1.0 + mu / phi) ** 2)[:, None, None]

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        mu, y = self.link.inverse(eta[:, 0]), y[:, 0]
        theta = torch.as_tensor(phi, dtype=y.dtype)
        total, gap = theta + mu, mu - y
        first = torch.digamma(y + theta) - torch.digamma(theta) - torch.log1p(mu / theta) + gap / total
        second = torch.polygamma(1, y + theta) - torch.polygamma(1, theta) + mu / (theta * total) - gap / total.square()
        score = theta * first
        cross = theta * mu * gap / total.square()
        return score, -score - theta.square() * second, cross[:, None]

    def rough_dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        mu = self.link.inverse(eta[:, 0])
        share = weights[:, None] / mu.square().mean()
        over = float((share * ((y[:, 0] - mu).square() - mu)).sum())
        return min(max(float((share * mu.square()).sum()) / max(over, 1e-300), 0.1), 100.0)

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        mu = self.link.inverse(eta[:, 0])
        theta = torch.as_tensor(phi, dtype=mu.dtype).expand_as(mu)
        return torch.poisson(mu / theta * torch._standard_gamma(theta))

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        mu = self.link.inverse(eta[:, 0])
        theta = torch.as_tensor(phi, dtype=mu.dtype).expand_as(mu)
        fewer, more = negative_binomial_tails(y[:, 0], theta, mu / theta)
        return Tails.of(fewer, more, torch.exp(self.log_prob(eta, y, phi)))

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return mean + mean.square() / a_row(phi)

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        observed, theta = y[:, 0, 0], a_row(phi)
        return torch.xlogy(observed, mean) - (observed + theta) * torch.log1p(mean / theta)
