"""Adaptive Gauss-Hermite quadrature level by level: the likelihood, its score and its observed information.

For models of one random term with at most two effects a level; f is held fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glmmnet.fixed_part import FixedColumns
from glmmnet.joint import JointModel, Parameters
from glmmnet.laplace import find_mode, level_blocks
from glmmnet.variance import VarianceParameter, derivative

#: Dimensions that one level's quadrature may have.
_MOST_DIMENSIONS = 2
#: Rows x quadrature points that are held at once.
_ROWS_AT_ONCE = 4_000_000
#: Quadrature points a dimension, fewer where rows x points or levels x points are more than so many.
_NODES, _FEWER_NODES, _MOST_ROWS, _MOST_LEVELS = 31, 15, 500_000_000, 50_000_000
#: Derivatives take fewer points where rows x points x parameters are more, and none where more still.
_MANY_SCORES, _MOST_SCORES = 100_000_000, 4_000_000_000


@dataclass(frozen=True)
class LevelQuadrature:
    """Adaptive Gauss-Hermite points of b around the mode of each level, for a model of one random term.

    Attributes
    ----------
    log_mass : Tensor, (q, K)
        Log of p(y of the level, b) times the quadrature weight; its logsumexp over K is log p(y of the level).
    """

    log_mass: Tensor
    _mode: Tensor
    _spread: Tensor
    _grid: Tensor

    def points(self, rows_a_point: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pieces of (b (Q, C, k), posterior probabilities (q, k)), small enough for `rows_a_point` rows a point."""
        probability = torch.softmax(self.log_mass, dim=1)
        for part in _pieces(self._grid.shape[1], rows_a_point):
            yield _points(self._mode, self._spread, self._grid[:, part]), probability[:, part]


def has_quadrature(joint: JointModel) -> bool:
    """Whether b can be integrated out level by level: one random term of at most two effects a level."""
    return len(joint.terms) == 1 and not joint.related and joint.terms[0].r * joint.n_classes <= _MOST_DIMENSIONS


def n_nodes(joint: JointModel) -> int:
    """Quadrature points a dimension that the likelihood of this model takes."""
    term = joint.terms[0]
    points = _NODES ** (term.r * joint.n_classes)
    return _NODES if joint.n * points <= _MOST_ROWS and term.q * points <= _MOST_LEVELS else _FEWER_NODES


def derivative_nodes(joint: JointModel, parameters: int) -> int | None:
    """Quadrature points a dimension for derivatives in so many parameters; None where they cost too much."""
    nodes = n_nodes(joint)

    def scores(nodes: int) -> int:
        return joint.n * parameters * nodes ** (joint.terms[0].r * joint.n_classes)

    if scores(nodes) > _MANY_SCORES:
        nodes = min(nodes, _FEWER_NODES)
    return nodes if scores(nodes) <= _MOST_SCORES else None


def level_quadrature(joint: JointModel, fixed: Tensor, params: Parameters, nodes: int) -> LevelQuadrature:
    """Quadrature with `nodes` points a dimension; see :func:`has_quadrature`.

    Parameters
    ----------
    fixed : Tensor, (n, C, 1)
        The part of eta that is free of b.
    """
    dimension = joint.terms[0].r * joint.n_classes
    x, weights = np.polynomial.hermite_e.hermegauss(nodes)
    grid = torch.as_tensor(np.stack(np.meshgrid(*[x] * dimension, indexing="ij")).reshape(dimension, -1))
    log_weight = torch.as_tensor(np.log(weights))[torch.cartesian_prod(*[torch.arange(nodes)] * dimension)]
    term, mode = joint.terms[0], find_mode(joint, fixed, params).mode
    precision = joint.precisions(params)[0]
    weight = joint.weight(fixed + joint.random_eta(mode[:, :, None]), params.phi)[..., 0]
    factor = torch.linalg.cholesky(level_blocks(term, weight, precision))
    spread = torch.linalg.inv(factor).mT
    values = []
    for part in _pieces(grid.shape[1], joint.n * joint.n_predictors):
        b = _points(mode, spread, grid[:, part])
        log_p = joint.log_prob(fixed + joint.random_eta(b), params.phi)
        own = b.reshape(term.q, term.r, joint.n_classes, -1)
        values.append(term.level_sum(log_p) - 0.5 * torch.einsum("qics,cij,qjcs->qs", own, precision, own))
    # hermegauss integrates against exp(-x^2 / 2): that factor is given back.
    constant = log_weight.reshape(grid.shape[1], dimension).sum(dim=1) + 0.5 * grid.square().sum(dim=0)
    log_det = (
        -torch.log(torch.diagonal(factor, dim1=1, dim2=2)).sum(dim=1) + joint.prior_log_normalizer(params) / term.q
    )
    return LevelQuadrature(torch.cat(values, dim=1) + constant + log_det[:, None], mode, spread, grid)


