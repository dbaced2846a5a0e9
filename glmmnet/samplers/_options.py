"""Checks that the samplers' options share."""

from __future__ import annotations


def check_int(name: str, value: object) -> None:
    """ValueError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r}: write a whole number of at least 1.")


def check_target_accept(value: float) -> None:
    """ValueError unless `value` is a probability strictly between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"target_accept={value!r}: write a probability between 0 and 1, e.g. 0.8.")
