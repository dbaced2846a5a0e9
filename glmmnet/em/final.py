"""Final draws of b at the estimates: several chains, with the statistics that tell whether to trust them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glmmnet.em.config import EMConfig
from glmmnet.em.coordinates import CoordinateSystem
from glmmnet.em.e_step import WhitenedPosterior
from glmmnet.em.levels import LevelPosterior
from glmmnet.gaussian import gaussian_posterior
from glmmnet.joint import JointModel, Parameters
from glmmnet.typing import Sampler, SamplerState


@dataclass(frozen=True)
class FinalDraws:
    """Posterior draws of b.

    Attributes
    ----------
    b : Tensor of float32, (Q, C, chains * draws)
        Chain by chain; float64 where the columns of a term were centred.
    chains, draws : int
    stats : dict of str to ndarray, each (chains, draws)
        The sampler's statistics; empty for exact draws.
    max_tree_depth : int or None
        The sampler's limit of doublings, where it has one.
    """

    b: Tensor
    chains: int
    draws: int
    stats: dict[str, np.ndarray]
    max_tree_depth: int | None


def final_draws(
    joint: JointModel,
    fixed: Tensor,
    params: Parameters,
    sampler: Sampler | None,
    config: EMConfig,
    step_size: float | None = None,
) -> FinalDraws:
    """Draw b given the estimates; each chain starts at its own point of the Laplace approximation.

    Parameters
    ----------
    fixed : Tensor, (n, C, 1)
        The part of eta that is free of b.
    sampler : Sampler or None
        None: independent exact draws from a Gaussian posterior, else draws level by level.
    step_size : float, optional
        What EM has found; None: tuned by the first chain's warmup.
    """
    chains, draws = config.chains, config.draws
    if not joint.terms:
        empty = torch.zeros(0, joint.n_classes, chains * draws, dtype=torch.float32)
        return FinalDraws(empty, chains, draws, {}, None)
    if sampler is None and joint.family.quadratic:
        posterior = gaussian_posterior(joint, fixed, params)
        half = (joint.n_effects * joint.n_classes, (draws + 1) // 2)
        each = [posterior.balanced(torch.randn(half, dtype=torch.float64))[:, :, :draws] for _ in range(chains)]
        parts = [b.to(torch.float32) for b in each]
        return FinalDraws(torch.cat(parts, dim=2), chains, draws, {}, None)
    point = CoordinateSystem(joint).at(fixed, params, None)
    if sampler is None:
        levels = LevelPosterior(joint, fixed, params, point.whitening, chains)
        drawn = levels.draw(levels.start(), draws, config.warmup)
        by_chain = torch.stack([b.to(torch.float32) for b in drawn.b], dim=3)
        statistics = {"acceptance_rate": drawn.acceptance.T.numpy(), "lp": drawn.lp.T.numpy()}
        return FinalDraws(by_chain.flatten(2), chains, draws, statistics, None)
    target = WhitenedPosterior(joint, fixed, params, point.whitening, 1)
    kept, stats = [], []
    for _ in range(chains):
        state = SamplerState(target.start(point), step_size)
        tuning = config.warmup if step_size is None else 0
        state = sampler.draw(target, state, draws=config.warmup - tuning, warmup=tuning, metric=point.metric).state
        result = sampler.draw(target, state, draws=draws, metric=point.metric)
        step_size = result.state.step_size
        kept += [target.to_b(u).to(torch.float32) for u in result.u]
        stats.append(result.stats)
    together = {name: np.stack([s[name] for s in stats]) for name in stats[0]}
    limit = getattr(sampler, "depth_limit", None)
    depth = None if limit is None else limit(step_size, point.metric)
    return FinalDraws(torch.cat(kept, dim=2), chains, draws, together, depth)
