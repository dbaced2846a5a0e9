"""Standard errors of the fixed effects and the variances.

Where it is affordable, the observed information of both together: by quadrature, or with the nearest Gaussian in place
of b's posterior. Else marginal information for the fixed effects, and the curvature of the exact likelihood or Louis'
formula over draws for the variances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glmmnet.cholesky import DENSE_LIMIT, dense_size
from glmmnet.design import Design
from glmmnet.exact import GaussianLikelihood, orthonormal_columns
from glmmnet.expected import expected_information
from glmmnet.fitted import Fitted
from glmmnet.fixed_part import FixedColumns
from glmmnet.gaussian import has_factor
from glmmnet.joint import JointModel
from glmmnet.marginal import marginal_information
from glmmnet.observed import ObservedScore, has_observed
from glmmnet.quadrature import derivative_nodes, has_quadrature, second_order
from glmmnet.steps import ParameterSteps
from glmmnet.variance import (
    VarianceParameter,
    active_parameters,
    derivative,
    shifted,
    transformed,
    variance_parameters,
)

#: Draws that the weights W are averaged over.
_WEIGHT_DRAWS = 50
#: Draws that Louis' formula is averaged over when the dispersion's score needs every row.
_LOUIS_DRAWS = 250
#: Penalty of the last layer's weights, as a share of the total information of a row.
_RIDGE = 1e-3
#: Columns of X whose singular value is below this share of the largest are linear combinations of the others.
_RANK = 1e-10
#: Variance parameters up to which the curvature of the exact likelihood is differenced: with many effects, with few.
_MOST_DIFFERENCED, _MOST_DIFFERENCED_SMALL, _FEW_EFFECTS = 6, 15, 2000
#: Information must be so many Monte Carlo standard errors above 0 to count; batches that these come from, and draws
#: from which they mean something.
_SIGNAL, _BATCHES, _FEWEST_DRAWS = 2.0, 20, 40
#: Monte Carlo error of the information that is small, as a share of it; a standard error's is half of that.
_NOISE = 0.2
#: Parameters up to which the observed information is summed by quadrature.
_MOST_PARAMETERS = 40
#: Half a difference of log standard deviations and Fisher z.
_SLOPE = 1e-5
#: An eigenvalue of the scaled information below minus this is no rounding error.
_INDEFINITE = 1e-8


@dataclass(frozen=True)
class FixedCovariance:
    """Sampling covariance of the linear fixed effects, and of the network's last layer beside them.

    Attributes
    ----------
    matrix : Tensor, (m C, m C)
        Order: column by column (X, then last-layer features), classes innermost.
    p : int
        Columns of X among the m.
    kind : str
        ``observed``: nothing is held fixed. Else the variances are, and of a network the layers named:
        ``marginal``; ``marginal, last layer``; ``marginal, f fixed``.
    pull : Tensor, (Q, C, m C)
        (Z'WZ + Sigma^-1)^-1 Z'W X: what an error in the coefficients takes out of the posterior mean of b.
    """

    matrix: Tensor
    p: int
    kind: str
    pull: Tensor

    def beta(self, classes: int) -> Tensor:
        """Block of the fixed effects, (p C, p C)."""
        size = self.p * classes
        return self.matrix[:size, :size]

    def beta_errors(self, classes: int) -> np.ndarray:
        """Standard errors of the fixed effects, (p C,)."""
        return np.sqrt(self.beta(classes).diagonal().clamp_min(0.0).numpy())


def feature_columns(fitted: Fitted, design: Design) -> Tensor | None:
    """The last layer's columns beside X for a design's rows, (n, h), less what of them belongs to beta.

    That is their mean, since f is centred when there is an intercept, or their linear share in projected columns.
    """
    columns = fitted.last_layer(design)
    joint = fitted.joint
    if columns is None or (fitted.projection is None and joint.constant is None):
        return columns
    if fitted.projection is None:
        picked = torch.tensor([joint.x_names.index(joint.intercepts[0])])
    else:
        picked = fitted.projection.columns
    trained = fitted.last_layer(fitted.design)
    share = torch.linalg.lstsq(joint.X[:, picked], trained).solution
    return columns - joint.columns_of(design).values[:, picked] @ share


def fixed_covariance(fitted: Fitted, observed: Tensor | None) -> FixedCovariance:
    """Inverse of the observed information where that is at hand: `observed`, of :func:`observed_information`.

    Else of X'WX - X'WZ (Z'WZ + Sigma^-1)^-1 Z'WX, W averaged over the final draws, the variances taken as known. The
    last hidden layer joins X as ridge-penalised columns, so that the errors of beta know of the network.
    Not Louis' formula over draws, which is here a small difference of large Monte Carlo quantities.
    """
    outward, fitted = fitted.centring.outward_effects, fitted.centred
    joint = fitted.joint
    weight = _mean_weight(fitted)
    features = feature_columns(fitted, fitted.design)
    basis, to_beta, from_beta = _basis(joint, 0 if features is None else features.shape[1])
    columns = basis if features is None else basis.beside(features, joint.f_loading)
    kind = "marginal"
    if fitted.predictor is not None:
        kind = "marginal, f fixed" if features is None else "marginal, last layer"
    if not columns.values.shape[1]:
        nothing = torch.zeros(joint.n_effects, joint.n_classes, 0, dtype=torch.float64)
        return FixedCovariance(torch.zeros(0, 0, dtype=torch.float64), 0, kind, nothing)
    information, pull = marginal_information(joint, fitted.working, weight, columns)
    if observed is not None:
        kind, k = "observed", len(information)
        information = observed[:k, :k] - observed[:k, k:] @ _pinv(observed[k:, k:]) @ observed[k:, :k]
    elif _shares_with_dispersion(joint):
        k = basis.values.shape[1] * joint.n_coefficients
        shared, own = _about_both(fitted, basis, pull[:, :, :k])
        left = information.clone()
        left[:k, :k] -= torch.outer(shared, shared) / own
        information = left if own > 0 and bool((torch.linalg.eigvalsh(left) > 0).all()) else information
    if features is not None:
        loading, classes = joint.f_loading, joint.n_coefficients
        if loading is None:
            total = torch.diagonal(weight, dim1=1, dim2=2).sum(dim=0)
        else:
            total = (loading @ weight.sum(dim=0) @ loading)[None]
        scale = float(fitted.predictor.scale) ** 2 if fitted.predictor is not None else 1.0
        penalty = torch.zeros(columns.values.shape[1], classes, dtype=torch.float64)
        penalty[basis.values.shape[1] :] = _RIDGE * scale * total
        information = information + torch.diag(penalty.reshape(-1))
    if joint.family.symmetric:
        # Coefficients of the classes sum to zero: any generalised inverse, centred.
        classes = joint.n_coefficients
        centring = torch.eye(classes, dtype=to_beta.dtype) - 1.0 / classes
        to_beta = torch.kron(torch.eye(len(to_beta) // classes, dtype=to_beta.dtype), centring) @ to_beta
    pulled = outward(pull @ from_beta)
    return FixedCovariance(to_beta @ _pinv(information) @ to_beta.T, joint.X.shape[1], kind, pulled)


def _shares_with_dispersion(joint: JointModel) -> bool:
    """Whether some linear predictor is, like phi, no location, so that their errors are correlated."""
    return joint.family.has_dispersion and joint.x_loading is not None


def _about_both(fitted: Fitted, columns: FixedColumns, pull: Tensor) -> tuple[Tensor, float]:
    """Information that the coefficients share with log phi, (m K,), and that about log phi; averaged over draws.

    What the random effects take up of the former is taken out by `pull` (Q, C, m K).
    """
    joint, fixed = fitted.joint, fitted.fixed
    draws = fitted.thinned(_WEIGHT_DRAWS)
    shared, own = torch.zeros(columns.values.shape[1] * joint.n_coefficients, dtype=torch.float64), 0.0
    for b in draws.split(1, dim=2):
        _, information, cross = joint.dispersion_derivatives(fixed + joint.random_eta(b), fitted.params.phi)
        own += float(information.sum()) / draws.shape[2]
        taken = torch.einsum("qcm,qcs->m", pull, joint.random_transpose(cross))
        shared += (columns.transpose(cross)[:, 0] - taken) / draws.shape[2]
    return shared, own


def collinear_columns(joint: JointModel) -> tuple[str, ...]:
    """Names of the columns of X that are linear combinations of each other; their coefficients are not identified."""
    involved: set[int] = set()
    for group in joint.columns.groups():
        x = joint.X[:, group]
        norms = torch.linalg.vector_norm(x, dim=0)
        _, s, v = torch.linalg.svd(x / norms.clamp_min(1e-300), full_matrices=False)
        if len(s):
            involved.update(group[(v[s <= _RANK * s[0]].abs() > 1e-6).any(dim=0)].tolist())
    return tuple(joint.x_names[k] for k in sorted(involved))


def _basis(joint: JointModel, features: int) -> tuple[FixedColumns, Tensor, Tensor]:
    """Orthonormal basis B of X's columns, and what turns coefficients of [B, features] into those of X and back.

    X'X would square the condition of columns far from 0, such as years.
    """
    basis, to_beta, from_beta = orthonormal_columns(joint.columns)
    rest, same = torch.eye(features, dtype=to_beta.dtype), torch.eye(joint.n_coefficients, dtype=to_beta.dtype)
    return basis, torch.kron(torch.block_diag(to_beta, rest), same), torch.kron(torch.block_diag(from_beta, rest), same)


def _mean_weight(fitted: Fitted) -> Tensor:
    """W averaged over draws, (n, C, C)."""
    joint, fixed = fitted.joint, fitted.fixed
    if joint.family.quadratic:
        return joint.weight(fixed, fitted.params.phi)[..., 0]
    draws = fitted.thinned(_WEIGHT_DRAWS)
    total = torch.zeros(joint.n, joint.n_predictors, joint.n_predictors, dtype=torch.float64)
    for b in draws.split(1, dim=2):
        total += joint.weight(fixed + joint.random_eta(b), fitted.params.phi)[..., 0]
    return total / draws.shape[2]


def _pinv(matrix: Tensor) -> Tensor:
    if not len(matrix):
        return matrix
    scale = torch.diagonal(matrix).clamp_min(1e-300).rsqrt()
    inverse = torch.linalg.pinv(scale[:, None] * matrix * scale, hermitian=True, rtol=1e-10)
    return scale[:, None] * inverse * scale


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

    From the `observed` information, see :func:`observed_information`, or the curvature of the exact likelihood where
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
        information = (observed[k:, k:] - observed[k:, :k] @ _pinv(observed[:k, :k]) @ observed[:k, k:]).numpy()
        known = np.arange(len(active))
    elif _is_differenced(fitted, len(active)):
        information = _curvature(fitted, active)
        known = np.arange(len(active))
    else:
        information, known = _sampled(fitted, active)
        if _shares_with_dispersion(joint):
            basis, _, _ = _basis(joint, 0)
            of_beta, pull = marginal_information(joint, fitted.working, _mean_weight(fitted), basis)
            shared, _ = _about_both(fitted, basis, pull)
            # About log phi^(1/2), which comes last.
            lost = 4.0 * float(shared @ _pinv(of_beta) @ shared)
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


def observed_information(fitted: Fitted) -> Tensor | None:
    """Observed information about all parameters, see :class:`glmmnet.steps.ParameterSteps`.

    Those of the model in which it was estimated, see :mod:`glmmnet.centring`. None for models with a network and
    Gaussian ones, where it costs too much, and away from a maximum.
    """
    fitted = fitted.centred
    joint = fitted.joint
    if fitted.predictor is not None or joint.family.quadratic or not joint.terms:
        return None
    active = active_parameters(joint, fitted.params)
    information = _by_quadrature(fitted, active) if has_quadrature(joint) else _by_nearest_gaussian(fitted, active)
    if information is None or not bool(torch.isfinite(information).all()):
        return None
    scale = torch.diagonal(information).clamp_min(1e-300).rsqrt()
    smallest = torch.linalg.eigvalsh(scale[:, None] * information * scale)[:1]
    return None if bool((smallest < -_INDEFINITE).any()) else information


def _by_quadrature(fitted: Fitted, active: tuple[VarianceParameter, ...]) -> Tensor | None:
    joint, basis = fitted.joint, ParameterSteps(fitted.joint).basis
    scores = basis.values.shape[1] * joint.n_coefficients + len(active)
    nodes = derivative_nodes(joint, scores)
    if scores > _MOST_PARAMETERS or nodes is None:
        return None
    return second_order(joint, fitted.working, fitted.f, basis, active, nodes).information


def _by_nearest_gaussian(fitted: Fitted, active: tuple[VarianceParameter, ...]) -> Tensor | None:
    if not has_observed(fitted.joint):
        return None
    observed = ObservedScore(fitted.joint, fitted.f, active)
    return observed.information(observed.at(fitted.working))


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
    weight = _mean_weight(fitted)
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
