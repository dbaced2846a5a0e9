"""Scoring of Gaussian variances against the exact likelihood's maximum."""

import numpy as np
import pandas as pd
import pytest
import torch

import glmmnet as gn
from glmmnet.em.loop import starting_parameters
from glmmnet.exact import GaussianLikelihood
from glmmnet.joint import JointModel
from glmmnet.scoring import VarianceScoring, can_score


def crossed(sds, seed=1, n=4000, levels=(60, 40)):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.integers(0, q, n) for name, q in zip("ab", levels, strict=True)})
    effects = [rng.normal(0, sd, q) for sd, q in zip(sds, levels, strict=True)]
    y = 1.0 + effects[0][frame["a"]] + effects[1][frame["b"]] + rng.normal(0, 1, n)
    return frame.assign(y=y)


def joint_of_frame(frame, formula="y ~ 1 + (1 | a) + (1 | b)"):
    model = gn.glmm(formula, data=frame)
    return JointModel.from_design(model.design, model.family)


def test_scoring_arrives_at_the_maximum_of_the_exact_likelihood():
    joint = joint_of_frame(crossed((0.7, 0.4)))
    start = starting_parameters(joint)
    torch.manual_seed(0)
    steps = list(VarianceScoring(joint, None).run(start, 30, 1e-3))
    exact = GaussianLikelihood(joint)
    best = exact.maximise(start)
    last = steps[-1].params
    assert len(steps) < 15
    for ours, theirs in zip(last.sigma, best.sigma, strict=True):
        assert float(ours) == pytest.approx(float(theirs), rel=0.01)
    assert last.phi == pytest.approx(best.phi, rel=1e-3)
    assert float(last.beta[0, 0]) == pytest.approx(float(best.beta[0, 0]), abs=1e-3)


def test_deviance_is_that_of_the_exact_likelihood():
    joint = joint_of_frame(crossed((0.7, 0.4), seed=2))
    torch.manual_seed(0)
    step = next(VarianceScoring(joint, None).run(starting_parameters(joint), 1, 1e-3))
    exact = GaussianLikelihood(joint)
    assert step.deviance == pytest.approx(exact.profile(exact.theta(step.params), step.params.phi).deviance, abs=1e-6)


def test_a_component_without_variance_goes_to_zero():
    joint = joint_of_frame(crossed((0.7, 0.0), seed=3))
    torch.manual_seed(0)
    best = GaussianLikelihood(joint).maximise(starting_parameters(joint))
    assert float(best.sigma[1]) < 1e-3, "the seed's own maximum must lie at (or next to) 0"
    last = list(VarianceScoring(joint, None).run(starting_parameters(joint), 60, 1e-3))[-1].params
    assert float(last.sigma[1]) < 1e-3
    assert float(last.sigma[0]) == pytest.approx(float(best.sigma[0]), rel=0.01)


def test_only_components_of_their_own_can_be_scored():
    frame = crossed((0.7, 0.4)).assign(x=np.linspace(-1, 1, 4000))
    assert can_score(joint_of_frame(frame, "y ~ x + (1 + x || a) + (1 | b)"))
    assert not can_score(joint_of_frame(frame, "y ~ x + (1 + x | a) + (1 | b)"))


def test_effects_of_unequal_spread_do_not_slow_scoring():
    """Few large levels with hardly any effect, many levels of two rows where some have a large one: expected
    information is far from the observed, and Fisher scoring alone oscillates for 29 iterations."""
    rng = np.random.default_rng(5)
    large, small = 60, 200
    a = np.concatenate([np.repeat(np.arange(large), 30), np.repeat(large + np.arange(small), 2)])
    is_large = a < large
    effects = np.concatenate(
        [0.05 * rng.normal(size=large), 2 * rng.normal(size=2 * small) * (rng.random(2 * small) < 0.2)]
    )
    y = effects[a] + np.where(is_large, 1.0, 0.2) * rng.normal(size=len(a))
    frame = pd.DataFrame({"a": a, "b": rng.integers(0, 40, len(a))})
    joint = joint_of_frame(frame.assign(y=y + 0.3 * rng.normal(size=40)[frame["b"]]))
    torch.manual_seed(0)
    steps = list(VarianceScoring(joint, None).run(starting_parameters(joint), 60, 1e-5))
    assert steps[-1].change < 1e-5
    assert len(steps) < 12


@pytest.mark.parametrize("columns", ["1", "1 + x"])
def test_average_information_is_the_mean_of_observed_and_expected(columns):
    """Observed: differences of the exact score of the marginal likelihood, beta at its best; expected: dense traces."""
    rng = np.random.default_rng(4)
    frame = crossed((0.7, 0.4), n=150, levels=(9, 6)).assign(x=rng.normal(size=150))
    joint = joint_of_frame(frame, f"y ~ {columns} + (1 | a) + (1 | b)")
    torch.manual_seed(0)
    scoring = VarianceScoring(joint, None)
    psi = np.log([0.9, 0.3, 0.8])
    x, z, y = joint.X.numpy(), joint.z_matrix.toarray(), joint.target.y[:, 0, 0].numpy()
    parts = [z[:, t.rows] @ z[:, t.rows].T for t in joint.terms] + [np.eye(len(y))]

    def deviance(at):
        v = sum(np.exp(2 * p) * part for p, part in zip(at, parts, strict=True))
        beta = np.linalg.solve(x.T @ np.linalg.solve(v, x), x.T @ np.linalg.solve(v, y))
        left = y - x @ beta
        return np.linalg.slogdet(v)[1] + left @ np.linalg.solve(v, left)

    def slope(of, at, eps=1e-4):
        steps = eps * np.eye(len(at))
        return np.array([(of(at + s) - of(at - s)) / (2 * eps) for s in steps])

    observed = 0.5 * slope(lambda at: slope(deviance, at), psi)
    v = sum(np.exp(2 * p) * part for p, part in zip(psi, parts, strict=True))
    slopes = [np.linalg.solve(v, 2 * np.exp(2 * p) * part) for p, part in zip(psi, parts, strict=True)]
    expected = np.array([[0.5 * np.trace(a @ b) for a in slopes] for b in slopes])
    score = -0.5 * slope(deviance, psi)
    ours = scoring._average_information(psi, scoring._point(psi), score)
    np.testing.assert_allclose(ours, 0.5 * (observed + expected), rtol=1e-4, atol=1e-3)
