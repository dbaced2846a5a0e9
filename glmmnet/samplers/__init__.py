"""Samplers: draws from exp(logdensity). They know no families, terms or networks.

``SAMPLERS["nuts"](max_tree_depth=8)`` makes one; every module of this folder registers its own. They use
torch's global random generator and never seed it.
"""

from __future__ import annotations

from collections.abc import Callable

from glmmnet._registry import Registry
from glmmnet.typing import Sampler

SAMPLERS: Registry[Callable[..., Sampler]] = Registry("sampler", __name__)

__all__ = ["SAMPLERS"]
