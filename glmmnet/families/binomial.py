"""Binomial counts p(k, n): logit, probit or complementary log-log link."""

from __future__ import annotations

import numpy as np
import scipy.special
import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target, as_numbers
from glmmnet.families._domain import refuse_counts
from glmmnet.families._mean import SingleFamily
from glmmnet.families._of_mean import MeanFamily
from glmmnet.families.bernoulli import Bernoulli
from glmmnet.links import CLOGLOG, LOGIT, PROBIT, ProbabilityLink
from glmmnet.typing import Dispersion, Response


class _SingleTrials(Bernoulli):
    """Reads a two-valued response; what it refuses is refused in the binomial's name."""

    name = "binomial"
    single_precision = True


@FAMILIES.register("binomial")
class Binomial(MeanFamily, SingleFamily):
    """k successes out of n trials, each with probability link^-1(eta); a two-valued response counts as n = 1.

    A row of 0 trials carries no information: as in R it counts as observed 0, and its Pearson and deviance residuals
    are 0.

    Parameters
    ----------
    link : {"logit", "probit", "cloglog"}, optional
    """

    name = "binomial"
    of_trials = True
    links: tuple[ProbabilityLink, ...] = (LOGIT, PROBIT, CLOGLOG)
    link: ProbabilityLink

    def __init__(self, link: str | None = None) -> None:
        super().__init__(link)
        self.canonical = self.link is LOGIT

    def encode(self, response: Response) -> Target:
        if response.kind != "counts":
            single = _SingleTrials().encode(response)
            return Target(self.encode_new(response, single), labels=single.labels, note=single.note)
        y = self.encode_new(response, Target(torch.empty(0)))
        refuse_counts(self, response, y)
        return Target(y)

    def encode_new(self, response: Response, target: Target) -> Tensor:
        values = as_numbers(response)
        if response.kind != "counts":
            values = torch.stack([values, torch.ones_like(values)], dim=1)
        return values[:, :, None]

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        k, n = y[:, 0], y[:, 1]
        choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
        return choose + self._kernel(eta, y)

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        if self.link is LOGIT:
            return self._kernel(eta, y), y[:, :1] - y[:, 1:] * torch.sigmoid(eta)
        success, failure = self.link.slopes(eta)
        return self._kernel(eta, y), y[:, :1] * success + (y[:, 1:] - y[:, :1]) * failure

    def _kernel(self, eta: Tensor, y: Tensor) -> Tensor:
        if self.link is not LOGIT:
            success, failure = self.link.logs(eta)
            return (y[:, :1] * success + (y[:, 1:] - y[:, :1]) * failure)[:, 0]
        return (y[:, :1] * eta - y[:, 1:] * torch.nn.functional.softplus(eta, threshold=40.0))[:, 0]

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        if self.link is LOGIT:
            p = torch.sigmoid(eta)
            return (y[:, 1:] * p * (1 - p))[:, :, None]
        success, failure = self.link.slopes(eta)
        return (-y[:, 1:] * success * failure)[:, :, None]

    def curvature(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        if self.link is LOGIT:
            return self.weight(eta, y, phi)
        success, failure = self.link.bends(eta)
        return -(y[:, :1] * success + (y[:, 1:] - y[:, :1]) * failure)[:, :, None]

    def unbounded(self, y: Tensor) -> Tensor:
        successes, failures = y[:, :1] > 0, y[:, 1:] > y[:, :1]
        return torch.cat([successes.to(y.dtype), -failures.to(y.dtype)], dim=1)

    def tells_rows(self, y: Tensor) -> bool:
        return bool((y[:, 1] > 1).any())

    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        k, n = (weights[:, None] * y[:, :, 0]).sum(dim=0)
        return self.link.link((k + 0.5) / (n + 1.0))[None], 1.0

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        trials = y[:, 1:].expand_as(eta)
        return torch.binomial(trials, self.link.inverse(eta))[:, 0]

    def observed(self, y: Tensor) -> Tensor:
        return y[:, 0, 0] / y[:, 1, 0].clamp_min(1.0)

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        k, n = (y[:, i].numpy() for i in (0, 1))
        p, q = (torch.exp(log)[:, 0].numpy() for log in self.link.logs(eta))
        # Incomplete beta functions end where no success, or no failure, is left.
        fewer = np.where(k > 0, scipy.special.betainc(n - k + 1, np.maximum(k, 1), q), 0.0)
        more = np.where(k < n, scipy.special.betainc(k + 1, np.maximum(n - k, 1), p), 0.0)
        return Tails.of(fewer, more, torch.exp(self.log_prob(eta, y, phi)))

    def observation_variance(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.full_like(mean, self.link.latent_variance)

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return mean * (1 - mean) / y[:, 1, 0]

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        k, n = y[:, 0, 0], y[:, 1, 0]
        return torch.xlogy(k, mean) + torch.xlogy(n - k, 1 - mean)
