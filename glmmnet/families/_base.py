"""What every family answers: the density of y given eta, its derivatives, the mean, the dispersion, simulation.

Shapes here: eta (n, C, S) for S draws at once; the encoded response y (n, m, 1), so that it broadcasts over draws.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glmmnet.errors import DesignError
from glmmnet.links import Link
from glmmnet.typing import Response


@dataclass(frozen=True)
class Target:
    """The response as the family reads it.

    Attributes
    ----------
    y : Tensor, (n, m, 1) float64
        m = 1, but 2 for counts (successes, trials) and C for a one-hot class.
    labels : tuple
        Class labels in the order of the mean's columns; empty unless categorical or two-level text.
    predictors : tuple of str
        Names of the C linear predictors; ``("",)`` when there is one.
    note : str
        What the user should know of the reading, e.g. which level is the success.
    """

    y: Tensor
    labels: tuple[Any, ...] = ()
    predictors: tuple[str, ...] = ("",)
    note: str = ""


class Family(ABC):
    """A response distribution p(y | eta, phi).

    Attributes
    ----------
    name : str
    link : Link
    has_dispersion : bool
        Whether phi is estimated; else it is 1.
    quadratic : bool
        log p is quadratic in eta, so that the posterior of b is exactly Gaussian.
    class_means : bool
        The mean is a probability a class, (n, classes), instead of one number a row.
    single_precision : bool
        eta is of order 1 whatever the data, so that rows may be evaluated in single precision.
    symmetric : bool
        Adding a constant to every linear predictor changes nothing; the fixed effects of the classes sum to zero.
    """

    name: str
    link: Link
    has_dispersion = False
    quadratic = False
    class_means = False
    single_precision = False
    symmetric = False

    @abstractmethod
    def encode(self, response: Response) -> Target:
        """Read the response; DesignError names the offending values and the families that would fit."""

    @abstractmethod
    def encode_new(self, response: Response, target: Target) -> Tensor:
        """Read the response of new rows as `target` was read: (n, m, 1)."""

    @abstractmethod
    def log_prob(self, eta: Tensor, y: Tensor, phi: float) -> Tensor:
        """Log p(y | eta, phi) with every constant, (n, S)."""

    @abstractmethod
    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: float) -> tuple[Tensor, Tensor]:
        """Log p up to terms free of eta (n, S), and its derivative with respect to eta (n, C, S)."""

    @abstractmethod
    def weight(self, eta: Tensor, y: Tensor, phi: float) -> Tensor:
        """Minus the expected second derivative of log p with respect to eta: (n, C, C, S)."""

    def weight_diagonal(self, eta: Tensor, y: Tensor, phi: float) -> Tensor:
        """The diagonal of :meth:`weight`, (n, C, S); for many classes without the rest."""
        return torch.diagonal(self.weight(eta, y, phi), dim1=1, dim2=2).movedim(-1, 1)

    @abstractmethod
    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        """Starting eta of an intercept-only model (C,), and phi."""

    @abstractmethod
    def simulate(self, eta: Tensor, y: Tensor, phi: float) -> Tensor:
        """Draw a response for each row and draw, (n, S); categorical: class numbers. `y` gives trials of counts."""

    @abstractmethod
    def observed(self, y: Tensor) -> Tensor:
        """The response on the scale of the mean: (n,), or (n, classes) when `class_means`."""

    @abstractmethod
    def variance(self, mean: Tensor, y: Tensor, phi: float) -> Tensor:
        """Variance of the response on the scale of `observed`, shaped as `mean`."""

    def tells_rows(self, y: Tensor) -> bool:
        """Whether effects of single rows can be told from the family's own noise, as with counts (overdispersion)."""
        return False

    def unbounded(self, y: Tensor) -> Tensor | None:
        """Rows A (n, K, C): log p never falls on the way from any eta along d exactly where A d >= 0.

        None where the likelihood falls along every direction, so that estimates cannot run away.
        """
        return None

    def mean(self, eta: Tensor) -> Tensor:
        """Mean of the response: (n, 1, S), or (n, classes, S) when `class_means`."""
        return self.link.inverse(eta)

    def dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        """Dispersion that maximises the expected log density over the draws in `eta`; 1 where there is none."""
        return 1.0

    def unit_deviance(self, mean: Tensor, y: Tensor) -> Tensor:
        """Deviance of each row against the saturated model, (n,), for `mean` as `observed` is shaped."""
        saturated = self._log_prob_of_mean(self.observed(y), y)
        return 2.0 * (saturated - self._log_prob_of_mean(mean, y))

    @abstractmethod
    def _log_prob_of_mean(self, mean: Tensor, y: Tensor) -> Tensor:
        """Log density at a mean shaped as `observed`, (n,), up to terms free of it."""

    def disagree(self, response: Response, found: str, instead: str) -> DesignError:
        """The error for a response that this family cannot read."""
        return DesignError(f"Response `{response.label}` {found}; family {self.name!r} cannot read it: {instead}.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def as_numbers(response: Response) -> Tensor:
    """The response's values, or codes of its levels, as a float64 tensor of their own."""
    return torch.tensor(np.asarray(response.values, dtype=np.float64))


def two_levels_as_numbers(values: Tensor) -> bool:
    """Whether all values are 0 or 1."""
    return bool(torch.all((values == 0) | (values == 1)))
