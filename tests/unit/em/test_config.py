from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from glmmnet.em.config import EMConfig
from glmmnet.errors import FitError, OptionError


def test_unknown_option_is_refused_by_name():
    with pytest.raises(TypeError, match=r"'max_iterations'.*did you mean 'max_iter'"):
        EMConfig.from_options({"max_iterations": 5})
    with pytest.raises(TypeError, match=r"'zzz'.*epochs.*threads"):
        EMConfig.from_options({"zzz": 5})


def test_options_are_taken():
    config = EMConfig.from_options({"max_iter": 7, "em_draws": 3})
    assert (config.max_iter, config.em_draws, config.tol) == (7, 3, EMConfig().tol)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("refreshes", 0),
        ("network_draws", 0),
        ("weight_average", 1.0),
        ("fe_loss_weight", -0.1),
        ("valid_fraction", 0.95),
        ("patience", 0),
        ("max_iter", 0),
        ("min_iter", 0),
        ("burn_in", -1),
        ("averaging", 0.5),
        ("averaging", 1.1),
        ("tol", 0.0),
        ("tol", float("nan")),
        ("em_draws", 0),
        ("chains", 0),
        ("draws", 3),
        ("warmup", -1),
        ("exact_limit", -1),
        ("orthogonalize", True),
        ("orthogonalize", 0),
        ("learning_rate", float("inf")),
        ("threads", 0),
    ],
)
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(OptionError, match=f"{name}={value!r} must be"):
        EMConfig(**{name: value})


def test_a_wrong_option_is_a_value_error_and_a_fit_error():
    assert issubclass(OptionError, ValueError)
    assert issubclass(OptionError, FitError)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_iter", "3"),
        ("draws", 20.5),
        ("draws", 20.0),
        ("chains", True),
        ("chains", None),
        ("threads", "2"),
        ("tol", "0.1"),
        ("tol", None),
        ("valid_fraction", True),
        ("learning_rate", 1j),
    ],
)
def test_values_of_a_wrong_type_are_named(name, value):
    with pytest.raises(TypeError, match=re.escape(f"{name}={value!r} must be a")):
        EMConfig(**{name: value})


def test_numpy_numbers_become_pythons():
    config = EMConfig(draws=np.int64(8), epochs=np.uint8(3), tol=np.float32(0.25), averaging=1)
    found = [config.draws, config.epochs, config.tol, config.averaging]
    assert found == [8, 3, 0.25, 1.0]
    assert [type(v) for v in found] == [int, int, float, float]


def test_limits_are_allowed():
    EMConfig(
        epochs=1,
        draws=4,
        chains=1,
        weight_average=0.0,
        fe_loss_weight=0.0,
        valid_fraction=0.0,
        averaging=1.0,
        burn_in=0,
        warmup=0,
    )


def test_config_is_frozen():
    with pytest.raises(FrozenInstanceError):
        EMConfig().tol = 1.0


def test_after_a_network_the_polish_has_other_defaults_and_keeps_what_is_asked_for():
    plain, neural = EMConfig.from_options({}), EMConfig.from_options({}, neural=True)
    assert (neural.burn_in, neural.min_iter, neural.tol) == (2, 10, 1.0)
    assert replace(neural, burn_in=plain.burn_in, min_iter=plain.min_iter, tol=plain.tol) == plain
    asked = EMConfig.from_options({"min_iter": 50, "tol": 0.01}, neural=True)
    assert (asked.burn_in, asked.min_iter, asked.tol) == (2, 50, 0.01)
