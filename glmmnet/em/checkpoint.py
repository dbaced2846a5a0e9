"""What a fit has reached, in a file: the same fit started again goes on from there, the learned network is kept.

One safetensors file with the estimates, and the network's weights once they are learned; loading it runs no code.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glmmnet._files import check_target, read_file, write_file
from glmmnet.design import Design
from glmmnet.errors import FitError
from glmmnet.joint import JointModel, Parameters
from glmmnet.networks import NeuralPredictor

_NETWORK = "network."


@dataclass(frozen=True)
class Reached:
    """Where an earlier fit stood.

    Attributes
    ----------
    iteration : int
    params : Parameters
    network : dict of str to Tensor, or None
        Weights of the learned network.
    stretched : bool
        Whether its size is free, see :mod:`glmmnet.em.stretch`.
    """

    iteration: int
    params: Parameters
    network: dict[str, Tensor] | None
    stretched: bool


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file of one model.

    Attributes
    ----------
    path : Path
    fingerprint : str
        See :func:`fingerprint`; a file of another model is refused.
    """

    path: Path
    fingerprint: str

    def save(
        self, iteration: int, params: Parameters, predictor: NeuralPredictor | None, *, stretched: bool = False
    ) -> None:
        """Write the state after an iteration; the old file stays whole until the new one is complete."""
        arrays = {"beta": params.beta.numpy(), "phi": np.array(params.phi, dtype=np.float64)}
        arrays |= {f"sigma.{k}": sigma.numpy() for k, sigma in enumerate(params.sigma)}
        if predictor is not None:
            arrays |= {_NETWORK + name: value.numpy() for name, value in predictor.state_dict().items()}
        record = {"fingerprint": self.fingerprint, "iteration": iteration, "stretched": stretched}
        write_file(self.path, arrays, record)

    def load(self) -> Reached | None:
        """The state in the file; None if there is no file yet.

        Raises
        ------
        FitError
            The file is no checkpoint, or that of another model.
        """
        if not self.path.exists():
            return None
        record, arrays = read_file(self.path, f"checkpoint={str(self.path)!r} is not a checkpoint of glmmnet")
        if record.get("fingerprint") != self.fingerprint:
            raise self._of_another_model("formula, family, data, weights or networks differ")
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        sigma = tuple(tensors[f"sigma.{k}"] for k in range(sum(name.startswith("sigma.") for name in tensors)))
        network = {n.removeprefix(_NETWORK): value for n, value in tensors.items() if n.startswith(_NETWORK)}
        params = Parameters(tensors["beta"], sigma, float(tensors["phi"]))
        return Reached(int(record["iteration"]), params, network or None, bool(record["stretched"]))

    def give_weights(self, weights: Mapping[str, Tensor], predictor: NeuralPredictor) -> None:
        """Give `predictor` the weights of the learned network.

        Raises
        ------
        FitError
            They are those of a network that is built otherwise.
        """
        try:
            predictor.load_state_dict(weights)
        except RuntimeError as error:
            raise self._of_another_model(str(error)) from error

    def _of_another_model(self, what: str) -> FitError:
        return FitError(
            f"checkpoint={str(self.path)!r} holds another model's state ({what}); give another path, or delete the "
            "file."
        )


def open_checkpoint(path: str | os.PathLike[str], fingerprint: str) -> Checkpoint:
    """The checkpoint in a file that is there, or that can be written.

    Raises
    ------
    OSError
        The path is a folder, or there is no such folder.
    """
    return Checkpoint(check_target(path), fingerprint)


def fingerprint(
    formula: str, joint: JointModel, design: Design, options: Mapping[str, Any], networks: Mapping[str, Any]
) -> str:
    """Digest of all that a model is made of, but the modules of the user's own networks, of which it has the names.

    Parameters
    ----------
    options : mapping
        ``nn=`` of :func:`glmmnet.glmm`.
    networks : mapping
        ``networks=``.
    """
    terms = [(term.label, term.names, term.structure, term.positions) for term in design.random]
    text = (formula, repr(joint.family), design.x_names, terms, sorted(options.items()), sorted(networks))
    digest = hashlib.sha256(repr(text).encode())
    arrays: list[np.ndarray | None] = [joint.target.y.numpy(), design.X, joint.weights.numpy(), design.offset]
    arrays += [array for term in design.random for array in (term.index, term.z, term.correlation)]
    arrays += [block.x for block in design.neural]
    arrays.append(None if joint.divisor is None else joint.divisor.numpy())
    for array in arrays:
        # Shapes too, so that numbers cannot move from one array to the next; None has one of its own.
        digest.update(repr(None if array is None else (array.shape, array.dtype)).encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
