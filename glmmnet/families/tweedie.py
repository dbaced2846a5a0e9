"""Tweedie family, log link: amounts that may be 0, with variance phi mu^power."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.errors import OptionError, is_number
from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target, a_row, exact_fit
from glmmnet.families._domain import read_positive
from glmmnet.families._mean import CountFamily
from glmmnet.typing import Dispersion, Response

#: Terms of the series on each side of the largest, and the stride in standard deviations of their bell that still
#: adds up the whole of it (to e^-40).
_TERMS, _STRIDE = 30, 1.5
#: A dispersion below this share of mean^(2 - power) is rounding error.
_EXACT = 1e-13
#: Rows x terms held at once.
_AT_ONCE = 2_000_000

#: The tails' sum over the number of amounts: standard deviations and numbers beyond the likely ones, rows at once.
_REACH, _MORE, _TAILS_AT_ONCE = 10.0, 30.0, 5000


@FAMILIES.register("tweedie")
class Tweedie(CountFamily):
    """Amounts y of at least 0, a Poisson number of gamma amounts: mean mu, variance phi mu^power.

    phi and power are ``phi`` and ``p`` of the R package tweedie; the dispersion of tweedie in glmmTMB, where the
    power is estimated.

    Parameters
    ----------
    power : float
        Between 1 (Poisson) and 2 (gamma), exclusive; not estimated.
    link : {"log"}, optional

    References
    ----------
    Dunn, Smyth (2005), Statistics and Computing 15, 267-280: the series of the density.

    Examples
    --------
    >>> from glmmnet.families import Tweedie
    >>> Tweedie(power=1.6)
    Tweedie(power=1.6, link='log')
    """

    name = "tweedie"
    has_dispersion = True
    proportional = True

    def __init__(self, power: float = 1.5, link: str | None = None) -> None:
        super().__init__(link)
        if not (is_number(power) and 1.0 < power < 2.0):
            raise OptionError(f"power is {power!r}; write a number between 1 and 2, such as 1.5.")
        self.power = float(power)

    def encode(self, response: Response) -> Target:
        return Target(
            read_positive(self, response, zeros=True)[:, None, None], note=f"Tweedie with power {self.power:g}"
        )

    def kernel(self, log_mu: Tensor, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        p = self.power
        return -(y * torch.exp((1 - p) * log_mu) / (p - 1) + torch.exp((2 - p) * log_mu) / (2 - p)) / phi

    def slope(self, mu: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return (y / mu - 1.0) * mu ** (2 - self.power) / phi

    def bend(self, mu: Tensor, phi: Dispersion) -> Tensor:
        return mu ** (2 - self.power) / phi

    def constant(self, y: Tensor, phi: Dispersion) -> Tensor:
        return self._number(y, phi)[0]

    def _number(self, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        """Log of the part of the density that is free of mu; mean and variance of the number of amounts given y."""
        y, each = torch.broadcast_tensors(y, torch.as_tensor(phi, dtype=y.dtype))
        value, mean, variance = torch.zeros_like(y), torch.zeros_like(y), torch.zeros_like(y)
        some = (y > 0).nonzero(as_tuple=True)
        for part in zip(*(index.split(_AT_ONCE // (2 * _TERMS)) for index in some), strict=True):
            value[part], mean[part], variance[part] = self._series(y[part], each[part])
        return value, mean, variance

    def _series(self, y: Tensor, phi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for amounts above 0, all (m,): sum over the number of amounts around the most probable one."""
        p = self.power
        shape = (2 - p) / (p - 1)
        most = y ** (2 - p) / (phi * (2 - p))
        centre = torch.round(most).clamp_min(1.0)
        stride = torch.floor((most * (p - 1)).sqrt() / _STRIDE).clamp_min(1.0)
        j = centre[:, None] + stride[:, None] * torch.arange(-_TERMS, _TERMS + 1, dtype=y.dtype)
        inside = j >= 1.0
        j = j.clamp_min(1.0)
        log_rate = shape * torch.log(y / (p - 1)) - torch.log(phi) / (p - 1) - torch.log(torch.full_like(y, 2 - p))
        terms = j * log_rate[:, None] - torch.lgamma(j + 1) - torch.lgamma(j * shape)
        terms = torch.where(inside, terms, -torch.inf)
        share = torch.softmax(terms, dim=1)
        mean = (share * j).sum(dim=1)
        variance = (share * (j - mean[:, None]).square()).sum(dim=1)
        return torch.logsumexp(terms, dim=1) + torch.log(stride) - torch.log(y), mean, variance

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        mu, y = self.link.inverse(eta[:, 0]), y[:, 0]
        kernel = self.kernel(torch.log(mu), mu, y, phi)
        beside = torch.broadcast_tensors(y, torch.as_tensor(phi, dtype=y.dtype))[0]
        _, mean, variance = self._number(beside, phi)
        power = 1.0 / (self.power - 1)
        return -kernel - power * mean, -kernel - power**2 * variance, self.slope(mu, y, phi)[:, None]

    def rough_dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        mu = self.link.inverse(eta[:, 0])
        scaled = ((y[:, 0] - mu).square() / mu**self.power).mean(dim=1)
        phi = float((weights * scaled).sum() / weights.sum())
        if phi < _EXACT * float(y.mean()) ** (2 - self.power):
            raise exact_fit("dispersion")
        return phi

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        mu, p = self.link.inverse(eta[:, 0]), self.power
        number = torch.poisson(mu ** (2 - p) / (phi * (2 - p)))
        amount = torch._standard_gamma((number * (2 - p) / (p - 1)).clamp_min(1e-300))
        return torch.where(number > 0, phi * (p - 1) * mu ** (p - 1) * amount, torch.zeros_like(mu))

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        """Mean over the Poisson number of amounts of their gamma sum's tails, the sum thinned where it is smooth."""
        p, every = self.power, eta[:, 0].shape
        mu, amount, scale = (
            torch.as_tensor(one, dtype=eta.dtype).expand(every).reshape(-1)
            for one in (self.link.inverse(eta[:, 0]), y[:, 0], phi)
        )
        rate, unit = mu ** (2 - p) / (scale * (2 - p)), scale * (p - 1) * mu ** (p - 1)
        none = torch.exp(-rate)
        below, above = torch.zeros_like(mu), torch.where(amount > 0, 0.0, -torch.expm1(-rate))
        for part in (amount > 0).nonzero()[:, 0].split(_TAILS_AT_ONCE):
            lower, above[part] = self._sums(rate[part], amount[part] / unit[part])
            below[part] = none[part] + lower
        at = torch.where(amount > 0, 0.0, none)
        return Tails(*(one.reshape(every) for one in (below, at, above)))

    def _sums(self, rate: Tensor, amount: Tensor) -> tuple[Tensor, Tensor]:
        """Of a gamma sum in units of its scale: P(it is above 0 and below `amount`), P(it is above), each (m,)."""
        p = self.power
        shape = (2 - p) / (p - 1)
        # Between the numbers that are likely beforehand and those that are given the sum.
        ends = torch.stack([rate, amount / shape])
        low, high = ends.amin(dim=0), ends.amax(dim=0)
        first = torch.floor(low - _REACH * low.sqrt()).clamp_min(1.0)
        # A thinned sum is exact only if it begins where nothing is.
        stride = torch.where(first > 1, torch.floor((low * (p - 1)).sqrt() / _STRIDE).clamp_min(1.0), 1.0)
        last = torch.ceil(high + _REACH * high.sqrt()) + _MORE
        j = first[:, None] + stride[:, None] * torch.arange(int(((last - first) / stride).max()) + 1)
        share = torch.exp(torch.xlogy(j, rate[:, None]) - rate[:, None] - torch.lgamma(j + 1)) * stride[:, None]
        shapes, sums = shape * j, amount[:, None].expand_as(j)
        lower, upper = torch.special.gammainc(shapes, sums), torch.special.gammaincc(shapes, sums)
        return (share * lower).sum(dim=1), (share * upper).sum(dim=1)

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return a_row(phi) * mean**self.power

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        observed, p = y[:, 0, 0], self.power
        tilt = torch.where(observed > 0, observed * mean.clamp_min(1e-300) ** (1 - p), 0.0)
        return -tilt / (p - 1) - mean ** (2 - p) / (2 - p)

    def __repr__(self) -> str:
        return f"Tweedie(power={self.power:g}, link={self.link.name!r})"
