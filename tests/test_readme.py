"""The README's code runs as written and prints what the README shows.

`python tests/test_readme.py` writes the output of this machine into the README.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```\n\n```text\n(?P<output>.*?)```", re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")

#: Random numbers differ between machines after some leapfrogs: the draws are others, of the same distribution.
RELATIVE, ABSOLUTE = 0.15, 0.06
#: Lines about the run, not about the model.
RUN = ("MCEM:", "NUTS:", "Metropolis:")


def run_examples(text: str) -> list[tuple[str, str]]:
    """(shown, printed) of each code block that has an output; the blocks share their names."""
    names: dict[str, object] = {}
    pairs = []
    for match in EXAMPLE.finditer(text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(match["code"], str(README), "exec"), names)
        pairs.append((match["output"], printed.getvalue()))
    return pairs


def shape(line: str) -> str:
    """A line without its numbers and the blanks that follow from their widths."""
    return re.sub(r"\s+", " ", NUMBER.sub("#", line))


def differences(shown: str, printed: str) -> list[str]:
    """What is not the same: text, width of a table's lines, numbers beyond the tolerance."""
    left, right = shown.splitlines(), printed.splitlines()
    if len(left) != len(right):
        return [f"{len(left)} lines shown, {len(right)} printed"]
    found = []
    for a, b in zip(left, right, strict=True):
        run = a.startswith(RUN)
        if shape(a) != shape(b) or (len(a) != len(b) and not run):
            found.append(f"{a!r} is printed as {b!r}")
        elif not run:
            for x, y in zip(NUMBER.findall(a), NUMBER.findall(b), strict=True):
                if float(y) != pytest.approx(float(x), rel=RELATIVE, abs=ABSOLUTE):
                    found.append(f"{x} is printed as {y} in {b!r}")
    return found


def test_readme_prints_what_it_shows():
    pairs = run_examples(README.read_text(encoding="utf-8"))
    assert len(pairs) == 2
    for shown, printed in pairs:
        assert differences(shown, printed) == []


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("x   1.00  0.5\n", "x   1.01  0.5\n", True),
        ("x   1.00  0.5\n", "x   2.00  0.5\n", False),
        ("x   1.00  0.5\n", "z   1.00  0.5\n", False),
        ("x   1.00  0.5\n", "x  1.00  0.5\n", False),
        ("x   1.00\n", "x   1.00\ny\n", False),
        ("x  -1.00\n", "x   1.00\n", False),
        ("MCEM: converged, 9/200 iter\n", "MCEM: converged, 31/200 iter\n", True),
        ("MCEM: converged, 9/200 iter\n", "MCEM: NOT converged, 9/200 iter\n", False),
    ],
)
def test_differences_are_told_from_noise(shown, printed, same):
    assert (differences(shown, printed) == []) is same


def test_readme_begins_with_the_two_commands():
    blocks = re.findall(r"```\w*\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert [line.split("#")[0].strip() for line in blocks[0].splitlines()] == ["make demo", "make test"]


@pytest.mark.parametrize("path", [README, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def write() -> None:
    """Put the output of this machine into the README."""
    text = README.read_text(encoding="utf-8")
    outputs = iter([printed for _, printed in run_examples(text)])
    shown = EXAMPLE.sub(lambda m: f"```python\n{m['code']}```\n\n```text\n{next(outputs)}```", text)
    README.write_text(shown, encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT))
    write()
