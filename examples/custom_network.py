"""A torch network of one's own inside the formula, next to a linear effect and random intercepts.

Run: python examples/custom_network.py
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import glmmnet as gn


class Waves(nn.Module):
    """Sines and cosines of learned frequencies, combined linearly."""

    def __init__(self, n_inputs: int, n_outputs: int, n_waves: int = 12) -> None:
        super().__init__()
        self.phase = nn.Linear(n_inputs, n_waves)
        self.output = nn.Linear(2 * n_waves, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (n, n_inputs), standardised by glmmnet -> (n, n_outputs)."""
        phase = 2 * self.phase(x)
        return self.output(torch.cat([phase.sin(), phase.cos()], dim=1))


def rent_data(homes: int, streets: int, seed: int) -> pd.DataFrame:
    """Rents: 0.5 for a balcony, a wave in size, sd of the streets 1, residual sd 0.5."""
    rng = np.random.default_rng(seed)
    street = rng.integers(0, streets, homes)
    size, balcony = rng.uniform(-3, 3, homes), rng.integers(0, 2, homes)
    rent = 0.5 * balcony + 2 * np.sin(2 * size) + rng.normal(0, 1, streets)[street] + rng.normal(0, 0.5, homes)
    return pd.DataFrame({"rent": rent, "size": size, "balcony": balcony, "street": [f"S{s}" for s in street]})


def main(homes: int = 2000, streets: int = 40) -> None:
    """Fit with the built-in network and with the waves, and compare on new rows."""
    data = rent_data(homes + 500, streets, seed=1)
    training, new = data.iloc[:homes], data.iloc[homes:]

    formula = "rent ~ balcony + nn(size, net=waves) + (1 | street)"
    own = gn.glmm(formula, data=training, networks={"waves": Waves}).fit(seed=1)
    print(own.summary())

    built_in = gn.glmm("rent ~ balcony + nn(size, layers=(32, 32)) + (1 | street)", data=training).fit(seed=1)
    print("\nRoot mean squared error on new rows (0.5 is the noise):")
    for name, results in [("waves", own), ("layers=(32, 32)", built_in)]:
        error = np.sqrt(np.mean((results.predict(new) - new["rent"]) ** 2))
        print(f"  {name:<16} {error:.3f}")


if __name__ == "__main__":
    main()
