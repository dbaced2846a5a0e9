"""Several unordered classes: how people travel, with a variance for each class.

Run: python examples/categorical.py
"""

import numpy as np
import pandas as pd

import glmmnet as gn

MODES = np.array(["bus", "car", "train"])


def travel_data(trips: int, towns: int, seed: int) -> pd.DataFrame:
    """Trips: log-odds against the bus rise with distance; towns differ with sd 0.5 (car) and 1.0 (train)."""
    rng = np.random.default_rng(seed)
    town = rng.integers(0, towns, trips)
    distance = rng.gamma(2.0, 1.0, trips)
    effects = rng.normal(0, [0.5, 1.0], (towns, 2))
    eta = np.column_stack([np.zeros(trips), 0.5 * distance - 0.5, 0.8 * distance - 1.5])
    eta[:, 1:] += effects[town]
    choice = (eta + rng.gumbel(size=eta.shape)).argmax(axis=1)
    return pd.DataFrame({"mode": MODES[choice], "distance": distance, "town": [f"T{t}" for t in town]})


def main(trips: int = 1500, towns: int = 40) -> None:
    """Fit against a reference class and predict."""
    data = travel_data(trips, towns, seed=1)
    # Categorical() without a reference has one linear predictor a class instead, as in the paper.
    family = gn.families.Categorical(reference="bus")
    results = gn.glmm("mode ~ distance + (1 | town)", data=data, family=family).fit(seed=1)
    print(results.summary())

    print("\nCoefficients, term x class:")
    print(results.params.round(2))
    print("\nProbabilities in three towns:")
    print(results.predict(data.head(3)).round(3))
    hit = (results.predict(data, kind="class") == data["mode"]).mean()
    print(f"\nMost probable class is the one chosen on {hit:.0%} of the trips.")


if __name__ == "__main__":
    main()
