"""The bar speaks only where someone listens; Ctrl-C stops once in good order, twice at once."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import types
import warnings

import pytest

from glmmnet.progress import interruptible, progress_bar

RECORD = {
    "iteration": 3,
    "phase": "network",
    "deviance": 4711.26,
    "valid_deviance": float("nan"),
    **{f"sd[{group}, (Intercept)]": 0.5 for group in "abcdef"},
    "sigma": 1.25,
}


class Stderr(io.StringIO):
    """A stderr that claims to be a terminal, or not to be one."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    "show, terminal, speaks",
    [
        (None, True, True),
        (None, False, False),
        (True, False, True),
        (True, True, True),
        (False, True, False),
        (False, False, False),
    ],
)
def test_speaks_where_someone_listens(
    monkeypatch: pytest.MonkeyPatch, show: bool | None, terminal: bool, speaks: bool
) -> None:
    stderr = Stderr(terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress_bar(show) as progress:
        progress.update(RECORD)
    assert bool(stderr.getvalue()) == speaks


def test_shows_iteration_deviance_and_four_standard_deviations(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Stderr(False)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("COLUMNS", "200")
    with progress_bar(True) as progress:
        for _ in range(3):
            progress.update(RECORD)
    last = stderr.getvalue().splitlines()[-1].split("\r")[-1]
    assert "MCEM: 3it" in last
    assert "deviance 4711.3, sd a 0.500, b 0.500, c 0.500, d 0.500 (+2)" in last
    assert "nan" not in last


@pytest.mark.parametrize("deviance", [float("nan"), None])
def test_leaves_out_what_the_record_lacks(monkeypatch: pytest.MonkeyPatch, deviance: float | None) -> None:
    stderr = Stderr(False)
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress_bar(True) as progress:
        progress.update({"iteration": 1, "deviance": deviance})
    assert "deviance" not in stderr.getvalue()
    assert "MCEM: 1it" in stderr.getvalue()


def test_bar_is_closed_when_the_fit_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Stderr(False)
    monkeypatch.setattr(sys, "stderr", stderr)
    with pytest.raises(RuntimeError, match="diverged"), progress_bar(True) as progress:
        progress.update(RECORD)
        raise RuntimeError("diverged")
    assert stderr.getvalue().endswith("\n")


def test_notebook_without_ipywidgets_gives_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = type("ZMQInteractiveShell", (), {"config": {"IPKernelApp": {}}})()
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    for name in [name for name in sys.modules if name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook")]:
        monkeypatch.delitem(sys.modules, name)
    stderr = Stderr(False)
    monkeypatch.setattr(sys, "stderr", stderr)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with progress_bar(None) as progress:
            progress.update(RECORD)
    assert "1it" in stderr.getvalue()


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_first_ctrl_c_requests_and_second_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible() as interruption:
        assert not interruption.requested
        press_ctrl_c()
        assert interruption.requested
        press_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is before


def test_old_handler_is_back_and_each_block_starts_afresh() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda signum, frame: seen.append(signum))
    try:
        for _ in range(2):
            with interruptible() as interruption:
                press_ctrl_c()
                assert interruption.requested
        assert seen == []
        press_ctrl_c()
        assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_does_nothing_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[bool] = []

    def fit() -> None:
        with interruptible() as interruption:
            seen.append(interruption.requested or signal.getsignal(signal.SIGINT) is not before)

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert seen == [False]
