"""The benchmarks on simulated rows: the rows as published, the figures, and every quick run from the command line."""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sklearn")

from benchmarks import binary, multiclass, regression
from benchmarks.__main__ import known, main
from benchmarks._harness import Report, measured
from benchmarks._metrics import auroc, multiclass_auroc
from benchmarks._paper import binary_task, multiclass_task
from benchmarks._task import Settings, chosen, pair
from benchmarks.encodings import ENCODINGS, OneHot, embedding_width
from benchmarks.peers import Given

STAMP = {"benchmark", "scenario", "method", "seed", "started", "glmmnet", "python", "torch", "numpy", "peer"}
COST = {"seconds", "cpu_seconds", "memory_mb", "seconds_final", "epochs"}


# Checksums of the rows that a replay of the published generators gives: 5,000 rows, split as there.
BINARY = [3456113548, 1280497630, 878427754]
MULTICLASS = {False: [2775790527, 2431969836, 2932041520], True: [4285870802, 2289416210, 1922760295]}


def checksums(task, columns):
    """Of integer columns of training, validation and test rows, in their order."""
    parts = (task.train[~task.train["held"]], task.train[task.train["held"]], task.test)
    return [zlib.crc32(part[columns].to_numpy("<i8").tobytes()) for part in parts]


def test_binary_rows_are_the_published_ones():
    assert checksums(binary_task(1.0, 100, 3, n=5000), ["g", "y"]) == BINARY


@pytest.mark.parametrize("shuffle", [False, True])
def test_multiclass_rows_are_the_published_ones(shuffle):
    variances = [[1e-4] * 5, [0.5] * 5, [0.5] * 5]
    task = multiclass_task(variances, (100, 10, 100), 2, n=5000, shuffle=shuffle)
    assert checksums(task, ["g0", "g1", "g2", "y"]) == MULTICLASS[shuffle]


def test_variances_may_differ_by_class():
    task = multiclass_task([[1e-4, 4.0, 0.25]], (4000,), 0, n=9000)
    np.testing.assert_allclose(task.truth.b["g0"].std(axis=0), [0.01, 2.0, 0.5], rtol=0.06)
    assert len(task.train) == 7200
    assert task.train["held"].sum() == 720


@pytest.mark.parametrize("classes", [2, 5])
def test_areas_are_shares_of_pairs(classes):
    rng = np.random.default_rng(4)
    y = rng.integers(classes, size=120)
    p = rng.dirichlet(np.ones(classes), 120).round(1)  # with ties

    def share(own, other):
        return np.mean((own[:, None] > other) + 0.5 * (own[:, None] == other))

    pairs = [share(p[y == c, c], p[y == d, c]) for c in range(classes) for d in range(classes) if c != d]
    rest = [share(p[y == c, c], p[y != c, c]) for c in range(classes)]
    assert multiclass_auroc(y, p) == pytest.approx((np.mean(pairs), np.mean(rest)))
    assert auroc(y == 1, p[:, 1]) == pytest.approx(rest[1])


def test_area_needs_every_class():
    with pytest.raises(ValueError, match="no row has class 2"):
        multiclass_auroc(np.array([0, 1]), np.full((2, 3), 1 / 3))


def test_one_hot_is_a_layer_on_dense_codes():
    import torch

    layer = OneHot(2, [3, 4], 5)
    x, a, b = torch.randn(6, 2), torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([3, 2, 1, 0, 3, 2])
    dense = torch.cat([x, torch.eye(3)[a], torch.eye(4)[b]], dim=1)
    weights = torch.cat([layer.first.weight, layer.tables[0].weight.T, layer.tables[1].weight.T], dim=1)
    looked_up = layer(torch.cat([x, a[:, None], b[:, None]], dim=1))
    torch.testing.assert_close(looked_up, dense @ weights.T + layer.first.bias)


def test_embedding_width():
    assert [embedding_width(q) for q in (10, 1000, 20_000)] == [6, 77, 100]


