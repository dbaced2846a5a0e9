"""Tests of linear hypotheses about the fixed effects, and of nested models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.stats
import torch

from glmmnet.covariances import COVARIANCES
from glmmnet.errors import OptionError, check_alpha
from glmmnet.families import Family, ModelledDispersion
from glmmnet.fitted import Fitted
from glmmnet.formula.constraints import linear_constraints
from glmmnet.typing import RandomTerm
from glmmnet.wald import coefficient_table, interval, p_values, z_values

#: Text, several, the matrix R, or (R, q).
Hypothesis = str | Sequence[str] | np.ndarray | tuple[np.ndarray, np.ndarray]

#: Largest rest of a column that counts as a combination of others, over its largest entry.
_ROUNDING = 1e-8


@dataclass(frozen=True)
class ContrastResults:
    """z tests of linear combinations R beta = q, one by one.

    Attributes
    ----------
    effect, sd, tvalue, pvalue : ndarray, (m,)
        Estimated R beta, its standard error, the z value and its two-sided p-value.
    names : tuple of str
    """

    effect: np.ndarray
    sd: np.ndarray
    tvalue: np.ndarray
    pvalue: np.ndarray
    names: tuple[str, ...]

    def conf_int(self, alpha: float = 0.05) -> np.ndarray:
        """Intervals of R beta, (m, 2)."""
        return interval(self.effect, self.sd, check_alpha(alpha))

    def summary_frame(self, alpha: float = 0.05) -> pd.DataFrame:
        """One row a combination: coef, std err, z, P>|z|, interval."""
        return coefficient_table(self.effect, self.sd, self.tvalue, check_alpha(alpha), self.names)

    def __str__(self) -> str:
        return str(self.summary_frame().round(4))


@dataclass(frozen=True)
class WaldResult:
    """Wald test of several linear hypotheses at once: chi-squared statistic, its degrees of freedom, p-value."""

    statistic: float
    df: int
    pvalue: float

    def __str__(self) -> str:
        return f"Wald test: chi2({self.df}) = {self.statistic:.4f}, p = {self.pvalue:.4g}"


@dataclass(frozen=True)
class LRTResult:
    """Likelihood-ratio test of nested models.

    Attributes
    ----------
    statistic : float
        Twice the difference of the log-likelihoods.
    df : int
        Parameters the larger model has more.
    pvalue : float
        From the chi-squared distribution; where a variance is tested at 0 it is conservative.
    statistic_se : float
        Monte Carlo standard error of the statistic.
    boundary : bool
        The larger model has more variances: they are tested at 0, where the p-value is too large (of a single one
        about twice the right one).
    """

    statistic: float
    df: int
    pvalue: float
    statistic_se: float
    boundary: bool

    def __str__(self) -> str:
        # Without the sign of a rounding error.
        statistic = round(self.statistic, 4) + 0.0
        text = f"LR test: chi2({self.df}) = {statistic:.4f} (MC se {self.statistic_se:.2g}), p = {self.pvalue:.4g}"
        return f"{text}\nconservative: a variance is tested at 0" if self.boundary else text


def hypothesis(given: Hypothesis, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """R (m, k) and q (m,) of R beta = q, one column a name; OptionError unless each row constrains a coefficient."""
    if isinstance(given, str):
        return linear_constraints(given, names)
    if isinstance(given, list | tuple) and given and all(isinstance(one, str) for one in given):
        return linear_constraints(", ".join(map(str, given)), names)
    matrix, values = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    try:
        r = np.atleast_2d(np.asarray(matrix, dtype=float))
        q = np.zeros(len(r)) if values is None else np.asarray(values, dtype=float).reshape(-1)
    except (TypeError, ValueError):
        raise TypeError(
            f"r_matrix={given!r} must be text such as 'x1 - x2 = 0', a matrix R of {len(names)} columns, or (R, q)."
        ) from None
    if r.ndim != 2 or r.shape[1] != len(names):
        raise OptionError(f"r_matrix has shape {r.shape}; it needs {len(names)} columns, one for each of {names}.")
    if len(q) != len(r):
        raise OptionError(f"q has {len(q)} values; R has {len(r)} rows.")
    if not (np.isfinite(r).all() and np.isfinite(q).all()):
        raise OptionError("r_matrix holds values that are not finite.")
    if (empty := np.flatnonzero(~r.any(axis=1))).size:
        raise OptionError(f"row {empty[0]} of r_matrix is all zero; it constrains nothing.")
    return r, q


def t_test(estimate: np.ndarray, covariance: np.ndarray, r: np.ndarray, q: np.ndarray) -> ContrastResults:
    """Test each row of R beta = q."""
    effect = r @ estimate
    sd = np.sqrt(np.einsum("ij,jk,ik->i", r, covariance, r))
    z = z_values(effect - q, sd)
    names = tuple(f"c{i}" for i in range(len(effect)))
    return ContrastResults(effect, sd, z, p_values(z), names)


def wald_test(estimate: np.ndarray, covariance: np.ndarray, r: np.ndarray, q: np.ndarray) -> WaldResult:
    """Test all rows of R beta = q together."""
    difference = r @ estimate - q
    middle = r @ covariance @ r.T
    df = int(np.linalg.matrix_rank(middle))
    inverse = np.linalg.pinv(middle, hermitian=True)
    if np.abs(middle @ inverse @ difference - difference).max() > 1e-6 * np.abs(difference).max():
        raise OptionError("the hypotheses contradict each other, or constrain what the data do not identify.")
    statistic = float(difference @ inverse @ difference)
    return WaldResult(statistic, df, float(scipy.stats.chi2.sf(statistic, df)))


def lr_test(llf: float, df: int, restricted_llf: float, restricted_df: int, se: float, boundary: bool) -> LRTResult:
    """Likelihood-ratio test of a model against one that it contains; `se` is that of the difference."""
    statistic, extra = 2 * (llf - restricted_llf), df - restricted_df
    return LRTResult(statistic, extra, float(scipy.stats.chi2.sf(max(statistic, 0.0), extra)), 2 * se, boundary)


def check_nested(larger: Fitted, smaller: Fitted, df: int, smaller_df: int) -> None:
    """OptionError unless the larger model, of `df` parameters, contains the smaller one on the same rows.

    What is in an nn() block is not looked into: it may hold any function of its variables.
    """
    _check_data(larger, smaller)
    _check_likelihoods(larger, smaller)
    if df <= smaller_df:
        raise OptionError(
            f"the other model has {smaller_df} parameters, this one {df}: compare the larger model with the "
            "smaller, larger.compare_lr_test(smaller)."
        )
    _check_fixed(larger, smaller)
    held = [part for term in larger.design.random for part in _separate(term)]
    for term in smaller.design.random:
        for part in _separate(term):
            if not any(_holds(one, part) for one in held):
                raise OptionError(
                    f"the larger model does not contain the smaller one's random term `{term.label}`; it needs one of "
                    "the same groups with these columns, and a structure that has theirs as a special case."
                )


def tests_a_variance(larger: Fitted, smaller: Fitted) -> bool:
    """Whether the larger model has variances that the smaller one has at 0, the boundary of what they may be."""
    counts = [
        sum(len(t.covariance.deviations(t.r)) for t in f.joint.terms) * f.joint.n_classes for f in (larger, smaller)
    ]
    return counts[0] > counts[1]


def _check_data(larger: Fitted, smaller: Fitted) -> None:
    one, other = larger.joint, smaller.joint
    if one.nobs != other.nobs:
        raise OptionError(f"the models were fitted to {one.nobs} and {other.nobs} rows; they need the same rows.")
    if one.family.name != other.family.name or not torch.equal(one.target.y, other.target.y):
        raise OptionError("the models have different responses or families; their likelihoods do not compare.")
    if (one.divisor is None) != (other.divisor is None):
        raise OptionError("one model has precision weights, the other has not; fit both with the same weights.")
    same = one.divisor is None or other.divisor is None or torch.equal(one.divisor, other.divisor)
    if not same or not torch.equal(one.weights, other.weights):
        raise OptionError("the models have different weights; fit both with the same weights.")
    offsets = smaller.design.offset - larger.design.offset
    if np.abs(offsets).max(initial=0.0) > 1e-12 and not _spans(_columns(larger, ""), offsets[:, None]):
        raise OptionError(
            "the models have different offsets, and the columns of the larger one do not make up for it; give both the "
            "same offset()."
        )


def _check_likelihoods(larger: Fitted, smaller: Fitted) -> None:
    one, other = _plain(larger.joint.family), _plain(smaller.joint.family)
    for name, value in one.options.items():
        # Independent effects of the classes are a special case of correlated ones.
        correlated = name == "class_cov" and value == "us"
        if not correlated and value != other.options.get(name, value):
            raise OptionError(
                f"the families differ: {name}={value!r} in this model, {other.options[name]!r} in the other; fit both "
                "with the same."
            )
    if larger.config.reml != smaller.config.reml:
        raise OptionError("one model is fitted by REML, the other by ML; fit both with the same reml=.")
    if larger.config.reml and not _same_columns(larger, smaller):
        raise OptionError(
            "REML likelihoods of models with different fixed effects do not compare: each integrates its own beta "
            "out. Fit both with reml=False."
        )


def _same_columns(larger: Fitted, smaller: Fitted) -> bool:
    """Whether the fixed effects have the same columns, in whatever order."""
    names, others = larger.joint.x_names, smaller.joint.x_names
    return sorted(names) == sorted(others) and torch.equal(
        larger.joint.X, smaller.joint.X[:, [others.index(name) for name in names]]
    )


def _plain(family: Family) -> Family:
    """The family without the formula of its dispersion."""
    return family.family if isinstance(family, ModelledDispersion) else family


def _check_fixed(larger: Fitted, smaller: Fitted) -> None:
    networks, inside = ({name for term in f.design.neural for name in term.variables} for f in (larger, smaller))
    if missing := sorted(inside - networks):
        raise OptionError(f"the smaller model has {', '.join(missing)} in nn(), the larger one has not.")
    for part in dict.fromkeys(smaller.design.x_parts):
        if part == "" and larger.design.neural:
            # f may be any function of its inputs.
            continue
        held = _columns(larger, part)
        outside = [
            name
            for name, own, column in zip(
                smaller.design.x_names, smaller.design.x_parts, smaller.design.X.T, strict=True
            )
            if own == part and not _spans(held, column[:, None])
        ]
        if outside:
            raise OptionError(
                f"the larger model does not contain the smaller one's fixed effects {', '.join(outside)}: their "
                "columns are no combination of its own."
            )


def _columns(fitted: Fitted, part: str) -> np.ndarray:
    """Columns of X of one formula, (n, k), with the constant that thresholds are."""
    own = [at for at, name in enumerate(fitted.design.x_parts) if name == part]
    columns = fitted.design.X[:, own]
    return np.column_stack([columns, np.ones(len(columns))]) if fitted.joint.target.thresholds and not part else columns


def _spans(columns: np.ndarray, other: np.ndarray) -> bool:
    """Whether every column of `other` (n, m) is a combination of `columns` (n, k)."""
    scale = np.abs(columns).max(axis=0, initial=0.0)
    scaled = columns[:, scale > 0] / scale[scale > 0]
    rest = other - scaled @ np.linalg.lstsq(scaled, other, rcond=None)[0]
    return bool((np.abs(rest).max(axis=0) <= _ROUNDING * np.abs(other).max(axis=0)).all())


def _separate(term: RandomTerm) -> list[RandomTerm]:
    """A term with independent columns as one term a column."""
    if term.structure != "diag":
        return [term]
    return [replace(term, names=(name,), z=term.z[:, [at]]) for at, name in enumerate(term.names)]


def _same_groups(index: np.ndarray, other: np.ndarray) -> bool:
    """Whether two level codes put the same rows together, as those of a:b and b:a do."""
    pairs = len(np.unique(np.column_stack([index, other]), axis=0))
    return pairs == len(np.unique(index)) == len(np.unique(other))


def _holds(larger: RandomTerm, smaller: RandomTerm) -> bool:
    """Whether the covariance of the larger term has that of the smaller one as a special case."""
    same = larger.part == smaller.part and _same_groups(larger.index, smaller.index)
    known, other = larger.correlation, smaller.correlation
    related = known is other if known is None or other is None else np.array_equal(known, other)
    if not same or not related:
        return False
    if larger.structure in ("us", "diag") or len(larger.names) == 1:
        return _spans(larger.z, smaller.z)
    if not set(smaller.names) <= set(larger.names):
        return False
    # A variance for each column lets the others be 0; one for all does not.
    apart = len(smaller.names) == 1 and not COVARIANCES[larger.structure].tied
    within = smaller.structure == larger.structure or (larger.structure, smaller.structure) == ("toep", "ar1")
    return apart or (within and smaller.names == larger.names)
