"""Made to run under ArviZ 0.x and 1.x alike, whichever is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from glmmnet.inference_data import import_arviz, to_arviz

SEED = 5
CHAINS, DRAWS, ROWS = 2, 50, 12
LEVELS = [("a", 1), 2, "c"]
az = import_arviz()


def example() -> dict[str, Any]:
    """A logistic random intercept with group levels that are a tuple, a number and a string."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    per_draw = (CHAINS, DRAWS)
    return {
        "groups": {
            "posterior": {
                "1|g": rng.normal(size=(*per_draw, 3)),
                "1|g_sigma": rng.gamma(9.0, 0.1, size=per_draw),
            },
            "sample_stats": {
                "diverging": np.zeros(per_draw, dtype=bool),
                "energy": rng.normal(size=per_draw),
                "lp": rng.normal(size=per_draw),
            },
            "log_likelihood": {"y": -rng.uniform(0.4, 0.8, size=(*per_draw, ROWS))},
            "posterior_predictive": {"y": rng.integers(0, 2, size=(*per_draw, ROWS))},
            "observed_data": {"y": rng.integers(0, 2, size=ROWS)},
            "constant_data": {"Intercept": np.array(0.4), "x": rng.normal(size=ROWS)},
        },
        "coords": {"g__factor_dim": LEVELS, "__obs__": np.arange(ROWS)},
        "dims": {"1|g": ["g__factor_dim"], "y": ["__obs__"], "x": ["__obs__"]},
    }


@pytest.fixture
def parts() -> dict[str, Any]:
    return example()


@pytest.fixture
def data(parts: dict[str, Any]) -> Any:
    return to_arviz(**parts, attrs={"formula": "y ~ (1 | g)"})


def test_every_array_arrives_under_its_dimensions(parts: dict[str, Any], data: Any) -> None:
    for group, variables in parts["groups"].items():
        sampled = () if group.endswith("_data") else ("chain", "draw")
        assert set(data[group].data_vars) == set(variables)
        for name, values in variables.items():
            assert data[group][name].dims == (*sampled, *parts["dims"].get(name, ()))
            np.testing.assert_array_equal(data[group][name].to_numpy(), values)
    assert data.attrs["formula"] == "y ~ (1 | g)"


def test_levels_are_strings_and_rows_are_numbers(parts: dict[str, Any], data: Any) -> None:
    effects = data["posterior"]["1|g"]
    assert effects["g__factor_dim"].to_numpy().tolist() == ["('a', 1)", "2", "c"]
    np.testing.assert_array_equal(effects.sel(g__factor_dim="2"), parts["groups"]["posterior"]["1|g"][..., 1])
    assert data["observed_data"]["__obs__"].to_numpy().tolist() == list(range(ROWS))


def test_labels_may_be_an_index(parts: dict[str, Any]) -> None:
    parts["coords"]["g__factor_dim"] = pd.Index([3, 1, 2])
    data = to_arviz(**parts)
    assert data["posterior"]["g__factor_dim"].to_numpy().tolist() == ["3", "1", "2"]


def test_empty_groups_are_left_out(parts: dict[str, Any]) -> None:
    parts["groups"]["posterior_predictive"] = {}
    data = to_arviz(**parts)
    # groups of InferenceData are a method, names without a slash; of DataTree a property, names with one
    names = data.groups() if callable(data.groups) else [name.strip("/") for name in data.groups]
    assert "posterior_predictive" not in names
    assert "log_likelihood" in names


def test_summaries_run(data: Any) -> None:
    table = az.summary(data)
    assert list(table.index) == ["1|g[('a', 1)]", "1|g[2]", "1|g[c]", "1|g_sigma"]
    sizes = az.ess(data)
    sizes = getattr(sizes, "posterior", sizes)
    assert 10 < float(sizes["1|g_sigma"]) < 500
    assert int(az.loo(data).n_data_points) == ROWS


@pytest.mark.parametrize("plot", ["plot_trace", "plot_forest", "plot_energy"])
def test_plots_run(plot: str, data: Any) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    getattr(az, plot)(data, backend="matplotlib")
    assert pyplot.get_fignums()
    pyplot.close("all")


def test_object_can_be_written_and_read(data: Any, tmp_path: Path) -> None:
    file = tmp_path / "fit.nc"
    data.to_netcdf(file, engine="h5netcdf")
    back = az.from_netcdf(file)
    np.testing.assert_array_equal(back["posterior"]["1|g"], data["posterior"]["1|g"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"groups": {"prior": {"a": np.zeros(2)}}}, "no group 'prior'; known: posterior"),
        ({"dims": {}}, r"posterior\['1\|g'\] has shape \(2, 50, 3\), but its dimensions are"),
        (
            {"coords": {"__obs__": range(ROWS)}},
            r"'1\|g'\] has the dimension 'g__factor_dim', which coords= lacks",
        ),
        (
            {"coords": {"__obs__": range(ROWS), "g__factor_dim": ["a", "b"]}},
            "has 3 entries along 'g__factor_dim', coords= labels 2",
        ),
        ({"coords": {"__obs__": range(ROWS), "g__factor_dim": [1, "1", "b"]}}, "has '1' twice"),
    ],
)
def test_what_does_not_fit_is_named(parts: dict[str, Any], change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        to_arviz(**(parts | change))


def test_draws_must_agree_between_groups(parts: dict[str, Any]) -> None:
    parts["groups"]["sample_stats"]["lp"] = np.zeros((CHAINS, DRAWS - 1))
    with pytest.raises(ValueError, match=r"sample_stats\['lp'\] has \(2, 49\) chains and draws, posterior"):
        to_arviz(**parts)


def test_arviz_comes_late_and_without_its_notice(tmp_path: Path) -> None:
    """ArviZ 0.23 warns at most once a day, by a file in the cache folder: an empty folder makes it warn."""
    code = (
        "import sys, warnings; from glmmnet.inference_data import import_arviz; "
        "assert 'arviz' not in sys.modules; warnings.simplefilter('error'); import_arviz()"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
