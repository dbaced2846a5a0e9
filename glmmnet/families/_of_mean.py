"""What families share whose variance and density are functions of the mean and phi, whatever eta it came from."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from glmmnet.families._base import Family
from glmmnet.links import LOG
from glmmnet.typing import Dispersion


class MeanFamily(Family):
    """A family whose variance and density need no more of eta than the mean: it gives both as functions of that."""

    @abstractmethod
    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Variance of the response on the scale of `observed`, shaped as `mean`."""

    def variance_at(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return self.variance(mean, y, phi)

    def observation_variance(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """By the log-normal approximation with a log link, ln(1 + V / mean^2), else by the delta method."""
        variance = self.variance(mean, y, phi)
        if self.link is LOG:
            return torch.log1p(variance / mean.square())
        with torch.enable_grad():
            at = mean.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.link.link(at).sum(), at)
        return variance * slope.square()

    def saturated(self, y: Tensor, phi: Dispersion) -> Tensor:
        """The mean under which each row is most probable, shaped as `observed`."""
        return self.observed(y)

    def deviance_at(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        saturated = self._log_prob_of_mean(self.saturated(y, phi), y, phi)
        return 2.0 * (saturated - self._log_prob_of_mean(mean, y, phi))

    @abstractmethod
    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Log density, without a phi that scales it, at a mean shaped as `observed`, (n,), up to terms free of it."""
