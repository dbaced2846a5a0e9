from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from glmmnet.errors import FormulaError
from glmmnet.networks import build_block, build_predictor
from glmmnet.typing import NeuralTerm

SEED = 11
LEVELS = 3


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    print(f"seed {SEED}")
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        yield


def neural_term(name: str = "nn(x1 + g + x2)", **options: Any) -> NeuralTerm:
    """x1 of mean 50, three one-hot columns, x2 constant."""
    rng = np.random.default_rng(SEED)
    x = np.zeros((40, 2 + LEVELS), dtype=np.float32)
    x[:, 0] = rng.normal(50.0, 7.0, 40)
    x[np.arange(40), 1 + np.arange(40) % LEVELS] = 1.0
    x[:, -1] = 0.1
    return NeuralTerm(
        label=name,
        name=name,
        names=("x1", "g[a]", "g[b]", "g[c]", "x2"),
        variables=("x1", "g", "x2"),
        x=x,
        categorical=((1, 1 + LEVELS),),
        options=options,
    )


@pytest.mark.parametrize("n_outputs", [1, 4])
@pytest.mark.parametrize("options", [{}, {"layers": ()}, {"embed": 2}, {"dropout": 0.5, "layers": (8, 4)}])
def test_shapes(n_outputs: int, options: dict[str, Any]) -> None:
    term = neural_term(**options)
    block = build_block(term, n_outputs)
    x = torch.as_tensor(term.x)
    assert block(x).shape == (40, n_outputs)
    assert block(x).dtype == torch.float32
    assert block.n_weights == sum(p.numel() for p in block.parameters())


def test_inputs_are_standardised_constant_columns_only_centred() -> None:
    term = neural_term()
    block = build_block(term, 1)
    np.testing.assert_allclose(block.mean, term.x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(block.sd[:-1], term.x.std(0)[:-1], rtol=1e-4)
    assert block.sd[-1] == 1.0
    assert {"mean", "sd"} <= block.state_dict().keys()


def test_scale_and_origin_of_an_input_do_not_matter() -> None:
    term = neural_term()
    other = neural_term()
    other.x[:, 0] = 1000.0 - 3.0 * other.x[:, 0]
    torch.manual_seed(1)
    first = build_block(term, 1)
    torch.manual_seed(1)
    second = build_block(other, 1)
    with torch.no_grad():
        second.body[0].weight[:, 0] *= -1
    out = second(torch.as_tensor(other.x))
    torch.testing.assert_close(first(torch.as_tensor(term.x)), out, rtol=1e-3, atol=1e-5)


def numbers(x: np.ndarray) -> NeuralTerm:
    """A term of numeric columns alone."""
    names = tuple(f"x{j}" for j in range(x.shape[1]))
    return replace(neural_term(), x=x.astype(np.float32), names=names, categorical=())


def bins_of(x: np.ndarray, **options: Any) -> Any:
    return build_block(replace(numbers(x), options=options), 1).bins


def test_smooth_columns_get_no_bins_and_others_do() -> None:
    rng = np.random.default_rng(2)
    smooth = np.column_stack([rng.normal(size=20_000), rng.uniform(size=20_000)])
    rough = np.column_stack([rng.integers(0, 9, 20_000), np.exp(rng.normal(size=20_000)), rng.integers(0, 2, 20_000)])
    assert bins_of(smooth) is None
    bins = bins_of(np.column_stack([smooth, rough]))
    assert set(bins.columns.tolist()) == {2, 3}
    assert (bins.columns == 3).sum() == 16
    assert bins_of(rough, bins=0) is None
    assert bins_of(rough, layers=()) is None
    assert (bins_of(rough, bins=4).columns == 1).sum() == 4
    assert bins_of(rough[:1900]) is None


def test_bins_fill_one_after_the_other() -> None:
    x = np.exp(np.random.default_rng(3).normal(size=(16_000, 1)))
    block = build_block(numbers(x), 1)
    z = (torch.as_tensor(np.quantile(x, [0.0, 0.3, 1.0])[:, None], dtype=torch.float32) - block.mean) / block.sd
    filled = block.bins(z)
    torch.testing.assert_close(filled[0], -torch.ones(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(filled[2], torch.ones(16), atol=1e-4, rtol=0)
    # 30 % of the rows fill 30 % of the bins
    assert float((filled[1] + 1).sum() / 2) == pytest.approx(0.3 * 16, abs=0.1)
    assert torch.equal(block.bins(z - 100.0), -torch.ones(3, 16))


def test_f_starts_small_and_without_a_bias() -> None:
    term = neural_term()
    block = build_block(term, 3)
    assert torch.equal(block.body[-1].bias, torch.zeros(3))
    assert 0 < block(torch.as_tensor(term.x)).abs().max() < 0.5


def test_weights_come_from_torchs_generator() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build_block(neural_term(embed=2), 1).parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "5-32-32-32-32-1 silu, l2=3e-2"),
        ({"layers": 8, "activation": "relu", "dropout": 0.25}, "5-8-1 relu, dropout=0.25, l2=3e-2"),
        ({"layers": (), "weight_decay": 0.0}, "5-1"),
        ({"embed": 2, "weight_decay": 0.015}, "4-32-32-32-32-1 silu, embed=2, l2=1.5e-2"),
    ],
)
def test_describe(options: dict[str, Any], says: str) -> None:
    assert build_block(neural_term(**options), 1).describe() == says


