"""How much of the response's variance a model explains: R2 and intraclass correlations, on the scale of eta."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from glmmnet.fitted import Fitted
from glmmnet.random_terms import TermData

#: Row of :func:`icc` that is the sum over the grouping factors.
TOTAL = "Total"


@dataclass(frozen=True)
class Shares:
    """The variance of the response on the scale of the first linear predictor, part by part.

    Attributes
    ----------
    fixed : float
        Variance over the rows of X beta + f, without offsets.
    random : dict of str to float
        Of each grouping factor, averaged over the rows.
    residual : float
        Of an observation, with effects of single rows.
    """

    fixed: float
    random: dict[str, float]
    residual: float


def shares(fitted: Fitted) -> Shares:
    """The parts of the variance.

    Raises
    ------
    FitError
        The family has no observation-level variance.

    References
    ----------
    Nakagawa, Johnson, Schielzeth (2017), The coefficient of determination R2 and intra-class correlation coefficient
    from generalized linear mixed-effects models revisited and expanded, J. R. Soc. Interface 14, 20170213. Johnson
    (2014), Extension of Nakagawa & Schielzeth's R2GLMM to random slopes models, Methods Ecol. Evol. 5, 944-946.
    """
    joint, weights = fitted.joint, fitted.joint.weights
    residual = float(weights @ _observation_variance(fitted) / weights.sum())
    fixed = joint.sum_of_fixed(joint.columns, fitted.params.beta, fitted.f)[:, 0, 0]
    centred = fixed - weights @ fixed / weights.sum()
    random: dict[str, float] = {}
    for term, sigma in zip(joint.terms, fitted.params.sigma, strict=True):
        if term.loading is not None and not bool(term.loading[:, 0].any()):
            # Of another part of the model, such as the dispersion.
            continue
        own = float(weights @ _term_variance(term, sigma) / weights.sum())
        if term.q == joint.n and term.relation is None:
            # An effect a row is overdispersion: what other families have in phi.
            residual += own
        else:
            random[term.group] = random.get(term.group, 0.0) + own
    return Shares(float(weights @ centred.square() / (weights.sum() - 1.0)), random, residual)


def _observation_variance(fitted: Fitted) -> Tensor:
    """Of each row at the mean response, (n,)."""
    joint, family = fitted.joint, fitted.joint.family
    observed = family.observed(joint.target.y)
    mean = (joint.row_weights @ observed / joint.row_weights.sum()).expand_as(observed)
    return family.observation_variance(mean, fitted.centre, joint.target.y, joint.row_phi(fitted.params.phi))


def _term_variance(term: TermData, sigma: Tensor) -> Tensor:
    """Variance of z'b in each row, (n,), b from its prior (C, r, r)."""
    z = term.columns() if term.loading is None else term.columns() * term.loading[:, 0]
    variance = torch.einsum("ni,ij,nj->n", z, sigma[0], z)
    return variance if term.relation is None else variance * term.relation.own[term.index]


def r2(parts: Shares) -> pd.Series:
    """Marginal and conditional R2."""
    random = sum(parts.random.values())
    whole = parts.fixed + random + parts.residual
    values = np.array([parts.fixed, parts.fixed + random]) / whole
    return pd.Series(values, index=["marginal", "conditional"], name="R2")


def icc(parts: Shares) -> pd.DataFrame:
    """Intraclass correlations, a row a grouping factor and one for all."""
    random = np.array([*parts.random.values(), sum(parts.random.values())])
    of_random = random[-1] + parts.residual
    values = {"adjusted": random / of_random, "unadjusted": random / (of_random + parts.fixed)}
    return pd.DataFrame(values, index=pd.Index([*parts.random, TOTAL], name="group"))
