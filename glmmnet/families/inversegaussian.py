"""Inverse Gaussian family, log link."""

from __future__ import annotations

import math

import scipy.stats
import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target, a_row, exact_fit
from glmmnet.families._domain import read_positive
from glmmnet.families._mean import PositiveFamily, thinned
from glmmnet.typing import Dispersion, Response

#: A dispersion times the mean response below this is rounding error.
_EXACT = 1e-13


@FAMILIES.register("inversegaussian")
class InverseGaussian(PositiveFamily):
    """Amounts y above 0 with mean mu and variance phi mu^3.

    phi is ``dispersion`` of R's inverse.gaussian; 1 / phi is ``shape`` in brms and lambda in textbooks.

    Parameters
    ----------
    link : {"log"}, optional
    """

    name = "inversegaussian"
    has_dispersion = True
    proportional = True

    def encode(self, response: Response) -> Target:
        return Target(read_positive(self, response)[:, None, None])

    def kernel(self, log_mu: Tensor, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return (1.0 - 0.5 * y / mu) / (mu * phi)

    def constant(self, y: Tensor, phi: Dispersion) -> Tensor:
        return -0.5 * (torch.log(2 * math.pi * phi * y) + 1.0 / (phi * y)) - torch.log(y)

    def slope(self, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return (y / mu - 1.0) / (mu * phi)

    def bend(self, mu: Tensor, phi: Dispersion) -> Tensor:
        return 1.0 / (mu * phi)

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        mu, y = self.link.inverse(eta[:, 0]), y[:, 0]
        half = 0.5 * (y / mu - 1.0).square() / (phi * y)
        return half - 0.5, half, self.slope(mu, y, phi)[:, None]

    def dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        mu = self.link.inverse(thinned(eta)[:, 0])
        scaled = ((y[:, 0] / mu - 1.0).square() / y[:, 0]).mean(dim=1)
        phi = float((weights * scaled).sum() / weights.sum())
        if phi * float(y.mean()) < _EXACT:
            raise exact_fit("dispersion")
        return phi

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        # Michael, Schucany, Haas (1976): the smaller root of a quadratic, or mu^2 over it.
        mu = self.link.inverse(eta[:, 0])
        half = 0.5 * mu * phi * torch.randn_like(mu).square()
        root = mu / (1.0 + half + torch.sqrt(half * (half + 2.0)))
        return torch.where(torch.rand_like(mu) * (mu + root) <= mu, root, mu * (mu / root))

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        phi = torch.as_tensor(phi, dtype=y.dtype)
        ratio, shape = (phi * y[:, 0]).numpy(), (phi * self.link.inverse(eta[:, 0])).numpy()
        return Tails.of(scipy.stats.invgauss.cdf(ratio, shape), scipy.stats.invgauss.sf(ratio, shape))

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return a_row(phi) * mean**3

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return self.kernel(mean, mean, y[:, 0, 0], 1.0)
