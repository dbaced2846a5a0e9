"""A design state as JSON-able values and back: what a saved model holds, so that loading runs no code."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from formulaic.model_spec import ModelSpec
from formulaic.parser.types import Factor

from glmmnet.errors import DesignError, as_mapping
from glmmnet.formula import parse, with_part

from .coding import Coding, Codings
from .grouping import Grouping
from .matrix import Block, Part, model_spec
from .response import ResponseState
from .state import DesignState, Needs


def state_to_dict(state: DesignState) -> dict[str, Any]:
    """All that `state` has learned, in dicts, lists, text, numbers, booleans and None.

    Objects of ``context=`` are not stored, only their names.

    Raises
    ------
    DesignError
        A level or a learned value is of a type that cannot be stored.
    """
    return {
        "formula": state.spec.text,
        "parts": [
            [one.name, one.text, _part_to_dict(part)]
            for one, (_, part) in zip(state.spec.parts, state.parts, strict=True)
        ],
        "columns": state.spec.columns,
        "needs": asdict(state.needs),
        "kinds": state.kinds,
        "context": sorted(state.context),
        "ordered": encode({name: vars(coding) for name, coding in state.codings.ordered.items()}),
        "contrasts": encode({name: vars(coding) for name, coding in state.codings.given.items()}),
        "response": {
            "kind": state.response.kind,
            "levels": encode(state.response.levels),
            "transforms": encode(state.response.transforms),
        },
        "fixed": _part_to_dict(state.fixed),
        "neural": [_part_to_dict(part) for part in state.neural],
        "effects": [_part_to_dict(part) for part in state.effects],
        "groupings": [encode(vars(grouping)) for grouping in state.groupings],
        "offset_transforms": encode(state.offset_transforms),
    }


def state_from_dict(stored: Mapping[str, Any], *, context: Mapping[str, Any] | None = None) -> DesignState:
    """The state that `state_to_dict` gave; `context` must hold the objects that the formula used.

    Raises
    ------
    DesignError
        An object of the context is missing.
    """
    context = as_mapping("context", context, '{"A": A}')
    missing = [name for name in stored["context"] if name not in context]
    if missing:
        raise DesignError(
            f"The formula uses {', '.join(missing)}: pass context={{{missing[0]!r}: ...}} as for the fit."
        )
    columns = stored["columns"]
    columns = None if columns is None else list(columns)
    spec = parse(stored["formula"], columns)
    for name, text, _ in stored["parts"]:
        spec = with_part(spec, name, text, columns)
    response = stored["response"]
    return DesignState(
        spec=spec,
        needs=Needs(**{role: tuple(names) for role, names in stored["needs"].items()}),
        kinds=dict(stored["kinds"]),
        context={name: context[name] for name in stored["context"]},
        codings=Codings(
            ordered={name: Coding(**coding) for name, coding in decode(stored["ordered"]).items()},
            given={name: Coding(**coding) for name, coding in decode(stored["contrasts"]).items()},
        ),
        response=ResponseState(
            spec.response, response["kind"], decode(response["levels"]), decode(response["transforms"])
        ),
        fixed=_part_from_dict(stored["fixed"], model_spec(spec.fixed)),
        parts=tuple(
            (one.name, _part_from_dict(part, model_spec(one.fixed)))
            for (_, _, part), one in zip(stored["parts"], spec.parts, strict=True)
        ),
        neural=tuple(
            _part_from_dict(part, model_spec(block.inputs, ordering="none", full_rank=False))
            for part, block in zip(stored["neural"], spec.neural, strict=True)
        ),
        effects=tuple(
            _part_from_dict(part, model_spec(term.effects))
            for part, term in zip(stored["effects"], spec.random, strict=True)
        ),
        groupings=tuple(Grouping(**decode(grouping)) for grouping in stored["groupings"]),
        offset_transforms=decode(stored["offset_transforms"]),
    )


def _part_to_dict(part: Part) -> dict[str, Any]:
    encoders = part.model_spec.encoder_state
    return {
        "names": list(part.names),
        "blocks": [asdict(block) for block in part.blocks],
        "transforms": encode(part.model_spec.transform_state),
        # the contrasts themselves are read from the formula again, or stand beside
        "encoders": [
            [expression, kind.value, encode(state.get("categories"))] for expression, (kind, state) in encoders.items()
        ],
    }


def _part_from_dict(stored: Mapping[str, Any], spec: ModelSpec) -> Part:
    encoders = {}
    for expression, kind, categories in stored["encoders"]:
        state = {} if categories is None else {"categories": decode(categories)}
        encoders[expression] = (Factor.Kind(kind), state)
    blocks = tuple(Block(**{**block, "variables": tuple(block["variables"])}) for block in stored["blocks"])
    learned = spec.update(transform_state=decode(stored["transforms"]), encoder_state=encoders)
    return Part(learned, tuple(stored["names"]), blocks)


def encode(value: Any) -> Any:
    """`value` in JSON's types; anything but None, bool, int, float, text and lists is a dict that names its type."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [encode(one) for one in value]
    if isinstance(value, tuple):
        return {"tuple": [encode(one) for one in value]}
    if isinstance(value, Mapping):
        return {"mapping": [[encode(key), encode(one)] for key, one in value.items()]}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, pd.MultiIndex):
        return {"columns": [encode(value.get_level_values(i)) for i in range(value.nlevels)]}
    if isinstance(value, pd.RangeIndex):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, pd.Index):
        return {"index": [encode(one) for one in value], "dtype": str(value.dtype)}
    if isinstance(value, pd.Timestamp):
        return {"timestamp": value.isoformat(), "zone": None if value.tz is None else str(value.tz)}
    if isinstance(value, pd.Timedelta):
        return {"timedelta": value.isoformat()}
    if isinstance(value, pd.Interval):
        return {"interval": [encode(value.left), encode(value.right)], "closed": value.closed}
    if isinstance(value, pd.Period):
        return {"period": value.ordinal, "freq": value.freqstr}
    # A date with a time is a date to Python.
    if type(value) is datetime.date:
        return {"date": value.isoformat()}
    raise DesignError(
        f"A value of type {type(value).__name__} cannot be stored, {value!r}; convert the column to text."
    )


def decode(value: Any) -> Any:
    """What :func:`encode` was given."""
    if isinstance(value, list):
        return [decode(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    if "tuple" in value:
        return tuple(decode(one) for one in value["tuple"])
    if "mapping" in value:
        return {decode(key): decode(one) for key, one in value["mapping"]}
    if "array" in value:
        return np.array(value["array"], dtype=value["dtype"])
    if "columns" in value:
        return pd.MultiIndex.from_arrays([decode(one) for one in value["columns"]])
    if "range" in value:
        return pd.RangeIndex(*value["range"])
    if "index" in value:
        return pd.Index([decode(one) for one in value["index"]], dtype=value["dtype"])
    if "timestamp" in value:
        stamp = pd.Timestamp(value["timestamp"])
        return stamp if value["zone"] is None else stamp.tz_convert(value["zone"])
    if "interval" in value:
        left, right = value["interval"]
        return pd.Interval(decode(left), decode(right), value["closed"])
    if "period" in value:
        return pd.Period(ordinal=value["period"], freq=value["freq"])
    if "date" in value:
        return datetime.date.fromisoformat(value["date"])
    return pd.Timedelta(value["timedelta"])
