"""Which flights arrive late? A network for time and weather, random effects for plane, airport, airline, day.

Run: python examples/flights_demo.py [rows]. Fits four fifths of the 50,000 flights, predicts the rest and
writes the summary and pictures to demo_output/. `rows` takes a random part of them, for a quick look.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from scipy.stats import rankdata

import glmmnet as gn

WEATHER = ["temp", "wind_speed", "precip", "visib"]
FORMULA = (
    "late ~ nn(sched_dep_time + month + distance + temp + wind_speed + precip + visib)"
    " + (1 | tailnum) + (1 | dest) + (1 | carrier) + (1 | month:day)"
)
OUTPUT = Path("demo_output")


def auroc(late: np.ndarray, score: np.ndarray) -> float:
    """Chance that a late flight scores above one on time: the Mann-Whitney statistic, from mid-ranks."""
    positives = int(late.sum())
    ranks = rankdata(score)[late == 1].sum()
    return (ranks - positives * (positives + 1) / 2) / (positives * (len(late) - positives))


def main(rows: int | None = None) -> None:
    """Fit, print, draw, predict."""
    flights = gn.datasets.load("flights")
    known = flights.dropna(subset=WEATHER)
    print(f"{len(flights) - len(known)} of {len(flights)} flights have no weather report and are left out.")
    known = known.sample(n=rows or len(known), random_state=1)
    held_out, training = known.iloc[: len(known) // 5], known.iloc[len(known) // 5 :]

    results = gn.glmm(FORMULA, data=training, family="bernoulli").fit(seed=1)
    print(results.summary())

    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "summary.txt").write_text(f"{results.summary()}\n", encoding="utf-8")
    pictures = {
        "random_effects": results.plot.random_effects(row=held_out.iloc[[0]]),
        "history": results.plot.history(),
        "caterpillar_dest": results.plot.caterpillar(group="dest"),
    }
    for name, ax in pictures.items():
        ax.figure.savefig(OUTPUT / f"{name}.png", dpi=150, bbox_inches="tight")

    late = held_out["late"].to_numpy()
    print(f"\nAUROC on a fifth of the flights, held out at random ({len(held_out)}, {late.mean():.1%} late)")
    for level, meaning in [("conditional", "with the groups' effects"), ("population", "without them")]:
        score = np.asarray(results.predict(held_out, level=level))
        print(f"  {level:<12} {meaning:<25} {auroc(late, score):.3f}")
    variance = results.vcomp.set_index("group")["variance"]
    share = variance["month:day"] / variance.sum()
    print(f"The day holds {share:.0%} of the groups' variance: other flights of a day tell how bad it was.")
    print(f"\nFitted in {results.seconds:.0f} s. Summary and {len(pictures)} pictures: {OUTPUT}/")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