@pytest.mark.parametrize("name", list(ENCODINGS))
def test_levels_new_to_an_encoding_are_predicted(name):
    task = binary_task(1.0, 300, 0, n=1000)
    assert not set(task.test["g"]) <= set(task.train["g"])
    fast = Settings(0, {"epochs": 1, "draws": 4, "chains": 1, "max_iter": 5})
    p, figures = ENCODINGS[name](task, fast)
    assert p.shape == (200,)
    assert np.all((p > 0) & (p < 1))
    assert figures["epochs"] == 1


def quick(name, path, *options):
    main([name, "--quick", "--csv", str(path), *options])
    return pd.read_csv(path)


def test_binary_quick(tmp_path, capsys):
    rows = quick("binary", tmp_path / "b.csv")
    assert set(rows) >= STAMP | COST | {"sigma2", "sigma2_error", "auroc", "b_correlation", "f_mse", "llf"}
    assert list(rows["method"]) == list(binary.METHODS)
    rows = rows.set_index("method")
    assert np.isfinite(rows[["auroc", "seconds", "cpu_seconds", "seconds_final"]]).all(axis=None)
    mixed = rows.loc[["glmmnet", "oracle"]]
    assert np.isfinite(mixed[["sigma2", "b_correlation", "llf"]]).all(axis=None)
    assert (mixed["seconds"] < mixed["seconds_final"]).all()
    assert rows.loc["oracle", "auroc"] == rows["auroc"].max()
    assert rows.loc["glmmnet", "auroc"] > rows.loc["ignoring", "auroc"] + 0.02
    assert (mixed["b_correlation"] > 0.8).all()
    assert rows.loc["oracle", "sigma2_error"] < 0.5
    assert rows.loc["oracle", "f_mse"] == 0
    out = capsys.readouterr().out
    assert "beside the oracle: error of sigma^2 times" in out
    assert "LMMNN" in out


def test_multiclass_quick(tmp_path, capsys):
    rows = quick("multiclass", tmp_path / "m.csv", "--shuffled")
    assert set(rows) >= STAMP | COST | {"auroc_ovo", "auroc_ovr", "accuracy", "variance.g0.max", "variance.g1.min"}
    assert set(rows["scenario"]) == {"base_shuffled"}
    assert list(rows["method"]) == list(multiclass.METHODS)
    rows = rows.set_index("method")
    assert np.isfinite(rows[["auroc_ovo", "auroc_ovr", "accuracy", "seconds"]]).all(axis=None)
    assert rows.loc["oracle", "auroc_ovo"] > rows.loc["ignoring", "auroc_ovo"] + 0.05
    assert rows.loc["oracle", "variance.g0.max"] < 0.3 < rows.loc["oracle", "variance.g1.max"]
    assert "glmmnet is number" in capsys.readouterr().out


def test_regression_quick(tmp_path):
    rows = quick("regression", tmp_path / "r.csv")
    assert set(rows) >= STAMP | COST | {"r2", "sigma2_error", "residual_sd", "sd.g0.slope1"}
    assert set(rows["scenario"]) == {"one_factor", "slopes"}
    slopes = rows[rows["scenario"] == "slopes"].set_index("method")
    assert "MixedLM" not in slopes.index
    assert np.isfinite(slopes[["r2", "seconds"]]).all(axis=None)
    assert slopes.loc["oracle", "r2"] == slopes["r2"].max()
    assert slopes.loc["oracle", "residual_sd"] == pytest.approx(1.0, abs=5 / np.sqrt(2 * 2400))
    # 30 levels: the relative error of an sd is about 1 / sqrt(60)
    assert slopes.loc["oracle", "sd.g0.slope1"] == pytest.approx(0.5, rel=5 / np.sqrt(60))


def test_mixed_lm_gets_the_rows_of_the_task(monkeypatch):
    task = regression.gaussian_task({"g0": (30, 1.0)}, {}, "(1 | g0)", 1, 2000)

    def means(given: Given) -> np.ndarray:
        assert list(given.groups) == ["g0"] and len(given.train) + len(given.valid) == len(task.train)
        return given.test["g0"].map(given.train.groupby("g0")[given.target].mean()).to_numpy()

    monkeypatch.setattr(regression, "mixed_lm", means)
    figures = regression.statsmodels(task, Settings(1))
    assert 0.1 < figures["r2"] < 0.9 and figures["seconds"] >= 0


