"""Estimated variances of the binary scenarios as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

_COLOURS = {"glmmnet": "#0072B2", "oracle": "#000000", "MC-GMENN": "#D55E00", "LMMNN": "#CC79A7"}
_SHIFT = {"oracle": -0.24, "glmmnet": -0.08, "MC-GMENN": 0.08, "LMMNN": 0.24}


def ratios(rows: pd.DataFrame, quoted: pd.DataFrame) -> pd.DataFrame:
    """Estimated over true variance: columns method, scenario (0 to 8), ratio."""
    names = [f"s{variance}_q{q}" for variance, q in zip(quoted["sigma2"], quoted["q"], strict=True)]
    truth = dict(zip(names, quoted["sigma2"].astype(float), strict=True))
    own = rows[rows["method"].isin(["glmmnet", "oracle"]) & rows["scenario"].isin(names)]
    parts = [
        pd.DataFrame(
            {
                "method": own["method"],
                "scenario": own["scenario"].map(names.index),
                "ratio": own["sigma2"] / own["scenario"].map(truth),
            }
        )
    ]
    for method in ("MC-GMENN", "LMMNN"):
        ratio = quoted[f"{method} sigma2"] / quoted["sigma2"].astype(float)
        parts.append(pd.DataFrame({"method": method, "scenario": np.arange(len(names)), "ratio": ratio}))
    return pd.concat(parts, ignore_index=True)


def draw(rows: pd.DataFrame, quoted: pd.DataFrame, path: Path) -> None:
    """Write to `path` a picture of the rows of glmmnet and its oracle beside what is quoted of others."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for method, part in ratios(rows, quoted).groupby("method"):
        label = f"{method}, true f known" if method == "oracle" else method
        axes.scatter(part["scenario"] + _SHIFT[method], part["ratio"], s=16, color=_COLOURS[method], label=label)
    axes.axhline(1.0, color="0.6", linewidth=0.8, zorder=0)
    ticks = [f"σ²={variance}\nq={q}" for variance, q in zip(quoted["sigma2"], quoted["q"], strict=True)]
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
    axes.set_yscale("log")
    axes.set_yticks([0.2, 0.4, 0.6, 0.8, 1.0, 1.4], ["0.2", "0.4", "0.6", "0.8", "1", "1.4"])
    axes.minorticks_off()
    axes.set_ylabel("estimated / true variance")
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.14))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
