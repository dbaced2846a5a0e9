"""Variance parameters one by one, on the scales where their errors are nearly normal: log sd and Fisher z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glmmnet.joint import JointModel, Parameters

#: Smallest eigenvalue of a correlation matrix that counts as inside the boundary.
_SINGULAR = 1e-6


@dataclass(frozen=True)
class VarianceParameter:
    """One variance parameter on the scale where its error is nearly normal.

    Attributes
    ----------
    term : int
        Position of the random term; -1 for the residual.
    class_ : int
    i, j : int
        Column of a standard deviation (i == j, log scale), pair of a correlation (i < j, Fisher z scale).
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
            out += [VarianceParameter(k, c, i, i) for i in range(term.r)]
            out += [VarianceParameter(k, c, i, j) for i, j in term.covariance.correlations(term.r)]
    if joint.family.has_dispersion:
        out.append(VarianceParameter(-1, 0, 0, 0))
    return tuple(out)


def active_parameters(joint: JointModel, params: Parameters) -> tuple[VarianceParameter, ...]:
    """The variance parameters that are not on their boundary: positive variances, correlations away from +-1."""
    return tuple(p for p in variance_parameters(joint) if _is_inside(params, p))


def _is_inside(params: Parameters, parameter: VarianceParameter) -> bool:
    if parameter.term < 0:
        return params.phi > 0
    sigma = params.sigma[parameter.term][parameter.class_]
    sd = torch.diagonal(sigma).sqrt()
    if not bool(sd[parameter.i] > 0 and sd[parameter.j] > 0):
        return False
    return parameter.i == parameter.j or not is_singular(sigma)


def is_singular(sigma: Tensor) -> bool:
    """Whether the correlations of the columns of Sigma (r, r) with a positive variance are on their boundary."""
    sd = torch.diagonal(sigma).sqrt()
    inside = sigma[sd > 0][:, sd > 0] / (sd[sd > 0][:, None] * sd[sd > 0])
    return bool((torch.linalg.eigvalsh(inside) < _SINGULAR).any())


def shifted(params: Parameters, parameters: tuple[VarianceParameter, ...], shift: np.ndarray) -> Parameters:
    """`params` moved by `shift` on the log-sd and Fisher-z scales."""
    sds = [torch.diagonal(s, dim1=-2, dim2=-1).sqrt() for s in params.sigma]
    correlations = [
        s / (sd[:, :, None] * sd[:, None, :]).clamp_min(1e-300) for s, sd in zip(params.sigma, sds, strict=True)
    ]
    sds = [sd.clone() for sd in sds]
    phi = params.phi
    for p, delta in zip(parameters, shift, strict=True):
        if p.term < 0:
            phi *= float(np.exp(2 * delta))
        elif p.i == p.j:
            sds[p.term][p.class_, p.i] *= float(np.exp(delta))
        else:
            z = torch.atanh(correlations[p.term][p.class_, p.i, p.j].clamp(-0.999999, 0.999999)) + delta
            correlations[p.term][p.class_, p.i, p.j] = correlations[p.term][p.class_, p.j, p.i] = torch.tanh(z)
    sigma = [r * sd[:, :, None] * sd[:, None, :] for r, sd in zip(correlations, sds, strict=True)]
    return Parameters(params.beta, tuple(sigma), phi)


def derivative(params: Parameters, parameter: VarianceParameter, h: float = 1e-5) -> Tensor:
    """Derivative of Sigma with respect to one parameter, (r, r)."""
    if parameter.term < 0:
        return torch.zeros(0, 0)
    up = shifted(params, (parameter,), np.array([h])).sigma[parameter.term][parameter.class_]
    down = shifted(params, (parameter,), np.array([-h])).sigma[parameter.term][parameter.class_]
    return (up - down) / (2 * h)
