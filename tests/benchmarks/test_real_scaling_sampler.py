"""The benchmarks real, scaling, sampler and glmm run from the command line and give sensible figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("sklearn", reason="the benchmarks need the extra bench")

from benchmarks import tasks
from benchmarks.__main__ import main
from benchmarks.peers import PEERS, Given, NotApplicable, Peer
from benchmarks.sampler import SCENARIOS, whitened
from benchmarks.scaling import overall_slope, slope_table, successive_slopes
from benchmarks.tasks import Task
from glmmnet.em.e_step import WhitenedPosterior
from glmmnet.samplers import SAMPLERS
from glmmnet.threads import torch_session
from glmmnet.typing import SamplerState

COMMON = {"benchmark", "scenario", "method", "seed", "glmmnet", "torch", "seconds", "cpu_seconds", "memory_mb"}


def rows_of(arguments: list[str], path: Path) -> pd.DataFrame:
    """The CSV that a run writes; no method may have failed."""
    main([*arguments, "--quick", "--csv", str(path)])
    rows = pd.read_csv(path)
    assert set(rows) >= COMMON
    assert "error" not in rows or rows["error"].isna().all(), rows["error"].dropna().tolist()
    return rows


def test_real(tmp_path: Path) -> None:
    rows = rows_of(["real", "--methods", "glmmnet,ignoring"], tmp_path / "real.csv")
    assert set(rows["scenario"]) == {"flights", "flights_pairs", "insteval", "insteval_crossed"}
    own = rows[rows["method"] == "glmmnet"]
    assert np.isfinite(own[["seconds", "seconds_final", "epochs", "iterations"]]).all(axis=None)
    assert (own["seconds_final"] >= own["seconds"]).all()
    assert own.loc[own["scenario"].str.startswith("flights"), "auroc"].between(0.55, 1).all()
    assert rows.loc[(rows["method"] == "ignoring") & (rows["scenario"] == "flights"), "auroc"].between(0.55, 1).all()
    assert own.loc[own["scenario"] == "insteval", "r2"].between(0.0, 0.5).all()
    assert own["sds"].str.contains("Residual").sum() == 2


def test_real_with_a_csv_file_and_a_formula(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    group, x = rng.integers(0, 20, 600), rng.normal(size=600)
    frame = pd.DataFrame({"my group": group, "x": x, "y": np.sin(x) + rng.normal(size=20)[group]})
    frame.to_csv(tmp_path / "data.csv", index=False)
    formula = "y ~ nn(x) + (1 | `my group`)"
    command = ["real", "--csv-file", str(tmp_path / "data.csv"), "--formula", formula, "--methods", "glmmnet,MixedLM"]
    rows = rows_of(command, tmp_path / "real.csv").set_index("method")
    assert rows.loc["glmmnet", "r2"] > 0.3
    if any(peer.name == "MixedLM" and peer.installed for peer in PEERS):
        assert rows.loc["MixedLM", "r2"] > 0.3


def test_real_names_the_known_scenarios(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no scenario 'spotify'.*flights.*--data FOLDER"):
        main(["real", "--quick", "--only", "spotify", "--csv", str(tmp_path / "real.csv")])


def test_scaling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(["scaling"], tmp_path / "scaling.csv")
    assert set(rows["axis"]) == {"rows", "levels", "factors", "classes"}
    assert (rows["seconds"] > 0).all() and (rows["peak_mb"] > 50).all()
    assert "log-log slopes" in capsys.readouterr().out


def test_sampler(tmp_path: Path) -> None:
    rows = rows_of(["sampler"], tmp_path / "sampler.csv")
    assert set(rows["scenario"]) == {"binary", "categorical", "crossed_binary", "crossed_gaussian"}
    methods = {f"{s}-{c}" for s in ("nuts", "hmc", "mala") for c in ("whitened", "plain")}
    assert set(rows.loc[rows["scenario"] == "binary", "method"]) >= methods
    figures = rows[["ess_min", "ess_median", "ess_min_a_second", "steps", "seconds_tuning"]]
    assert np.isfinite(figures).all(axis=None) and (figures > 0).all(axis=None)
    assert (rows.loc[rows["method"] == "mala-whitened", "steps"] == 1).all()
    assert (rows["ess_min"] <= rows["ess_median"]).all()


@pytest.mark.slow
def test_sampler_runs_numpyro(tmp_path: Path) -> None:
    pytest.importorskip("numpyro")
    rows = rows_of(["sampler", "--methods", "numpyro"], tmp_path / "sampler.csv")
    assert rows["scenario"].tolist() == list(SCENARIOS)
    assert rows["peer"].str.contains("numpyro .*jax").all()
    assert np.isfinite(rows[["ess_min_a_second", "seconds_tuning"]]).all(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_numpyro_draws_from_the_same_posterior(scenario: str) -> None:
    pytest.importorskip("numpyro")
    from benchmarks._numpyro import draw

    posterior = SCENARIOS[scenario](True)
    joint, params = posterior.joint, posterior.params
    size = joint.n_effects * joint.n_classes
    theirs = draw(joint, posterior.fixed, params, 0, 1, 400, 200, np.arange(size)).draws[0]
    sds = [s[:, 0, 0].sqrt().repeat(t.q) for t, s in zip(joint.terms, params.sigma, strict=True)]
    theirs = theirs * torch.cat(sds).numpy()
    with torch_session(1, 1):
        point = whitened(posterior)
        target = WhitenedPosterior(joint, posterior.fixed, params, point.whitening, 1)
        start = SamplerState(target.start(point))
        ours = SAMPLERS["nuts"]().draw(target, start, draws=400, warmup=100, metric=point.metric)
        b = np.stack([target.to_b(u).reshape(-1).numpy() for u in ours.u])
    # 400 draws each, of which at least 100 effective: the difference of two means has a standard error below 0.15.
    difference = (b.mean(axis=0) - theirs.mean(axis=0)) / b.std(axis=0)
    assert np.sqrt(np.square(difference).mean()) < 0.2
    assert np.median(b.std(axis=0) / theirs.std(axis=0)) == pytest.approx(1.0, abs=0.1)


def test_glmm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(["glmm"], tmp_path / "glmm.csv").set_index("method")
    assert rows.loc["glmmnet", "sd"] == pytest.approx(rows.loc["glmmnet", "sd_effects"], rel=0.3)
    assert (rows["beta_rmse"] < 0.2).all()
    assert np.isfinite(rows["seconds"]).all() and rows.loc["glmmnet", "seconds_final"] > 0
    if "GPBoost" in rows.index:
        assert rows.loc["glmmnet", "sd"] == pytest.approx(rows.loc["GPBoost", "sd"], rel=0.02)
        assert rows.loc["glmmnet", "llf"] == pytest.approx(rows.loc["GPBoost", "llf"], abs=1.0)
    assert "glmmTMB 20.1 s" in capsys.readouterr().out


def test_slopes() -> None:
    x = [1e4, 1e5, 1e6]
    assert successive_slopes(x, [2.0, 20.0, 2000.0]) == pytest.approx([1.0, 2.0])
    assert overall_slope(x, [3.0 * v**1.5 for v in x]) == pytest.approx(1.5)
    assert overall_slope(x, [1.0, 1.0, 10.0], beyond=1e5) == pytest.approx(1.0)
    assert np.isnan(overall_slope(x, [1.0, 1.0, 10.0], beyond=1e6))


def test_slope_table_takes_rows_from_a_hundred_thousand_on() -> None:
    values = [1e4, 1e5, 1e6]
    frame = pd.DataFrame({"axis": "rows", "value": values, "seconds": [5.0, 5.0, 50.0], "memory_mb": [1e2, 1e3, 1e4]})
    table = slope_table(frame)
    assert [row[3] for row in table[1:3]] == pytest.approx([0.0, 1.0])
    assert table[3][1] == "from 100000" and table[3][3] == pytest.approx(1.0) and table[3][5] == pytest.approx(1.0)


def made_up(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    group = rng.integers(0, 12, n)
    return pd.DataFrame(
        {
            "size": np.where(np.arange(n) % 7 == 0, np.nan, rng.normal(size=n) + group),
            "colour": np.where(np.arange(n) % 5 == 0, None, np.where(group > 5, "red", "blue")),
            "shop": np.where(np.arange(n) % 11 == 0, " ", np.char.add("s", group.astype(str))),
            "kind": np.char.add("k", (group // 4).astype(str)),
        }
    )


def test_prepare_fills_codes_and_numbers() -> None:
    raw = made_up()
    data = tasks.prepare(Task("", "kind", "multiclass", None, None, None), raw)
    assert data.groups == ("shop",)
    assert data.ordinary == ("size", "colour=blue", "colour=missing", "colour=red")
    assert not data.frame.isna().any(axis=None)
    assert data.frame.loc[0, "size"] == np.float32(raw["size"].median())
    assert data.frame.loc[0, "shop"] == "missing"
    assert data.frame["kind"].tolist() == [int(label[1:]) for label in raw["kind"]]


def test_split_is_stratified_and_complete() -> None:
    data = tasks.prepare(Task("", "kind", "multiclass", None, None, None), made_up())
    split = tasks.split(data, 0)
    assert sorted(np.concatenate([split.train, split.valid, split.test])) == list(range(300))
    assert (len(split.train), len(split.valid), len(split.test)) == (216, 24, 60)
    share = [(data.frame["kind"].to_numpy()[rows] == 0).mean() for rows in (split.train, split.test)]
    assert share[0] == pytest.approx(share[1], abs=0.02)
    assert split.checksum == tasks.split(data, 0).checksum != tasks.split(data, 1).checksum


def test_pairs_become_groups() -> None:
    data = tasks.prepare(Task("", "kind", "multiclass", ("shop", "colour"), ("size",)), made_up())
    joined = data.with_groups(("shop:colour",))
    assert joined.groups == ("shop", "colour", "shop:colour")
    assert joined.frame["shop:colour"].iloc[1] == f"{joined.frame['shop'].iloc[1]}:{joined.frame['colour'].iloc[1]}"


def test_a_task_without_its_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--data FOLDER"):
        tasks.load("spotify")
    with pytest.raises(FileNotFoundError, match=r"spotify\.csv\.gz"):
        tasks.load("spotify", tmp_path)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_peer_learns_an_easy_task(peer: Peer, kind: tasks.Kind) -> None:
    if not peer.installed:
        pytest.skip(f"{peer.module} is not installed")
    raw = made_up()
    if kind == "binary":
        raw["kind"] = (raw["kind"] == "k1").map({True: "yes", False: "no"})
    elif kind == "regression":
        raw["kind"] = raw["kind"].str[1:].astype(float)
    # Groups of the same name have the same class, so every peer must find it.
    data = tasks.prepare(Task("", "kind", kind, ("shop",), ("size",)), raw)
    split = tasks.split(data, 0)
    train, valid, test = (data.frame.iloc[rows] for rows in (split.train, split.valid, split.test))
    try:
        out = peer.fit_predict(Given(train, valid, test, data.target, kind, data.ordinary, data.groups))
    except NotApplicable as reason:
        assert str(reason)
        return
    y = test["kind"].to_numpy()
    assert out.shape == ((len(y), 3) if kind == "multiclass" else (len(y),))
    assert np.isfinite(out).all()
    if kind == "multiclass":
        assert (out.argmax(axis=1) == y).mean() > 0.8
    else:
        assert np.corrcoef(out, y)[0, 1] > 0.7
