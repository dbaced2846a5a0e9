"""E-step: draws of b from its posterior, by a sampler in whitened coordinates or exactly where it is Gaussian."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from glmmnet.cholesky import dense_size
from glmmnet.em.conjugate import ConjugateDraws
from glmmnet.em.coordinates import Coordinates, CoordinateSystem
from glmmnet.em.levels import LevelPosterior
from glmmnet.gaussian import gaussian_posterior
from glmmnet.joint import JointModel, Parameters
from glmmnet.typing import Sampler, SamplerState
from glmmnet.whitening import Whitening

#: Calls until curvature and mass matrix are renewed; more often at first.
_RENEWED, _AT_FIRST = 8, 3
#: Sweeps for the first mode; near it is enough for coordinates.
_FIRST_SWEEPS = 10
#: Share of the target acceptance below which the next call tunes the step size, and the transitions that takes; share
#: of what the target leaves to 1 within which a longer step might do, so that a call that may tune does.
_POOR, _RETUNING, _HIGH = 0.57, 8, 0.23
#: Target of a sampler that names none.
_TARGET = 0.7
#: What a transition leaves of the acceptance before it: that of a single one says little.
_REMEMBERED = 0.8
#: Dense rows of a blocked Cholesky that is quick enough to be renewed for every draw.
_QUICK_ROWS = 300
#: Rows x draws that one call of the log density may hold; small data run many copies of b side by side.
_ROWS_AT_ONCE = 40_000


class WhitenedPosterior:
    """log p(y, b(u)) of `copies` independent copies of b at once, as a function of the flat u, with its gradient.

    The copies' target is the product of their posteriors: one trajectory moves them all, so small data cost one
    call instead of many.
    """

    def __init__(self, joint: JointModel, fixed: Tensor, params: Parameters, whitening: Whitening, copies: int) -> None:
        self._joint, self._phi = joint, params.phi
        self._dtype = torch.float32 if joint.family.single_precision else torch.float64
        fixed = fixed.to(self._dtype)
        whole = len(joint.parts) == 1
        self._parts = [(part, fixed if whole else fixed[rows]) for rows, part in joint.parts]
        self._precisions = joint.precisions(params)
        diagonal = joint.prior_diagonal(self._precisions)
        self._diagonal = None if diagonal is None else diagonal[:, :, None]
        self._whitening = whitening
        self._shape = (joint.n_effects, joint.n_classes, copies)

    def to_b(self, u: Tensor) -> Tensor:
        """B (Q, C, copies) at the flat u."""
        return self._whitening.to_b(u.reshape(self._shape))

    def to_u(self, b: Tensor) -> Tensor:
        """The flat u at b (Q, C, copies)."""
        return self._whitening.from_b(b).reshape(-1)

    def start(self, point: Coordinates) -> Tensor:
        """A point of the Laplace approximation, the flat u."""
        if point.metric is None:
            return torch.randn(self._shape, dtype=torch.float64).reshape(-1)
        return point.metric.velocity(point.metric.momentum())

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        b = self.to_b(u)
        log_p, slope = self._likelihood(b.to(self._dtype))
        pulled = self._joint.prior(b, self._precisions)[1] if self._diagonal is None else b * self._diagonal
        log_prior = -0.5 * torch.dot(b.reshape(-1), pulled.reshape(-1))
        gradient = self._whitening.pull(slope - pulled)
        return log_p.sum() + log_prior, gradient.reshape(-1)

    def _likelihood(self, b: Tensor) -> tuple[Tensor, Tensor]:
        """Log p(y | b) (copies,) and its gradient (Q, C, copies), in double precision."""
        total, slope = torch.zeros(b.shape[2], dtype=torch.float64), torch.zeros(b.shape, dtype=torch.float64)
        for part, fixed in self._parts:
            log_p, score = part.log_likelihood_and_score(fixed + part.random_eta(b), self._phi)
            total += log_p
            slope += part.random_transpose(score)
        return total, slope


@dataclass
class EStep:
    """Draws b again and again, carrying mode, chain position and step size from call to call.

    Attributes
    ----------
    sampler : Sampler or None
        None: exact draws from a Gaussian posterior, with the factor of its precision where that is quick and else by
        conjugate gradients; of another posterior level by level, see :func:`glmmnet.em.levels.has_levels`.
    draws : int
        Draws a call.
    step_size : float or None
        Of the sampler, for `copies` copies of b; None until a call has found one.
    copies : int
        Copies of b that moved side by side in the last call.
    """

    joint: JointModel
    sampler: Sampler | None
    draws: int
    mode: Tensor | None = None
    b: Tensor | None = None
    step_size: float | None = None
    copies: int = 1

    def __post_init__(self) -> None:
        self._coordinates = CoordinateSystem(self.joint)
        many = dense_size(self.joint.segments) > _QUICK_ROWS
        self._conjugate = ConjugateDraws(self.joint) if many and ConjugateDraws.applies_to(self.joint) else None
        self._target = float(getattr(self.sampler, "target_accept", _TARGET))
        self._calls, self._acceptance = 0, float("nan")
        self._kind: tuple[int, bool] | None = None

    def __call__(self, fixed: Tensor, params: Parameters, *, sweeps: int = 2, warmup: int = 0) -> Tensor:
        """Draws of b given the fixed part of eta: (Q, C, S).

        Parameters
        ----------
        fixed : Tensor, (n, C, 1)
        sweeps : int
            Newton sweeps for the mode, from the last one.
        warmup : int
            Transitions that may tune the step size first: they do unless the one at hand suits so far. Then the mass
            matrix is renewed too, and after the first call the chains start anew.
        """
        if not self.joint.terms:
            self.mode = torch.zeros(0, self.joint.n_classes, dtype=torch.float64)
            return self.mode[:, :, None]
        if self.sampler is None and self.joint.family.quadratic:
            return self._exactly(fixed, params)
        iterations = _FIRST_SWEEPS if self.mode is None else sweeps
        poor, high = _POOR * self._target, 1.0 - _HIGH * (1.0 - self._target)
        suits = self.step_size is not None and poor <= self._acceptance <= high
        tuning = 0 if suits else max(warmup, _RETUNING if self._acceptance < poor else 0)
        renew = tuning > 0 or self._calls < _AT_FIRST or self._calls % _RENEWED == 0
        point = self._coordinates.at(fixed, params, self.mode, iterations=iterations, renew=renew)
        self.mode, self._calls = point.mode, self._calls + 1
        work = self.joint.n + self.joint.n_effects
        copies = 1 if point.metric is not None else max(1, min(self.draws, _ROWS_AT_ONCE // max(work, 1)))
        kind = (copies, point.metric is not None)
        if self._kind not in (None, kind):
            # A step that suits one copy is too long for the product of many, and one in other coordinates is any.
            self.step_size, tuning = None, max(warmup, _RETUNING)
        self.copies, self._kind = copies, kind
        if self.sampler is None:
            return self._level_by_level(point, fixed, params)
        if 0 < warmup <= tuning and self._calls > 1:
            # Parameters may have moved: a chain that lags behind would be tuned to steps that are too short.
            self.b = None
        return self._sample(self.sampler, point, fixed, params, tuning)

    def _exactly(self, fixed: Tensor, params: Parameters) -> Tensor:
        if self._conjugate is not None:
            self.mode, self.b = self._conjugate.draw(fixed, params, self.draws)
        else:
            posterior = gaussian_posterior(self.joint, fixed, params)
            self.mode, self.b = posterior.mode, posterior.draw(self.draws)
        return self.b

    def _level_by_level(self, point: Coordinates, fixed: Tensor, params: Parameters) -> Tensor:
        posterior = LevelPosterior(self.joint, fixed, params, point.whitening, self.copies)
        b = posterior.start() if self.b is None else _copied(self.b, self.copies)
        drawn = posterior.draw(b, -(-self.draws // self.copies))
        self.b = drawn.b[-1]
        return torch.cat(drawn.b, dim=2)

    def _sample(self, sampler: Sampler, point: Coordinates, fixed: Tensor, params: Parameters, warmup: int) -> Tensor:
        copies = self.copies
        posterior = WhitenedPosterior(self.joint, fixed, params, point.whitening, copies)
        u = posterior.start(point) if self.b is None else posterior.to_u(_copied(self.b, copies))
        transitions = -(-self.draws // copies)
        state = SamplerState(u, self.step_size)
        result = sampler.draw(posterior, state, draws=transitions, warmup=warmup, metric=point.metric)
        self.step_size = result.state.step_size
        if "acceptance_rate" in result.stats:
            new = float(result.stats["acceptance_rate"].mean())
            before = self._target if warmup or math.isnan(self._acceptance) else self._acceptance
            self._acceptance = new + _REMEMBERED**transitions * (before - new)
        self.b = posterior.to_b(result.state.u)
        return torch.cat([posterior.to_b(u) for u in result.u], dim=2)

    def start_from(self, b: Tensor) -> None:
        """Put the chains at earlier draws (Q, C, S), and look for the mode from their mean."""
        self.b, self.mode = b, b.mean(dim=2)

    @property
    def single_step_size(self) -> float | None:
        """The step size found, if it is that of a single copy of b."""
        return self.step_size if self.copies == 1 else None

    def shift(self, shifts: Tensor) -> None:
        """Move the chains' position by -`shifts` (Q, C), after a location expansion."""
        if self.b is not None:
            self.b = self.b - shifts[:, :, None]


def _copied(b: Tensor, copies: int) -> Tensor:
    """As many copies of the draws (Q, C, S) as are wanted, in turn."""
    return b[:, :, torch.arange(copies) % b.shape[2]]
