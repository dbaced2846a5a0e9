"""How many draws of b an EM iteration takes: few at first, more where their noise alone would keep EM from ending."""

from __future__ import annotations

import math

from glmmnet.em.config import EMConfig
from glmmnet.joint import JointModel

#: Draws an EM iteration of the polish, and the row-draws that small data may take instead.
_FEW, _MANY, _ROW_DRAWS = 5, 200, 40_000
#: Rows that cost as much as one effect (whitening takes time too).
_WORK_AN_EFFECT = 5
#: Averaged iterations that noise may ask for; how many times as many draws are taken at once instead; the averaged
#: iterations after which that is decided: before, a noise is not known, and later EM's own pace is what holds it up.
_PATIENT, _TIMES, _LOOKS = 64, 4, (8, 16, 32)


def draws_at_first(joint: JointModel, config: EMConfig) -> int:
    """`em_draws`, or more draws than a few where an E-step's whole work, rows and effects, is small."""
    if config.em_draws is not None:
        return config.em_draws
    work = joint.n + _WORK_AN_EFFECT * joint.n_effects
    return min(max(_FEW, _ROW_DRAWS // max(work, 1)), _MANY)


def draws_from_here(draws: int, noise: float, averaged: int, config: EMConfig) -> int:
    """Draws of the next iterations, so that the average's Monte Carlo error falls below `tol` in good time.

    It falls with the root of the iterations and of their draws: more of either do the same, but the parameters of an
    iteration that has few wander, and carry the others along. A given `em_draws` is kept. As Booth and Hobert (1999),
    J. R. Stat. Soc. B 61, 265-285, raise the draws where a step is lost in its noise.

    Parameters
    ----------
    draws : int
        Those of the last iteration.
    noise : float
        Monte Carlo error of the average, in standard errors.
    averaged : int
        Iterations that are averaged.
    """
    if config.em_draws is not None or averaged not in _LOOKS:
        return draws
    wanted = averaged * (noise / config.tol) ** 2 / _PATIENT
    return min(math.ceil(draws * min(max(wanted, 1.0), _TIMES)), max(draws, _MANY))
