"""Beta-binomial family for counts p(k, n), logit link."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target, a_row
from glmmnet.families._domain import refuse_counts
from glmmnet.families._mean import SingleFamily
from glmmnet.families.beta import draw_beta, shapes, shapes_of_mean
from glmmnet.families.binomial import Binomial
from glmmnet.links import LOGIT
from glmmnet.typing import Dispersion, Response

#: Successes up to which the expected information is a sum over their number; beyond, points of an integral.
_COUNTED, _POINTS = 30, 12
#: Counts whose probabilities are summed at once.
_AT_ONCE = 2_000_000
_AT, _MASS = (values.tolist() for values in np.polynomial.legendre.leggauss(_POINTS))


def _expected_trigamma(a: Tensor, b: Tensor, n: Tensor) -> Tensor:
    """E of trigamma(a) - trigamma(a + k) over the number k of successes in n trials: sum of P(k > i) / (a + i)^2.

    Exact up to 30 trials; beyond, k is taken as normal in the terms from the 30th on, which are small.
    """
    most = int(n.max()) if n.numel() else 0
    few = n.clamp_max(_COUNTED)
    log_none = torch.lgamma(n + b) - torch.lgamma(few + b) - torch.lgamma(n + a + b) + torch.lgamma(few + a + b)
    for i in range(min(most, _COUNTED)):
        # Not by gamma functions: a share of successes near 0 would drown in their rounding.
        log_none = torch.where(i < few, log_none - torch.log1p(a / (b + i)), log_none)
    probability, more = torch.exp(log_none), -torch.expm1(log_none)
    total = more / a.square()
    for i in range(1, min(most, _COUNTED)):
        odds = (n - i + 1).clamp_min(0.0) * (a + i - 1) / (i * (b + n - i).clamp_min(1e-300))
        probability = probability * odds
        more = (more - probability).clamp_min(0.0)
        total = total + more / (a + i).square()
    return total if most <= _COUNTED else total + _expected_rest(a, b, n, more)


def _expected_rest(a: Tensor, b: Tensor, n: Tensor, most: Tensor) -> Tensor:
    """The terms from the 30th on, as an integral over log i; `most` is the probability of the last before."""
    mean, phi = n * a / (a + b), a + b
    sd = (mean * b / phi * (n + phi) / (1.0 + phi)).sqrt().clamp_min(1e-300)
    first = math.log(_COUNTED - 0.5)
    half = 0.5 * (torch.log((n - 0.5).clamp_min(_COUNTED - 0.5)) - first)
    total = torch.zeros_like(a)
    for at, mass in zip(_AT, _MASS, strict=True):
        i = torch.exp(first + half * (at + 1.0))
        total += mass * torch.minimum(torch.special.ndtr((mean - i) / sd), most) * i / (a + i).square()
    return half * total


def _row_parts(rows: Tensor, sizes: Tensor) -> Iterator[Tensor]:
    """Positions of the rows chosen, in parts whose sizes add up to a limited number."""
    chosen = rows.nonzero()[:, 0]
    part = torch.div(sizes[chosen].cumsum(0), _AT_ONCE, rounding_mode="floor")
    for one in torch.unique(part):
        yield chosen[part == one]


def _counts(rows: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The counts low, ..., high - 1 of each of some rows, one after the other, and the row of each."""
    sizes = (high - low)[rows].to(torch.int64)
    first = torch.repeat_interleave(low[rows] - (sizes.cumsum(0) - sizes), sizes)
    return first + torch.arange(len(first)), torch.repeat_interleave(rows, sizes)


