"""The benchmarks reference and validation run from the command line; the scenarios are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.__main__ import main
from benchmarks._references import by_name, correlation, standard_deviations
from benchmarks._scenarios import LEVELS, ROWS, SCENARIOS, SD, simulate
from benchmarks.validation import small_sample_bias, table
from glmmnet.em import loop
from glmmnet.families import FAMILIES


def rows_of(arguments: list[str], path: Path) -> pd.DataFrame:
    main([*arguments, "--csv", str(path)])
    rows = pd.read_csv(path)
    assert "error" not in rows, rows["error"].dropna().tolist()
    return rows


def test_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(["reference", "--quick"], tmp_path / "reference.csv").set_index("scenario")
    assert rows["beyond"].isna().all()
    sleep = rows.loc["lmer_sleepstudy_slope_ML"]
    assert sleep["theirs"] == pytest.approx(sleep["ours"], rel=1e-4)
    assert (rows[["in_se", "sd", "cor", "se", "llf"]] < 0.02).all(axis=None) and (rows["seconds"] > 0).all()
    assert "3 fits, 0 beyond the tolerance" in capsys.readouterr().out


def test_reference_names_the_fits_there_are(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no fit is called Rail2; fits: lmer_sleepstudy_slope_ML"):
        main(["reference", "--only", "Rail2", "--csv", str(tmp_path / "reference.csv")])


def test_validation(tmp_path: Path) -> None:
    path = tmp_path / "validation.md"
    path.write_text("Before.\n<!-- table: begin -->old<!-- table: end -->\nAfter.\n", encoding="utf-8")
    rows = rows_of(["validation", "--quick", "--table", str(path)], tmp_path / "validation.csv")
    assert rows["scenario"].tolist() == ["gaussian", "gaussian"] and rows["converged"].all()
    # Two data sets: errors far below the values themselves, which are of the order of 1.
    assert (rows.filter(like="error.").abs() < 0.4).all(axis=None)
    assert rows.filter(like="covered.").isin([0.0, 1.0]).all(axis=None)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("Before.") and text.endswith("After.\n") and "old" not in text
    assert text.count("| gaussian |") == 7


def test_table_of_validation_counts_errors_and_coverage() -> None:
    frame = pd.DataFrame({"scenario": "poisson", "error.x": [0.1, 0.3, 0.2], "covered.x": [1.0, 0.0, 1.0]})
    assert table(frame) == [["poisson", "x", 3, "0.2000", "0.0577", "", "3.5", "66.7%"]]


def test_bias_is_that_of_maximum_likelihood_from_balanced_means() -> None:
    rng, tau, noise = np.random.default_rng(20261122), SD["g|x"], 0.03
    effects = rng.normal(0, (tau**2 + noise) ** 0.5, (40_000, LEVELS))
    estimates = np.sqrt(np.maximum(effects.var(axis=1) - noise, 0.0))
    bias = small_sample_bias("sd g|x", estimates.std())
    assert bias == pytest.approx(estimates.mean() - tau, rel=0.1)
    assert small_sample_bias("log dispersion", 0.1) == 0.0


def test_every_family_has_a_scenario() -> None:
    assert set(FAMILIES) <= set(SCENARIOS)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name in FAMILIES])
def test_scenario_can_be_read_and_names_every_parameter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import glmmnet as gn

    # Names need no maximum: the fit ends with its first iteration.
    monkeypatch.setattr(loop, "has_newton", lambda joint: False)
    monkeypatch.setattr(loop, "has_scores", lambda joint, given_f: False)
    data = simulate(name, 1)
    assert len(data.frame) == LEVELS * ROWS
    assert data.frame["g"].value_counts().eq(ROWS).all() and data.frame["h"].value_counts().eq(ROWS).all()
    model = gn.glmm(data.formula, data.frame, data.family, **data.model_options)
    results = model.fit(seed=1, progress=False, tol=1e3, min_iter=1, burn_in=0, draws=20, chains=2)
    assert set(by_name(results.params)) == set(data.fixed)
    assert set(standard_deviations(results)) - {"Residual|"} == set(data.sd)
    assert all(np.isfinite(correlation(results, pair)) for pair in data.cor)
