"""What zero-inflated and hurdle families share: a count part on eta_0 and the logit of a zero on eta_1."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from glmmnet.families._base import Family, Target
from glmmnet.families._mean import CountFamily, SingleFamily
from glmmnet.links import LOG
from glmmnet.typing import Dispersion, Response

#: Newton steps to the intercept-only estimate, longest of them, and the smallest logit of a zero it may have.
_STEPS, _LONGEST, _SMALLEST_LOGIT = 60, 2.0, -12.0
#: Share of its largest diagonal entry that the information about the two intercepts has at least.
_RIDGE = 1e-6


class ZeroFamily(SingleFamily):
    """A count family with a zero part: two linear predictors, eta_0 of the counts and the logit eta_1 of a zero.

    Attributes
    ----------
    counts : CountFamily
        Distribution of the count part, the same for all of a class.
    """

    formulas = ("zi",)
    links = (LOG,)
    counts: CountFamily

    def __init__(self, link: str | None = None) -> None:
        """Choose the link.

        Parameters
        ----------
        link : {"log"}, optional
            Of the count part.
        """
        super().__init__(link)
        self.has_dispersion, self.dispersion_name = self.counts.has_dispersion, self.counts.dispersion_name

    def encode(self, response: Response) -> Target:
        try:
            y = self.counts.encode(response).y
        except Exception as error:
            # The count family's reason, under this family's name.
            raise type(error)(str(error).replace(repr(self.counts.name), repr(self.name))) from None
        if not bool((y == 0).any()):
            raise self.disagree(response, "has no zeros", f"use family={self.counts.name!r}")
        return Target(y, predictors=("count", "zi"), loadings={"": (1.0, 0.0), "zi": (0.0, 1.0)})

    def counts_at(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        """Log probability of y under the count part and its derivative with respect to eta_0, (n, S)."""
        kernel, score = self.counts.log_prob_and_score(eta[:, :1], y, phi)
        return kernel + self.counts.constant(y[:, 0], phi), score[:, 0]

    def at_zero(self, eta: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        """The same of no count."""
        return self.counts_at(eta, torch.zeros_like(eta[:, :1, :1]), phi)

    def unbounded(self, y: Tensor) -> Tensor:
        # Zeros grow ever more probable with eta_1, counts as it falls.
        of_zero = 2 * (y[:, :, 0] == 0).to(y.dtype) - 1
        nothing = torch.zeros_like(of_zero)
        rising, falling = (where[:, :, 0].to(y.dtype) for where in self.bounds(y))
        rows = [(nothing, of_zero), (rising, nothing), (-falling, nothing)]
        return torch.cat([torch.stack(row, dim=2) for row in rows], dim=1)

    @abstractmethod
    def bounds(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Rows whose likelihood falls as eta_0 falls without end, and those where it may fall as eta_0 rises."""

    def rough_dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        positive = weights * (y[:, 0, 0] > 0)
        return self.counts.rough_dispersion(eta[:, :1], y, positive)

    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        observed = y[:, 0, 0]
        positive = weights * (observed > 0)
        mean = (positive * observed).sum() / positive.sum()
        zeros = (weights * (observed == 0)).sum() / weights.sum()
        eta = torch.stack([self.counts.link.link(mean), torch.logit(zeros.clamp(0.01, 0.99))])
        phi = 1.0
        for _ in range(_STEPS):
            everywhere = eta[None, :, None].expand(len(y), 2, 1)
            if self.has_dispersion:
                phi = self.dispersion(everywhere, y, weights)
            _, score = self.log_prob_and_score(everywhere, y, phi)
            information = torch.einsum("n,ncd->cd", weights, self.weight(everywhere, y, phi)[..., 0])
            ridge = _RIDGE * torch.diagonal(information).max() * torch.eye(2, dtype=y.dtype)
            step = torch.linalg.solve(information + ridge, weights @ score[..., 0])
            step = step.clamp(-_LONGEST, _LONGEST)
            eta = eta + step
            eta[1].clamp_(min=_SMALLEST_LOGIT)
            if float(step.abs().max()) < 1e-10:
                break
        return eta, phi

    def mean(self, eta: Tensor, phi: Dispersion) -> Tensor:
        return torch.sigmoid(-eta[:, 1:]) * self.moments(eta, phi)[0]

    def moments(self, eta: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        """Mean and second moment of the counts that are no zeros of the zero part, (n, 1, S)."""
        mean = self.counts.mean(eta[:, :1], phi)
        draws = range(eta.shape[2])
        variance = [self.counts.variance(mean[:, 0, s], mean[:, 0, s], _of_draw(phi, s)) for s in draws]
        return mean, torch.stack(variance, dim=-1)[:, None] + mean.square()

    def variance_at(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        # Both moments at eta: `mean` may be one over draws of b, whose square may exceed the second moment at one b.
        count, square = (moment[:, 0, 0] for moment in self.moments(eta, phi))
        some = torch.sigmoid(-eta[:, 1, 0])
        return some * (square - some * count.square())

    def deviance_at(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Twice the log likelihood below that of the most probable model, whose rows are certain."""
        return -2.0 * self.log_prob(eta, y, phi)[:, 0]

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        zero = torch.bernoulli(torch.sigmoid(eta[:, 1]))
        return (1 - zero) * self.simulate_counts(eta[:, :1], y, phi)

    def simulate_counts(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Counts of the count part, (n, S)."""
        return self.counts.simulate(eta, y, phi)


def _of_draw(phi: Dispersion, s: int) -> Dispersion:
    if isinstance(phi, Tensor) and phi.dim() == 2:
        return phi[:, s : s + 1] if phi.shape[1] > 1 else phi
    return phi


def zero_part(eta: Tensor) -> tuple[Tensor, Tensor]:
    """Log probability of a zero of the zero part, and of none, (n, S)."""
    return torch.nn.functional.logsigmoid(eta[:, 1]), torch.nn.functional.logsigmoid(-eta[:, 1])


Derivatives = tuple[Tensor, Tensor, Tensor]


def dispersion_of(counts: Family, eta: Tensor, y: Any, phi: Dispersion) -> Derivatives:
    """The count family's derivatives in log phi with those in eta_0 as (n, S)."""
    score, information, cross = counts.dispersion_derivatives(eta[:, :1], y, phi)
    return score, information, cross[:, 0]
