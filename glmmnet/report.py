"""A fitted model as a summary table: which numbers stand where; `tables` lays them out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from glmmnet.cholesky import dense_size
from glmmnet.diagnostics import Diagnostics
from glmmnet.em.stopping import Streak
from glmmnet.estimates import RESIDUAL, correlations, dispersion, fixed_names, variance_components
from glmmnet.exact import exact_rows
from glmmnet.fitted import Fitted
from glmmnet.fixed_errors import FixedCovariance, collinear_columns
from glmmnet.likelihood import LogLikelihood
from glmmnet.scoring import can_score
from glmmnet.tables import Summary
from glmmnet.variance_errors import VarianceErrors
from glmmnet.wald import coefficient_table, z_values

TITLE = "Mixed-Effects Neural Network Results"
PLAIN_TITLE = "Generalized Linear Mixed Model Results"


@dataclass(frozen=True)
class Report:
    """The parts of a fitted model that a summary shows."""

    fitted: Fitted
    llf: LogLikelihood
    fixed_covariance: FixedCovariance
    variance_errors: VarianceErrors
    diagnostics: Diagnostics
    history: pd.DataFrame
    converged: bool
    singular: bool
    df_linear: int
    df_neural: int
    df_variance: int

    def summary(self, alpha: float) -> Summary:
        """The summary with intervals of probability 1 - alpha."""
        return Summary(
            title=TITLE if self.fitted.predictor is not None else PLAIN_TITLE,
            header=self._header(),
            fixed=self._fixed(alpha),
            neural=self._neural(),
            random=self._random(alpha),
            notes=tuple(self._notes()),
        )

    def _header(self) -> tuple[tuple[str, str], ...]:
        fitted, joint = self.fitted, self.fitted.joint
        assert fitted.design.response is not None
        se = f"{self.llf.se:.1f}" if self.llf.se >= 0.05 else f"{self.llf.se:.1g}"
        llf = f"{self.llf.value:.1f} +/- {se}" if self.llf.se > 0 else f"{self.llf.value:.3f}"
        groups = "; ".join(str(term.q) for term in joint.terms) or "none"
        return (
            ("Dep. Variable:", fitted.design.response.label),
            ("Model:", "GLMMNet"),
            ("Family:", joint.family.title),
            ("Link Function:", joint.family.link.name.capitalize()),
            ("Method:", method_name(fitted)),
            ("Covariance Type:", self.fixed_covariance.kind),
            ("No. Observations:", str(joint.nobs)),
            ("No. Groups:", groups),
            ("Df Linear:", str(self.df_linear)),
            ("Df Neural:", str(self.df_neural)),
            ("Df Variance:", str(self.df_variance)),
            ("REML Log-Lik.:" if fitted.config.reml else "Log-Likelihood:", llf),
        )

    def _fixed(self, alpha: float) -> pd.DataFrame:
        beta = self.fitted.params.beta.reshape(-1).numpy()
        se = self.fixed_covariance.beta_errors(self.fitted.joint.n_coefficients)
        return coefficient_table(beta, se, z_values(beta, se), alpha, fixed_names(self.fitted))

    def _neural(self) -> pd.DataFrame:
        columns = ["architecture", "weights", "sd_f", "var_eta"]
        fitted = self.fitted
        if fitted.predictor is None or fitted.f is None:
            return pd.DataFrame(columns=columns)
        eta = fitted.centre[:, :, 0]
        total = eta.var(dim=0).sum().clamp_min(1e-300)
        rows = []
        for block, output in zip(fitted.blocks, fitted.block_outputs(fitted.design), strict=True):
            variance = output.var(dim=0)
            share = float(variance.sum() / total)
            rows.append((block.describe(), block.n_weights, float(variance.mean().sqrt()), share))
        return pd.DataFrame(rows, columns=columns, index=[t.label for t in fitted.design.neural])

    def _random(self, alpha: float) -> pd.DataFrame:
        components = variance_components(self.fitted, self.variance_errors, alpha)
        pairs = correlations(self.fitted, self.variance_errors, alpha)
        rows = []
        ends = ["se", "ci_low", "ci_high"]
        position = 0
        for k, term in enumerate(self.fitted.joint.terms):
            size = len(term.covariance.deviations(term.r)) * self.fitted.joint.n_classes
            for _, row in components.iloc[position : position + size].iterrows():
                levels = row["n_levels"]
                rows.append(
                    ("variance", term.group, row["term"], row["class"], levels, row["variance"], row["sd"], *row[ends])
                )
            position += size
            for _, row in pairs[pairs["position"] == k].iterrows():
                name = ",".join(str(name) for name in (row["first"], row["second"]) if name)
                correlation = row["correlation"]
                rows.append(("corr", term.group, name, row["class"], pd.NA, np.nan, correlation, *row[ends]))
        for _, row in components.iloc[position:].iterrows():
            rows.append(("residual", RESIDUAL, "", "", pd.NA, row["variance"], row["sd"], *row[ends]))
        family = self.fitted.joint.family
        if family.has_dispersion and not family.residual:
            phi = dispersion(self.fitted, self.variance_errors, alpha)
            rows.append(("dispersion", "Dispersion", phi.name, "", pd.NA, np.nan, phi["estimate"], *phi[ends]))
        columns = ["kind", "group", "name", "class", "levels", "variance", "sd", "se", "ci_low", "ci_high"]
        return pd.DataFrame(rows, columns=columns)

    def _notes(self) -> list[str]:
        fitted, config = self.fitted, self.fitted.config
        draws = f"draws {fitted.draws.chains}x{fitted.draws.draws}"
        polish = self.history[self.history["phase"] == "polish"]
        notes = []
        word = "converged" if self.converged else "NOT converged"
        if not fitted.joint.terms:
            if not fitted.joint.family.quadratic:
                notes.append(f"Newton: {word}, {len(polish)}/{config.max_iter} iter")
        elif fitted.sampler is None and fitted.joint.family.quadratic:
            notes.append(f"{_gaussian_method(fitted)[1]}: {word}; independent {draws}")
        elif self.history["phase"].iloc[-1] == "newton":
            distance = float(self.history["change"].iloc[-1])
            notes.append(
                f"MCEM: {word}, {len(polish)}/{config.max_iter} iter, then Newton: distance/se {distance:.1g}; {draws}"
            )
        else:
            change = float(polish["change"].iloc[-1]) if len(polish) else float("nan")
            relation = "<" if change < config.tol else ">="
            notes.append(
                f"MCEM: {word}, {len(polish)}/{config.max_iter} iter; distance/se {change:.3f} {relation} "
                f"{config.tol:g} ({Streak.needed}x); {draws}"
            )
        if self.fitted.draws.stats:
            notes.append(self._of_draws())
        if fitted.joint.target.note:
            notes.append(f"Response: {fitted.joint.target.note}")
        if fitted.joint.divisor is not None:
            notes.append("Precision weights: the dispersion of a row is phi / weight")
        if fitted.design.n_dropped:
            notes.append(f"{fitted.design.n_dropped} of {fitted.design.n_total} rows dropped: missing values")
        if fitted.separating:
            notes.append(f"No estimate, as the response is separated by: {', '.join(fitted.separating)}")
        if fitted.beyond is not None:
            notes.append(
                "No estimate, as a fitted mean is {:.3g}, the response nearest to it {:.3g}".format(*fitted.beyond)
            )
        if fitted.vanished is not None:
            notes.append("No estimate of the part {!r}, which is 0 in every row: family={!r}".format(*fitted.vanished))
        if self.singular:
            notes.append("Singular fit: a variance is estimated as 0, or a correlation as +-1")
        if names := collinear_columns(fitted.joint):
            notes.append(f"Not identified, as they are collinear: {', '.join(names)}")
        notes += self._held_fixed()
        if self._has_weak_errors():
            notes.append("No std err (nan) where the draws carry too little information; more draws= may help")
        return notes

    def _held_fixed(self) -> list[str]:
        """What the standard errors take as known although it is estimated."""
        kind, joint = self.fixed_covariance.kind, self.fitted.joint
        notes = []
        # Errors of means and variances of a Gaussian response are independent.
        if kind.startswith("marginal") and joint.terms and not joint.family.quadratic:
            notes.append("Std err of coefficients hold the variances fixed, and those of variances the coefficients")
        if kind == "marginal, last layer":
            notes.append("Std err hold the network fixed, but for its last layer")
        elif kind == "marginal, f fixed":
            notes.append("Std err hold the network fixed")
        return notes

    def _of_draws(self) -> str:
        """Whether to trust the sampler's draws."""
        fitted, d = self.fitted, self.diagnostics
        of_chains = f"R-hat {d.r_hat:.2f}, ESS {d.ess_bulk:.0f}/{d.ess_tail:.0f}"
        if fitted.sampler is None:
            return f"Metropolis: {of_chains}, acceptance {fitted.draws.stats['acceptance_rate'].mean():.2f}"
        return (
            f"{fitted.sampler.name.upper()}: {of_chains}, divergent {d.divergences}/{d.draws}, "
            f"depth hits {d.depth_hits}, BFMI {d.bfmi:.2f}"
        )

    def _has_weak_errors(self) -> bool:
        """A variance inside its boundary has no standard error."""
        components = variance_components(self.fitted, self.variance_errors, 0.05)
        return bool((components["se"].isna() & (components["variance"] > 0)).any())


