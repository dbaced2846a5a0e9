"""One Newton step on the complete data: beta and the working matrices of the random effects together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from glmmnet.em.steady import AroundMode, Control
from glmmnet.joint import MANY_CLASSES, JointModel, Parameters

#: Rows x draws x columns of the Newton step's design that are held at once.
_ENTRIES_AT_ONCE = 20_000_000
#: Rows x draws that the Hessian is summed over where no column is rare.
_HESSIAN_ROWS = 20_000
#: Entries of the working matrices, with effects in standard deviations, move at most so far in one iteration.
_LARGEST_SCALE_STEP = 0.5
#: Information below which is none: products with it leave the range of floating point; share of the largest that is.
_NO_INFORMATION, _RANK = 1e-250, 1e-9
#: The fixed part of eta moves at most so far (root mean square) in one iteration, in its unit; not where quadratic.
_LARGEST_ETA_STEP = 2.0


@dataclass(frozen=True)
class CompleteStep:
    """Steps of beta (p, K) and of the working matrices, and what they come from.

    Attributes
    ----------
    variance : Tensor, (p, K)
        Of beta given b.
    log_likelihood : float
        Mean over the draws, as `of_beta` (p, K) and `of_b` (Q, C), the slopes of log p(y given b).
    """

    beta: Tensor
    working: list[Tensor]
    variance: Tensor
    log_likelihood: float
    of_beta: Tensor
    of_b: Tensor
    controls: list[Control]


@dataclass(frozen=True)
class Steadying:
    """What steadies the draws, and by how much (Q, C) they were moved since they were drawn."""

    around: AroundMode | None
    moved: Tensor

    def controls(self, joint: JointModel, b: Tensor, slope: Tensor) -> list[Control]:
        """Those of moved draws b (Q, C, S), none if nothing steadies them."""
        return [] if self.around is None else self.around.controls(joint, b + self.moved[:, :, None], slope)


@dataclass(frozen=True)
class _Group:
    """Coefficients of the Newton step that enter the linear predictors alike.

    Attributes
    ----------
    loading : Tensor, (C,)
    predictor : int or None
        The one predictor that it stands for, with a loading of 1.
    columns : Tensor of int64
        Columns of X.
    beta_class, b_class : int
        Which of a column's coefficients, and of a term's copies of b.
    entries : list of Tensor, each (k, 2)
        Entries (i, j) of each term's working matrix, that is columns z_i b_j.
    size : int
        Coefficients.
    """

    loading: Tensor
    predictor: int | None
    columns: Tensor
    beta_class: int
    b_class: int
    entries: list[Tensor]

    @property
    def size(self) -> int:
        return len(self.columns) + sum(len(e) for e in self.entries)

    def of(self, x: Tensor) -> Tensor:
        """Its columns of X (n, p)."""
        return x if len(self.columns) == x.shape[1] else x[:, self.columns]

    def pull(self, score: Tensor) -> Tensor:
        """What a unit of such a coefficient does to the log likelihood of each row: (n, C, S) -> (n, S)."""
        if self.predictor is not None:
            return score[:, self.predictor]
        return torch.einsum("c,ncs->ns", self.loading.to(score.dtype), score)


def _groups(joint: JointModel) -> list[_Group]:
    """The groups: a predictor each where nothing is loaded, else one for each distinct loading."""
    c = joint.n_predictors
    unit = torch.eye(c, dtype=torch.float64)
    free = [term.covariance.free(term.r) for term in joint.terms]
    loadings = [joint.x_loading, *(term.loading for term in joint.terms)]
    if all(loading is None for loading in loadings):
        return [_Group(unit[k], k, torch.arange(joint.X.shape[1]), k, k, free) for k in range(c)]
    patterns = torch.unique(torch.cat([unit if one is None else one for one in loadings]), dim=0)
    groups = []
    for pattern in patterns:
        same = (unit == pattern).all(dim=1).nonzero()[:, 0].tolist()
        predictor = same[0] if same else None
        if joint.x_loading is None:
            columns = torch.arange(joint.X.shape[1] if same else 0)
        else:
            columns = (joint.x_loading == pattern).all(dim=1).nonzero()[:, 0]
        entries = []
        for term, all_free in zip(joint.terms, free, strict=True):
            assert term.loading is not None
            entries.append(all_free[(term.loading[all_free[:, 0]] == pattern).all(dim=1)])
        beta_class = predictor if joint.x_loading is None and predictor is not None else 0
        groups.append(_Group(pattern, predictor, columns, beta_class, 0, entries))
    return groups


def complete_step(
    joint: JointModel, params: Parameters, b: Tensor, f: Tensor | None, steadying: Steadying
) -> CompleteStep:
    """One Newton step for beta and the entries of the working matrices, jointly over linear predictors."""
    groups = _groups(joint)
    m = sum(g.size for g in groups)
    # The sampler's precision is enough for sums over its draws.
    dtype = joint.parts[0][1].weights.dtype
    fixed, b = joint.fixed_eta(params, f).to(dtype), b.to(dtype)
    gradient = torch.zeros(m, dtype=torch.float64)
    hessian = torch.zeros(m, m, dtype=torch.float64)
    log_likelihood, few = 0.0, _few_rows(joint, b.shape[2])
    of_b = torch.zeros(b.shape[:2], dtype=torch.float64)
    controls: list[Control] = []
    for part in in_chunks(b, joint.n * joint.n_predictors):
        value, own, slope, of_part = _value_and_gradient(joint, groups, fixed, part, params.phi, steadying)
        log_likelihood += value
        gradient += own
        of_b += slope
        controls = [one + other for one, other in zip(controls, of_part, strict=True)] if controls else of_part
        if few is not None:
            some = joint.subset(few)
            eta = fixed[few].double() + some.random_eta(part.double())
            hessian += joint.n / len(few) * _hessian(some, groups, part.double(), eta, params.phi)
    if few is None:
        for part in in_chunks(b, joint.n * m):
            eta = fixed.double() + joint.random_eta(part.double())
            hessian += _hessian(joint, groups, part.double(), eta, params.phi)
    draws = b.shape[2]
    free = _free_numbers(joint, groups)
    tie = (free[:, None] == torch.arange(len(free.unique()))).to(torch.float64)

    def solved(information: Tensor) -> tuple[Tensor, Tensor]:
        inverse = scaled_pinv(tie.T @ information @ tie / draws)
        return (inverse @ (tie.T @ gradient / draws))[free], torch.diagonal(inverse)[free]

    step, variance = solved(hessian)
    longer = _too_long(joint, groups, params, step)
    if float(longer.max()) > 1.0:
        # What is held back must not be counted on by the others' steps.
        step, _ = solved(hessian + torch.diag((longer - 1.0) * hessian.diagonal()))
    return CompleteStep(
        damped_beta(joint, params.beta, _of_beta(joint, groups, step)),
        _working(joint, groups, params, step),
        _of_beta(joint, groups, variance),
        log_likelihood / draws,
        _of_beta(joint, groups, gradient / draws),
        of_b / draws,
        controls,
    )


def _too_long(joint: JointModel, groups: list[_Group], params: Parameters, step: Tensor) -> Tensor:
    """How many times too long the step of each coefficient is, 1 where it is not: (m,).

    Not where all linear predictors are so alike: then the whole step is shortened.
    """
    excess = _excess(joint, _of_beta(joint, groups, step))
    same = float(excess.min()) == float(excess.max())
    longer, at = torch.ones_like(step), 0
    for group in groups:
        if not same:
            longer[at : at + group.size] = excess[group.loading.abs().argmax()]
        at += len(group.columns)
        for sigma, free in zip(params.sigma, group.entries, strict=True):
            own = slice(at, at + len(free))
            longer[own] = torch.maximum(longer[own], step[own].abs() / _most(sigma[group.b_class], free))
            at += len(free)
    return longer


def _most(sigma: Tensor, free: Tensor) -> Tensor:
    """How far entries of a working matrix may move.

    In standard deviations: of two effects that are correlated by 1 what one gives the other takes.
    """
    sd = torch.diagonal(sigma).sqrt().clamp_min(1e-150)
    return _LARGEST_SCALE_STEP * sd[free[:, 0]] / sd[free[:, 1]]


def _free_numbers(joint: JointModel, groups: list[_Group]) -> Tensor:
    """Which free number each coefficient is, (m,): its own, but one for all entries of a tied working matrix."""
    numbers: dict[tuple[int, ...], int] = {}
    owners: list[tuple[int, ...]] = []
    for g, group in enumerate(groups):
        owners += [(-1, g, k) for k in range(len(group.columns))]
        for k, (term, free) in enumerate(zip(joint.terms, group.entries, strict=True)):
            tied = term.covariance.tied
            owners += [(k, group.b_class) if tied else (k, g, e) for e in range(len(free))]
    return torch.tensor([numbers.setdefault(owner, len(numbers)) for owner in owners], dtype=torch.int64)


def _working(joint: JointModel, groups: list[_Group], params: Parameters, step: Tensor) -> list[Tensor]:
    """The working matrices (C, r, r) after a step of all coefficients, no entry too far from that of the identity."""
    working = [torch.eye(t.r, dtype=torch.float64).repeat(joint.n_classes, 1, 1) for t in joint.terms]
    at = 0
    for group in groups:
        at += len(group.columns)
        for matrix, sigma, free in zip(working, params.sigma, group.entries, strict=True):
            most = _most(sigma[group.b_class], free)
            moved = step[at : at + len(free)].clamp(-most, most)
            matrix[group.b_class, free[:, 0], free[:, 1]] += moved
            at += len(free)
    return working


def _of_beta(joint: JointModel, groups: list[_Group], values: Tensor) -> Tensor:
    """What belongs to beta among values of all coefficients (m,): (p, K)."""
    beta, at = torch.zeros(joint.X.shape[1], joint.n_coefficients, dtype=torch.float64), 0
    for group in groups:
        beta[group.columns, group.beta_class] = values[at : at + len(group.columns)]
        at += group.size
    return beta


def _few_rows(joint: JointModel, draws: int) -> Tensor | None:
    """Rows that stand for all in the Hessian; None: all, as where a column may differ from 0 in few rows."""
    few = max(_HESSIAN_ROWS // draws, 1)
    plain = joint.only_intercepts and all(term.z is None for term in joint.terms)
    return torch.randperm(joint.n)[:few] if plain and few < joint.n else None


def _value_and_gradient(
    joint: JointModel, groups: list[_Group], fixed: Tensor, b: Tensor, phi: float, steadying: Steadying
) -> tuple[float, Tensor, Tensor, list[Control]]:
    """Log likelihood, the steadied score of all coefficients (m,) and of b (Q, C), over the draws; what steadied it."""
    value = 0.0
    of_beta = torch.zeros(joint.n_predictors, joint.X.shape[1], dtype=torch.float64)
    of_b = torch.zeros(b.shape, dtype=torch.float64)
    for rows, part in joint.parts:
        eta = (fixed if len(rows) == joint.n else fixed[rows]) + part.random_eta(b)
        kernel, score = part.log_likelihood_and_score(eta, phi)
        # What the kernel leaves out is free of eta: the same for every draw.
        constant = part.log_likelihood(eta[:, :, :1], phi)[0] - kernel[0]
        value += float((kernel + constant).sum())
        of_beta += (part.X.to(score.dtype).T @ score.sum(dim=2)).T
        of_b += part.random_transpose(score)
    of_entries = []
    for term in joint.terms:
        shape = (term.q, term.r, *b.shape[1:])
        own, slope = b[term.rows].reshape(shape).to(torch.float64), of_b[term.rows].reshape(shape)
        of_entries.append(torch.einsum("qics,qjcs->cij", slope, own))
    controls = steadying.controls(joint, b.to(torch.float64), of_b)
    if controls:
        of_entries = [one + control.slope for one, control in zip(of_entries, controls, strict=True)]
    gradient = []
    for group in groups:
        gradient.append(group.pull(of_beta[None])[0, group.columns])
        for matrix, free in zip(of_entries, group.entries, strict=True):
            gradient.append(matrix[group.b_class, free[:, 0], free[:, 1]])
    return value, torch.cat(gradient), of_b.sum(dim=2), controls


def _hessian(joint: JointModel, groups: list[_Group], b: Tensor, eta: Tensor, phi: float) -> Tensor:
    """Information about all coefficients, summed over the draws: (m, m)."""
    one_by_one = joint.n_classes > MANY_CLASSES
    weight = joint.weight_diagonal(eta, phi) if one_by_one else joint.weight(eta, phi)
    features = [_features(joint, group, b) for group in groups]
    starts = [0, *itertools.accumulate(group.size for group in groups)]
    hessian = torch.zeros(starts[-1], starts[-1], dtype=torch.float64)
    for c, left in enumerate(groups):
        for d in (c,) if one_by_one else range(c + 1):
            own = weight[:, c] if one_by_one else _between(weight, left, groups[d])
            cross = features[c].T @ (own.reshape(-1, 1) * features[d])
            rows, columns = slice(starts[c], starts[c + 1]), slice(starts[d], starts[d + 1])
            hessian[rows, columns] = cross
            hessian[columns, rows] = cross.T
    return hessian


def _between(weight: Tensor, left: _Group, right: _Group) -> Tensor:
    """Information of each row that coefficients of two groups share, (n, S)."""
    if left.predictor is not None and right.predictor is not None:
        return weight[:, left.predictor, right.predictor]
    return torch.einsum("c,ncds,d->ns", left.loading, weight, right.loading)


def in_chunks(b: Tensor, entries_a_draw: int) -> Iterator[Tensor]:
    """Draws b (Q, C, S) in parts, that no more than so many entries be held at once."""
    size = max(1, _ENTRIES_AT_ONCE // max(entries_a_draw, 1))
    yield from torch.split(b, size, dim=2)


def _features(joint: JointModel, group: _Group, b: Tensor) -> Tensor:
    """Columns of the Newton step for one group: of X, then z_i b_j for every free entry (i, j); (n S, m)."""
    draws = b.shape[2]
    columns = [group.of(joint.X).to(b.dtype)[:, None].expand(-1, draws, -1)]
    for term, free in zip(joint.terms, group.entries, strict=True):
        own = term.gather(b[:, group.b_class : group.b_class + 1])[:, :, 0].transpose(1, 2)
        effects = own[:, :, free[:, 1]]
        if term.z is None:
            columns.append(effects)
        else:
            columns.append(term.z[:, None, free[:, 0]] * effects)
    return torch.cat(columns, dim=2).reshape(joint.n * draws, -1)


def scaled_pinv(matrix: Tensor, rank: float = _RANK) -> Tensor:
    """Inverse of a positive semi-definite matrix; directions without information (shared class shifts) stay put.

    They are those whose eigenvalue, each diagonal entry being 1, is below the share `rank` of the largest.
    """
    own = torch.diagonal(matrix)
    scale = torch.where(own > _NO_INFORMATION, own.clamp_min(_NO_INFORMATION).rsqrt(), 0.0)
    scaled = scale[:, None] * matrix * scale
    inverse = torch.linalg.pinv(scaled, hermitian=True, rtol=rank)
    return scale[:, None] * inverse * scale


def damped_beta(joint: JointModel, beta: Tensor, step: Tensor) -> Tensor:
    """A step of beta (p, K), shortened where it would take a linear predictor too far or beta out of its range."""
    excess, loading = _excess(joint, step), joint.x_loading
    step = step / (excess if loading is None else excess[loading.abs().argmax(dim=1)][:, None])
    return step * joint.admissible_step(beta, step)


def _excess(joint: JointModel, step: Tensor) -> Tensor:
    """How many times too long a step of beta (p, K) is for each linear predictor, 1 where it is not: (C,).

    Predictors that share columns of X have one length.
    """
    if joint.family.quadratic or not len(step):
        return torch.ones(joint.n_predictors, dtype=torch.float64)
    moved = joint.sum_of_fixed(joint.columns, step, None) / joint.eta_units[:, None]
    own, square = _connected(joint), moved.square().mean(dim=(0, 2))
    sizes = torch.stack([square[own == k].mean().sqrt() for k in range(int(own.max()) + 1)])
    return (sizes / _LARGEST_ETA_STEP).clamp_min(1.0)[own]


def _connected(joint: JointModel) -> Tensor:
    """Number of the group of each linear predictor that are linked by columns of X in both, (C,)."""
    if joint.x_loading is None:
        return torch.zeros(joint.n_predictors, dtype=torch.int64)
    shared = joint.x_loading.abs().T @ joint.x_loading.abs()
    return torch.as_tensor(connected_components(shared.numpy(), directed=False)[1]).long()
