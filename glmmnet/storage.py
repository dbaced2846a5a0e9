"""A fitted model in one file: JSON beside safetensors. Never pickle; reading it runs no code.

The arrays stand in a safetensors file, everything else as JSON in its metadata. Families and samplers are stored by
their registered names and options, nn() blocks by the options that they are built from, and formulas are parsed and
checked anew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from glmmnet._files import check_target, read_file, write_file
from glmmnet.design import Design, decode, encode, state_from_dict, state_to_dict
from glmmnet.em.config import EMConfig
from glmmnet.em.final import FinalDraws
from glmmnet.errors import FitError, GLMMNetError, as_mapping
from glmmnet.families import family_from_dict, family_to_dict
from glmmnet.fitted import Fitted
from glmmnet.joint import JointModel, Parameters
from glmmnet.networks import build_predictor
from glmmnet.projection import Projection
from glmmnet.samplers import SAMPLERS
from glmmnet.typing import NeuralTerm, RandomTerm, Response, Sampler

#: Number of the layout; files of another one are refused.
_LAYOUT = 2
_NETWORK = "network."
#: Arrays of a file by name.
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Stored:
    """What a file holds: the fitted model, and what the fit said of itself."""

    formula: str
    history: pd.DataFrame
    converged: bool
    seconds: float
    fitted: Fitted


def write(path: str | os.PathLike[str], stored: Stored) -> None:
    """Write a file; one that is there stays whole until the new one is complete.

    Raises
    ------
    FitError
        The family or the sampler is an object of the user's own, which only code could make again.
    DesignError
        A level or a learned value is of a type that cannot be stored.
    OSError
        There is no such folder, the path is a folder, or the disk refuses.
    """
    check_target(path)
    f = stored.fitted
    arrays: Arrays = {}
    record = {
        "layout": _LAYOUT,
        "formula": stored.formula,
        "history": encode({name: stored.history[name].tolist() for name in stored.history}),
        "converged": stored.converged,
        "seconds": stored.seconds,
        "family": encode(family_to_dict(f.joint.family)),
        "weight_kind": "frequency" if f.joint.divisor is None else "precision",
        "state": state_to_dict(f.design_state),
        "design": _design_to_dict(f.design, arrays),
        "params": _parameters_to_dict(f.params, "params", arrays),
        "inner": _parameters_to_dict(f.inner, "inner", arrays),
        "draws": {"chains": f.draws.chains, "draws": f.draws.draws, "max_tree_depth": f.draws.max_tree_depth},
        "sampler": _sampler_to_dict(f.sampler),
        "config": asdict(f.config),
        "seed": f.seed,
        "separating": list(f.separating),
        "beyond": None if f.beyond is None else list(f.beyond),
        "nn_options": None if f.predictor is None else encode(dict(f.nn_options)),
    }
    arrays["draws.b"] = f.draws.b.numpy()
    for name, values in f.draws.stats.items():
        arrays[f"stats.{name}"] = values
    if f.f is not None:
        arrays["f"] = f.f.numpy()
    if f.projection is not None:
        arrays["projection.columns"] = f.projection.columns.numpy()
        arrays["projection.gamma"] = f.projection.gamma.numpy()
    if f.predictor is not None:
        for name, value in f.predictor.state_dict().items():
            arrays[_NETWORK + name] = value.numpy()
    write_file(path, arrays, record)


def read(path: str | os.PathLike[str], context: Mapping[str, Any] | None, networks: Mapping[str, Any] | None) -> Stored:
    """The model in a file that :func:`write` made; arguments and errors are those of :func:`glmmnet.load`."""
    record, arrays = _contents(path)
    context = as_mapping("context", context, '{"A": A}')
    networks = as_mapping("networks", networks, '{"mine": module}')
    try:
        stored = _stored(record, arrays, context)
        options = decode(record["nn_options"])
    except GLMMNetError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise FitError(f"{str(path)!r} is damaged, or no model saved by results.save(): {error!r}.") from error
    if options is None:
        return stored
    # Outside of the above: what fails here may be the user's own module.
    fitted = _with_network(stored.fitted, options, networks, _with_prefix(arrays, _NETWORK))
    return replace(stored, fitted=fitted)


def _stored(record: Mapping[str, Any], arrays: Arrays, context: Mapping[str, Any]) -> Stored:
    """All of a file but its network."""
    design = _design_from_dict(record["design"], arrays)
    joint = JointModel.from_design(design, family_from_dict(decode(record["family"])), record["weight_kind"])
    fitted = Fitted(
        design=design,
        design_state=state_from_dict(record["state"], context=context),
        joint=joint,
        predictor=None,
        params=_parameters_from_dict(record["params"], "params", arrays),
        inner=_parameters_from_dict(record["inner"], "inner", arrays),
        f=_tensor(arrays, "f") if "f" in arrays else None,
        projection=Projection(_tensor(arrays, "projection.columns"), _tensor(arrays, "projection.gamma"))
        if "projection.gamma" in arrays
        else None,
        draws=FinalDraws(b=_tensor(arrays, "draws.b"), stats=_with_prefix(arrays, "stats."), **record["draws"]),
        sampler=_sampler_from_dict(record["sampler"]),
        config=EMConfig(**record["config"]),
        seed=record["seed"],
        separating=tuple(record["separating"]),
        beyond=None if record["beyond"] is None else tuple(record["beyond"]),
    )
    history = pd.DataFrame(decode(record["history"]))
    return Stored(record["formula"], history, record["converged"], record["seconds"], fitted)


def _contents(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Arrays]:
    """The JSON record and the arrays of a file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    refusal = f"{str(path)!r} is no model saved by results.save()"
    record, arrays = read_file(path, refusal)
    if not isinstance(record.get("layout"), int):
        raise FitError(f"{refusal}.")
    if record["layout"] != _LAYOUT:
        which = "a later" if record["layout"] > _LAYOUT else "an earlier"
        raise FitError(f"{str(path)!r} was saved by {which} version of glmmnet; install that to read it.")
    return record, arrays


