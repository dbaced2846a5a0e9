"""When EM may stop: changes measured in standard errors, and early stopping of the network."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.joint import JointModel, Parameters

#: Reliabilities below count as this.
_LEAST_RELIABILITY = 0.05


def reliabilities(joint: JointModel, params: Parameters, b: Tensor) -> list[float]:
    """Share of each term's variance that the data tell, from the spread of draws b (Q, C, S): 1 - E var(b | y) / Sigma.

    A variance is known as well as q * reliability^2 directly observed effects would tell it.
    """
    if b.shape[2] < 2:
        return [1.0] * len(joint.terms)
    out = []
    for term, sigma in zip(joint.terms, params.sigma, strict=True):
        own = b[term.rows].reshape(term.q, term.r, *b.shape[1:])
        left = own.var(dim=3).mean() / torch.diagonal(sigma, dim1=-2, dim2=-1).mean().clamp_min(1e-300)
        out.append(min(max(1.0 - float(left), _LEAST_RELIABILITY), 1.0))
    return out


def scaled_change(
    joint: JointModel, old: Parameters, new: Parameters, beta_variance: Tensor, reliability: list[float]
) -> Tensor:
    """Change of every entry of (beta, Sigma, dispersion) in rough standard errors, one vector.

    Standard errors of Sigma are those of q directly observed effects over the reliability, of as many times q as
    columns share a variance; of the dispersion those of n rows.
    """
    parts = [((new.beta - old.beta) / beta_variance.clamp_min(1e-300).sqrt()).reshape(-1)]
    for term, before, after, known in zip(joint.terms, old.sigma, new.sigma, reliability, strict=True):
        diagonal = torch.diagonal(after, dim1=-2, dim2=-1)
        variance = diagonal[:, :, None] * diagonal[:, None, :] + after.square()
        floor = 1e-12 * float(variance.max()) + 1e-300
        effects = term.q * term.r / len(term.covariance.deviations(term.r))
        error = (variance.clamp_min(floor) / effects).sqrt() / known
        parts.append(((after - before) / error).reshape(-1))
    if joint.family.has_dispersion:
        spread = new.phi * (2.0 / float(joint.weights.sum())) ** 0.5
        parts.append(torch.tensor([(new.phi - old.phi) / max(spread, 1e-300)], dtype=torch.float64))
    return torch.cat(parts)


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
