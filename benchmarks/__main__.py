"""The command: ``python -m benchmarks NAME [options]``; a benchmark is a module of this folder with `run`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks._harness import Report, default_path

FOLDER = Path(__file__).parent


def known() -> list[str]:
    """Names of the benchmarks: the modules of this folder that define `run(options, report)`."""
    modules = [path for path in FOLDER.glob("*.py") if not path.name.startswith("_")]
    return sorted(path.stem for path in modules if "\ndef run(options" in path.read_text(encoding="utf-8"))


def common_options(parser: argparse.ArgumentParser) -> None:
    """Options that every benchmark has."""
    parser.add_argument("--seeds", type=_positive, default=None, metavar="N", help="seeds 0 to N - 1 (5; quick: 1)")
    parser.add_argument("--quick", action="store_true", help="small data and few epochs: does it run?")
    parser.add_argument("--csv", type=Path, default=None, help="file that the rows are added to (results/NAME.csv)")
    parser.add_argument("--only", type=_names, default=None, metavar="SCENARIO,...", help="these scenarios only")
    parser.add_argument("--methods", type=_names, default=None, metavar="METHOD,...", help="these methods only")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} seeds; give 1 or more.")
    return value


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main(arguments: Sequence[str]) -> None:
    """Run one benchmark; an error of glmmnet itself is raised after the report."""
    names = known()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: python -m benchmarks NAME [options]\nNAME is one of: {', '.join(names)}")
        return
    name, *rest = arguments
    if name not in names:
        raise SystemExit(f"there is no benchmark {name!r}; write one of: {', '.join(names)}.")
    module = importlib.import_module(f"benchmarks.{name}")
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=module.__doc__)
    common_options(parser)
    module.add_options(parser)
    options = parser.parse_args(rest)
    options.seeds = options.seeds or (1 if options.quick else 5)
    report = Report(name, options.csv or default_path(name, options.quick))
    try:
        module.run(options, report)
    finally:
        report.print_table()
    report.raise_failures()


if __name__ == "__main__":
    main(sys.argv[1:])
