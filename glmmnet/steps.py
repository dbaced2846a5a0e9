"""Steps of all parameters at once: fixed effects in an orthonormal basis, variances where they are nearly normal."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from glmmnet.exact import orthonormal_columns
from glmmnet.joint import JointModel, Parameters
from glmmnet.variance import VarianceParameter, shifted, variance_parameters

#: A step moves log standard deviations and Fisher z at most so far, and the fixed part of eta (root mean square).
_LONGEST, _LONGEST_ETA = 1.0, 2.0


def n_parameters(joint: JointModel) -> int:
    """Coefficients, variance parameters and dispersion, if none is on its boundary."""
    return joint.n_coefficients * joint.X.shape[1] + len(variance_parameters(joint))


class ParameterSteps:
    """Steps (k,): coefficients of `basis`, classes innermost, then log sd, Fisher z and log phi^(1/2).

    Attributes
    ----------
    basis : FixedColumns
        Orthonormal columns that span those of X.
    size : int
        Coefficients of the basis.
    """

    def __init__(self, joint: JointModel) -> None:
        self._joint = joint
        self.basis, self._to_beta, _ = orthonormal_columns(joint.columns)
        self.size = self.basis.values.shape[1] * joint.n_coefficients
        loading = self.basis.loading
        # Unit of each coefficient of the fixed part.
        self._units = (
            torch.tensor(joint.eta_unit, dtype=torch.float64)
            if loading is None
            else ((loading != 0) * joint.eta_units).amax(dim=1)
        )

    def moved(self, params: Parameters, active: tuple[VarianceParameter, ...], step: Tensor) -> Parameters:
        """`params` after a step of the coefficients and of the `active` variance parameters."""
        beta = params.beta + self._beta(step)
        if self._joint.family.symmetric:
            # What all classes share changes no probability.
            beta = beta - beta.mean(dim=1, keepdim=True)
        return replace(shifted(self._joint, params, active, step[self.size :].numpy()), beta=beta)

    def eta_size(self, step: Tensor) -> float:
        """Root mean square of the step of the fixed part of eta, in its unit; the columns are orthonormal."""
        return float((step[: self.size] / self._units).norm()) / self._joint.n**0.5

    def shortening(self, params: Parameters, step: Tensor) -> float:
        """The share of a step that is not too long, and that the thresholds of an ordinal response admit."""
        eta = self.eta_size(step)
        variance = float(step[self.size :].abs().max()) if len(step) > self.size else 0.0
        short = min(1.0, _LONGEST_ETA / max(eta, 1e-300), _LONGEST / max(variance, 1e-300))
        return short * self._joint.admissible_step(params.beta, short * self._beta(step))

    def _beta(self, step: Tensor) -> Tensor:
        return self._to_beta @ step[: self.size].reshape(-1, self._joint.n_coefficients)
