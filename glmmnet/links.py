"""Link functions: g(mean) = eta."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Link:
    """A link function and its inverse.

    Attributes
    ----------
    name : str
    link : callable
        mean -> eta, elementwise (for ``softmax`` over the class axis, dimension 1).
    inverse : callable
        eta -> mean.
    domain : (float, float)
        Open interval that means may lie in.
    scale : str
        What eta is measured in, for axis labels.
    unit_free : bool
        A step of eta means the same whatever the response is measured in, as with logs and odds.
    least_eta : float
        Where the values end that eta may have.
    """

    name: str
    link: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    domain: tuple[float, float]
    scale: str
    unit_free: bool = True
    least_eta: float = -math.inf


@dataclass(frozen=True, kw_only=True)
class PositiveLink(Link):
    """A link of a mean above 0.

    Where a link is defined for positive eta only, the mean goes on below as small as numbers allow, so that no eta
    is without a density.

    Attributes
    ----------
    log_inverse : callable
        eta -> log mean.
    log_slope : callable
        eta -> derivative of log mean.
    """

    log_inverse: Callable[[Tensor], Tensor]
    log_slope: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ProbabilityLink(Link):
    """A link of a probability, exact in both tails.

    Attributes
    ----------
    logs : callable
        eta -> (log mean, log(1 - mean)).
    slopes : callable
        eta -> the derivatives of both, the first positive and the second negative.
    turn : callable
        eta -> second derivative of the mean over the first.
    latent_variance : float
        Variance of the distribution whose distribution function the mean is: that of a latent response.
    """

    logs: Callable[[Tensor], tuple[Tensor, Tensor]]
    slopes: Callable[[Tensor], tuple[Tensor, Tensor]]
    turn: Callable[[Tensor], Tensor]
    latent_variance: float

    def bends(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Second derivatives of log mean and of log(1 - mean)."""
        success, failure = self.slopes(eta)
        turn = self.turn(eta)
        return success * (turn - success), failure * (turn - failure)


def _softmax(eta: Tensor) -> Tensor:
    return torch.softmax(eta, dim=1)


def _baseline_softmax(eta: Tensor) -> Tensor:
    reference = torch.zeros_like(eta[:, :1])
    return torch.softmax(torch.cat([reference, eta], dim=1), dim=1)


def _centred_log(mean: Tensor) -> Tensor:
    logs = torch.log(mean)
    return logs - logs.mean(dim=1, keepdim=True)


def _baseline_log(mean: Tensor) -> Tensor:
    return torch.log(mean[:, 1:]) - torch.log(mean[:, :1])


def _within_exp(eta: Tensor) -> Tensor:
    """Eta where its exponential and the square of that are numbers; else the nearest such value."""
    most = 0.4 * math.log(torch.finfo(eta.dtype).max)
    return eta.clamp(-most, most)


def _exp(eta: Tensor) -> Tensor:
    return torch.exp(_within_exp(eta))


def least_positive(eta: Tensor) -> float:
    """Smallest value that `_positive` leaves as it is."""
    return float(torch.finfo(eta.dtype).tiny ** 0.25)


def _positive(eta: Tensor) -> Tensor:
    """Eta; from a tiny value down a hyperbola that meets it smoothly and stays above 0."""
    least = least_positive(eta)
    return torch.where(eta > least, eta, least**2 / (2 * least - eta.clamp_max(least)))


def _positive_log_slope(eta: Tensor) -> Tensor:
    least = least_positive(eta)
    return 1.0 / torch.where(eta > least, eta, 2 * least - eta)


def _away_from_zero(eta: Tensor) -> Tensor:
    least = least_positive(eta)
    return torch.where(eta.abs() > least, eta, torch.copysign(torch.full_like(eta, least), eta))


def _logit_logs(eta: Tensor) -> tuple[Tensor, Tensor]:
    return torch.nn.functional.logsigmoid(eta), torch.nn.functional.logsigmoid(-eta)


