"""Maximum likelihood of the grouseticks model by nested quadrature, in numpy alone; made its row in fits.json.

Broods are nested in locations: rows are integrated over their own effect, broods over theirs, locations over theirs,
each on a fixed grid. lme4 gives the Laplace approximation only. Run as
`PYTHONPATH=. python tests/reference/grouseticks_quadrature.py`; it takes a minute.
"""

import numpy as np
import scipy.optimize
from ricefarms_quadrature import hessian
from scipy.interpolate import CubicSpline
from scipy.special import gammaln, logsumexp

from benchmarks._references import load

NODES, ROW_NODES, LOG_MEANS = np.linspace(-6.0, 6.0, 49), np.linspace(-8.0, 8.0, 241), np.linspace(-14.0, 12.0, 700)
MASS, ROW_MASS = (np.exp(-0.5 * grid**2) / np.exp(-0.5 * grid**2).sum() for grid in (NODES, ROW_NODES))
TERMS, GROUPS = ("Intercept", "YEAR[T.96]", "YEAR[T.97]", "HEIGHTs"), ("INDEX", "BROOD", "LOCATION")


def minus_log_likelihood(theta: np.ndarray, x: np.ndarray, y: np.ndarray, broods: np.ndarray, locations: np.ndarray):
    """theta: four coefficients, log sd of row, brood and location; `broods`, `locations`: where each one starts."""
    row_sd, brood_sd, location_sd = np.exp(theta[4:])
    log_mu = LOG_MEANS[:, None] + row_sd * ROW_NODES
    eta = (x @ theta[:4])[:, None, None] + brood_sd * NODES[:, None] + location_sd * NODES
    log_p = np.empty(eta.shape)
    for count in np.unique(y):
        table = logsumexp(count * log_mu - np.exp(log_mu) - gammaln(count + 1), b=ROW_MASS, axis=1)
        log_p[y == count] = CubicSpline(LOG_MEANS, table)(eta[y == count])
    of_brood = logsumexp(np.add.reduceat(log_p, broods, axis=0), b=MASS[:, None], axis=1)
    return -float(logsumexp(np.add.reduceat(of_brood, locations, axis=0), b=MASS, axis=1).sum())


def main() -> None:
    data = load("lme4", "grouseticks").sort_values(["LOCATION", "BROOD"], kind="stable")
    x = np.column_stack([np.ones(len(data)), data["YEAR"] == "96", data["YEAR"] == "97", data["HEIGHTs"]]).astype(float)
    broods = np.flatnonzero(np.r_[True, np.diff(data["BROOD"]) != 0])
    locations = np.flatnonzero(np.r_[True, np.diff(data["LOCATION"].to_numpy()[broods]) != 0])

    def function(theta: np.ndarray) -> float:
        return minus_log_likelihood(theta, x, data["TICKS"].to_numpy(float), broods, locations)

    start = np.array([0.37, 1.18, -0.98, -0.85, np.log(0.54), np.log(0.75), np.log(0.55)])
    found = scipy.optimize.minimize(function, start, method="BFGS", options={"gtol": 1e-3})
    error = np.sqrt(np.diag(np.linalg.inv(hessian(function, found.x, 1e-2))))
    for term, estimate, se in zip(TERMS, found.x, error, strict=False):
        print(term, estimate, se)
    for group, log_sd, se in zip(GROUPS, found.x[4:], error[4:], strict=True):
        print(group, "sd", np.exp(log_sd), "se of log sd", se)
    print("llf", -found.fun, found.message)


if __name__ == "__main__":
    main()