@pytest.mark.parametrize("options", [{}, {"embed": 2}, {"layers": ()}, {"dropout": 0.3}])
def test_f_is_linear_in_the_features(options: dict[str, Any]) -> None:
    term = neural_term(**options)
    block = build_block(term, 2).eval()
    x = torch.as_tensor(term.x)
    features = block.features(x)
    assert features is not None
    last = block.body[-1]
    torch.testing.assert_close(features @ last.weight.T + last.bias, block(x))


def test_embedding_depends_on_the_level_alone_and_learns() -> None:
    term = neural_term(embed=2)
    block = build_block(term, 1)
    assert block.embeddings is not None
    columns = block.embeddings((torch.as_tensor(term.x) - block.mean) / block.sd)
    assert columns.shape == (40, 4)
    # columns that are not embedded come first
    torch.testing.assert_close(columns[:, 0].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    table = block.embeddings.tables[0].weight.T
    torch.testing.assert_close(columns[:, 2:], table[np.arange(40) % LEVELS])
    block(torch.as_tensor(term.x)).sum().backward()
    assert block.embeddings.tables[0].weight.grad.abs().sum() > 0


def test_inline_embed_needs_a_categorical_input_a_default_does_not() -> None:
    x = np.random.default_rng(SEED).normal(size=(10, 2)).astype(np.float32)
    plain = {"label": "nn(a + b)", "name": "nn(a + b)", "names": ("a", "b"), "variables": ("a", "b"), "x": x}
    with pytest.raises(FormulaError, match=r"nn\(a \+ b\): embed=3 needs a categorical input"):
        build_block(NeuralTerm(**plain, options={"embed": 3}), 1)
    assert build_block(NeuralTerm(**plain), 1, {"embed": 3}).embeddings is None


def test_user_module_is_copied() -> None:
    module = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2))
    before = nn.utils.parameters_to_vector(module.parameters()).clone()
    term = neural_term(net="price", weight_decay=0.0)
    block = build_block(term, 2, networks={"price": module})
    assert block.describe() == "5-2 Sequential"
    with torch.no_grad():
        for p in block.parameters():
            p.zero_()
    assert torch.equal(nn.utils.parameters_to_vector(module.parameters()), before)
    assert block.features(torch.as_tensor(term.x)).shape == (40, 7)


def test_user_module_is_found_by_the_terms_name() -> None:
    module = nn.Linear(5, 1)
    block = build_block(neural_term("price"), 1, networks={"price": module})
    assert isinstance(block.body, nn.Linear)
    assert block.features(torch.zeros(1, 5)) is None


def test_user_module_in_double_precision_is_brought_to_single() -> None:
    block = build_block(neural_term("price"), 1, networks={"price": nn.Linear(5, 1).double()})
    assert block(torch.as_tensor(neural_term().x)).dtype == torch.float32


def test_checking_the_output_leaves_no_trace_in_the_module() -> None:
    block = build_block(neural_term("a"), 1, networks={"a": nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 1))})
    assert block.training
    assert block.body[0].num_batches_tracked == 0


def test_factory_gets_the_numbers_of_inputs_and_outputs() -> None:
    asked: list[tuple[int, int]] = []

    def factory(n_inputs: int, n_outputs: int) -> nn.Module:
        asked.append((n_inputs, n_outputs))
        return nn.Linear(n_inputs, n_outputs)

    build_block(neural_term(net="f", embed=2), 3, networks={"f": factory})
    build_block(neural_term(net="f"), 3, networks={"f": nn.Linear})  # a class is a factory too
    assert asked == [(4, 3)]


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (nn.Linear(5, 2), r"from 2 rows the network makes \(2, 2\); it must make \(2, 1\)"),
        (nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)), r"makes \(2,\); it must make \(2, 1\)"),
        (nn.LSTM(5, 1), "makes tuple; it must make"),
        (nn.Linear(4, 1), "does not take 5 input columns"),
        (lambda n_inputs, n_outputs: "net", "'price': .* made a str; write a torch.nn.Module"),
        (3, r"networks={'price': 3} is no network; write a torch.nn.Module or a factory\(n_inputs, n_outputs\)"),
        (
            lambda n_inputs: nn.Linear(n_inputs, 1),
            r"'price': .* called with 5 inputs and 1 outputs, too many",
        ),
    ],
)
def test_wrong_networks_are_refused(network: Any, says: str) -> None:
    with pytest.raises(FormulaError, match=says):
        build_block(neural_term(net="price"), 1, networks={"price": network})


def test_net_that_is_not_there_is_named() -> None:
    with pytest.raises(FormulaError, match=r"net='prize' is not in networks= \(there: price\)"):
        build_block(neural_term(net="prize"), 1, networks={"price": nn.Linear(5, 1)})
    with pytest.raises(FormulaError, match=r"there: none"):
        build_block(neural_term(net="prize"), 1)


def test_layers_of_a_replaced_network_are_refused() -> None:
    with pytest.raises(FormulaError, match="the network 'price' is used; leave layers= out"):
        build_block(neural_term(net="price", layers=(3,)), 1, networks={"price": nn.Linear(5, 1)})


def test_unused_network_is_refused() -> None:
    with pytest.raises(FormulaError, match=r"networks= has 'b', which no nn\(\) term uses"):
        build_predictor([neural_term("a")], 1, networks={"a": nn.Linear(5, 1), "b": nn.Linear(5, 1)})


def test_weight_decay_is_the_blocks_own() -> None:
    predictor = build_predictor([neural_term("a", weight_decay=0.5), neural_term("b")], 1, {"weight_decay": 0.25})
    assert [block.weight_decay for block in predictor.blocks] == [0.5, 0.25]
