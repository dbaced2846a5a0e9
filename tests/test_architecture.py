"""The floors of docs/architecture.md, what an import costs, and what must not be in the repository."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "glmmnet"
LINT_IMPORTS = [
    sys.executable,
    "-c",
    "from importlinter.cli import lint_imports_command as run; run()",
    "--no-cache",
]


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package that lies in `root`, not on the installed one."""
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(LINT_IMPORTS, cwd=root, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})


def test_contracts_are_kept():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract", "evidence"),
    [
        ("errors.py", "import glmmnet.datasets", "floors below it", "glmmnet.errors -> glmmnet.datasets"),
        ("errors.py", "import glmmnet.typing", "floors below it", "glmmnet.errors -> glmmnet.typing"),
        ("homeless.py", "", "floors below it", "- glmmnet.homeless"),
        ("errors.py", "import pyro", "pyro only in samplers/", "glmmnet.errors -> pyro"),
        ("errors.py", "import arviz", "arviz only in inference_data.py", "glmmnet.errors -> arviz"),
        (
            "errors.py",
            "def f():\n    import matplotlib.pyplot",
            "matplotlib only in plots/",
            "glmmnet.errors -> matplotlib",
        ),
        (
            "errors.py",
            "import formulaic",
            "formulaic only in formula/ and design/",
            "glmmnet.errors -> formulaic",
        ),
    ],
)
def test_contracts_can_be_broken(tmp_path, module, line, contract, evidence):
    shutil.copytree(PACKAGE, tmp_path / "glmmnet", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "glmmnet" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert re.search(rf"{re.escape(contract)}.* BROKEN", done.stdout), done.stdout
    assert evidence in done.stdout


def test_every_module_is_in_the_table():
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in PACKAGE.iterdir():
        if path.suffix == ".py" and path.name != "__init__.py":
            assert f"`{path.name}`" in table, path.name
        elif any(path.glob("*.py")):
            assert f"`{path.name}/`" in table, path.name


def test_import_leaves_heavy_libraries_alone():
    heavy = {"pyro", "arviz", "matplotlib", "xarray", "tabulate"}
    code = f"import sys, glmmnet; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_is_called_utils():
    assert [str(path) for path in PACKAGE.rglob("util*.py")] == []


def tracked_text_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_path_of_a_machine_is_tracked():
    # Spelt in pieces so that this file does not find itself.
    machine = re.compile(
        "|".join(["/" + "home/", "/" + "Users/", "/" + "root/", "/" + "work/", r"\b[A-Z]:\\" + "Users"])
    )
    paths = tracked_text_files()
    assert paths
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if machine.search(line)
    ]
    assert found == []


def test_constraints_pin_exactly():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    for line in pins:
        assert re.fullmatch(r'[A-Za-z0-9_.-]+==[A-Za-z0-9.]+(; python_version < "3\.12")?', line), line


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    names = {re.match(r"[\w.-]+", line).group().lower().replace("_", "-") for line in wanted}
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert names - pinned == set()
