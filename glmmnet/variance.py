"""Variance parameters one by one, on the scales where their errors are nearly normal: log sd and Fisher z."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from glmmnet.joint import JointModel, Parameters

#: Smallest eigenvalue of a correlation matrix that counts as inside the boundary.
_SINGULAR = 2e-4


@dataclass(frozen=True)
class VarianceParameter:
    """One variance parameter on the scale where its error is nearly normal.

    Attributes
    ----------
    term : int
        Position of the random term; -1 for the residual.
    class_ : int
    i, j : int
        Column of a standard deviation (i == j, log scale), pair of a correlation (i < j, Fisher z scale). Where the
        structure has one parameter for several columns or pairs, the first stands for it.
    """

    term: int
    class_: int
    i: int
    j: int


def variance_parameters(joint: JointModel) -> tuple[VarianceParameter, ...]:
    """Every variance parameter: term by term, class by class, standard deviations first; the residual's last."""
    out = []
    for k, term in enumerate(joint.terms):
        for c in range(joint.n_classes):
            out += [VarianceParameter(k, c, columns[0], columns[0]) for columns in term.covariance.deviations(term.r)]
            out += [VarianceParameter(k, c, i, j) for i, j in term.covariance.correlations(term.r)]
    if joint.family.has_dispersion:
        out.append(VarianceParameter(-1, 0, 0, 0))
    return tuple(out)


def active_parameters(joint: JointModel, params: Parameters) -> tuple[VarianceParameter, ...]:
    """The variance parameters that are not on their boundary: positive variances, correlations away from +-1."""
    return tuple(p for p in variance_parameters(joint) if _is_inside(joint, params, p))


def _is_inside(joint: JointModel, params: Parameters, p: VarianceParameter) -> bool:
    if p.term < 0:
        return params.phi > 0
    sigma = params.sigma[p.term][p.class_]
    if p.i == p.j:
        return bool(sigma[p.i, p.i] > 0)
    return not math.isnan(joint.terms[p.term].covariance.correlation(sigma, p.i, p.j)) and not is_singular(sigma)


def is_singular(sigma: Tensor) -> bool:
    """Whether the correlations of the columns of Sigma (r, r) with a positive variance are on their boundary."""
    sd = torch.diagonal(sigma).sqrt()
    inside = sigma[sd > 0][:, sd > 0] / (sd[sd > 0][:, None] * sd[sd > 0])
    return bool((torch.linalg.eigvalsh(inside) < _SINGULAR).any())


def shifted(
    joint: JointModel, params: Parameters, parameters: tuple[VarianceParameter, ...], shift: np.ndarray
) -> Parameters:
    """`params` moved by `shift` on the log-sd and Fisher-z scales."""
    phi = params.phi
    moves: dict[tuple[int, int], dict[tuple[int, int], float]] = {}
    for p, delta in zip(parameters, shift, strict=True):
        if p.term < 0:
            phi *= float(np.exp(2 * delta))
        else:
            moves.setdefault((p.term, p.class_), {})[p.i, p.j] = float(delta)
    sigma = [matrix.clone() for matrix in params.sigma]
    for (k, c), own in moves.items():
        sigma[k][c] = joint.terms[k].covariance.shifted(params.sigma[k][c], own)
    return Parameters(params.beta, tuple(sigma), phi)


def transformed(joint: JointModel, params: Parameters, p: VarianceParameter) -> float:
    """Log standard deviation or Fisher z of one parameter of an unstructured term; infinite on the boundary."""
    sigma = params.sigma[p.term][p.class_]
    if p.i == p.j:
        return 0.5 * float(torch.log(sigma[p.i, p.i]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.arctanh(joint.terms[p.term].covariance.correlation(sigma, p.i, p.j)))


def derivative(joint: JointModel, params: Parameters, parameter: VarianceParameter, h: float = 1e-5) -> Tensor:
    """Derivative of Sigma with respect to one parameter, (r, r)."""
    if parameter.term < 0:
        return torch.zeros(0, 0)
    up = shifted(joint, params, (parameter,), np.array([h])).sigma[parameter.term][parameter.class_]
    down = shifted(joint, params, (parameter,), np.array([-h])).sigma[parameter.term][parameter.class_]
    return (up - down) / (2 * h)


def without(joint: JointModel, params: Parameters, keep: Sequence[Tensor]) -> Parameters:
    """`params` with variances of exactly 0, and their covariances, where no column that shares one is to be kept.

    Parameters
    ----------
    keep : sequence of Tensor of bool, each (C, r)
        Of each term, which variances are told from 0.
    """
    sigma = []
    for term, matrix, columns in zip(joint.terms, params.sigma, keep, strict=True):
        kept = torch.zeros_like(columns, dtype=matrix.dtype)
        for shared in term.covariance.deviations(term.r):
            kept[:, shared] = columns[:, shared].any(dim=1, keepdim=True).to(matrix.dtype)
        sigma.append(matrix * kept[:, :, None] * kept[:, None, :])
    return replace(params, sigma=tuple(sigma))
