"""When EM may stop: changes measured in standard errors, and early stopping of the network."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.em.config import EMConfig
from glmmnet.joint import JointModel, Parameters

#: Reliabilities below count as this.
_LEAST_RELIABILITY = 1e-3


def reliabilities(joint: JointModel, params: Parameters, mode: Tensor) -> list[Tensor]:
    """Share of each variance that the data tell, from the posterior's mode (Q, C): var(E(b | y)) / Sigma_ii.

    A variance is known as well as q * reliability^2 directly observed effects would tell it. A term's are (C, r), the
    same for columns that share a variance. The spread of an E-step's few draws would not do: successive draws by NUTS
    lie on opposite sides of the mode.
    """
    out = []
    for term, sigma in zip(joint.terms, params.sigma, strict=True):
        own = mode[term.rows].reshape(term.q, term.r, -1)
        told = (own * term.decorrelated(own)).sum(dim=0).T / term.q
        variance = torch.diagonal(sigma, dim1=-2, dim2=-1)
        known = torch.empty_like(told)
        for columns in map(list, term.covariance.deviations(term.r)):
            share = told[:, columns].sum(dim=1) / variance[:, columns].sum(dim=1).clamp_min(1e-300)
            known[:, columns] = share.clamp(_LEAST_RELIABILITY, 1.0)[:, None]
        out.append(known)
    return out


def scaled_change(
    joint: JointModel, old: Parameters, new: Parameters, beta_variance: Tensor, reliability: list[Tensor]
) -> Tensor:
    """Change of every entry of (beta, Sigma, dispersion) in rough standard errors, one vector.

    Standard errors of Sigma are those of q directly observed effects over the reliability, of as many times q as
    columns share a variance; of the dispersion those of n rows.
    """
    parts = [((new.beta - old.beta) / beta_variance.clamp_min(1e-300).sqrt()).reshape(-1)]
    for term, before, after, known in zip(joint.terms, old.sigma, new.sigma, reliability, strict=True):
        diagonal = torch.diagonal(after, dim1=-2, dim2=-1)
        variance = _products(diagonal) + after.square()
        floor = 1e-12 * float(variance.max()) + 1e-300
        effects = term.q * term.r / len(term.covariance.deviations(term.r))
        error = (variance.clamp_min(floor) / effects / _products(known)).sqrt()
        parts.append(((after - before) / error).reshape(-1))
    if joint.family.has_dispersion:
        spread = new.phi * (2.0 / float(joint.weights.sum())) ** 0.5
        parts.append(torch.tensor([(new.phi - old.phi) / max(spread, 1e-300)], dtype=torch.float64))
    return torch.cat(parts)


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

    def ended(self, change: float, least: int) -> bool:
        """Whether EM may stop after this iteration's largest change, at least so many being averaged."""
        return self._streak.met(change) and self.averaged >= least


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
