"""Draws of many crossed effects from a Gaussian posterior by conjugate gradients, without a factor of its precision."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from glmmnet.joint import JointModel, Parameters, away_from_singular
from glmmnet.laplace import level_whitening
from glmmnet.whitening import LevelWhitening

#: Root mean square of what is left of the equations of the mode and of a deviation from it, in posterior standard
#: deviations level by level.
_TOLERANCE, _ROUGHLY = 3e-3, 1e-2
#: What levels of several terms have in common only the prior tells apart, so that it hardly shows in the equations:
#: where the prior's share of the precision is smaller than one in so many, they are solved more closely.
_PRIOR_SHARE = 100.0


class ConjugateDraws:
    """Draws b = mode + H^-1 (Z'W^(1/2) e + P b0), e standard normal, b0 from the prior P^-1, H = Z'WZ + P.

    Each noise serves twice, with both signs: draws that follow each other lie on opposite sides of the mode, which
    steadies what is averaged over them.

    Parameters
    ----------
    joint : JointModel
        See :meth:`applies_to`.

    References
    ----------
    Papandreou, Yuille (2010), Gaussian sampling by local perturbations, NeurIPS, section 3.
    """

    def __init__(self, joint: JointModel) -> None:
        self._joint = joint
        self._mode = np.zeros(joint.n_effects * joint.n_classes)
        self._noise: tuple[Tensor, tuple[Tensor, ...], np.ndarray] | None = None

    @staticmethod
    def applies_to(joint: JointModel) -> bool:
        """A Gaussian model of one linear predictor whose levels are independent (no ``gr()``)."""
        return joint.family.quadratic and joint.n_predictors == 1 and not joint.related

    def draw(self, fixed: Tensor, params: Parameters, draws: int) -> tuple[Tensor, Tensor]:
        """Mode (Q, C) and draws (Q, C, S), given the fixed part of eta (n, C, 1)."""
        joint = self._joint
        weight = joint.weight(fixed, params.phi)[..., 0]
        precision = joint.precision_matrix(params)
        matrix = joint.information(weight) + precision
        nothing = torch.zeros(joint.n_effects, joint.n_classes, dtype=torch.float64)
        levels = level_whitening(joint, nothing, fixed, params)
        closer = min(1.0, _PRIOR_SHARE * float(np.mean(precision.diagonal() / matrix.diagonal()))) ** 0.5
        _, score = joint.log_likelihood_and_score(fixed, params.phi)
        pulled = joint.random_transpose(score).reshape(-1).numpy()
        self._mode = _solve(matrix, pulled, self._mode, levels, closer * _TOLERANCE)
        b = []
        for _ in range(draws):
            if self._noise is None:
                rows = torch.randn(joint.n, 1, 1, dtype=torch.float64)
                effects = tuple(torch.randn(t.q, t.r, joint.n_classes, dtype=torch.float64) for t in joint.terms)
                sign, start = 1.0, np.zeros_like(self._mode)
            else:
                (rows, effects, start), sign = self._noise, -1.0
            perturbed = self._perturbation(weight, precision, params, rows, effects)
            deviation = _solve(matrix, sign * perturbed, sign * start, levels, closer * _ROUGHLY)
            self._noise = (rows, effects, deviation) if self._noise is None else None
            b.append(self._mode + deviation)
        shape = (joint.n_effects, joint.n_classes)
        stacked = torch.from_numpy(np.stack(b, axis=1)).reshape(*shape, draws)
        return torch.from_numpy(self._mode.copy()).reshape(shape), stacked

    def _perturbation(
        self, weight: Tensor, precision: sp.csr_matrix, params: Parameters, rows: Tensor, effects: tuple[Tensor, ...]
    ) -> np.ndarray:
        """A draw from N(0, H) made of standard normals."""
        joint = self._joint
        noise: np.ndarray = joint.random_transpose(weight.sqrt() * rows).reshape(-1).numpy()
        prior = []
        for normal, sigma in zip(effects, params.sigma, strict=True):
            root = torch.linalg.cholesky(away_from_singular(sigma))
            prior.append(torch.einsum("cij,qjc->qic", root, normal).reshape(-1))
        return noise + precision @ torch.cat(prior).numpy()


def _solve(
    matrix: sp.csr_matrix, rhs: np.ndarray, start: np.ndarray, levels: LevelWhitening, tolerance: float
) -> np.ndarray:
    """Solution of H x = rhs by conjugate gradients from `start`, preconditioned by the blocks of the levels."""

    def smooth(vector: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(vector).reshape(*levels.mode.shape, 1)
        smoothed: np.ndarray = levels.to_b(levels.pull(values)).reshape(-1).numpy()
        return smoothed

    x, left = start, rhs - matrix @ start
    smoothed = smooth(left)
    direction, size = smoothed, float(left @ smoothed)
    for _ in range(len(rhs)):
        if size <= tolerance**2 * len(rhs):
            break
        image = matrix @ direction
        step = size / float(direction @ image)
        x, left = x + step * direction, left - step * image
        smoothed = smooth(left)
        last, size = size, float(left @ smoothed)
        direction = smoothed + size / last * direction
    return x
