"""Gamma family: log, inverse or identity link."""

from __future__ import annotations

import math

import scipy.special
import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target, a_row, exact_fit
from glmmnet.families._domain import read_positive
from glmmnet.families._mean import PositiveFamily, newton_phi, thinned
from glmmnet.links import INVERSE, LOG, POSITIVE_IDENTITY
from glmmnet.typing import Dispersion, Response

#: Half the mean deviance below which what is left is rounding error, and beyond which a mean has left its link.
_EXACT, _LOST = 1e-13, 1e8


@FAMILIES.register("gamma")
class Gamma(PositiveFamily):
    """Amounts y above 0 with mean mu and variance phi mu^2.

    1 / phi is the shape (``shape`` in brms, ``alpha`` in bambi); phi is ``dispersion`` of R's glm, phi^(1/2) what
    glmmTMB calls sigma.

    Parameters
    ----------
    link : {"log", "inverse", "identity"}, optional
        With "inverse" and "identity" eta below 0 is impossible: it is as improbable as numbers allow, and predictions
        that average over random effects leave it out.
    """

    name = "gamma"
    has_dispersion = True
    proportional = True
    links = (LOG, INVERSE, POSITIVE_IDENTITY)

    def __init__(self, link: str | None = None) -> None:
        super().__init__(link)
        self.canonical = self.link is INVERSE

    def encode(self, response: Response) -> Target:
        return Target(read_positive(self, response)[:, None, None])

    def kernel(self, log_mu: Tensor, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return -(log_mu + y / mu) / phi

    def constant(self, y: Tensor, phi: Dispersion) -> Tensor:
        shape = 1.0 / torch.as_tensor(phi, dtype=y.dtype)
        return shape * torch.log(shape * y) - torch.log(y) - torch.lgamma(shape)

    def slope(self, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return (y / mu - 1.0) / phi

    def bend(self, mu: Tensor, phi: Dispersion) -> Tensor:
        return torch.ones_like(mu) / phi

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        ratio = y[:, 0] / self.link.inverse(eta[:, 0])
        shape = 1.0 / torch.as_tensor(phi, dtype=ratio.dtype)
        first = torch.log(shape) - torch.digamma(shape) + 1.0 + torch.log(ratio) - ratio
        score = -shape * first
        information = score - shape.square() * (1.0 / shape - torch.polygamma(1, shape))
        return score, information, (shape * (ratio - 1.0) * self.link.log_slope(eta[:, 0]))[:, None]

    def dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        eta = thinned(eta)[:, 0]
        ratio = y[:, 0] / self.link.inverse(eta)
        excess = (ratio - 1.0 - torch.log(ratio)).mean(dim=1)
        half = min(float((weights * excess).sum() / weights.sum()), _LOST)
        if half < _EXACT:
            raise exact_fit("dispersion")

        def derivatives(phi: float) -> tuple[float, float]:
            shape = 1.0 / phi
            first = math.log(shape) - float(scipy.special.digamma(shape)) - half
            second = 1.0 / shape - float(scipy.special.polygamma(1, shape))
            return -shape * first, -shape * first - shape**2 * second

        start = (3.0 - half + math.sqrt((half - 3.0) ** 2 + 24.0 * half)) / (12.0 * half)
        return newton_phi(derivatives, 1.0 / start)

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        mu = self.link.inverse(eta[:, 0])
        shape = (1.0 / torch.as_tensor(phi, dtype=mu.dtype)).expand_as(mu)
        return mu / shape * torch._standard_gamma(shape)

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        shape = 1.0 / torch.as_tensor(phi, dtype=y.dtype)
        scaled = shape * y[:, 0] / self.link.inverse(eta[:, 0])
        shape = shape.expand_as(scaled)
        return Tails.of(torch.special.gammainc(shape, scaled), torch.special.gammaincc(shape, scaled))

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return a_row(phi) * mean.square()

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return -(torch.log(mean) + y[:, 0, 0] / mean)
