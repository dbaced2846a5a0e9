"""Log-normal family: the logarithm of the response is Gaussian with mean eta."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Target, a_row, as_numbers
from glmmnet.families._domain import read_positive
from glmmnet.families.gaussian import Gaussian
from glmmnet.links import IDENTITY
from glmmnet.typing import Dispersion, Response


@FAMILIES.register("lognormal")
class LogNormal(Gaussian):
    """Amounts y above 0 with log y ~ N(eta, phi); their mean is exp(eta + phi / 2).

    phi is the residual variance of log y, phi^(1/2) ``sigma`` in brms. Estimates are those of the Gaussian model
    of log y; log-likelihood, predictions and residuals are those of y. (glmmTMB's lognormal is another: eta is the
    log of the mean.)

    Parameters
    ----------
    link : {"identity"}, optional
        Of the mean of log y.
    """

    name = "lognormal"
    links = (IDENTITY,)
    proportional = False

    def __init__(self, link: str | None = None) -> None:
        super().__init__(link)
        self.linear_mean = False

    def encode(self, response: Response) -> Target:
        return Target(torch.log(read_positive(self, response))[:, None, None])

    def encode_new(self, response: Response, target: Target) -> Tensor:
        return torch.log(as_numbers(response))[:, None, None]

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return super().log_prob(eta, y, phi) - y[:, 0]

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.exp(super().simulate(eta, y, phi))

    def as_simulated(self, y: Tensor) -> Tensor:
        return self.observed(y)

    def observed(self, y: Tensor) -> Tensor:
        return torch.exp(y[:, 0, 0])

    def mean(self, eta: Tensor, phi: Dispersion) -> Tensor:
        half = 0.5 * torch.as_tensor(phi, dtype=eta.dtype)
        return torch.exp(eta + (half[:, None] if half.dim() == 2 else half))

    def observation_variance(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.ones_like(mean) * a_row(phi)

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.expm1(torch.as_tensor(a_row(phi), dtype=mean.dtype)) * mean.square()

    def saturated(self, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.exp(y[:, 0, 0] + 0.5 * a_row(phi))

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return -0.5 * (y[:, 0, 0] - torch.log(mean) + 0.5 * a_row(phi)).square()
