"""The joint density of response and random effects, log p(y | b) + log p(b), written once for everything above.

Shapes: b is (Q, C, S), the rows ordered term by term, level by level, column by column (Q = sum of q * r), for S draws
at once; eta is (n, C, S); X beta + offset + f is the fixed part, (n, C, 1).

Either every column has a coefficient of its own in each of the C linear predictors (categorical), or one coefficient
that enters the predictors by fixed loadings: thresholds and minus what they share (cumulative), the part of the model
that the column belongs to (zero-inflated), its class (correlated classes). With loadings beta is (p, 1), b (Q, 1, S).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from glmmnet.cholesky import Segment
from glmmnet.crossings import Crossings, as_csr
from glmmnet.design import Design
from glmmnet.errors import DesignError
from glmmnet.families import Family, Target
from glmmnet.fixed_part import FixedColumns, fixed_columns
from glmmnet.random_terms import TermData, term_data
from glmmnet.typing import Dispersion, WeightKind

#: More classes than these are taken one by one in curvatures: the rest of a row's information is of the order 1 / C.
MANY_CLASSES = 16
#: Rows x classes of a piece that stays in the cache.
_ENTRIES_A_PART = 200_000
#: A step closes the gap between two thresholds by at most this share.
_CLOSER_BY = 0.8
#: Share of its own that every variance gains before Sigma is inverted.
_RIDGE = 1e-9
#: Newton steps of the dispersion beside precision weights, and a step of log phi that ends them.
_DISPERSION_STEPS, _SMALL_STEP = 50, 1e-8
_EVERY_ROW = slice(None)


@dataclass(frozen=True)
class Parameters:
    """What EM estimates besides the network.

    Attributes
    ----------
    beta : Tensor, (p, C)
        (p, 1) where the columns of X have loadings.
    sigma : tuple of Tensor, each (C, r, r)
        Covariance of each random term's columns; (1, r, r) where they have loadings.
    phi : float
        Dispersion; 1 for families that have none.
    """

    beta: Tensor
    sigma: tuple[Tensor, ...]
    phi: float

    def blend(self, new: Parameters, gain: float, of_sigma: Sequence[Tensor] | None = None) -> Parameters:
        """The stochastic-approximation average: self + gain (new - self).

        Gains `of_sigma`, (C,) for each term, go before.
        """
        gains = [torch.tensor(gain)] * len(self.sigma) if of_sigma is None else [g[:, None, None] for g in of_sigma]
        sigma = zip(self.sigma, new.sigma, gains, strict=True)
        return Parameters(
            torch.lerp(self.beta, new.beta, gain),
            tuple(old + own * (fresh - old) for old, fresh, own in sigma),
            self.phi + gain * (new.phi - self.phi),
        )


@dataclass(frozen=True)
class JointModel:
    """Family, data and random terms; the parameters and f are given to each call.

    Attributes
    ----------
    family : Family
    target : Target
        The response as the family reads it.
    X : Tensor, (n, p) float64
    x_names : tuple of str
    offset : Tensor, (n, C, 1)
        Sum of the offset() terms.
    weights : Tensor, (n,)
        Each row's log density is multiplied by its weight (1 unless given as frequencies; 0 or 1 beside `divisor`).
    terms : tuple of TermData
    divisor : Tensor, (n, 1), or None
        Precision weights: each row's dispersion is phi / divisor.
    x_loading : Tensor, (p, C), or None
        Of the columns of X, see :class:`FixedColumns`.
    f_loading : Tensor, (C,), or None
        What a unit of the network's one output adds to each linear predictor; None: an output for each.
    """

    family: Family
    target: Target
    X: Tensor
    x_names: tuple[str, ...]
    offset: Tensor
    weights: Tensor
    terms: tuple[TermData, ...]
    divisor: Tensor | None = None
    x_loading: Tensor | None = None
    f_loading: Tensor | None = None

    @classmethod
    def from_design(cls, design: Design, family: Family, weight_kind: WeightKind = "frequency") -> JointModel:
        """Tensors of a training design; the family reads the response, `weight_kind` says what its weights mean."""
        if design.response is None:
            raise ValueError("the design has no response")
        target = family.encode(design.response)
        columns, names, x_loading = fixed_columns(design, target)
        f_loading = target.loading("")
        terms, start = [], 0
        for t in design.random:
            terms.append(term_data(t, target, start))
            start += terms[-1].q * terms[-1].r
        weights = np.ones(design.n) if design.weights is None else design.weights
        if family.of_trials:
            # Without trials there is nothing observed.
            weights = weights * (target.y[:, 1, 0].numpy() > 0)
        divisor = None
        if weight_kind == "precision":
            check_precision_weights(family)
            # A row of weight 0 has no dispersion, and counts for nothing.
            divisor = torch.as_tensor(np.where(weights > 0, weights, 1.0), dtype=torch.float64)[:, None]
            weights = (weights > 0).astype(float)
        offset = torch.as_tensor(design.offset, dtype=torch.float64)[:, None, None]
        every = offset.expand(-1, len(target.predictors), 1)
        return cls(
            family,
            target,
            columns,
            names,
            every if f_loading is None else offset * f_loading[:, None],
            torch.as_tensor(weights, dtype=torch.float64),
            tuple(terms),
            divisor=divisor,
            x_loading=x_loading,
            f_loading=f_loading,
        )

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.weights)

    @property
    def nobs(self) -> int:
        """Rows that count: those of positive weight."""
        return int((self.weights > 0).sum())

    @property
    def n_predictors(self) -> int:
        """C, linear predictors a row."""
        return len(self.target.predictors)

    @property
    def n_classes(self) -> int:
        """Copies of the random effects: C, or 1 where they have loadings."""
        return 1 if self.target.loadings or self.target.correlated else self.n_predictors

    @property
    def effect_labels(self) -> tuple[str, ...]:
        """Names of the copies of the random effects; one empty string where there is one."""
        return ("",) if self.target.loadings or self.target.correlated else self.target.predictors

    @property
    def coefficient_labels(self) -> tuple[str, ...]:
        """Names of a column's coefficients; one empty string where there is one."""
        return self.target.predictors if self.x_loading is None else ("",)

    @property
    def n_outputs(self) -> int:
        """Outputs of the network: C, or 1 with a loading."""
        return self.n_predictors if self.f_loading is None else 1

    @cached_property
    def columns(self) -> FixedColumns:
        """X with its loadings."""
        return FixedColumns(self.X, self.x_loading)

    @property
    def n_coefficients(self) -> int:
        """Coefficients a column of X: C, or 1 where the columns have loadings."""
        return self.columns.classes(self.n_predictors)

    @cached_property
    def constant(self) -> Tensor | None:
        """Change of each coefficient (p,) that adds 1 to f in every row; None without an intercept."""
        if self.target.thresholds:
            return torch.tensor([-1.0 if name in self.target.thresholds else 0.0 for name in self.x_names]).double()
        if "Intercept" not in self.x_names:
            return None
        return torch.tensor([float(name == "Intercept") for name in self.x_names], dtype=torch.float64)

    @property
    def intercepts(self) -> tuple[str, ...]:
        """Names of the columns of X that are intercepts."""
        own = {"Intercept", *(f"{part}:Intercept" for part in self.target.loadings), *self.target.thresholds}
        return tuple(name for name in self.x_names if name in own)

    @property
    def only_intercepts(self) -> bool:
        """X has no other columns."""
        return self.intercepts == self.x_names

    def starting_beta(self, eta: Tensor) -> Tensor:
        """Coefficients (p, K) that make every row's linear predictors eta (C,), as far as intercepts can."""
        beta = torch.zeros(len(self.x_names), self.n_coefficients, dtype=torch.float64)
        where = [self.x_names.index(name) for name in self.intercepts]
        if self.x_loading is not None and where:
            beta[where] = torch.linalg.lstsq(self.x_loading[where].T, eta[:, None], driver="gelsd").solution
        elif where:
            beta[where] = eta
        elif self.x_names and self.x_loading is None:
            # Indicators of all levels of a factor add up to an intercept.
            beta = torch.linalg.lstsq(self.X, eta.expand(self.n, -1), driver="gelsd").solution
        return beta

    def admissible_step(self, beta: Tensor, step: Tensor) -> float:
        """Share of a step of beta, at most 1, that keeps increasing thresholds increasing."""
        k = len(self.target.thresholds)
        if k < 2:
            return 1.0
        gaps, change = beta[1:k, 0] - beta[: k - 1, 0], step[1:k, 0] - step[: k - 1, 0]
        closing = change < 0
        return min(1.0, _CLOSER_BY * float((gaps / -change)[closing].min())) if bool(closing.any()) else 1.0

    @property
    def n_effects(self) -> int:
        """Q, rows of b."""
        return sum(t.q * t.r for t in self.terms)

    @cached_property
    def eta_unit(self) -> float:
        """Size of a step of eta that means something, see :meth:`Family.eta_unit`."""
        return self.family.eta_unit(self.target.y, self.weights)

    @cached_property
    def eta_units(self) -> Tensor:
        """That size for each linear predictor, (C,): 1 for those of further parts, which are logs and odds."""
        own = self.target.loading("")
        units = torch.full((self.n_predictors,), self.eta_unit, dtype=torch.float64)
        return units if own is None else torch.where(own != 0, units, 1.0)

    @cached_property
    def weighted(self) -> bool:
        """Whether any row's weight differs from 1."""
        return bool(torch.any(self.weights != 1.0))

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The blocks of each term in a (Q C, Q C) precision: one a level, or one of all levels that are related."""
        own = zip(self.terms, self._levels, strict=True)
        return tuple(s if t.relation is None else Segment(s.start, 1, s.size) for t, s in own)

    @property
    def _levels(self) -> tuple[Segment, ...]:
        """Where each term's levels lie in a (Q C, Q C) matrix."""
        c = self.n_classes
        return tuple(Segment(t.start * c, t.q, t.r * c) for t in self.terms)

    @cached_property
    def related(self) -> bool:
        """Whether the levels of some term have a known correlation."""
        return any(t.relation is not None for t in self.terms)

    def subset(self, rows: Tensor) -> JointModel:
        """The same model on some of the rows (m,); every level stays."""
        picked = rows.numpy()
        terms = tuple(t.on(t.index.numpy()[picked], t.columns().numpy()[picked]) for t in self.terms)
        return replace(
            self,
            target=replace(self.target, y=self.target.y[rows]),
            X=self.X[rows],
            offset=self.offset[rows],
            weights=self.weights[rows],
            divisor=None if self.divisor is None else self.divisor[rows],
            terms=terms,
        )

    @cached_property
    def single(self) -> JointModel:
        """The same model in single precision, for the sampler's many calls; sums over rows stay in double.

        Only for families whose eta is of order 1 (`Family.single_precision`).
        """
        return replace(
            self,
            target=replace(self.target, y=self.target.y.to(torch.float32)),
            weights=self.weights.to(torch.float32),
            divisor=None if self.divisor is None else self.divisor.to(torch.float32),
            terms=tuple(term.single() for term in self.terms),
        )

    @cached_property
    def parts(self) -> tuple[tuple[Tensor, JointModel], ...]:
        """Rows and the model on them, piece by piece, as the sampler's many calls go through them.

        In single precision where the family allows it. Pieces of many classes stay in the processor's cache: in one
        piece 100 classes took 2.6 times as long. Few classes are one piece.
        """
        every = torch.arange(self.n)
        many = self.n_classes > MANY_CLASSES
        pieces = every.split(max(_ENTRIES_A_PART // self.n_classes, 1)) if many else (every,)
        single = self.family.single_precision
        own = [self.subset(rows) if len(pieces) > 1 else self for rows in pieces]
        return tuple((rows, part.single if single else part) for rows, part in zip(pieces, own, strict=True))

    def columns_of(self, design: Design) -> FixedColumns:
        """X of any design's rows with its loadings."""
        return FixedColumns(fixed_columns(design, self.target)[0], self.x_loading)

    def fixed_eta(self, params: Parameters, f: Tensor | None = None) -> Tensor:
        """Offset + X beta + f, (n, C, 1), for network output f (n, C), (n, 1) with a loading."""
        return self.offset + self.sum_of_fixed(self.columns, params.beta, f)

    def loaded(self, f: Tensor) -> Tensor:
        """What the network's output f (n, outputs) adds to each linear predictor, (n, C)."""
        return f if self.f_loading is None else f * self.f_loading.to(f.dtype)

    def sum_of_fixed(self, columns: FixedColumns, beta: Tensor, f: Tensor | None) -> Tensor:
        """X beta + f of any rows, (n, C, 1)."""
        fixed = columns.values @ beta if columns.loading is None else columns.eta(beta[:, :, None])[:, :, 0]
        return (fixed if f is None else fixed + self.loaded(f))[:, :, None]

    def random_eta(self, b: Tensor) -> Tensor:
        """Z b, (n, C, S)."""
        if not self.terms:
            return torch.zeros(self.n, self.n_predictors, b.shape[2], dtype=b.dtype)
        if self._is_stacked:
            return _product(self._stacked, b)
        total = self.terms[0].eta(b)
        for term in self.terms[1:]:
            total = total + term.eta(b)
        return total

    def random_transpose(self, values: Tensor) -> Tensor:
        """Z' values, (Q, C, S)."""
        if not self.terms:
            return torch.zeros(0, self.n_classes, values.shape[2], dtype=values.dtype)
        if self._is_stacked:
            return _product(self._stacked_transpose, values)
        parts = [term.transpose(values) for term in self.terms]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    @property
    def _is_stacked(self) -> bool:
        """Whether Z is one sparse matrix: with several columns a product with it takes half of the terms' own time."""
        return sum(t.r for t in self.terms) > 1 and all(t.loading is None for t in self.terms)

    @cached_property
    def _stacked(self) -> Tensor:
        return as_csr(self.z_matrix, self.weights.dtype)

    @cached_property
    def _stacked_transpose(self) -> Tensor:
        return as_csr(self.z_matrix.T.tocsr(), self.weights.dtype)

    @property
    def row_weights(self) -> Tensor:
        """Weight of each row's squared residual, (n,): frequency or precision."""
        return self.weights if self.divisor is None else self.weights * self.divisor[:, 0]

    def row_phi(self, phi: float, rows: slice | Tensor = _EVERY_ROW) -> Dispersion:
        """The dispersion of each row, (n, 1); phi itself unless there are precision weights."""
        return phi if self.divisor is None else phi / self.divisor[rows]

    def start(self) -> tuple[Tensor, float]:
        """Starting eta of an intercept-only model (C,), and phi."""
        eta, phi = self.family.start(self.target.y, self.row_weights)
        return eta, phi if self.divisor is None else phi * float(self.row_weights.sum() / self.weights.sum())

    def dispersion(self, eta: Tensor, phi: float) -> float:
        """Dispersion that maximises the expected log density over the draws in `eta`, searched from `phi`."""
        if self.divisor is None:
            return self.family.dispersion(eta, self.target.y, self.weights)
        for _ in range(_DISPERSION_STEPS):
            score, information, _ = self.dispersion_derivatives(eta, phi)
            slope = float(score.sum())
            # Where log p bends upwards in log phi, uphill all the same.
            step = slope / max(abs(float(information.sum())), 1e-300)
            phi *= math.exp(min(max(step, -2.0), 2.0))
            if abs(step) < _SMALL_STEP:
                break
        return phi

    def log_prob(self, eta: Tensor, phi: float) -> Tensor:
        """Log p(y | eta) of each row, (n, S)."""
        return self.weights[:, None] * self.family.log_prob(eta, self.target.y, self.row_phi(phi))

    def log_likelihood(self, eta: Tensor, phi: float) -> Tensor:
        """Sum over rows of log p(y | eta), one number a draw: (S,)."""
        return self.log_prob(eta, phi).sum(dim=0)

    def log_likelihood_and_score(self, eta: Tensor, phi: float) -> tuple[Tensor, Tensor]:
        """Log likelihood up to terms free of eta, (S,), and its derivative with respect to eta, (n, C, S)."""
        log_p, score = self.family.log_prob_and_score(eta, self.target.y, self.row_phi(phi))
        if self.weighted:
            log_p, score = self.weights[:, None] * log_p, self.weights[:, None, None] * score
        return log_p.sum(dim=0, dtype=torch.float64), score

    def weight(self, eta: Tensor, phi: float) -> Tensor:
        """Information of each row about eta, (n, C, C, S)."""
        weight = self.family.weight(eta, self.target.y, self.row_phi(phi))
        return self.weights[:, None, None, None] * weight if self.weighted else weight

    def weight_diagonal(self, eta: Tensor, phi: float) -> Tensor:
        """Information of each row about each class's own eta, (n, C, S)."""
        weight = self.family.weight_diagonal(eta, self.target.y, self.row_phi(phi))
        return self.weights[:, None, None] * weight if self.weighted else weight

    def curvature(self, eta: Tensor, phi: float) -> Tensor:
        """Minus each row's observed second derivative of log p in eta, (n, C, C, S)."""
        curvature = self.family.curvature(eta, self.target.y, self.row_phi(phi))
        return self.weights[:, None, None, None] * curvature if self.weighted else curvature

    def dispersion_derivatives(self, eta: Tensor, phi: float) -> tuple[Tensor, Tensor, Tensor]:
        """Each row's derivatives in log phi, see :meth:`glmmnet.families.Family.dispersion_derivatives`."""
        score, information, cross = self.family.dispersion_derivatives(eta, self.target.y, self.row_phi(phi))
        if self.weighted:
            weights = self.weights[:, None]
            return weights * score, weights * information, weights[:, None] * cross
        return score, information, cross

    def precisions(self, params: Parameters) -> tuple[Tensor, ...]:
        """Inverse of each term's Sigma, (C, r, r), a hair away from singular."""
        return tuple(_inverse(away_from_singular(sigma)) for sigma in params.sigma)

    def prior(self, b: Tensor, precisions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Kernel of log p(b), -b'P b / 2 of each draw (S,), and P b (Q, C, S)."""
        parts = []
        for term, precision in zip(self.terms, precisions, strict=True):
            own = term.decorrelated(b[term.rows].reshape(term.q, term.r, *b.shape[1:]))
            if term.r == 1:
                parts.append((own * precision[:, 0, 0][:, None]).reshape(-1, *b.shape[1:]))
            else:
                parts.append(torch.einsum("cij,qjcs->qics", precision, own).reshape(-1, *b.shape[1:]))
        pulled = torch.cat(parts)
        return -0.5 * torch.einsum("qcs,qcs->s", b, pulled), pulled

    def prior_diagonal(self, precisions: Sequence[Tensor]) -> Tensor | None:
        """The prior precision (Q, C) where it is diagonal because every term has one column; None otherwise."""
        if self.related or any(term.r > 1 for term in self.terms):
            return None
        return torch.cat([p[:, 0, 0].expand(t.q, -1) for t, p in zip(self.terms, precisions, strict=True)])

    def prior_log_normalizer(self, params: Parameters) -> float:
        """Log of the constant that makes exp(kernel) the prior density of b."""
        total = 0.0
        for term, sigma in zip(self.terms, params.sigma, strict=True):
            logdet = torch.linalg.slogdet(2 * torch.pi * away_from_singular(sigma))[1]
            total -= 0.5 * term.q * float(logdet.sum())
            if term.relation is not None:
                total -= 0.5 * term.r * self.n_classes * term.relation.logdet
        return total

    @cached_property
    def z_matrix(self) -> sp.csr_matrix:
        """Z (n, Q) as a sparse matrix, for the blocked Cholesky."""
        values = np.hstack([t.columns().numpy() for t in self.terms])
        where = np.hstack([t.start + t.index.numpy()[:, None] * t.r + np.arange(t.r) for t in self.terms])
        pointer = np.arange(0, where.size + 1, where.shape[1])
        return sp.csr_matrix((values.ravel(), where.ravel(), pointer), shape=(self.n, self.n_effects))

    @cached_property
    def crossings(self) -> Crossings:
        """Where Z'WZ has its entries."""
        return Crossings([t.index.numpy() for t in self.terms], self._levels)

    def information(self, weight: Tensor) -> sp.csr_matrix:
        """Z'WZ (Q C, Q C) for a weight (n, C, C), rows of b with their classes innermost; with loadings (Q, Q)."""

        def products(k: int, i: int, other: int) -> Tensor:
            row, column = self.terms[k], self.terms[other]
            if row.loading is not None and column.loading is not None:
                own = torch.einsum("c,ncd,jd->nj", row.loading[i], weight, column.loading)
                return column.scaled(own if row.z is None else own * row.z[:, i, None])
            j, c = divmod(i, self.n_classes)
            own = weight[:, c] if row.z is None else weight[:, c] * row.z[:, j, None]
            return own if column.z is None else (column.z[:, :, None] * own[:, None]).flatten(1)

        return self.crossings.matrix(products)

    def pattern(self) -> sp.csr_matrix:
        """A matrix with the nonzeros of the posterior precision of b, (Q C, Q C), whatever the parameters are."""
        ones = torch.ones(self.n, self.n_predictors, self.n_predictors, dtype=torch.float64)
        information = self.information(ones)
        if not self.related:
            return information
        blocks = [torch.ones(self.n_classes, term.r, term.r, dtype=torch.float64) for term in self.terms]
        return (abs(information) + abs(self.over_levels(blocks))).tocsr()

    def precision_matrix(self, params: Parameters) -> sp.csr_matrix:
        """The prior precision of b, (Q C, Q C), sparse."""
        return self.over_levels(self.precisions(params))

    def over_levels(self, matrices: Sequence[Tensor]) -> sp.csr_matrix:
        """Sparse (Q C, Q C): each term's matrix (C, r, r) for all its levels, times A^-1 if they are related."""
        blocks = []
        for term, matrix in zip(self.terms, matrices, strict=True):
            small = np.zeros((term.r, self.n_classes, term.r, self.n_classes))
            for c in range(self.n_classes):
                small[:, c, :, c] = matrix[c].numpy()
            size = term.r * self.n_classes
            levels = sp.eye(term.q) if term.relation is None else term.relation.precision
            blocks.append(sp.kron(levels, small.reshape(size, size)))
        return sp.block_diag(blocks, format="csr")


def check_precision_weights(family: Family) -> None:
    """DesignError unless the variance of the response is proportional to phi."""
    if family.proportional:
        return
    raise DesignError(
        "weight_kind='precision' divides each row's dispersion by its weight, but the variance of family "
        f"{family.name!r} is not proportional to one. Counts out of trials are written p(successes, trials) ~ ...; a "
        "row that stands for several takes weight_kind='frequency'."
    )


def _product(matrix: Tensor, values: Tensor) -> Tensor:
    """A sparse matrix (m, k) times values (k, C, S), (m, C, S)."""
    flat = values.flatten(1)
    # A vector is quicker than a column, rows in memory much quicker than columns.
    flat = flat[:, 0] if flat.shape[1] == 1 else flat.contiguous()
    return (matrix @ flat).reshape(matrix.shape[0], *values.shape[1:])


def _inverse(sigma: Tensor) -> Tensor:
    """Inverse of covariances (C, r, r): by Cholesky, as the one by LU of a nearly singular matrix is not definite."""
    return 1.0 / sigma if sigma.shape[-1] == 1 else torch.cholesky_inverse(torch.linalg.cholesky(sigma))


def away_from_singular(sigma: Tensor) -> Tensor:
    """`sigma` (C, r, r) with a hair more of its own diagonal, so that it has an inverse, in whatever units."""
    own = torch.diagonal(sigma, dim1=-2, dim2=-1)
    # A variance of exactly 0 has no scale of its own.
    return sigma + _RIDGE * torch.diag_embed(torch.where(own > 0, own, _RIDGE))
