"""What a numeric response may be: readers that families share, each refusing by name what lies outside."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.families._base import Family, as_numbers
from glmmnet.typing import Response

#: Numbers beyond these, or their products, leave the range of floating point on the way.
_SMALLEST, _LARGEST = 1e-100, 1e100
#: The log-likelihood of a count beyond this keeps no digit behind the point.
_LARGEST_COUNT = 1e12


def read_numbers(family: Family, response: Response, *, booleans: bool = False) -> Tensor:
    """The values of a numeric response, (n,); DesignError for text, categories and counts of trials."""
    if response.kind == "categorical":
        raise family.disagree(
            response,
            f"is text or categorical with levels {list(response.levels[:5])}",
            "use family='bernoulli' (two levels), 'cumulative' (ordered) or 'categorical', or give numbers",
        )
    if response.kind == "counts":
        raise family.disagree(response, "gives successes and trials", "use family='binomial' or family='betabinomial'")
    if response.kind == "boolean" and not booleans:
        raise family.disagree(response, "is boolean", "use family='bernoulli'")
    return as_numbers(response)


def read_real(family: Family, response: Response) -> Tensor:
    """Any numbers that are not all the same."""
    y = read_numbers(family, response, booleans=True)
    _refuse(family, response, y, y.abs() > _LARGEST, "too large to compute with", "divide it by a constant")
    y = _varying(family, response, y)
    spread = float(y.max() - y.min())
    if spread < _SMALLEST:
        found = f"varies by {spread:g} only, too little to compute with"
        raise family.disagree(response, found, "multiply it by a constant")
    return y


def read_positive(family: Family, response: Response, *, zeros: bool = False) -> Tensor:
    """Numbers above 0, or at least 0, that are not all the same."""
    y = read_numbers(family, response)
    if zeros:
        instead = "use family='gaussian' or family='studentt'"
        _refuse(family, response, y, y < 0, "below 0", instead)
    else:
        instead = "use family='gaussian', or family='tweedie' where zeros are meant"
        _refuse(family, response, y, y <= 0, "not above 0", instead)
    far = (y > _LARGEST) | ((y < _SMALLEST) & (y > 0))
    _refuse(family, response, y, far, "too large or too small to compute with", "divide it by a constant")
    return _varying(family, response, y)


def read_fractions(family: Family, response: Response) -> Tensor:
    """Numbers strictly between 0 and 1 that are not all the same."""
    y = read_numbers(family, response)
    instead = "use family='gaussian', p(k, n) with family='binomial', or move 0 and 1 inside"
    _refuse(family, response, y, (y <= 0) | (y >= 1), "not between 0 and 1", instead)
    _refuse(family, response, y, y < _SMALLEST, "too small to compute with", "move them away from 0")
    return _varying(family, response, y)


def read_counts(family: Family, response: Response) -> Tensor:
    """Whole numbers of at least 0 that are not all 0."""
    y = read_numbers(family, response)
    instead = "use family='gaussian', or family='gamma' or 'tweedie' for amounts"
    _refuse(family, response, y, (y < 0) | (y != torch.round(y)), "no whole numbers of at least 0", instead)
    _refuse(family, response, y, y > _LARGEST_COUNT, "too large to be counts", instead)
    if float(y.max()) == 0.0:
        raise family.disagree(response, "is 0 in all rows", "there is nothing to explain")
    return y


def refuse_counts(family: Family, response: Response, y: Tensor) -> None:
    """DesignError for successes and trials (n, 2, 1) that are all alike, too many to be told apart, or of no trial."""
    k, n = y[:, 0, 0], y[:, 1, 0]
    if not bool((n > 0).any()):
        raise family.disagree(response, "has 0 trials in all rows", "there is nothing to explain")
    _refuse(family, response, n, n > _LARGEST_COUNT, "too many trials to be counts", "give counts")
    for only, what in ((k, "success"), (n - k, "failure")):
        if not bool((only > 0).any()):
            raise family.disagree(response, f"has no {what} in any row", "both must occur")


def _refuse(family: Family, response: Response, y: Tensor, wrong: Tensor, what: str, instead: str) -> None:
    if bool(wrong.any()):
        found = f"has values that are {what}, e.g. {float(y[wrong][0]):g} ({int(wrong.sum())} rows)"
        raise family.disagree(response, found, instead)


def _varying(family: Family, response: Response, y: Tensor) -> Tensor:
    if float(y.max() - y.min()) == 0.0:
        raise family.disagree(response, f"is constant ({float(y[0]):g} in all rows)", "there is nothing to explain")
    return y
