"""Simulated data with known truth, for examples and tests; no formula, no global seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import torch

from glmmnet.errors import OptionError, as_mapping, is_number
from glmmnet.families import Family, resolve
from glmmnet.threads import seed_or_fresh, torch_session

#: Trials of a simulated row are drawn from 1 to this number.
_MOST_TRIALS = 10


@dataclass(frozen=True)
class Simulation:
    """Simulated data and what they were made from.

    Attributes
    ----------
    frame : pandas.DataFrame
        ``x0``, ``x1``, ... the covariates, one column a grouping factor, ``y`` the response, and ``trials`` where it
        is out of trials.
    f : ndarray, (n,) or (n, C)
        Fixed part of the linear predictor.
    eta : ndarray, (n,) or (n, C)
        Linear predictor with the random effects.
    b : dict of str to ndarray
        Random effects of each factor's levels 0, 1, ...: (q, r), of several classes (q, r, C), of the multiclass
        scenario (q, C).
    sd : dict of str to ndarray, (r,)
        True standard deviations, the intercept first; of the multiclass scenario (C,).
    """

    frame: pd.DataFrame
    f: np.ndarray
    eta: np.ndarray
    b: dict[str, np.ndarray]
    sd: dict[str, np.ndarray]


def simulate_glmm(
    n: int = 1000,
    groups: Mapping[str, tuple[int, float]] | None = None,
    *,
    slopes: Mapping[str, Mapping[str, float]] | None = None,
    family: str | Family = "gaussian",
    f: Callable[[np.ndarray], np.ndarray] | None = None,
    columns: int = 2,
    intercepts: Sequence[float] = (),
    scale: float = 1.0,
    seed: int | None = 0,
) -> Simulation:
    """Data from a generalized linear mixed model.

    Parameters
    ----------
    n : int
        Rows.
    groups : mapping of str to (int, float), optional
        Name of each grouping factor -> number of levels, standard deviation of its random intercept.
        None: ``{"g": (20, 1.0)}``. Rows take their levels at random; every level occurs when n allows it.
    slopes : mapping of str to {str: float}, optional
        Factor -> covariate -> standard deviation of its random slope, uncorrelated with the intercept.
    family : str or Family
        Its response is a class number for classes, successes of 1 to 10 ``trials`` for counts out of trials.
    f : callable, optional
        Fixed part of the linear predictor from the covariates (n, columns); None: ``1 + x0 - x1 + ...``. Several
        columns (n, C) for ``categorical``: one a class (without the reference, where there is one), each with random
        effects of its own.
    columns : int
        Covariates ``x0``, ``x1``, ..., independent and uniform on (-1, 1).
    intercepts : sequence of float
        What the family has beside f: the increasing thresholds of ``cumulative``, the logit of a zero (``zi``) of
        zero-inflated and hurdle families, log df of ``StudentT(df=None)``.
    scale : float
        Dispersion, as ``results.scale``: the residual variance for ``gaussian``. Not read by families without one.
    seed : int, optional
        The same seed gives the same data; None: others each time.

    Returns
    -------
    Simulation

    Raises
    ------
    OptionError
        An unknown factor or covariate, a number out of range, `f` or `intercepts` that are not the family's.
    TypeError
        `groups` is no mapping, `f` no function.

    Examples
    --------
    >>> from glmmnet.simulate import simulate_glmm
    >>> data = simulate_glmm(100, {"school": (5, 0.5)}, family="bernoulli", seed=1)
    >>> list(data.frame)
    ['x0', 'x1', 'school', 'y']
    >>> simulate_glmm(100, family="cumulative", intercepts=[-1, 1]).frame["y"].unique().size
    3
    """
    family = resolve(family)
    groups = {"g": (20, 1.0)} if groups is None else groups
    _check_whole("n", n, 1)
    _check_whole("columns", columns, 0)
    names = [f"x{j}" for j in range(columns)]
    _check_groups(groups, (*names, "y", "trials"))
    seed = seed_or_fresh(seed)
    spreads = {
        group: _standard_deviations(group, sd, (slopes or {}).get(group, {}), names)
        for group, (_, sd) in groups.items()
    }
    if unknown := [group for group in slopes or {} if group not in groups]:
        raise OptionError(f"slopes name the factor {unknown[0]!r}; factors: {', '.join(groups)}.")
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, columns))
    frame = pd.DataFrame(x, columns=names)
    if f is not None and not callable(f):
        raise TypeError(f"f={f!r} must be a function of the covariates (n, columns), or None.")
    fixed = np.asarray(_alternating(x) if f is None else f(x), dtype=np.float64)
    if fixed.ndim not in (1, 2) or len(fixed) != n:
        raise OptionError(
            f"f returned an array of shape {fixed.shape}; it must be one number a row, ({n},), or a class."
        )
    eta, effects = fixed.copy(), {}
    for group, (q, _) in groups.items():
        index = rng.permutation(np.concatenate([np.arange(q), rng.integers(q, size=max(n - q, 0))])[:n])
        covariates = list((slopes or {}).get(group, {}))
        z = np.column_stack([np.ones(n), *(frame[name] for name in covariates)])
        normal = rng.normal(size=(q, z.shape[1], *fixed.shape[1:]))
        effects[group] = (spreads[group] * normal.swapaxes(1, -1)).swapaxes(1, -1)
        eta += np.einsum("nr,nr...->n...", z, effects[group][index])
        frame[group] = index
    trials = None
    if family.of_trials:
        trials = rng.integers(1, _MOST_TRIALS + 1, n)
        frame["trials"] = trials
    frame["y"] = simulate_response(family, eta, intercepts=intercepts, scale=scale, trials=trials, seed=seed)
    return Simulation(frame, fixed, eta, effects, spreads)


def simulate_response(
    family: str | Family,
    eta: np.ndarray,
    *,
    intercepts: Sequence[float] = (),
    scale: float = 1.0,
    trials: int | np.ndarray | None = None,
    seed: int | None = 0,
) -> np.ndarray:
    """Responses of a family at given linear predictors, as the family simulates them.

    Parameters
    ----------
    family : str or Family
    eta : ndarray, (n,) or (n, C)
        What fixed and random effects add up to; a column a class for ``categorical``.
    intercepts, scale
        See :func:`simulate_glmm`.
    trials : int or ndarray, (n,), optional
        Of a family of successes out of trials.
    seed : int, optional

    Returns
    -------
    ndarray, (n,)
        Whole numbers, also of classes, are integers.

    Raises
    ------
    OptionError
        `eta`, `intercepts` or `trials` are not the family's.

    Examples
    --------
    >>> import numpy as np
    >>> from glmmnet.simulate import simulate_response
    >>> simulate_response("binomial", np.array([-9.0, 9.0]), trials=5)
    array([0, 5])
    """
    family, seed = resolve(family), seed_or_fresh(seed)
    _check_amount("scale", scale)
    if family.of_trials != (trials is not None):
        wanted = "needs" if family.of_trials else "has no"
        raise OptionError(f"family {family.name!r} {wanted} trials.")
    eta = np.asarray(eta, dtype=np.float64)
    n = len(eta)
    if trials is not None and (np.any(np.less(trials, 1)) or np.any(np.mod(trials, 1) != 0)):
        raise OptionError(f"trials={trials!r} must be whole numbers, 1 or more.")
    if np.any(np.less_equal(eta, family.link.least_eta)):
        raise OptionError(
            f"eta has values up to {np.min(eta):g}; link {family.link.name!r} of {family!r} needs more than "
            f"{family.link.least_eta:g}."
        )
    own = torch.as_tensor(eta.reshape(n, -1))[:, :, None]
    every = family.linear_predictors(own, torch.tensor([float(one) for one in intercepts], dtype=torch.float64))
    # A family reads no more of the response than the trials, in its second column.
    read = np.stack([np.zeros(n), np.broadcast_to(1 if trials is None else trials, n)], axis=1)
    with torch_session(seed, None):
        y = family.simulate(every, torch.as_tensor(read, dtype=torch.float64)[:, :, None], scale)[:, 0].numpy()
    return y.astype(np.int64) if np.array_equal(y, np.round(y)) else y


def _standard_deviations(group: str, sd: float, slopes: Mapping[str, float], names: Sequence[str]) -> np.ndarray:
    if unknown := [name for name in slopes if name not in names]:
        raise OptionError(f"slopes[{group!r}] names the covariate {unknown[0]!r}; covariates: {', '.join(names)}.")
    spread = np.array([sd, *slopes.values()], dtype=np.float64)
    if not np.all((spread >= 0) & (spread < math.inf)):
        raise OptionError(f"standard deviations of {group!r} are {spread.tolist()}; they must be 0 or more.")
    return spread


def _check_amount(name: str, value: Any) -> None:
    if not (is_number(value) and 0.0 <= value < math.inf):
        raise OptionError(f"{name}={value!r} must be a number, 0 or more.")


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise OptionError(f"{name}={value!r} must be a whole number, {least} or more.")


def _check_groups(groups: Mapping[str, tuple[int, float]], taken: Sequence[str]) -> None:
    """OptionError unless `groups` is {name: (levels, standard deviation)}, no name of them `taken`."""
    for group, own in as_mapping("groups", groups, '{"g": (20, 1.0)}').items():
        if group in taken:
            raise OptionError(f"groups has the name {group!r}, which is that of another column; write another.")
        if len(np.shape(own)) != 1 or len(own) != 2 or not all(map(is_number, own)):
            raise OptionError(f"groups[{group!r}]={own!r} must be (levels, standard deviation), e.g. (20, 1.0).")
        _check_whole(f"levels of groups[{group!r}]", own[0], 1)


def _alternating(x: np.ndarray) -> np.ndarray:
    return 1.0 + x @ (-1.0) ** np.arange(x.shape[1])


def paper_binary(
    variance: float = 1.0, levels: int = 100, seed: int = 0, *, n: int = 100_000, columns: int = 10
) -> Simulation:
    """Binary scenario of the paper: one factor and f = t cos t + 2 x0 x1, t = 1 + sum of x.

    Parameters
    ----------
    variance : float
        Variance of the random intercepts; the paper has 0.1, 1 and 10.
    levels : int
        Levels of ``g``; the paper has 100, 1,000 and 10,000. Their sizes are uneven, and rows are sorted by level.
    seed : int
        0, 1, ... are the paper's repetitions: the same rows.
    n, columns : int
        Rows and uniform covariates.

    Returns
    -------
    Simulation
        All rows; the paper holds out 20 % of them.

    References
    ----------
    Tschalzev et al. (2024), IJCAI, doi 10.24963/ijcai.2024/555, section 4.1.
    """
    state = np.random.RandomState(1 + seed)
    x = state.uniform(-1, 1, n * columns).reshape(n, columns)
    t = 1 + x @ np.ones(columns)
    f = t * np.cos(t) + 2 * x[:, 0] * x[:, 1]
    index = _uneven_levels(state, n, levels)
    b = state.normal(0, np.sqrt(variance), levels)
    eta = f + b[index]
    y = state.binomial(1, np.exp(eta) / (1 + np.exp(eta)), size=n)
    frame = _covariates(x).assign(g=index, y=y)
    return Simulation(frame, f, eta, {"g": b[:, None]}, {"g": np.sqrt([variance])})


def paper_multiclass(
    variances: Sequence[float] = (1e-4, 0.5, 0.5),
    levels: Sequence[int] = (1000, 10, 1000),
    seed: int = 0,
    *,
    classes: int = 5,
    n: int = 100_000,
    columns: int = 10,
    shuffle: bool = False,
) -> Simulation:
    """Multiclass scenario of the paper: several factors, a linear predictor and a random intercept a class.

    Parameters
    ----------
    variances : sequence of float
        Variance of the random intercepts of each factor, the same for every class.
    levels : sequence of int
        Levels of the factors ``g0``, ``g1``, ...
    seed : int
        0, 1, ... are the paper's repetitions: the same rows.
    classes, n, columns : int
    shuffle : bool
        The published generator sorts every factor along the rows, so that two factors of as many levels nearly
        coincide; True breaks that by permuting each factor.

    Returns
    -------
    Simulation

    Raises
    ------
    OptionError
        `variances` and `levels` differ in length.

    References
    ----------
    Tschalzev et al. (2024), IJCAI, doi 10.24963/ijcai.2024/555, section 4.2.
    """
    if len(variances) != len(levels):
        raise OptionError(f"{len(variances)} variances for {len(levels)} factors; give one a factor.")
    state = np.random.RandomState(555 + seed)
    x = state.uniform(-1, 1, n * columns).reshape(n, columns)
    slopes = state.uniform(size=(columns, classes))
    u = state.uniform(size=(1, classes))
    t = 1 + x @ slopes
    f = t * np.cos(t) + 2 * (x[:, :1] * x[:, 1:2] @ u)
    eta, codes, effects = f, {}, {}
    for k, (q, variance) in enumerate(zip(levels, variances, strict=True)):
        index = _uneven_levels(state, n, q)
        if shuffle:
            index = np.random.RandomState(k).permutation(index)
        b = np.stack([state.normal(0, np.sqrt(variance), q) for _ in range(classes)], axis=1)
        eta = eta + b[index]
        codes[f"g{k}"], effects[f"g{k}"] = index, b
    p = np.exp(eta - eta.max(axis=1, keepdims=True))
    cumulative = (p / p.sum(axis=1, keepdims=True)).cumsum(axis=1)
    draws = state.random_sample(n)
    y = (cumulative / cumulative[:, -1:] <= draws[:, None]).sum(axis=1)
    sd = {f"g{k}": np.full(classes, np.sqrt(variance)) for k, variance in enumerate(variances)}
    return Simulation(_covariates(x).assign(**codes, y=y), f, eta, effects, sd)


def _uneven_levels(state: np.random.RandomState, n: int, q: int) -> np.ndarray:
    """Sorted level codes whose sizes follow 1 + Poisson(3); some levels may be missing."""
    sizes = state.poisson(3, q) + 1
    counts = state.multinomial(n, sizes / sizes.sum())
    return np.repeat(np.arange(q), counts)


def _covariates(x: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(x, columns=[f"x{j}" for j in range(x.shape[1])])
