"""Fisher scoring of the variances of a Gaussian model with many crossed levels, traces by fixed random probes.

For models too large to maximise the exact likelihood by differences, but whose precision H = Z'WZ / phi + P has a
sparse factor. With M = S H^-1 S, S the root of P: the score of log sd_k is |b_k|^2 / sd_k^2 + tr M_kk - q_k, its
expected information 2 |I - M|^2 over the block (j, k). EM crawls there: most of the information about a variance is
missing.

References
----------
Gilmour, Thompson, Cullis (1995), Biometrics 51(4), 1440-1450; Hutchinson (1990), Commun. Stat. Simul. 19(2), 433-450.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from glmmnet.cholesky import Factor, factorize
from glmmnet.joint import JointModel, Parameters

#: Rademacher probes a variance component.
_PROBES = 12
#: Longest step on the log scale, halvings of a step that lowers the likelihood.
_LONGEST_STEP, _HALVINGS = 1.0, 6
#: Eigenvalues of the scaled information are taken as at least this.
_LEAST_INFORMATION = 0.02
#: A component below this share of the residual standard deviation is 0.
_BOUNDARY = 1e-4


@dataclass(frozen=True)
class ScoringStep:
    """One iteration: estimates, mode of b (Q,) and -2 log-likelihood before the step, the step in standard errors."""

    params: Parameters
    b: np.ndarray
    deviance: float
    change: float


@dataclass(frozen=True)
class _Point:
    factor: Factor
    beta: np.ndarray
    b: np.ndarray
    rss: float
    deviance: float


def can_score(joint: JointModel) -> bool:
    """Whether every variance is a component of its own: one column a term, or independent columns."""
    return joint.family.quadratic and all(t.r == 1 or t.structure == "diag" for t in joint.terms)


class VarianceScoring:
    """Scores (log sd of every component, log residual sd) of a Gaussian model.

    Parameters
    ----------
    joint : JointModel
        See :func:`can_score`; its precision must have a factor.
    f : Tensor, (n, 1), optional
        Network output, held fixed.
    """

    def __init__(self, joint: JointModel, f: Tensor | None) -> None:
        self._joint = joint
        w = joint.weights.numpy()
        y = (joint.target.y - joint.offset)[:, 0, 0].numpy()
        self._y = y if f is None else y - f[:, 0].numpy()
        self._w, self._total, self._x = w, float(w.sum()), joint.X.numpy()
        z = joint.z_matrix
        self._zz = (z.T @ z.multiply(w[:, None])).tocsr()
        right = np.column_stack([self._x, self._y])
        self._zr, self._rr = np.asarray(z.T @ (w[:, None] * right)), right.T @ (w[:, None] * right)
        self._components = [t.start + np.arange(t.q) * t.r + j for t in joint.terms for j in range(t.r)]
        self._owner = np.empty(joint.n_effects, dtype=np.int64)
        for k, rows in enumerate(self._components):
            self._owner[rows] = k
        generator = torch.Generator().manual_seed(torch.initial_seed())
        signs = torch.randint(0, 2, (joint.n_effects, _PROBES), generator=generator).numpy()
        self._signs = 2.0 * signs - 1.0

    def run(self, start: Parameters, iterations: int, tol: float) -> Iterator[ScoringStep]:
        """Scoring steps from `start` until the step is below `tol` standard errors, or so many iterations."""
        psi = self._psi(start)
        point, last = self._point(psi), math.inf
        for _ in range(iterations):
            score, information = self._score(psi, point)
            active = psi > psi[-1] + math.log(_BOUNDARY)
            step = np.zeros_like(psi)
            step[active] = _solve_steadily(information[np.ix_(active, active)], score[active])
            change = math.sqrt(max(float(score[active] @ step[active]), 0.0))
            # Where components compete, the probes' noise keeps the step from shrinking; the likelihood then tells.
            change = min(change, math.sqrt(max(last - point.deviance, 0.0)))
            last = point.deviance
            yield ScoringStep(self._parameters(psi, point), point.b, point.deviance, change)
            if change < tol:
                return
            step *= min(1.0, _LONGEST_STEP / float(np.abs(step).max()))
            for _ in range(_HALVINGS):
                fresh = self._point(psi + step)
                if fresh.deviance < point.deviance + 1e-6:
                    break
                step *= 0.5
            psi, point = psi + step, fresh

    def _psi(self, params: Parameters) -> np.ndarray:
        smallest = _BOUNDARY * params.phi**0.5 / 2
        sds = [float(s[0, j, j]) ** 0.5 for s in params.sigma for j in range(s.shape[1])]
        return np.log(np.append(np.maximum(sds, smallest), params.phi**0.5))

    def _parameters(self, psi: np.ndarray, point: _Point) -> Parameters:
        sd = np.where(psi[:-1] > psi[-1] + math.log(_BOUNDARY), np.exp(psi[:-1]), 0.0)
        sigma, at = [], 0
        for term in self._joint.terms:
            sigma.append(torch.diag(torch.as_tensor(sd[at : at + term.r] ** 2))[None])
            at += term.r
        return Parameters(torch.as_tensor(point.beta)[:, None], tuple(sigma), float(np.exp(2 * psi[-1])))

    def _point(self, psi: np.ndarray) -> _Point:
        """Factor, generalised least squares and likelihood at psi."""
        phi = math.exp(2 * psi[-1])
        prior = np.exp(-2 * psi[:-1])[self._owner]
        factor = factorize((self._zz / phi + sp.diags(prior)).tocsr(), self._joint.segments)
        right = self._zr / phi
        solved = factor.solve(right)
        cross = self._rr / phi - right.T @ solved
        beta = np.linalg.lstsq(cross[:-1, :-1], cross[:-1, -1], rcond=None)[0]
        b = solved[:, -1] - solved[:, :-1] @ beta
        quadratic = float(cross[-1, -1] - cross[:-1, -1] @ beta)
        z_b = self._joint.z_matrix @ b
        rss = float((self._w * (self._y - self._x @ beta - z_b) ** 2).sum())
        log_det = factor.logdet - float(np.log(prior).sum())
        deviance = log_det + self._total * math.log(2 * math.pi * phi) + quadratic
        return _Point(factor, beta, b, rss, deviance)

    def _score(self, psi: np.ndarray, point: _Point) -> tuple[np.ndarray, np.ndarray]:
        """Score and expected information of psi."""
        count = len(self._components)
        root = np.exp(-psi[:-1])[self._owner]
        traces, squares = np.empty(count), np.empty((count, count))
        for k, rows in enumerate(self._components):
            probe = np.zeros((len(self._owner), _PROBES))
            probe[rows] = self._signs[rows]
            image = root[:, None] * point.factor.solve(root[:, None] * probe)
            traces[k] = (probe[rows] * image[rows]).sum() / _PROBES
            squares[:, k] = [np.square(image[own]).sum() / _PROBES for own in self._components]
        squares = 0.5 * (squares + squares.T)
        sizes = np.array([len(rows) for rows in self._components], dtype=float)
        explained = np.array([np.square(root[rows] * point.b[rows]).sum() for rows in self._components])
        residual = point.rss / math.exp(2 * psi[-1]) + sizes.sum() - traces.sum() - self._total
        score = np.append(explained + traces - sizes, residual)
        information = np.empty((count + 1, count + 1))
        information[:-1, :-1] = 2 * (squares + np.diag(sizes - 2 * traces))
        information[:-1, -1] = information[-1, :-1] = 2 * (traces - squares.sum(axis=0))
        information[-1, -1] = 2 * (self._total - sizes.sum() + squares.sum())
        return score, information


def _solve_steadily(information: np.ndarray, score: np.ndarray) -> np.ndarray:
    """information^-1 score, directions in which the probes' noise hides the information kept short."""
    scale = np.sqrt(np.maximum(np.diag(information), 1e-12))
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    steady = np.maximum(values, _LEAST_INFORMATION)
    step: np.ndarray = (vectors @ ((vectors.T @ (score / scale)) / steady)) / scale
    return step
