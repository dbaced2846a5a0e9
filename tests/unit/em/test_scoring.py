"""Fisher scoring of Gaussian variances against the exact likelihood's maximum."""

import numpy as np
import pandas as pd
import pytest
import torch

import glmmnet as gn
from glmmnet.em.loop import starting_parameters
from glmmnet.em.scoring import VarianceScoring, can_score
from glmmnet.exact import GaussianLikelihood
from glmmnet.joint import JointModel


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
