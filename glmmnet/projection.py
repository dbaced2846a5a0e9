"""The linear share of f in fixed columns of its own inputs, which belongs to beta."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from glmmnet.design import Design
from glmmnet.joint import JointModel, Parameters


@dataclass(frozen=True)
class Projection:
    """f's linear share in fixed columns whose variables sit inside an nn() block: it belongs to beta.

    Attributes
    ----------
    columns : Tensor of int64, (k,)
        Columns of X, the intercept first.
    gamma : Tensor, (k, C)
        Least-squares coefficients of f on them over the training rows; already part of beta.
    """

    columns: Tensor
    gamma: Tensor


def project(
    design: Design, joint: JointModel, params: Parameters, f: Tensor
) -> tuple[Parameters, Tensor, Projection | None]:
    """Give f's linear share in columns whose variables all sit inside one nn() block to beta; eta is unchanged."""
    variables = dict(zip(design.x_names, design.x_variables, strict=True))
    inside = [
        k
        for k, name in enumerate(joint.x_names)
        if (own := variables.get(name)) and any(set(own) <= set(block.variables) for block in design.neural)
    ]
    if joint.x_loading is not None and joint.f_loading is not None:
        inside = [k for k in inside if bool((joint.x_loading[k] == joint.f_loading).all())]
    if not inside:
        return params, f, None
    # Of several thresholds the first stands for the constant; they all move alike.
    intercept = [] if joint.constant is None else [joint.x_names.index(joint.intercepts[0])]
    columns = torch.tensor(intercept + inside)
    x = joint.X[:, columns]
    gamma = torch.linalg.lstsq(x, f, driver="gelsd").solution
    beta = params.beta.clone()
    if joint.constant is not None:
        beta += joint.constant[:, None] * gamma[0]
    beta[inside] += gamma[len(intercept) :]
    return replace(params, beta=beta), f - x @ gamma, Projection(columns, gamma)
