"""A stretch of computation with its own torch generator and thread count, both restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_session(seed: int, threads: int | None) -> Iterator[None]:
    """Seed torch's global generator and set its threads (None: 1) for the body; nothing leaks out.

    One thread is the default because the E-step's operations are small: on a busy machine a second thread made them
    many times slower.
    """
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads or 1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
