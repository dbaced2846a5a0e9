"""What a user sees and may do while a fit runs: a progress bar, and a Ctrl-C that stops in good order."""

from __future__ import annotations

import math
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from types import FrameType
from typing import Any, Protocol

_SHOWN = 4  # standard deviations shown in the bar


class Progress(Protocol):
    """Takes the record of each iteration."""

    def update(self, record: Mapping[str, object]) -> None:
        """Show one more iteration.

        Parameters
        ----------
        record : mapping
            A row of the history; its ``deviance`` and ``sd[group, term]`` entries are shown.
        """
        ...


class Interruption:
    """Whether the user asked for the fit to stop.

    Attributes
    ----------
    requested : bool
    """

    requested = False


@contextmanager
def progress_bar(show: bool | None = None) -> Iterator[Progress]:
    """A bar on stderr (a widget in notebooks) with iteration, deviance and standard deviations.

    Parameters
    ----------
    show : bool, optional
        True: always; False: never; None: in notebooks and where stderr is a terminal.

    Yields
    ------
    Progress
    """
    if not (_watched() if show is None else show):
        yield _Silent()
        return
    # the bar in a notebook warns at import where ipywidgets is missing; text does then as well
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    with tqdm(desc="MCEM", unit="it", dynamic_ncols=True, file=sys.stderr) as bar:
        yield _Bar(bar)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Turn the first Ctrl-C into a request to stop; the second one raises KeyboardInterrupt.

    The previous handler of SIGINT is back when the block ends. Outside the main thread, where Python allows
    no handlers, nothing is changed and nothing is ever requested.

    Yields
    ------
    Interruption
        Its `requested` turns true at the first Ctrl-C.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        if interruption.requested:
            raise KeyboardInterrupt
        interruption.requested = True

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield interruption
    finally:
        # None: the handler was not set from Python and cannot be set again from here
        signal.signal(signal.SIGINT, signal.default_int_handler if previous is None else previous)


class _Silent:
    def update(self, record: Mapping[str, object]) -> None:
        pass


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def update(self, record: Mapping[str, object]) -> None:
        self._bar.set_postfix_str(_postfix(record), refresh=False)
        self._bar.update()


def _watched() -> bool:
    """Whether someone reads stderr: a terminal, or a notebook (whose stderr is none)."""
    notebook = type(sys.modules["IPython"].get_ipython()).__name__ if "IPython" in sys.modules else ""
    return notebook == "ZMQInteractiveShell" or (sys.stderr is not None and sys.stderr.isatty())


def _postfix(record: Mapping[str, object]) -> str:
    """Deviance and the first standard deviations, names without their brackets.

    >>> _postfix({"deviance": 4711.26, "sd[drug, (Intercept)]": 0.853, "sd[drug, x]": 0.1, "sigma": 1.0})
    'deviance 4711.3, sd drug 0.853, drug x 0.100'
    """
    parts = []
    deviance = record.get("deviance")
    if isinstance(deviance, Real) and math.isfinite(deviance):
        parts.append(f"deviance {deviance:.1f}")
    sds = [(name, value) for name, value in record.items() if name.startswith("sd[")]
    shown = [f"{_short(name)} {value:.3f}" for name, value in sds[:_SHOWN]]
    if shown:
        more = f" (+{len(sds) - _SHOWN})" if len(sds) > _SHOWN else ""
        parts.append("sd " + ", ".join(shown) + more)
    return ", ".join(parts)


def _short(name: str) -> str:
    """Name of a component without brackets and intercept: ``sd[drug, x]`` is ``drug x``."""
    parts = name.removeprefix("sd[").removesuffix("]").split(", ")
    text = " ".join(part for part in parts if part != "(Intercept)")
    return text if len(text) <= 16 else text[:13] + "..."
