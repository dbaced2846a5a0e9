import gzip
import hashlib
import re
from importlib.resources import files

import pandas as pd
import pytest
from pandas.api.types import is_float_dtype, is_integer_dtype, is_string_dtype

from glmmnet import datasets

FOLDER = files("glmmnet.datasets")
README = FOLDER.joinpath("README.md").read_text(encoding="utf-8")
TEXT = ["carrier", "tailnum", "origin", "dest"]
WITH_MISSING = ["plane_year", "seats", "temp", "wind_speed", "precip", "visib"]


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return datasets.load("flights")


@pytest.mark.parametrize("name", datasets.names())
def test_every_data_set_is_as_described(name):
    table, described = datasets.load(name), datasets.describe(name)
    assert list(table.columns) == list(described.columns)
    assert described.name == name
    assert f"`{name}`" in README and described.licence in README
    for column, (_, meaning) in described.columns.items():
        assert meaning in str(described), column


def test_flights_shape_and_dtypes(flights):
    assert flights.shape == (50_000, 17)
    assert pd.RangeIndex(50_000).equals(flights.index)
    for column in flights:
        check = is_string_dtype if column in TEXT else is_float_dtype if column in WITH_MISSING else is_integer_dtype
        assert check(flights[column]), column
        assert not isinstance(flights[column].dtype, pd.CategoricalDtype), column


def test_flights_figures_are_those_of_the_readme(flights):
    missing = {column: int(flights[column].isna().sum()) for column in WITH_MISSING}
    assert missing == {
        "plane_year": 8209,
        "seats": 7410,
        "temp": 249,
        "wind_speed": 259,
        "precip": 245,
        "visib": 245,
    }
    assert flights.drop(columns=WITH_MISSING).notna().all(axis=None)
    assert len(flights.drop(columns=["plane_year", "seats"]).dropna()) == 49_737
    levels = flights[["tailnum", "flight", "dest", "carrier", "origin"]].nunique().to_dict()
    assert levels == {"tailnum": 3642, "flight": 3148, "dest": 103, "carrier": 16, "origin": 3}
    for figure in [*missing.values(), 49_737, *levels.values()]:
        assert f"{figure:,}" in README, figure
    assert f"{100 * flights['late'].mean():.2f} %" in README


def test_flights_columns_hold_what_they_say(flights):
    pd.testing.assert_series_equal(flights["late"], (flights["arr_delay"] > 15).astype("int64"), check_names=False)
    assert flights["sched_dep_time"].between(0, 24 * 60 - 1).all()
    # As HHMM numbers none would have a remainder of 60 to 99; as minutes many do.
    assert (flights["sched_dep_time"] % 100 >= 60).mean() > 0.2
    assert pd.to_datetime(flights[["month", "day"]].assign(year=2013)).nunique() == 365


def test_flights_file_is_the_one_the_readme_names():
    packed = FOLDER.joinpath("flights.csv.gz").read_bytes()
    assert len(packed) < 1_200_000
    named = re.search(r"SHA-256 of the unpacked text: `(\w{64})`", README)
    assert named is not None
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == named.group(1)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"There is no data set 'flight'; did you mean 'flights'\?"):
        datasets.load("flight")
