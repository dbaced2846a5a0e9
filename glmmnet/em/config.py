"""Options of the fit, one frozen record; unknown options are refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from glmmnet.errors import OptionError, hint

#: The whole-number options and the least each may be; R-hat and ESS need four draws a chain.
_WHOLE = {
    "epochs": 1,
    "batch_size": 1,
    "refreshes": 1,
    "network_draws": 1,
    "patience": 1,
    "max_iter": 1,
    "min_iter": 1,
    "burn_in": 0,
    "em_draws": 1,
    "chains": 1,
    "draws": 4,
    "warmup": 0,
    "exact_limit": 0,
    "threads": 1,
}
_AFTER_NETWORK = {"burn_in": 2, "min_iter": 10, "tol": 1.0}
_NONE_ALLOWED = ("epochs", "batch_size", "em_draws", "threads")


@dataclass(frozen=True)
class EMConfig:
    """Options of :meth:`glmmnet.GLMMNet.fit`.

    Attributes
    ----------
    epochs : int or None
        Passes over the rows while the network learns; None: as many as give about 1,700 minibatches, 12 to 200.
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
        Share of the rows held out for early stopping while the network learns; they join for the polish. Without
        meaning where ``fit(validation=...)`` says which rows.
    patience : int
        Epochs without a better held-out deviance after which the network stops.
    max_iter : int
        EM iterations of the polish at most (f frozen, all rows).
    min_iter : int
        Averaged EM iterations of the polish at least; 20, after a network 10.
    burn_in : int
        EM iterations of the polish before averaging starts; 10, after a network 2.
    averaging : float
        The gain of iteration t after burn-in is t ** -averaging, but at least 0.35; between 0.5 and 1.
    tol : float
        The polish ends when every one of (beta, Sigma, dispersion) is within so many rough standard errors of the
        maximum, Monte Carlo error included, three times in a row; methods that come closer at no cost do. 0.3, after
        a network 1: f has an error of its own.
    em_draws : int or None
        Draws of b an EM iteration of the polish; None: 5, more for small data, where they cost nothing, and more where
        their noise would keep EM from ending.
    chains, draws, warmup : int
        Final draws of b at the estimates, that feed predictions, standard errors and ArviZ, and the transitions that
        each chain takes before. At least 4 draws a chain: R-hat and ESS need as many.
    exact_limit : int
        Gaussian models whose blocked Cholesky leaves at most so many dense rows end by maximising the exact likelihood;
        larger ones by Fisher scoring with random probes if every variance is a component of its own, else by EM with
        exact draws.
    reml : bool
        Restricted maximum likelihood: beta is integrated out too, so that variances are not too small where columns are
        many. Gaussian family, identity link, no nn(), no named sampler.
    orthogonalize : "auto" or False
        "auto": fixed columns whose variables all sit inside an nn() block take f's linear share in them.
    threads : int or None
        Torch threads of the fit and of what its results compute; None: 1, the fastest for small operations. Restored
        afterwards.
    """

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float = 1e-2
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
    tol: float = 0.3
    em_draws: int | None = None
    chains: int = 4
    draws: int = 250
    warmup: int = 20
    exact_limit: int = 2000
    reml: bool = False
    orthogonalize: str | bool = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            self._whole(name, least)
        self._real("learning_rate", "positive", lambda v: v > 0)
        self._real("weight_average", "at least 0 and below 1", lambda v: 0 <= v < 1)
        self._real("fe_loss_weight", "0 or more", lambda v: v >= 0)
        self._real("valid_fraction", "at least 0 and below 0.9", lambda v: 0 <= v < 0.9)
        self._real("averaging", "above 0.5 and at most 1", lambda v: 0.5 < v <= 1)
        self._real("tol", "positive", lambda v: v > 0)
        if not isinstance(self.reml, bool):
            raise TypeError(f"fit option reml={self.reml!r} must be True or False.")
        # 0 == False, but is no way to write it.
        if self.orthogonalize is not False and self.orthogonalize != "auto":
            raise OptionError(f"fit option orthogonalize={self.orthogonalize!r} must be 'auto' or False.")

    def _whole(self, name: str, least: int) -> None:
        """An integer, numpy's too, of at least `least`; None where the option has that."""
        value, free = getattr(self, name), name in _NONE_ALLOWED
        wanted = f"{least} or more" + (", or None" if free else "")
        if value is None and free:
            return
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"fit option {name}={value!r} must be a whole number, {wanted}.")
        if value < least:
            raise OptionError(f"fit option {name}={value!r} must be {wanted}.")
        object.__setattr__(self, name, int(value))

    def _real(self, name: str, wanted: str, good: Callable[[float], bool]) -> None:
        """A finite number, numpy's too, that is `good`."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise TypeError(f"fit option {name}={value!r} must be a number, {wanted}.")
        number = float(value)
        if not (math.isfinite(number) and good(number)):
            raise OptionError(f"fit option {name}={value!r} must be {wanted}.")
        object.__setattr__(self, name, number)

    @classmethod
    def from_options(cls, options: Mapping[str, Any], *, neural: bool = False) -> EMConfig:
        """The record for keyword options; an unknown one raises TypeError that names the nearest.

        `neural` models have other defaults for the polish: it starts near its end, and the error of f is larger than
        what more iterations could mend.
        """
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise TypeError(f"fit() has no option {name!r}; {hint(name, known)}")
        return cls(**(_AFTER_NETWORK | dict(options) if neural else options))
