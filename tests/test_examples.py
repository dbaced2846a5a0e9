"""Every example runs, in small form, and prints what it is there to show."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

import glmmnet as gn

EXAMPLES = Path(__file__).parents[1] / "examples"

#: Example -> its small form. What the output must hold stands in the tests below.
SMALL: dict[str, dict[str, int]] = {
    "arviz_draws": {"clinics": 8, "patients": 20},
    "binomial_counts": {"herds": 10},
    "categorical": {"trips": 400, "towns": 10},
    "custom_network": {"homes": 600, "streets": 15},
    "flights_demo": {"rows": 1200},
    "random_slopes": {"subjects": 15},
    "unseen_groups": {"schools": 20, "pupils": 15},
}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def output(capsys, monkeypatch, tmp_path) -> Callable[[str], str]:
    """Runs an example's small form in an empty folder and gives back what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> str:
        load(name).main(**SMALL[name])
        return capsys.readouterr().out

    return run


def test_every_example_has_a_small_form():
    assert sorted(SMALL) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


def numbers(text: str, pattern: str) -> list[float]:
    """The numbers that `pattern` captures; fails when it is not there."""
    match = re.search(pattern, text, re.MULTILINE)
    assert match, text
    return [float(group) for group in match.groups()]


def test_random_slopes(output):
    text = output("random_slopes")
    low, high = numbers(text, r"^days .* (-?[\d.]+) +(-?[\d.]+)$")
    assert low < 10 < high
    assert re.search(r"corr +\(Int\),days", text)
    assert re.search(r"LR test: chi2\(1\) = [\d.]+", text)


def test_binomial_counts(output):
    text = output("binomial_counts")
    odds, low, high = numbers(text, r"^period +([\d.]+) +([\d.]+) +([\d.]+)$")
    assert low < odds < high < 1
    exact, laplace = numbers(text, r"Log-likelihood (-[\d.]+) \(agq\); Laplace (-[\d.]+)")
    assert exact == pytest.approx(laplace, abs=1)


def test_categorical(output):
    text = output("categorical")
    assert re.search(r"^mode +bus +car +train$", text, re.MULTILINE)
    rows = re.findall(r"^\d +(0\.\d+) +(0\.\d+) +(0\.\d+)$", text, re.MULTILINE)
    assert rows
    for row in rows:
        assert sum(map(float, row)) == pytest.approx(1, abs=2e-3)
    (hit,) = numbers(text, r"chosen on (\d+)% of the trips")
    assert hit > 40


def test_arviz_draws(output):
    text = output("arviz_draws")
    assert "1|clinic[C00]" in text
    chances = [float(p) for p in re.findall(r"^C\d\d +(0\.\d+|1\.0+)$", text, re.MULTILINE)]
    assert len(chances) == 3 and chances == sorted(chances, reverse=True) and sum(chances) <= 1 + 1e-6


def test_custom_network(output):
    text = output("custom_network")
    assert "Waves" in text
    errors = [float(e) for e in re.findall(r"^  \S.* (\d\.\d{3})$", text, re.MULTILINE)]
    # Without the wave the error is 1.5, without the streets 1.1.
    assert len(errors) == 2 and max(errors) < 0.8


def test_unseen_groups(output):
    text = output("unseen_groups")
    known, new = numbers(text, r"^population +([\d.]+) +([\d.]+)$")
    assert known == new
    conditional, unseen = numbers(text, r"^conditional +([\d.]+) +([\d.]+)$")
    assert unseen == new and conditional != new
    _, integrated = numbers(text, r"^conditional, marginal for new +([\d.]+) +([\d.]+)$")
    assert 0.5 < integrated < new
    assert "1 rows have a level of `school`" in text


@pytest.mark.slow
def test_flights_demo(output, tmp_path):
    text = output("flights_demo")
    (conditional,) = numbers(text, r"conditional .* (0\.\d{3})$")
    (population,) = numbers(text, r"population .* (0\.\d{3})$")
    assert 0.5 < population < 0.9 and 0.5 < conditional < 0.9
    pictures = sorted(path.name for path in (tmp_path / "demo_output").glob("*.png"))
    assert pictures == ["caterpillar_dest.png", "history.png", "random_effects.png"]
    assert (tmp_path / "demo_output" / "summary.txt").read_text(encoding="utf-8") in text


def test_flights_demo_scores_as_the_mann_whitney_statistic():
    auroc = load("flights_demo").auroc
    late, score = pd.Series([0, 1, 0, 1]).to_numpy(), pd.Series([0.1, 0.2, 0.2, 0.9]).to_numpy()
    # Pairs (late, on time): 0.2 against 0.1 and 0.2, 0.9 against both: 3.5 of 4.
    assert auroc(late, score) == pytest.approx(3.5 / 4)


def test_demo_data_have_what_the_demo_reads():
    demo = load("flights_demo")
    assert set(demo.WEATHER) <= set(gn.datasets.load("flights").columns)
