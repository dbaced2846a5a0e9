"""Every registered plot draws on the given axes and touches nothing else."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from glmmnet.families import resolve
from glmmnet.plots import PLOTS, PlotAccessor

CLASSES = ("a", "b", "c")


@dataclass(frozen=True)
class Results:
    """What a fitted model offers to plots, made of random numbers."""

    family: Any
    history: pd.DataFrame
    random_effects: dict[str, pd.DataFrame]
    random_effects_sd: dict[str, pd.DataFrame]
    fittedvalues: Any
    resid_pearson: Any
    params: Any
    intercepts: tuple[str, ...] = ("Intercept",)
    asked: Any = None

    @property
    def plot(self) -> PlotAccessor:
        return PlotAccessor(self)

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        flat = self.params
        if isinstance(flat, pd.DataFrame):
            cells = pd.MultiIndex.from_product([flat.index, flat.columns])
            flat = pd.Series(flat.to_numpy().ravel(), cells)
        return pd.DataFrame({"lower": flat - 1 + alpha, "upper": flat + 1 - alpha})

    def explain(self, row: pd.DataFrame | int) -> pd.DataFrame:
        at = row if isinstance(row, int) else 0
        lines = []
        for group, table in self.random_effects.items():
            for column in table:
                term, *label = column if isinstance(column, tuple) else (column,)
                line = {
                    "part": "random",
                    "group": group,
                    "term": term,
                    "level": table.index[at],
                    "effect": table[column].iloc[at],
                }
                lines.append(line | ({"class": label[0]} if label else {}))
        return pd.DataFrame(lines)


def make(family: str = "bernoulli", levels: tuple[int, ...] = (12, 200), n: int = 300, seed: int = 3) -> Results:
    """Results of a model with an intercept and a slope a grouping factor."""
    rng = np.random.default_rng(seed)
    categorical = family == "categorical"
    columns: Any = ["(Intercept)", "x1"]
    if categorical:
        columns = pd.MultiIndex.from_product([columns, CLASSES], names=["term", "class"])
    effects, sds = {}, {}
    for k, q in enumerate(levels):
        index = pd.Index([f"level_${i}$" for i in range(q)])
        effects[f"g{k}"] = pd.DataFrame(rng.normal(size=(q, len(columns))), index, columns)
        sds[f"g{k}"] = pd.DataFrame(rng.uniform(0.2, 0.6, size=(q, len(columns))), index, columns)
    iteration = np.arange(1, 41)
    trace = {
        f"sd[{', '.join((group, *((c,) if isinstance(c, str) else c)))}]": rng.uniform(0.3, 1.5)
        * (1 - np.exp(-iteration / 6))
        + 0.01 * rng.normal(size=40)
        for group in effects
        for c in columns
    }
    history = pd.DataFrame(
        {
            "iteration": iteration,
            "phase": ["network"] * 25 + ["polish"] * 15,
            "deviance": 1000.0 + 500 * np.exp(-iteration / 5),
            "valid_deviance": np.nan,
            **trace,
            **({"sigma": 1.0 + np.exp(-iteration / 4)} if family == "gaussian" else {}),
        }
    )
    terms = pd.Index(["Intercept", "x1", "year[T.2020]"])
    if categorical:
        fitted = pd.DataFrame(rng.dirichlet([2, 2, 2], size=n), columns=list(CLASSES))
        resid = pd.DataFrame(rng.normal(size=(n, 3)), columns=list(CLASSES))
        params: Any = pd.DataFrame(rng.normal(size=(3, 3)), terms, list(CLASSES))
    else:
        fitted, resid = pd.Series(rng.uniform(size=n)), pd.Series(rng.normal(size=n))
        params = pd.Series(rng.normal(size=3), terms)
    return Results(resolve(family), history, effects, sds, fitted, resid, params)


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    plt.close("all")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def texts(ax: Axes) -> list[str]:
    """Everything written on the axes."""
    ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
    legend = ax.get_legend()
    labels = [
        *ax.texts,
        *ticks,
        *(legend.get_texts() if legend else []),
        ax.xaxis.label,
        ax.yaxis.label,
        ax.title,
    ]
    return [label.get_text() for label in labels if label.get_text()]


@pytest.mark.parametrize("family", ["gaussian", "bernoulli", "categorical"])
@pytest.mark.parametrize("plot", list(PLOTS))
def test_draws_on_the_given_axes_only(plot: str, family: str) -> None:
    figure, (other, ax) = plt.subplots(1, 2)
    before = other.get_children()
    settings = copy.deepcopy(dict(mpl.rcParams))
    assert getattr(make(family).plot, plot)(ax=ax) is ax
    figure.canvas.draw()
    assert ax.has_data()
    assert ax.get_xlabel()
    assert other.get_children() == before and not other.has_data()
    assert plt.get_fignums() == [figure.number] and figure.axes == [other, ax]
    assert dict(mpl.rcParams) == settings


@pytest.mark.parametrize("plot", list(PLOTS))
def test_makes_one_figure_without_axes(plot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", lambda *args, **options: pytest.fail("a plot calls show"))
    settings = copy.deepcopy(dict(mpl.rcParams))
    ax = getattr(make().plot, plot)()
    assert plt.get_fignums() == [ax.figure.number] and ax.figure.axes == [ax]
    ax.figure.canvas.draw()
    assert dict(mpl.rcParams) == settings


@pytest.mark.parametrize("plot", list(PLOTS))
def test_leaves_the_results_as_they_were(plot: str) -> None:
    results, untouched = make(), make()
    getattr(results.plot, plot)()
    for attribute in ("history", "fittedvalues", "resid_pearson", "params"):
        assert getattr(results, attribute).equals(getattr(untouched, attribute))
    for group, table in untouched.random_effects.items():
        assert results.random_effects[group].equals(table)


def test_accessor_lists_and_names_the_plots() -> None:
    plot = make().plot
    assert dir(plot) == ["caterpillar", "forest", "history", "random_effects", "residuals"]
    with pytest.raises(AttributeError, match="no plot 'histogram'; plots: caterpillar, forest, history"):
        plot.histogram()
    assert "EM iteration" in (plot.history.__doc__ or "")
    assert dir(copy.copy(plot)) == dir(plot)


def test_matplotlib_is_not_imported_before_a_plot_is_drawn() -> None:
    code = "import sys, glmmnet.plots as p; list(p.PLOTS); sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("family, unit", [("bernoulli", "log-odds"), ("gaussian", "response")])
@pytest.mark.parametrize("plot", ["caterpillar", "forest", "history", "random_effects"])
def test_names_the_unit(plot: str, family: str, unit: str) -> None:
    ax = getattr(make(family).plot, plot)()
    assert unit in ax.get_xlabel() + ax.get_ylabel()


def test_history_shows_each_component_and_the_change_of_phase() -> None:
    results = make("gaussian", (5, 5, 5))
    ax = results.plot.history()
    curves = [line for line in ax.lines if len(line.get_xdata()) == 40]
    assert len(curves) == 7
    assert {"g0", "g1, x1", "Residual", "network", "polish"} <= set(texts(ax))
    assert [line.get_xdata()[0] for line in ax.lines if line not in curves] == [25.5]
    last = [line.get_ydata()[-1] for line in curves[:-1]]
    assert last == sorted(last, reverse=True)


def test_history_of_many_components_has_one_entry_a_group() -> None:
    ax = make("categorical", (5, 5, 5)).plot.history()
    assert len([line for line in ax.lines if len(line.get_xdata()) == 40]) == 18
    assert sorted(entry.get_text() for entry in ax.get_legend().get_texts()) == ["g0", "g1", "g2"]


def test_history_keeps_long_and_odd_names_apart() -> None:
    results = make("bernoulli", (5, 5))
    names = {"g0": "_manufacturer_of_the_drug_" + 20 * "x" + "_site", "g1": "_manufacturer_of_the_drug__site"}
    columns = {f"sd[{old}, (Intercept)]": f"sd[{new}, (Intercept)]" for old, new in names.items()}
    ax = replace(results, history=results.history.rename(columns=columns)).plot.history()
    assert len(ax.get_legend().get_texts()) == 4


def test_history_without_random_effects() -> None:
    results = make("bernoulli", ())
    ax = results.plot.history()
    assert ax.get_legend() is None


def segments(ax: Axes) -> np.ndarray:
    """The intervals: left end, right end, height."""
    paths = ax.collections[0].get_segments()
    return np.array([[path[0, 0], path[1, 0], path[0, 1]] for path in paths])


def test_caterpillar_is_sorted_and_its_intervals_are_normal() -> None:
    results = make()
    ax = results.plot.caterpillar(group="g1", term="x1", alpha=0.1)
    mean, sd = results.random_effects["g1"]["x1"], results.random_effects_sd["g1"]["x1"]
    order = np.argsort(mean.to_numpy())
    low, high, height = segments(ax).T
    np.testing.assert_allclose(low, (mean - 1.6448536 * sd).iloc[order], atol=1e-7)
    np.testing.assert_allclose(high, (mean + 1.6448536 * sd).iloc[order], atol=1e-7)
    np.testing.assert_array_equal(height, np.arange(200))
    assert "90% interval" in ax.get_xlabel() and ax.get_title() == "g1: x1"


def test_caterpillar_names_all_levels_or_the_extremes() -> None:
    results = make()
    few = results.plot.caterpillar(group="g0")
    assert len(few.get_yticks()) == 12
    many = results.plot.caterpillar(group="g1")
    assert len(many.get_yticks()) == 0
    effects = results.random_effects["g1"]["(Intercept)"]
    shown = " ".join(text.get_text() for text in many.texts).replace("\\", "")
    assert effects.idxmax() in shown and effects.idxmin() in shown
    top = results.plot.caterpillar(group="g1", top=np.int64(5))
    wanted = effects.abs().nlargest(5).index
    assert {label.get_text().replace("\\", "") for label in top.get_yticklabels()} == set(wanted)


def test_caterpillar_of_a_class() -> None:
    results = make("categorical")
    ax = results.plot.caterpillar(group="g0", term="x1", class_="c")
    np.testing.assert_allclose(ax.lines[-1].get_xdata(), np.sort(results.random_effects["g0"][("x1", "c")]))
    assert ax.get_title() == "g0: x1, class c"


@pytest.mark.parametrize(
    "plot, options, message",
    [
        ("caterpillar", {"group": "drug"}, "group is 'drug'; write one of 'g0', 'g1'"),
        ("caterpillar", {"term": "x2"}, r"term is 'x2'; write one of '\(Intercept\)', 'x1'"),
        ("caterpillar", {"class_": "a"}, "the family has no classes"),
        ("caterpillar", {"top": 0}, "top is 0"),
        ("caterpillar", {"alpha": 5}, "alpha=5 must lie between 0 and 1"),
        ("forest", {"alpha": 0}, "alpha=0 must lie between 0 and 1"),
        ("random_effects", {"term": "x2"}, "term is 'x2'"),
        ("residuals", {"class_": "a"}, "the family has no classes"),
    ],
)
def test_refuses_what_does_not_exist(plot: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(make().plot, plot)(**options)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "plot, options, message",
    [
        ("caterpillar", {"alpha": None}, "alpha=None must be a number"),
        ("caterpillar", {"top": "a"}, "top is 'a'; write how many levels to show, a whole number"),
        ("caterpillar", {"top": 2.5}, "top is 2.5"),
        ("caterpillar", {"top": True}, "top is True"),
        ("forest", {"alpha": "a"}, "alpha='a' must be a number"),
    ],
)
def test_refuses_what_is_of_the_wrong_type(plot: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        getattr(make().plot, plot)(**options)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("plot", ["caterpillar", "random_effects"])
def test_a_model_without_random_effects_has_none_to_show(plot: str) -> None:
    with pytest.raises(ValueError, match=r"no random effects to show; add a term such as \(1 \| g\)"):
        getattr(replace(make(), random_effects={}, random_effects_sd={}).plot, plot)()
    assert plt.get_fignums() == []


def test_random_effects_marks_one_row() -> None:
    results = make(levels=(12, 200, 2))
    plain = results.plot.random_effects()
    assert [label.get_text() for label in plain.get_yticklabels()] == ["g2", "g1", "g0"]
    marked = results.plot.random_effects(row=1)
    points = [line for line in marked.lines if line.get_marker() == "o"]
    expected = [results.random_effects[group]["(Intercept)"].iloc[1] for group in ("g2", "g1", "g0")]
    np.testing.assert_allclose([point.get_xdata()[0] for point in points], expected)
    assert len(marked.texts) == 3 and all("level" in text.get_text() for text in marked.texts)


def test_random_effects_names_the_factors_of_an_interaction() -> None:
    results = make(levels=(12, 30))
    table = results.random_effects["g1"]
    table.index = pd.Index([f"10:{k}" for k in range(len(table))])
    effects = {"g0": results.random_effects["g0"], "month:day": table}
    marked = replace(results, random_effects=effects).plot.random_effects(row=1)
    shown = [text.get_text() for text in marked.texts]
    assert shown[0].startswith("month:day 10:1  ") and shown[1].startswith("level")


def test_random_effects_of_a_class_and_of_equal_levels() -> None:
    results = make("categorical")
    effects = dict(results.random_effects, g0=results.random_effects["g0"] * 0)
    ax = replace(results, random_effects=effects).plot.random_effects(row=2, term="x1", class_="b")
    assert ax.get_title() == "x1, class b"
    points = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points, [effects["g1"][("x1", "b")].iloc[2], 0])


@pytest.mark.parametrize("n", [7, 300, 6000])
def test_residuals_show_every_row_and_the_trend(n: int) -> None:
    results = make(n=n)
    bent = replace(results, resid_pearson=(results.fittedvalues - 0.5) * 3)
    ax = bent.plot.residuals()
    trend = ax.containers[0].lines[0]
    np.testing.assert_allclose(trend.get_ydata(), (trend.get_xdata() - 0.5) * 3, atol=1e-10)
    if n > 5000:
        counts = ax.collections[0].get_array()
        assert counts.sum() == n
    else:
        assert len(ax.lines[0].get_xdata()) == n
    assert ax.get_xlabel() == "fitted probability"


def test_residuals_of_a_class() -> None:
    results = make("categorical")
    ax = results.plot.residuals(class_="b")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), results.resid_pearson["b"])
    assert ax.get_title() == "class b"


def test_forest_leaves_out_the_intercept_unless_asked_for() -> None:
    results = make()
    ax = results.plot.forest(alpha=0.1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x1", "year[T.2020]"]
    low, high, height = segments(ax).T
    np.testing.assert_allclose(low, results.params.iloc[1:] - 0.9)
    np.testing.assert_allclose(high, results.params.iloc[1:] + 0.9)
    np.testing.assert_array_equal(height, [1, 0])
    assert len(results.plot.forest(intercept=True).get_yticklabels()) == 3
    only = replace(results, params=results.params.iloc[:1])
    with pytest.raises(ValueError, match="intercept=True"):
        only.plot.forest()


@pytest.mark.parametrize(
    "terms, intercepts",
    [
        (["0|1", "1|2", "x1"], ("0|1", "1|2")),
        (["Intercept", "x1", "zi:Intercept"], ("Intercept", "zi:Intercept")),
        (["Intercept", "x1", "df:Intercept"], ("Intercept", "df:Intercept")),
    ],
)
def test_forest_leaves_out_every_kind_of_intercept(terms: list[str], intercepts: tuple[str, ...]) -> None:
    results = replace(make(), params=pd.Series([0.1, 0.2, 0.3], terms), intercepts=intercepts)
    shown = results.plot.forest()
    assert [label.get_text() for label in shown.get_yticklabels()] == ["x1"]
    assert len(results.plot.forest(intercept=True).get_yticklabels()) == 3
    only = replace(results, params=results.params[list(intercepts)])
    with pytest.raises(ValueError, match="no linear fixed effects but intercepts; write intercept=True"):
        only.plot.forest()


def test_forest_has_a_point_for_each_class() -> None:
    results = make("categorical")
    ax = results.plot.forest()
    shown = [line.get_xdata() for line in ax.lines[1:]]
    np.testing.assert_array_equal(shown, results.params.iloc[1:].to_numpy().T)
    assert [entry.get_text() for entry in ax.get_legend().get_texts()] == list(CLASSES)
