"""Newton and Fisher scoring of Gaussian variances with many crossed levels, traces by fixed random probes.

For models too large to maximise the exact likelihood by differences, but whose precision H = Z'WZ / phi + P has a
sparse factor. With M = S H^-1 S, S the root of P: the score of log sd_k is |b_k|^2 / sd_k^2 + tr M_kk - q_k, its
expected information 2 |I - M|^2 over the block (j, k). EM crawls there: most of the information about a variance is
missing. Where effects or residuals are of unequal spread the observed information is far from the expected, and Fisher
scoring overshoots. Their mean is a quadratic form in b and the residuals, free of traces; with both, Newton's method.

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
from glmmnet.exact import orthonormal
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
    """One iteration: estimates, mode of b (Q,) and deviance before the step, the step in standard errors.

    The deviance is -2 log-likelihood, or the REML criterion for an orthonormal X.
    """

    params: Parameters
    b: np.ndarray
    deviance: float
    change: float


@dataclass(frozen=True)
class _Point:
    factor: Factor
    beta: np.ndarray
    b: np.ndarray
    pull: np.ndarray
    cross: np.ndarray
    rss: float
    deviance: float


def can_score(joint: JointModel) -> bool:
    """Whether every variance is a component of its own: one column a term, or independent columns."""
    return joint.family.quadratic and not joint.related and all(t.r == 1 or t.structure == "diag" for t in joint.terms)


class VarianceScoring:
    """Scores (log sd of every component, log residual sd) of a Gaussian model.

    Parameters
    ----------
    joint : JointModel
        See :func:`can_score`; its precision must have a factor.
    f : Tensor, (n, 1), optional
        Network output, held fixed.
    reml : bool
        Beta is integrated out; the expected information stays that of maximum likelihood, from which it hardly differs.
    """

    def __init__(self, joint: JointModel, f: Tensor | None, *, reml: bool = False) -> None:
        self._joint, self._reml = joint, reml
        self._to_basis = orthonormal(joint.row_weights.sqrt()[:, None] * joint.X)[1].numpy()
        w = joint.row_weights.numpy()
        y = (joint.target.y - joint.offset)[:, 0, 0].numpy()
        self._y = y if f is None else y - f[:, 0].numpy()
        self._w, self._total, self._x = w, float(joint.weights.sum()), joint.X.numpy()
        self._log_divisor = 0.0 if joint.divisor is None else float(joint.weights @ torch.log(joint.divisor[:, 0]))
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
            score, expected = self._score(psi, point)
            active = psi > psi[-1] + math.log(_BOUNDARY)
            block = np.ix_(active, active)
            observed = 2 * self._average_information(psi, point, score)[block] - expected[block]
            step = np.zeros_like(psi)
            step[active] = _step(observed, expected[block], score[active])
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
                # Steps of less than a standard error may rise by what the probes' noise makes of them.
                if fresh.deviance < point.deviance + min(change, 1.0) ** 2 + 1e-6:
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
        log_det = factor.logdet - float(np.log(prior).sum()) - self._log_divisor
        deviance = log_det + self._total * math.log(2 * math.pi * phi) + quadratic
        cross = self._to_basis.T @ cross[:-1, :-1] @ self._to_basis
        if self._reml:
            deviance += float(np.linalg.slogdet(cross)[1]) - len(cross) * math.log(2 * math.pi)
        return _Point(factor, beta, b, solved[:, :-1] @ self._to_basis, cross, rss, deviance)

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
        if self._reml:
            score += self._beta_share(psi, point)
        information = np.empty((count + 1, count + 1))
        information[:-1, :-1] = 2 * (squares + np.diag(sizes - 2 * traces))
        information[:-1, -1] = information[-1, :-1] = 2 * (traces - squares.sum(axis=0))
        information[-1, -1] = 2 * (self._total - sizes.sum() + squares.sum())
        return score, information

    def _beta_share(self, psi: np.ndarray, point: _Point) -> np.ndarray:
        """What integrating beta out adds to the score: minus half the slopes of log|X'V^-1 X|, X orthonormal."""
        covariance = np.linalg.inv(point.cross)
        # V^-1 X is (X - Z A) / phi and Z_k'V^-1 X is A_k / sd_k^2, A the solution of the mixed model equations for X.
        by_effect = np.einsum("qk,kl,ql->q", point.pull, covariance, point.pull) * np.exp(-2 * psi[:-1])[self._owner]
        left = self._x @ self._to_basis - self._joint.z_matrix @ point.pull
        residual = np.einsum("nk,kl,nl,n->", left, covariance, left, self._w, optimize=True) * math.exp(-2 * psi[-1])
        return np.append(np.bincount(self._owner, by_effect, len(self._components)), residual)

    def _average_information(self, psi: np.ndarray, point: _Point, score: np.ndarray) -> np.ndarray:
        """Mean of observed and expected information of psi."""
        phi, count = math.exp(2 * psi[-1]), len(self._components)
        # Working variates Z_k b_k and y - X beta - Z b, and the columns of X: their products in terms of Z'WZ alone.
        own = np.zeros((len(self._owner), count))
        own[np.arange(len(self._owner)), self._owner] = point.b
        with_own = self._zz @ own
        left = self._zr[:, -1] - self._zr[:, :-1] @ point.beta - with_own.sum(axis=1)
        to_x = self._rr[:-1, -1] - self._rr[:-1, :-1] @ point.beta - self._zr[:, :-1].T @ point.b
        pulled = np.column_stack([with_own, left, self._zr[:, :-1]])
        inner = np.zeros((pulled.shape[1],) * 2)
        inner[:count] = own.T @ pulled
        inner[:, :count] = inner[:count].T
        inner[count, count:] = inner[count:, count] = np.append(point.rss, to_x)
        inner[count + 1 :, count + 1 :] = self._rr[:-1, :-1]
        inner = inner / phi - pulled.T @ point.factor.solve(pulled) / phi**2
        of_psi, of_x = slice(count + 1), slice(count + 1, None)
        explained = inner[of_psi, of_x] @ np.linalg.lstsq(inner[of_x, of_x], inner[of_x, of_psi], rcond=None)[0]
        information: np.ndarray = 2 * (inner[of_psi, of_psi] - explained) - np.diag(score)
        return information


def _step(observed: np.ndarray, expected: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Newton's step where the likelihood is concave, else that of Fisher scoring."""
    scale = np.sqrt(np.maximum(np.diag(expected), 1e-12))
    concave = float(np.linalg.eigvalsh(observed / np.outer(scale, scale)).min()) > _LEAST_INFORMATION
    return _solve_steadily(observed if concave else expected, score)


def _solve_steadily(information: np.ndarray, score: np.ndarray) -> np.ndarray:
    """information^-1 score, directions in which the probes' noise hides the information kept short."""
    scale = np.sqrt(np.maximum(np.diag(information), 1e-12))
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    steady = np.maximum(values, _LEAST_INFORMATION)
    step: np.ndarray = (vectors @ ((vectors.T @ (score / scale)) / steady)) / scale
    return step
