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

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from glmmnet.cholesky import dense_rows, dense_size, factorize
from glmmnet.gaussian import GaussianPosterior, has_factor
from glmmnet.joint import JointModel, Parameters
from glmmnet.laplace import damped, find_mode
from glmmnet.steps import ParameterSteps, n_parameters
from glmmnet.variance import VarianceParameter, derivative

#: Rows x predictors x parameters beyond which the differences take too long; most parameters; most effects; most
#: parameters x (dense rows of the factor)^3.
_MOST_WORK, _MOST_PARAMETERS, _MOST_EFFECTS, _MOST_DENSE_WORK = 5_000_000, 100, 50_000, 2e10
#: Most effects with a sparse factor, whose inverse takes a solve an effect, with several linear predictors, which take
#: minutes, and beside a network, given which estimates need not be exact; most work of the latter two.
_FEW_EFFECTS, _LITTLE_WORK = 5000, 1_000_000
#: Rows x predictors x pairs of draws of an expectation, pairs at least and at most, and their seed.
_ENTRIES, _FEWEST, _MOST, _SEED = 50_000, 5, 250, 20261122
#: Half a difference: of log standard deviations and Fisher z, and of the fixed part of eta (root mean square).
_STEP = 0.02
#: Newton steps towards the nearest Gaussian at most; the step of an effect, in units of eta, after which its covariance
#: is kept, and the one that ends them: the score about beta is a small sum of large numbers, unless that about b is 0.
_ITERATIONS, _SETTLED, _STILL = 50, 1e-4, 1e-9
#: Share of the new weights in the next ones, once a step is not shorter than the last by the other factor.
_DAMPED, _SHRINKS = 0.5, 0.5


