"""What all benchmarks share: rows of results, and what a computation costs."""

from __future__ import annotations

import ctypes
import gc
import platform
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

#: Seconds between two looks at the memory.
_INTERVAL = 0.01


def default_path(name: str, quick: bool) -> Path:
    """Where results go unless ``--csv`` says so; quick runs have a file of their own."""
    return Path(__file__).parent / "results" / f"{name}{'_quick' if quick else ''}.csv"


@dataclass
class Cost:
    """Seconds of wall and CPU time, and the peak of memory above the start in MB (NaN without psutil)."""

    seconds: float = float("nan")
    cpu_seconds: float = float("nan")
    memory_mb: float = float("nan")

    def figures(self) -> dict[str, float]:
        """As columns of a report."""
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "memory_mb": self.memory_mb}


@contextmanager
def measured() -> Iterator[Cost]:
    """Fill the Cost it gives when the block ends."""
    cost = Cost()
    _release_memory()
    with _peak_memory(cost):
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield cost
        finally:
            cost.seconds, cost.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu


def _release_memory() -> None:
    """Give freed memory back to the system, or the block would use it again unseen (with glibc only)."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def _peak_memory(cost: Cost) -> Iterator[None]:
    """Sample the process's resident memory in a thread."""
    try:
        import psutil
    except ImportError:
        yield
        return
    process, stop = psutil.Process(), threading.Event()
    start = peak = process.memory_info().rss

    def sample() -> None:
        nonlocal peak
        while not stop.wait(_INTERVAL):
            peak = max(peak, process.memory_info().rss)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        cost.memory_mb = (max(peak, process.memory_info().rss) - start) / 1e6


def software(*packages: str) -> str:
    """Versions as text: ``catboost 1.2.8, scikit-learn 1.7``; a package that is missing is left out."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def own_version() -> str:
    """glmmnet's version, and the commit where the benchmarks run from a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return version("glmmnet")
    return version("glmmnet") + (f" {done.stdout.strip()}" if done.returncode == 0 else "")


class Report:
    """Rows of one benchmark: written to the CSV one by one, printed as they come and as a table of means.

    Parameters
    ----------
    name : str
    path : Path
        Rows of earlier runs in it are kept.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._failures: list[Exception] = []
        self._earlier = pd.read_csv(path) if path.exists() else pd.DataFrame()
        self._stamp = {
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
            "glmmnet": own_version(),
            "python": platform.python_version(),
            "torch": version("torch"),
            "numpy": version("numpy"),
        }

    @property
    def frame(self) -> pd.DataFrame:
        """The rows of this run."""
        return pd.DataFrame(self.rows)

    def add(self, *, scenario: str, method: str, seed: int, peer: str = "", **figures: Any) -> None:
        """One row; `peer` gives the versions of other programs that were used, see :func:`software`.

        Figures whose name has a dot, such as ``variance.g``, go to the CSV but are not printed.
        """
        row = {"benchmark": self.name, "scenario": scenario, "method": method, "seed": seed, **figures}
        self.rows.append({**row, **self._stamp, "peer": peer})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        pd.concat([self._earlier, self.frame], ignore_index=True).to_csv(self.path, index=False)
        shown = "  ".join(f"{k} {_short(v)}" for k, v in figures.items() if v != "" and not _detail(k))
        print(f"{scenario} | {method} | seed {seed} | {shown}", flush=True)

    def attempt(
        self,
        compute: Callable[[], Mapping[str, Any]],
        *,
        scenario: str,
        method: str,
        seed: int,
        peer: Sequence[str] = (),
        own: bool = False,
    ) -> dict[str, Any] | None:
        """Add the row that `compute` gives, its warnings in the column `warned`; an error is a row that says so.

        Parameters
        ----------
        compute : callable
            Returns the figures.
        peer : sequence of str
            Packages whose versions the row shall have.
        own : bool
            An error is one of glmmnet: it is raised by :meth:`raise_failures` when all has been written.

        Returns
        -------
        dict or None
            The figures; None after an error.
        """
        where = {"scenario": scenario, "method": method, "seed": seed, "peer": software(*peer)}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                figures = dict(compute())
            except Exception as error:  # any failure of a peer is a row, not the end of the run
                if own:
                    self._failures.append(error)
                self.add(**where, error=f"{type(error).__name__}: {error}")
                return None
        named = sorted({w.category.__name__ for w in caught if w.category.__module__.startswith("glmmnet")})
        self.add(**where, **figures, warned=", ".join(named))
        return figures

    def means(self) -> pd.DataFrame:
        """Means over the seeds by scenario and method, in the order in which they came."""
        frame = self.frame
        numbers = [c for c in frame.select_dtypes("number") if c != "seed" and not _detail(c)]
        return frame.groupby(["scenario", "method"], sort=False)[numbers].mean().dropna(axis=1, how="all")

    def note(self, text: str) -> None:
        """Text to print below the table."""
        self.notes.append(text)

    def print_table(self) -> None:
        """The means, below them the notes and what went wrong."""
        if not self.rows:
            print(f"{self.name}: no rows.")
            return
        means = self.means().reset_index()
        cells = [[_short(value) for value in row] for row in means.itertuples(index=False)]
        print(f"\n{self.name}: means over the seeds\n" + tabulate(cells, headers=list(means), disable_numparse=True))
        for note in self.notes:
            print(f"\n{note}")
        if "error" in self.frame:
            for row in self.frame.dropna(subset="error").itertuples():
                print(f"failed: {row.scenario} | {row.method} | seed {row.seed} | {row.error}")
        print(f"\nrows: {self.path}", flush=True)

    def raise_failures(self) -> None:
        """The first error of glmmnet itself, if there was one."""
        if self._failures:
            raise self._failures[0]


def _detail(name: str) -> bool:
    return "." in name


def _short(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4g}"
    return str(value)
