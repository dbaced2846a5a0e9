"""Expected information about the variances in the linearised model, its traces estimated by random probes.

With working weights W the linearised response has covariance V = W^-1 + Z Sigma Z'; then
I_ab = tr(V^-1 dV_a V^-1 dV_b) / 2 needs M = Z'V^-1 Z = P - P H^-1 P alone, P = Z'WZ and H = P + Sigma^-1.
It stays positive where nearly all information is missing and Louis' formula is a small difference of large Monte Carlo
quantities.

References
----------
Hutchinson (1990), Commun. Stat. Simul. Comput. 19(2), 433-450.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glmmnet.cholesky import factorize
from glmmnet.joint import JointModel, Parameters
from glmmnet.variance import VarianceParameter, derivative

#: Probes, and the seed of their signs: asking twice gives the same errors.
_PROBES, _SEED = 50, 20240803


def expected_information(
    joint: JointModel, params: Parameters, weight: Tensor, active: tuple[VarianceParameter, ...]
) -> np.ndarray:
    """Expected information about the variance parameters, beta known, (k, k).

    Parameters
    ----------
    joint : JointModel
        Its precision can be factored, see :func:`glmmnet.gaussian.has_factor`.
    weight : Tensor, (n, C, C)
        Information of each row about eta.
    active : tuple of VarianceParameter, (k,)
    """
    derivatives = [derivative(joint, params, p) for p in active]
    information = np.zeros((len(active), len(active)))
    # Traces of H^-1 P and of its square; the residual's parameter needs them.
    first = second = 0.0
    residual = next((a for a, p in enumerate(active) if p.term < 0), None)
    for probe in _probes(joint, params, weight, squares=residual is not None):
        first, second = first + probe.trace, second + probe.trace_of_square
        for b, other in enumerate(active):
            if (other.term, other.class_) != (probe.term, probe.class_):
                continue
            for a, p in enumerate(active):
                if p.term >= 0:
                    inner = _inner(probe.pulled, joint, p, derivatives[a])
                    information[a, b] = 0.5 * float((derivatives[b] * inner.T).sum())
            if residual is not None:
                inner = torch.einsum("qcsi,qcsj->ij", probe.left, probe.pulled) / _PROBES
                information[residual, b] = information[b, residual] = float((derivatives[b] * inner).sum())
    if residual is not None:
        information[residual, residual] = 2.0 * (float(joint.weights.sum()) - 2.0 * first + second)
    return 0.5 * (information + information.T)


@dataclass(frozen=True)
class _Probe:
    """Random signs on one term and class, the same for each column of z; the last axis is the column they stand in.

    Where the levels have a known correlation A = L L', L times random signs.

    Attributes
    ----------
    term, class_ : int
    pulled, left : Tensor, (Q, C, S, r)
        M v, and v - H^-1 P v.
    trace, trace_of_square : float
        The share of these columns in the trace of H^-1 P and of its square (0 unless asked for).
    """

    term: int
    class_: int
    pulled: Tensor
    left: Tensor
    trace: float
    trace_of_square: float


def _probes(joint: JointModel, params: Parameters, weight: Tensor, *, squares: bool) -> Iterator[_Probe]:
    factor = factorize(joint.information(weight) + joint.precision_matrix(params), joint.segments)
    generator = torch.Generator().manual_seed(_SEED)

    def solve(v: Tensor) -> Tensor:
        return torch.as_tensor(factor.solve(v.reshape(-1, v.shape[2]).numpy())).reshape(v.shape)

    def weighted(v: Tensor) -> Tensor:
        return joint.random_transpose(torch.einsum("ncd,nds->ncs", weight, joint.random_eta(v)))

    for k, term in enumerate(joint.terms):
        for c in range(joint.n_classes):
            signs = 2.0 * torch.randint(0, 2, (term.q, _PROBES), generator=generator).to(torch.float64) - 1.0
            v = torch.zeros(joint.n_effects, joint.n_classes, _PROBES, term.r, dtype=torch.float64)
            own = v[term.rows].view(term.q, term.r, joint.n_classes, _PROBES, term.r)
            dual = v
            if term.relation is not None:
                # Probes have the covariance of the levels; traces then take their dual on one side.
                signs = term.relation.root @ signs
                dual = torch.zeros_like(v)
            for j in range(term.r):
                own[:, j, c, :, j] = signs
                if dual is not v:
                    theirs = dual[term.rows].view(own.shape)
                    theirs[:, j, c, :, j] = term.decorrelated(signs)
            flat = v.flatten(2)
            solved = solve(weighted(flat))
            left = flat - solved
            pulled = solved if dual is v else solve(weighted(dual.flatten(2)))
            square = float((pulled * weighted(solve(flat))).sum()) / _PROBES if squares else 0.0
            trace = float((dual.flatten(2) * solved).sum()) / _PROBES
            yield _Probe(k, c, weighted(left).reshape(v.shape), left.reshape(v.shape), trace, square)


def _inner(pulled: Tensor, joint: JointModel, p: VarianceParameter, matrix: Tensor) -> Tensor:
    """Mean over probes of u_i' D u_j, (r, r), u the `pulled` ones, D the derivative of b's covariance for `p`."""
    term = joint.terms[p.term]
    own = pulled[term.rows].reshape(term.q, term.r, *pulled.shape[1:])[:, :, p.class_]
    other = own if term.relation is None else term.relation.over_levels(term.relation.matrix, own)
    return torch.einsum("qasi,ab,qbsj->ij", own, matrix, other) / _PROBES
