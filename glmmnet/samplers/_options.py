"""Checks that the samplers' options share."""

from __future__ import annotations

from glmmnet.errors import OptionError, is_number


def check_int(name: str, value: object) -> None:
    """OptionError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"{name}={value!r}: write a whole number of at least 1.")


def check_target_accept(value: float) -> None:
    """OptionError unless `value` is a probability strictly between 0 and 1."""
    if not (is_number(value) and 0.0 < value < 1.0):
        raise OptionError(f"target_accept={value!r}: write a probability between 0 and 1, e.g. 0.8.")