def _pieces(points: int, rows_a_point: int) -> Iterator[slice]:
    size = max(1, _ROWS_AT_ONCE // rows_a_point)
    for start in range(0, points, size):
        yield slice(start, start + size)


def _points(mode: Tensor, spread: Tensor, grid: Tensor) -> Tensor:
    return mode[:, :, None] + (spread @ grid).reshape(*mode.shape, -1)


@dataclass(frozen=True)
class SecondOrder:
    """The log-likelihood near the parameters: coefficients, classes innermost, then variance parameters and dispersion.

    Attributes
    ----------
    value : float
        Log p(y).
    score : Tensor, (k,)
    information : Tensor, (k, k)
        Minus the second derivatives.
    complete : Tensor, (k, k)
        Information if b were observed, averaged over its posterior; about Sigma the expected one.
    """

    value: float
    score: Tensor
    information: Tensor
    complete: Tensor


def second_order(
    joint: JointModel,
    params: Parameters,
    f: Tensor | None,
    columns: FixedColumns,
    active: tuple[VarianceParameter, ...],
    nodes: int,
) -> SecondOrder:
    """Value, score and information of the log-likelihood by Fisher's and Louis' identities, in one pass.

    Parameters
    ----------
    f : Tensor, (n, C), optional
        Network output, held fixed.
    columns : FixedColumns
        Columns of the fixed part, in place of X.
    active : tuple of VarianceParameter, (k,)
        See :func:`glmmnet.variance.active_parameters`; the dispersion, if it is among them, last.
    nodes : int
        Quadrature points a dimension.

    References
    ----------
    Louis (1982), J. R. Stat. Soc. B 44(2), 226-233.
    """
    term, precision, fixed = joint.terms[0], joint.precisions(params)[0], joint.fixed_eta(params, f)
    of_sigma = tuple(p for p in active if p.term >= 0)
    derivatives = [derivative(joint, params, p) for p in of_sigma]
    pulled = [precision[p.class_] @ d @ precision[p.class_] for p, d in zip(of_sigma, derivatives, strict=True)]
    size, k = columns.values.shape[1] * joint.n_coefficients, len(active)
    dispersion = k > len(of_sigma)
    mean_curvature = torch.zeros(joint.n, joint.n_predictors, joint.n_predictors, dtype=torch.float64)
    mean_cross, about_dispersion = torch.zeros(joint.n, joint.n_predictors, dtype=torch.float64), 0.0
    mean = torch.zeros(term.q, size + k, dtype=torch.float64)
    second = torch.zeros(size + k, size + k, dtype=torch.float64)
    quadrature = level_quadrature(joint, fixed, params, nodes)
    for b, probability in quadrature.points(joint.n * max(size, 1)):
        eta = fixed + joint.random_eta(b)
        _, score = joint.log_likelihood_and_score(eta, params.phi)
        of_row = probability.index_select(0, term.index)
        mean_curvature += torch.einsum("ncds,ns->ncd", joint.curvature(eta, params.phi), of_row)
        scores = []
        if size:
            scores.append(term.level_sum(columns.by_row(score)))
        own = b.reshape(term.q, term.r, joint.n_classes, -1)
        for p, matrix in zip(of_sigma, pulled, strict=True):
            of_class = own[:, :, p.class_]
            trace = (matrix * params.sigma[0][p.class_]).sum()
            scores.append(0.5 * (torch.einsum("qis,ij,qjs->qs", of_class, matrix, of_class) - trace)[:, None])
        if dispersion:
            own_score, information, cross = joint.dispersion_derivatives(eta, params.phi)
            # On the scale of log phi^(1/2).
            scores.append(2.0 * term.level_sum(own_score)[:, None])
            about_dispersion += 4.0 * float((information * of_row).sum())
            mean_cross += 2.0 * torch.einsum("ncs,ns->nc", cross, of_row)
        every = torch.cat(scores, dim=1)
        weighted = every * probability[:, None]
        mean += weighted.sum(dim=2)
        second += torch.einsum("qas,qbs->ab", weighted, every)
    complete = torch.zeros_like(second)
    complete[:size, :size] = columns.information(mean_curvature)
    for a, p in enumerate(of_sigma):
        for b_, other in enumerate(of_sigma):
            if other.class_ == p.class_:
                complete[size + a, size + b_] = 0.5 * term.q * (pulled[a] * derivatives[b_].T).sum()
    if dispersion:
        complete[-1, -1] = about_dispersion
        complete[:size, -1] = complete[-1, :size] = columns.transpose(mean_cross[:, :, None])[:, 0]
    value = float(torch.logsumexp(quadrature.log_mass, dim=1).sum())
    return SecondOrder(value, mean.sum(dim=0), complete - (second - mean.T @ mean), complete)
