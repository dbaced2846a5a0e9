"""Location expansion: what the draws of b have in common moves into beta, eta unchanged.

A column of X that is, within a term, a column of z times a function of the level (the intercept always is) competes
with b: plain EM crawls there. Regressing b on that function, weighted by Sigma, and moving the fit is exact and quiet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glmmnet.joint import JointModel, Parameters
from glmmnet.random_terms import TermData


@dataclass(frozen=True)
class Carrier:
    """The directions of beta that one term can carry: columns of X, of thresholds all together.

    Attributes
    ----------
    directions : Tensor, (p, k)
        Change of a class's beta for a unit of each; of correlated classes (p C, k), the classes innermost.
    design : Tensor, (q, r, k)
        X directions = z_i' design[level of i] in row i.
    """

    directions: Tensor
    design: Tensor


def find_carriers(joint: JointModel) -> tuple[Carrier, ...]:
    """What each random term can carry of X, from the data alone; done once a fit."""
    candidates = _candidates(joint)
    return tuple(_carrier(term, *candidates) for term in joint.terms)


def _candidates(joint: JointModel) -> tuple[Tensor, Tensor | None, Tensor]:
    """Columns (n, k) that a term may carry, their loadings (k, C) or None, and their directions of beta."""
    x, loading = joint.X, joint.x_loading
    if joint.target.correlated:
        classes = joint.n_predictors
        x = x.repeat_interleave(classes, dim=1)
        loading = torch.eye(classes, dtype=torch.float64).repeat(joint.X.shape[1], 1)
    directions = torch.eye(x.shape[1], dtype=torch.float64)
    if not joint.target.thresholds or joint.constant is None or loading is None or joint.f_loading is None:
        return x, loading, directions
    # No random column is like a single threshold: together they are like an intercept.
    rest = slice(len(joint.target.thresholds), None)
    return (
        torch.cat([torch.ones_like(x[:, :1]), x[:, rest]], dim=1),
        torch.cat([joint.f_loading[None], loading[rest]]),
        torch.cat([joint.constant[:, None], directions[:, rest]], dim=1),
    )


def _carrier(term: TermData, x: Tensor, loading: Tensor | None, directions: Tensor) -> Carrier:
    found: dict[int, Tensor] = {}
    for own, z, cell in _alternatives(term):
        cells = term.q * (own.stop - own.start)
        square = torch.zeros(cells, dtype=torch.float64).index_add_(0, cell, z.square())
        seen = square > 0
        sums = torch.zeros(cells, x.shape[1], dtype=torch.float64).index_add_(0, cell, z[:, None] * x)
        value = sums / square.clamp_min(1e-300)[:, None]
        misfit = (z[:, None] * value[cell] - x).abs().amax(dim=0)
        exact = misfit <= 1e-9 * x.abs().amax(dim=0).clamp_min(1e-300)
        if loading is not None and term.loading is not None:
            exact &= (loading[:, None] == term.loading[own]).all(dim=2).all(dim=1)
        for column in torch.nonzero(exact)[:, 0].tolist():
            if column not in found:
                found[column] = torch.zeros(term.q, term.r, dtype=torch.float64)
                found[column][:, own] = _filled(value[:, column].reshape(term.q, -1), seen.reshape(term.q, -1))
    for column, share in _sums_of_columns(term, x, loading).items():
        found.setdefault(column, share.expand(term.q, -1))
    columns = sorted(found)
    design = torch.zeros(term.q, term.r, len(columns), dtype=torch.float64)
    for k, column in enumerate(columns):
        design[:, :, k] = found[column]
    return Carrier(directions[:, columns], design)


def _sums_of_columns(term: TermData, x: Tensor, loading: Tensor | None) -> dict[int, Tensor]:
    """Columns of X that are combinations of z's, such as x of 1 and x - c: the columns' shares (r,)."""
    z = term.columns()
    alike = term.loading is None or bool((term.loading == term.loading[0]).all())
    if term.r == 1 or not alike:
        return {}
    share = torch.linalg.lstsq(z, x, driver="gelsd").solution
    exact = (z @ share - x).abs().amax(dim=0) <= 1e-9 * x.abs().amax(dim=0).clamp_min(1e-300)
    if loading is not None and term.loading is not None:
        exact &= (loading == term.loading[0]).all(dim=1)
    return {column: share[:, column] for column in torch.nonzero(exact)[:, 0].tolist()}


def _alternatives(term: TermData) -> list[tuple[slice, Tensor, Tensor]]:
    """Columns of z that may be like a column of X: alone and, where no row has two of them, together.

    Each as (columns, their value in each row (n,), which effect that multiplies (n,), counted level by level).
    """
    z = term.columns()
    alone = [(slice(j, j + 1), z[:, j], term.index) for j in range(term.r)]
    if term.r == 1 or int((z != 0).sum(dim=1).max()) > 1:
        return alone
    return [*alone, (slice(0, term.r), z.sum(dim=1), term.index * term.r + (z != 0).to(torch.uint8).argmax(dim=1))]


def _filled(value: Tensor, seen: Tensor) -> Tensor:
    """Values (q, k) of a level's effects; of those that no row has, which may have any, the mean of its others."""
    mean = (value * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True).clamp_min(1)
    return torch.where(seen, value, mean)


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
        if not carrier.directions.shape[1]:
            continue
        own = mean_b[term.rows].reshape(term.q, term.r, -1)
        moved = torch.zeros_like(own)
        for c in range(joint.n_classes):
            weighted = torch.einsum("qik,ij->qjk", term.decorrelated(carrier.design), precision[c])
            normal = torch.einsum("qjk,qjl->kl", weighted, carrier.design)
            inverse = torch.linalg.pinv(normal, hermitian=True)
            gamma = inverse @ torch.einsum("qjk,qj->k", weighted, own[:, :, c])
            found, error = carrier.directions @ gamma, carrier.directions.square() @ torch.diagonal(inverse)
            of_class = slice(None) if joint.n_classes == 1 else slice(c, c + 1)
            beta[:, of_class] += found.reshape(len(beta), -1)
            variance[:, of_class] += error.reshape(len(beta), -1)
            moved[:, :, c] = carrier.design @ gamma
        shift[term.rows] = moved.reshape(-1, joint.n_classes)
    return Relocation(beta, shift, variance)
