"""Residuals of the training rows."""

from __future__ import annotations

import torch
from torch import Tensor

from glmmnet.fitted import Fitted

#: Seed after the fit's own, of the draws that quantile residuals take.
_SEED_QUANTILE = 5_000_011


def response_residuals(fitted: Fitted, mean: Tensor) -> Tensor:
    """Observed minus fitted, (n, 1) or (n, classes), for fitted means of that shape."""
    observed = fitted.joint.family.observed(fitted.joint.target.y).reshape(mean.shape)
    return _of_observed(fitted, observed - mean)


def _of_observed(fitted: Fitted, values: Tensor) -> Tensor:
    """Residuals (n, k), NaN in rows without trials."""
    if not fitted.joint.family.of_trials:
        return values
    return torch.where(fitted.joint.target.y[:, 1] > 0, values, torch.nan)


def pearson_residuals(fitted: Fitted, mean: Tensor) -> Tensor:
    """Response residuals over the standard deviation of the response given b, shaped as `mean`."""
    joint = fitted.joint
    observed, phi = joint.family.observed(joint.target.y), joint.row_phi(fitted.params.phi)
    variance = joint.family.variance_at(mean.reshape(observed.shape), fitted.centre, joint.target.y, phi)
    return response_residuals(fitted, mean) / variance.reshape(mean.shape).clamp_min(1e-300).sqrt()


def deviance_residuals(fitted: Fitted, mean: Tensor) -> Tensor:
    """Signed root of each row's deviance, times its precision weight, (n, 1); of a class the root alone."""
    family, y = fitted.joint.family, fitted.joint.target.y
    observed = family.observed(y)
    deviance = family.deviance_at(mean.reshape(observed.shape), fitted.centre, y, fitted.params.phi)
    root = deviance.clamp_min(0.0).sqrt()
    if fitted.joint.divisor is not None:
        root = root * fitted.joint.divisor[:, 0].sqrt()
    if family.class_means:
        return root[:, None]
    return _of_observed(fitted, (torch.sign(observed - mean.reshape(observed.shape)) * root)[:, None])


def quantile_residuals(fitted: Fitted) -> Tensor:
    """Randomized quantile residuals given one posterior draw of b, (n, 1); both draws from the fit's seed.

    F(y) at a posterior mean of b is no uniform number even if the model is right: b has been drawn towards y. A draw
    of b is to y what the true one is (Waagepetersen 2006).

    Raises
    ------
    FitError
        The family has no distribution function; classes without an order have none.

    References
    ----------
    Dunn, Smyth (1996), Randomized quantile residuals, J. Comput. Graph. Stat. 5(3), 236-244. Waagepetersen (2006), A
    simulation-based goodness-of-fit test for random effects in generalized linear mixed models, Scand. J. Stat. 33(4),
    721-731.
    """
    joint = fitted.joint
    generator = torch.Generator().manual_seed(fitted.seed + _SEED_QUANTILE)
    eta = fitted.fixed
    if joint.terms:
        pick = int(torch.randint(fitted.draws.b.shape[2], (1,), generator=generator))
        eta = eta + joint.random_eta(fitted.draws.b[:, :, pick, None].to(torch.float64))
    tails = joint.family.tails(eta, joint.target.y, joint.row_phi(fitted.params.phi))
    share = torch.rand(tails.at.shape, generator=generator, dtype=torch.float64)
    # Whichever tail is the smaller has all digits.
    below, above = tails.below + share * tails.at, tails.above + (1 - share) * tails.at
    smaller = torch.special.ndtri(torch.minimum(below, above).clamp_min(torch.finfo(torch.float64).tiny))
    return _of_observed(fitted, torch.where(below < above, smaller, -smaller))
