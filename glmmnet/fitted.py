"""Everything a fitted model is made of: what the floor above reads to predict, to tabulate, to test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from glmmnet.centring import Centring, centring
from glmmnet.design import Design, DesignState
from glmmnet.em.boundary import floored
from glmmnet.em.config import EMConfig
from glmmnet.em.final import FinalDraws
from glmmnet.joint import JointModel, Parameters
from glmmnet.networks import NeuralBlock, NeuralPredictor
from glmmnet.projection import Projection
from glmmnet.typing import Sampler

#: Draws that tell whether a row is cut off by its link, and standard deviations of its linear predictor that say so.
_EDGE_DRAWS, _NEAR_EDGE = 100, 2.0


@dataclass(frozen=True)
class Fitted:
    """A fitted model.

    Attributes
    ----------
    design : Design
        Training rows.
    design_state : DesignState
        Rebuilds the same columns for new data.
    joint : JointModel
        The model on the training rows.
    predictor : NeuralPredictor or None
    params : Parameters
        Estimates; variances on the boundary are exactly 0.
    inner : Parameters
        The same in the model in which it was estimated, see :mod:`glmmnet.centring`; of columns far from 0 `params`
        have lost them by rounding.
    f : Tensor or None, (n, C)
        Network output on the training rows, less what `projection` gave to beta.
    projection : Projection or None
    draws : FinalDraws
    sampler : Sampler or None
        None: exact draws of a Gaussian posterior, else level by level.
    config : EMConfig
    seed : int
    separating : tuple of str
        Columns and grouping factors that separate the response, so that their estimates are infinite.
    beyond : tuple of float, or None
        A fitted mean far beyond every response, and the response nearest to it; None where there is none.
    nn_options : mapping
        Default options that the nn() blocks were built with.
    """

    design: Design
    design_state: DesignState
    joint: JointModel
    predictor: NeuralPredictor | None
    params: Parameters
    inner: Parameters
    f: Tensor | None
    projection: Projection | None
    draws: FinalDraws
    sampler: Sampler | None
    config: EMConfig
    seed: int
    separating: tuple[str, ...] = ()
    beyond: tuple[float, float] | None = None
    nn_options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def centring(self) -> Centring:
        """The model in which this one was estimated."""
        return centring(self.joint)

    @cached_property
    def centred(self) -> Fitted:
        """The same fit in that model, where likelihood and errors are computed."""
        if not self.centring.changes:
            return self
        draws = replace(self.draws, b=self.centring.inward_effects(self.draws.b))
        return replace(self, joint=self.centring.joint, params=self.inner, draws=draws)

    @cached_property
    def working(self) -> Parameters:
        """`params` with variances of 0 a hair above it, for what needs an inverse."""
        return floored(self.joint, self.params)

    @property
    def fixed(self) -> Tensor:
        """Offset + X beta + f on the training rows, (n, C, 1)."""
        return self.joint.fixed_eta(self.params, self.f)

    @property
    def mean_b(self) -> Tensor:
        """Posterior mean of b, (Q, C, 1): that of the draws."""
        return self.draws.b.to(torch.float64).mean(dim=2, keepdim=True)

    @property
    def centre(self) -> Tensor:
        """Linear predictors of the training rows at the posterior mean of b, (n, C, 1)."""
        return self.fixed + self.joint.random_eta(self.mean_b)

    @property
    def cut_off(self) -> int:
        """Rows in which only the link's end keeps the linear predictor from going on, see :meth:`Family.at_edge`."""
        edge = self.joint.family.at_edge(self.joint.target.y)
        if edge is None or not self.joint.terms:
            return 0
        eta = (self.fixed + self.joint.random_eta(self.thinned(_EDGE_DRAWS)))[edge, 0]
        return int((eta.mean(dim=1) - self.joint.family.link.least_eta < _NEAR_EDGE * eta.std(dim=1)).sum())

    @property
    def vanished(self) -> tuple[str, str] | None:
        """A part of the model that is estimated as 0, and the family without it; see :meth:`Family.vanished`."""
        return self.joint.family.vanished(self.centre, self.joint.weights)

    def network_output(self, design: Design) -> Tensor | None:
        """Network output f for any design's rows, (n, C), less what belongs to beta; None without a network."""
        if self.predictor is None:
            return None
        f = self.predictor.predict(inputs(design))
        if self.projection is not None:
            f = f - self.joint.columns_of(design).values[:, self.projection.columns] @ self.projection.gamma
        return f

    @property
    def blocks(self) -> list[NeuralBlock]:
        """The nn() blocks; empty without a network."""
        return [] if self.predictor is None else cast(list[NeuralBlock], list(self.predictor.blocks))

    def block_outputs(self, design: Design) -> list[Tensor]:
        """Output of each nn() block on any design's rows, (n, outputs) in units of eta, its mean not taken out."""
        if self.predictor is None:
            return []
        self.predictor.eval()
        with torch.no_grad():
            pairs = zip(self.blocks, inputs(design), strict=True)
            return [(block(x) * self.predictor.scale).to(torch.float64) for block, x in pairs]

    def block_shares(self, design: Design) -> list[Tensor]:
        """What each nn() block adds to f on any design's rows, (n, outputs), less its own share of what beta has."""
        trained, own = self.block_outputs(self.design), self.block_outputs(design)
        if self.projection is not None:
            columns = self.projection.columns
            x, new = self.joint.X[:, columns], self.joint.columns_of(design).values[:, columns]
            # The projection of the sum is the sum of the blocks' projections.
            return [
                f - new @ torch.linalg.lstsq(x, t, driver="gelsd").solution for f, t in zip(own, trained, strict=True)
            ]
        if self.joint.constant is None:
            return own
        return [f - t.mean(dim=0) for f, t in zip(own, trained, strict=True)]

    def last_layer(self, design: Design) -> Tensor | None:
        """Columns that f is linear in, (n, h) in units of eta; None without a network or if a block does not tell."""
        if self.predictor is None:
            return None
        self.predictor.eval()
        with torch.no_grad():
            parts = [b.features(x) for b, x in zip(self.blocks, inputs(design), strict=True)]
        if any(part is None for part in parts):
            return None
        return torch.cat([p for p in parts if p is not None], dim=1).to(torch.float64) * float(self.predictor.scale)

    def thinned(self, most: int) -> Tensor:
        """At most `most` of the draws of b, evenly spaced over the chains: (Q, C, S) float64."""
        total = self.draws.b.shape[2]
        keep = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(int))
        return self.draws.b[:, :, torch.as_tensor(keep)].to(torch.float64)

    def term_draws(self, position: int) -> Tensor:
        """Draws of one random term's effects: (q, r, C, S) float32."""
        term = self.joint.terms[position]
        return self.draws.b[term.rows].reshape(term.q, term.r, self.joint.n_classes, -1)


def inputs(design: Design) -> list[Tensor]:
    """Inputs of the nn() blocks as tensors."""
    return [torch.tensor(np.asarray(block.x, dtype=np.float32)) for block in design.neural]
