"""Settings of the whole test run."""

import os

# Before matplotlib is imported by anyone: no display is needed.
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors are slower on several threads than on one."""
    torch.set_num_threads(1)
