"""The entry: formula and data in, a fitted model out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import nn

from glmmnet.centring import Centring, centring
from glmmnet.design import Design, DesignState, build_design
from glmmnet.em.boundary import floored, on_boundary, without_crawling
from glmmnet.em.checkpoint import Checkpoint, fingerprint, open_checkpoint
from glmmnet.em.config import EMConfig
from glmmnet.em.exact_fit import refuse_exact_fit
from glmmnet.em.final import final_draws
from glmmnet.em.holdout import Marks, held_rows
from glmmnet.em.levels import has_levels
from glmmnet.em.loop import Problem, run
from glmmnet.em.separation import beyond_response, separating_columns, separating_groups
from glmmnet.em.state import EMState
from glmmnet.errors import (
    DataWarning,
    DesignError,
    FitError,
    FormulaError,
    OptionError,
    as_mapping,
)
from glmmnet.families import Family, resolve, with_formulas
from glmmnet.fit_warnings import warn_if_cut_off, warn_if_no_estimate, warn_if_unfinished, warn_if_vanished
from glmmnet.fitted import Fitted, inputs
from glmmnet.fixed_errors import collinear_columns
from glmmnet.formula import parse, with_part
from glmmnet.gaussian import has_exact_posterior
from glmmnet.joint import JointModel
from glmmnet.networks import NeuralPredictor, build_predictor
from glmmnet.progress import interruptible, progress_bar
from glmmnet.projection import project
from glmmnet.results import GLMMNetResults
from glmmnet.samplers import SAMPLERS
from glmmnet.threads import seed_or_fresh, torch_session
from glmmnet.typing import Sampler, WeightKind


class GLMMNet:
    """A generalized linear mixed model whose fixed part may hold a neural network; not changed by :meth:`fit`.

    Made by :func:`glmm` or :meth:`from_formula`.

    Attributes
    ----------
    formula : str
    family : Family
    design : Design
        Response, matrices and level codes of the rows without missing values.
    """

    def __init__(
        self,
        formula: str,
        family: Family,
        design: Design,
        design_state: DesignState,
        nn_options: Mapping[str, Any] | None,
        networks: Mapping[str, Any] | None,
        booleans: pd.DataFrame | None = None,
        weight_kind: WeightKind = "frequency",
    ) -> None:
        self.formula = formula
        self.family = family
        self.design = design
        self._design_state = design_state
        self._nn_options = as_mapping("nn", nn_options, '{"layers": (64, 32)}')
        self._networks = as_mapping("networks", networks, '{"mine": module}')
        self._booleans = pd.DataFrame() if booleans is None else booleans
        self._joint = JointModel.from_design(design, family, weight_kind)
        if design.neural:
            # Built once here, so that a wrong option is an error before anything is fitted.
            with torch.random.fork_rng(devices=[]):
                self._build_predictor()
        elif self._nn_options or self._networks:
            given = "networks=" if self._networks else "nn="
            raise FormulaError(f"{given} is given, but the formula {formula!r} has no nn() block, e.g. nn(x1 + x2).")

    @classmethod
    def from_formula(
        cls,
        formula: str,
        data: pd.DataFrame,
        family: str | Family = "gaussian",
        *,
        nn: Mapping[str, Any] | None = None,
        networks: Mapping[str, nn.Module | Callable[[int, int], nn.Module]] | None = None,
        weights: str | np.ndarray | None = None,
        weight_kind: WeightKind = "frequency",
        zi: str | None = None,
        dispersion: str | None = None,
        na_action: Literal["drop", "raise"] = "drop",
        context: Mapping[str, Any] | None = None,
        contrasts: Mapping[str, Any] | None = None,
    ) -> GLMMNet:
        """See :func:`glmm`."""
        if not isinstance(data, pd.DataFrame):
            raise TypeError(f"data is a {type(data).__name__}; give a pandas DataFrame.")
        if weight_kind not in get_args(WeightKind):
            raise OptionError(f"weight_kind={weight_kind!r} must be {' or '.join(map(repr, get_args(WeightKind)))}.")
        if weight_kind == "precision" and weights is None:
            raise OptionError("weight_kind='precision' says what weights= means; no weights are given.")
        columns = list(data.columns)
        resolved, parts = with_formulas(resolve(family), {"zi": zi, "dispersion": dispersion})
        spec = parse(formula, columns=columns)
        for name, text in parts.items():
            spec = with_part(spec, name, text, columns=columns)
        design, state = build_design(
            spec, data, na_action=na_action, context=context, weights=weights, contrasts=contrasts
        )
        if design.n_dropped:
            warnings.warn(
                f"{design.n_dropped} of {design.n_total} rows have a missing value in a column of the formula and are "
                "left out (na_action='raise' refuses them).",
                DataWarning,
                stacklevel=3,
            )
        booleans = data.select_dtypes(include=["bool", "boolean"]).copy() if design.neural else None
        model = cls(formula, resolved, design, state, nn, networks, booleans, weight_kind)
        if names := collinear_columns(model._joint):
            warnings.warn(
                f"columns of the fixed part are collinear: {', '.join(names)}; their coefficients are only "
                "one of many solutions that fit alike. Leave out what the others imply.",
                DataWarning,
                stacklevel=3,
            )
        _refuse_effects_of_rows(model._joint)
        return model

    def _build_predictor(self) -> NeuralPredictor:
        joint = self._joint
        scale = float(joint.target.y.std()) if joint.family.quadratic else joint.eta_unit
        return build_predictor(self.design.neural, joint.n_outputs, self._nn_options, self._networks, scale)

    def fit(
        self,
        *,
        sampler: str | Sampler | None = None,
        seed: int | None = None,
        validation: Marks | None = None,
        checkpoint: str | Path | None = None,
        device: str = "cpu",
        progress: bool | None = None,
        **options: Any,
    ) -> GLMMNetResults:
        """Fit by Monte Carlo EM.

        Parameters
        ----------
        sampler : {"nuts", "hmc", "mala"} or Sampler, optional
            Draws the random effects in the E-step. None: NUTS for several random terms. One term outside the Gaussian
            family is drawn level by level (independence Metropolis) once the network has learned; Gaussian models
            have independent exact draws, by a factor or by conjugate gradients. The summary says which.
        seed : int, optional
            The same seed, data and versions give the same numbers; None: a fresh one, kept in ``results.seed``.
        validation : str or array-like of bool, (n_total,), optional
            Rows held out for early stopping while the network learns: the name of a boolean column, or True for
            each such row of the data that the model was built from. They join for the polish. None:
            `valid_fraction` of the rows at random.
        device : "cpu"
            Nothing else is supported so far.
        checkpoint : str or Path, optional
            A file that the estimates and the learned network are written to after each iteration of the polish; where
            it exists, the fit goes on from there (a learned network is not learned again).
        progress : bool, optional
            A progress bar; None: when standard error is a terminal. Ctrl-C stops after the current iteration.
        **options
            Fields of :class:`glmmnet.EMConfig`.

        Returns
        -------
        GLMMNetResults

        Raises
        ------
        TypeError
            An unknown option, or a value of the wrong type.
        DesignError
            `validation` does not fit the data.
        FormulaError
            `validation` is given without an nn() block.
        OptionError
            An option's value is out of range, or it is not for this model; there is no sampler of that name.
        FitError
            The file at `checkpoint` is of another model; the estimation cannot go on.
        OSError
            No file can be written at `checkpoint`.

        Warns
        -----
        ConvergenceWarning
            The stopping rule was not met, or there is no estimate: columns or groups separate the response, or fitted
            means lie far beyond every response (then ``results.converged`` is False), or zero-inflation is estimated as
            0, or a link alone keeps the linear predictor of zero counts above 0.
        """
        config = EMConfig.from_options(options, neural=bool(self.design.neural))
        seed = seed_or_fresh(seed)
        if str(device) != "cpu":
            raise OptionError(f"device={device!r} is not supported so far; glmmnet runs on 'cpu' only.")
        if validation is not None and not self.design.neural:
            raise FormulaError(f"validation= holds rows out for nn() blocks; the formula {self.formula!r} has none.")
        if config.reml:
            self._check_reml(sampler)
        held = None if validation is None else held_rows(validation, self._booleans, self.design.rows)
        began = time.perf_counter()
        with torch_session(seed, config.threads), interruptible() as interruption:
            predictor = self._build_predictor() if self.design.neural else None
            centred = centring(self._joint)
            xs, kept = inputs(self.design), self._checkpoint(checkpoint)
            problem = Problem(centred.joint, predictor, xs, self._sampler(sampler), held, kept)
            rows: list[dict[str, object]] = []
            with progress_bar(progress) as bar:
                # States hold f and draws: none but the last is kept.
                for last in run(problem, config):
                    rows.append(history_row(centred, last))
                    bar.update(rows[-1])
                    if interruption.requested:
                        break
            fitted = self._finish(problem, centred, config, last, seed)
        if not warn_if_no_estimate(fitted) and not interruption.requested:
            warn_if_unfinished(last, config)
        warn_if_vanished(fitted)
        warn_if_cut_off(fitted)
        history = pd.DataFrame(rows)
        seconds = time.perf_counter() - began
        converged = last.converged and not fitted.separating and fitted.beyond is None
        return GLMMNetResults(self.formula, history, converged, seconds, fitted)

    def _check_reml(self, sampler: str | Sampler | None) -> None:
        """OptionError where beta cannot be integrated out exactly."""
        if not self.family.quadratic:
            raise OptionError(f"reml=True is for family='gaussian' with the identity link, not {self.family!r}.")
        if self.design.neural:
            raise OptionError(f"reml=True is for models without nn(); the formula is {self.formula!r}.")
        if sampler is not None:
            raise OptionError(f"reml=True maximises the exact likelihood; leave sampler={sampler!r} out.")
        if float(self._joint.weights.sum()) <= len(self.design.x_names):
            raise OptionError(f"reml=True needs more rows than the {len(self.design.x_names)} fixed effects.")

    def _sampler(self, sampler: str | Sampler | None) -> Sampler | None:
        if isinstance(sampler, str):
            sampler = SAMPLERS[sampler]()
        elif isinstance(sampler, type) or not (sampler is None or callable(getattr(sampler, "draw", None))):
            raise TypeError(
                f"sampler={sampler!r} must be {', '.join(map(repr, SAMPLERS))} or an object with the method draw()."
            )
        if not self._joint.terms:
            return None
        if sampler is None and not (has_exact_posterior(self._joint) or has_levels(self._joint)):
            return SAMPLERS["nuts"]()
        return sampler

    def _checkpoint(self, path: str | Path | None) -> Checkpoint | None:
        if path is None:
            return None
        own = fingerprint(self.formula, self._joint, self.design, self._nn_options, self._networks)
        return open_checkpoint(path, own)

    def _finish(self, problem: Problem, centred: Centring, config: EMConfig, last: EMState, seed: int) -> Fitted:
        """Final draws at the last state's estimates."""
        joint = problem.joint
        params, f, predictor = last.params, None, problem.predictor
        if predictor is not None:
            f = predictor.predict(problem.xs) if last.phase == "network" else last.f
        refuse_exact_fit(joint, params.phi, f)
        groups = separating_groups(joint, params)
        separating = separating_columns(joint, params, f) + groups
        params = on_boundary(joint, params)
        # Where a variance has run away no weight is left that would tell it from 0.
        if last.phase == "polish" and not joint.family.quadratic and not groups:
            params = without_crawling(joint, params, f)
        projection = None
        if f is not None and config.orthogonalize == "auto":
            params, f, projection = project(self.design, joint, params, f)
        working = floored(joint, params)
        draws = final_draws(joint, joint.fixed_eta(working, f), working, problem.sampler, config, last.step_size)
        if not bool(torch.isfinite(draws.b).all()):
            raise FitError("the final draws of the random effects are not finite.")
        return Fitted(
            design=self.design,
            design_state=self._design_state,
            joint=self._joint,
            predictor=predictor,
            params=centred.outward(params),
            inner=params,
            f=f,
            projection=projection,
            draws=replace(draws, b=centred.outward_effects(draws.b)),
            sampler=problem.sampler,
            config=config,
            seed=seed,
            separating=separating,
            beyond=beyond_response(joint, params, f, draws.b.to(torch.float64).mean(dim=2, keepdim=True)),
            nn_options=self._nn_options,
        )

    def __repr__(self) -> str:
        return f"<GLMMNet {self.formula!r}, {self.family.name}, {self.design.n} rows>"


