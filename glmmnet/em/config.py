"""Options of the fit, one frozen record; unknown options are refused by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from glmmnet.errors import FitError


@dataclass(frozen=True)
class EMConfig:
    """Options of :meth:`glmmnet.GLMMNet.fit`.

    Attributes
    ----------
    epochs : int or None
        Passes over the rows while the network learns; None: as many as give about 2,000 minibatches, 15 to 200.
    batch_size : int or None
        Rows a minibatch; None: 512, fewer when there are fewer than 30,000 rows.
    learning_rate : float
        Peak of the one-cycle schedule.
    refreshes : int
        How often an epoch renews f and the draws of b.
    network_draws : int
        Draws of b a refresh.
    weight_average : float
        Decay a minibatch of the exponential average of the weights that f is taken from; 0: the last weights.
    fe_loss_weight : float
        Weight of the paper's second loss term, -log p(y given b = 0); it favours the marginal predictor.
    valid_fraction : float
        Share of the rows held out for early stopping while the network learns; they join for the polish.
    patience : int
        Epochs without a better held-out deviance after which the network stops.
    max_iter : int
        EM iterations of the polish at most (f frozen, all rows).
    min_iter : int
        Averaged EM iterations of the polish at least.
    burn_in : int
        EM iterations of the polish before averaging starts.
    averaging : float
        The gain of iteration t after burn-in is t ** -averaging; between 0.5 and 1.
    tol : float
        The polish ends when max |change of (beta, Sigma, dispersion)| / se is below it, three times in a row.
    em_draws : int or None
        Draws of b an EM iteration of the polish; None: 5, and more for small data, where they cost nothing.
    chains, draws, warmup : int
        Final draws of b at the estimates, that feed predictions, standard errors and ArviZ, and the transitions that
        each chain takes before.
    exact_limit : int
        Gaussian models whose blocked Cholesky leaves at most so many dense rows end by maximising the exact likelihood;
        larger ones by EM with exact draws.
    orthogonalize : "auto" or False
        "auto": fixed columns whose variables all sit inside an nn() block take f's linear share in them.
    threads : int or None
        Torch threads during the fit; None: 1, the fastest for small operations. Restored afterwards.
    """

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float = 8e-3
    refreshes: int = 5
    network_draws: int = 1
    weight_average: float = 0.98
    fe_loss_weight: float = 0.0
    valid_fraction: float = 0.1
    patience: int = 10
    max_iter: int = 200
    min_iter: int = 20
    burn_in: int = 10
    averaging: float = 0.7
    tol: float = 0.05
    em_draws: int | None = None
    chains: int = 4
    draws: int = 250
    warmup: int = 20
    exact_limit: int = 2000
    orthogonalize: str | bool = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        self._check("epochs", self.epochs is None or self.epochs >= 1, "1 or more, or None")
        self._check("batch_size", self.batch_size is None or self.batch_size >= 1, "1 or more, or None")
        self._check("learning_rate", self.learning_rate > 0, "positive")
        self._check("weight_average", 0 <= self.weight_average < 1, "at least 0 and below 1")
        self._check("fe_loss_weight", self.fe_loss_weight >= 0, "0 or more")
        self._check("valid_fraction", 0 <= self.valid_fraction < 0.9, "at least 0 and below 0.9")
        self._check("averaging", 0.5 < self.averaging <= 1, "above 0.5 and at most 1")
        self._check("tol", self.tol > 0, "positive")
        self._check("em_draws", self.em_draws is None or self.em_draws >= 1, "1 or more, or None")
        self._check("orthogonalize", self.orthogonalize in ("auto", False), "'auto' or False")
        self._check("threads", self.threads is None or self.threads >= 1, "1 or more, or None")
        for name in ("refreshes", "network_draws", "patience", "max_iter", "min_iter", "chains", "draws"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        for name in ("burn_in", "warmup", "exact_limit"):
            self._check(name, getattr(self, name) >= 0, "0 or more")

    def _check(self, name: str, good: bool, wanted: str) -> None:
        if not good:
            raise FitError(f"fit option {name}={getattr(self, name)!r} must be {wanted}.")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> EMConfig:
        """The record for keyword options; an unknown one raises TypeError that names the nearest."""
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"options: {', '.join(known)}"
                raise TypeError(f"fit() has no option {name!r}; {hint}")
        return cls(**options)
