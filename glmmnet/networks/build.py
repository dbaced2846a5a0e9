"""NeuralTerm -> NeuralBlock."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr
from torch import nn

from glmmnet.errors import FormulaError
from glmmnet.networks.block import Bins, Embeddings, NeuralBlock, perceptron
from glmmnet.networks.options import NNOptions
from glmmnet.networks.predictor import NeuralPredictor
from glmmnet.typing import NeuralTerm

#: Distance from the normal distribution function beyond which a column gets bins, and rows a bin at least.
_FAR, _ROWS_A_BIN = 0.07, 1000

Network = nn.Module | Callable[[int, int], nn.Module]


def build_predictor(
    terms: Sequence[NeuralTerm],
    n_outputs: int,
    defaults: Mapping[str, Any] | None = None,
    networks: Mapping[str, Network] | None = None,
    scale: float = 1.0,
) -> NeuralPredictor:
    """All blocks of a formula, f in units of `scale`; see `build_block`.

    Raises
    ------
    FormulaError
        As `build_block`; also an entry of `networks` that no term uses.
    """
    used = {term.options.get("net") or (defaults or {}).get("net") or term.name for term in terms}
    for name in networks or {}:
        if name not in used:
            raise FormulaError(f'networks= has {name!r}, which no nn() term uses; write nn(..., net="{name}").')
    blocks = [build_block(term, n_outputs, defaults, networks) for term in terms]
    return NeuralPredictor(blocks, n_outputs, scale)


def build_block(
    term: NeuralTerm,
    n_outputs: int,
    defaults: Mapping[str, Any] | None = None,
    networks: Mapping[str, Network] | None = None,
) -> NeuralBlock:
    """A fresh block for one term; its weights come from torch's global generator.

    Parameters
    ----------
    term : NeuralTerm
        Its `x` gives the standardisation: mean and sd of each column, of a constant column sd 1.
    n_outputs : int
        C.
    defaults : mapping or None
        Options for all blocks, ``nn=dict(...)``; those of the term override them.
    networks : mapping or None
        {name: Module or factory(n_inputs, n_outputs)}. The one called as ``net=`` says, or else as the term,
        takes the place of the layers. A module is copied: fitting never changes the user's.

    Raises
    ------
    FormulaError
        A wrong option; ``net=`` that is not in `networks`; a network whose output is not (n, C).
    """
    options = NNOptions.resolve(defaults, term.options)
    mean, sd = _standardisation(term.x)
    embeddings = None
    n_inputs = term.x.shape[1]
    embedded = options.embed is not None and bool(term.categorical)
    if "embed" in term.options and options.embed is not None and not embedded:
        raise FormulaError(f"{term.label}: embed={options.embed} needs a categorical input, there is none.")
    if options.embed is not None and embedded:
        for start, stop in term.categorical:
            mean[start:stop], sd[start:stop] = 0.0, 1.0
        embeddings = Embeddings(n_inputs, term.categorical, options.embed)
        n_inputs = embeddings.n_outputs
    network = _named_network(term, options, networks)
    bins = _bins(term, mean, sd, options.bins) if network is None and options.layers else None
    if network is None:
        n_bins = 0 if bins is None else bins.n_outputs
        body: nn.Module = perceptron(n_inputs + n_bins, n_outputs, options)
        sizes = "-".join(map(str, (n_inputs, *options.layers, n_outputs)))
        parts = [f"{sizes} {options.activation}" if options.layers else sizes]
        parts += [f"dropout={options.dropout:g}"] if options.layers and options.dropout else []
    else:
        body = _user_body(term, options.net or term.name, network, n_inputs, n_outputs)
        parts = [f"{n_inputs}-{n_outputs} {type(body).__name__}"]
    parts += [f"{bins.n_outputs} bins"] if bins is not None else []
    parts += [f"embed={options.embed}"] if embedded else []
    parts += [f"l2={_scientific(options.weight_decay)}"] if options.weight_decay else []
    block = NeuralBlock(mean, sd, embeddings, bins, body, options, ", ".join(parts))
    if network is not None:
        _check_output(term, block, n_outputs)
    return block


def _bins(term: NeuralTerm, mean: np.ndarray, sd: np.ndarray, count: int) -> Bins | None:
    """Bins between the quantiles of each numeric column that has ties or is far from normal; None if none is."""
    coded = {c for start, stop in term.categorical for c in range(start, stop)}
    count = min(count, len(term.x) // _ROWS_A_BIN)
    columns: list[int] = []
    ends: list[np.ndarray] = []
    for c in sorted(set(range(term.x.shape[1])) - coded):
        z = (term.x[:, c].astype(np.float64) - mean[c]) / sd[c]
        edges = np.unique(np.quantile(z, np.linspace(0.0, 1.0, count + 1)))
        if count > 1 and len(edges) > 2 and (2 * len(np.unique(z)) < len(z) or _is_far_from_normal(z)):
            columns += [c] * (len(edges) - 1)
            ends.append(edges)
    if not columns:
        return None
    lower, width = np.concatenate([e[:-1] for e in ends]), np.concatenate([np.diff(e) for e in ends])
    return Bins(np.array(columns), lower, width)


def _is_far_from_normal(z: np.ndarray) -> bool:
    """Whether the distribution function of a standardised column is far from the normal's somewhere."""
    n, ordered = len(z), np.sort(z)
    normal, steps = ndtr(ordered), np.arange(n + 1) / n
    distance = max(np.abs(steps[1:] - normal).max(), np.abs(steps[:-1] - normal).max())
    return bool(distance > _FAR + 1.0 / math.sqrt(n))