def _refuse_effects_of_rows(joint: JointModel) -> None:
    for term in joint.terms:
        known = term.relation is not None or joint.family.tells_rows(joint.target.y)
        if term.q >= joint.n and not known:
            raise DesignError(
                f"Grouping factor `{term.group}` has {term.q} levels in {joint.n} rows: with one row a level its "
                f"effects cannot be told from the noise of family {joint.family.name!r}. Is it an identifier of the "
                "row? Counts (family='poisson', or p(k, n) with family='binomial') may have effects of rows."
            )


def history_row(centred: Centring, state: EMState) -> dict[str, object]:
    """One row of ``results.history``."""
    joint, params = centred.joint, centred.outward(state.params)
    row: dict[str, object] = {
        "iteration": state.iteration,
        "phase": state.phase,
        "deviance": state.deviance,
        "valid_deviance": state.valid_deviance,
        "change": state.change,
    }
    labels = joint.effect_labels
    for term, sigma in zip(joint.terms, params.sigma, strict=True):
        for i, *_ in term.covariance.deviations(term.r):
            name = term.covariance.deviation_name(term.names, i)
            for c, label in enumerate(labels):
                key = f"sd[{term.group}, {name}{', ' + label if label else ''}]"
                row[key] = float(sigma[c, i, i]) ** 0.5
    if joint.family.residual:
        row["sigma"] = params.phi**0.5
    elif joint.family.has_dispersion:
        row[joint.family.dispersion_name] = params.phi
    return row


