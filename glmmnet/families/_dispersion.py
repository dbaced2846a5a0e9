"""A dispersion with a formula: the logarithm of a family's phi is one more linear predictor."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from glmmnet.families._base import Family, Tails, Target
from glmmnet.typing import Dispersion, Response


class ModelledDispersion(Family):
    """`family` with log phi as its last linear predictor, on the formula of the part ``dispersion``.

    Parameters
    ----------
    family : Family
        Has a dispersion.

    References
    ----------
    Smyth (1989), Generalized linear models with varying dispersion, J. R. Stat. Soc. B 51(1), 47-60.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self.name, self.links, self.link = family.name, family.links, family.link
        self.formulas = (*family.formulas, "dispersion")
        self.linear_mean, self.class_means = family.linear_mean, family.class_means

    @property
    def title(self) -> str:
        return self.family.title

    def _split(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """The family's own linear predictors, and phi (n, S)."""
        return eta[:, :-1], torch.exp(eta[:, -1])

    def encode(self, response: Response) -> Target:
        target = self.family.encode(response)
        own = target.loadings or {"": (1.0,)}
        loadings = {part: (*loading, 0.0) for part, loading in own.items()}
        loadings["dispersion"] = (*(0.0 for _ in target.predictors), 1.0)
        names = ("mean",) if target.predictors == ("",) else target.predictors
        note = "; ".join(filter(None, [target.note, f"dispersion: log {self.family.dispersion_name}"]))
        return replace(target, predictors=(*names, "dispersion"), loadings=loadings, note=note)

    def encode_new(self, response: Response, target: Target) -> Tensor:
        return self.family.encode_new(response, target)

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        own, phi = self._split(eta)
        return self.family.log_prob(own, y, phi)

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        own, phi = self._split(eta)
        _, score = self.family.log_prob_and_score(own, y, phi)
        of_phi, _, _ = self.family.dispersion_derivatives(own, y, phi)
        # What is free of the mean is not free of phi.
        return self.family.log_prob(own, y, phi), torch.cat([score, of_phi[:, None]], dim=1)

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        own, phi = self._split(eta)
        _, information, _ = self.family.dispersion_derivatives(own, y, phi)
        # Expected about the mean; about log phi as observed, upwards where the curve bends up. In expectation the two
        # have nothing in common in most families.
        return _bordered(self.family.weight(own, y, phi), torch.zeros_like(own), information.abs())

    def curvature(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        own, phi = self._split(eta)
        _, information, cross = self.family.dispersion_derivatives(own, y, phi)
        return _bordered(self.family.curvature(own, y, phi), cross, information)

    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        eta, phi = self.family.start(y, weights)
        return torch.cat([eta, torch.log(torch.tensor([phi], dtype=eta.dtype))]), 1.0

    def eta_unit(self, y: Tensor, weights: Tensor) -> float:
        return self.family.eta_unit(y, weights)

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        own, phi = self._split(eta)
        return self.family.simulate(own, y, phi)

    def as_simulated(self, y: Tensor) -> Tensor:
        return self.family.as_simulated(y)

    def vanished(self, eta: Tensor, weights: Tensor) -> tuple[str, str] | None:
        return self.family.vanished(eta[:, :-1], weights)

    def observed(self, y: Tensor) -> Tensor:
        return self.family.observed(y)

    def mean(self, eta: Tensor, phi: Dispersion) -> Tensor:
        return self.family.mean(*self._split(eta))

    def variance_at(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        own, phi = self._split(eta)
        return self.family.variance_at(mean, own, y, phi)

    def deviance_at(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        own, phi = self._split(eta)
        return self.family.deviance_at(mean, own, y, phi)

    def observation_variance(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        own, phi = self._split(eta)
        return self.family.observation_variance(mean, own, y, phi)

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        own, phi = self._split(eta)
        return self.family.tails(own, y, phi)

    def __repr__(self) -> str:
        return f"{self.family!r} with a formula of its dispersion"


def _bordered(inner: Tensor, cross: Tensor, corner: Tensor) -> Tensor:
    """Matrices [[inner, cross], [cross', corner]] of each row and draw: (n, C + 1, C + 1, S)."""
    upper = torch.cat([inner, cross[:, :, None]], dim=2)
    lower = torch.cat([cross, corner[:, None]], dim=1)
    return torch.cat([upper, lower[:, None]], dim=1)
