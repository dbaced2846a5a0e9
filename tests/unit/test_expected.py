"""Expected information about the variances against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glmmnet import expected
from glmmnet.expected import expected_information
from glmmnet.variance import active_parameters, derivative

pytestmark = pytest.mark.usefixtures("seeded")

MODELS = {
    "one factor": ("bernoulli", (7, 1)),
    "crossed slopes": ("binomial", (6, 2), (9, 1)),
    "classes": ("categorical", (6, 1), (5, 2)),
    "related levels": ("gaussian", (6, 2, "us", "related"), (9, 1)),
    "residual": ("gaussian", (6, 2, "diag"), (9, 1)),
}


def dense_information(joint, params, weight, active):
    """Traces of V^-1 dV_a V^-1 dV_b / 2 with V (n C, n C) written out."""
    n, c = joint.n, joint.n_classes
    z = np.kron(joint.z_matrix.toarray(), np.eye(c))
    inverse = np.zeros((n * c, n * c))
    for i in range(n):
        inverse[i * c : (i + 1) * c, i * c : (i + 1) * c] = weight[i]
    # V^-1 by the inverse of the precision: the weights of classes are singular.
    h = z.T @ inverse @ z + joint.precision_matrix(params).toarray()
    v_inverse = inverse - inverse @ z @ np.linalg.solve(h, z.T @ inverse)
    slopes = []
    for p in active:
        if p.term < 0:
            slopes.append(2.0 * np.linalg.inv(inverse))
            continue
        term = joint.terms[p.term]
        one_class = np.zeros((c, c))
        one_class[p.class_, p.class_] = 1.0
        known = np.eye(term.q) if term.relation is None else term.relation.matrix.numpy()
        block = np.kron(np.kron(known, derivative(joint, params, p).numpy()), one_class)
        d = np.zeros((z.shape[1], z.shape[1]))
        rows = slice(term.rows.start * c, term.rows.stop * c)
        d[rows, rows] = block
        slopes.append(z @ d @ z.T)
    scaled = [v_inverse @ slope for slope in slopes]
    return np.array([[0.5 * np.trace(a @ b) for b in scaled] for a in scaled])


@pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))
def test_probes_estimate_the_traces(joint_of, parameters_of, monkeypatch, spec):
    monkeypatch.setattr(expected, "_PROBES", 20_000)
    joint = joint_of(*spec)
    params = parameters_of(joint)
    weight = joint.weight(joint.fixed_eta(params), params.phi)[..., 0]
    active = active_parameters(joint, params)
    found = expected_information(joint, params, weight, active)
    wanted = dense_information(joint, params, weight.numpy(), active)
    scale = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    np.testing.assert_allclose(found / scale, wanted / scale, atol=0.02)
    torch.testing.assert_close(found, expected_information(joint, params, weight, active))