def _logit_slopes(eta: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sigmoid(-eta), -torch.sigmoid(eta)


def _logit_turn(eta: Tensor) -> Tensor:
    return 1.0 - 2.0 * torch.sigmoid(eta)


def _probit_logs(eta: Tensor) -> tuple[Tensor, Tensor]:
    return torch.special.log_ndtr(eta), torch.special.log_ndtr(-eta)


def _mills(eta: Tensor) -> Tensor:
    """Normal density over the distribution function, 0 where that is below the smallest number."""
    return math.sqrt(2.0 / math.pi) / torch.special.erfcx(-eta / math.sqrt(2.0))


def _probit_slopes(eta: Tensor) -> tuple[Tensor, Tensor]:
    return _mills(eta), -_mills(-eta)


#: Below, exp(eta) is so small that log(1 - exp(-exp(eta))) is eta to the last digit but for half of exp(eta).
_TINY_HAZARD = -18.0


def _cloglog_logs(eta: Tensor) -> tuple[Tensor, Tensor]:
    eta = _within_exp(eta)
    hazard = torch.exp(eta)
    small = torch.log(-torch.expm1(-torch.exp(eta.clamp(_TINY_HAZARD, 0.0))))
    large = torch.log1p(-torch.exp(-hazard.clamp_min(1.0)))
    success = torch.where(eta < 0.0, small, large)
    return torch.where(eta < _TINY_HAZARD, eta - 0.5 * hazard, success), -hazard


def _cloglog_slopes(eta: Tensor) -> tuple[Tensor, Tensor]:
    hazard = _exp(eta)
    return hazard / torch.expm1(hazard), -hazard


_REAL, _ABOVE_ZERO, _UNIT = (-math.inf, math.inf), (0.0, math.inf), (0.0, 1.0)

IDENTITY = Link("identity", lambda mean: mean, lambda eta: eta, _REAL, "response", unit_free=False)
LOGIT = ProbabilityLink(
    "logit",
    torch.logit,
    torch.sigmoid,
    _UNIT,
    "log-odds",
    logs=_logit_logs,
    slopes=_logit_slopes,
    turn=_logit_turn,
    latent_variance=math.pi**2 / 3,
)
PROBIT = ProbabilityLink(
    "probit",
    torch.special.ndtri,
    torch.special.ndtr,
    _UNIT,
    "normal quantile",
    logs=_probit_logs,
    slopes=_probit_slopes,
    turn=torch.neg,
    latent_variance=1.0,
)
CLOGLOG = ProbabilityLink(
    "cloglog",
    lambda mean: torch.log(-torch.log1p(-mean)),
    lambda eta: -torch.expm1(-_exp(eta)),
    _UNIT,
    "log cumulative hazard",
    logs=_cloglog_logs,
    slopes=_cloglog_slopes,
    turn=lambda eta: 1.0 - _exp(eta),
    latent_variance=math.pi**2 / 6,
)
LOG = PositiveLink("log", torch.log, _exp, _ABOVE_ZERO, "log mean", log_inverse=_within_exp, log_slope=torch.ones_like)
POSITIVE_IDENTITY = PositiveLink(
    "identity",
    lambda mean: mean,
    _positive,
    _ABOVE_ZERO,
    "response",
    unit_free=False,
    log_inverse=lambda eta: torch.log(_positive(eta)),
    log_slope=_positive_log_slope,
    least_eta=0.0,
)
INVERSE = PositiveLink(
    "inverse",
    torch.reciprocal,
    lambda eta: 1.0 / _positive(eta),
    _ABOVE_ZERO,
    "1 / mean",
    unit_free=False,
    log_inverse=lambda eta: -torch.log(_positive(eta)),
    log_slope=lambda eta: -_positive_log_slope(eta),
    least_eta=0.0,
)
SQRT = PositiveLink(
    "sqrt",
    torch.sqrt,
    lambda eta: _away_from_zero(eta).square(),
    _ABOVE_ZERO,
    "square root of the mean",
    unit_free=False,
    log_inverse=lambda eta: 2.0 * torch.log(_away_from_zero(eta).abs()),
    log_slope=lambda eta: 2.0 / _away_from_zero(eta),
)
SOFTMAX = Link("softmax", _centred_log, _softmax, _UNIT, "class score")
BASELINE_LOGIT = Link("baseline logit", _baseline_log, _baseline_softmax, _UNIT, "log-odds against the reference")
