"""Cumulative family for ordered classes: a threshold a class boundary, one coefficient for every column."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glmmnet.errors import OptionError
from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target
from glmmnet.families._classes import ClassFamily
from glmmnet.links import CLOGLOG, LOGIT, PROBIT, ProbabilityLink
from glmmnet.typing import Dispersion, Response

#: Derivative of the log density of each link's distribution.
_LOG_DENSITY_SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "logit": lambda eta: -torch.tanh(0.5 * eta),
    "probit": torch.neg,
    "cloglog": lambda eta: -torch.expm1(eta.clamp_max(80.0)),
}


@FAMILIES.register("cumulative")
class Cumulative(ClassFamily):
    """Ordered classes: link(P(y <= k)) = threshold_k - eta, eta = x'beta + z'b the same for all k, as in `ordinal`.

    Reads ordered categories, whole numbers and booleans; text and unordered categories with their order given. The
    increasing thresholds, named ``a|b`` after the classes that they part, take the place of the intercept. The K - 1
    linear predictors are threshold_k - eta; offsets and nn() belong to eta.

    Parameters
    ----------
    link : {"logit", "probit", "cloglog"}, optional
    order : sequence of class labels, optional
        The classes from the lowest to the highest.

    Examples
    --------
    >>> from glmmnet.families import Cumulative
    >>> Cumulative(link="probit")
    Cumulative(link='probit')

    References
    ----------
    McCullagh (1980), Regression models for ordinal data, J. R. Stat. Soc. B 42(2), 109-142.
    """

    name = "cumulative"
    links = (LOGIT, PROBIT, CLOGLOG)
    link: ProbabilityLink
    single_precision = True

    def __init__(self, link: str | None = None, order: Sequence[Any] | None = None) -> None:
        super().__init__(link)
        self.order = None if order is None else tuple(order)

    def encode(self, response: Response) -> Target:
        labels = self._labels(response)
        if len(labels) < 2:
            raise self.disagree(response, f"has one class, {list(labels)}", "two or more are needed")
        thresholds = tuple(f"{low}|{high}" for low, high in itertools.pairwise(labels))
        target = Target(
            torch.empty(0),
            labels=labels,
            predictors=thresholds,
            note=f"classes {' < '.join(map(str, labels))}",
            loadings={"": (-1.0,) * len(thresholds)},
            thresholds=thresholds,
        )
        return replace(target, y=self.encode_new(response, target))

    def _labels(self, response: Response) -> tuple[Any, ...]:
        """The classes that occur, from the lowest to the highest."""
        if response.kind == "counts":
            raise self.disagree(response, "gives successes and trials", "use family='binomial'")
        if response.kind == "categorical":
            found = tuple(response.levels[code] for code in np.unique(response.values))
            if self.order is None and not response.ordered:
                raise self.disagree(
                    response,
                    f"has classes without an order, {list(found[:5])}",
                    "make it an ordered pandas Categorical, give families.Cumulative(order=[...]), or use "
                    "family='categorical'",
                )
        else:
            values = np.unique(response.values)
            if response.kind == "numeric" and not np.all(values == np.round(values)):
                wrong = values[values != np.round(values)][0]
                raise self.disagree(
                    response, f"has values that are no class, e.g. {wrong:g}", "use family='gaussian' or whole numbers"
                )
            found = tuple(bool(v) if response.kind == "boolean" else int(v) for v in values)
        if self.order is None:
            return found
        if unknown := [label for label in found if label not in self.order]:
            raise self.disagree(response, f"has classes outside of order=, {unknown[:5]}", "name every class in order=")
        return tuple(label for label in self.order if label in found)

    def encode_new(self, response: Response, target: Target) -> Tensor:
        known = {label: code for code, label in enumerate(target.labels)}
        found = response.levels if response.kind == "categorical" else tuple(np.unique(response.values))
        codes = response.values if response.kind == "categorical" else np.searchsorted(found, response.values)
        codes = np.asarray(codes, dtype=np.int64)
        if unknown := [found[code] for code in np.unique(codes) if found[code] not in known]:
            raise self.disagree(response, f"has classes unseen in training, {unknown[:5]}", "leave those rows out")
        translate = torch.tensor([known.get(level, 0) for level in found])
        y = torch.nn.functional.one_hot(translate[torch.as_tensor(codes)], len(target.labels)).to(torch.float64)
        return y[:, :, None]

    def _between(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Log of F(upper) - F(lower), exact in both tails; thresholds that meet leave next to nothing."""
        gap = (upper - lower).clamp_min(torch.finfo(upper.dtype).tiny)
        if self.link is LOGIT:
            inside = torch.log(-torch.expm1(-gap))
            return torch.nn.functional.logsigmoid(upper) + torch.nn.functional.logsigmoid(-lower) + inside
        below_low, above_low = self.link.logs(lower)
        below_high, above_high = self.link.logs(upper)
        left = below_low < above_low
        larger = torch.where(left, below_high, above_low)
        smaller = torch.where(left, below_low, above_high)
        ratio = (larger - smaller).clamp_min(torch.finfo(upper.dtype).tiny)
        return larger + torch.log(-torch.expm1(-ratio))

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        lower, upper, lowest, highest, _, _ = _around(eta, y)
        below, _ = self.link.logs(upper)
        _, above = self.link.logs(lower)
        return torch.where(lowest, below, torch.where(highest, above, self._between(lower, upper)))

    def _ratios(self, eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log p, and the densities at the predictors above and below the class over p, 0 at the ends: (n, S)."""
        lower, upper, lowest, highest, _, _ = _around(eta, y)
        if self.link is LOGIT:
            gap = (upper - lower).clamp_min(torch.finfo(eta.dtype).tiny)
            between = torch.where(lowest | highest, 0.0, 1.0 / torch.expm1(gap))
            log_p = torch.where(highest, 0.0, torch.nn.functional.logsigmoid(upper))
            log_p = log_p + torch.where(lowest, 0.0, torch.nn.functional.logsigmoid(-lower))
            log_p = log_p + torch.where(lowest | highest, 0.0, torch.log(-torch.expm1(-gap)))
            above, below = torch.sigmoid(-upper) + between, torch.sigmoid(lower) + between
        else:
            log_p = self.log_prob(eta, y, 1.0)
            # Where thresholds all but meet the ratio would be too large a number.
            most = 0.4 * math.log(torch.finfo(eta.dtype).max)
            above = torch.exp((self._log_density(upper) - log_p).clamp_max(most))
            below = torch.exp((self._log_density(lower) - log_p).clamp_max(most))
        return log_p, torch.where(highest, 0.0, above), torch.where(lowest, 0.0, below)

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        log_p, above, below = self._ratios(eta, y)
        _, _, _, _, at_lower, at_upper = _around(eta, y)
        score = torch.zeros_like(eta)
        score.scatter_add_(1, at_upper, above[:, None])
        score.scatter_add_(1, at_lower, -below[:, None])
        return log_p, score

    def curvature(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        _, above, below = self._ratios(eta, y)
        lower, upper, _, _, at_lower, at_upper = _around(eta, y)
        slope, c = _LOG_DENSITY_SLOPES[self.link.name], eta.shape[1]
        curvature = torch.zeros(len(eta), c * c, eta.shape[2], dtype=eta.dtype)
        for row, column, value in (
            (at_upper, at_upper, above.square() - slope(upper) * above),
            (at_lower, at_lower, below.square() + slope(lower) * below),
            (at_upper, at_lower, -above * below),
            (at_lower, at_upper, -above * below),
        ):
            curvature.scatter_add_(1, row * c + column, value[:, None])
        return curvature.reshape(len(eta), c, c, -1)

    def _log_density(self, eta: Tensor) -> Tensor:
        """Log of the derivative of the inverse link."""
        return self.link.logs(eta)[0] + torch.log(self.link.slopes(eta)[0])

    def _log_probabilities(self, eta: Tensor) -> Tensor:
        """Of every class, (n, K, S)."""
        below, _ = self.link.logs(eta[:, :1])
        _, above = self.link.logs(eta[:, -1:])
        return torch.cat([below, self._between(eta[:, :-1], eta[:, 1:]), above], dim=1)

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        log_p, log_density = self._log_probabilities(eta), self._log_density(eta)
        own = torch.exp(2 * log_density - log_p[:, :-1]) + torch.exp(2 * log_density - log_p[:, 1:])
        beside = -torch.exp(log_density[:, :-1] + log_density[:, 1:] - log_p[:, 1:-1])
        weight = torch.diag_embed(own.movedim(1, -1))
        weight += torch.diag_embed(beside.movedim(1, -1), 1) + torch.diag_embed(beside.movedim(1, -1), -1)
        return weight.movedim(1, -1)

    def unbounded(self, y: Tensor) -> Tensor:
        # The threshold above the class must not fall, the one below not rise.
        own = y[:, :, 0]
        return torch.stack([own[:, :-1], -own[:, 1:]], dim=1)

    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        share = (weights[:, None] * y[:, :, 0]).sum(dim=0) / weights.sum()
        return self.link.link(share.cumsum(dim=0)[:-1]), 1.0

    def mean(self, eta: Tensor, phi: Dispersion) -> Tensor:
        return torch.exp(self._log_probabilities(eta))

    def linear_predictors(self, eta: Tensor, intercepts: Tensor) -> Tensor:
        self.check_predictors(eta, intercepts, max(len(intercepts), 1), "its thresholds, one less than classes")
        if bool((intercepts.diff() <= 0).any()):
            raise OptionError(f"thresholds are {intercepts.tolist()}; they must increase.")
        return intercepts[None, :, None] - eta

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        lower, upper, lowest, highest, _, _ = _around(eta, y)
        below, above = torch.exp(self.link.logs(lower)[0]), torch.exp(self.link.logs(upper)[1])
        at = torch.exp(self.log_prob(eta, y, phi))
        return Tails(torch.where(lowest, 0.0, below), at, torch.where(highest, 0.0, above))

    def observation_variance(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.full_like(eta[:, 0, 0], self.link.latent_variance)

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        below = self.link.inverse(eta)
        return (torch.rand_like(below[:, :1]) > below).sum(dim=1).to(eta.dtype)


def _around(eta: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The predictors below and above each row's class, (n, S); whether it is the lowest, the highest, (n, 1).

    Then the places of both predictors, (n, 1, S); at the ends of the scale both are the one that there is.
    """
    code = y[:, :, 0].argmax(dim=1)[:, None]
    most = eta.shape[1]
    at_lower = (code - 1).clamp_min(0)[:, :, None].expand(-1, 1, eta.shape[2])
    at_upper = code.clamp_max(most - 1)[:, :, None].expand(-1, 1, eta.shape[2])
    lower, upper = eta.gather(1, at_lower)[:, 0], eta.gather(1, at_upper)[:, 0]
    return lower, upper, code == 0, code == most, at_lower, at_upper
