"""Groups that were not there in training: three things a prediction can mean for them.

Run: python examples/unseen_groups.py
"""

import numpy as np
import pandas as pd

import glmmnet as gn


def school_data(schools: int, pupils: int, seed: int) -> pd.DataFrame:
    """Pupils who pass: log-odds 1 + 0.8 x, sd of the schools 1.5."""
    rng = np.random.default_rng(seed)
    school = np.repeat(np.arange(schools), pupils)
    x = rng.normal(size=len(school))
    eta = 1 + 0.8 * x + rng.normal(0, 1.5, schools)[school]
    passed = (rng.random(len(school)) < 1 / (1 + np.exp(-eta))).astype(int)
    return pd.DataFrame({"passed": passed, "x": x, "school": [f"school {s}" for s in school]})


def main(schools: int = 60, pupils: int = 25) -> None:
    """Fit all schools but the last; predict one pupil of a known and one of the unseen school."""
    data = school_data(schools, pupils, seed=1)
    unseen = f"school {schools - 1}"
    training = data[data["school"] != unseen]
    results = gn.glmm("passed ~ x + (1 | school)", data=training, family="bernoulli").fit(seed=1)

    new = pd.DataFrame({"x": [0.0, 0.0], "school": ["school 0", unseen]})
    table = pd.DataFrame(
        {
            "conditional": results.predict(new),
            "conditional, marginal for new": results.predict(new, new_levels="marginal"),
            "marginal": results.predict(new, level="marginal"),
            "population": results.predict(new, level="population"),
        }
    ).set_axis(new["school"])
    print("Probability of passing at x = 0:")
    print(table.T.round(3))
    try:
        results.predict(new, new_levels="error")
    except gn.DesignError as error:
        print(f"\nnew_levels='error': {error}")


if __name__ == "__main__":
    main()
