"""Whether the final draws can be trusted: R-hat, effective sample sizes, divergences, tree depth, BFMI."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from glmmnet.fitted import Fitted
from glmmnet.inference_data import chain_statistics

#: Effects a random term (evenly spaced over its levels) whose chains are looked at.
_EFFECTS_A_TERM = 50


@dataclass(frozen=True)
class Diagnostics:
    """Convergence diagnostics of the final draws.

    Attributes
    ----------
    table : DataFrame
        One row a random term: group, term, r_hat (worst), ess_bulk and ess_tail (smallest), over up to 50 of its
        effects and its standard deviation over the levels.
    divergences, draws : int
    depth_hits : int
        Transitions stopped by the sampler's greatest tree depth.
    bfmi : float
        Smallest Bayesian fraction of missing information over the chains; NaN for exact draws.
    """

    table: pd.DataFrame
    divergences: int
    draws: int
    depth_hits: int
    bfmi: float

    @property
    def r_hat(self) -> float:
        """Worst R-hat; NaN with a single chain or no random term."""
        return float(self.table["r_hat"].max()) if len(self.table) else float("nan")

    @property
    def ess_bulk(self) -> float:
        """Smallest bulk effective sample size."""
        return float(self.table["ess_bulk"].min()) if len(self.table) else float("nan")

    @property
    def ess_tail(self) -> float:
        """Smallest tail effective sample size."""
        return float(self.table["ess_tail"].min()) if len(self.table) else float("nan")


def diagnose(fitted: Fitted) -> Diagnostics:
    """Diagnostics of the final draws; ArviZ computes R-hat and effective sample sizes."""
    final = fitted.draws
    rows = []
    for k, term in enumerate(fitted.joint.terms):
        draws = fitted.term_draws(k)
        for i, name in enumerate(term.names):
            own = draws[:, i]
            picked = torch.as_tensor(np.unique(np.linspace(0, term.q - 1, min(term.q, _EFFECTS_A_TERM)).astype(int)))
            spread = own.std(dim=0, keepdim=True) if term.q > 1 else own.abs()
            series = torch.cat([own[picked], spread]).reshape(-1, final.chains, final.draws)
            r_hat, bulk, tail = chain_statistics(series.permute(1, 2, 0).to(torch.float64).numpy())
            rows.append((term.group, name, r_hat.max(), bulk.min(), tail.min()))
    table = pd.DataFrame(rows, columns=["group", "term", "r_hat", "ess_bulk", "ess_tail"])
    stats = final.stats
    energy = stats.get("energy")
    bfmi = float("nan")
    if energy is not None and energy.shape[1] > 1:
        bfmi = float((np.square(np.diff(energy, axis=1)).mean(axis=1) / energy.var(axis=1)).min())
    depth_hits = 0
    if final.max_tree_depth is not None and "tree_depth" in stats:
        depth_hits = int((stats["tree_depth"] >= final.max_tree_depth).sum())
    diverging = int(stats["diverging"].sum()) if "diverging" in stats else 0
    return Diagnostics(table, diverging, final.chains * final.draws, depth_hits, bfmi)
