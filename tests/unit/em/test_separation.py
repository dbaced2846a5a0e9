"""Separated responses are found and named; data that overlap by a single row are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import glmmnet as gn
from glmmnet.em import separation
from glmmnet.em.separation import beyond_response, separating_columns, separating_groups
from glmmnet.joint import JointModel, Parameters

SEED = 20261122


def joint_for(formula: str, family: str | gn.families.Family = "bernoulli", **columns: object) -> JointModel:
    rng = np.random.default_rng(SEED)
    x, z = rng.normal(size=(2, 200))
    data = {"x": x, "z": z, "g": np.arange(200) % 10, "b": x > 0, "y": z, "rare": (np.arange(200) < 3) * 1.0}
    return gn.glmm(formula, data=pd.DataFrame({**data, **columns}), family=family)._joint


def far_out(joint: JointModel, size: float = 30.0) -> Parameters:
    """Parameters where some fitted weights have vanished, as at the end of a fit that ran away."""
    beta = torch.full((len(joint.x_names), joint.n_classes), size, dtype=torch.float64)
    beta *= torch.linspace(1.0, 2.0, joint.n_classes, dtype=torch.float64)
    sigma = tuple(torch.eye(t.r, dtype=torch.float64).repeat(joint.n_classes, 1, 1) for t in joint.terms)
    return Parameters(beta, sigma, 1.0)


def found(joint: JointModel) -> tuple[str, ...]:
    return separating_columns(joint, far_out(joint))


@pytest.mark.parametrize("formula", ["b ~ x", "b ~ x + z", "b ~ 0 + x + z", "b ~ z + x + offset(5 * z) + (1 | g)"])
def test_the_column_is_named(formula: str) -> None:
    assert found(joint_for(formula)) == ("x",)


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_a_threshold_anywhere_in_any_unit_is_found(shift: float) -> None:
    x = shift + 1e-3 * np.random.default_rng(SEED).normal(size=200)
    assert found(joint_for("b ~ x + z", x=x, b=x > np.quantile(x, 0.9))) == ("x",)


def test_one_overlapping_row_makes_the_estimate_finite() -> None:
    joint = joint_for("b ~ x")
    b = joint.X[:, 1] > 0
    lowest = int(joint.X[:, 1].argmin())
    b[lowest] = True
    assert found(joint_for("b ~ x", b=b.numpy())) == ()
    # A row of weight 0 does not count.
    overlapping = joint_for("b ~ x", b=b.numpy())
    weights = torch.ones(200, dtype=torch.float64)
    weights[lowest] = 0.0
    assert found(replace(overlapping, weights=weights)) == ("x",)


def test_quasi_separation_by_a_rare_level_is_found() -> None:
    outcome = np.random.default_rng(SEED).random(200) < 0.5
    assert found(joint_for("b ~ x + rare", b=outcome | (np.arange(200) < 3))) == ("rare",)
    assert (
        found(joint_for("b ~ x + rare", b=np.where(np.arange(200) == 1, False, outcome | (np.arange(200) < 3)))) == ()
    )


def test_two_columns_may_be_needed() -> None:
    rng = np.random.default_rng(SEED)
    x, z = rng.normal(size=(2, 200))
    assert found(joint_for("b ~ x + z", x=x, z=z, b=x + z > 0.5)) == ("x", "z")


def test_counts_separate_only_where_all_or_none_succeed() -> None:
    k = np.where(np.random.default_rng(SEED).normal(size=200) > 0, 5, 0)
    x = np.where(k == 5, 1.0, -1.0) + 0.1 * np.arange(200) / 200
    assert found(joint_for("p(k, m) ~ x", "binomial", k=k, m=5, x=x)) == ("x",)
    assert found(joint_for("p(k, m) ~ x", "binomial", k=np.clip(k, 0, 4), m=5, x=x)) == ()


@pytest.mark.parametrize("reference", [None, "a"])
def test_classes_in_the_order_of_a_column(reference: str | None) -> None:
    x = np.random.default_rng(SEED).normal(size=200)
    c = np.array(list("abc"))[np.digitize(x, [-0.5, 0.5])]
    family = gn.families.Categorical(reference=reference)
    assert found(joint_for("c ~ x + z", family, x=x, c=c)) == ("x",)
    c[:30] = np.resize(list("abc"), 30)
    assert found(joint_for("c ~ x + z", family, x=x, c=c)) == ()


def test_rows_that_are_alike_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    c = np.array([f"c{k % 20:02}" for k in range(200)])
    whole, seen = gn.families.Categorical.unbounded, []
    monkeypatch.setattr(gn.families.Categorical, "unbounded", lambda own, y: seen.append(len(y)) or whole(own, y))
    for half, names in ((np.arange(200) % 40 < 20, ()), (np.arange(200) % 20 < 10, ("b",))):
        joint = joint_for("c ~ b", "categorical", c=c, b=half)
        params = far_out(joint)
        params.beta[1] *= 20.0
        params.beta[0] = 0.0
        assert separating_columns(joint, params) == names
        assert seen[-1] == len(pd.DataFrame({"c": c, "b": half}).drop_duplicates())


def test_a_programme_too_large_is_not_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separation, "_MOST_ENTRIES", 200 * 2 - 1)
    assert found(joint_for("b ~ x")) == ()


def test_nothing_is_looked_for_where_nothing_ran_away() -> None:
    joint = joint_for("b ~ x")
    assert separating_columns(joint, far_out(joint, 0.1)) == ()
    assert found(joint_for("y ~ x", "gaussian")) == ()


def test_a_variance_that_ran_away_names_its_group() -> None:
    joint = joint_for("b ~ z + (1 | g)")
    params = far_out(joint)
    assert separating_groups(joint, params) == ()
    assert separating_groups(joint, replace(params, sigma=(400 * params.sigma[0],))) == ("g",)
    gaussian = joint_for("y ~ x + (1 | g)", "gaussian")
    assert separating_groups(gaussian, replace(params, sigma=(400 * params.sigma[0],))) == ()


def test_means_beyond_every_response_are_told_with_the_response_nearest() -> None:
    count = np.resize([0.0, 1.0, 7.0], 200)
    joint = joint_for("count ~ 1", "negativebinomial", count=count)
    nothing = torch.zeros(0, 1, 1, dtype=torch.float64)

    def at(mean: float) -> tuple[float, float] | None:
        beta = torch.full((1, 1), np.log(mean), dtype=torch.float64)
        return beyond_response(joint, Parameters(beta, (), 1e-3), None, nothing)

    assert at(3.0) is None
    assert at(70.0) is None
    assert at(90.0) == pytest.approx((90.0, 7.0))
    gaussian = joint_for("y ~ 1", "gaussian", y=count + 100)
    beta = torch.zeros(1, 1, dtype=torch.float64)
    assert beyond_response(gaussian, Parameters(beta, (), 1.0), None, nothing) == (0.0, 100.0)
