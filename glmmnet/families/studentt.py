"""Student's t family, identity link: Gaussian models that outliers do not move."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from glmmnet.families import FAMILIES
from glmmnet.families._base import Target, a_row
from glmmnet.families._domain import read_real
from glmmnet.families._mean import SingleFamily
from glmmnet.links import IDENTITY
from glmmnet.typing import Dispersion, Response

#: Interquartile range of a standard normal.
_NORMAL_RANGE = 1.349


@FAMILIES.register("studentt")
class StudentT(SingleFamily):
    """(y - eta) / phi^(1/2) has Student's t distribution; the variance of y is phi df / (df - 2).

    phi^(1/2) is ``sigma`` in brms and the dispersion of t_family in glmmTMB: a scale, not the standard deviation.

    Parameters
    ----------
    df : float
        Degrees of freedom above 0, not estimated. The variance is infinite up to 2.
    link : {"identity"}, optional

    Examples
    --------
    >>> from glmmnet.families import StudentT
    >>> StudentT(df=5)
    StudentT(df=5, link='identity')
    """

    name = "studentt"
    links = (IDENTITY,)
    has_dispersion = True
    proportional = True
    dispersion_name = "scale^2"
    residual = True
    linear_mean = True

    def __init__(self, df: float = 4.0, link: str | None = None) -> None:
        super().__init__(link)
        if not 0.0 < df < math.inf:
            raise ValueError(f"df is {df!r}; write a number above 0, such as 4.")
        self.df = float(df)

    def encode(self, response: Response) -> Target:
        return Target(read_real(self, response)[:, None, None], note=f"Student's t with {self.df:g} degrees of freedom")

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        df, scale = self.df, torch.as_tensor(phi, dtype=eta.dtype)
        constant = math.lgamma(0.5 * (df + 1)) - math.lgamma(0.5 * df) - 0.5 * torch.log(df * math.pi * scale)
        return constant - 0.5 * (df + 1) * torch.log1p((y - eta)[:, 0].square() / (df * scale))

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        residual, whole = (y - eta)[:, 0], self.df * phi
        square = residual.square()
        value = -0.5 * (self.df + 1) * torch.log1p(square / whole)
        return value, ((self.df + 1) * residual / (whole + square))[:, None]

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        share = (self.df + 1) / (self.df + 3)
        return (share * torch.ones_like(eta[:, 0]) / phi)[:, None, None]

    def curvature(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        square, whole = (y - eta)[:, 0].square(), self.df * phi
        return ((self.df + 1) * (whole - square) / (whole + square).square())[:, None, None]

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        residual, whole = (y - eta)[:, 0], self.df * phi
        square = residual.square()
        total = whole + square
        ratio = (self.df + 1) * whole / total.square()
        return 0.5 * (self.df + 1) * square / total - 0.5, 0.5 * ratio * square, (ratio * residual)[:, None]

    def rough_dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        square = (y - eta)[:, 0].square()
        middle = float(square.median()) * (2.0 / _NORMAL_RANGE) ** 2
        return middle if middle > 0.0 else float(square.mean())

    def eta_unit(self, y: Tensor, weights: Tensor) -> float:
        # Not the standard deviation: outliers may be any size.
        observed = y[:, 0, 0].contiguous()
        low, high = torch.sort(observed).values[[len(y) // 4, len(y) - 1 - len(y) // 4]].tolist()
        return (high - low) / _NORMAL_RANGE if high > low else float(observed.std())

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        eta = eta[:, 0]
        chi2 = 2.0 * torch._standard_gamma(torch.full_like(eta, 0.5 * self.df))
        return eta + torch.randn_like(eta) * (phi * self.df / chi2) ** 0.5

    def variance(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        inflated = self.df / (self.df - 2.0) if self.df > 2.0 else math.inf
        return torch.ones_like(mean) * inflated * a_row(phi)

    def _log_prob_of_mean(self, mean: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return -0.5 * (self.df + 1) * torch.log1p((y[:, 0, 0] - mean).square() / (self.df * a_row(phi)))

    def __repr__(self) -> str:
        return f"StudentT(df={self.df:g}, link={self.link.name!r})"