@FAMILIES.register("betabinomial")
class BetaBinomial(Binomial):
    """k successes out of n trials whose probability varies from row to row as Beta(mu phi, (1 - mu) phi) does.

    The variance of k is n mu (1 - mu) (n + phi) / (1 + phi). phi is a precision: the dispersion of betabinomial in
    glmmTMB, ``phi`` in brms, ``kappa`` in bambi; 1 / (1 + phi) is the correlation of two trials of one row.
    Deviances are those at the estimated phi; the saturated model takes the mean under which each count is most
    probable.

    Parameters
    ----------
    link : {"logit"}, optional
    """

    name = "betabinomial"
    links = (LOGIT,)
    has_dispersion = True

    def __init__(self, link: str | None = None) -> None:
        super().__init__(link)
        self.canonical = False

    def encode(self, response: Response) -> Target:
        if response.kind != "counts":
            raise self.disagree(
                response, "gives no trials", "write p(k, n); use family='bernoulli' for a single trial a row"
            )
        y = self.encode_new(response, Target(torch.empty(0)))
        refuse_counts(self, response, y)
        if not bool((y[:, 1] > 1).any()):
            raise self.disagree(response, "has at most 1 trial in all rows", "use family='binomial'")
        return Target(y)

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        k, n = y[:, 0], y[:, 1]
        choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
        a, b = shapes(self.link, eta[:, 0], phi)
        return choose + self._density(a, b, k, n, torch.as_tensor(phi, dtype=eta.dtype))

    @staticmethod
    def _density(a: Tensor, b: Tensor, k: Tensor, n: Tensor, phi: Tensor) -> Tensor:
        of_successes, of_failures = torch.lgamma(k + a) - torch.lgamma(a), torch.lgamma(n - k + b) - torch.lgamma(b)
        return of_successes + of_failures - (torch.lgamma(n + phi) - torch.lgamma(phi))

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        k, n = y[:, 0], y[:, 1]
        a, b = shapes(self.link, eta[:, 0], phi)
        value = self._density(a, b, k, n, torch.as_tensor(phi, dtype=eta.dtype))
        gap = torch.digamma(k + a) - torch.digamma(a) - torch.digamma(n - k + b) + torch.digamma(b)
        return value, (gap * self._slope(eta[:, 0], a))[:, None]

    def _slope(self, eta: Tensor, a: Tensor) -> Tensor:
        """Derivative of phi mu."""
        return a * self.link.slopes(eta)[0]

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        n = y[:, 1].expand_as(eta[:, 0])
        a, b = shapes(self.link, eta[:, 0], phi)
        spread = _expected_trigamma(a, b, n) + _expected_trigamma(b, a, n)
        return (spread * self._slope(eta[:, 0], a).square())[:, None, None]

    def curvature(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        a, b = shapes(self.link, eta[:, 0], phi)
        _, score = self.log_prob_and_score(eta, y, phi)
        of_a, of_b = self._trigammas(a, b, y)
        bend = (of_a + of_b) * self._slope(eta[:, 0], a).square()
        return -(bend[:, None] + score * self.link.turn(eta))[:, :, None]

    @staticmethod
    def _trigammas(a: Tensor, b: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Second derivatives of the density with respect to both shapes, their sum held fixed."""
        k, n = y[:, 0], y[:, 1]
        of_a = torch.polygamma(1, k + a) - torch.polygamma(1, a)
        return of_a, torch.polygamma(1, n - k + b) - torch.polygamma(1, b)

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        k, n = y[:, 0], y[:, 1]
        a, b = shapes(self.link, eta[:, 0], phi)
        phi = torch.as_tensor(phi, dtype=eta.dtype)
        of_a, of_b = self._trigammas(a, b, y)
        gap_a, gap_b = torch.digamma(k + a) - torch.digamma(a), torch.digamma(n - k + b) - torch.digamma(b)
        score = a * gap_a + b * gap_b - phi * (torch.digamma(n + phi) - torch.digamma(phi))
        of_phi = torch.polygamma(1, n + phi) - torch.polygamma(1, phi)
        information = phi.square() * of_phi - a.square() * of_a - b.square() * of_b - score
        cross = -(gap_a - gap_b + a * of_a - b * of_b) * self._slope(eta[:, 0], a)
        return score, information, cross[:, None]

    def rough_dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        k, n, mu = y[:, 0], y[:, 1], self.link.inverse(eta[:, 0])
        # Mean of the squared residual over the binomial variance is 1 + (n - 1) / (1 + phi).
        binomial = (n * mu * (1 - mu)).mean(dim=1)
        excess = float(weights @ ((k - n * mu).square().mean(dim=1) - binomial))
        whole = float(weights @ ((n[:, 0] - 1) * binomial))
        return min(max(whole / max(excess, 1e-300) - 1.0, 0.1), 1e3)

    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        return SingleFamily.start(self, y, weights)

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        p = draw_beta(self.link, eta[:, 0], phi)
        return torch.binomial(y[:, 1].expand_as(p).contiguous(), p)

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        """Sums over the counts on either side of k, the larger tail as the rest."""
        at = torch.exp(self.log_prob(eta, y, phi))
        k, n = y[:, 0, 0], y[:, 1, 0]
        fewer, more = torch.zeros_like(at), torch.zeros_like(at)
        left = k <= n - k
        for tail, rows, low, high in ((fewer, left, torch.zeros_like(k), k), (more, ~left, k + 1, n + 1)):
            for part in _row_parts(rows, high - low):
                counts, of_row = _counts(part, low, high)
                trials = torch.stack([counts, n[of_row]], dim=1)[:, :, None]
                own = phi[of_row] if isinstance(phi, Tensor) and phi.dim() == 2 and len(phi) > 1 else phi
                tail.index_add_(0, of_row, torch.exp(self.log_prob(eta[of_row], trials, own)))
        rest = (1.0 - at - fewer - more).clamp_min(0.0)
        return Tails(torch.where(left[:, None], fewer, rest), at, torch.where(left[:, None], rest, more))

    def observation_variance(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """That of a trial, and that of the row's log odds by the delta method, as of an additive overdispersion."""
        of_row = 1.0 / ((1.0 + a_row(phi)) * mean * (1 - mean))
        return super().observation_variance(mean, eta, y, phi) + of_row

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        n, phi = y[:, 1, 0], a_row(phi)
        return mean * (1 - mean) * (n + phi) / (n * (1.0 + phi))

    def saturated(self, y: Tensor, phi: Dispersion) -> Tensor:
        return self.most_probable(y, phi)

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        phi = torch.as_tensor(a_row(phi), dtype=y.dtype)
        return self._density(*shapes_of_mean(mean, phi), y[:, 0, 0], y[:, 1, 0], phi)
