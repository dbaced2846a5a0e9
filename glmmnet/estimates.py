"""Estimates as tables: fixed effects, variance components, random effects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
import scipy.stats
import torch
from torch import Tensor

from glmmnet.fitted import Fitted
from glmmnet.gaussian import GaussianPosterior, gaussian_posterior
from glmmnet.random_terms import TermData
from glmmnet.variance_errors import VarianceErrors

RESIDUAL = "Residual"
#: Standard error of a log standard deviation from which a variance may be next to 0.
_NEAR_ZERO = 0.5
#: Random effects whose exact posterior standard deviations are quickly computed.
_MOST_EXACT = 5000


def fixed_table(fitted: Fitted, values: np.ndarray, name: str) -> pd.Series | pd.DataFrame:
    """Values (p, C) a fixed effect: Series by design column, categorical: DataFrame term x class."""
    index = pd.Index(fitted.joint.x_names)
    # pandas 2 keeps the array it is given, and with it the estimates themselves.
    values = values.copy()
    if fitted.joint.coefficient_labels == ("",):
        return pd.Series(values[:, 0], index=index, name=name)
    return pd.DataFrame(values, index=index, columns=pd.Index(fitted.joint.coefficient_labels, name="class"))


def fixed_names(fitted: Fitted) -> list[str]:
    """One name a coefficient, classes innermost: ``x``, or ``x[b]`` for class b."""
    labels = fitted.joint.coefficient_labels
    if labels == ("",):
        return list(fitted.joint.x_names)
    return [f"{name}[{label}]" for name in fitted.joint.x_names for label in labels]


def variance_components(fitted: Fitted, errors: VarianceErrors, alpha: float) -> pd.DataFrame:
    """One row a variance; the interval is that of the standard deviation.

    On the log scale; of random effects whose log standard deviation has a large error see :func:`_near_zero`.
    """
    z = float(scipy.stats.norm.ppf(1 - alpha / 2))
    rows = []
    for k, (term, sigma) in enumerate(zip(fitted.joint.terms, fitted.params.sigma, strict=True)):
        for i, *_ in term.covariance.deviations(term.r):
            name = term.covariance.deviation_name(term.names, i)
            effects = term.q * term.r / len(term.covariance.deviations(term.r))
            for c, label in enumerate(fitted.joint.effect_labels):
                variance, error = float(sigma[c, i, i]), errors.of(k, c, i, i)
                ends = _near_zero(variance, error, z, effects) if error > _NEAR_ZERO else _log_scale(variance, error, z)
                rows.append((term.group, name, label, variance, variance**0.5, variance**0.5 * error, *ends, term.q))
    if fitted.joint.family.residual:
        phi, error = fitted.params.phi, errors.of(-1, 0, 0, 0)
        rows.append((RESIDUAL, "", "", phi, phi**0.5, phi**0.5 * error, *_log_scale(phi, error, z), None))
    columns = ["group", "term", "class", "variance", "sd", "se", "ci_low", "ci_high", "n_levels"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype({"n_levels": "Int64"})


def dispersion(fitted: Fitted, errors: VarianceErrors, alpha: float) -> pd.Series:
    """Phi with standard error and interval (on the log scale), named as the family names it; NaN where phi is 1."""
    known, phi = fitted.joint.family.has_dispersion, fitted.params.phi
    # The error is that of half of log phi.
    se_log = 2.0 * errors.of(-1, 0, 0, 0) if known else float("nan")
    half = float(scipy.stats.norm.ppf(1 - alpha / 2)) * se_log
    # A dispersion that the data say nothing about has an interval without end.
    with np.errstate(over="ignore"):
        values = {"estimate": phi, "se": phi * se_log, "ci_low": phi * np.exp(-half), "ci_high": phi * np.exp(half)}
    return pd.Series(values, name=fitted.joint.family.dispersion_name)


def _log_scale(variance: float, error: float, z: float) -> np.ndarray:
    """Ends of the interval of a standard deviation, whose logarithm has the standard error `error`."""
    # A variance that the data say nothing about has an interval without end.
    with np.errstate(over="ignore"):
        return np.asarray(variance**0.5 * np.exp([-z * error, z * error]))


def _near_zero(variance: float, error: float, z: float, effects: float) -> np.ndarray:
    """The same where the variance may be 0, cut there: on the scale of log(variance + v), v the noise of one effect.

    Of balanced normal data that sum is a mean square, and its logarithm has the error (2 / effects)^(1/2) whatever the
    variance is; the error at hand tells v. The likelihood has no curve there that log(variance) could follow: it falls
    on one side only.
    """
    of_sum = (2.0 / effects) ** 0.5
    ratio = max(2.0 * error / of_sum, 1.0)
    return np.sqrt(variance * np.clip(1.0 + ratio * np.expm1([-z * of_sum, z * of_sum]), 0.0, None))


def correlations(fitted: Fitted, errors: VarianceErrors, alpha: float) -> pd.DataFrame:
    """One row an estimated correlation: group, names, class, correlation, se, ci_low, ci_high (Fisher's z).

    Where one correlation is that of many pairs, `first` is its name and `second` empty.
    """
    z = float(scipy.stats.norm.ppf(1 - alpha / 2))
    rows = []
    for k, (term, sigma) in enumerate(zip(fitted.joint.terms, fitted.params.sigma, strict=True)):
        for i, j in term.covariance.correlations(term.r):
            first, second = term.covariance.correlation_name(term.names, i, j)
            for c, label in enumerate(fitted.joint.effect_labels):
                value = term.covariance.correlation(sigma[c], i, j)
                value = min(max(value, -1.0), 1.0)
                se_z = errors.of(k, c, i, j)
                centre = np.arctanh(value) if abs(value) < 1 else float("nan")
                low, high = np.tanh(centre - z * se_z), np.tanh(centre + z * se_z)
                rows.append((k, term.group, first, second, label, value, (1 - value**2) * se_z, low, high))
    columns = ["position", "group", "first", "second", "class", "correlation", "se", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def covariance_matrices(fitted: Fitted) -> dict[str, pd.DataFrame]:
    """Sigma of each grouping factor; categorical: rows and columns (term, class). Terms of one group are joined."""
    blocks: dict[str, list[tuple[pd.Index, np.ndarray]]] = {}
    labels = fitted.joint.effect_labels
    for term, sigma in zip(fitted.joint.terms, fitted.params.sigma, strict=True):
        r, classes = term.r, len(labels)
        whole = np.zeros((r, classes, r, classes))
        for c in range(classes):
            whole[:, c, :, c] = sigma[c].numpy()
        blocks.setdefault(term.group, []).append(
            (_effect_index(term.names, labels), whole.reshape(r * classes, r * classes))
        )
    out = {}
    for group, parts in blocks.items():
        index = parts[0][0].append([p[0] for p in parts[1:]])
        matrix = np.zeros((len(index), len(index)))
        at = 0
        for _, block in parts:
            matrix[at : at + len(block), at : at + len(block)] = block
            at += len(block)
        out[group] = pd.DataFrame(matrix, index=index, columns=index)
    return out


def _effect_index(names: tuple[str, ...], labels: tuple[str, ...]) -> pd.Index:
    if labels == ("",):
        return pd.Index(names)
    return pd.MultiIndex.from_product([names, labels], names=["term", "class"])


def random_effects(fitted: Fitted, statistic: str) -> dict[str, pd.DataFrame]:
    """Posterior means or standard deviations: a group's levels x terms; categorical: columns (term, class).

    From the draws; exact where these are exact and the effects not too many.
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    exact = _exact_posterior(fitted)
    sd = exact.sd() if exact is not None and statistic == "sd" else None
    for k, term in enumerate(fitted.joint.terms):
        if exact is None:
            draws = fitted.term_draws(k).to(torch.float64)
            values = draws.mean(dim=3) if statistic == "mean" else draws.std(dim=3)
        elif statistic == "mean":
            values = fitted.centring.outward_effects(exact.mode)[term.rows]
        elif sd is not None and fitted.centring.roots[k] is None:
            values = sd[term.rows]
        else:
            values = exact.variance(_combinations(fitted, k, torch.eye(term.q, dtype=torch.float64))).sqrt()
        parts.setdefault(term.group, []).append(_effect_table(fitted, term, term.levels, values))
    return {group: pd.concat(frames, axis=1) for group, frames in parts.items()}


def relatives_effects(fitted: Fitted, statistic: str) -> dict[str, pd.DataFrame]:
    """The same of levels that a known correlation has and the data have not, groups without such levels left out.

    Their mean is what is expected given the effects of the levels; the variance given these adds to that of the mean.
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    exact = _exact_posterior(fitted)
    for k, (term, sigma) in enumerate(zip(fitted.joint.terms, fitted.params.sigma, strict=True)):
        if term.relation is None or not len(term.relation.relatives):
            continue
        relation, every = term.relation, torch.arange(len(term.relation.relatives))
        regression = relation.regression(every)
        if statistic == "mean":
            mean = fitted.mean_b[:, :, 0] if exact is None else fitted.centring.outward_effects(exact.mode)
            values = relation.over_levels(regression, mean[term.rows].reshape(term.q, -1))
        else:
            own = relation.conditional_variance(every)[:, None, None] * sigma.diagonal(dim1=1, dim2=2).T
            values = (_variance_of_mean(fitted, k, regression, exact).reshape(own.shape) + own).sqrt()
        parts.setdefault(term.group, []).append(_effect_table(fitted, term, relation.relatives, values))
    return {group: pd.concat(frames, axis=1) for group, frames in parts.items()}


def _variance_of_mean(fitted: Fitted, k: int, regression: Tensor, exact: GaussianPosterior | None) -> Tensor:
    """Posterior variance of what a term's relatives are expected to have, (m, r C)."""
    joint, term = fitted.joint, fitted.joint.terms[k]
    size = term.r * joint.n_classes
    if exact is None:
        # By the covariance of the levels, as draws of many relatives need not fit into memory.
        draws = fitted.term_draws(k).flatten(1, 2).to(torch.float64)
        centred = draws - draws.mean(dim=2, keepdim=True)
        covariance = torch.einsum("qks,pks->kqp", centred, centred) / (draws.shape[2] - 1)
        return torch.einsum("mq,kqp,mp->mk", regression, covariance, regression)
    return exact.variance(_combinations(fitted, k, regression)).reshape(-1, size)


def _combinations(fitted: Fitted, k: int, weights: Tensor) -> sp.csc_matrix:
    """Sums of a term's effects over its levels, weights (m, q), by the centred model's effects: (Q C, m r C)."""
    joint, term, root = fitted.joint, fitted.joint.terms[k], fitted.centring.roots[k]
    before, after = term.rows.start * joint.n_classes, (joint.n_effects - term.rows.stop) * joint.n_classes
    of_level = sp.eye(term.r * joint.n_classes)
    if root is not None:
        of_level = sp.kron(sp.csc_matrix(root.T.numpy()), sp.eye(joint.n_classes))
    own = sp.kron(sp.csc_matrix(weights.T.numpy()), of_level)
    width = own.shape[1]
    return sp.vstack([sp.csc_matrix((before, width)), own, sp.csc_matrix((after, width))], format="csc")


def _effect_table(fitted: Fitted, term: TermData, levels: pd.Index, values: Tensor) -> pd.DataFrame:
    columns = _effect_index(term.names, fitted.joint.effect_labels)
    return pd.DataFrame(values.reshape(len(levels), -1).numpy(), index=levels.rename(term.group), columns=columns)


def _exact_posterior(fitted: Fitted) -> GaussianPosterior | None:
    """The posterior of the centred model's b where it is Gaussian; None where it is not, or b is large."""
    fitted = fitted.centred
    joint = fitted.joint
    exact = fitted.sampler is None and joint.family.quadratic
    if not exact or not joint.terms or joint.n_effects > _MOST_EXACT:
        return None
    return gaussian_posterior(joint, fitted.fixed, fitted.working)


def ranef_frame(means: dict[str, pd.DataFrame], sds: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """lme4's ``as.data.frame(ranef(m))``: grpvar, term, grp, condval, condsd; categorical: also class."""
    frames = []
    for group, table in means.items():
        for at, column in enumerate(table.columns):
            term, *rest = tuple(column) if table.columns.nlevels > 1 else (column,)
            frame = pd.DataFrame(
                {
                    "grpvar": group,
                    "term": term,
                    **({"class": rest[0]} if rest else {}),
                    "grp": table.index.astype(str),
                    "condval": table.iloc[:, at].to_numpy(),
                    "condsd": sds[group].iloc[:, at].to_numpy(),
                }
            )
            frames.append(frame)
    columns = ["grpvar", "term", "grp", "condval", "condsd"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
