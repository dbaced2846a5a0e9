"""What a fit has reached, in a file: the same fit started again goes on from there, the learned network is kept.

One safetensors file with the estimates, and the network's weights once they are learned; loading it runs no code.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glmmnet.errors import FitError
from glmmnet.joint import Parameters
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
        Of formula, family and data; a file of another model is refused.
    """

    path: Path
    fingerprint: str

    def save(
        self, iteration: int, params: Parameters, predictor: NeuralPredictor | None, *, stretched: bool = False
    ) -> None:
        """Write the state after an iteration; the old file stays whole until the new one is complete."""
        tensors = {"beta": params.beta.contiguous(), "phi": torch.tensor(params.phi, dtype=torch.float64)}
        tensors |= {f"sigma.{k}": sigma.contiguous() for k, sigma in enumerate(params.sigma)}
        if predictor is not None:
            tensors |= {_NETWORK + name: value.contiguous() for name, value in predictor.state_dict().items()}
        state = json.dumps({"fingerprint": self.fingerprint, "iteration": iteration, "stretched": stretched})
        part = self.path.with_name(self.path.name + ".part")
        save_file(tensors, part, metadata={"glmmnet": state})
        os.replace(part, self.path)

    def load(self) -> Reached | None:
        """The state in the file; None if there is no file yet.

        Raises
        ------
        FitError
            The file is no checkpoint, or that of another model.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                state = json.loads((file.metadata() or {}).get("glmmnet", "{}"))
                tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        except SafetensorError as error:
            raise FitError(f"checkpoint={str(self.path)!r} is not a checkpoint of glmmnet: {error}.") from error
        if state.get("fingerprint") != self.fingerprint:
            raise FitError(
                f"checkpoint={str(self.path)!r} holds another model's state (formula, family or data differ); "
                "give another path, or delete the file."
            )
        sigma = tuple(tensors[f"sigma.{k}"] for k in range(sum(name.startswith("sigma.") for name in tensors)))
        network = {n.removeprefix(_NETWORK): value for n, value in tensors.items() if n.startswith(_NETWORK)}
        params = Parameters(tensors["beta"], sigma, float(tensors["phi"]))
        return Reached(int(state["iteration"]), params, network or None, bool(state.get("stretched")))
