"""The final draws as ArviZ groups, named as bambi names them: ``1|g``, ``x|g``, ``1|g_sigma``, ``__obs__``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from glmmnet.fitted import Fitted
from glmmnet.prediction import Request, conditional_draws, fixed_eta

CLASS_DIM = "__class__"


def arviz_groups(fitted: Fitted, what: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Groups, coords and dims for :func:`glmmnet.inference_data.to_arviz`.

    Point estimates (beta, Sigma, dispersion) are constants, not posterior draws: they stand in ``constant_data``.

    Parameters
    ----------
    what : tuple of str
        Which of log_likelihood and posterior_predictive, both (draws x rows), to compute.
    """
    final = fitted.draws
    joint = fitted.joint
    many, many_fixed = joint.effect_labels != ("",), joint.coefficient_labels != ("",)
    coords: dict[str, Any] = {"__obs__": np.arange(fitted.joint.n)}
    dims: dict[str, Any] = {}
    if many or many_fixed:
        coords[CLASS_DIM] = joint.target.predictors
    posterior: dict[str, np.ndarray] = {}
    constant: dict[str, np.ndarray] = {}
    for k, term in enumerate(fitted.joint.terms):
        dim = f"{term.group}__factor_dim"
        coords[dim] = term.levels
        draws = fitted.term_draws(k)
        for i, name in enumerate(term.names):
            variable = f"{name.replace('(Intercept)', '1')}|{term.group}"
            own = draws[:, i].reshape(term.q, -1, final.chains, final.draws).permute(2, 3, 0, 1).numpy()
            posterior[variable] = own if many else own[..., 0]
            dims[variable] = [dim, CLASS_DIM] if many else [dim]
            sd = fitted.params.sigma[k][:, i, i].sqrt().numpy()
            constant[f"{variable}_sigma"] = sd if many else sd[0]
            dims[f"{variable}_sigma"] = [CLASS_DIM] if many else []
    for j, name in enumerate(fitted.joint.x_names):
        beta = fitted.params.beta[j].numpy()
        constant[name] = beta if many_fixed else beta[0]
        dims[name] = [CLASS_DIM] if many_fixed else []
    if fitted.joint.family.has_dispersion:
        # A covariate may be called phi.
        name = "dispersion" if "phi" in constant else "phi"
        constant[name] = np.asarray(fitted.params.phi)
        dims[name] = []
    response = fitted.design.response
    assert response is not None
    groups: dict[str, Any] = {"posterior": posterior, "sample_stats": _statistics(fitted), "constant_data": constant}
    groups["observed_data"] = {response.label: _observed(fitted)}
    dims[response.label] = ["__obs__"]
    for name, values in _row_draws(fitted, what).items():
        groups[name] = {response.label: values}
    return groups, coords, dims


def _statistics(fitted: Fitted) -> dict[str, np.ndarray]:
    """The sampler's statistics a draw; exact draws, which are all accepted, and Metropolis steps do not diverge."""
    final = fitted.draws
    if not fitted.joint.terms:
        return {}
    shape = (final.chains, final.draws)
    return {"diverging": np.zeros(shape, bool), **(final.stats or {"acceptance_rate": np.ones(shape)})}


def _observed(fitted: Fitted) -> np.ndarray:
    """The response a row as `simulate` gives it: class numbers for a categorical one, successes for counts."""
    return fitted.joint.family.as_simulated(fitted.joint.target.y).numpy()


def _row_draws(fitted: Fitted, what: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Log-likelihood and replicated responses, (chains, draws, n) float32."""
    final, joint, design = fitted.draws, fitted.joint, fitted.design
    fixed = fixed_eta(fitted, design)
    total = final.chains * final.draws
    out = {name: np.empty((joint.n, total), dtype=np.float32) for name in what}
    for start in range(0, joint.n, 5000):
        rows = slice(start, min(start + 5000, joint.n))
        eta = conditional_draws(fitted, design, rows, fixed, Request())
        if "log_likelihood" in out:
            log_p = joint.family.log_prob(eta, joint.target.y[rows], joint.row_phi(fitted.params.phi, rows))
            out["log_likelihood"][rows] = (joint.weights[rows, None] * log_p).to(torch.float32).numpy()
        if "posterior_predictive" in out:
            out["posterior_predictive"][rows] = _replicate(fitted, eta, rows)
    return {name: values.T.reshape(final.chains, final.draws, joint.n) for name, values in out.items()}


def _replicate(fitted: Fitted, eta: torch.Tensor, rows: slice) -> np.ndarray:
    joint = fitted.joint
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fitted.seed + rows.start)
        values = joint.family.simulate(eta, joint.target.y[rows], joint.row_phi(fitted.params.phi, rows))
    return values.to(torch.float32).numpy()
