"""Mixed models with known truth, one a family: 60 levels of 30 rows, crossed with 60 others, one random slope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from glmmnet.families import FAMILIES, Family
from glmmnet.simulate import simulate_response

LEVELS, ROWS = 60, 30
#: Standard deviations of (1 + x | g), their correlation, and the standard deviation of (1 | h).
SD_G, COR_G, SD_H = np.array([0.5, 0.3]), 0.3, 0.4
#: The same by name.
SD = {"g|(Intercept)": float(SD_G[0]), "g|x": float(SD_G[1]), "h|(Intercept)": SD_H}
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
    intercepts : dict of str to float
        Fixed effects of linear predictors without x: thresholds, the zero part.
    response : callable
        What the family simulates (n,) -> the column of the response.
    """

    beta: Mapping[str, tuple[float | None, float]]
    phi: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    intercepts: Mapping[str, float] = field(default_factory=dict)
    response: Callable[[np.ndarray], Any] = lambda y: y


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


def _letters(y: np.ndarray) -> np.ndarray:
    return np.array(["a", "b", "c"])[y]


def _grades(y: np.ndarray) -> pd.Categorical:
    return pd.Categorical.from_codes(y, ["1", "2", "3", "4"], ordered=True)


def _zero_part(beta: tuple[float, float], logit: float, phi: float = 1.0) -> Scenario:
    return Scenario({"": beta}, phi, intercepts={"zi:Intercept": logit})


#: Name of a family -> its scenario.
SCENARIOS: dict[str, Scenario] = {
    "gaussian": Scenario({"": (1.0, 0.5)}),
    "bernoulli": Scenario({"": (0.3, 0.5)}),
    "poisson": Scenario({"": (0.7, 0.3)}),
    "binomial": Scenario({"": (0.3, 0.5)}),
    "betabinomial": Scenario({"": (0.3, 0.5)}, 8.0),
    "negativebinomial": Scenario({"": (0.7, 0.3)}, 2.0),
    "negativebinomial1": Scenario({"": (0.7, 0.3)}, 1.5),
    "gamma": Scenario({"": (0.7, 0.3)}, 0.5),
    "inversegaussian": Scenario({"": (0.7, 0.3)}, 0.3),
    "beta": Scenario({"": (0.3, 0.5)}, 10.0),
    "studentt": Scenario({"": (1.0, 0.5)}, options={"df": 5.0}),
    "lognormal": Scenario({"": (0.7, 0.3)}, 0.5),
    "tweedie": Scenario({"": (0.7, 0.3)}, 1.0, options={"power": 1.5}),
    "categorical": Scenario({"b": (0.2, 0.5), "c": (-0.3, -0.4)}, options={"reference": "a"}, response=_letters),
    "cumulative": Scenario({"": (None, 0.5)}, intercepts={"1|2": -1.0, "2|3": 0.2, "3|4": 1.5}, response=_grades),
    "zeroinflatedpoisson": _zero_part((1.0, 0.3), -1.0),
    "zeroinflatednegativebinomial": _zero_part((1.2, 0.3), -1.0, 3.0),
    "hurdlepoisson": _zero_part((1.0, 0.3), -0.8),
    "hurdlenegativebinomial": _zero_part((1.2, 0.3), -0.8, 3.0),
}


def simulate(name: str, seed: int) -> Simulated:
    """One data set of a family: y ~ x + (1 + x | g) + (1 | h). Those of two families have nothing in common.

    Examples
    --------
    >>> from benchmarks._scenarios import simulate
    >>> simulate("bernoulli", 0).frame.shape
    (1800, 4)
    """
    scenario, own = SCENARIOS[name], np.random.SeedSequence([seed, *name.encode()])
    rng = np.random.default_rng(own)
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
    drawn = simulate_response(
        family,
        np.column_stack(eta),
        intercepts=list(scenario.intercepts.values()),
        scale=scenario.phi,
        trials=_TRIALS if family.of_trials else None,
        seed=int(own.generate_state(1)[0]),
    )
    frame["y"] = scenario.response(drawn)
    if family.of_trials:
        frame["m"] = _TRIALS
    labels = tuple(scenario.beta)
    tails = [f"|{label}" if label else "" for label in labels]
    fixed = dict(scenario.intercepts)
    for label, (intercept, slope) in scenario.beta.items():
        prefix = f"{label}:" if label else ""
        fixed |= {f"{prefix}x": slope} | ({} if intercept is None else {f"{prefix}Intercept": intercept})
    return Simulated(
        frame,
        f"{'p(y, m)' if family.of_trials else 'y'} ~ x + (1 + x | g) + (1 | h)",
        family,
        scenario.model_options,
        fixed,
        {part + tail: value for tail in tails for part, value in SD.items()},
        {"g|(Intercept)|x": COR_G} if labels == ("",) else {},
        scenario.phi,
    )