def has_observed(joint: JointModel, *, given_f: bool = False) -> bool:
    """Whether the precision of b can be factored and the differences are affordable; `given_f`: beside a network."""
    if joint.family.quadratic or not joint.terms:
        return False
    effects, parameters = joint.n_effects * joint.n_classes, n_parameters(joint)
    work = joint.n * joint.n_predictors * parameters
    plain = joint.n_predictors == 1 and not given_f
    too_large = effects > (_MOST_EFFECTS if plain else _FEW_EFFECTS)
    too_dear = work > (_MOST_WORK if plain else _LITTLE_WORK) or parameters > _MOST_PARAMETERS
    if too_large or too_dear or not has_factor(joint):
        return False
    rows = dense_size(joint.segments)
    few = parameters * rows**3 <= _MOST_DENSE_WORK
    if few and effects <= _FEW_EFFECTS:
        return True
    dense = dense_rows(joint.pattern(), joint.segments)
    is_sparse = dense == 0 < rows
    return effects <= _FEW_EFFECTS if is_sparse else few


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
        Mean score of the complete data, see :class:`glmmnet.steps.ParameterSteps`.
    """

    params: Parameters
    posterior: GaussianPosterior
    weight: Tensor
    score: Tensor


class ObservedScore:
    """Score and information about all parameters, see :class:`glmmnet.steps.ParameterSteps`.

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
        self._joint, self._f, self._active = joint, f, active
        self._steps = ParameterSteps(joint)
        pairs = min(max(_ENTRIES // (joint.n * joint.n_predictors), _FEWEST), _MOST)
        generator = torch.Generator().manual_seed(_SEED)
        # The same for all parameters, so that differences are smooth.
        shape = (joint.n_effects * joint.n_classes, pairs)
        self._normal = torch.randn(shape, generator=generator, dtype=torch.float64)

    def _complete(self, params: Parameters, b: Tensor, of_sigma: list[Tensor]) -> Tensor:
        """The complete data's score for each draw of b (Q, C, S), (k, S).

        Given those of the variances of b, each (S,) or a number.
        """
        joint = self._joint
        eta = joint.fixed_eta(params, self._f) + joint.random_eta(b)
        _, score = joint.log_likelihood_and_score(eta, params.phi)
        parts = [self._steps.basis.transpose(score), *(one.expand(1, b.shape[2]) for one in of_sigma)]
        if self._has_dispersion:
            # On the scale of log phi^(1/2).
            parts.append(2.0 * joint.dispersion_derivatives(eta, params.phi)[0].sum(dim=0, keepdim=True))
        return self._identified @ torch.cat(parts)

    def steadied(self, here: Approximation) -> Callable[[Tensor], Tensor]:
        """The complete data's score as a function of draws b (Q, C, S) from the posterior: same mean, hardly any noise.

        For every field v(b), E[div v + v' d log p(y, b)/db] = 0; v is chosen so that nothing is left of the score if
        the posterior is the Gaussian of `here`.
        """
        joint, params, quadratics = self._joint, here.params, self._quadratics(here.params)
        factor, mean = here.posterior.factor, here.posterior.mode[:, :, None]
        fixed, precisions = joint.fixed_eta(params, self._f), joint.precisions(params)
        slopes = joint.random_transpose(self._steps.basis.weighted(here.weight)).flatten(0, 1)
        traces = _traces(here.posterior, quadratics)
        cross = torch.zeros_like(mean)
        if self._has_dispersion:
            of_rows = joint.dispersion_derivatives(fixed + joint.random_eta(mean), params.phi)[2]
            cross = joint.random_transpose(of_rows)

        def score(b: Tensor) -> Tensor:
            _, of_eta = joint.log_likelihood_and_score(fixed + joint.random_eta(b), params.phi)
            gradient = joint.random_transpose(of_eta) - joint.prior(b, precisions)[1]
            pulled = torch.as_tensor(factor.solve(gradient.flatten(0, 1).numpy())).reshape(b.shape)
            of_sigma = [
                0.5 * (q(b, b) - q.mean + q(b + mean, pulled) + trace)
                for q, trace in zip(quadratics, traces, strict=True)
            ]
            taken = [slopes.T @ pulled.flatten(0, 1), torch.zeros(len(quadratics), b.shape[2], dtype=torch.float64)]
            if self._has_dispersion:
                taken.append(2.0 * (cross * pulled).sum(dim=(0, 1))[None])
            return self._complete(params, b, of_sigma) - self._identified @ torch.cat(taken)

        return score

    def at(self, params: Parameters, near: GaussianPosterior | None = None) -> Approximation:
        """The nearest Gaussian, searched from the one `near`."""
        joint = self._joint
        fixed, precisions, prior = (
            joint.fixed_eta(params, self._f),
            joint.precisions(params),
            joint.precision_matrix(params),
        )
        posterior = self._start(params, fixed, prior) if near is None else near
        reach = torch.cat([term.size.repeat(term.q) for term in joint.terms])[:, None] / joint.eta_unit
        length, gain, weight = float("inf"), 1.0, torch.zeros(1, dtype=torch.float64)
        for _ in range(_ITERATIONS):
            b = posterior.balanced(self._normal)
            eta = fixed + joint.random_eta(b)
            _, score = joint.log_likelihood_and_score(eta, params.phi)
            gradient = (joint.random_transpose(score) - joint.prior(b, precisions)[1]).mean(dim=2)
            factor = posterior.factor
            if length > _SETTLED:
                weight = torch.lerp(weight, _mean_curvature(joint, eta, params.phi), gain)
                factor = factorize(joint.information(weight) + prior, joint.segments)
            step = torch.as_tensor(factor.solve(gradient.reshape(-1, 1).numpy())).reshape(gradient.shape)
            posterior = GaussianPosterior(posterior.mode + damped(joint, step), factor, joint.segments)
            last, length = length, float((reach * step).abs().max())
            if length < _STILL:
                break
            # The rarer the counts the more of a wider Gaussian's weight makes it narrower than it should be.
            gain = _DAMPED if length > _SHRINKS * last else gain
        quadratics, mean, b = self._quadratics(params), posterior.mode[:, :, None], posterior.balanced(self._normal)
        # By the exact trace: draws would leave too much noise in the information about the variances.
        traces = _traces(posterior, quadratics)
        of_sigma = [0.5 * (q(mean, mean) + trace - q.mean) for q, trace in zip(quadratics, traces, strict=True)]
        return Approximation(params, posterior, weight, self._complete(params, b, of_sigma).mean(dim=1))

    def _start(self, params: Parameters, fixed: Tensor, prior: sp.csr_matrix) -> GaussianPosterior:
        joint = self._joint
        mode = find_mode(joint, fixed, params).mode
        weight = joint.weight(fixed + joint.random_eta(mode[:, :, None]), params.phi)[..., 0]
        return GaussianPosterior(mode, factorize(joint.information(weight) + prior, joint.segments), joint.segments)

    def information(self, here: Approximation) -> Tensor:
        """Observed information, (k, k)."""
        columns = []
        for h in self._differences.diag():
            ahead, behind = (self._steps.moved(here.params, self._active, step) for step in (h, -h))
            slope = self.at(behind, here.posterior).score - self.at(ahead, here.posterior).score
            columns.append(slope / (2.0 * h.sum()))
        information = torch.stack(columns)
        return self._identified @ (0.5 * (information + information.T)) @ self._identified

    @property
    def _has_dispersion(self) -> bool:
        return any(p.term < 0 for p in self._active)

    def _quadratics(self, params: Parameters) -> list[_Quadratic]:
        """Of each active variance parameter of b."""
        joint, precisions = self._joint, self._joint.precisions(params)
        out = []
        for p in self._active:
            if p.term < 0:
                continue
            term, precision, slope = joint.terms[p.term], precisions[p.term][p.class_], derivative(joint, params, p)
            matrices = [torch.zeros_like(one) for one in precisions]
            matrices[p.term][p.class_] = precision @ slope @ precision
            mean = term.q * float((precision * slope.T).sum())
            out.append(_Quadratic(joint.over_levels(matrices), p.term, mean))
        return out

    @cached_property
    def _differences(self) -> Tensor:
        """Half the difference of each parameter, (k,)."""
        of_beta = torch.full((self._steps.size,), _STEP * self._joint.n**0.5 * self._joint.eta_unit)
        return torch.cat([of_beta, torch.full((len(self._active),), _STEP)]).to(torch.float64)

    @cached_property
    def _identified(self) -> Tensor:
        """Projection of all parameters: what symmetric classes share changes no probability."""
        classes = self._joint.n_coefficients
        projection = torch.eye(self._steps.size + len(self._active), dtype=torch.float64)
        if self._joint.family.symmetric:
            centring = torch.eye(classes, dtype=torch.float64) - 1.0 / classes
            own = torch.eye(self._steps.size // classes, dtype=torch.float64)
            projection[: self._steps.size, : self._steps.size] = torch.kron(own, centring)
        return projection


@dataclass(frozen=True)
class _Quadratic:
    """Twice the complete data's score about a variance parameter, as a function of b: b'M b less its mean.

    Attributes
    ----------
    matrix : sparse matrix, (Q C, Q C)
        M, symmetric.
    term : int
        Whose rows are not 0.
    mean : float
    """

    matrix: sp.csr_matrix
    term: int
    mean: float

    def __call__(self, left: Tensor, right: Tensor) -> Tensor:
        """Left'M right for each draw, (Q, C, S) -> (S,)."""
        product = torch.from_numpy(self.matrix @ right.flatten(0, 1).numpy())
        return (left.flatten(0, 1) * product).sum(dim=0)


def _mean_curvature(joint: JointModel, eta: Tensor, phi: float) -> Tensor:
    """Minus the second derivative of each row's log p, its mean over draws of eta as far as positive: (n, C, C).

    The expected one will not do: where a row's own is more than twice as large, steps with it swing ever further.
    """
    curvature = joint.curvature(eta, phi).mean(dim=3)
    if joint.family.canonical:
        return curvature
    if curvature.shape[1] == 1:
        return curvature.clamp_min(0.0)
    values, vectors = torch.linalg.eigh(curvature)
    return torch.einsum("nik,nk,njk->nij", vectors, values.clamp_min(0.0), vectors)


def _traces(posterior: GaussianPosterior, quadratics: list[_Quadratic]) -> list[float]:
    """tr(H^-1 M) of each, H the posterior's precision."""
    sums: dict[int, np.ndarray] = {}
    traces = []
    for quadratic in quadratics:
        segment = posterior.segments[quadratic.term]
        if quadratic.term not in sums:
            sums[quadratic.term] = posterior.factor.sum_of_inverse_blocks(segment)
        # All levels have the same block of M.
        first = slice(segment.start, segment.start + segment.m)
        own = quadratic.matrix[first, first]
        traces.append(float((sums[quadratic.term] * own.toarray()).sum()))
    return traces
