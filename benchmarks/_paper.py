"""The simulated rows of Tschalzev et al. (2024), section 4, split as there, and the same f with a Gaussian response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from benchmarks._task import HELD, Task, Truth
from glmmnet.simulate import Simulation, paper_binary, paper_multiclass, simulate_glmm


def binary_task(variance: float, levels: int, seed: int, n: int = 100_000) -> Task:
    """Section 4.1; seed k is the paper's repetition k."""
    data = paper_binary(variance, levels, seed, n=n)
    # The published split goes on with the generator that made the rows: replayed here number by number.
    state = np.random.RandomState(1 + seed)
    state.uniform(-1, 1, n * 10)
    _replay_levels(state, n, levels)
    state.normal(0, np.sqrt(variance), levels)
    state.binomial(1, np.exp(data.eta) / (1 + np.exp(data.eta)), size=n)
    frame = data.frame.assign(f=data.f)
    truth = Truth(("f",), data.b, {"g": data.sd["g"] ** 2})
    return _task("bernoulli", frame, state, truth)


def multiclass_task(
    variances: Sequence[Sequence[float]],
    levels: Sequence[int],
    seed: int,
    *,
    n: int = 100_000,
    columns: int = 10,
    shuffle: bool = False,
) -> Task:
    """Section 4.2; a variance for each factor and class."""
    sd = np.sqrt(np.asarray(variances, dtype=float))
    classes = sd.shape[1]
    data = paper_multiclass([1.0] * len(levels), levels, seed, classes=classes, n=n, columns=columns, shuffle=shuffle)
    state = np.random.RandomState(555 + seed)
    state.uniform(-1, 1, n * columns)
    state.uniform(size=(columns, classes))
    state.uniform(size=(1, classes))
    for q in levels:
        _replay_levels(state, n, q)
        for _ in range(classes):
            state.normal(0, 1, q)
    # Standard normal effects, scaled here: a generator's numbers do not depend on the scale.
    b = {factor: effects * sd[k] for k, (factor, effects) in enumerate(data.b.items())}
    eta = data.f.copy()
    for factor, effects in b.items():
        eta = eta + effects[data.frame[factor].to_numpy()]
    y = _classes(eta, state.random_sample(n))
    truth = Truth(tuple(f"f{c}" for c in range(classes)), b, {factor: sd[k] ** 2 for k, factor in enumerate(b)})
    frame = pd.concat([_single(data, columns), pd.DataFrame(data.f, columns=list(truth.f))], axis=1)
    return _task("categorical", frame.assign(y=y), state, truth)


def gaussian_task(
    groups: Mapping[str, tuple[int, float]],
    slopes: Mapping[str, Mapping[str, float]],
    random: str,
    seed: int,
    n: int,
) -> Task:
    """The f and the inputs of section 4.1 with a Gaussian response, residual standard deviation 1; not in the paper."""
    data = simulate_glmm(n, groups, slopes=slopes, family="gaussian", f=_f, columns=10, seed=seed)
    truth = Truth(("f",), data.b, {factor: sd**2 for factor, sd in data.sd.items()})
    return _task("gaussian", data.frame.assign(f=data.f), np.random.RandomState(seed), truth, random)


def _f(x: np.ndarray) -> np.ndarray:
    t = 1 + x.sum(axis=1)
    return t * np.cos(t) + 2 * x[:, 0] * x[:, 1]


def _single(data: Simulation, columns: int) -> pd.DataFrame:
    """The frame with its inputs in single precision, as networks read them; 1,000 columns are large."""
    return data.frame.astype({f"x{j}": np.float32 for j in range(columns)}) if columns > 100 else data.frame


def _replay_levels(state: np.random.RandomState, n: int, q: int) -> None:
    sizes = state.poisson(3, q) + 1
    state.multinomial(n, sizes / sizes.sum())


def _classes(eta: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """A class for each row, by the inverse of its cumulative probabilities."""
    p = np.exp(eta - eta.max(axis=1, keepdims=True))
    cumulative = (p / p.sum(axis=1, keepdims=True)).cumsum(axis=1)
    return (cumulative / cumulative[:, -1:] <= draws[:, None]).sum(axis=1)


def _task(family: str, frame: pd.DataFrame, state: np.random.RandomState, truth: Truth, random: str = "") -> Task:
    """A fifth of the rows to predict; of the rest a tenth marked as held out."""
    rest, test = train_test_split(frame, test_size=0.2, random_state=state)
    train, held = train_test_split(rest, test_size=0.1, random_state=42)
    marked = pd.concat([train, held], ignore_index=True)
    marked[HELD] = np.arange(len(marked)) >= len(train)
    inputs = tuple(name for name in frame if name.startswith("x"))
    return Task(family, marked, test.reset_index(drop=True), inputs, tuple(truth.b), truth, random=random)
