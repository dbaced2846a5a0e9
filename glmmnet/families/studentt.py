"""Student's t family, identity link: Gaussian models that outliers do not move."""

from __future__ import annotations

import math

import scipy.special
import torch
from torch import Tensor

from glmmnet.errors import FitError, OptionError, is_number
from glmmnet.families import FAMILIES
from glmmnet.families._base import Tails, Target, a_row
from glmmnet.families._domain import read_real
from glmmnet.families._mean import SingleFamily
from glmmnet.links import IDENTITY
from glmmnet.typing import Dispersion, Response

#: Interquartile range of a standard normal.
_NORMAL_RANGE = 1.349
#: Where estimated degrees of freedom start, and where they end: beyond, a t distribution is a normal one.
_START, _MOST = 8.0, 1e6
#: Degrees of freedom from which differences of gamma functions are their expansions, which lose no digits.
_LARGE = 500.0
#: A scale^2 below this share of the response's own is rounding error.
_EXACT = 1e-12
#: Newton steps of log df to its starting value, the longest of them, the range it is looked for in, and a step that is
#: none any more.
_STEPS, _LONGEST, _NARROW, _STILL = 20, 1.0, (0.0, 5.0), 1e-2


@FAMILIES.register("studentt")
class StudentT(SingleFamily):
    """(y - eta) / phi^(1/2) has Student's t distribution; the variance of y is phi df / (df - 2).

    phi^(1/2) is ``sigma`` in brms and the dispersion of t_family in glmmTMB: a scale, not the standard deviation.

    Parameters
    ----------
    df : float, optional
        Degrees of freedom above 0. The variance is infinite up to 2. None: estimated, their logarithm the
        coefficient ``df:Intercept``; where the response has no heavier tails than a normal one that ends at a large
        number with a large standard error (beyond 1e6 degrees nothing changes), and `gaussian` fits as well.
    link : {"identity"}, optional

    Raises
    ------
    OptionError
        df is not above 0, or infinite.

    Examples
    --------
    >>> from glmmnet.families import StudentT
    >>> StudentT(df=5)
    StudentT(df=5, link='identity')
    >>> StudentT(df=None)
    StudentT(df=None, link='identity')

    References
    ----------
    Lange, Little, Taylor (1989), Robust statistical modeling using the t distribution, J. Am. Stat. Assoc. 84(408),
    881-896, appendix B (the expected information).
    """

    name = "studentt"
    links = (IDENTITY,)
    has_dispersion = True
    proportional = True
    dispersion_name = "scale^2"
    residual = True
    linear_mean = True

    def __init__(self, df: float | None = 4.0, link: str | None = None) -> None:
        super().__init__(link)
        if df is not None and not (is_number(df) and 0.0 < df < math.inf):
            raise OptionError(f"df is {df!r}; write a number above 0, such as 4, or None for an estimate.")
        self.df = None if df is None else float(df)
        self.formulas = ("df",) if df is None else ()

    def encode(self, response: Response) -> Target:
        y = read_real(self, response)[:, None, None]
        if self.df is not None:
            return Target(y, note=f"Student's t with {self.df:g} degrees of freedom")
        loadings = {"": (1.0, 0.0), "df": (0.0, 1.0)}
        return Target(y, predictors=("mean", "df"), loadings=loadings, note="df: log degrees of freedom")

    def freedom(self, eta: Tensor) -> Tensor:
        """Degrees of freedom: (n, S) where they are estimated, else one number."""
        if self.df is not None:
            return torch.tensor(self.df, dtype=eta.dtype)
        return torch.exp(eta[:, 1].clamp(-math.log(_MOST), math.log(_MOST)))

    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        df, scale = self.freedom(eta), torch.as_tensor(phi, dtype=eta.dtype)
        half = 0.5 * df
        constant = _log_gamma_step(half) - 0.5 * torch.log(df * math.pi * scale)
        return constant - (half + 0.5) * torch.log1p((y - eta[:, :1])[:, 0].square() / (df * scale))

    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        df, residual = self.freedom(eta), (y - eta[:, :1])[:, 0]
        square, whole = residual.square(), df * phi
        score = ((df + 1) * residual / (whole + square))[:, None]
        if self.df is not None:
            return -0.5 * (df + 1) * torch.log1p(square / whole), score
        # What is free of the mean is not free of df.
        half, share = 0.5 * df, square / (whole + square)
        gap = _digamma_step(half) - torch.log1p(square / whole)
        of_df = half * (gap + ((df + 1) * share - 1.0) / df)
        return self.log_prob(eta, y, phi), torch.cat([score, self._inside(eta, of_df)[:, None]], dim=1)

    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        df = self.freedom(eta)
        own = ((df + 1) / (df + 3) * torch.ones_like(eta[:, 0]) / phi)[:, None, None]
        if self.df is not None:
            return own
        nothing = torch.zeros_like(own[:, 0])
        of_df = _about_log_df(df)[:, None]
        return torch.stack([torch.cat([own[:, 0], nothing], dim=1), torch.cat([nothing, of_df], dim=1)], dim=1)

    def _inside(self, eta: Tensor, values: Tensor) -> Tensor:
        """Derivatives in log df, which are 0 beyond the range of df: there the likelihood no longer changes."""
        return torch.where(eta[:, 1].abs() < math.log(_MOST), values, 0.0)

    def curvature(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        if self.df is None:
            curvature = super().curvature(eta, y, phi)
            # Beyond the range what is known at its end: little, so that the standard error is large, but not nothing.
            expected = _about_log_df(self.freedom(eta))
            curvature[:, 1, 1] += expected - self._inside(eta, expected)
            return curvature
        square, whole = (y - eta)[:, 0].square(), self.df * phi
        return ((self.df + 1) * (whole - square) / (whole + square).square())[:, None, None]

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        df, residual = self.freedom(eta), (y - eta[:, :1])[:, 0]
        square, whole = residual.square(), df * phi
        total = whole + square
        ratio = (df + 1) * whole / total.square()
        score, information, cross = 0.5 * (df + 1) * square / total - 0.5, 0.5 * ratio * square, ratio * residual
        if self.df is not None:
            return score, information, cross[:, None]
        of_df = self._inside(eta, -0.5 * df * square / total * (1.0 - (df + 1) * phi / total))
        return score, information, torch.stack([cross, of_df], dim=1)

    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        if self.df is not None:
            return super().start(y, weights)
        log_df = math.log(_START)
        for _ in range(_STEPS):
            own, phi = StudentT(math.exp(log_df)).start(y, weights)
            eta = torch.cat([own, torch.tensor([log_df], dtype=own.dtype)])
            everywhere = eta[None, :, None].expand(len(y), 2, 1)
            _, score = self.log_prob_and_score(everywhere, y, phi)
            information = self.weight(everywhere, y, phi)[:, 1, 1, 0]
            step = float(weights @ score[:, 1, 0] / (weights @ information))
            step = min(max(log_df + min(max(step, -_LONGEST), _LONGEST), _NARROW[0]), _NARROW[1]) - log_df
            if abs(step) < _STILL:
                break
            log_df += step
        return eta, phi

    def mean(self, eta: Tensor, phi: Dispersion) -> Tensor:
        return eta[:, :1]

    def rough_dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        square = (y - eta[:, :1])[:, 0].square()
        middle = float(square.median()) * (2.0 / _NORMAL_RANGE) ** 2
        return middle if middle > 0.0 else float(square.mean())

    def dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        phi = super().dispersion(eta, y, weights)
        if phi <= _EXACT * self.eta_unit(y, weights) ** 2:
            # Not all of them need be: outliers cost little.
            raise FitError(
                "the model reproduces most responses exactly: the scale is 0, and the likelihood has no maximum. Are "
                "many responses equal, or computed from a column? family='gaussian' has an estimate where some are not."
            )
        return phi

    def eta_unit(self, y: Tensor, weights: Tensor) -> float:
        # Not the standard deviation: outliers may be any size.
        observed = y[:, 0, 0].contiguous()
        low, high = torch.sort(observed).values[[len(y) // 4, len(y) - 1 - len(y) // 4]].tolist()
        return (high - low) / _NORMAL_RANGE if high > low else float(observed.std())

    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        df, eta = self.freedom(eta), eta[:, 0]
        chi2 = 2.0 * torch._standard_gamma(0.5 * df.expand_as(eta))
        return eta + torch.randn_like(eta) * (phi * df / chi2) ** 0.5

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        t = (y - eta[:, :1])[:, 0] / phi**0.5
        return Tails.of(*(scipy.special.stdtr(self.freedom(eta).numpy(), one.numpy()) for one in (t, -t)))

    def variance_at(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        df = self.freedom(eta).reshape(-1)
        inflated = torch.where(df > 2.0, df / (df - 2.0), math.inf)
        return torch.ones_like(mean) * inflated * a_row(phi)

    def observation_variance(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        return self.variance_at(mean, eta, y, phi)

    def deviance_at(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        df = a_row(self.freedom(eta))
        return (df + 1) * torch.log1p((y[:, 0, 0] - mean).square() / (df * a_row(phi)))

    def __repr__(self) -> str:
        df = None if self.df is None else f"{self.df:g}"
        return f"StudentT(df={df}, link={self.link.name!r})"


def _log_gamma_step(half: Tensor) -> Tensor:
    """Log of gamma(half + 1/2) / gamma(half)."""
    expanded = 0.5 * torch.log(half) - 1 / (8 * half) + 1 / (192 * half**3)
    return torch.where(2 * half < _LARGE, torch.lgamma(half + 0.5) - torch.lgamma(half), expanded)


def _digamma_step(half: Tensor) -> Tensor:
    """Its derivative."""
    expanded = 1 / (2 * half) + 1 / (8 * half**2) - 1 / (64 * half**4)
    return torch.where(2 * half < _LARGE, torch.digamma(half + 0.5) - torch.digamma(half), expanded)


def _about_log_df(df: Tensor) -> Tensor:
    """Expected information of a row about log df."""
    half = 0.5 * df
    fall = torch.polygamma(1, half) - torch.polygamma(1, half + 0.5)
    exact = 0.25 * df.square() * fall - 0.5 * df * (df + 5) / ((df + 1) * (df + 3))
    return torch.where(df < _LARGE, exact, 1.5 * df**-2)
