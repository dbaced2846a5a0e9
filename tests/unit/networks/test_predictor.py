from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glmmnet.networks import NeuralPredictor, WeightAverage, build_predictor
from glmmnet.typing import NeuralTerm

SEED = 3


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    print(f"seed {SEED}")
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        yield


def two_blocks(**options: Any) -> tuple[NeuralPredictor, list[Tensor]]:
    rng = np.random.default_rng(SEED)
    terms, xs = [], []
    for name, d in (("a", 2), ("b", 3)):
        x = rng.normal(size=(25, d)).astype(np.float32)
        names = tuple(f"{name}{j}" for j in range(d))
        terms.append(NeuralTerm(name, name, names, names, x, options=options))
        xs.append(torch.as_tensor(x))
    return build_predictor(terms, 2), xs


def test_blocks_add_up() -> None:
    predictor, xs = two_blocks()
    torch.testing.assert_close(predictor(xs), predictor.blocks[0](xs[0]) + predictor.blocks[1](xs[1]))


@pytest.mark.parametrize("batch", [1, 7, 25, 1000])
def test_prediction_is_the_same_in_every_batch_size(batch: int) -> None:
    predictor, xs = two_blocks()
    out = predictor.predict(xs, batch=batch)
    assert out.shape == (25, 2)
    assert out.dtype == torch.float64
    assert not out.requires_grad
    torch.testing.assert_close(out, predictor(xs).double(), rtol=1e-5, atol=1e-6)


def test_prediction_leaves_dropout_out_and_restores_the_modes() -> None:
    predictor, xs = two_blocks(dropout=0.5)
    predictor.blocks[1].eval()
    assert not torch.equal(predictor(xs), predictor(xs))
    assert torch.equal(predictor.predict(xs), predictor.predict(xs))
    assert predictor.training
    assert predictor.blocks[0].body[2].training
    assert not predictor.blocks[1].body[2].training


def test_scale_and_centre() -> None:
    predictor, xs = two_blocks()
    total = predictor(xs)
    predictor.scale.fill_(3.0)
    predictor.centre.copy_(torch.tensor([1.0, -2.0]))
    torch.testing.assert_close(predictor(xs), 3.0 * total - torch.tensor([1.0, -2.0]))
    assert {"scale", "centre"} <= predictor.state_dict().keys()


def test_no_rows_give_no_predictions() -> None:
    predictor, xs = two_blocks()
    assert predictor.predict([x[:0] for x in xs]).shape == (0, 2)


def test_inputs_must_match_the_blocks() -> None:
    predictor, xs = two_blocks()
    with pytest.raises(ValueError, match="2 blocks, but inputs for 1"):
        predictor(xs[:1])
    with pytest.raises(ValueError, match="at least one block"):
        build_predictor([], 2)


def test_weight_average_is_the_exponential_average() -> None:
    module = nn.Linear(3, 2)
    expected = module.weight.detach().clone()
    average = WeightAverage(module, decay=0.9)
    for step in range(5):
        with torch.no_grad():
            module.weight.add_(step + 1.0)
        average.update()
        expected = 0.9 * expected + 0.1 * module.weight.detach()
    trained = module.weight.detach().clone()
    target = nn.Linear(3, 2)
    average.copy_to(target)
    torch.testing.assert_close(target.weight.detach(), expected)
    assert torch.equal(module.weight, trained)
    assert not torch.allclose(target.weight, module.weight)


def test_weight_average_keeps_the_standardisation() -> None:
    predictor, _ = two_blocks()
    before = predictor.blocks[0].mean.clone()
    average = WeightAverage(predictor)
    for _ in range(100):
        average.update()
    average.copy_to(predictor)
    assert torch.equal(predictor.blocks[0].mean, before)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=f"decay={decay}"):
        WeightAverage(nn.Linear(1, 1), decay)
