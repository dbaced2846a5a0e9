"""Poisson family: log, identity or square-root link."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target
from glmmnet.families._domain import read_counts
from glmmnet.families._mean import CountFamily
from glmmnet.links import LOG, POSITIVE_IDENTITY, SQRT, least_positive
from glmmnet.typing import Dispersion, Response


@FAMILIES.register("poisson")
class Poisson(CountFamily):
    """Counts y with mean and variance mu.

    Parameters
    ----------
    link : {"log", "identity", "sqrt"}, optional
        With "identity" eta below 0 is impossible: it is as improbable as numbers allow, and predictions that average
        over random effects leave it out.

    Examples
    --------
    >>> from glmmnet.families import Poisson
    >>> Poisson(link="sqrt")
    Poisson(link='sqrt')
    """

    name = "poisson"
    links = (LOG, POSITIVE_IDENTITY, SQRT)

    def __init__(self, link: str | None = None) -> None:
        super().__init__(link)
        self.canonical = self.link is LOG

    def encode(self, response: Response) -> Target:
        return Target(read_counts(self, response)[:, None, None])

    def tells_rows(self, y: Tensor) -> bool:
        return True

    def kernel(self, log_mu: Tensor, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return self._told(mu, y) * log_mu - mu

    def constant(self, y: Tensor, phi: Dispersion) -> Tensor:
        return -torch.lgamma(y + 1)

    def slope(self, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return self._told(mu, y) - mu

    def _told(self, mu: Tensor, y: Tensor) -> Tensor:
        """The counts, but no count of 0 where eta is below 0: it would be certain there."""
        return torch.where(mu < least_positive(mu), y.clamp_min(1.0), y) if self.link is POSITIVE_IDENTITY else y

    def bend(self, mu: Tensor, phi: Dispersion) -> Tensor:
        return mu

    def at_edge(self, y: Tensor) -> Tensor | None:
        return y[:, 0, 0] == 0 if self.link is POSITIVE_IDENTITY else None

    def unbounded(self, y: Tensor) -> Tensor | None:
        # The mean's square root may be negative, and grows on both sides; eta itself may not be.
        return super().unbounded(y) if self.link is LOG else None

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.poisson(self.link.inverse(eta))[:, 0]

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        mu = self.link.inverse(eta[:, 0])
        y_ = y[:, 0].expand_as(mu)
        fewer = torch.where(y_ > 0, torch.special.gammaincc(y_.clamp_min(1.0), mu), 0.0)
        return Tails(fewer, torch.exp(self.log_prob(eta, y, phi)), torch.special.gammainc(y_ + 1, mu))

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return mean

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.xlogy(y[:, 0, 0], mean) - mean