#: What maximises the likelihood of a Gaussian model, each as the header and as the notes have it.
_OF_GAUSSIAN = {
    "blocked": ("exact", "Exact Gaussian {} (blocked Cholesky)"),
    "sparse": ("exact", "Exact Gaussian {} (sparse Cholesky)"),
    "scoring": ("scoring", "Gaussian {} by Fisher scoring (random probes)"),
    "draws": ("EM", "EM with exact draws (sparse factor)"),
}


def _gaussian_method(fitted: Fitted) -> tuple[str, str]:
    """Its names for the header and the notes."""
    joint, word = fitted.joint, "REML likelihood" if fitted.config.reml else "likelihood"
    rows = exact_rows(joint)
    if rows <= fitted.config.exact_limit:
        kind = "sparse" if rows < dense_size(joint.segments) else "blocked"
    else:
        kind = "scoring" if can_score(joint) else "draws"
    header, note = _OF_GAUSSIAN[kind]
    return header, note.format(word)


def method_name(fitted: Fitted) -> str:
    """How the model was fitted, for the summary."""
    likelihood = "REML" if fitted.config.reml else "ML"
    if not fitted.joint.terms:
        return likelihood if fitted.predictor is None else "Minibatches"
    if fitted.sampler is not None:
        return f"MCEM ({fitted.sampler.name.upper()})"
    if not fitted.joint.family.quadratic:
        return "MCEM (Metropolis)"
    return "MCEM (exact draws)" if fitted.predictor is not None else f"{likelihood} ({_gaussian_method(fitted)[0]})"
