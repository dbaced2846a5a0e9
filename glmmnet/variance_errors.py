"""Standard errors of the variances and the dispersion.

From the observed information where that is affordable; else from the curvature of the exact likelihood, or by Louis'
formula over draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glmmnet.cholesky import DENSE_LIMIT, dense_size
from glmmnet.exact import GaussianLikelihood
from glmmnet.expected import expected_information
from glmmnet.fitted import Fitted
from glmmnet.gaussian import has_factor
from glmmnet.information import about_both, basis_of, mean_weight, pinv, shares_with_dispersion
from glmmnet.marginal import marginal_information
from glmmnet.variance import (
    VarianceParameter,
    active_parameters,
    derivative,
    shifted,
    transformed,
    variance_parameters,
)

#: Draws that Louis' formula is averaged over when the dispersion's score needs every row.
_LOUIS_DRAWS = 250
#: Variance parameters up to which the curvature of the exact likelihood is differenced: with many effects, with few.
_MOST_DIFFERENCED, _MOST_DIFFERENCED_SMALL, _FEW_EFFECTS = 6, 15, 2000
#: Information must be so many Monte Carlo standard errors above 0 to count; batches that these come from, and draws
#: from which they mean something.
_SIGNAL, _BATCHES, _FEWEST_DRAWS = 2.0, 20, 40
#: Monte Carlo error of the information that is small, as a share of it; a standard error's is half of that.
_NOISE = 0.2
#: Half a difference of log standard deviations and Fisher z.
_SLOPE = 1e-5


@dataclass(frozen=True)
class VarianceErrors:
    """Standard errors of the variance parameters on log-sd and Fisher-z scales.

    NaN on the boundary, and where the draws carry too little information.
    """

    parameters: tuple[VarianceParameter, ...]
    se: np.ndarray

    def of(self, term: int, class_: int, i: int, j: int) -> float:
        """The standard error of one parameter; NaN if it is not one."""
        wanted = VarianceParameter(term, class_, i, j)
        return float(self.se[self.parameters.index(wanted)]) if wanted in self.parameters else float("nan")


def variance_errors(fitted: Fitted, observed: Tensor | None) -> VarianceErrors:
    """Standard errors of Sigma and the residual standard deviation.

    From the `observed` information, see :mod:`glmmnet.information`, or the curvature of the exact likelihood where
    one is at hand and the parameters are few, else by Louis (1982): expected complete-data information minus the
    variance of the complete-data score over the draws. Where that is indefinite or noisy, expected information of the
    linearised model.
    """
    outer, fitted = fitted, fitted.centred
    everything, active = variance_parameters(outer.joint), active_parameters(fitted.joint, fitted.params)
    if not active:
        return VarianceErrors(everything, np.full(len(everything), np.nan))
    slopes = _slopes(outer, active)
    inside = [_is_inside(outer, active, p) for p in everything]
    return VarianceErrors(everything, np.where(inside, _spread(slopes, _covariance(fitted, active, observed)), np.nan))


def _is_inside(outer: Fitted, active: tuple[VarianceParameter, ...], p: VarianceParameter) -> bool:
    """Whether a parameter is away from its boundary: of a centred term if all of them are in the model it comes from.

    Correlations with columns far from 0 are next to +-1 whatever the data are.
    """
    if p.term >= 0 and outer.centring.roots[p.term] is not None:
        own = [q for q in variance_parameters(outer.joint) if (q.term, q.class_) == (p.term, p.class_)]
        if all(q in active for q in own):
            return True
    return p in active_parameters(outer.joint, outer.params)


def _covariance(fitted: Fitted, active: tuple[VarianceParameter, ...], observed: Tensor | None) -> np.ndarray:
    """Sampling covariance of the active parameters, (k, k); NaN of those that the draws tell too little of."""
    joint = fitted.joint
    if observed is not None:
        k = len(observed) - len(active)
        information = (observed[k:, k:] - observed[k:, :k] @ pinv(observed[:k, :k]) @ observed[:k, k:]).numpy()
        known = np.arange(len(active))
    elif _is_differenced(fitted, len(active)):
        information = _curvature(fitted, active)
        known = np.arange(len(active))
    else:
        information, known = _sampled(fitted, active)
        if shares_with_dispersion(joint):
            basis, _, _ = basis_of(joint, 0)
            of_beta, pull = marginal_information(joint, fitted.working, mean_weight(fitted), basis)
            shared, _ = about_both(fitted, basis, pull)
            # About log phi^(1/2), which comes last.
            lost = 4.0 * float(shared @ pinv(of_beta) @ shared)
            information[-1, -1] -= lost if lost < information[-1, -1] else 0.0
    known, inverse = _inverse(information, known)
    covariance = np.full((len(active), len(active)), np.nan)
    covariance[np.ix_(known, known)] = inverse
    return covariance


def _slopes(outer: Fitted, active: tuple[VarianceParameter, ...]) -> np.ndarray:
    """Derivatives of every variance parameter (k,) with respect to the `active` ones of the model it is estimated in.

    Where columns are centred that is another parameter of the same term.
    """
    everything, inner, back = variance_parameters(outer.joint), outer.centred, outer.centring
    slopes = np.array([[float(p == q) for q in active] for p in everything]).reshape(len(everything), len(active))
    turned = [k for k, p in enumerate(everything) if p.term >= 0 and back.roots[p.term] is not None]
    for m, q in enumerate(active):
        own = [k for k in turned if (everything[k].term, everything[k].class_) == (q.term, q.class_)]
        if own:
            ahead, behind = (
                back.outward(shifted(inner.joint, inner.params, (q,), np.array([h]))) for h in (_SLOPE, -_SLOPE)
            )
            for k in own:
                up, down = (transformed(outer.joint, one, everything[k]) for one in (ahead, behind))
                slopes[k, m] = (up - down) / (2 * _SLOPE) if np.isfinite([up, down]).all() else np.nan
    return slopes


def _spread(slopes: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Standard errors of what has the `slopes` (m, k); NaN where it depends on something without an error."""
    unknown = np.isnan(covariance).all(axis=1)
    variance = np.einsum("mk,kl,ml->m", slopes, np.nan_to_num(covariance), slopes)
    return np.where((slopes[:, unknown] != 0).any(axis=1), np.nan, np.sqrt(np.clip(variance, 0.0, None)))


