from __future__ import annotations

import pytest

from glmmnet.errors import FormulaError
from glmmnet.networks import NNOptions


def test_inline_overrides_defaults_overrides_built_in() -> None:
    options = NNOptions.resolve({"layers": (8,), "activation": "relu"}, {"activation": "tanh"})
    assert options == NNOptions(layers=(8,), activation="tanh")
    assert NNOptions.resolve(None, {}) == NNOptions()


@pytest.mark.parametrize(("written", "widths"), [(16, (16,)), ([16, 8], (16, 8)), ((), ())])
def test_layers_may_be_written_in_several_ways(written: object, widths: tuple[int, ...]) -> None:
    assert NNOptions.resolve(None, {"layers": written}).layers == widths


def test_defaults_and_inline_are_not_changed() -> None:
    defaults, inline = {"layers": [4]}, {"dropout": 0.1}
    NNOptions.resolve(defaults, inline)
    assert (defaults, inline) == ({"layers": [4]}, {"dropout": 0.1})


def test_unknown_option_is_named() -> None:
    with pytest.raises(FormulaError, match=r"no option 'layer'; did you mean 'layers'\?"):
        NNOptions.resolve({"layer": (3,)}, {})
    with pytest.raises(FormulaError, match="no option 'q'; known: activation, bins"):
        NNOptions.resolve(None, {"q": 1})


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("layers", (8, 0), r"layers=\(8, 0\)"),
        ("layers", (8.5,), r"layers=\(8.5,\)"),
        ("layers", "64", "layers='64'"),
        ("layers", True, "layers=True"),
        ("layers", None, "layers=None"),
        ("activation", "swish", "activation='swish'; write one of elu"),
        ("activation", ["relu"], r"activation=\['relu'\]"),
        ("dropout", 1.0, "dropout=1.0"),
        ("dropout", -0.1, "dropout=-0.1"),
        ("dropout", "a lot", "dropout='a lot'"),
        ("dropout", float("nan"), "dropout=nan"),
        ("weight_decay", -1e-4, "weight_decay=-0.0001"),
        ("weight_decay", float("inf"), "weight_decay=inf"),
        ("net", 3, "net=3"),
        ("embed", 0, "embed=0"),
        ("embed", 1.5, "embed=1.5"),
    ],
)
def test_bad_values_are_named(option: str, value: object, says: str) -> None:
    with pytest.raises(FormulaError, match=says):
        NNOptions.resolve(None, {option: value})
