"""What a fit returns: a frozen record that computes the rest when first asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import numpy as np
import pandas as pd
import torch

from glmmnet import contrasts, estimates, explained, residuals, storage, wald
from glmmnet.contributions import contributions
from glmmnet.design import Design
from glmmnet.diagnostics import Diagnostics, diagnose
from glmmnet.errors import DesignError, OptionError, check_alpha, check_seed
from glmmnet.families import Family
from glmmnet.fitted import Fitted
from glmmnet.fixed_errors import FixedCovariance, fixed_covariance
from glmmnet.inference_data import to_arviz
from glmmnet.information import observed_information
from glmmnet.intervals import PredictionResults, predict_with_error
from glmmnet.likelihood import LogLikelihood, log_likelihood
from glmmnet.plots import PlotAccessor
from glmmnet.posterior import arviz_groups
from glmmnet.prediction import Request, as_frame, on_data, predict, simulate
from glmmnet.report import Report
from glmmnet.tables import Summary
from glmmnet.threads import thread_limit, torch_session
from glmmnet.variance import is_singular, variance_parameters
from glmmnet.variance_errors import VarianceErrors, variance_errors

#: Offset of the seed for each thing that is computed after the fit, so that the order of asking changes nothing.
_LIKELIHOOD_SEED = 101


P = ParamSpec("P")
T = TypeVar("T")


def _on_threads_of_fit(
    compute: Callable[Concatenate[GLMMNetResults, P], T],
) -> Callable[Concatenate[GLMMNetResults, P], T]:
    """The method `compute`, with as many torch threads as the fit had."""

    @wraps(compute)
    def limited(self: GLMMNetResults, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with thread_limit(self.fitted.config.threads):
            return compute(self, *args, **kwargs)

    return limited


@dataclass(frozen=True)
class GLMMNetResults:
    """A fitted model. Made by :meth:`glmmnet.GLMMNet.fit`.

    Attributes
    ----------
    formula : str
    history : DataFrame
        One row an EM iteration: iteration, phase ("network", "polish" or "newton"), deviance, valid_deviance, change
        (in standard errors), ``sd[group, term]`` of every variance component, ``sigma`` where the family has a
        residual, else its dispersion by name.
    converged : bool
        The stopping rule was met.
    seconds : float
        Wall time of the fit.
    fitted : Fitted
        Estimates, draws and designs; the methods below read it.
    """

    formula: str
    history: pd.DataFrame
    converged: bool
    seconds: float
    fitted: Fitted

    # -- estimates -------------------------------------------------------------------------------------------------

    @property
    def family(self) -> Family:
        """The response distribution."""
        return self.fitted.joint.family

    @property
    def seed(self) -> int:
        """Seed of the fit; the same seed, data and versions give the same numbers."""
        return self.fitted.seed

    @property
    def nobs(self) -> int:
        """Rows used; those of weight 0 do not count."""
        return self.fitted.joint.nobs

    @property
    def n_dropped(self) -> int:
        """Rows left out because of a missing value."""
        return self.fitted.design.n_dropped

    @property
    def params(self) -> pd.Series | pd.DataFrame:
        """Linear fixed effects by design column; categorical: DataFrame term x class."""
        return estimates.fixed_table(self.fitted, self.fitted.params.beta.numpy(), "coef")

    @property
    def intercepts(self) -> tuple[str, ...]:
        """Rows of `params` that are intercepts: ``Intercept``, thresholds, those of other parts (``zi:Intercept``)."""
        return self.fitted.joint.intercepts

    @property
    def bse(self) -> pd.Series | pd.DataFrame:
        """Standard errors of `params`."""
        return estimates.fixed_table(self.fitted, self._se(), "std err")

    @property
    def tvalues(self) -> pd.Series | pd.DataFrame:
        """`params` over `bse`."""
        return estimates.fixed_table(self.fitted, self._z(), "z")

    @property
    def pvalues(self) -> pd.Series | pd.DataFrame:
        """Two-sided p-values of `tvalues` from the normal distribution."""
        return estimates.fixed_table(self.fitted, wald.p_values(self._z()), "P>|z|")

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Intervals of `params`: columns 0 and 1; categorical: rows (term, class)."""
        beta, se = self.fitted.params.beta.numpy().reshape(-1), self._se().reshape(-1)
        labels = self.fitted.joint.coefficient_labels
        index = pd.Index(self.fitted.joint.x_names)
        if labels != ("",):
            index = pd.MultiIndex.from_product([index, labels], names=["term", "class"])
        return pd.DataFrame(wald.interval(beta, se, check_alpha(alpha)), index=index, columns=[0, 1])

    def cov_params(self) -> pd.DataFrame:
        """Covariance of the linear fixed effects; categorical: ``x[b]`` for class b."""
        names = estimates.fixed_names(self.fitted)
        matrix = self._fixed_covariance.beta(self.fitted.joint.n_coefficients).numpy()
        return pd.DataFrame(matrix, index=names, columns=names)

    def _se(self) -> np.ndarray:
        n_coefficients = self.fitted.joint.n_coefficients
        return self._fixed_covariance.beta_errors(n_coefficients).reshape(-1, n_coefficients)

    def _z(self) -> np.ndarray:
        return wald.z_values(self.fitted.params.beta.numpy(), self._se())

    @property
    def vcomp(self) -> pd.DataFrame:
        """Variance components, one row a variance: group, term, class, variance, sd, se, ci_low, ci_high, n_levels.

        `se` is that of `sd`, the 95 % interval is for `sd`: on the log scale, of random effects whose `se` is more than
        half of `sd` near that of the profile likelihood (docs/method.md), cut at 0. The last row is ``Residual`` where
        the family has one; other dispersions are in `dispersion`. A variance of 0 has no interval (NaN).
        """
        return estimates.variance_components(self.fitted, self._variance_errors, 0.05)

    @property
    def cov_re(self) -> dict[str, pd.DataFrame]:
        """Sigma of each grouping factor."""
        return estimates.covariance_matrices(self.fitted)

    @cached_property
    @_on_threads_of_fit
    def random_effects(self) -> dict[str, pd.DataFrame]:
        """Posterior means of the random effects: {group: levels x terms}."""
        return estimates.random_effects(self.fitted, "mean")

    @cached_property
    @_on_threads_of_fit
    def random_effects_sd(self) -> dict[str, pd.DataFrame]:
        """Posterior standard deviations of the random effects: {group: levels x terms}."""
        return estimates.random_effects(self.fitted, "sd")

    @_on_threads_of_fit
    def ranef(self, as_frame: bool = False, relatives: bool = False) -> dict[str, pd.DataFrame] | pd.DataFrame:
        """`random_effects`, or as one long frame: grpvar, term, grp, condval, condsd.

        Parameters
        ----------
        as_frame : bool
        relatives : bool
            Instead of the levels in the data, those that the matrix of ``gr(g, cov=A)`` has beyond them, such as
            animals without records: their effects as predicted from their relatives'.
        """
        means = estimates.relatives_effects(self.fitted, "mean") if relatives else self.random_effects
        if not as_frame:
            return means
        sds = estimates.relatives_effects(self.fitted, "sd") if relatives else self.random_effects_sd
        return estimates.ranef_frame(means, sds)

    @property
    def scale(self) -> float:
        """Dispersion phi: the residual variance of a Gaussian model; 1 where the family has none."""
        return self.fitted.params.phi

    @property
    def dispersion(self) -> pd.Series:
        """`scale` with its standard error and 95 % interval: estimate, se, ci_low, ci_high; named as the family does.

        The interval is on the log scale. NaN where the family has no dispersion.
        """
        return estimates.dispersion(self.fitted, self._variance_errors, 0.05)

    @property
    def reml(self) -> bool:
        """Fitted by restricted maximum likelihood."""
        return self.fitted.config.reml

    @property
    def singular(self) -> bool:
        """A variance is estimated as 0, or a correlation as +-1."""
        # Correlations of columns far from 0 are near +-1 whatever the data are.
        matrices = [matrix for sigma in self.fitted.centred.params.sigma for matrix in sigma]
        return any(not bool(m.diagonal().all()) or is_singular(m) for m in matrices)

    # -- likelihood ------------------------------------------------------------------------------------------------

    @cached_property
    def _log_likelihood(self) -> LogLikelihood:
        return self._loglike("reml" if self.reml else None)

    def _loglike(self, method: str | None) -> LogLikelihood:
        f = self.fitted.centred
        with torch_session(f.seed + _LIKELIHOOD_SEED, f.config.threads):
            return log_likelihood(f.joint, f.working, f.f, sampler=f.sampler, method=method)

    def loglike(self, method: str | None = None) -> float:
        """Marginal log-likelihood at the estimates.

        Parameters
        ----------
        method : {"exact", "reml", "agq", "thermodynamic", "importance", "laplace"}, optional
            None: the one of `llf`.

        Raises
        ------
        OptionError
            There is no such method, or it does not apply to this model.
        """
        return self.llf if method is None else self._loglike(method).value

    @property
    def llf(self) -> float:
        """Marginal log-likelihood, the random effects integrated out (f held fixed); of a REML fit, beta as well."""
        return self._log_likelihood.value

    @property
    def llf_se(self) -> float:
        """Monte Carlo standard error of `llf`; 0 where it is computed without draws."""
        return self._log_likelihood.se

    @property
    def llf_method(self) -> str:
        """How `llf` was computed: exact, reml, agq, thermodynamic, importance or laplace."""
        return self._log_likelihood.method

    @property
    def df_linear(self) -> int:
        """Linear fixed effects; of a symmetric categorical model one class less."""
        joint = self.fitted.joint
        classes = joint.n_coefficients - (1 if joint.family.class_means and joint.family.symmetric else 0)
        return len(joint.x_names) * classes

    @property
    def df_neural(self) -> int:
        """Weights of the network."""
        return sum(block.n_weights for block in self.fitted.blocks)

    @property
    def df_variance(self) -> int:
        """Variance parameters, the dispersion among them."""
        return len(variance_parameters(self.fitted.joint))

    @property
    def df_model(self) -> int:
        """All estimated numbers: linear, neural (every weight in full) and variance parameters."""
        return self.df_linear + self.df_neural + self.df_variance

    @property
    def aic(self) -> float:
        """Akaike's criterion -2 llf + 2 df_model."""
        return -2 * self.llf + 2 * self.df_model

    @property
    def bic(self) -> float:
        """Schwarz' criterion -2 llf + log(n) df_model.

        n is the sum of frequency weights, so that a row of weight 2 counts as two rows do; with precision weights, and
        without weights, it is `nobs`.
        """
        return float(-2 * self.llf + np.log(float(self.fitted.joint.weights.sum())) * self.df_model)

    # -- tests -----------------------------------------------------------------------------------------------------

    def t_test(self, r_matrix: contrasts.Hypothesis) -> contrasts.ContrastResults:
        """Z tests of linear combinations of the fixed effects.

        Parameters
        ----------
        r_matrix : str, list of str, array (m, p C) or (R, q)
            ``"x1 - x2 = 0"``, several separated by commas or in a list, the matrix R, or that and the values q (m,).

        Raises
        ------
        FormulaError
            The text is no linear constraint of the coefficients.
        OptionError
            The matrix does not fit the coefficients.
        """
        return contrasts.t_test(*self._hypothesis(r_matrix))

    def wald_test(self, r_matrix: contrasts.Hypothesis) -> contrasts.WaldResult:
        """Joint chi-squared test of the rows of R beta = q; see :meth:`t_test`."""
        return contrasts.wald_test(*self._hypothesis(r_matrix))

    def _hypothesis(self, r_matrix: contrasts.Hypothesis) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        r, q = contrasts.hypothesis(r_matrix, estimates.fixed_names(self.fitted))
        return self.fitted.params.beta.reshape(-1).numpy(), self.cov_params().to_numpy(), r, q

    def compare_lr_test(self, restricted: GLMMNetResults) -> contrasts.LRTResult:
        """Likelihood-ratio test of this model against a smaller one that it contains, on the same rows.

        Whether it does is checked: response, family with link and options, weights and offsets are the same, columns of
        the fixed part and random terms of the smaller model are those of this one or special cases. Behind nn() no more
        than the names of the variables is looked at. Where variances are tested at 0 the result says so (`boundary`).

        Raises
        ------
        TypeError
            `restricted` is no fitted model.
        OptionError
            This model does not contain it.
        """
        if not isinstance(restricted, GLMMNetResults):
            raise TypeError(f"compare_lr_test needs the smaller model's results, not a {type(restricted).__name__}.")
        contrasts.check_nested(self.fitted, restricted.fitted, self.df_model, restricted.df_model)
        se = float(np.hypot(self.llf_se, restricted.llf_se))
        boundary = contrasts.tests_a_variance(self.fitted, restricted.fitted)
        return contrasts.lr_test(self.llf, self.df_model, restricted.llf, restricted.df_model, se, boundary)

    @_on_threads_of_fit
    def r2(self) -> pd.Series:
        """Marginal and conditional R2 of Nakagawa, Johnson and Schielzeth (2017).

        The variance that the fixed part explains (linear effects and nn() blocks, no offsets), or fixed and random part
        together, over the whole variance; all on the scale of the linear predictor. With random slopes the variance of
        z'b is averaged over the rows (Johnson 2014). Of an observation given b it is phi (``gaussian``, ``lognormal``),
        that of a latent response (pi^2 / 3, 1, pi^2 / 6 for logit, probit and cloglog of ``bernoulli``, ``binomial``
        and ``cumulative``), with a log link the log-normal approximation ln(1 + V / mu^2), otherwise by the delta
        method; mu is the mean response. Effects of single rows count as part of it.

        Returns
        -------
        Series
            ``marginal`` and ``conditional``.

        Raises
        ------
        FitError
            The family has no such variance: classes without order, zero-inflated and hurdle families.

        Examples
        --------
        >>> import glmmnet as gn
        >>> flights = gn.datasets.load("flights").head(2000)
        >>> results = gn.glmm("arr_delay ~ distance + (1 | carrier)", data=flights).fit(seed=1)
        >>> bool(results.r2()["marginal"] <= results.r2()["conditional"])
        True
        """
        return explained.r2(explained.shares(self.fitted))

    @_on_threads_of_fit
    def icc(self) -> pd.DataFrame:
        """Intraclass correlations: the share of each grouping factor, and of all of them, in the variance.

        ``adjusted``: in what the fixed part leaves; ``unadjusted``: in the whole. Variances as in :meth:`r2`.

        Returns
        -------
        DataFrame
            Columns adjusted, unadjusted; a row a grouping factor, the last one ``Total``.

        Raises
        ------
        FitError
            As in :meth:`r2`.
        """
        return explained.icc(explained.shares(self.fitted))

    # -- predictions -----------------------------------------------------------------------------------------------

    def _design(self, data: pd.DataFrame, request: Request) -> Design:
        """Columns of new data; grouping columns are needed where a level's effect or its absence counts."""
        levels = request.level == "conditional" or request.new_levels == "error"
        return self.fitted.design_state.rebuild(data, random=request.level != "population", levels=levels)

    def _rows(self, data: pd.DataFrame | None, request: Request) -> tuple[Design, pd.Index]:
        if data is None:
            return self.fitted.design, self.fitted.design.index
        return self._design(data, request), data.index

    @_on_threads_of_fit
    def predict(
        self,
        data: pd.DataFrame | None = None,
        level: str = "conditional",
        kind: str = "mean",
        new_levels: str | None = None,
    ) -> pd.Series | pd.DataFrame:
        """Predict the response.

        Parameters
        ----------
        data : DataFrame, optional
            New rows; None: the training rows. Rows with a missing value get NaN.
        level : {"conditional", "population", "marginal"}
            Averaged over the posterior draws of b; at b = 0; with b integrated over its prior. The last two need no
            grouping columns, but for levels with a known correlation.
        kind : {"mean", "link", "class"}
            Mean of the response (a probability for binary ones), the linear predictor, or the most probable class.
        new_levels : {"population", "marginal", "error"}, optional
            What ``conditional`` does with unseen levels: effect 0, effect integrated out, or an error. None: integrated
            out where the response has several classes, else effect 0. Levels that the matrix of ``gr(g, cov=A)`` has
            are not unseen: their effects follow from those of the levels in the data.

        Returns
        -------
        Series or DataFrame
            On the index of the data; categorical: n x class labels.

        Raises
        ------
        OptionError
            There is no such `level`, `kind` or `new_levels`; ``kind="class"`` of a response without classes.
        DesignError
            A missing column, a changed kind, an unseen level of a fixed or nn() categorical; with
            ``new_levels="error"`` one of a grouping factor.
        """
        request = Request(level, kind, new_levels)
        design, index = self._rows(data, request)
        return on_data(predict(self.fitted, design, request), design, index)

    @_on_threads_of_fit
    def get_prediction(
        self, data: pd.DataFrame | None = None, level: str = "conditional", new_levels: str | None = None
    ) -> PredictionResults:
        """Predictions of the mean with standard errors and intervals, see ``.summary_frame(alpha)``.

        The errors are those of the fixed part and, at ``level="conditional"``, of b. Sigma and the dispersion are held
        at their estimates: at ``level="marginal"`` the mean depends on Sigma where the link is not linear, and its
        ``mean_se`` is too small.

        A new observation of ``p(k, n)`` is the proportion of successes among its row's trials: those of the training
        rows, or of `data` where they have the columns of n; one trial where they lack them.

        Parameters
        ----------
        data, level, new_levels
            As in :meth:`predict`.

        Returns
        -------
        PredictionResults

        Raises
        ------
        OptionError, DesignError
            As in :meth:`predict`.
        """
        request = Request(level, "mean", new_levels)
        design, index = self._rows(data, request)
        return predict_with_error(
            self.fitted, self._fixed_covariance, design, index, request, self._trials(data, design)
        )

    def _trials(self, data: pd.DataFrame | None, design: Design) -> np.ndarray | None:
        """Trials of each row of a design made of `data`; None where the response has none."""
        y = self.fitted.joint.target.y
        if not self.fitted.design_state.response.trial_expressions:
            return None
        return y[:, 1, 0].numpy() if data is None else self.fitted.design_state.trials(data, design.rows)

    @_on_threads_of_fit
    def explain(self, row: pd.DataFrame | int) -> pd.DataFrame:
        """What each part of the model adds to the linear predictor of one row.

        Parameters
        ----------
        row : DataFrame of one row, or int
            New data, or a position among the training rows; from the end where it is negative.

        Returns
        -------
        DataFrame
            A row a part, in the order of the formula: `part` (``offset``, ``fixed``, ``nn``, ``random``), `group` (the
            grouping factor), `term` (column or block), `level` (``(unseen)`` where training has not seen it), `class`
            (where there are several linear predictors), `value` of the column in the row, `effect` (coefficient or
            posterior mean), `contribution` (their product) and its posterior `sd` (random parts). The contributions
            add up to ``predict(kind="link")``.

        Raises
        ------
        TypeError
            `row` is neither, such as a Series.
        OptionError
            The frame has another number of rows.
        DesignError
            The row has a missing value, or does not fit the formula.
        IndexError
            There is no training row at that position.

        Examples
        --------
        >>> import glmmnet as gn
        >>> flights = gn.datasets.load("flights").head(2000)
        >>> results = gn.glmm("arr_delay ~ distance + (1 | carrier)", data=flights).fit(seed=1)
        >>> results.explain(0)["term"].tolist()
        ['Intercept', 'distance', '(Intercept)']
        """
        if isinstance(row, bool) or not isinstance(row, pd.DataFrame | int | np.integer):
            raise TypeError(f"row is a {type(row).__name__}; give a position or a frame of one row, data.iloc[[0]].")
        if not isinstance(row, pd.DataFrame):
            return contributions(self.fitted, self.fitted.design, int(row), self.random_effects_sd)
        if len(row) != 1:
            raise OptionError(f"row has {len(row)} rows; give a DataFrame of one row, e.g. data.iloc[[0]].")
        design = self._design(row, Request())
        if not design.n:
            raise DesignError("the row has a missing value in a column of the formula.")
        return contributions(self.fitted, design, 0, self.random_effects_sd)

    @cached_property
    def fittedvalues(self) -> pd.Series | pd.DataFrame:
        """Conditional means of the training rows."""
        return self.predict()

    @_on_threads_of_fit
    def simulate(self, n: int = 1, seed: int | None = None, level: str = "marginal") -> pd.DataFrame:
        """Responses of the training rows simulated from the fitted model, (rows, n).

        Of the response's own kind, so that the model can be fitted to them: class labels where it has classes.

        Parameters
        ----------
        n : int
            Replicates.
        seed : int, optional
            None: the seed of the fit.
        level : {"marginal", "conditional", "population"}
            b drawn from its prior anew for each replicate, from its posterior draws, or 0.

        Raises
        ------
        TypeError
            `seed` is no whole number.
        OptionError
            `seed` is negative or too large; `n` is no whole number of 1 or more; there is no such `level`.
        """
        return simulate(self.fitted, n, self.seed if seed is None else check_seed(seed), level)

    # -- residuals -------------------------------------------------------------------------------------------------

    @_on_threads_of_fit
    def _residuals(self, kind: Any) -> pd.Series | pd.DataFrame:
        fitted_mean = torch.tensor(np.asarray(self.fittedvalues, dtype=float)).reshape(self.fitted.joint.n, -1)
        values = kind(self.fitted, fitted_mean)
        labels = self.fitted.joint.target.labels if values.shape[1] > 1 else ()
        return as_frame(self.fitted, self.fitted.design, values, labels)

    @property
    def resid_response(self) -> pd.Series | pd.DataFrame:
        """Observed minus fitted conditional mean; categorical: a column a class."""
        return self._residuals(residuals.response_residuals)

    @property
    def resid_pearson(self) -> pd.Series | pd.DataFrame:
        """Response residuals over the standard deviation of the response given b."""
        return self._residuals(residuals.pearson_residuals)

    @property
    def resid_deviance(self) -> pd.Series:
        """Signed roots of the rows' deviances; of classes, ordered too, the roots alone."""
        return cast(pd.Series, self._residuals(residuals.deviance_residuals))

    @cached_property
    @_on_threads_of_fit
    def resid_quantile(self) -> pd.Series:
        """Randomized quantile residuals: independent standard normal numbers if the model is right.

        The normal quantile of P(Y <= y), for a discrete response of a number between P(Y < y) and P(Y <= y) at random.
        Given the random effects, as `resid_pearson`, but given a draw of them from their posterior, as sdmTMB's
        ``mle-mvn``: at their posterior means residuals would vary too little, the more the fewer rows a level has.
        (DHARMa draws new effects by default, so that its residuals of one level are alike.) From the fit's seed, the
        same each time.

        Raises
        ------
        FitError
            The family has no order (``categorical``).

        Examples
        --------
        >>> import glmmnet as gn
        >>> flights = gn.datasets.load("flights").head(2000)
        >>> results = gn.glmm("arr_delay ~ distance + (1 | carrier)", data=flights).fit(seed=1)
        >>> bool(abs(results.resid_quantile.std() - 1) < 0.05)
        True
        """
        values = residuals.quantile_residuals(self.fitted)
        return cast(pd.Series, as_frame(self.fitted, self.fitted.design, values, ()))

    # -- diagnostics and display -----------------------------------------------------------------------------------

    @cached_property
    @_on_threads_of_fit
    def diagnostics(self) -> Diagnostics:
        """R-hat, effective sample sizes, divergences, tree depth and BFMI of the final draws."""
        return diagnose(self.fitted)

    @cached_property
    @_on_threads_of_fit
    def _observed(self) -> torch.Tensor | None:
        return observed_information(self.fitted)

    @cached_property
    @_on_threads_of_fit
    def _fixed_covariance(self) -> FixedCovariance:
        return fixed_covariance(self.fitted, self._observed)

    @cached_property
    @_on_threads_of_fit
    def _variance_errors(self) -> VarianceErrors:
        return variance_errors(self.fitted, self._observed)

    @_on_threads_of_fit
    def summary(self, alpha: float = 0.05) -> Summary:
        """Summary table: prints in 80 columns, HTML in a notebook, ``as_latex()``, ``as_markdown()``."""
        alpha = check_alpha(alpha)
        report = Report(
            self.fitted,
            self._log_likelihood,
            self._fixed_covariance,
            self._variance_errors,
            self.diagnostics,
            self.history,
            self.converged,
            self.singular,
            self.df_linear,
            self.df_neural,
            self.df_variance,
        )
        return report.summary(alpha)

    @_on_threads_of_fit
    def to_arviz(self, *, log_likelihood: bool = True, posterior_predictive: bool = True) -> Any:
        """The final draws for ArviZ: InferenceData (ArviZ 0.x) or DataTree (1.x).

        Groups posterior (``1|g``, ``x|g``), sample_stats, log_likelihood, observed_data, posterior_predictive and
        constant_data (point estimates). The row-wise groups hold chains x draws x rows numbers each; leave them out
        for large data.
        """
        wanted = {"log_likelihood": log_likelihood, "posterior_predictive": posterior_predictive}
        groups, coords, dims = arviz_groups(self.fitted, tuple(name for name, yes in wanted.items() if yes))
        return to_arviz(groups, coords, dims, {"formula": self.formula, "seed": self.seed})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file, training rows and draws among it; :func:`glmmnet.load` reads it.

        The file is JSON and safetensors, never pickle. Objects of ``glmm(context=)`` and modules of ``networks=`` are
        not in it (the latter's weights are): give them to `load` again.

        Raises
        ------
        FitError
            The family or the sampler is an object of your own.
        DesignError
            A level or a row label is of a type that cannot be stored.
        OSError
            There is no such folder, the path is a folder, or the disk refuses.
        """
        storage.write(path, storage.Stored(self.formula, self.history, self.converged, self.seconds, self.fitted))

    def __reduce__(self) -> tuple[Callable[..., GLMMNetResults], tuple[bytes, dict[str, Any]]]:
        """Pickled, for other processes, as the file of :meth:`save` beside the objects of ``glmm(context=)``."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.glmmnet"
            self.save(path)
            return _from_bytes, (path.read_bytes(), self.fitted.design_state.context)

    def __deepcopy__(self, memo: object) -> GLMMNetResults:
        # Frozen: a copy would be the same.
        return self

    @property
    def plot(self) -> PlotAccessor:
        """Plots: ``results.plot.history()``, ``caterpillar``, ``random_effects``, ``residuals``, ``forest``."""
        return PlotAccessor(self)

    def __repr__(self) -> str:
        state = "converged" if self.converged else "not converged"
        return f"<GLMMNetResults {self.formula!r}, {self.family.name}, {self.nobs} rows, {state}>"


def load(
    path: str | os.PathLike[str],
    *,
    context: Mapping[str, Any] | None = None,
    networks: Mapping[str, Any] | None = None,
) -> GLMMNetResults:
    """The results that :meth:`GLMMNetResults.save` wrote.

    Reading a file runs no code: it holds JSON and arrays, and its formula is checked as any other.

    Parameters
    ----------
    path : path
    context : mapping, optional
        The objects that the formula uses besides columns and transforms, as for the fit.
    networks : mapping, optional
        The modules or factories of ``glmm(networks=)``; they get the saved weights.

    Raises
    ------
    FitError
        The file is no saved model, damaged or one of another version, earlier or later, or its weights do not fit
        `networks`.
    FileNotFoundError
        There is no such file.
    DesignError, FormulaError
        An object of the context is missing; the formula is not allowed.
    TypeError
        `context` or `networks` is no mapping.

    Examples
    --------
    >>> import tempfile, pathlib, glmmnet as gn
    >>> flights = gn.datasets.load("flights").head(2000)
    >>> results = gn.glmm("arr_delay ~ distance + (1 | carrier)", data=flights).fit(seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results.save(pathlib.Path(folder) / "model.glmmnet")
    ...     again = gn.load(pathlib.Path(folder) / "model.glmmnet")
    >>> bool((again.predict() == results.predict()).all())
    True
    """
    stored = storage.read(path, context, networks)
    return GLMMNetResults(stored.formula, stored.history, stored.converged, stored.seconds, stored.fitted)


def _from_bytes(content: bytes, context: Mapping[str, Any]) -> GLMMNetResults:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.glmmnet"
        path.write_bytes(content)
        return load(path, context=context)
