"""Bernoulli family: logit, probit or complementary log-log link."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target, as_numbers, two_levels_as_numbers
from glmmnet.families._of_mean import MeanFamily
from glmmnet.links import CLOGLOG, LOGIT, PROBIT, ProbabilityLink
from glmmnet.typing import Dispersion, Response


@FAMILIES.register("bernoulli")
class Bernoulli(MeanFamily):
    """y is 1 with probability link^-1(eta), else 0.

    Reads 0/1, booleans and text or categories with two levels; of those the second level (sorted, or in category
    order) is the success, as in R.

    Parameters
    ----------
    link : {"logit", "probit", "cloglog"}, optional

    Examples
    --------
    >>> from glmmnet.families import Bernoulli
    >>> Bernoulli(link="probit")
    Bernoulli(link='probit')
    """

    name = "bernoulli"
    single_precision = True
    links = (LOGIT, PROBIT, CLOGLOG)
    link: ProbabilityLink

    def __init__(self, link: str | None = None) -> None:
        super().__init__(link)
        self.canonical = self.link is LOGIT

    def encode(self, response: Response) -> Target:
        if response.kind == "counts":
            raise self.disagree(response, "gives successes and trials", "use family='binomial'")
        if response.kind == "categorical":
            if len(response.levels) == 1:
                raise self.disagree(response, f"is {response.levels[0]!r} in all rows", "two values are needed")
            if len(response.levels) != 2:
                raise self.disagree(
                    response,
                    f"has {len(response.levels)} levels {list(response.levels[:5])}",
                    "it needs two; use family='categorical'",
                )
        elif not two_levels_as_numbers(values := as_numbers(response)):
            wrong = values[(values != 0) & (values != 1)]
            raise self.disagree(
                response,
                f"has values other than 0 and 1, e.g. {float(wrong[0]):g} ({len(wrong)} rows)",
                "use family='gaussian', family='categorical', or p(k, n) with family='binomial'",
            )
        y = self.encode_new(response, Target(torch.empty(0)))
        if float(y.max()) == float(y.min()):
            only = response.levels[int(y[0])] if response.levels else int(y[0])
            raise self.disagree(response, f"is {only!r} in all rows", "two values are needed")
        labels = response.levels or (False, True) if response.kind != "numeric" else (0, 1)
        return Target(y, labels=labels, note=f"success: {labels[1]!r}")

    def encode_new(self, response: Response, target: Target) -> Tensor:
        return as_numbers(response)[:, None, None]

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        if self.link is LOGIT:
            return torch.nn.functional.logsigmoid((2 * y - 1) * eta)[:, 0]
        success, failure = self.link.logs(eta)
        return torch.where(y > 0, success, failure)[:, 0]

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        if self.link is not LOGIT:
            success, failure = self.link.slopes(eta)
            return self.log_prob(eta, y, phi), torch.where(y > 0, success, failure)
        # Cheaper than logsigmoid of the signed eta, and the sampler calls this most of all.
        log_p = y * eta - torch.nn.functional.softplus(eta, threshold=40.0)
        return log_p[:, 0], y - torch.sigmoid(eta)

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        if self.link is LOGIT:
            p = torch.sigmoid(eta)
            return (p * (1 - p))[:, :, None]
        success, failure = self.link.slopes(eta)
        return (-success * failure)[:, :, None]

    def curvature(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        if self.link is LOGIT:
            return self.weight(eta, y, phi)
        success, failure = self.link.bends(eta)
        return -torch.where(y > 0, success, failure)[:, :, None]

    def unbounded(self, y: Tensor) -> Tensor:
        return 2 * y - 1

    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        mean = (weights * y[:, 0, 0]).sum() / weights.sum()
        return self.link.link(mean)[None], 1.0

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.bernoulli(self.link.inverse(eta))[:, 0]

    def observed(self, y: Tensor) -> Tensor:
        return y[:, 0, 0]

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        success, failure = (torch.exp(log)[:, 0] for log in self.link.logs(eta))
        y = y[:, 0]
        return Tails(y * failure, torch.where(y > 0, success, failure), (1 - y) * success)

    def observation_variance(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return torch.full_like(mean, self.link.latent_variance)

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return mean * (1 - mean)

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        observed = y[:, 0, 0]
        return torch.xlogy(observed, mean) + torch.xlogy(1 - observed, 1 - mean)
