"""Score and observed information of the likelihood where b cannot be integrated out level by level.

By Fisher's identity the score is the posterior mean of the complete data's score. With the Gaussian nearest to the
posterior (variational: E[d log p(y, b)/db] = 0, precision -E[d2 log p(y, b)/db2]) in its place it is nearly right, and
its differences, made with the same random numbers, are minus the observed information about fixed effects and variances
together. Draws from the posterior itself give the score without bias; what is linear or quadratic in b is taken out of
their noise by Stein's identity.

References
----------
Ormerod and Wand (2012), Gaussian variational approximate inference for generalized linear mixed models, J. Comput.
Graph. Stat. 21(1), 2-17. Mira, Solgi and Imparato (2013), Zero variance Markov chain Monte Carlo for Bayesian
estimators, Stat. Comput. 23(5), 653-662.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from glmmnet.cholesky import Factor, factorize
from glmmnet.exact import orthonormal_columns
from glmmnet.joint import JointModel, Parameters
from glmmnet.laplace import GaussianPosterior, damped, find_mode, has_factor
from glmmnet.variance import VarianceParameter, derivative, shifted

#: Rows x predictors x parameters beyond which the differences take too long; most parameters; most effects.
_MOST_WORK, _MOST_PARAMETERS, _MOST_EFFECTS = 1_000_000, 100, 5000
#: Rows x predictors x draws of an expectation, and draws at least and at most.
_ENTRIES, _FEWEST, _MOST = 400_000, 20, 1000
#: Seed of these draws: the same for all parameters, so that differences are smooth.
_SEED = 20261122
#: Half a difference: of log standard deviations and Fisher z, and of the fixed part of eta (root mean square).
_STEP = 0.02
#: Newton steps towards the nearest Gaussian at most, and the step of an effect, in units of eta, that ends them.
_ITERATIONS, _STILL = 30, 1e-5
#: Columns of an inverse that are solved for together.
_COLUMNS_AT_ONCE = 500


def has_observed(joint: JointModel) -> bool:
    """Whether the precision of b can be factored and the differences are affordable."""
    if joint.family.quadratic or not joint.terms or joint.n_effects * joint.n_classes > _MOST_EFFECTS:
        return False
    parameters = n_parameters(joint)
    work = joint.n * joint.n_predictors * parameters
    return parameters <= _MOST_PARAMETERS and work <= _MOST_WORK and has_factor(joint)


def n_parameters(joint: JointModel) -> int:
    """Coefficients, variance parameters and dispersion."""
    of_terms = sum(joint.n_classes * term.covariance.n_parameters(term.r) for term in joint.terms)
    return joint.n_coefficients * joint.X.shape[1] + of_terms + int(joint.family.has_dispersion)


@dataclass(frozen=True)
class Approximation:
    """The Gaussian nearest to the posterior of b at some parameters.

    Attributes
    ----------
    params : Parameters
    posterior : GaussianPosterior
    weight : Tensor, (n, C, C)
        Mean information of each row about eta.
    score : Tensor, (k,)
        Mean score of the complete data: coefficients of :attr:`ObservedScore.basis`, then the active variance
        parameters.
    """

    params: Parameters
    posterior: GaussianPosterior
    weight: Tensor
    score: Tensor


class ObservedScore:
    """Score and information about the fixed effects, in an orthonormal basis of X's columns, and active variances.

    Parameters
    ----------
    joint : JointModel
        See :func:`has_observed`.
    f : Tensor, (n, C), optional
        Network output, held fixed.
    active : tuple of VarianceParameter
        See :func:`glmmnet.variance.active_parameters`.
    """

    def __init__(self, joint: JointModel, f: Tensor | None, active: tuple[VarianceParameter, ...]) -> None:
        self._joint, self._f, self.active = joint, f, active
        self.basis, self._to_beta, _ = orthonormal_columns(joint.columns)
        #: coefficients of the basis
        self.size = self.basis.values.shape[1] * joint.n_coefficients
        entries = joint.n * joint.n_predictors
        self._draws = min(max(_ENTRIES // entries, _FEWEST), _MOST)

    def complete(self, params: Parameters, b: Tensor) -> Tensor:
        """The complete data's score for each draw of b (Q, C, S): (k, S)."""
        return self._complete(params, b, self._quadratics(params))

    def _complete(self, params: Parameters, b: Tensor, quadratics: list[_Quadratic | None]) -> Tensor:
        joint = self._joint
        eta = joint.fixed_eta(params, self._f) + joint.random_eta(b)
        _, score = joint.log_likelihood_and_score(eta, params.phi)
        parts = [self.basis.transpose(score)]
        for quadratic in quadratics:
            if quadratic is None:
                # On the scale of log phi^(1/2).
                parts.append(2.0 * joint.dispersion_derivatives(eta, params.phi)[0].sum(dim=0, keepdim=True))
            else:
                parts.append(0.5 * (quadratic(b, b) - quadratic.mean)[None])
        return self._identified @ torch.cat(parts)

    def steadied(self, here: Approximation, b: Tensor) -> Tensor:
        """The complete data's score for draws of b (Q, C, S) from the posterior: the same mean, hardly any noise.

        For every field v(b), E[div v + v' d log p(y, b)/db] = 0; v is chosen so that nothing is left of the score if
        the posterior is the Gaussian of `here`.
        """
        joint, params, quadratics = self._joint, here.params, self._quadratics(here.params)
        factor, mean = here.posterior.factor, here.posterior.mode[:, :, None]
        fixed = joint.fixed_eta(params, self._f)
        _, score = joint.log_likelihood_and_score(fixed + joint.random_eta(b), params.phi)
        gradient = joint.random_transpose(score) - joint.prior(b, joint.precisions(params))[1]
        pulled = torch.as_tensor(factor.solve(gradient.flatten(0, 1).numpy())).reshape(b.shape)
        slopes = joint.random_transpose(self.basis.weighted(here.weight)).flatten(0, 1)
        parts = [-slopes.T @ pulled.flatten(0, 1)]
        traces = iter(_traces(factor, [q.matrix for q in quadratics if q is not None]))
        for quadratic in quadratics:
            if quadratic is None:
                cross = joint.dispersion_derivatives(fixed + joint.random_eta(mean), params.phi)[2]
                parts.append(-2.0 * (joint.random_transpose(cross) * pulled).sum(dim=(0, 1))[None])
            else:
                parts.append(0.5 * (quadratic(b + mean, pulled) + next(traces))[None])
        return self._complete(params, b, quadratics) + self._identified @ torch.cat(parts)

    def at(self, params: Parameters, near: GaussianPosterior | None = None) -> Approximation:
        """The nearest Gaussian, searched from the one `near`."""
        joint = self._joint
        fixed, precisions, prior = (
            joint.fixed_eta(params, self._f),
            joint.precisions(params),
            joint.precision_matrix(params),
        )
        posterior = self._start(params, fixed, prior) if near is None else near
        for _ in range(_ITERATIONS):
            b = self._sample(posterior)
            eta = fixed + joint.random_eta(b)
            _, score = joint.log_likelihood_and_score(eta, params.phi)
            gradient = (joint.random_transpose(score) - joint.prior(b, precisions)[1]).mean(dim=2)
            weight = joint.weight(eta, params.phi).mean(dim=3)
            factor = factorize(joint.information(weight) + prior, joint.segments)
            step = torch.as_tensor(factor.solve(gradient.reshape(-1, 1).numpy())).reshape(gradient.shape)
            posterior = GaussianPosterior(posterior.mode + damped(joint, step), factor)
            if float(step.abs().max()) < _STILL * joint.eta_unit:
                break
        score = self.complete(params, self._sample(posterior)).mean(dim=1)
        return Approximation(params, posterior, weight, score)

    def _start(self, params: Parameters, fixed: Tensor, prior: sp.csr_matrix) -> GaussianPosterior:
        joint = self._joint
        mode = find_mode(joint, fixed, params).mode
        weight = joint.weight(fixed + joint.random_eta(mode[:, :, None]), params.phi)[..., 0]
        return GaussianPosterior(mode, factorize(joint.information(weight) + prior, joint.segments))

    def _sample(self, posterior: GaussianPosterior) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            return posterior.balanced(self._draws)

    def information(self, here: Approximation) -> Tensor:
        """Observed information, (k, k)."""
        columns = []
        for h in self._steps.diag():
            ahead, behind = (self.at(self.moved(here.params, step), here.posterior).score for step in (h, -h))
            columns.append((behind - ahead) / (2.0 * h.sum()))
        information = torch.stack(columns)
        return self._identified @ (0.5 * (information + information.T)) @ self._identified

    def moved(self, params: Parameters, step: Tensor) -> Parameters:
        """`params` moved by a step (k,) in the basis and on the scales of the variance parameters."""
        moved = shifted(self._joint, params, self.active, step[self.size :].numpy())
        return replace(moved, beta=params.beta + self.beta_step(step))

    def beta_step(self, step: Tensor) -> Tensor:
        """Change of beta (p, K)."""
        return self._to_beta @ (self._identified @ step)[: self.size].reshape(-1, self._joint.n_coefficients)

    def _quadratics(self, params: Parameters) -> list[_Quadratic | None]:
        """Of each active variance parameter; None for the dispersion, which is none of b's."""
        joint, precisions = self._joint, self._joint.precisions(params)
        out: list[_Quadratic | None] = []
        for p in self.active:
            if p.term < 0:
                out.append(None)
                continue
            precision, slope = precisions[p.term][p.class_], derivative(joint, params, p)
            matrices = [torch.zeros_like(one) for one in precisions]
            matrices[p.term][p.class_] = precision @ slope @ precision
            mean = joint.terms[p.term].q * float((precision * slope.T).sum())
            out.append(_Quadratic(joint.over_levels(matrices), mean))
        return out

    @cached_property
    def _steps(self) -> Tensor:
        of_beta = torch.full((self.size,), _STEP * self._joint.n**0.5 * self._joint.eta_unit, dtype=torch.float64)
        return torch.cat([of_beta, torch.full((len(self.active),), _STEP, dtype=torch.float64)])

    @cached_property
    def _identified(self) -> Tensor:
        """Projection of all parameters: what symmetric classes share changes no probability."""
        classes = self._joint.n_coefficients
        projection = torch.eye(self.size + len(self.active), dtype=torch.float64)
        if self._joint.family.symmetric:
            centring = torch.eye(classes, dtype=torch.float64) - 1.0 / classes
            own = torch.eye(self.size // classes, dtype=torch.float64)
            projection[: self.size, : self.size] = torch.kron(own, centring)
        return projection


@dataclass(frozen=True)
class _Quadratic:
    """Twice the complete data's score about a variance parameter, as a function of b: b'M b less its mean."""

    matrix: sp.csr_matrix
    mean: float

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        """Left'M right for each draw, (Q, C, S) -> (S,)."""
        product = torch.from_numpy(self.matrix @ right.flatten(0, 1).numpy())
        return (left.flatten(0, 1) * product).sum(dim=0)


def _traces(factor: Factor, matrices: list[sp.csr_matrix]) -> list[float]:
    """tr(H^-1 M) for each symmetric M."""
    traces = [0.0] * len(matrices)
    size = matrices[0].shape[0] if matrices else 0
    for start in range(0, size, _COLUMNS_AT_ONCE):
        own = np.arange(start, min(start + _COLUMNS_AT_ONCE, size))
        columns = np.zeros((size, len(own)))
        columns[own, own - start] = 1.0
        inverse = factor.solve(columns)
        for k, matrix in enumerate(matrices):
            traces[k] += float(matrix[own].multiply(inverse.T).sum())
    return traces
