"""Fits of glmmnet with what they cost, the final draws apart."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import glmmnet as gn
from benchmarks._fitting import NO_DRAWS, timed_fit
from benchmarks._harness import Cost, measured
from benchmarks._task import HELD, Settings, Task
from glmmnet.em.config import EMConfig
from glmmnet.em.final import FinalDraws, final_draws
from glmmnet.em.loop import Problem, run
from glmmnet.errors import ConvergenceWarning
from glmmnet.joint import JointModel, Parameters
from glmmnet.samplers import SAMPLERS
from glmmnet.simulate import simulate_glmm
from glmmnet.threads import torch_session


def warm_up() -> None:
    """A fit of a few rows, so that the first one measured does not pay for imports."""
    rows = simulate_glmm(60, {"g": (5, 1.0)}, family="bernoulli").frame
    model = gn.glmm("y ~ nn(x0) + (1 | g)", rows, family="bernoulli")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(seed=0, epochs=1, max_iter=1, progress=False, **NO_DRAWS)


def fit(task: Task, formula: str, settings: Settings, *, likelihood: bool) -> tuple[Any, dict[str, Any]]:
    """Results and figures of :func:`timed_fit` for a formula on a task's training rows."""
    neural = "nn(" in formula
    held = {"validation": HELD} if neural else {}
    return timed_fit(
        lambda: gn.glmm(formula, task.train, family=task.family, nn=settings.nn if neural else None),
        seed=settings.seed,
        likelihood=likelihood,
        **held,
        **settings.fit,
    )


def fit_given_f(task: Task, settings: Settings) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, Any]]:
    """EM that knows the true f of every class: probabilities (n, C) on the test rows, variances, figures.

    A formula's offset is the same for all classes; here the joint model gets one a class.
    """
    assert task.truth is not None
    config = EMConfig.from_options(settings.fit)
    with measured() as cost, torch_session(settings.seed, config.threads):
        model = gn.glmm(f"{task.target} ~ 0 + {task.random_part}", task.train, family=task.family)
        joint = JointModel.from_design(model.design, model.family)
        f = torch.tensor(task.train[list(task.truth.f)].to_numpy(np.float64))
        joint = replace(joint, offset=f[:, :, None])
        sampler = SAMPLERS["nuts"]()
        for state in run(Problem(joint, None, [], sampler), config):
            params, step_size = state.params, state.step_size
    with measured() as final, torch_session(settings.seed, config.threads):
        draws = final_draws(joint, joint.fixed_eta(params), params, sampler, config, step_size)
    figures = _seconds(cost, final) | {"iterations": state.iteration, "converged": int(state.converged)}
    return _probabilities(task, joint, draws), variances(joint, params), figures


def _seconds(cost: Cost, final: Cost) -> dict[str, float]:
    return cost.figures() | {"seconds_final": cost.seconds + final.seconds}


def _probabilities(task: Task, joint: JointModel, draws: FinalDraws, most: int = 200) -> np.ndarray:
    """Class probabilities of the test rows given the true f, averaged over at most `most` draws of b."""
    assert task.truth is not None
    f = torch.tensor(task.test[list(task.truth.f)].to_numpy(np.float32))
    where = [torch.tensor(term.levels.get_indexer(task.test[term.group])) for term in joint.terms]
    keep = np.unique(np.linspace(0, draws.b.shape[2] - 1, most).astype(int))
    total = torch.zeros_like(f)
    for s in keep:
        eta = f.clone()
        for term, index in zip(joint.terms, where, strict=True):
            own = draws.b[term.rows, :, s]
            eta += own[index.clamp_min(0)] * (index >= 0)[:, None]
        total += torch.softmax(eta, dim=1)
    return (total / len(keep)).double().numpy()


def variances(joint: JointModel, params: Parameters) -> dict[str, np.ndarray]:
    """Variances by factor: of each column of its terms, class by class."""
    found: dict[str, np.ndarray] = {}
    for term, sigma in zip(joint.terms, params.sigma, strict=True):
        own = sigma.diagonal(dim1=1, dim2=2).T.reshape(-1).numpy()
        found[term.group] = np.concatenate([found.get(term.group, own[:0]), own])
    return found
