"""Location expansion: what the draws of b have in common moves into beta, eta unchanged.

A column of X that is, within a term, a column of z times a function of the level (the intercept always is) competes
with b: plain EM crawls there. Regressing b on that function, weighted by Sigma, and moving the fit is exact and quiet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glmmnet.joint import JointModel, Parameters, TermData


@dataclass(frozen=True)
class Carrier:
    """The columns of X that one term can carry.

    Attributes
    ----------
    columns : Tensor of int64, (k,)
        Columns of X.
    design : Tensor, (q, r, k)
        X[i, columns] = z_i' design[level of i].
    """

    columns: Tensor
    design: Tensor


def find_carriers(joint: JointModel) -> tuple[Carrier, ...]:
    """What each random term can carry of X, from the data alone; done once a fit."""
    return tuple(_carrier(joint, term) for term in joint.terms)


def _carrier(joint: JointModel, term: TermData) -> Carrier:
    z, x = term.columns(), joint.X
    found: dict[int, tuple[int, Tensor]] = {}
    for j in range(term.r):
        square = term.level_sum(z[:, j : j + 1].square()).clamp_min(1e-300)
        value = term.level_sum(z[:, j : j + 1] * x) / square
        misfit = (z[:, j : j + 1] * value[term.index] - x).abs().amax(dim=0)
        exact = misfit <= 1e-9 * x.abs().amax(dim=0).clamp_min(1e-300)
        for column in torch.nonzero(exact)[:, 0].tolist():
            found.setdefault(column, (j, value[:, column]))
    columns = sorted(found)
    design = torch.zeros(term.q, term.r, len(columns), dtype=torch.float64)
    for k, column in enumerate(columns):
        j, value_of_level = found[column]
        design[:, j, k] = value_of_level
    return Carrier(torch.tensor(columns, dtype=torch.int64), design)


@dataclass(frozen=True)
class Relocation:
    """Result of a location expansion.

    Attributes
    ----------
    beta : Tensor, (p, C)
        What moves into beta.
    b : Tensor, (Q, C)
        What leaves every draw of b.
    variance : Tensor, (p, C)
        Sampling variance of the moved part, between levels: what the draws alone cannot tell of beta.
    """

    beta: Tensor
    b: Tensor
    variance: Tensor


def relocate(joint: JointModel, carriers: tuple[Carrier, ...], params: Parameters, mean_b: Tensor) -> Relocation:
    """Regress the mean draw of b (Q, C) on each term's carried columns, weighted by Sigma."""
    beta = torch.zeros_like(params.beta)
    variance = torch.zeros_like(params.beta)
    shift = torch.zeros_like(mean_b)
    precisions = joint.precisions(params)
    for term, carrier, precision in zip(joint.terms, carriers, precisions, strict=True):
        if not len(carrier.columns):
            continue
        own = mean_b[term.rows].reshape(term.q, term.r, -1)
        moved = torch.zeros_like(own)
        for c in range(joint.n_classes):
            weighted = torch.einsum("qik,ij->qjk", term.decorrelated(carrier.design), precision[c])
            normal = torch.einsum("qjk,qjl->kl", weighted, carrier.design)
            inverse = torch.linalg.pinv(normal, hermitian=True)
            gamma = inverse @ torch.einsum("qjk,qj->k", weighted, own[:, :, c])
            beta[carrier.columns, c] += gamma
            variance[carrier.columns, c] += torch.diagonal(inverse)
            moved[:, :, c] = carrier.design @ gamma
        shift[term.rows] = moved.reshape(-1, joint.n_classes)
    return Relocation(beta, shift, variance)
