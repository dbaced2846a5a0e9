"""Counts of successes among trials: sick cows in 15 herds over four periods.

Run: python examples/binomial_counts.py
"""

import numpy as np
import pandas as pd

import glmmnet as gn


def herd_data(herds: int, seed: int) -> pd.DataFrame:
    """Sick animals of each herd and period: log-odds -1.5, falling by 0.4 a period, sd of the herds 0.7."""
    rng = np.random.default_rng(seed)
    herd, period = (axis.ravel() for axis in np.meshgrid(np.arange(herds), np.arange(4), indexing="ij"))
    size = rng.integers(5, 40, len(herd))
    eta = -1.5 - 0.4 * period + rng.normal(0, 0.7, herds)[herd]
    sick = rng.binomial(size, 1 / (1 + np.exp(-eta)))
    return pd.DataFrame({"herd": [f"H{h}" for h in herd], "period": period, "sick": sick, "size": size})


def main(herds: int = 15) -> None:
    """Fit, and test the trend."""
    data = herd_data(herds, seed=1)
    results = gn.glmm("p(sick, size) ~ period + (1 | herd)", data=data, family="binomial").fit(seed=1)
    print(results.summary())

    odds = np.exp(pd.concat([results.params, results.conf_int()], axis=1)).set_axis(
        ["odds ratio", "low", "high"], axis=1
    )
    print("\nOdds ratio a period, 95 % interval:")
    print(odds.loc[["period"]].round(2))
    print("\nIs the trend zero?", results.wald_test("period = 0"), sep="\n")
    print(f"\nLog-likelihood {results.llf:.2f} ({results.llf_method}); Laplace {results.loglike('laplace'):.2f}")


if __name__ == "__main__":
    main()
