"""A fit goes on from its checkpoint file."""

import numpy as np
import pandas as pd
import pytest
from torch import nn

import glmmnet as gn

QUICK = {"seed": 1, "chains": 1, "draws": 10, "epochs": 3, "min_iter": 2, "progress": False}


def frame(seed=1, n=400):
    rng = np.random.default_rng(seed)
    data = pd.DataFrame({"x": rng.normal(size=n), "g": rng.integers(0, 20, n)})
    return data.assign(y=np.sin(data["x"]) + rng.normal(0, 0.7, 20)[data["g"]] + rng.normal(0, 0.5, n))


def model(data=None, formula="y ~ nn(x) + (1 | g)"):
    return gn.glmm(formula, data=frame() if data is None else data)


def test_a_learned_network_is_not_learned_again(tmp_path):
    path = tmp_path / "fit.ckpt"
    first = model().fit(checkpoint=path, **QUICK)
    assert path.exists() and "network" in set(first.history["phase"])
    again = model().fit(checkpoint=str(path), **{**QUICK, "seed": 2})
    assert set(again.history["phase"]) == {"polish"}
    assert again.history["iteration"].iloc[0] == first.history["iteration"].iloc[-1] + 1
    new = frame(seed=3).head(50)
    np.testing.assert_allclose(
        again.predict(new, level="population"), first.predict(new, level="population"), atol=1e-5
    )
    np.testing.assert_allclose(again.vcomp["sd"], first.vcomp["sd"], rtol=1e-4)


def test_without_a_network_the_estimates_are_kept(tmp_path):
    path = tmp_path / "fit.ckpt"
    linear = model(formula="y ~ x + (1 | g)")
    first, again = (linear.fit(checkpoint=path, sampler="nuts", **QUICK) for _ in range(2))
    start = again.history["sd[g, (Intercept)]"].iloc[0]
    assert start == pytest.approx(first.history["sd[g, (Intercept)]"].iloc[-1], rel=0.2)
    assert again.history["iteration"].iloc[0] > first.history["iteration"].iloc[-1]


OTHERS = {
    "data": lambda: model(frame(seed=2)),
    "formula": lambda: model(formula="y ~ x + (1 | g)"),
    "weights": lambda: gn.glmm("y ~ nn(x) + (1 | g)", frame(), weights=np.full(400, 2.0)),
    "weight_kind": lambda: gn.glmm("y ~ nn(x) + (1 | g)", frame(), weights=np.full(400, 2.0), weight_kind="precision"),
    "options": lambda: gn.glmm("y ~ nn(x) + (1 | g)", frame(), nn={"weight_decay": 0.5}),
    "networks": lambda: gn.glmm("y ~ nn(x) + (1 | g)", frame(), networks={"nn(x)": nn.Linear(1, 1)}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_model_is_refused(tmp_path, other):
    path = tmp_path / "fit.ckpt"
    model().fit(checkpoint=path, **QUICK)
    with pytest.raises(gn.FitError, match="another model"):
        OTHERS[other]().fit(checkpoint=path, **QUICK)


@pytest.mark.parametrize(
    ("formula", "change"),
    [("y ~ x + offset(z) + (1 | g)", {"z": 1.0}), ("y ~ x + (0 + z | g)", {"z": 3.0})],
    ids=["offset", "random effects"],
)
def test_data_that_stand_in_no_matrix_of_the_fixed_part_tell_models_apart(tmp_path, formula, change):
    data = frame().assign(z=np.linspace(0.5, 1.5, 400))
    gn.glmm(formula, data).fit(checkpoint=tmp_path / "fit.ckpt", sampler="nuts", **QUICK)
    with pytest.raises(gn.FitError, match="another model"):
        gn.glmm(formula, data.assign(**change)).fit(checkpoint=tmp_path / "fit.ckpt", sampler="nuts", **QUICK)


def test_a_network_of_the_same_name_that_is_built_otherwise_is_refused(tmp_path):
    def one(width):
        module = nn.Sequential(nn.Linear(1, width), nn.Linear(width, 1))
        return gn.glmm("y ~ nn(x, net=own) + (1 | g)", frame(), networks={"own": module})

    one(3).fit(checkpoint=tmp_path / "fit.ckpt", **QUICK)
    with pytest.raises(gn.FitError, match=r"(?s)another model's state.*size mismatch"):
        one(4).fit(checkpoint=tmp_path / "fit.ckpt", **QUICK)


def test_a_path_that_cannot_be_written_is_refused_before_the_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("glmmnet.model.run", lambda *args: pytest.fail("the fit has begun"))
    with pytest.raises(IsADirectoryError, match="is a folder; add the name of a file"):
        model().fit(checkpoint=tmp_path, **QUICK)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing"):
        model().fit(checkpoint=tmp_path / "missing" / "fit.ckpt", **QUICK)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "fit.ckpt"
    path.write_text("not a checkpoint")
    with pytest.raises(gn.FitError, match="not a checkpoint"):
        model().fit(checkpoint=path, **QUICK)
