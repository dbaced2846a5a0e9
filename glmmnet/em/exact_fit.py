"""Exact fits: where fixed and random columns leave no residual, variances mean nothing."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import lsqr
from torch import Tensor

from glmmnet.joint import JointModel

#: Residual variances below this share of the response's are looked at.
_SUSPICIOUS = 1e-5


def refuse_exact_fit(joint: JointModel, phi: float, f: Tensor | None = None) -> None:
    """Raise the family's FitError if X and Z together reproduce the response, given the network's output f (n, C).

    Least squares on all columns is computed only where the residual variance `phi` is suspiciously small.
    """
    spread = joint.start()[1]
    if not joint.family.quadratic or phi > _SUSPICIOUS * spread:
        return
    root = joint.weights.sqrt().numpy()
    x = joint.X.numpy() / np.maximum(np.linalg.norm(joint.X.numpy(), axis=0), 1e-300)
    columns = sp.hstack([sp.csr_matrix(x), *([joint.z_matrix] if joint.terms else [])]).tocsr()
    known = joint.offset if f is None else joint.offset + f[:, :, None]
    left = (joint.target.y - known)[:, 0, 0].numpy()
    solution = lsqr(sp.diags(root) @ columns, root * left, atol=1e-14, btol=1e-14)[0]
    eta = known + torch.as_tensor(columns @ solution)[:, None, None]
    # The family refuses a dispersion that is rounding error.
    joint.family.dispersion(eta, joint.target.y, joint.weights)
