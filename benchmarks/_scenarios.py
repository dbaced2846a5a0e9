"""Mixed models with known truth, one a family: 60 levels of 30 rows, crossed with 60 others, one random slope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from glmmnet.families import FAMILIES, Family
from glmmnet.threads import torch_session

LEVELS, ROWS = 60, 30
#: Standard deviations of (1 + x | g), their correlation, and the standard deviation of (1 | h).
SD_G, COR_G, SD_H = np.array([0.5, 0.3]), 0.3, 0.4
_TRIALS = 10


@dataclass(frozen=True)
class Scenario:
    """A family with true values of its parameters.

    Attributes
    ----------
    beta : dict of str to (float or None, float)
        Intercept and slope of each linear predictor that has x and random effects: one, or one a class. None where
        thresholds are the intercept.
    phi : float
        Dispersion.
    options : dict
        Of the family.
    model_options : dict
        Of :func:`glmmnet.glmm`.
    fixed : dict of str to float
        Fixed effects of linear predictors without x: thresholds, the zero part.
    predictors : callable
        (eta of the predictors in `beta` (n, k), `fixed` values) -> all linear predictors as the family has them (n, C).
    response : callable
        What the family simulates (n,) -> the column of the response.
    """

    beta: Mapping[str, tuple[float | None, float]]
    phi: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    predictors: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda eta, fixed: eta
    response: Callable[[np.ndarray], Any] = lambda y: y
    trials: bool = False


@dataclass(frozen=True)
class Simulated:
    """Simulated rows, the model to fit, and the truth by the names that :mod:`benchmarks._references` gives."""

    frame: pd.DataFrame
    formula: str
    family: Family
    model_options: Mapping[str, Any]
    fixed: dict[str, float]
    sd: dict[str, float]
    cor: dict[str, float]
    phi: float


def _beside(eta: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    return np.column_stack([eta, np.broadcast_to(fixed, (len(eta), len(fixed)))])


def _thresholds(eta: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    return fixed - eta


def _letters(y: np.ndarray) -> np.ndarray:
    return np.array(["a", "b", "c"])[y.astype(int)]


def _grades(y: np.ndarray) -> pd.Categorical:
    return pd.Categorical.from_codes(y.astype(int), ["1", "2", "3", "4"], ordered=True)


def _zero_part(beta: tuple[float, float], logit: float, phi: float = 1.0) -> Scenario:
    return Scenario({"": beta}, phi, fixed={"zi:Intercept": logit}, predictors=_beside)


#: Name of a family -> its scenario.
SCENARIOS: dict[str, Scenario] = {
    "gaussian": Scenario({"": (1.0, 0.5)}),
    "bernoulli": Scenario({"": (0.3, 0.5)}),
    "poisson": Scenario({"": (0.7, 0.3)}),
    "binomial": Scenario({"": (0.3, 0.5)}, trials=True),
    "betabinomial": Scenario({"": (0.3, 0.5)}, 8.0, trials=True),
    "negativebinomial": Scenario({"": (0.7, 0.3)}, 2.0),
    "negativebinomial1": Scenario({"": (0.7, 0.3)}, 1.5),
    "gamma": Scenario({"": (0.7, 0.3)}, 0.5),
    "inversegaussian": Scenario({"": (0.7, 0.3)}, 0.3),
    "beta": Scenario({"": (0.3, 0.5)}, 10.0),
    "studentt": Scenario({"": (1.0, 0.5)}, options={"df": 5.0}),
    "lognormal": Scenario({"": (0.7, 0.3)}, 0.5),
    "tweedie": Scenario({"": (0.7, 0.3)}, 1.0, options={"power": 1.5}),
    "categorical": Scenario({"b": (0.2, 0.5), "c": (-0.3, -0.4)}, options={"reference": "a"}, response=_letters),
    "cumulative": Scenario(
        {"": (None, 0.5)}, fixed={"1|2": -1.0, "2|3": 0.2, "3|4": 1.5}, predictors=_thresholds, response=_grades
    ),
    "zeroinflatedpoisson": _zero_part((1.0, 0.3), -1.0),
    "zeroinflatednegativebinomial": _zero_part((1.2, 0.3), -1.0, 3.0),
    "hurdlepoisson": _zero_part((1.0, 0.3), -0.8),
    "hurdlenegativebinomial": _zero_part((1.2, 0.3), -0.8, 3.0),
}


def simulate(name: str, seed: int) -> Simulated:
    """One data set of a family: y ~ x + (1 + x | g) + (1 | h).

    Examples
    --------
    >>> from benchmarks._scenarios import simulate
    >>> simulate("bernoulli", 0).frame.shape
    (1800, 4)
    """
    scenario, rng = SCENARIOS[name], np.random.default_rng(seed)
    family = FAMILIES[name](**scenario.options)
    n = LEVELS * ROWS
    frame = pd.DataFrame({"x": rng.normal(size=n), "g": np.repeat(np.arange(LEVELS), ROWS)})
    frame["h"] = rng.permutation(frame["g"])
    root = np.linalg.cholesky(np.array([[1.0, COR_G], [COR_G, 1.0]])) * SD_G[:, None]
    eta = []
    for intercept, slope in scenario.beta.values():
        b_g, b_h = rng.normal(size=(LEVELS, 2)) @ root.T, SD_H * rng.normal(size=LEVELS)
        of_row = b_g[frame["g"]]
        eta.append((intercept or 0.0) + of_row[:, 0] + (slope + of_row[:, 1]) * frame["x"] + b_h[frame["h"]])
    every = scenario.predictors(np.column_stack(eta), np.array(list(scenario.fixed.values())))
    # What a family of counts reads from y when it simulates: successes, trials.
    y = torch.full((n, 2, 1), float(_TRIALS), dtype=torch.float64)
    with torch_session(seed, None):
        drawn = family.simulate(torch.as_tensor(every)[:, :, None], y, scenario.phi)[:, 0].numpy()
    frame["y"] = scenario.response(drawn)
    if scenario.trials:
        frame["m"] = _TRIALS
    labels = tuple(scenario.beta)
    tails = [f"|{label}" if label else "" for label in labels]
    fixed = dict(scenario.fixed)
    for label, (intercept, slope) in scenario.beta.items():
        prefix = f"{label}:" if label else ""
        fixed |= {f"{prefix}x": slope} | ({} if intercept is None else {f"{prefix}Intercept": intercept})
    sd = {"g|(Intercept)": SD_G[0], "g|x": SD_G[1], "h|(Intercept)": SD_H}
    return Simulated(
        frame,
        f"{'p(y, m)' if scenario.trials else 'y'} ~ x + (1 + x | g) + (1 | h)",
        family,
        scenario.model_options,
        fixed,
        {part + tail: float(value) for tail in tails for part, value in sd.items()},
        {"g|(Intercept)|x": COR_G} if labels == ("",) else {},
        scenario.phi,
    )
