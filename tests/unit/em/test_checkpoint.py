"""A fit goes on from its checkpoint file."""

import numpy as np
import pandas as pd
import pytest

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


@pytest.mark.parametrize("other", [model(frame(seed=2)), model(formula="y ~ x + (1 | g)")])
def test_another_model_is_refused(tmp_path, other):
    path = tmp_path / "fit.ckpt"
    model().fit(checkpoint=path, **QUICK)
    with pytest.raises(gn.FitError, match="another model"):
        other.fit(checkpoint=path, **QUICK)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "fit.ckpt"
    path.write_text("not a checkpoint")
    with pytest.raises(gn.FitError, match="not a checkpoint"):
        model().fit(checkpoint=path, **QUICK)