def _tensor(arrays: Arrays, name: str) -> Tensor:
    return torch.from_numpy(arrays[name].copy())


def _with_prefix(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _design_to_dict(design: Design, arrays: Arrays) -> dict[str, Any]:
    response = design.response
    assert response is not None
    arrays |= {"X": design.X, "offset": design.offset, "rows": design.rows, "response": response.values}
    if design.weights is not None:
        arrays["weights"] = design.weights
    for k, term in enumerate(design.random):
        arrays |= {f"random.{k}.index": term.index, f"random.{k}.z": term.z}
        if term.correlation is not None:
            arrays[f"random.{k}.correlation"] = term.correlation
    arrays |= {f"neural.{k}.x": block.x for k, block in enumerate(design.neural)}
    return {
        "response": _plain(response),
        "neural": [_plain(block) for block in design.neural],
        "random": [_plain(term) for term in design.random],
        "index": encode(design.index),
        "index_names": encode(list(design.index.names)),
        **{name: encode(getattr(design, name)) for name in ("x_names", "x_variables", "x_parts", "n_total")},
    }


def _plain(record: Response | NeuralTerm | RandomTerm) -> dict[str, Any]:
    """All fields but the arrays."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: encode(value) for name, value in values.items() if not isinstance(value, np.ndarray)}


def _design_from_dict(stored: Mapping[str, Any], arrays: Arrays) -> Design:
    random = []
    for k, one in enumerate(stored["random"]):
        own = _with_prefix(arrays, f"random.{k}.")
        random.append(RandomTerm(**{name: decode(value) for name, value in one.items()} | own))
    neural = [
        NeuralTerm(**{name: decode(value) for name, value in one.items()}, x=arrays[f"neural.{k}.x"])
        for k, one in enumerate(stored["neural"])
    ]
    response = {name: decode(value) for name, value in stored["response"].items()}
    return Design(
        response=Response(**response, values=arrays["response"]),
        X=arrays["X"],
        neural=tuple(neural),
        random=tuple(random),
        offset=arrays["offset"],
        weights=arrays.get("weights"),
        rows=arrays["rows"],
        index=decode(stored["index"]).set_names(decode(stored["index_names"])),
        **{name: decode(stored[name]) for name in ("x_names", "x_variables", "x_parts", "n_total")},
    )


def _parameters_to_dict(params: Parameters, name: str, arrays: Arrays) -> dict[str, Any]:
    arrays[f"{name}.beta"] = params.beta.numpy()
    arrays |= {f"{name}.sigma.{k}": sigma.numpy() for k, sigma in enumerate(params.sigma)}
    return {"terms": len(params.sigma), "phi": params.phi}


def _parameters_from_dict(stored: Mapping[str, Any], name: str, arrays: Arrays) -> Parameters:
    sigma = tuple(_tensor(arrays, f"{name}.sigma.{k}") for k in range(stored["terms"]))
    return Parameters(_tensor(arrays, f"{name}.beta"), sigma, stored["phi"])


def _sampler_to_dict(sampler: Sampler | None) -> dict[str, Any] | None:
    if sampler is None:
        return None
    if sampler.name not in SAMPLERS or type(sampler) is not SAMPLERS[sampler.name]:
        raise FitError(f"the sampler {sampler!r} is an object of your own, which cannot be saved without its code.")
    # The registered samplers are dataclasses, which their protocol does not say.
    return {"name": sampler.name, "options": asdict(sampler)}  # type: ignore[call-overload]


def _sampler_from_dict(stored: Mapping[str, Any] | None) -> Sampler | None:
    return None if stored is None else SAMPLERS[stored["name"]](**stored["options"])


def _with_network(fitted: Fitted, options: Any, networks: Mapping[str, Any] | None, weights: Arrays) -> Fitted:
    """The fitted model with its network, built as for the fit and given the weights."""
    with torch.random.fork_rng(devices=[]):
        predictor = build_predictor(fitted.design.neural, fitted.joint.n_outputs, options, networks)
    try:
        predictor.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    except RuntimeError as error:
        raise FitError(
            "the saved weights do not fit the network; a module or factory that was given to glmm(networks=) is given "
            f"to load(networks=) too: {error}"
        ) from error
    return replace(fitted, predictor=predictor, nn_options=options)
