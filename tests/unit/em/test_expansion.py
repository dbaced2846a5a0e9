"""The location expansion: exact for eta, and it carries what it can carry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from glmmnet.em.expansion import find_carriers, relocate

pytestmark = pytest.mark.usefixtures("seeded")

MODELS = {
    "one factor": ("bernoulli", (7, 1)),
    "slopes": ("gaussian", (7, 2)),
    "crossed": ("binomial", (6, 2), (9, 1)),
    "related levels": ("gaussian", (7, 2, "us", "related"), (9, 1)),
    "classes": ("categorical", (6, 1), (5, 2)),
}


def carried(carrier):
    """The columns of X that are carried one by one."""
    return carrier.directions.argmax(dim=0).tolist()


def with_carried_columns(joint):
    """X gains the slope column of the first term, where it has one, and a column that is constant within its levels."""
    term = joint.terms[0]
    between = torch.linspace(-1, 2, term.q, dtype=torch.float64)[term.index][:, None]
    columns = [joint.X, between, *([term.z[:, 1:]] if term.z is not None else [])]
    return replace(joint, X=torch.cat(columns, dim=1))


@pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))
def test_eta_is_unchanged(spec, joint_of, parameters_of):
    joint = with_carried_columns(joint_of(*spec))
    params = parameters_of(joint)
    mean_b = 1.0 + torch.randn(joint.n_effects, joint.n_classes, dtype=torch.float64)
    moved = relocate(joint, find_carriers(joint), params, mean_b)
    torch.testing.assert_close(joint.X @ moved.beta, joint.random_eta(moved.b[:, :, None])[..., 0], rtol=0, atol=1e-9)
    assert float(moved.beta.abs().max()) > 0.1
    again = relocate(joint, find_carriers(joint), params, mean_b - moved.b)
    assert float(again.beta.abs().max()) < 1e-9


def test_carried_columns(joint_of):
    joint = with_carried_columns(joint_of("gaussian", (7, 2), (6, 1)))
    first, second = find_carriers(joint)
    # Intercept, x1, constant within the first factor, slope of the first term.
    assert carried(first) == [0, 2, 3]
    assert carried(second) == [0]
    for carrier, term in ((first, joint.terms[0]), (second, joint.terms[1])):
        columns = torch.einsum("nr,nrk->nk", term.columns(), carrier.design[term.index])
        torch.testing.assert_close(columns, joint.X @ carrier.directions)


def test_columns_that_no_row_has_together_carry_together(joint_of):
    """Effects of times: the intercept is the sum of their columns, whatever a level's missing times have."""
    joint = joint_of("gaussian", (7, 3))
    term = joint.terms[0]
    of_level, time = torch.arange(7).repeat_interleave(3), torch.arange(3).repeat(7)
    rows = torch.arange(21) != 4
    index, z = of_level[rows], torch.eye(3, dtype=torch.float64)[time[rows]]
    between = torch.linspace(-1, 2, 21, dtype=torch.float64)[rows]
    X = torch.stack([torch.ones(20), between, between.sin()], dim=1).double()
    (carrier,) = find_carriers(replace(joint, X=X, terms=(term.on(index.numpy(), z.numpy()),)))
    assert carried(carrier) == [0, 1, 2]
    columns = torch.einsum("nr,nrk->nk", z, carrier.design[index])
    torch.testing.assert_close(columns, X)
    # Time 1 of level 1 is missing.
    torch.testing.assert_close(carrier.design[1, 1], carrier.design[1, [0, 2]].mean(dim=0))
    assert float(carrier.design[:, :, 0].min()) == 1.0


def test_regression_is_weighted_by_sigma(joint_of, parameters_of):
    """Generalised least squares of b on its levels' design, by the textbook formula."""
    joint = with_carried_columns(joint_of("gaussian", (7, 2)))
    params = parameters_of(joint)
    mean_b = torch.randn(14, 1, dtype=torch.float64)
    (carrier,) = find_carriers(joint)
    moved = relocate(joint, (carrier,), params, mean_b)
    design = carrier.design.reshape(14, -1).numpy()
    weight = np.kron(np.eye(7), np.linalg.inv(params.sigma[0][0].numpy()))
    normal = design.T @ weight @ design
    gamma = np.linalg.solve(normal, design.T @ weight @ mean_b.numpy())
    np.testing.assert_allclose(carrier.directions.T @ moved.beta, gamma, atol=1e-6)
    np.testing.assert_allclose((carrier.directions.T @ moved.variance)[:, 0], np.diag(np.linalg.inv(normal)), rtol=1e-6)


def test_nothing_to_carry(joint_of, parameters_of):
    joint = joint_of("bernoulli", (7, 1))
    joint = replace(joint, X=joint.X[:, 1:])
    moved = relocate(joint, find_carriers(joint), parameters_of(joint), torch.ones(7, 1, dtype=torch.float64))
    assert float(moved.beta.abs().max()) == float(moved.b.abs().max()) == 0.0
