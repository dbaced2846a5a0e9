"""When EM may stop: how far from the maximum it is, in standard errors; and early stopping of the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glmmnet.em.config import EMConfig
from glmmnet.joint import JointModel, Parameters
from glmmnet.random_terms import TermData

#: Reliabilities below count as this.
_LEAST_RELIABILITY = 1e-3
#: Standard errors from 0 below which a variance need not be told better, and those of the mean step above which it rises.
_NEAR_ZERO, _RISING = 0.5, 2.0


def reliabilities(joint: JointModel, params: Parameters, mode: Tensor, fixed: Tensor) -> list[Tensor]:
    """Share of each variance that the data tell, from the posterior's mode (Q, C): var(E(b | y)) / Sigma_ii.

    A variance is known as well as q * reliability^2 directly observed effects would tell it. A term's are (C, r), the
    same for columns that share a variance. The spread of an E-step's few draws would not do: successive draws by NUTS
    lie on opposite sides of the mode. Where effects are correlated, the mode of one also has what the others tell about
    it: no more counts than its own column tells beside them. `fixed` is the fixed part of eta, (n, C, 1).
    """
    out = []
    eta = fixed + joint.random_eta(mode[:, :, None])
    for term, sigma in zip(joint.terms, params.sigma, strict=True):
        own = mode[term.rows].reshape(term.q, term.r, -1)
        told = (own * term.decorrelated(own)).sum(dim=0).T / term.q
        variance = torch.diagonal(sigma, dim1=-2, dim2=-1)
        if len(term.covariance.free(term.r)) > term.r:
            told = torch.minimum(told, variance.square() / (variance + _noise(joint, term, eta, params.phi)))
        known = torch.empty_like(told)
        for columns in map(list, term.covariance.deviations(term.r)):
            share = told[:, columns].sum(dim=1) / variance[:, columns].sum(dim=1).clamp_min(1e-300)
            known[:, columns] = share.clamp(_LEAST_RELIABILITY, 1.0)[:, None]
        out.append(known)
    return out


def _noise(joint: JointModel, term: TermData, eta: Tensor, phi: float) -> Tensor:
    """Variance with which the rows of a level of mean size would tell its effects if they were fixed, (C, r)."""
    if term.loading is None:
        z, weight = term.columns(), joint.weight_diagonal(eta, phi)[..., 0]
        about = torch.einsum("ni,nj,nc->cij", z, z, weight) / term.q
    else:
        about = term.information(joint.weight(eta, phi)[..., 0]).mean(dim=0, keepdim=True)
    scale = torch.diagonal(about, dim1=-2, dim2=-1).clamp_min(1e-300).rsqrt()
    inverse = torch.linalg.pinv(scale[:, :, None] * about * scale[:, None, :], hermitian=True)
    return scale.square() * torch.diagonal(inverse, dim1=-2, dim2=-1)


def em_rates(reliability: list[Tensor]) -> list[Tensor]:
    """Share of the way to the maximum that an EM iteration takes each variance: rho (2 - rho).

    That of an expanded working matrix where q levels are observed with the same normal noise (rho^2 without one).
    """
    return [known * (2.0 - known) for known in reliability]


@dataclass(frozen=True)
class Scales:
    """What steps of (beta, Sigma, dispersion) are measured by; vectors (k,) in the order of :meth:`step`.

    Attributes
    ----------
    error : Tensor
        Rough standard errors. Those of Sigma are of q directly observed effects over the reliability, of as many times
        q as columns share a variance; of the dispersion those of n rows.
    rate : Tensor
        Share of the way to the maximum that an EM iteration goes, see :func:`em_rates`.
    size : Tensor
        Standard errors that a variance is away from 0; for a covariance the smaller of its two; else infinite.
    """

    error: Tensor
    rate: Tensor
    size: Tensor

    @classmethod
    def at(cls, joint: JointModel, params: Parameters, beta_variance: Tensor, reliability: list[Tensor]) -> Scales:
        """Those at some parameters."""
        error = [beta_variance.clamp_min(1e-300).sqrt().reshape(-1)]
        rate, size = [torch.ones_like(error[0])], [torch.full_like(error[0], torch.inf)]
        rates = em_rates(reliability)
        for term, sigma, known, share in zip(joint.terms, params.sigma, reliability, rates, strict=True):
            diagonal = torch.diagonal(sigma, dim1=-2, dim2=-1)
            variance = _products(diagonal) + sigma.square()
            floor = 1e-12 * float(variance.max()) + 1e-300
            effects = term.q * term.r / len(term.covariance.deviations(term.r))
            own = (variance.clamp_min(floor) / effects / _products(known)).sqrt()
            away = diagonal / torch.diagonal(own, dim1=-2, dim2=-1)
            error.append(own.reshape(-1))
            rate.append(_products(share).sqrt().reshape(-1))
            size.append(torch.minimum(away[:, :, None], away[:, None, :]).reshape(-1))
        if joint.family.has_dispersion:
            spread = params.phi * (2.0 / float(joint.weights.sum())) ** 0.5
            error.append(torch.tensor([max(spread, 1e-300)], dtype=torch.float64))
            rate.append(torch.ones(1, dtype=torch.float64))
            size.append(torch.full((1,), torch.inf, dtype=torch.float64))
        return cls(torch.cat(error), torch.cat(rate), torch.cat(size))

    def step(self, old: Parameters, new: Parameters) -> Tensor:
        """Change of every entry of (beta, Sigma, dispersion) in standard errors, (k,)."""
        parts = [new.beta - old.beta, *(after - before for before, after in zip(old.sigma, new.sigma, strict=True))]
        flat = [part.reshape(-1) for part in parts]
        return torch.cat([*flat, torch.tensor([new.phi - old.phi], dtype=torch.float64)])[: len(self.error)] / self.error


def _products(values: Tensor) -> Tensor:
    """All products of two, (C, r) to (C, r, r)."""
    return values[:, :, None] * values[:, None, :]


class Streak:
    """Counts how often in a row a change stays below `tol`; three times is convergence."""

    needed = 3

    def __init__(self, tol: float) -> None:
        self._tol = tol
        self._length = 0

    def met(self, change: float) -> bool:
        """Take one more change; whether the rule is met now."""
        self._length = self._length + 1 if change < self._tol else 0
        return self._length >= self.needed


class Drift:
    """Tells drift from noise: successive steps point the same way while EM still travels (Kesten's rule)."""

    def __init__(self) -> None:
        self._last: Tensor | None = None

    def ended(self, step: Tensor) -> bool:
        """Take one more step; whether it turned back on the last."""
        last, self._last = self._last, step
        return last is not None and float(last @ step) <= 0.0


class Pace:
    """Gains of EM iterations, and when to stop: full steps until they stop to drift, then averaging.

    Attributes
    ----------
    averaged : int
        Iterations that are averaged, this one included; 0 while full steps are taken.
    """

    def __init__(self, config: EMConfig) -> None:
        self._config = config
        self._drift, self._streak = Drift(), Streak(config.tol)
        self.averaged, self._full = 0, 0

    def gain(self, move: Tensor) -> float:
        """Share to go of this iteration's full step `move`, in standard errors."""
        turned = self._drift.ended(move)
        if self.averaged or (self._full >= self._config.burn_in and turned):
            self.averaged += 1
        else:
            self._full += 1
        return max(self.averaged, 1) ** -self._config.averaging

    @property
    def weight(self) -> float:
        """Share of this iteration in the average: the t-th counts t times, so that the way there is forgotten."""
        return 2.0 / (max(self.averaged, 1) + 1.0)

    def ended(self, distance: float, least: int) -> bool:
        """Whether EM may stop at such a distance from the maximum, at least so many iterations being averaged."""
        return self._streak.met(distance) and self.averaged >= least


class Distance:
    """How far the average of the iterations is from the maximum, in standard errors.

    An EM step is on average `rate` times the way from where it starts to the maximum (of a quadratic likelihood), so
    that the mean of the steps over the rate is what the average lacks; their spread gives its Monte Carlo error.
    """

    def __init__(self) -> None:
        self._mean = self._variance = torch.zeros(1, dtype=torch.float64)
        self._squares = 1.0

    def after(self, move: Tensor, scales: Scales, weight: float) -> float:
        """Take the full step of one more iteration, which counts by `weight` in the average: the largest distance.

        A variance near 0 whose steps do not rise does not count: EM creeps towards 0 and tells it ever less.
        """
        away = move - self._mean
        self._mean = self._mean + weight * away
        self._variance = (1.0 - weight) * (self._variance + weight * away.square())
        self._squares = (1.0 - weight) ** 2 * self._squares + weight**2
        noise = (self._variance * self._squares).sqrt()
        counts = (scales.size >= _NEAR_ZERO) | (self._mean > _RISING * noise)
        distance = torch.where(counts, (self._mean.abs() + noise) / scales.rate, 0.0)
        return float(distance.max()) if len(distance) else 0.0


class Patience:
    """Early stopping: remembers the best value and how many looks ago it was."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._since = 0
        self.best = float("inf")

    def improved(self, value: float) -> bool:
        """Take one more value; whether it is the best so far."""
        if value < self.best:
            self.best, self._since = value, 0
            return True
        self._since += 1
        return False

    @property
    def exhausted(self) -> bool:
        """No better value for too long."""
        return self._since >= self._patience