def test_rows_are_added_and_methods_chosen(tmp_path):
    for expected in (1, 2):
        rows = quick("binary", tmp_path / "b.csv", "--methods", "ignoring", "--set", "epochs=1", "--nn", "layers=(4,)")
        assert len(rows) == expected
    assert (rows["epochs"] == 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "no benchmark 'nonsense'; write one of: .*binary"),
        (["binary", "--quick", "--only", "s9"], "there is no 's9'; write some of: s1_q30"),
        (["binary", "--quick", "--methods", "glmnet"], "there is no 'glmnet'.*oracle"),
    ],
)
def test_unknown_names(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        main([*arguments, *(["--csv", str(tmp_path / "x.csv")] if len(arguments) > 1 else [])])


def test_benchmarks_are_found_by_their_run():
    assert {"binary", "multiclass", "regression"} <= set(known())
    assert "encodings" not in known()


def test_fit_options_are_literals_or_text():
    assert pair("layers=(32, 32)") == ("layers", (32, 32))
    assert pair("activation=tanh") == ("activation", "tanh")
    with pytest.raises(ValueError, match=r"'epochs' is no option; write key=value"):
        pair("epochs")
    assert list(chosen(None, {"a": 1, "b": 2})) == ["a", "b"]


def test_failures_are_rows_and_own_ones_raise_at_the_end(tmp_path, capsys):
    report = Report("x", tmp_path / "x.csv")

    def fail():
        raise ValueError("too small")

    assert report.attempt(fail, scenario="s", method="peer", seed=0) is None
    report.raise_failures()
    report.attempt(fail, scenario="s", method="glmmnet", seed=0, own=True)
    report.attempt(lambda: {"auroc": 0.75}, scenario="s", method="other", seed=0)
    report.print_table()
    assert "failed: s | peer | seed 0 | ValueError: too small" in capsys.readouterr().out
    rows = pd.read_csv(report.path)
    assert list(rows["error"].isna()) == [False, False, True]
    assert rows["auroc"][2] == 0.75
    with pytest.raises(ValueError, match="too small"):
        report.raise_failures()


def test_costs_are_measured():
    pytest.importorskip("psutil")
    with measured() as cost:
        block = np.ones(12_000_000)
        total = block.sum()
        del block
    assert total == 12_000_000
    assert 90 < cost.memory_mb < 200
    assert 0 < cost.seconds < 60
    assert cost.cpu_seconds > 0


def test_summary_of_binary():
    rows = [
        {"scenario": s, "seed": 0, "method": m, "sigma2_error": e, "auroc": a, "seconds": t, "seconds_final": t + 1}
        for s, m, e, a, t in [
            ("a", "glmmnet", 0.02, 0.80, 4.0),
            ("a", "oracle", 0.01, 0.81, 1.0),
            ("a", "ignoring", np.nan, 0.70, 2.0),
            ("b", "glmmnet", 0.06, 0.90, 8.0),
            ("b", "oracle", 0.03, 0.90, 1.0),
            ("b", "ignoring", np.nan, 0.70, 2.0),
        ]
    ]
    first, second, third = binary.summary(pd.DataFrame(rows))
    assert "0.0400, of the worst scenario 0.0600; seconds 6.00, with final draws 7.00" in first
    assert "times 2.000; AUROC lower by 0.00500 on average, by 0.01000 in the worst scenario" in second
    assert third.endswith(": 3.00")


def test_ranks_leave_the_oracle_out():
    rows = pd.DataFrame(
        [("a", "glmmnet", 0.7), ("a", "oracle", 0.9), ("a", "target", 0.71), ("a", "one_hot", 0.6)],
        columns=["scenario", "method", "auroc_ovo"],
    )
    assert multiclass.ranks(rows) == ["a: glmmnet is number 2 of 3 (AUROC 0.7000, 0.0100 behind target)"]
