"""Exact marginal likelihood of a Gaussian model given f, profiled over beta and the residual variance as in lme4.

With Sigma_k = phi Lambda_k Lambda_k': -2 llf = log|Lambda'Z'WZ Lambda + I| + N log(2 pi phi) + pwrss / phi, where
pwrss is the penalised weighted residual sum of squares at the best beta and b. REML integrates beta out as well:
N becomes N - p, and log|X'(V / phi)^-1 X| joins, in the units of X as lme4 prints it.

References
----------
Bates, Maechler, Bolker, Walker (2015), J. Stat. Softw. 67(1), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.optimize
import scipy.sparse as sp
import torch
from torch import Tensor

from glmmnet.cholesky import BlockedCholesky, Factor, Segment, dense_rows, dense_size, factorize
from glmmnet.fixed_part import FixedColumns
from glmmnet.joint import JointModel, Parameters

#: Columns of X whose singular value is below this share of the largest are linear combinations of the others.
_RANK = 1e-10
#: A start is enlarged where that lowers the deviance by so much.
_MUCH_BETTER = 10.0
#: Standard deviations of random effects start no lower than at this multiple of the residual's.
_SMALLEST_START = 0.05
#: Residual sums of squares below this share of the response's are rounding.
_ROUNDING = 1e-14
#: A variance is 0 where that costs less than so much deviance.
_AS_GOOD = 1e-9


@dataclass(frozen=True)
class Profile:
    """The likelihood at given variance parameters, with the best beta.

    Attributes
    ----------
    deviance : float
        -2 log-likelihood, or the REML criterion.
    beta : ndarray, (p,)
    phi : float
    """

    deviance: float
    beta: np.ndarray
    phi: float


@dataclass(frozen=True)
class _Layout:
    """What each entry of theta belongs to, arrays (len(theta),).

    Attributes
    ----------
    row : ndarray of int
        Number of the standard deviation that it is part of, counted over the terms; an angle has a number of its own.
    pivot : ndarray of bool
        See :class:`glmmnet.covariances.FactorEntries`.
    angle : ndarray of bool
        It shapes correlations alone.
    size : ndarray
        Root mean square of its column of z.
    levels : ndarray of int
        Levels of its term.
    """

    row: np.ndarray
    pivot: np.ndarray
    angle: np.ndarray
    size: np.ndarray
    levels: np.ndarray


class GaussianLikelihood:
    """-2 log-likelihood of a Gaussian model as a function of its variance parameters.

    Parameters
    ----------
    joint : JointModel
        Family gaussian, identity link.
    f : Tensor, (n, 1), optional
        Network output, held fixed.
    reml : bool
        Beta is integrated out.
    """

    def __init__(self, joint: JointModel, f: Tensor | None = None, *, reml: bool = False) -> None:
        self._joint, self._reml = joint, reml
        self._entries = [t.covariance.factor_entries(t.r) for t in joint.terms]
        y = (joint.target.y - joint.offset)[:, 0]
        if f is not None:
            y = y - f
        root = joint.row_weights.sqrt()[:, None]
        # Columns of X become orthonormal, and what they explain of y is taken out: sums of squares lose no digits.
        basis, self._to_beta = orthonormal(root * joint.X)
        first = basis.T @ (root * y)
        self._total = float(joint.weights.sum()) - (basis.shape[1] if reml else 0)
        self._volume = log_volume(basis, root * joint.X) if reml else 0.0
        # Log determinant of the residual covariance, but for phi.
        self._log_det = 0.0 if joint.divisor is None else -float(joint.weights @ torch.log(joint.divisor[:, 0]))
        self._start = (self._to_beta @ first)[:, 0].numpy()
        right = torch.cat([basis, root * y - basis @ first], dim=1)
        self._xy = (right.T @ right).numpy()
        if joint.terms:
            self._factorize: Callable[[sp.csr_matrix, tuple[Segment, ...]], Factor] = (
                factorize if _has_sparse_relation(joint) else BlockedCholesky
            )
            turn, self._prior, log_det = _independent(joint)
            self._log_det += log_det
            z = (joint.z_matrix.multiply(root.numpy()) @ turn).tocsr()
            self._zz = (z.T @ z).tocsr()
            self._zxy = np.asarray(z.T @ right.numpy())

    @property
    def n_parameters(self) -> int:
        """Length of theta: the numbers behind every Lambda_k."""
        return sum(len(e.column) for e in self._entries)

    def theta(self, params: Parameters) -> np.ndarray:
        """The numbers behind Lambda_k = chol(Sigma_k / phi), term by term."""
        sigmas = zip(self._joint.terms, params.sigma, strict=True)
        parts = [term.covariance.theta(sigma[0].numpy() / params.phi) for term, sigma in sigmas]
        return np.concatenate(parts) if parts else np.zeros(0)

    def profile(self, theta: np.ndarray, phi: float | None = None) -> Profile:
        """Deviance at theta, with the best beta, and the best phi unless one is given."""
        cross, log_det = self._xy, self._log_det
        if self._joint.terms:
            scale = self._scale(theta)
            system = (scale.T @ self._zz @ scale + self._prior).tocsr()
            factor = self._factorize(system, self._joint.segments)
            cross, log_det = self._xy - factor.quadratic(scale.T @ self._zxy), self._log_det + factor.logdet
        best = np.linalg.lstsq(cross[:-1, :-1], cross[:-1, -1], rcond=None)[0]
        # Beside no residual at all what is left is rounding, of either sign: no slope for a search to follow.
        rss = max(float(cross[-1, -1] - cross[:-1, -1] @ best), _ROUNDING * self._xy[-1, -1], 1e-300)
        phi = rss / self._total if phi is None else phi
        beta = self._start + (self._to_beta @ torch.from_numpy(best)).numpy()
        if self._reml:
            log_det += float(np.linalg.slogdet(cross[:-1, :-1])[1]) + 2 * self._volume
        return Profile(log_det + self._total * math.log(2 * math.pi * phi) + rss / phi, beta, phi)

    def parameters(self, theta: np.ndarray, profile: Profile) -> Parameters:
        """Estimates in the units of the response."""
        sigma = [torch.as_tensor(profile.phi * factor @ factor.T)[None] for factor in self._factors(theta)]
        return Parameters(torch.as_tensor(profile.beta)[:, None], tuple(sigma), profile.phi)

    def maximise(self, start: Parameters, *, near: bool = False) -> Parameters:
        """Maximum-likelihood or REML estimates by a quasi-Newton search over theta.

        With a start that is `near` the maximum its first steps are of the size of a standard error.

        Theta is unbounded: the deviance does not change with the sign of a column of Lambda, so its slope at 0 is 0,
        where a bound would hold the search. A variance or a diagonal entry that is no use is then set to exactly 0.
        """
        theta = self.theta(start)
        if not len(theta):
            return self.parameters(theta, self.profile(theta))
        layout = self._layout
        theta = np.where(layout.pivot, np.maximum(theta, _SMALLEST_START / layout.size), theta)
        theta = self._larger_start(theta)
        sd = np.sqrt(np.bincount(layout.row, theta**2))[layout.row]
        sd = np.where(layout.angle, 1.0, sd)
        # Otherwise between the entry's size and its standard error: the start may be far from the maximum.
        unit = sd / (2 * layout.levels) ** (0.5 if near else 0.25)
        best = self._without_useless(self._search(theta, unit), unit)
        for entry in np.flatnonzero(layout.pivot & (best == 0)):
            # A search may also end where the slope is 0 by symmetry alone.
            moved = best.copy()
            moved[entry] = 0.3 * unit[entry]
            if self._deviance(moved) < self._deviance(best):
                best = self._without_useless(self._search(moved, unit), unit)
        return self.parameters(best, self.profile(best))

    def _larger_start(self, theta: np.ndarray) -> np.ndarray:
        """Theta times 4 while that is better: beside little noise variances are many times the residual's."""
        best, factor = self._deviance(theta), np.where(self._layout.angle, 1.0, 4.0)
        while (larger := self._deviance(factor * theta)) < best - _MUCH_BETTER:
            theta, best = factor * theta, larger
        return theta

    @cached_property
    def _layout(self) -> _Layout:
        column = np.concatenate([e.column for e in self._entries])
        term = np.repeat(np.arange(len(self._entries)), [len(e.column) for e in self._entries])
        own = np.where(column < 0, -1 - np.arange(len(column)), column)
        _, row = np.unique(np.column_stack([term, own]), axis=0, return_inverse=True)
        sizes = [t.columns().square().mean(dim=0).sqrt().clamp_min(1e-150).numpy() for t in self._joint.terms]
        return _Layout(
            row=row.reshape(-1),
            pivot=np.concatenate([e.pivot for e in self._entries]),
            angle=column < 0,
            size=np.array([sizes[k][max(i, 0)] for k, i in zip(term, column, strict=True)]),
            levels=np.array([t.q for t in self._joint.terms])[term],
        )

    def _deviance(self, theta: np.ndarray) -> float:
        return self.profile(theta).deviance

    def _rounding(self, deviance: float) -> float:
        """Size of the rounding error of a deviance."""
        return 1e-15 * max(abs(deviance), self._total)

    def _search(self, theta: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """Unbounded search from theta, in steps of `unit`."""
        base = self._deviance(theta)
        noise = self._rounding(base)
        result = scipy.optimize.minimize(
            lambda t: self._deviance(t * unit) - base,
            theta / unit,
            method="L-BFGS-B",
            # Rounding and curvature err alike in differences of this step.
            options={"ftol": noise, "gtol": 1e-6, "eps": 2 * math.sqrt(noise), "maxfun": 5000},
        )
        return np.asarray(result.x * unit)

    def _without_useless(self, theta: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """Theta with variances of 0, then correlations on their boundary, where that is as good."""
        layout = self._layout
        deviance = self._deviance(theta)
        allowed = deviance + _AS_GOOD + 10 * self._rounding(deviance)
        # An angle's boundary is the odd multiple of pi / 2 next to it.
        boundary = np.where(layout.angle, math.pi * (np.floor(theta / math.pi) + 0.5), 0.0)
        rows = [layout.row == row for row in np.unique(layout.row[~layout.angle])]
        entries = [np.arange(len(theta)) == entry for entry in np.flatnonzero(layout.pivot | layout.angle)]
        for group in (*rows, *entries):
            away = np.abs(theta - boundary)[group]
            if np.all(away < unit[group]) and np.any(away != 0):
                candidate = np.where(group, boundary, theta)
                if self._deviance(candidate) <= allowed:
                    theta = candidate
        return theta

    def _scale(self, theta: np.ndarray) -> sp.csr_matrix:
        factors = zip(self._joint.terms, self._factors(theta), strict=True)
        return sp.block_diag([sp.kron(sp.eye(term.q), factor) for term, factor in factors], format="csr")

    def _factors(self, theta: np.ndarray) -> list[np.ndarray]:
        """Lambda_k of every term."""
        parts = np.split(theta, np.cumsum([len(e.column) for e in self._entries]))[:-1]
        return [term.covariance.factor(part, term.r) for term, part in zip(self._joint.terms, parts, strict=True)]


def _has_sparse_relation(joint: JointModel) -> bool:
    return any(t.relation is not None and t.relation.sparse for t in joint.terms)


def exact_rows(joint: JointModel) -> int:
    """Rows of the dense matrix that each evaluation of the exact likelihood factors; 0 where a sparse relation does."""
    return dense_rows(joint.pattern(), joint.segments) if _has_sparse_relation(joint) else dense_size(joint.segments)


def _independent(joint: JointModel) -> tuple[sp.csr_matrix, sp.csr_matrix, float]:
    """T and P (Q, Q) with b = T v, v of prior precision P in units of Sigma, and the log determinant of P^-1.

    Independent levels, P = 1, by a root of their correlation; where the inverse of that is sparse T = 1, P the inverse.
    """
    roots, priors, log_det = [], [], 0.0
    for term in joint.terms:
        root = prior = sp.eye(term.q)
        if term.relation is not None and term.relation.sparse:
            prior = term.relation.precision
            log_det += term.r * term.relation.logdet
        elif term.relation is not None:
            root = sp.csr_matrix(term.relation.root.numpy())
        roots.append(sp.kron(root, sp.eye(term.r)))
        priors.append(sp.kron(prior, sp.eye(term.r)))
    return sp.block_diag(roots, format="csr"), sp.block_diag(priors, format="csr"), log_det


def orthonormal(x: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal basis (n, k) of the columns of x, and T (p, k) with x T = basis.

    X'X would square the condition of columns far from 0, such as years.
    """
    norms = torch.linalg.vector_norm(x, dim=0).clamp_min(1e-300)
    u, s, v = torch.linalg.svd(x / norms, full_matrices=False)
    kept = s > _RANK * s.max() if len(s) else s > 0
    return u[:, kept], v[kept].T / s[kept] / norms[:, None]


def log_volume(basis: Tensor, x: Tensor) -> float:
    """Log of the volume that the columns of x (n, p) span, (log det x'x) / 2, less those that depend on others.

    Parameters
    ----------
    basis : Tensor, (n, k)
        Orthonormal, of the span of x.
    """
    total, directions = 0.0, torch.zeros(basis.shape[1], 0, dtype=x.dtype)
    for column in (basis.T @ x).T:
        left = column - directions @ (directions.T @ column)
        # Once more, for what rounding has left.
        left = left - directions @ (directions.T @ left)
        if float(left.norm()) > _RANK * float(column.norm()):
            total += float(torch.log(left.norm()))
            directions = torch.cat([directions, (left / left.norm())[:, None]], dim=1)
    return total


def orthonormal_columns(columns: FixedColumns) -> tuple[FixedColumns, Tensor, Tensor]:
    """Orthonormal basis of the columns that load alike, T with columns T = basis, and U with basis U = columns."""
    bases, there, back, loading = [], [], [], []
    p = columns.values.shape[1]
    for group in columns.groups():
        x = columns.values[:, group]
        basis, to_columns = orthonormal(x)
        spread = torch.zeros(p, basis.shape[1], dtype=x.dtype)
        spread[group] = to_columns
        gathered = torch.zeros(basis.shape[1], p, dtype=x.dtype)
        gathered[:, group] = basis.T @ x
        bases.append(basis)
        there.append(spread)
        back.append(gathered)
        if columns.loading is not None:
            loading.append(columns.loading[group[:1]].expand(basis.shape[1], -1))
    whole = None if columns.loading is None else torch.cat(loading)
    return FixedColumns(torch.cat(bases, dim=1), whole), torch.cat(there, dim=1), torch.cat(back)
