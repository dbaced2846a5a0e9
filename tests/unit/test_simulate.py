"""Simulated data: what is returned is what the data were made from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import glmmnet as gn
from glmmnet.families import FAMILIES, Categorical, StudentT, resolve
from glmmnet.simulate import paper_binary, paper_multiclass, simulate_glmm, simulate_response

GROUPS = {"a": (30, 0.8), "b": (7, 2.0)}
#: What families have beside f.
INTERCEPTS = {"cumulative": (-1.0, 0.5, 1.5)} | {
    name: (-1.0,) for name in FAMILIES if name.startswith(("zero", "hurdle"))
}


def options_of(family):
    """Options with which every family simulates."""
    family = resolve(family)
    options = {"family": family, "intercepts": INTERCEPTS.get(family.name, ())}
    if isinstance(family, StudentT) and family.df is None:
        options["intercepts"] = (np.log(9.0),)
    if isinstance(family, Categorical):
        options["f"] = lambda x: np.column_stack([x[:, 0], -x[:, 0], 0.5 + x[:, 1]])
    return options


@pytest.mark.parametrize("family", list(FAMILIES))
def test_same_seed_same_rows_and_no_global_seed(family):
    np.random.seed(1)  # noqa: NPY002 - the global generator is what must stay as it is
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    state = torch.get_rng_state()
    options = options_of(family)
    first, second = (simulate_glmm(50, GROUPS, **options, seed=4) for _ in range(2))
    pd.testing.assert_frame_equal(first.frame, second.frame)
    assert not first.frame.equals(simulate_glmm(50, GROUPS, **options, seed=5).frame)
    assert np.random.random() == expected  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("family", [*FAMILIES, StudentT(df=None), Categorical(reference=0)], ids=str)
def test_every_family_draws_what_it_reads_and_what_it_says(family):
    """The model reads the frame; sums of the response over rows are those of the family's mean and variance."""
    options = options_of(family)
    family = options["family"]
    data = simulate_glmm(4000, {"g": (200, 0.4)}, **options, scale=0.5, seed=6)
    left = "p(y, trials)" if family.of_trials else "y"
    target = gn.glmm(f"{left} ~ x0 + x1 + (1 | g)", data.frame, family)._joint.target
    eta = family.linear_predictors(
        torch.as_tensor(data.eta.reshape(4000, -1, 1)), torch.tensor(options["intercepts"], dtype=torch.float64)
    )
    assert eta.shape[1] == len(target.predictors)
    mean = family.mean(eta, 0.5)[:, :, 0]
    observed = family.observed(target.y).reshape(4000, -1)
    variance = family.variance_at(mean if family.class_means else mean[:, 0], eta, target.y, 0.5).reshape(4000, -1)
    for direction in (torch.ones(4000), torch.as_tensor(data.frame["x0"])):
        score = (direction[:, None] * (observed - mean)).sum(dim=0)
        assert (score.abs() < 5 * (direction[:, None] ** 2 * variance).sum(dim=0).sqrt()).all()


def test_effects_of_classes_are_their_own():
    data = simulate_glmm(300, GROUPS, slopes={"a": {"x0": 0.5}}, **options_of("categorical"), seed=2)
    assert data.f.shape == data.eta.shape == (300, 3)
    assert data.b["a"].shape == (30, 2, 3)
    a, b = data.b["a"][data.frame["a"]], data.b["b"][data.frame["b"]]
    x0 = data.frame["x0"].to_numpy()[:, None]
    np.testing.assert_allclose(data.eta, data.f + a[:, 0] + a[:, 1] * x0 + b[:, 0], rtol=1e-12)
    assert data.b["a"].std(axis=(0, 2)) == pytest.approx([0.8, 0.5], rel=0.3)
    assert sorted(data.frame["y"].unique()) == [0, 1, 2]


def test_eta_is_made_of_the_stated_effects():
    data = simulate_glmm(200, GROUPS, slopes={"a": {"x1": 0.5}}, columns=3, seed=2)
    frame = data.frame
    np.testing.assert_allclose(data.f, 1 + frame["x0"] - frame["x1"] + frame["x2"])
    a, b = data.b["a"][frame["a"]], data.b["b"][frame["b"]]
    np.testing.assert_allclose(data.eta, data.f + a[:, 0] + a[:, 1] * frame["x1"] + b[:, 0], rtol=1e-12)
    assert data.b["a"].shape == (30, 2)
    np.testing.assert_array_equal(data.sd["a"], [0.8, 0.5])
    assert sorted(frame["a"].unique()) == list(range(30))


def test_own_f():
    data = simulate_glmm(40, {"g": (4, 0.0)}, f=lambda x: 3 * x[:, 0] ** 2, scale=0.0, seed=1)
    np.testing.assert_allclose(data.frame["y"], 3 * data.frame["x0"] ** 2)


def test_moments():
    seed = 3
    print(f"seed {seed}")
    data = simulate_glmm(20_000, {"g": (4000, 1.5)}, slopes={"g": {"x0": 0.7}}, scale=4.0, seed=seed)
    residual = data.frame["y"] - data.eta
    assert residual.std() == pytest.approx(2.0, abs=5 * 2.0 / np.sqrt(2 * 20_000))
    for j, sd in enumerate((1.5, 0.7)):
        assert data.b["g"][:, j].std() == pytest.approx(sd, abs=5 * sd / np.sqrt(2 * 4000))
    assert abs(np.corrcoef(data.b["g"].T)[0, 1]) < 5 / np.sqrt(4000)