def _sampled(fitted: Fitted, active: tuple[VarianceParameter, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Louis' information where its Monte Carlo error is small, else the expected one; the parameters it knows of."""
    information, noise = _louis(fitted, active)
    known = np.arange(len(active))
    clear = np.diag(information) > noise / _NOISE
    if bool(clear.all()) and len(_inverse(information, known)[0]) == len(active):
        return information, known
    if has_factor(fitted.joint):
        return _expected(fitted, active, information), known
    return information, np.flatnonzero(np.diag(information) > _SIGNAL * noise)


def _expected(fitted: Fitted, active: tuple[VarianceParameter, ...], louis: np.ndarray) -> np.ndarray:
    """Expected information of the linearised model.

    That knows of a dispersion only as a residual variance: for other families Louis' own, which lacks little there.
    """
    joint = fitted.joint
    weight = mean_weight(fitted)
    if joint.family.quadratic:
        return expected_information(joint, fitted.working, weight, active)
    k = sum(p.term >= 0 for p in active)
    information = louis.copy()
    information[:k, :k] = expected_information(joint, fitted.working, weight, active[:k])
    information[:k, k:] = information[k:, :k] = 0.0
    return information


def _is_differenced(fitted: Fitted, parameters: int) -> bool:
    """Whether the curvature of the exact likelihood is affordable."""
    joint = fitted.joint
    most = _MOST_DIFFERENCED if joint.n_effects > _FEW_EFFECTS else _MOST_DIFFERENCED_SMALL
    small = parameters <= most and dense_size(joint.segments) <= DENSE_LIMIT
    return fitted.sampler is None and joint.family.quadratic and small


def _inverse(information: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse over the parameters `known`, less those that make it indefinite."""
    while len(known):
        part = information[np.ix_(known, known)]
        scale = np.sqrt(np.clip(np.diag(part), 1e-300, None))
        values, vectors = np.linalg.eigh(part / np.outer(scale, scale))
        if values[0] > 1e-8:
            return known, np.linalg.inv(part)
        known = np.delete(known, np.argmax(np.abs(vectors[:, 0])))
    return known, np.zeros((0, 0))


def _curvature(fitted: Fitted, parameters: tuple[VarianceParameter, ...]) -> np.ndarray:
    """Minus the second derivatives of the exact log-likelihood, beta profiled or integrated out."""
    likelihood = GaussianLikelihood(fitted.joint, fitted.f, reml=fitted.config.reml)

    def value(shift: np.ndarray) -> float:
        moved = shifted(fitted.joint, fitted.working, parameters, shift)
        return -0.5 * likelihood.profile(likelihood.theta(moved), moved.phi).deviance

    return -_second_differences(value, len(parameters), 0.02)


def _second_differences(value: Callable[[np.ndarray], float], k: int, h: float) -> np.ndarray:
    steps = h * np.eye(k)
    centre = value(np.zeros(k))
    ahead, behind = [value(s) for s in steps], [value(-s) for s in steps]
    out = np.empty((k, k))
    for i in range(k):
        out[i, i] = (ahead[i] - 2 * centre + behind[i]) / h**2
        for j in range(i):
            both, neither = value(steps[i] + steps[j]), value(-steps[i] - steps[j])
            mixed = both - ahead[i] - ahead[j] + 2 * centre - behind[i] - behind[j] + neither
            out[i, j] = out[j, i] = mixed / (2 * h**2)
    return out


def _louis(fitted: Fitted, parameters: tuple[VarianceParameter, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Louis' information, and the Monte Carlo standard errors of its diagonal: infinite of a few draws."""
    joint = fitted.joint
    draws = fitted.thinned(_LOUIS_DRAWS if joint.family.has_dispersion else fitted.draws.b.shape[2])
    size, samples = len(parameters), draws.shape[2]
    complete, scores = np.zeros((size, size)), np.zeros((samples, size))
    derivatives = [derivative(joint, fitted.working, p) for p in parameters]
    precisions = joint.precisions(fitted.working)
    moments: dict[int, Tensor] = {}
    for a, p in enumerate(parameters):
        if p.term < 0:
            scores[:, a], complete[a, a] = _about_dispersion(fitted, draws)
            continue
        term = joint.terms[p.term]
        if p.term not in moments:
            own = draws[term.rows].reshape(term.q, term.r, joint.n_classes, samples)
            moments[p.term] = torch.einsum("qics,qjcs->scij", own, term.decorrelated(own))
        precision = precisions[p.term][p.class_]
        pulled = precision @ derivatives[a] @ precision
        trace = float((precision * derivatives[a].T).sum())
        moment = moments[p.term][:, p.class_]
        scores[:, a] = 0.5 * ((moment * pulled).sum(dim=(1, 2)) - term.q * trace).numpy()
        for b, other in enumerate(parameters):
            if other.term == p.term and other.class_ == p.class_:
                complete[a, b] = 0.5 * term.q * float((pulled * derivatives[b].T).sum())
    centred = scores - scores.mean(axis=0)
    squares = [batch.mean(axis=0) for batch in np.array_split(np.square(centred), min(_BATCHES, samples))]
    noise = np.std(squares, axis=0) / np.sqrt(max(len(squares) - 1, 1))
    noise = noise if samples >= _FEWEST_DRAWS else np.full(size, np.inf)
    return complete - centred.T @ centred / max(samples - 1, 1), noise


def _about_dispersion(fitted: Fitted, draws: Tensor) -> tuple[np.ndarray, float]:
    """Score of log phi^(1/2) for each draw, and the complete-data information about it averaged over the draws."""
    joint, fixed = fitted.joint, fitted.fixed
    scores, information = [], 0.0
    for b in draws.split(1, dim=2):
        score, own, _ = joint.dispersion_derivatives(fixed + joint.random_eta(b), fitted.params.phi)
        scores.append(2.0 * float(score.sum()))
        information += 4.0 * float(own.sum()) / draws.shape[2]
    return np.array(scores), information
