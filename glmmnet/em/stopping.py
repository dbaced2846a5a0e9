"""When EM may stop: changes measured in standard errors, and early stopping of the network."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.joint import JointModel, Parameters


def scaled_change(joint: JointModel, old: Parameters, new: Parameters, beta_variance: Tensor) -> Tensor:
    """Change of every entry of (beta, Sigma, dispersion) in rough standard errors, one vector.

    Standard errors are those of q (n for the dispersion) directly observed effects, which errs on the strict side.
    """
    parts = [((new.beta - old.beta) / beta_variance.clamp_min(1e-300).sqrt()).reshape(-1)]
    for term, before, after in zip(joint.terms, old.sigma, new.sigma, strict=True):
        diagonal = torch.diagonal(after, dim1=-2, dim2=-1)
        variance = diagonal[:, :, None] * diagonal[:, None, :] + after.square()
        floor = 1e-12 * float(variance.max()) + 1e-300
        parts.append(((after - before) / (variance.clamp_min(floor) / term.q).sqrt()).reshape(-1))
    if joint.family.has_dispersion:
        error = new.phi * (2.0 / float(joint.weights.sum())) ** 0.5
        parts.append(torch.tensor([(new.phi - old.phi) / max(error, 1e-300)], dtype=torch.float64))
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
