"""Monte Carlo EM as a generator of states: first the network learns, then f is frozen and the rest is polished."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from glmmnet.em.boundary import floored
from glmmnet.em.checkpoint import Checkpoint
from glmmnet.em.config import EMConfig
from glmmnet.em.draws import draws_at_first, draws_from_here
from glmmnet.em.e_step import EStep
from glmmnet.em.exact_fit import refuse_exact_fit
from glmmnet.em.expansion import find_carriers
from glmmnet.em.following import Basis, Following, has_following
from glmmnet.em.m_step import m_step
from glmmnet.em.network import NetworkTraining, Rows, centre
from glmmnet.em.newton import finish_by_newton, has_newton
from glmmnet.em.state import EMState
from glmmnet.em.steady import AroundMode
from glmmnet.em.stochastic import finish_by_scores, has_scores
from glmmnet.em.stopping import LEAST_GAIN, Distance, Pace, Scales, told_by
from glmmnet.em.stretch import Stretch
from glmmnet.errors import FitError, OptionError
from glmmnet.exact import GaussianLikelihood, exact_rows
from glmmnet.gaussian import gaussian_posterior
from glmmnet.joint import JointModel, Parameters
from glmmnet.networks import NeuralPredictor
from glmmnet.samplers import SAMPLERS
from glmmnet.scoring import VarianceScoring, can_score
from glmmnet.typing import Sampler

#: Newton steps of the starting values, on the model without random effects.
_START_STEPS = 8
#: Iterations of the polish that tune the sampler's step size, and the transitions they take.
_TUNED_ITERATIONS, _TUNING = (0, 3, 10), 12
#: Up to so many effects the exact likelihood alone is quick; beyond, scoring goes first. Its last step is a share of
#: the tolerance and no longer than the other number, half of both where scoring ends the fit.
_FEW_EFFECTS, _SHARE, _LONGEST = 1000, 0.25, 0.1


@dataclass(frozen=True)
class Problem:
    """What is fitted.

    Attributes
    ----------
    joint : JointModel
    predictor : NeuralPredictor or None
        Trained in place.
    xs : list of Tensor
        Inputs of its blocks on all rows.
    sampler : Sampler or None
        None: exact draws, where :func:`glmmnet.gaussian.has_exact_posterior`. Or level by level, where
        :func:`glmmnet.em.levels.has_levels`, once the network has learned.
    held : Tensor of bool, (n,), or None
        Rows held out for early stopping while the network learns; None: drawn at random.
    checkpoint : Checkpoint or None
        Where estimates and network are written to, and taken from when the fit starts.
    """

    joint: JointModel
    predictor: NeuralPredictor | None
    xs: list[Tensor]
    sampler: Sampler | None
    held: Tensor | None = None
    checkpoint: Checkpoint | None = None


def starting_parameters(joint: JointModel) -> Parameters:
    """Beta of the model without random effects, and variances of the order of what is left."""
    eta, phi = joint.start()
    beta = joint.starting_beta(eta)
    plain = replace(joint, terms=())
    nothing = _no_effects(joint)
    params = Parameters(beta, (), phi)
    # With intercepts alone the family's start is the estimate already.
    for _ in range(0 if joint.only_intercepts else _START_STEPS):
        params = m_step(plain, (), params, nothing).params
    size = 0.5 * params.phi if joint.family.residual else 0.3 * joint.eta_unit**2
    sigma = []
    for term in joint.terms:
        scale = size / term.columns().square().mean(dim=0).clamp_min(1e-12)
        sigma.append(torch.diag(scale).repeat(joint.n_classes, 1, 1))
    return Parameters(params.beta, tuple(sigma), params.phi)


def run(problem: Problem, config: EMConfig) -> Iterator[EMState]:
    """EM iterations until the stopping rule is met or `config.max_iter`; the caller may stop sooner.

    Uses torch's global generator. Without a sampler and with a Gaussian likelihood the polish maximises the exact
    likelihood instead. With a checkpoint a learned network is not learned again.
    """
    joint, params = problem.joint, starting_parameters(problem.joint)
    iteration, b, f = 0, None, None
    stretch: Stretch | None = None
    reached = problem.checkpoint.load() if problem.checkpoint is not None else None
    if reached is not None:
        iteration, params = reached.iteration, reached.params
    if problem.predictor is not None:
        training = None
        if problem.checkpoint is not None and reached is not None and reached.network is not None:
            problem.checkpoint.give_weights(reached.network, problem.predictor)
        else:
            training = _training(problem, problem.predictor, config)
            for state in training.run(params):
                iteration = state.iteration
                yield state
            params, b = training.best_params, state.b
        f = problem.predictor.predict(problem.xs)
        params, f = centre(problem.predictor, joint, params, f)
        if joint.n_outputs == 1:
            stretch = Stretch(joint, problem.predictor, f)
            resumed = reached is not None and reached.stretched
            free = resumed if training is None or b is None else _is_free(stretch, training, params, b)
            stretch = stretch if free else None
    for state in _polished(problem, stretch, params, f, iteration, config, b):
        if problem.checkpoint is not None:
            problem.checkpoint.save(state.iteration, state.params, problem.predictor, stretched=stretch is not None)
        yield state


def _is_free(stretch: Stretch, training: NetworkTraining, params: Parameters, b: Tensor) -> bool:
    """Whether all rows tell the size of f, and those held out do not speak against where it would go."""
    factor = stretch.first_step(params, b)
    return factor is not None and not training.refutes(factor, params)


def _polished(
    problem: Problem,
    stretch: Stretch | None,
    params: Parameters,
    f: Tensor | None,
    iteration: int,
    config: EMConfig,
    b: Tensor | None,
) -> Iterator[EMState]:
    """The polish, f frozen but for its size where that is free."""
    if stretch is None:
        yield from _given_f(problem, params, f, iteration, config, b)
        return
    for state in _given_f(replace(problem, joint=stretch.joint), stretch.start(params), None, iteration, config, b):
        yield stretch.folded(state)


def _training(problem: Problem, predictor: NeuralPredictor, config: EMConfig) -> NetworkTraining:
    sampler, joint = problem.sampler, problem.joint
    # Successive draws by NUTS tend to lie on opposite sides of the mode, which steadies f and Sigma: with the paper's
    # sigma^2 = 0.1, q = 10,000 its mean error was 0.086 over 15 fits, 0.113 with draws level by level.
    if sampler is None and joint.terms and not joint.family.quadratic:
        sampler = SAMPLERS["nuts"]()
    return NetworkTraining(Rows(joint, problem.xs), predictor, config, sampler, problem.held)


def _given_f(
    problem: Problem,
    params: Parameters,
    f: Tensor | None,
    iteration: int,
    config: EMConfig,
    b: Tensor | None = None,
) -> Iterator[EMState]:
    """All that follows the network: f is frozen; `b` are the last draws (Q, C, S) beside it."""
    joint = problem.joint
    if problem.sampler is None and joint.family.quadratic:
        yield from _maximise(joint, params, f, iteration, config)
    else:
        states = _polish(joint, params, f, iteration, problem.sampler, config, b)
        if has_newton(joint):
            states = finish_by_newton(states, joint, f, config)
        elif has_scores(joint, given_f=problem.predictor is not None):
            states = finish_by_scores(states, joint, f, problem.sampler, draws_at_first(joint, config), config)
        yield from states


def _output(joint: JointModel, f: Tensor | None) -> Tensor:
    return torch.zeros(joint.n, joint.n_outputs, dtype=torch.float64) if f is None else f


def _maximise(
    joint: JointModel, params: Parameters, f: Tensor | None, iteration: int, config: EMConfig
) -> Iterator[EMState]:
    """Maximum likelihood or REML of a Gaussian model: scoring for many levels, then the exact likelihood if quick."""
    rows = exact_rows(joint)
    quick = rows <= config.exact_limit
    if not quick and not can_score(joint):
        if config.reml:
            raise OptionError(
                f"reml=True needs the exact likelihood, but {rows} dense rows are left after the "
                f"largest grouping factor, more than exact_limit={config.exact_limit}; leave reml out or raise "
                "exact_limit."
            )
        yield from _polish(joint, params, f, iteration, None, config)
        return
    scored = can_score(joint) and (joint.n_effects > _FEW_EFFECTS or not quick)
    if scored:
        tol = min(_SHARE * config.tol, _LONGEST) * (1.0 if quick else 0.5)
        for step in VarianceScoring(joint, f, reml=config.reml).run(params, config.max_iter, tol):
            iteration, params = iteration + 1, step.params
            done = not quick and step.change < tol
            yield _ml_state(joint, params, f, iteration, step.change, done, torch.as_tensor(step.b)[:, None])
    if quick:
        try:
            params = GaussianLikelihood(joint, f, reml=config.reml).maximise(params, near=scored)
        except np.linalg.LinAlgError:
            # Beside a residual of 0 variances grow until no number holds them.
            refuse_exact_fit(joint, 0.0, f)
            raise
        mode = torch.zeros(0, 1, dtype=torch.float64)
        if joint.terms:
            mode = gaussian_posterior(joint, joint.fixed_eta(params, f), floored(joint, params)).mode
        yield _ml_state(joint, params, f, iteration + 1, 0.0, True, mode)


def _ml_state(
    joint: JointModel, params: Parameters, f: Tensor | None, iteration: int, change: float, done: bool, mode: Tensor
) -> EMState:
    """A state of the maximisation: no draws, but the mode of b (Q, 1)."""
    b = mode[:, :, None]
    eta = joint.fixed_eta(params, f) + joint.random_eta(b)
    deviance = -2.0 * float(joint.log_likelihood(eta, params.phi).mean())
    return EMState(iteration, "polish", params, _output(joint, f), b, deviance, float("nan"), change, done)


def _no_effects(joint: JointModel) -> Tensor:
    return torch.zeros(0, joint.n_classes, 1, dtype=torch.float64)


def _polish(
    joint: JointModel,
    params: Parameters,
    f: Tensor | None,
    iteration: int,
    sampler: Sampler | None,
    config: EMConfig,
    b: Tensor | None = None,
) -> Iterator[EMState]:
    """EM with f frozen."""
    e_step = EStep(joint, sampler, draws_at_first(joint, config))
    if b is not None:
        e_step.start_from(b)
    basis, following = Basis.of(joint) if has_following(joint) else None, None
    carriers = find_carriers(joint) if basis is None else ()
    pace, distance, averaged = Pace(config), Distance(), params
    least = config.min_iter if joint.terms else 0
    for t in range(config.max_iter):
        working = floored(joint, params)
        tune = _TUNING if t in _TUNED_ITERATIONS else 0
        fixed = joint.fixed_eta(working, f)
        b = e_step(fixed, working, warmup=tune)
        assert e_step.mode is not None
        around = AroundMode.at(joint, working, e_step.mode, fixed)
        if basis is not None and t & (t - 1) == 0:
            # Before iteration 0, 1, 2, 4, 8, ...: it need not be up to date.
            following = Following.at(joint, basis, working, e_step.mode, fixed)
        step = m_step(joint, carriers, working, b, f, around, following)
        if not bool(torch.isfinite(step.params.beta).all()):
            raise FitError(
                f"beta is not finite after EM iteration {t + 1}; look for a column that separates y perfectly."
            )
        told = told_by(joint, around)
        scales = Scales.at(joint, working, step.beta_variance, told)
        move = scales.step(params, step.params)
        gain = pace.gain(move / scales.error)
        sigmas = zip(told, working.sigma, step.params.sigma, strict=True)
        of_sigma = [known.gain(gain, old, new) for known, old, new in sigmas]
        moving = max(gain, LEAST_GAIN)
        params = _structured(joint, params.blend(step.params, moving, of_sigma))
        e_step.shift(moving * step.shift)
        weight = pace.weight(b.shape[2])
        averaged = _structured(joint, averaged.blend(params, weight))
        change = distance.after(move, scales, weight)
        done = pace.ended(change, least)
        e_step.draws = draws_from_here(e_step.draws, distance.noise, pace.averaged, config)
        yield EMState(
            iteration + t + 1,
            "polish",
            averaged,
            _output(joint, f),
            b,
            step.deviance,
            float("nan"),
            change,
            done,
            e_step.single_step_size,
        )
        if done:
            return


def _structured(joint: JointModel, params: Parameters) -> Parameters:
    """`params` with each Sigma of its structure, as the mean of two is not always."""
    sigma = [term.covariance.project(matrix) for term, matrix in zip(joint.terms, params.sigma, strict=True)]
    return replace(params, sigma=tuple(sigma))