def glmm(
    formula: str,
    data: pd.DataFrame,
    family: str | Family = "gaussian",
    *,
    nn: Mapping[str, Any] | None = None,
    networks: Mapping[str, nn.Module | Callable[[int, int], nn.Module]] | None = None,
    weights: str | np.ndarray | None = None,
    weight_kind: WeightKind = "frequency",
    zi: str | None = None,
    dispersion: str | None = None,
    na_action: Literal["drop", "raise"] = "drop",
    context: Mapping[str, Any] | None = None,
    contrasts: Mapping[str, Any] | None = None,
) -> GLMMNet:
    """A generalized linear mixed model, written as a formula.

    eta = offset + X beta + f(nn inputs) + sum_k z_k' b_k[group_k], b_k[level] ~ N(0, Sigma_k), y ~ family(eta).

    Parameters
    ----------
    formula : str
        ``y ~ x1 + nn(x2 + x3) + (1 + x1 | g) + (1 | h)``; see the formula language in the documentation.
    data : DataFrame
    family : str or Family
        A name, such as ``"gaussian"``, ``"bernoulli"`` or ``"poisson"`` (``list(gn.families.FAMILIES)`` has all), or an
        instance, such as ``gn.families.Categorical(reference="a")``.
    nn : mapping, optional
        Default options of the nn() blocks: layers, activation, dropout, weight_decay, embed, bins.
    networks : mapping, optional
        {name: torch.nn.Module or factory(n_inputs, n_outputs)} for blocks ``nn(x, net="name")``, or named so by
        ``name=``.
    weights : str or array, (n,), optional
        Not negative; a row of weight 0 has no part in the fit.
    weight_kind : {"frequency", "precision"}
        ``frequency``: a row of weight w stands for w rows, its log density is multiplied by w (as in glmmTMB).
        ``precision``: its dispersion is phi / w, as of a mean of w observations (`weights` of R's lm, glm and lme4);
        for families whose variance is proportional to phi. Predictions of new observations are of weight 1.
    zi : str, optional
        Formula of the zero part of a zero-inflated or hurdle family, on the logit scale: ``"~ x + (1 | g)"``. None:
        ``"~ 1"``.
    dispersion : str, optional
        Formula of the logarithm of the dispersion phi, for a family that has one: ``"~ x"``. None: phi is one number.
    na_action : {"drop", "raise"}
        What happens to rows with a missing value in a column of the formula.
    context : mapping, optional
        Functions and values that the formula's expressions may use besides columns and the documented transforms.
    contrasts : mapping, optional
        {factor of the fixed part: ``"treatment"``, ``"sum"``, ``"poly"``, ``"helmert"`` or a matrix}. A matrix has a
        row a level and one column less than levels; a DataFrame has the levels as index. Without, ordered
        factors (an ordered pandas Categorical) have polynomial contrasts, ``f[.L]``, ``f[.Q]``, ..., all others
        treatment contrasts.

    Returns
    -------
    GLMMNet

    Raises
    ------
    FormulaError
        The formula is malformed.
    DesignError
        Data and formula, or response and family, do not fit.
    TypeError
        `data` is no DataFrame; `nn`, `networks`, `context` or `contrasts` no mapping.
    OptionError
        There is no family or link of that name; `weight_kind` is none of those, or given without weights.

    Examples
    --------
    >>> import glmmnet as gn
    >>> flights = gn.datasets.load("flights").head(2000)
    >>> model = gn.glmm("arr_delay ~ distance + (1 | carrier)", data=flights)
    >>> model.fit(seed=1).vcomp["group"].tolist()
    ['carrier', 'Residual']
    """
    return GLMMNet.from_formula(
        formula,
        data,
        family,
        nn=nn,
        networks=networks,
        weights=weights,
        weight_kind=weight_kind,
        zi=zi,
        dispersion=dispersion,
        na_action=na_action,
        context=context,
        contrasts=contrasts,
    )
