"""When EM may stop: how far from the maximum it is, in standard errors; and early stopping of the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glmmnet.covariances import symmetric
from glmmnet.em.config import EMConfig
from glmmnet.em.steady import AroundMode
from glmmnet.joint import JointModel, Parameters
from glmmnet.random_terms import TermData

#: Reliabilities below count as this.
_LEAST_RELIABILITY = 1e-3
#: Standard errors from 0 below which a variance need not be told better; those of the mean step above which it rises.
_NEAR_ZERO, _RISING = 1.0, 2.0
#: Share of the way to the maximum that a step longer than EM's goes: draws lag behind a variance that jumps, which
#: swings with more. It halves or doubles no variance.
_FURTHER, _HALVED, _DOUBLED = 0.25, 0.5, 1.0
#: Gains of what is far from 0 fall no lower: parameters follow one another where all would else stand still far from
#: the maximum, and the average takes the noise.
LEAST_GAIN = 0.35


@dataclass(frozen=True)
class Told:
    """What the data tell about a term's variances, (C, r), the same for columns that share a variance.

    Attributes
    ----------
    reliability : Tensor
        A variance is known as well as q * reliability^2 directly observed effects would tell it.
    size : Tensor
        Standard errors that it is away from 0.
    rate : Tensor, (C, r, r)
        Share of the way to the maximum that an EM iteration takes each entry of Sigma.
    """

    reliability: Tensor
    size: Tensor
    rate: Tensor

    def gain(self, gain: float, old: Tensor, new: Tensor) -> Tensor:
        """Gain of Sigma from `old` to `new` (C, r, r), (C,), for the one of all else.

        Where a full step brings little nearer it falls later, and is longer where it does so in no entry. Not near 0:
        there steps are mostly noise.
        """
        counts = _smaller(self.size) >= _NEAR_ZERO
        slowest, fastest = torch.where(counts, self.rate, 1.0).amin(dim=(1, 2)), self.rate.amax(dim=(1, 2))
        longest = torch.minimum(_FURTHER / fastest, _without_jump(old, new)).clamp_min(1.0)
        slow = torch.minimum(max(gain, LEAST_GAIN) / slowest, longest)
        return torch.where(counts.any(dim=2).any(dim=1), slow, gain)


def _without_jump(old: Tensor, new: Tensor) -> Tensor:
    """Multiple of the step between two Sigmas (C, r, r) that still halves or doubles no variance, (C,)."""
    root = torch.linalg.cholesky(old)
    half = torch.linalg.solve_triangular(root, new - old, upper=False)
    change = torch.linalg.eigvalsh(symmetric(torch.linalg.solve_triangular(root, half.mT, upper=False)))
    falls, rises = (-change[:, 0]).clamp_min(1e-12), change[:, -1].clamp_min(1e-12)
    return torch.minimum(_HALVED / falls, _DOUBLED / rises)


def told_by(joint: JointModel, around: AroundMode) -> list[Told]:
    """What the data tell, a term each, from reliabilities rho = 1 - var(b | y) / Sigma_ii of single levels.

    The reliability is the root of the mean of rho^2, the rate 2 sum(rho^2) / sum(rho / (1 - rho)) + mean(rho^2): that
    of a parameter-expanded iteration, exact where levels are independent and normal (rho (2 - rho) for equal ones).
    Correlations that the working matrix does not expand, as of ar1, go by rho^2.
    Those of a level's own rows are shrunk where the mode is smaller than they say, as where other terms compete. The
    spread of an E-step's few draws would not do: successive draws by NUTS lie on opposite sides of the mode.
    """
    out = []
    for term, sigma, information in zip(joint.terms, around.params.sigma, around.information, strict=True):
        variance = torch.diagonal(sigma, dim1=-2, dim2=-1)
        own = _of_levels(information, variance)
        mode = around.mode[term.rows].reshape(term.q, term.r, -1)
        seen = (mode * term.decorrelated(mode)).mean(dim=0).T / variance.clamp_min(1e-300)
        reliability, expanded = torch.empty_like(variance), torch.empty_like(variance)
        for columns in map(list, term.covariance.deviations(term.r)):
            rho, told = own[:, :, columns], seen[:, columns].mean(dim=1)
            rho = rho * (told / rho.mean(dim=(0, 2)).clamp_min(1e-300)).clamp(max=1.0)[:, None]
            rho = rho.clamp(_LEAST_RELIABILITY, 1.0 - 1e-9)
            square = rho.square().mean(dim=(0, 2))
            reliability[:, columns] = square.sqrt()[:, None]
            own_rate = 2.0 * square / (rho / (1.0 - rho)).mean(dim=(0, 2)) + square
            expanded[:, columns] = own_rate.clamp(max=1.0)[:, None]
        rate, diagonal = _products(expanded.sqrt()), torch.eye(term.r, dtype=torch.bool)
        if term.covariance.correlations(term.r) and len(term.covariance.free(term.r)) <= term.r:
            rate = torch.where(diagonal, rate, _products(reliability))
        out.append(Told(reliability, reliability * (_effects(term) / 2.0) ** 0.5, rate))
    return out


def _effects(term: TermData) -> float:
    """Effects a variance."""
    return term.q * term.r / len(term.covariance.deviations(term.r))


def _of_levels(information: Tensor, variance: Tensor) -> Tensor:
    """Reliabilities (q, C, r) of effects by their levels' own rows, (q, C, r, r), if effects were not correlated."""
    scale = variance.clamp_min(1e-300).sqrt()
    scaled = scale[:, :, None] * information * scale[:, None, :]
    left = torch.linalg.inv(scaled + torch.eye(scale.shape[1], dtype=torch.float64))
    return 1.0 - torch.diagonal(left, dim1=-2, dim2=-1)


