"""Gaussian family: identity or log link; phi is the residual variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target, a_row, as_numbers, beside_eta, exact_fit
from glmmnet.families._domain import read_real
from glmmnet.families._mean import above_zero
from glmmnet.families._of_mean import MeanFamily
from glmmnet.links import IDENTITY, LOG, Link
from glmmnet.typing import Dispersion, Response

#: A residual variance below this share of the response's is rounding error.
_EXACT = 1e-12


@FAMILIES.register("gaussian")
class Gaussian(MeanFamily):
    """y ~ N(mu, phi).

    Parameters
    ----------
    link : {"identity", "log"}, optional
        With "log" the mean is positive, not the response; the random effects multiply it.
    """

    name = "gaussian"
    links: tuple[Link, ...] = (IDENTITY, LOG)
    has_dispersion = True
    proportional = True
    dispersion_name = "variance"

    def __init__(self, link: str | None = None) -> None:
        super().__init__(link)
        self.canonical = self.quadratic = self.residual = self.linear_mean = self.link is IDENTITY

    def encode(self, response: Response) -> Target:
        y = read_real(self, response)
        if self.link is LOG and float(y.mean()) <= 0.0:
            raise self.disagree(response, f"has the mean {float(y.mean()):g}", "link='log' needs a mean above 0")
        return Target(y[:, None, None])

    def encode_new(self, response: Response, target: Target) -> Tensor:
        return as_numbers(response)[:, None, None]

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        square = (y - self.link.inverse(eta))[:, 0].square()
        return -0.5 * (square / phi + torch.log(2 * math.pi * torch.as_tensor(phi, dtype=eta.dtype)))

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        mu = self.link.inverse(eta)
        residual = y - mu
        score = residual / beside_eta(phi)
        return -0.5 * (residual * score)[:, 0], score if self.link is IDENTITY else score * mu

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        slope = torch.ones_like(eta) if self.link is IDENTITY else self.link.inverse(eta)
        return (slope.square() / beside_eta(phi))[:, :, None]

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        kernel, cross = self.log_prob_and_score(eta, y, phi)
        return -kernel - 0.5, -kernel, cross

    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        total = weights.sum()
        mean = (weights * y[:, 0, 0]).sum() / total
        variance = (weights * (y[:, 0, 0] - mean).square()).sum() / total
        return self.link.link(mean)[None], float(variance)

    def unbounded(self, y: Tensor) -> Tensor | None:
        return None if self.link is IDENTITY else above_zero(y)

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return (self.link.inverse(eta) + beside_eta(phi) ** 0.5 * torch.randn_like(eta))[:, 0]

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        z = (y - self.link.inverse(eta))[:, 0] / phi**0.5
        return Tails.of(torch.special.ndtr(z), torch.special.ndtr(-z))

    def observed(self, y: Tensor) -> Tensor:
        return y[:, 0, 0]

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.ones_like(mean) * a_row(phi)

    def dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        square = (y - self.link.inverse(eta))[:, 0].square().mean(dim=1)
        phi = float((weights * square).sum() / weights.sum())
        if phi <= _EXACT * self.start(y, weights)[1]:
            raise exact_fit("residual variance")
        return phi

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return -0.5 * (y[:, 0, 0] - mean).square()
