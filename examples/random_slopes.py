"""Random intercepts and slopes: who is slow, and who slows down over ten days.

Run: python examples/random_slopes.py
"""

import numpy as np
import pandas as pd

import glmmnet as gn


def sleep_data(subjects: int, seed: int) -> pd.DataFrame:
    """Reaction times in ms: 250 + 10 a day, subjects' sds 25 and 6 with correlation 0.2, residual sd 25."""
    rng = np.random.default_rng(seed)
    covariance = [[25.0**2, 0.2 * 25 * 6], [0.2 * 25 * 6, 6.0**2]]
    effects = rng.multivariate_normal([250.0, 10.0], covariance, size=subjects)
    subject = np.repeat(np.arange(subjects), 10)
    day = np.tile(np.arange(10), subjects)
    reaction = effects[subject, 0] + effects[subject, 1] * day + rng.normal(0, 25, len(day))
    return pd.DataFrame({"reaction": reaction, "days": day, "subject": [f"S{s:02d}" for s in subject]})


def main(subjects: int = 40) -> None:
    """Fit with and without the correlation, and compare."""
    data = sleep_data(subjects, seed=1)
    correlated = gn.glmm("reaction ~ days + (days | subject)", data=data).fit(seed=1)
    print(correlated.summary())

    print("\nSigma of the subjects:")
    print(correlated.cov_re["subject"].round(2))
    print("\nThe first subjects' effects, posterior means:")
    print(correlated.random_effects["subject"].head(3).round(2))

    independent = gn.glmm("reaction ~ days + (days || subject)", data=data).fit(seed=1)
    print("\nIs there a correlation?", correlated.compare_lr_test(independent), sep="\n")


if __name__ == "__main__":
    main()
