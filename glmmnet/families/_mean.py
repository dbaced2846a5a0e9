"""What families with one linear predictor share: the search for phi and for starting values, means through a link.

Inside, tensors are (n, S): one number a row and draw, without the axis of predictors.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from glmmnet.families._base import Family, Target, as_numbers
from glmmnet.families._of_mean import MeanFamily
from glmmnet.links import LOG, PositiveLink
from glmmnet.typing import Dispersion, Response

#: Phi is looked for between its start over this factor and its start times it.
_RANGE = 1e7
#: Newton steps for phi at most, longest step of log phi, and the step that is none any more.
_PASSES, _LONGEST, _STILL = 12, 2.5, 1e-9
#: Rows x draws that phi is computed from; more draws tell hardly more of it.
_ROW_DRAWS = 200_000
#: Rounds between eta and phi for starting values, Newton steps for eta a round, and the longest of them.
_ROUNDS, _STEPS, _LONGEST_ETA = 4, 10, 2.0
#: Newton steps to the mean of each row's saturated model, and where they start at the end of the range of means.
_SATURATING, _EDGE = 60, 1e-3


def thinned(eta: Tensor) -> Tensor:
    """Draws (n, C, S) evenly spaced among those given, as many as phi is computed from."""
    draws = eta.shape[2]
    few = max(1, min(draws, _ROW_DRAWS // max(len(eta), 1)))
    return eta if few == draws else eta[:, :, torch.linspace(0, draws - 1, few).round().to(torch.int64)]


def above_zero(y: Tensor) -> Tensor:
    """For :meth:`Family.unbounded`: only rows not above 0 grow ever more probable as their mean falls to 0."""
    some = (y[:, :1] > 0).to(y.dtype)
    return torch.cat([some, -torch.ones_like(some)], dim=1)


def newton_phi(derivatives: Callable[[float], tuple[float, float]], start: float) -> float:
    """Maximum over log phi by Newton's method inside a shrinking bracket.

    Parameters
    ----------
    derivatives : callable
        phi -> first derivative with respect to log phi, minus the second.
    start : float
    """
    at = math.log(start)
    low, high = at - math.log(_RANGE), at + math.log(_RANGE)
    for _ in range(_PASSES):
        score, information = derivatives(math.exp(at))
        low, high = (at, high) if score > 0 else (low, at)
        # Where the curve bends upwards, uphill as far as allowed.
        step = score / information if information > 0 else math.copysign(_LONGEST, score)
        there = min(max(at + min(max(step, -_LONGEST), _LONGEST), low), high)
        if abs(there - at) < _STILL:
            return math.exp(there)
        at = there
    return math.exp(at)


class SingleFamily(Family):
    """A family with one linear predictor and one number a row."""

    def encode_new(self, response: Response, target: Target) -> Tensor:
        return as_numbers(response)[:, None, None]

    def observed(self, y: Tensor) -> Tensor:
        return y[:, 0, 0]

    def rough_dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        """Phi by moments, from which the search starts."""
        return 1.0

    def dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        if not self.has_dispersion:
            return 1.0
        eta = thinned(eta)
        share = weights[:, None] / (weights.sum() * eta.shape[2])

        def derivatives(phi: float) -> tuple[float, float]:
            score, information, _ = self.dispersion_derivatives(eta, y, phi)
            return float((share * score).sum()), float((share * information).sum())

        return newton_phi(derivatives, self.rough_dispersion(eta, y, weights))

    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        eta, phi = self.link.link((weights * self.observed(y)).sum() / weights.sum()), 1.0
        for _ in range(_ROUNDS if self.has_dispersion else 1):
            everywhere = eta.expand(len(y), 1, 1)
            phi = self.dispersion(everywhere, y, weights)
            eta = self._intercept(eta, y, weights, phi)
        return eta[None], phi

    def _intercept(self, eta: Tensor, y: Tensor, weights: Tensor, phi: float) -> Tensor:
        """One eta for all rows, by Newton's method from `eta`."""
        longest = _LONGEST_ETA * self.eta_unit(y, weights)
        for _ in range(_STEPS):
            everywhere = eta.expand(len(y), 1, 1)
            _, score = self.log_prob_and_score(everywhere, y, phi)
            information = self.weight(everywhere, y, phi)
            step = (weights @ score[:, 0, 0]) / (weights @ information[:, 0, 0, 0])
            eta = eta + step.clamp(-longest, longest)
            if abs(float(step)) < 1e-12 * longest:
                break
        return eta

    def most_probable(self, y: Tensor, phi: Dispersion) -> Tensor:
        """The mean under which each row is most probable, (n,), where that is not the response itself."""
        low, high = self.link.domain
        inside = self.observed(y).clamp(low + _EDGE, high - _EDGE)
        eta = self.link.link(inside)[:, None, None]
        for _ in range(_SATURATING):
            _, score = self.log_prob_and_score(eta, y, phi)
            step = score / self.weight(eta, y, phi)[:, 0].clamp_min(1e-300)
            eta = eta + step.clamp(-_LONGEST_ETA, _LONGEST_ETA)
        return self.link.inverse(eta)[:, 0, 0]


class PositiveFamily(MeanFamily, SingleFamily):
    """A family whose mean mu is above 0.

    A family says how log p depends on log mu; the link adds its own derivative.
    """

    link: PositiveLink
    links: tuple[PositiveLink, ...] = (LOG,)

    @abstractmethod
    def kernel(self, log_mu: Tensor, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Log p up to terms free of mu."""

    @abstractmethod
    def constant(self, y: Tensor, phi: Dispersion) -> Tensor:
        """The terms of log p that are free of mu."""

    @abstractmethod
    def slope(self, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Derivative of log p with respect to log mu."""

    @abstractmethod
    def bend(self, mu: Tensor, phi: Dispersion) -> Tensor:
        """Variance of the slope."""

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        eta, y = eta[:, 0], y[:, 0]
        return self.kernel(self.link.log_inverse(eta), self.link.inverse(eta), y, phi) + self.constant(y, phi)

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        eta, y = eta[:, 0], y[:, 0]
        mu = self.link.inverse(eta)
        score = self.slope(mu, y, phi)
        if self.link is not LOG:
            score = score * self.link.log_slope(eta)
        return self.kernel(self.link.log_inverse(eta), mu, y, phi), score[:, None]

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        eta = eta[:, 0]
        bend = self.bend(self.link.inverse(eta), phi)
        return (bend * self.link.log_slope(eta).square())[:, None, None]


class CountFamily(PositiveFamily):
    """Counts or amounts that may be 0."""

    def unbounded(self, y: Tensor) -> Tensor | None:
        return above_zero(y)
