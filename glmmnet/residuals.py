"""Residuals of the training rows."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.fitted import Fitted


def response_residuals(fitted: Fitted, mean: Tensor) -> Tensor:
    """Observed minus fitted, (n, 1) or (n, classes), for fitted means of that shape."""
    return fitted.joint.family.observed(fitted.joint.target.y).reshape(mean.shape) - mean


def pearson_residuals(fitted: Fitted, mean: Tensor) -> Tensor:
    """Response residuals over the standard deviation of the response given b, shaped as `mean`."""
    joint = fitted.joint
    observed, phi = joint.family.observed(joint.target.y), joint.row_phi(fitted.params.phi)
    variance = joint.family.variance_at(mean.reshape(observed.shape), _centre(fitted), joint.target.y, phi)
    return response_residuals(fitted, mean) / variance.reshape(mean.shape).clamp_min(1e-300).sqrt()


def deviance_residuals(fitted: Fitted, mean: Tensor) -> Tensor:
    """Signed root of each row's deviance, times its precision weight, (n, 1); of a class the root alone."""
    family, y = fitted.joint.family, fitted.joint.target.y
    observed = family.observed(y)
    deviance = family.deviance_at(mean.reshape(observed.shape), _centre(fitted), y, fitted.params.phi)
    root = deviance.clamp_min(0.0).sqrt()
    if fitted.joint.divisor is not None:
        root = root * fitted.joint.divisor[:, 0].sqrt()
    if family.class_means:
        return root[:, None]
    return (torch.sign(observed - mean.reshape(observed.shape)) * root)[:, None]


def _centre(fitted: Fitted) -> Tensor:
    """Linear predictors at the posterior mean of b, (n, C, 1)."""
    return fitted.fixed + fitted.joint.random_eta(fitted.draws.b.to(torch.float64).mean(dim=2, keepdim=True))
