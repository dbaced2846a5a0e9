"""E-step: draws of b from its posterior, by a sampler in whitened coordinates or exactly where it is Gaussian."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from glmmnet.joint import JointModel, Parameters
from glmmnet.laplace import LaplacePoint, Whitening, find_mode, gaussian_posterior
from glmmnet.typing import Sampler, SamplerState

#: Rows x draws that one call of the log density may hold; small data run many copies of b side by side.
_ROWS_AT_ONCE = 40_000


class WhitenedPosterior:
    """log p(y, b(u)) of `copies` independent copies of b at once, as a function of the flat u, with its gradient.

    The copies' target is the product of their posteriors: one trajectory moves them all, so small data cost one
    call instead of many.
    """

    def __init__(self, joint: JointModel, fixed: Tensor, params: Parameters, whitening: Whitening, copies: int) -> None:
        self._joint, self._phi = joint, params.phi
        single = joint.family.single_precision
        self._rows = joint.single() if single else joint
        self._dtype = torch.float32 if single else torch.float64
        self._fixed = fixed.to(self._dtype)
        self._precisions = joint.precisions(params)
        self._whitening = whitening
        self._shape = (joint.n_effects, joint.n_classes, copies)

    def to_b(self, u: Tensor) -> Tensor:
        """B (Q, C, copies) at the flat u."""
        return self._whitening.to_b(u.reshape(self._shape))

    def to_u(self, b: Tensor) -> Tensor:
        """The flat u at b (Q, C, copies)."""
        return self._whitening.from_b(b).reshape(-1)

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        b = self.to_b(u)
        eta = self._fixed + self._rows.random_eta(b.to(self._dtype))
        log_p, score = self._rows.log_likelihood_and_score(eta, self._phi)
        log_prior, pulled = self._joint.prior(b, self._precisions)
        gradient = self._whitening.pull(self._rows.random_transpose(score).to(torch.float64) - pulled)
        return (log_p + log_prior).sum(), gradient.reshape(-1)


@dataclass
class EStep:
    """Draws b again and again, carrying mode, chain position and step size from call to call.

    Attributes
    ----------
    sampler : Sampler or None
        None: exact draws from the Gaussian posterior.
    draws : int
        Draws a call.
    """

    joint: JointModel
    sampler: Sampler | None
    draws: int
    mode: Tensor | None = None
    b: Tensor | None = None
    step_size: float | None = None
    stats: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @property
    def copies(self) -> int:
        """Copies of b that move side by side."""
        return max(1, min(self.draws, _ROWS_AT_ONCE // max(self.joint.n, 1)))

    def __call__(self, fixed: Tensor, params: Parameters, *, sweeps: int = 2, warmup: int = 0) -> Tensor:
        """Draws of b given the fixed part of eta: (Q, C, S).

        Parameters
        ----------
        fixed : Tensor, (n, C, 1)
        sweeps : int
            Newton sweeps for the mode, from the last one.
        warmup : int
            Transitions that tune the step size first.
        """
        if not self.joint.terms:
            return torch.zeros(0, self.joint.n_classes, 1, dtype=torch.float64)
        if self.sampler is None:
            self.b = gaussian_posterior(self.joint, fixed, params).draw(self.draws)
            return self.b
        point = find_mode(self.joint, fixed, params, self.mode, iterations=sweeps if self.mode is not None else 50)
        self.mode = point.mode
        return self._sample(point, fixed, params, warmup)

    def _sample(self, point: LaplacePoint, fixed: Tensor, params: Parameters, warmup: int) -> Tensor:
        assert self.sampler is not None
        copies = self.copies
        posterior = WhitenedPosterior(self.joint, fixed, params, point.whitening, copies)
        if self.b is None:
            u = torch.randn(point.mode.numel() * copies, dtype=torch.float64)
        else:
            u = posterior.to_u(self.b)
        transitions = -(-self.draws // copies)
        state = SamplerState(u, self.step_size)
        result = self.sampler.draw(posterior, state, draws=transitions, warmup=warmup)
        self.step_size = result.state.step_size
        self.b = posterior.to_b(result.state.u)
        for name, values in result.stats.items():
            self.stats.setdefault(name, []).append(values)
        return torch.cat([posterior.to_b(u) for u in result.u], dim=2)

    def shift(self, shifts: Tensor) -> None:
        """Move the chains' position by -`shifts` (Q, C), after a location expansion."""
        if self.b is not None:
            self.b = self.b - shifts[:, :, None]
