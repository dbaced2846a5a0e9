"""Exact marginal likelihood of a Gaussian model given f, profiled over beta and the residual variance as in lme4.

With Sigma_k = phi Lambda_k Lambda_k': -2 llf = log|Lambda'Z'WZ Lambda + I| + N log(2 pi phi) + pwrss / phi, where pwrss is
the penalised weighted residual sum of squares at the best beta and b.

References
----------
Bates, Maechler, Bolker, Walker (2015), J. Stat. Softw. 67(1), section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.sparse as sp
import torch
from torch import Tensor

from glmmnet.cholesky import BlockedCholesky
from glmmnet.joint import JointModel, Parameters


@dataclass(frozen=True)
class Profile:
    """The likelihood at given variance parameters, with the best beta.

    Attributes
    ----------
    deviance : float
        -2 log-likelihood.
    beta : ndarray, (p,)
    phi : float
    """

    deviance: float
    beta: np.ndarray
    phi: float


class GaussianLikelihood:
    """-2 log-likelihood of a Gaussian model as a function of its variance parameters.

    Parameters
    ----------
    joint : JointModel
        Family gaussian, identity link.
    f : Tensor, (n, 1), optional
        Network output, held fixed.
    """

    def __init__(self, joint: JointModel, f: Tensor | None = None) -> None:
        self._joint = joint
        self._entries = [t.covariance.factor_entries(t.r).numpy() for t in joint.terms]
        w = joint.weights.numpy()
        y = (joint.target.y - joint.offset)[:, 0, 0].numpy()
        if f is not None:
            y = y - f[:, 0].numpy()
        x = joint.X.numpy()
        # What least squares explains is taken out first: sums of squares of the rest lose no digits.
        self._start = np.linalg.lstsq(x.T @ (w[:, None] * x), x.T @ (w * y), rcond=None)[0]
        right = np.column_stack([x, y - x @ self._start])
        self._total = float(w.sum())
        self._xy = right.T @ (w[:, None] * right)
        if joint.terms:
            z = joint.z_matrix
            self._zz = (z.T @ z.multiply(w[:, None])).tocsr()
            self._zxy = np.asarray(z.T @ (w[:, None] * right))

    @property
    def n_parameters(self) -> int:
        """Length of theta: the free entries of every Lambda_k."""
        return sum(len(e) for e in self._entries)

    def theta(self, params: Parameters) -> np.ndarray:
        """Entries of Lambda_k = chol(Sigma_k / phi), term by term."""
        parts = []
        for sigma, entries in zip(params.sigma, self._entries, strict=True):
            scaled = sigma[0] / params.phi + 1e-14 * torch.eye(sigma.shape[1], dtype=torch.float64)
            parts.append(torch.linalg.cholesky(scaled).numpy()[entries[:, 0], entries[:, 1]])
        return np.concatenate(parts) if parts else np.zeros(0)

    def bounds(self) -> list[tuple[float | None, float | None]]:
        """Diagonal entries of Lambda are not negative."""
        pairs = np.concatenate(self._entries) if self._entries else np.zeros((0, 2), dtype=int)
        return [(0.0 if i == j else None, None) for i, j in pairs]

    def profile(self, theta: np.ndarray, phi: float | None = None) -> Profile:
        """Deviance at theta, with the best beta, and the best phi unless one is given."""
        cross, log_det = self._xy, 0.0
        if self._joint.terms:
            scale = self._scale(theta)
            system = (scale.T @ self._zz @ scale + sp.eye(self._zz.shape[0])).tocsr()
            factor = BlockedCholesky(system, self._joint.segments)
            half = factor.forward(scale.T @ self._zxy)
            cross, log_det = self._xy - half.T @ half, factor.logdet
        beta = np.linalg.lstsq(cross[:-1, :-1], cross[:-1, -1], rcond=None)[0]
        rss = float(cross[-1, -1] - cross[:-1, -1] @ beta)
        phi = max(rss, 1e-300) / self._total if phi is None else phi
        return Profile(log_det + self._total * math.log(2 * math.pi * phi) + rss / phi, self._start + beta, phi)

    def parameters(self, theta: np.ndarray, profile: Profile) -> Parameters:
        """Estimates in the units of the response."""
        sigma, at = [], 0
        for term, entries in zip(self._joint.terms, self._entries, strict=True):
            factor = np.zeros((term.r, term.r))
            factor[entries[:, 0], entries[:, 1]] = theta[at : at + len(entries)]
            at += len(entries)
            sigma.append(torch.as_tensor(profile.phi * factor @ factor.T)[None])
        return Parameters(torch.as_tensor(profile.beta)[:, None], tuple(sigma), profile.phi)

    def maximise(self, start: Parameters) -> Parameters:
        """Maximum-likelihood estimates by a bounded quasi-Newton search over theta."""
        theta = self.theta(start)
        if not len(theta):
            return self.parameters(theta, self.profile(theta))
        base = self.profile(theta).deviance
        # In these units the curvature is about 1, so the search takes few steps.
        unit = self._units(theta)
        result = scipy.optimize.minimize(
            lambda t: self.profile(t * unit).deviance - base,
            theta / unit,
            method="L-BFGS-B",
            bounds=self.bounds(),
            options={"ftol": 1e-8, "gtol": 1e-3, "eps": 1e-4, "maxfun": 2000},
        )
        theta = result.x * unit
        return self.parameters(theta, self.profile(theta))

    def _units(self, theta: np.ndarray) -> np.ndarray:
        """Rough standard errors of theta: the size of its term over sqrt(2 q)."""
        parts, at = [], 0
        for term, entries in zip(self._joint.terms, self._entries, strict=True):
            own = np.abs(theta[at : at + len(entries)])
            parts.append(np.full(len(entries), max(own.max(), 1e-3) / np.sqrt(2 * term.q)))
            at += len(entries)
        return np.concatenate(parts)

    def _scale(self, theta: np.ndarray) -> sp.csr_matrix:
        blocks, at = [], 0
        for term, entries in zip(self._joint.terms, self._entries, strict=True):
            factor = np.zeros((term.r, term.r))
            factor[entries[:, 0], entries[:, 1]] = theta[at : at + len(entries)]
            at += len(entries)
            blocks.append(sp.kron(sp.eye(term.q), factor))
        return sp.block_diag(blocks, format="csr")
