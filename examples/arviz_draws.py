"""Posterior draws of the random effects in ArviZ: diagnostics of the sampler and comparison of levels.

Run: python examples/arviz_draws.py
"""

import arviz as az
import numpy as np
import pandas as pd

import glmmnet as gn


def clinic_data(clinics: int, patients: int, seed: int) -> pd.DataFrame:
    """Patients of each clinic: log-odds of recovery 0.5 + 0.8 for the treated, sd of the clinics 1."""
    rng = np.random.default_rng(seed)
    clinic = np.repeat(np.arange(clinics), patients)
    treated = rng.integers(0, 2, len(clinic))
    eta = 0.5 + 0.8 * treated + rng.normal(0, 1, clinics)[clinic]
    recovered = rng.random(len(clinic)) < 1 / (1 + np.exp(-eta))
    return pd.DataFrame({"recovered": recovered, "treated": treated, "clinic": [f"C{c:02d}" for c in clinic]})


def main(clinics: int = 20, patients: int = 30) -> None:
    """Fit, hand the draws to ArviZ, and ask which clinic is best."""
    data = clinic_data(clinics, patients, seed=1)
    results = gn.glmm("recovered ~ treated + (1 | clinic)", data=data, family="bernoulli").fit(seed=1)
    draws = results.to_arviz()
    print(az.summary(draws, var_names=["1|clinic"]).head())

    effect = draws["posterior"]["1|clinic"]
    best = effect.argmax("clinic__factor_dim").values.ravel()
    names = effect["clinic__factor_dim"].values
    chance = pd.Series(np.bincount(best, minlength=len(names)) / len(best), index=names)
    print("\nPosterior probability of being the best clinic:")
    print(chance.sort_values(ascending=False).head(3))


if __name__ == "__main__":
    main()
