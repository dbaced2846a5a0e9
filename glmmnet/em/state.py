"""What one EM iteration leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from glmmnet.joint import Parameters


@dataclass(frozen=True)
class EMState:
    """One EM iteration.

    Attributes
    ----------
    iteration : int
        Counted over both phases, from 1.
    phase : {"network", "polish", "newton"}
    params : Parameters
        Estimates after the iteration; f is centred on the training rows.
    f : Tensor, (n, C)
        Network output on the rows that the phase fits: while the network learns not those held out. Zeros without one.
    b : Tensor, (Q, C, S)
        The last draws, where the chains stand.
    deviance : float
        -2 log p(y given b), averaged over the draws.
    valid_deviance : float
        -2 log p(y), b integrated out, a held-out row, while the network learns; NaN otherwise.
    change : float
        Largest distance of (beta, Sigma, dispersion) from the maximum in standard errors: a rough one, see
        :class:`glmmnet.em.stopping.Distance`, or the next step of Newton's method, with draws their Monte Carlo error.
        NaN while the network learns.
    converged : bool
        The stopping rule is met.
    step_size : float or None
        The sampler's, where one copy of b moved at a time.
    """

    iteration: int
    phase: str
    params: Parameters
    f: Tensor
    b: Tensor
    deviance: float
    valid_deviance: float
    change: float
    converged: bool
    step_size: float | None = None
