"""Likelihoods without an estimate: those that rise for ever along columns or groups, those flat in the means."""

from __future__ import annotations

from typing import cast

import numpy as np
import scipy.optimize
import scipy.sparse as sp
import torch
from torch import Tensor

from glmmnet.joint import JointModel, Parameters

#: Rows are looked at where some fitted weight is below this share of the largest: elsewhere nothing has run away.
_FLAT = 1e-2
#: Coefficients of standardised columns below this are rounding errors of the linear programme.
_NONZERO = 1e-6
#: Cost of the intercept beside 1 of every other column: whatever separates, it is not to be blamed.
_COST_OF_INTERCEPT = 1e-3
#: Entries of the linear programme above which it is not solved.
_MOST_ENTRIES = 200_000_000
#: Standard deviations of a term beyond this, in units of eta: nearly all levels have probabilities of 0 or 1.
_RUNAWAY_SD = 15.0
#: Means farther from the response than so many times its range are no extrapolation.
_BEYOND = 10.0


def separating_columns(joint: JointModel, params: Parameters, f: Tensor | None = None) -> tuple[str, ...]:
    """Names of the fewest columns of X that separate the responses; empty where the estimates are finite.

    A direction d of beta along which no row's likelihood falls and some row's rises is found by a linear programme;
    of all such directions it is the one with the smallest sum of absolute coefficients of standardised columns.

    Parameters
    ----------
    joint : JointModel
    params : Parameters
        Where the fit ended: the programme is solved only if some row's weight has all but vanished there.
    f : Tensor, (n, C), optional

    References
    ----------
    Konis (2007), Linear programming algorithms for detecting separated data in binary logistic regression models,
    section 3.3.
    """
    family, y = joint.family, joint.target.y
    if not joint.x_names or family.unbounded(y[:1]) is None:
        return ()
    eta = joint.fixed_eta(params, f)
    weight = family.weight_diagonal(eta, y, params.phi)[..., 0]
    if joint.x_loading is None:
        weight = weight.sum(dim=1, keepdim=True)
    counted = joint.weights > 0
    if not _some_vanished(weight[counted]):
        return ()
    # Rows that are alike constrain alike; of many classes those of all rows would fill the memory.
    _, first, alike = np.unique(np.hstack([y[:, :, 0], joint.X]), axis=0, return_index=True, return_inverse=True)
    if len(first) * joint.n_predictors**2 * joint.X.shape[1] * joint.n_coefficients > _MOST_ENTRIES:
        return ()
    rows = cast(Tensor, family.unbounded(y[first]))
    told = (rows != 0).any(dim=2).any(dim=1)
    counted &= told[alike.ravel()]
    if not _some_vanished(weight[counted]):
        return ()
    x = joint.X[counted].numpy()
    spread, size = x.std(axis=0), np.sqrt((x**2).mean(axis=0))
    constant = spread <= 1e-12 * size
    centre = np.where(constant | (not joint.intercepts), 0.0, x.mean(axis=0))
    kept = told & torch.zeros(len(first), dtype=torch.bool).index_fill_(
        0, torch.as_tensor(alike.ravel())[counted], True
    )
    x = (joint.X[first].numpy() - centre) / np.where(constant, np.maximum(size, 1e-300), spread)
    loading = None if joint.x_loading is None else joint.x_loading.numpy()
    cost = np.where(constant, _COST_OF_INTERCEPT, 1.0)
    direction = _direction(x[kept], rows[kept].numpy(), cost, loading)
    involved = np.abs(direction).max(axis=1, initial=0.0) > _NONZERO
    if (involved & ~constant).any():
        involved &= ~constant
    return tuple(name for name, is_in in zip(joint.x_names, involved, strict=True) if is_in)


def _some_vanished(weight: Tensor) -> bool:
    """Whether some weight (n, K) is nothing beside the largest of its column."""
    return bool((weight <= _FLAT * weight.amax(dim=0)).any()) if len(weight) else False


def separating_groups(joint: JointModel, params: Parameters) -> tuple[str, ...]:
    """Grouping factors whose variance has run away, as it does where each level has one outcome only."""
    if joint.family.unbounded(joint.target.y[:1]) is None:
        return ()
    found = []
    for term, sigma in zip(joint.terms, params.sigma, strict=True):
        reach = sigma.diagonal(dim1=1, dim2=2).sqrt() * term.size
        if bool((reach > _RUNAWAY_SD * joint.eta_unit).any()):
            found.append(term.group)
    return tuple(dict.fromkeys(found))


def beyond_response(joint: JointModel, params: Parameters, f: Tensor | None, b: Tensor) -> tuple[float, float] | None:
    """The fitted mean farthest from the response and the response nearest to it, where those are orders apart.

    A likelihood may be flat in means: a negative binomial with theta near 0 makes 0 certain whatever its mean.

    Parameters
    ----------
    joint : JointModel
    params : Parameters
    f : Tensor, (n, C), optional
    b : Tensor, (Q, C, 1)
        Random effects.
    """
    if joint.family.class_means:
        return None
    mean = joint.family.mean(joint.fixed_eta(params, f) + joint.random_eta(b), params.phi)[:, 0, 0]
    counted = joint.weights > 0
    observed, mean = joint.family.observed(joint.target.y)[counted], mean[counted]
    low, high = observed.min(), observed.max()
    away = torch.maximum(mean - high, low - mean)
    if high == low or not bool(away.max() > _BEYOND * (high - low)):
        return None
    farthest = mean[away.argmax()]
    return float(farthest), float(high if farthest > high else low)


def _direction(x: np.ndarray, rows: np.ndarray, cost: np.ndarray, loading: np.ndarray | None) -> np.ndarray:
    """The cheapest d (p, C) with A_i (x_i' d) >= 0 in all rows and a mean of 1; 0 where there is none.

    With loadings (p, C) of the columns d is (p, 1).
    """
    classes = rows.shape[2] if loading is None else 1
    if loading is None:
        constraints = np.einsum("ikc,ij->ikjc", rows, x).reshape(-1, x.shape[1] * classes)
    else:
        constraints = np.einsum("ikc,jc,ij->ikj", rows, loading, x).reshape(-1, x.shape[1])
    constraints = np.unique(constraints[constraints.any(axis=1)], axis=0)
    total = constraints.mean(axis=0)
    both = sp.csr_matrix(np.hstack([constraints, -constraints]))
    result = scipy.optimize.linprog(
        np.tile(np.repeat(cost, classes), 2),
        A_ub=-both,
        b_ub=np.zeros(len(constraints)),
        A_eq=np.concatenate([total, -total])[None],
        b_eq=[1.0],
        method="highs",
    )
    if not result.success:
        return np.zeros((x.shape[1], classes))
    plus, minus = np.split(result.x, 2)
    return (plus - minus).reshape(x.shape[1], classes)
