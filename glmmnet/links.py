"""Link functions: g(mean) = eta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Link:
    """A link function and its inverse.

    Attributes
    ----------
    name : str
    link : callable
        mean -> eta, elementwise (for ``softmax`` over the class axis, dimension 1).
    inverse : callable
        eta -> mean.
    domain : (float, float)
        Open interval that means may lie in.
    scale : str
        What eta is measured in, for axis labels.
    """

    name: str
    link: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    domain: tuple[float, float]
    scale: str


def _softmax(eta: Tensor) -> Tensor:
    return torch.softmax(eta, dim=1)


def _baseline_softmax(eta: Tensor) -> Tensor:
    reference = torch.zeros_like(eta[:, :1])
    return torch.softmax(torch.cat([reference, eta], dim=1), dim=1)


def _centred_log(mean: Tensor) -> Tensor:
    logs = torch.log(mean)
    return logs - logs.mean(dim=1, keepdim=True)


def _baseline_log(mean: Tensor) -> Tensor:
    return torch.log(mean[:, 1:]) - torch.log(mean[:, :1])


IDENTITY = Link("identity", lambda mean: mean, lambda eta: eta, (-float("inf"), float("inf")), "response")
LOGIT = Link("logit", torch.logit, torch.sigmoid, (0.0, 1.0), "log-odds")
SOFTMAX = Link("softmax", _centred_log, _softmax, (0.0, 1.0), "class score")
BASELINE_LOGIT = Link("baseline logit", _baseline_log, _baseline_softmax, (0.0, 1.0), "log-odds against the reference")
