"""What every family answers: the density of y given eta, its derivatives, the mean, the dispersion, simulation.

Shapes here: eta (n, C, S) for S draws at once; the encoded response y (n, m, 1), so that it broadcasts over draws.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glmmnet.errors import DesignError, FitError, OptionError
from glmmnet.links import Link
from glmmnet.typing import Dispersion, Response


@dataclass(frozen=True)
class Target:
    """The response as the family reads it.

    Attributes
    ----------
    y : Tensor, (n, m, 1) float64
        m = 1, but 2 for counts (successes, trials) and C for a one-hot class.
    labels : tuple
        Class labels in the order of the mean's columns; empty unless categorical or two-level text.
    predictors : tuple of str
        Names of the C linear predictors; ``("",)`` when there is one.
    loadings : mapping of str to tuple of float
        What a unit of a column adds to each linear predictor, by the part of the model it belongs to (``""``: the
        main formula). Empty: every column has a coefficient of its own for each predictor.
    thresholds : tuple of str
        Names of the intercepts, one of its own for each predictor, where they are increasing thresholds.
    correlated : bool
        The random effects of the classes are correlated.
    note : str
        What the user should know of the reading, e.g. which level is the success.
    """

    y: Tensor
    labels: tuple[Any, ...] = ()
    predictors: tuple[str, ...] = ("",)
    note: str = ""
    loadings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    thresholds: tuple[str, ...] = ()
    correlated: bool = False

    def loading(self, part: str) -> Tensor | None:
        """What a column of one part adds to each linear predictor, (C,); None where each has its own coefficient."""
        return torch.tensor(self.loadings[part], dtype=torch.float64) if self.loadings else None


@dataclass(frozen=True)
class Tails:
    """Where a response stands in its distribution; each probability with all its digits.

    Attributes
    ----------
    below : Tensor, (n, S)
        P(Y < y).
    at : Tensor, (n, S)
        P(Y = y); 0 where the distribution is continuous.
    above : Tensor, (n, S)
        P(Y > y).
    """

    below: Tensor
    at: Tensor
    above: Tensor

    @classmethod
    def of(cls, below: Any, above: Any, at: Tensor | None = None) -> Tails:
        """From arrays or tensors; without `at` the distribution is continuous."""
        below, above = torch.as_tensor(below), torch.as_tensor(above)
        return cls(below, torch.zeros_like(below) if at is None else at, above)


class Family(ABC):
    """A response distribution p(y | eta, phi).

    Attributes
    ----------
    name : str
    links : tuple of Link
        The links that a user may choose from, the default first.
    link : Link
        The one chosen.
    has_dispersion : bool
        Whether phi is estimated; else it is 1.
    dispersion_name : str
        What phi is called in tables.
    residual : bool
        phi is a variance on the scale of eta, so that variances of random effects may be held against it.
    linear_mean : bool
        The mean of the response is eta itself.
    proportional : bool
        The variance of the response is proportional to phi, which precision weights therefore divide.
    canonical : bool
        The observed second derivative of log p in eta is the expected one, :meth:`weight`.
    quadratic : bool
        log p is quadratic in eta, so that the posterior of b is exactly Gaussian.
    class_means : bool
        The mean is a probability a class, (n, classes), instead of one number a row.
    single_precision : bool
        eta is of order 1 whatever the data, so that rows may be evaluated in single precision.
    formulas : tuple of str
        Further parts of the model that have a formula of their own: ``zi``, ``dispersion``.
    of_trials : bool
        The response is successes out of trials.
    symmetric : bool
        Adding a constant to every linear predictor changes nothing; the fixed effects of the classes sum to zero.
    """

    name: str
    links: tuple[Link, ...] = ()
    link: Link
    has_dispersion = False
    dispersion_name = "phi"
    residual = False
    linear_mean = False
    proportional = False
    canonical = False
    quadratic = False
    class_means = False
    single_precision = False
    formulas: tuple[str, ...] = ()
    of_trials = False
    symmetric = False

    def __init__(self, link: str | None = None) -> None:
        names = [known.name for known in self.links]
        if link is not None and link not in names:
            raise OptionError(f"family {self.name!r} has no link {link!r}; write {' or '.join(map(repr, names))}.")
        self.link = self.links[0 if link is None else names.index(link)]

    @property
    def title(self) -> str:
        """The name as printed."""
        return type(self).__name__

    @abstractmethod
    def encode(self, response: Response) -> Target:
        """Read the response; DesignError names the offending values and the families that would fit."""

    @abstractmethod
    def encode_new(self, response: Response, target: Target) -> Tensor:
        """Read the response of new rows as `target` was read: (n, m, 1)."""

    @abstractmethod
    def log_prob(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Log p(y | eta, phi) with every constant, (n, S)."""

    @abstractmethod
    def log_prob_and_score(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor]:
        """Log p up to terms free of eta (n, S), and its derivative with respect to eta (n, C, S)."""

    @abstractmethod
    def weight(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Minus the expected second derivative of log p with respect to eta: (n, C, C, S)."""

    def weight_diagonal(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """The diagonal of :meth:`weight`, (n, C, S); for many classes without the rest."""
        return torch.diagonal(self.weight(eta, y, phi), dim1=1, dim2=2).movedim(-1, 1)

    def curvature(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Minus the observed second derivative of log p with respect to eta: (n, C, C, S); may be negative."""
        if self.canonical:
            return self.weight(eta, y, phi)
        with torch.enable_grad():
            at = eta.detach().requires_grad_()
            _, score = self.log_prob_and_score(at, y, phi)
            classes = eta.shape[1]
            # Rows and draws do not mix: the gradient of the sum holds every row's own derivative.
            rows = [torch.autograd.grad(score[:, c].sum(), at, retain_graph=c + 1 < classes)[0] for c in range(classes)]
        return -torch.stack(rows, dim=1)

    def dispersion_derivatives(self, eta: Tensor, y: Tensor, phi: Dispersion) -> tuple[Tensor, Tensor, Tensor]:
        """Derivatives of log p with respect to log phi, 0 where the family has no dispersion.

        Returns
        -------
        score : Tensor, (n, S)
        information : Tensor, (n, S)
            Minus the observed second derivative.
        cross : Tensor, (n, C, S)
            Minus the derivative of the score with respect to eta.
        """
        n, _, draws = eta.shape
        if not self.has_dispersion:
            nothing = torch.zeros(n, draws, dtype=eta.dtype)
            return nothing, nothing, torch.zeros_like(eta)
        with torch.enable_grad():
            at = eta.detach().requires_grad_()
            log_phi = torch.log(torch.as_tensor(phi, dtype=eta.dtype)).expand(n, draws).clone().requires_grad_()
            log_p = self.log_prob(at, y, torch.exp(log_phi))
            (score,) = torch.autograd.grad(log_p.sum(), log_phi, create_graph=True)
            second, cross = torch.autograd.grad(score.sum(), (log_phi, at), materialize_grads=True)
        return score.detach(), -second, -cross

    @abstractmethod
    def start(self, y: Tensor, weights: Tensor) -> tuple[Tensor, float]:
        """Starting eta of an intercept-only model (C,), and phi."""

    def linear_predictors(self, eta: Tensor, intercepts: Tensor) -> Tensor:
        """All linear predictors (n, C, S), for simulations.

        Parameters
        ----------
        eta : Tensor, (n, K, S)
            What fixed and random effects add up to; K = 1 unless each class has its own.
        intercepts : Tensor, (k,)
            Thresholds, or the predictors of further parts.

        Raises
        ------
        OptionError
            The family has another number of either.
        """
        self.check_predictors(eta, intercepts, len(self.formulas), f"one for each of {', '.join(self.formulas)}")
        return torch.cat([eta, intercepts[None, :, None].expand(len(eta), -1, eta.shape[2])], dim=1)

    def check_predictors(self, eta: Tensor, intercepts: Tensor, count: int, what: str) -> None:
        """OptionError unless there are one eta and `count` intercepts, which the message explains."""
        if eta.shape[1] != 1:
            raise OptionError(f"family {self.name!r} has one eta a row, not {eta.shape[1]}; only classes have several.")
        if len(intercepts) != count:
            wanted = f"needs intercepts=, {what}" if count else "has no intercepts= beside f"
            raise OptionError(f"family {self.name!r} {wanted}; {len(intercepts)} are given.")

    @abstractmethod
    def simulate(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Draw a response for each row and draw, (n, S); categorical: class numbers. `y` gives trials of counts."""

    def as_simulated(self, y: Tensor) -> Tensor:
        """The encoded response as :meth:`simulate` draws it, (n,)."""
        return y[:, 0, 0]

    @abstractmethod
    def observed(self, y: Tensor) -> Tensor:
        """The response on the scale of the mean: (n,), or (n, classes) when `class_means`."""

    @abstractmethod
    def variance_at(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Variance of the response given b on the scale of `observed`, shaped as `mean`.

        `mean` may be an average over draws of b and eta (n, C, 1) that at their centre: take all of it from one.
        """

    @abstractmethod
    def deviance_at(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Deviance of each row against the saturated model, (n,), for `mean` as `observed` is shaped, at eta (n, C, 1).

        Where phi only scales the log density it is left out, as in R; else `phi` is that of both models.
        """

    def tails(self, eta: Tensor, y: Tensor, phi: Dispersion) -> Tails:
        """Probabilities of less than the response, of itself and of more, for quantile residuals.

        Raises
        ------
        FitError
            The family has no distribution function.
        """
        raise FitError(f"family {self.name!r} has no distribution function (tails), so it has no quantile residuals.")

    def observation_variance(self, mean: Tensor, eta: Tensor, y: Tensor, phi: Dispersion) -> Tensor:
        """Variance of an observation given b on the scale of the first linear predictor, (n,), for R2 and the ICC.

        For a `mean` (n,) of the response, at eta (n, C, 1).

        Raises
        ------
        FitError
            There is none, as with several linear predictors that all depend on the data.

        References
        ----------
        Nakagawa, Johnson, Schielzeth (2017), J. R. Soc. Interface 14, 20170213, table 1.
        """
        raise FitError(
            f"family {self.name!r} has no observation-level variance on the scale of its linear predictor, so it has "
            "no R2 and no intraclass correlation."
        )

    def tells_rows(self, y: Tensor) -> bool:
        """Whether effects of single rows can be told from the family's own noise, as with counts (overdispersion)."""
        return False

    def at_edge(self, y: Tensor) -> Tensor | None:
        """Rows (n,) that are likely up to the very end of what the link allows; None where no row can be."""
        return None

    def unbounded(self, y: Tensor) -> Tensor | None:
        """Rows A (n, K, C): log p never falls on the way from any eta along d exactly where A d >= 0.

        None where the likelihood falls along every direction, so that estimates cannot run away.
        """
        return None

    def vanished(self, eta: Tensor, weights: Tensor) -> tuple[str, str] | None:
        """A part of the model that is 0 in every row at these linear predictors (n, C, 1), and the family without it.

        None where there is none.
        """
        return None

    def mean(self, eta: Tensor, phi: Dispersion) -> Tensor:
        """Mean of the response: (n, 1, S), or (n, classes, S) when `class_means`."""
        return self.link.inverse(eta)

    def dispersion(self, eta: Tensor, y: Tensor, weights: Tensor) -> float:
        """Dispersion that maximises the expected log density over the draws in `eta`; 1 where there is none."""
        return 1.0

    def eta_unit(self, y: Tensor, weights: Tensor) -> float:
        """Size of a step of eta that means something: 1 for logs and odds, else the response's spread seen from eta."""
        if self.link.unit_free:
            return 1.0
        observed, share = self.observed(y), weights / weights.sum()
        mean = (share @ observed).requires_grad_()
        (slope,) = torch.autograd.grad(self.link.link(mean), mean)
        return float(slope.abs() * (share @ (observed - mean.detach()).square()).sqrt())

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that make the same family again."""
        names = inspect.signature(type(self)).parameters
        return {name: self.link.name if name == "link" else getattr(self, name) for name in names}

    def disagree(self, response: Response, found: str, instead: str) -> DesignError:
        """The error for a response that this family cannot read."""
        return DesignError(f"Response `{response.label}` {found}; family {self.name!r} cannot read it: {instead}.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(link={self.link.name!r})"


def exact_fit(what: str) -> FitError:
    """The error for a model without residuals; `what` names what has become 0."""
    return FitError(
        f"the model reproduces the response exactly: its {what} is 0, and the likelihood has no maximum. Leave out "
        "the column that the response was computed from."
    )


def a_row(phi: Dispersion) -> Dispersion:
    """Phi shaped so that it broadcasts against one number a row, (n,)."""
    return phi[:, 0] if isinstance(phi, Tensor) and phi.dim() == 2 else phi


def beside_eta(phi: Dispersion) -> Dispersion:
    """Phi shaped so that it broadcasts against eta (n, C, S)."""
    return phi[:, None] if isinstance(phi, Tensor) and phi.dim() == 2 else phi


def as_numbers(response: Response) -> Tensor:
    """The response's values, or codes of its levels, as a float64 tensor of their own."""
    return torch.tensor(np.asarray(response.values, dtype=np.float64))


def two_levels_as_numbers(values: Tensor) -> bool:
    """Whether all values are 0 or 1."""
    return bool(torch.all((values == 0) | (values == 1)))
