"""Files of arrays with a JSON record: written whole or not at all, and read without running code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from glmmnet.errors import FitError

_RECORD = "glmmnet"


def check_target(path: str | os.PathLike[str]) -> Path:
    """`path`, if a file can be written there.

    Raises
    ------
    OSError
        The path is a folder, or there is no such folder.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; add the name of a file.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(target.parent)!r}.")
    return target


def write_file(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    """Write a file; one that is there stays whole until the new one is complete.

    Raises
    ------
    OSError
        As `check_target`; also when the disk refuses.
    """
    target = check_target(path)
    part = target.with_name(target.name + ".part")
    try:
        contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        save_file(contiguous, part, {_RECORD: json.dumps(record)})
        os.replace(part, target)
    except SafetensorError as error:
        raise OSError(f"{str(path)!r} cannot be written: {error}.") from error
    finally:
        part.unlink(missing_ok=True)


def read_file(path: str | os.PathLike[str], refusal: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The record and the arrays of a file.

    Parameters
    ----------
    path : path
    refusal : str
        What a file of another kind is said to be: ``"'a' is no model saved by results.save()"``.

    Raises
    ------
    FitError
    """
    try:
        with safe_open(path, framework="numpy") as file:
            record = json.loads((file.metadata() or {}).get(_RECORD, "{}"))
            arrays = {name: file.get_tensor(name) for name in list(file.keys())}
    except (SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise FitError(f"{refusal}: {error}.") from error
    if not isinstance(record, dict):
        raise FitError(f"{refusal}.")
    return record, arrays
