"""Gaussian family, identity link; phi is the residual variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from glmmnet.errors import FitError
from glmmnet.families import FAMILIES
from glmmnet.families._base import Family, Target, as_numbers, beside_eta
from glmmnet.links import IDENTITY
from glmmnet.typing import Dispersion, Response

#: A residual variance below this share of the response's is rounding error.
_EXACT = 1e-12


@FAMILIES.register("gaussian")
class Gaussian(Family):
    """y ~ N(eta, phi)."""

    name = "gaussian"
    link = IDENTITY
    has_dispersion = True
    canonical = True
    quadratic = True

    def encode(self, response: Response) -> Target:
        if response.kind == "categorical":
            raise self.disagree(
                response,
                f"is text or categorical with levels {list(response.levels[:5])}",
                "use family='bernoulli' (two levels) or 'categorical', or give numbers",
            )
        if response.kind == "counts":
            raise self.disagree(response, "gives successes and trials", "use family='binomial'")
        y = as_numbers(response)
        if float(y.max() - y.min()) == 0.0:
            raise self.disagree(response, f"is constant ({float(y[0]):g} in all rows)", "there is nothing to explain")
        return Target(y[:, None, None])

    def encode_new(self, response: Response, target: Target) -> Tensor:
        return as_numbers(response)[:, None, None]

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return -0.5 * ((y - eta)[:, 0].square() / phi + torch.log(2 * math.pi * torch.as_tensor(phi, dtype=eta.dtype)))

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        residual = y - eta
        score = residual / beside_eta(phi)
        return -0.5 * (residual * score)[:, 0], score

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return (torch.ones_like(eta) / beside_eta(phi))[:, :, None]

    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        total = weights.sum()
        mean = (weights * y[:, 0, 0]).sum() / total
        variance = (weights * (y[:, 0, 0] - mean).square()).sum() / total
        return mean[None], float(variance)

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return (eta + beside_eta(phi) ** 0.5 * torch.randn_like(eta))[:, 0]

    def observed(self, y: Tensor) -> Tensor:
        return y[:, 0, 0]

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.ones_like(mean) * (phi[:, 0] if isinstance(phi, Tensor) else phi)

    def dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        square = (y - eta)[:, 0].square().mean(dim=1)
        phi = float((weights * square).sum() / weights.sum())
        if phi <= _EXACT * self.start(y, weights)[1]:
            raise FitError(
                "the model reproduces the response exactly: its residual variance is 0, and the likelihood has no "
                "maximum. Leave out the column that the response was computed from."
            )
        return phi

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor) -> Tensor:
        return -0.5 * (y[:, 0, 0] - mean).square()
