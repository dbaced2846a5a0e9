"""Example data for documentation and tests; README.md beside this file states sources and licences."""

from importlib.resources import as_file, files

import pandas as pd

from glmmnet.datasets._dataset import REGISTRY, Dataset

__all__ = ["Dataset", "describe", "load", "names"]


def names() -> list[str]:
    """Names of the shipped data sets."""
    return list(REGISTRY)


def describe(name: str) -> Dataset:
    """Source, licence and columns of a data set; printing it gives readable text.

    Raises
    ------
    OptionError
        If there is no data set of that name.
    """
    return REGISTRY[name]


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
    OptionError
        If there is no data set of that name.
    """
    dtypes = {column: dtype for column, (dtype, _) in describe(name).columns.items()}
    with as_file(files(__package__) / f"{name}.csv.gz") as path:
        return pd.read_csv(path, dtype=dtypes)
