"""What a fit warns of: no estimate, an unfinished search, a part that vanished, rows at the edge of a link."""

from __future__ import annotations

import warnings

from glmmnet.em.config import EMConfig
from glmmnet.em.state import EMState
from glmmnet.errors import ConvergenceWarning
from glmmnet.fitted import Fitted


def warn_if_no_estimate(fitted: Fitted) -> bool:
    """Whether the response is separated or means run away; a warning says it."""
    if fitted.separating:
        _warn(
            f"The response is separated by {', '.join(fitted.separating)}: the likelihood rises for ever along "
            "these coefficients or variances; the numbers are where the search stopped and mean nothing. Leave "
            "them out or merge levels."
        )
    elif fitted.beyond is not None:
        _warn(
            "A fitted mean is {:.3g}, beyond every response, of which the nearest is {:.3g}: the likelihood is "
            "flat in such means, and the numbers are no estimate. Look for a few responses that decide alone, and "
            "leave columns out.".format(*fitted.beyond)
        )
    return bool(fitted.separating) or fitted.beyond is not None


def warn_if_unfinished(last: EMState, config: EMConfig) -> None:
    """A warning where the stopping rule was not met."""
    if not last.converged:
        _warn(
            f"EM stopped after {last.iteration} iterations before its rule was met (distance "
            f"from the maximum {last.change:.3f} standard errors, tol {config.tol:g}); raise max_iter or look at "
            "results.plot.history()."
        )


def warn_if_vanished(fitted: Fitted) -> None:
    """A warning where a part of the model is estimated as 0 in every row."""
    if fitted.vanished is not None:
        part, family = fitted.vanished
        columns = [name for name in fitted.joint.x_names if name.startswith(f"{part}:")]
        _warn(
            f"The part {part!r} is estimated as 0 in every row: {', '.join(columns)} have no estimate, their "
            f"numbers are where the search stopped. The others are those of family={family!r}: write that instead."
        )


def warn_if_cut_off(fitted: Fitted) -> None:
    """A warning where a link alone keeps linear predictors from going on."""
    if rows := fitted.cut_off:
        _warn(
            f"In {rows} rows only link={fitted.joint.family.link.name!r} itself keeps the linear predictor "
            "above 0: a normal distribution of the random effects does not fit there, and neither variances nor "
            "likelihood are to be trusted. Write another link, such as 'log'."
        )


def _warn(message: str) -> None:
    """A ConvergenceWarning that points to the caller of :meth:`GLMMNet.fit`."""
    warnings.warn(message, ConvergenceWarning, stacklevel=4)