@pytest.mark.parametrize("family", ["bernoulli", "binomial"])
def test_responses_have_the_stated_probability(family):
    data = simulate_glmm(20_000, family=family, seed=6)
    trials = data.frame["trials"] if family == "binomial" else 1
    p = 1 / (1 + np.exp(-data.eta))
    score = data.frame["y"] - trials * p
    for direction in (np.ones(20_000), data.eta):
        assert abs((score * direction).sum()) < 5 * np.sqrt((trials * p * (1 - p) * direction**2).sum())
    assert (data.frame["y"] <= trials).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "normal"}, "no family 'normal'"),
        ({"intercepts": (1.0,)}, "'gaussian' has no intercepts= beside f; 1 are given"),
        ({"family": "hurdlepoisson"}, "'hurdlepoisson' needs intercepts=, one for each of zi; 0 are given"),
        ({"family": "cumulative"}, "needs intercepts=, its thresholds, one less than classes; 0 are given"),
        ({"family": "cumulative", "intercepts": (1.0, 0.0)}, r"thresholds are \[1.0, 0.0\]; they must increase"),
        ({"family": "categorical"}, "has an eta for each class; f must return 2 columns or more"),
        ({"slopes": {"h": {"x0": 1.0}}}, "'h'.*factors: g"),
        ({"slopes": {"g": {"x9": 1.0}}}, "'x9'.*covariates: x0, x1"),
        ({"groups": {"g": (3, -1.0)}}, "0 or more"),
        ({"groups": {"g": (3, float("nan"))}}, "0 or more"),
        ({"groups": {"g": (0, 1.0)}}, r"levels of groups\['g'\]=0 must be a whole number, 1 or more"),
        ({"groups": {"g": 20}}, r"groups\['g'\]=20 must be \(levels, standard deviation\)"),
        ({"groups": {"x0": (3, 1.0)}}, "'x0', which is that of another column"),
        ({"scale": -1.0}, "scale=-1.0 must be a number, 0 or more"),
        ({"columns": 1.5}, "columns=1.5 must be a whole number"),
        ({"seed": -1}, "seed=-1 must be 0 or more"),
        ({"f": lambda x: x}, "'gaussian' has one eta a row, not 2"),
        ({"f": lambda x: x.sum()}, "shape.*one number a row"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        simulate_glmm(20, **options)


def test_trials_go_with_their_families():
    with pytest.raises(ValueError, match="'binomial' needs trials"):
        simulate_response("binomial", np.zeros(3))
    with pytest.raises(ValueError, match="'poisson' has no trials"):
        simulate_response("poisson", np.zeros(3), trials=4)
    for trials in (-2, 2.5, np.array([1, 0, 3])):
        with pytest.raises(ValueError, match="must be whole numbers, 1 or more"):
            simulate_response("binomial", np.zeros(3), trials=trials)


def test_linear_predictors_lie_in_what_the_link_allows():
    with pytest.raises(ValueError, match=r"up to -1; link 'inverse' .* needs more than 0"):
        simulate_response(gn.families.Gamma(link="inverse"), np.array([1.0, -1.0]))


def test_types_are_refused_by_name_and_no_seed_is_a_fresh_one():
    with pytest.raises(TypeError, match=r"groups=.* must be a mapping"):
        simulate_glmm(groups=["g"])
    with pytest.raises(TypeError, match="f=3 must be a function"):
        simulate_glmm(f=3)
    assert not simulate_glmm(20, seed=None).frame.equals(simulate_glmm(20, seed=None).frame)


def test_paper_binary_has_the_published_rows():
    """Figures from the published generator, seed 1 + 3, on 400 rows."""
    data = paper_binary(1.0, 50, 3, n=400)
    assert (data.frame["y"].sum(), data.frame["g"].sum()) == (167, 9710)
    assert data.frame["x0"][0] == pytest.approx(0.9340596780273533, rel=1e-15)
    assert data.eta.sum() == pytest.approx(-137.45263844261217, rel=1e-12)
    assert data.b["g"][7, 0] == pytest.approx(1.3331290855796756, rel=1e-12)
    np.testing.assert_allclose(data.eta, data.f + data.b["g"][data.frame["g"], 0])


def test_paper_multiclass_has_the_published_rows():
    """Figures from the published generator, seed 555 + 2, on 400 rows."""
    data = paper_multiclass((0.1, 0.5), (20, 5), 2, n=400)
    assert np.bincount(data.frame["y"]).tolist() == [104, 53, 80, 83, 80]
    assert (data.frame["g0"].sum(), data.frame["g1"].sum()) == (3051, 597)
    assert data.eta.sum() == pytest.approx(-588.788492139211, rel=1e-12)
    effects = data.b["g0"][data.frame["g0"]] + data.b["g1"][data.frame["g1"]]
    np.testing.assert_allclose(data.eta, data.f + effects)


def test_shuffling_unsorts_the_factors_and_keeps_their_sizes():
    plain, shuffled = (paper_multiclass((0.1, 0.5), (20, 5), n=400, shuffle=s) for s in (False, True))
    assert plain.frame["g0"].is_monotonic_increasing
    assert not shuffled.frame["g0"].is_monotonic_increasing
    assert sorted(shuffled.frame["g0"]) == list(plain.frame["g0"])


def test_one_variance_a_factor():
    with pytest.raises(ValueError, match="2 variances for 1 factors"):
        paper_multiclass((0.1, 0.5), (20,), n=50)