def _standardisation(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = x.mean(axis=0, dtype=np.float64)
    sd = x.std(axis=0, dtype=np.float64)
    # rounding leaves a constant column an sd of the order of its size times the float32 epsilon
    constant = sd <= 1e-6 * np.abs(mean)
    return mean, np.where(constant, 1.0, sd)


def _named_network(term: NeuralTerm, options: NNOptions, networks: Mapping[str, Network] | None) -> Network | None:
    name = options.net or term.name
    network = (networks or {}).get(name)
    if network is None:
        if options.net is not None:
            known = ", ".join(sorted(networks or {})) or "none"
            raise FormulaError(f"{term.label}: net={name!r} is not in networks= (there: {known}).")
        return None
    for option in ("layers", "activation", "dropout"):
        if option in term.options:
            raise FormulaError(f"{term.label}: the network {name!r} is used; leave {option}= out.")
    return network


def _user_body(term: NeuralTerm, key: str, network: Network, n_inputs: int, n_outputs: int) -> nn.Module:
    if isinstance(network, nn.Module):
        return copy.deepcopy(network).to(torch.float32)
    wanted = "write a torch.nn.Module or a factory(n_inputs, n_outputs)"
    if not callable(network):
        raise FormulaError(f"{term.label}: networks={{{key!r}: {network!r}}} is no network; {wanted}.")
    try:
        inspect.signature(network).bind(n_inputs, n_outputs)
    except (TypeError, ValueError) as error:
        raise FormulaError(
            f"{term.label}: networks={{{key!r}: ...}} cannot be called with {n_inputs} inputs and {n_outputs} outputs, "
            f"{error}; {wanted}."
        ) from None
    body = network(n_inputs, n_outputs)
    if not isinstance(body, nn.Module):
        raise FormulaError(f"{term.label}: networks={{{key!r}: ...}} made a {type(body).__name__}; {wanted}.")
    return body.to(torch.float32)


def _check_output(term: NeuralTerm, block: NeuralBlock, n_outputs: int) -> None:
    """Two rows through a user's network, in eval mode, must give (2, C)."""
    rows = torch.as_tensor(np.resize(term.x, (2, term.x.shape[1])))
    training = block.training
    block.eval()
    with torch.no_grad():
        try:
            out = block(rows)
        except RuntimeError as error:
            raise FormulaError(
                f"{term.label}: the network does not take {term.x.shape[1]} input columns: {error}"
            ) from error
    block.train(training)
    shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
    if shape != (2, n_outputs):
        raise FormulaError(
            f"{term.label}: from 2 rows the network makes {shape}; it must make (2, {n_outputs}), one column "
            "for each linear predictor."
        )


def _scientific(value: float) -> str:
    return np.format_float_scientific(value, trim="-", exp_digits=1)
