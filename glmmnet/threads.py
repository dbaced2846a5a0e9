"""A stretch of computation with its own torch generator and thread count, both restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from glmmnet.errors import check_seed


@contextmanager
def thread_limit(threads: int | None) -> Iterator[None]:
    """Set torch's threads (None: 1) for the body.

    One thread is the default because most operations are small: on a busy machine a second thread made them many times
    slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seed_or_fresh(seed: int | None) -> int:
    """The seed, checked; None: a fresh one."""
    return int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else check_seed(seed)


@contextmanager
def torch_session(seed: int, threads: int | None) -> Iterator[None]:
    """Seed torch's global generator and set its threads for the body, see :func:`thread_limit`; nothing leaks out."""
    with torch.random.fork_rng(devices=[]), thread_limit(threads):
        torch.manual_seed(seed)
        yield