@dataclass(frozen=True)
class Scales:
    """What steps of (beta, Sigma, dispersion) are measured by; vectors (k,) in the order of :meth:`step`.

    Attributes
    ----------
    error : Tensor
        Rough standard errors. Those of Sigma are of q directly observed effects over the reliability, of as many times
        q as columns share a variance; of the dispersion those of n rows.
    rate : Tensor
        Share of the way to the maximum that an EM iteration goes, see :func:`told_by`.
    size : Tensor
        Standard errors that a variance is away from 0; for a covariance the smaller of its two; else infinite.
    """

    error: Tensor
    rate: Tensor
    size: Tensor

    @classmethod
    def at(cls, joint: JointModel, params: Parameters, beta_variance: Tensor, told: list[Told]) -> Scales:
        """Those at some parameters."""
        error = [beta_variance.clamp_min(1e-300).sqrt().reshape(-1)]
        rate, size = [torch.ones_like(error[0])], [torch.full_like(error[0], torch.inf)]
        for term, sigma, known in zip(joint.terms, params.sigma, told, strict=True):
            diagonal = torch.diagonal(sigma, dim1=-2, dim2=-1)
            variance = _products(diagonal) + sigma.square()
            floor = 1e-12 * _products((joint.eta_unit / term.size).square()[None]).square() + 1e-300
            own = (variance.clamp_min(floor) / _effects(term) / _products(known.reliability)).sqrt()
            error.append(own.reshape(-1))
            rate.append(known.rate.reshape(-1))
            size.append(_smaller(known.size).reshape(-1))
        if joint.family.has_dispersion:
            spread = params.phi * (2.0 / float(joint.weights.sum())) ** 0.5
            error.append(torch.tensor([max(spread, 1e-300)], dtype=torch.float64))
            rate.append(torch.ones(1, dtype=torch.float64))
            size.append(torch.full((1,), torch.inf, dtype=torch.float64))
        return cls(torch.cat(error), torch.cat(rate), torch.cat(size))

    def step(self, old: Parameters, new: Parameters) -> Tensor:
        """Change of every entry of (beta, Sigma, dispersion), (k,)."""
        parts = [new.beta - old.beta, *(after - before for before, after in zip(old.sigma, new.sigma, strict=True))]
        flat = [part.reshape(-1) for part in parts]
        return torch.cat([*flat, torch.tensor([new.phi - old.phi], dtype=torch.float64)])[: len(self.error)]


def _products(values: Tensor) -> Tensor:
    """All products of two, (C, r) to (C, r, r)."""
    return values[:, :, None] * values[:, None, :]


def _smaller(values: Tensor) -> Tensor:
    """The smaller of every two, (C, r) to (C, r, r)."""
    return torch.minimum(values[:, :, None], values[:, None, :])


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
        self.averaged, self._full, self._counted = 0, 0, 0

    def gain(self, move: Tensor) -> float:
        """Share to go of this iteration's full step `move`, in standard errors."""
        turned = self._drift.ended(move)
        if self.averaged or (self._full >= self._config.burn_in and turned):
            self.averaged += 1
        else:
            self._full += 1
        return max(self.averaged, 1) ** -self._config.averaging

    def weight(self, draws: int) -> float:
        """Share of this iteration, of so many draws, in the average; once an iteration.

        The t-th counts t times, so that the way there is forgotten, and as often as it has draws.
        """
        count = max(self.averaged, 1) * draws
        self._counted = count + (self._counted if self.averaged > 1 else 0)
        return count / self._counted

    def ended(self, distance: float, least: int) -> bool:
        """Whether EM may stop at such a distance from the maximum, at least so many iterations being averaged."""
        return self._streak.met(distance) and self.averaged >= least


class Distance:
    """How far the average of the iterations is from the maximum, in standard errors.

    An EM step is on average `rate` times the way from where it starts to the maximum (of a quadratic likelihood), so
    that the mean of the steps over the rate is what the average lacks; their spread gives its Monte Carlo error.

    Attributes
    ----------
    noise : float
        The largest Monte Carlo error, in standard errors.
    """

    def __init__(self) -> None:
        self.noise = 0.0
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
        if not bool(counts.any()):
            self.noise = 0.0
            return 0.0
        unit = scales.rate * scales.error
        self.noise = float((noise / unit)[counts].max())
        return float(((self._mean.abs() + noise) / unit)[counts].max())


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
