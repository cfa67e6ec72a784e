"""The repository itself: pinned versions, no traces of anybody's machine, habits of the code, a quick command line."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Put together here, so that this file does not contain what it forbids.
REGISTRIES = [
    name + "." + ending
    for name, ending in [
        ("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"), ("anaconda", "org"),
        ("anaconda", "com"), ("debian", "org"), ("ubuntu", "com"), ("ghcr", "io"), ("quay", "io"), ("docker", "io"),
    ]
]  # fmt: skip
FOLDERS = ("work", "root", "Users", r"home/(?!pipeline)\w+")
HOMES = [rf"(?<![\w.~$}}])/{name}(?:/|\b(?=['\"\s]))" for name in FOLDERS]
TRACES = re.compile("|".join([re.escape(host) for host in REGISTRIES] + HOMES))


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def project() -> dict[str, dict]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def project_files() -> list[Path]:
    """Return what is in the repository."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def python_files() -> list[Path]:
    return [path for folder in ("orca", "flows") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_constraint_pins_one_version() -> None:
    assert [line for line in constraints() if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==[\w.!+-]+", line)] == []


def test_the_constraints_are_sorted_and_none_comes_twice() -> None:
    names = [normalized(line.partition("==")[0]) for line in constraints()]
    assert names == sorted(set(names))


def test_everything_that_the_project_asks_for_is_pinned() -> None:
    wanted = [
        *project()["dependencies"],
        *(name for extra in project()["optional-dependencies"].values() for name in extra),
    ]
    pinned = {normalized(line.partition("==")[0]) for line in constraints()}
    assert {normalized(re.split(r"[<>=!~;\[ ]", name)[0]) for name in wanted} - pinned == set()


def test_the_constraints_hold_no_address() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert " @ " not in text


def test_no_file_names_a_package_registry_or_a_folder_of_somebodys_machine() -> None:
    found = []
    for path in project_files():
        text = path.read_text(encoding="utf-8", errors="ignore")
        lines = enumerate(text.splitlines(), 1)
        found += [f"{path.relative_to(ROOT)}:{number}: {line.strip()}" for number, line in lines if TRACES.search(line)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "is_trace"),
    [
        ("pip install -i https://" + "pypi" + ".org/simple", True),
        ("cd /" + "work/main", True),
        ("open('/" + "root/x')", True),
        ("/" + "home/somebody/data", True),
        ("/home/pipeline and /lustre/pipeline", False),
        ("scratch/work/x, $HOME/work/, ~/work/, ../" + "root/x", False),
    ],
)
def test_a_trace_is_found(text: str, is_trace: bool) -> None:
    assert bool(TRACES.search(text)) is is_trace


def bad_habits(path: str, source: str) -> list[str]:
    """Return asserts, prints and handlers that swallow everything."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            found.append((node.lineno, "assert"))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.append((node.lineno, "print"))
        elif isinstance(node, ast.ExceptHandler):
            caught = None if node.type is None else ast.unparse(node.type)
            swallows = all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
            if caught is None or (caught in ("Exception", "BaseException") and swallows):
                found.append((node.lineno, "except"))
    return [f"{path}:{line}: {what}" for line, what in found]


def test_no_module_asserts_prints_or_swallows_errors() -> None:
    files = python_files()
    assert files
    assert [bad for path in files for bad in bad_habits(str(path.relative_to(ROOT)), path.read_text("utf-8"))] == []


def test_bad_habits_are_found() -> None:
    source = "assert x\nprint(x)\ntry:\n    f()\nexcept:\n    raise\ntry:\n    f()\nexcept Exception:\n    pass\n"
    assert [bad.rpartition(" ")[2] for bad in bad_habits("x.py", source)] == ["assert", "print", "except", "except"]


@pytest.mark.parametrize("name", ["data/orca-conf.yml", "py.typed"])
def test_package_data_is_there(name: str) -> None:
    assert (resources.files("orca") / name).is_file()


@pytest.mark.parametrize("script", ["script/bootstrap", "script/test", ".ci/run"])
def test_scripts_are_executable_bash(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_command_is_installed_under_its_name() -> None:
    assert project()["scripts"] == {"orca": "orca.cli:main"}
    command = Path(sys.executable).with_name("orca")
    done = subprocess.run([str(command), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"orca {project()['version']}\n"


def test_help_lists_the_nouns_and_imports_nothing_slow() -> None:
    program = (
        "import atexit, sys\n"
        "slow = {'prefect', 'dask', 'distributed', 'numpy', 'astropy', 'matplotlib', 'numba', 'casacore', 'yaml',"
        " 'pydantic', 'rich', 'flows', 'orca.cli.run', 'orca.cli.config', 'orca.config'}\n"
        "atexit.register(lambda: print('imported:', *sorted(slow & set(sys.modules)), file=sys.stderr))\n"
        "sys.argv = ['orca', '--help']\n"
        "from orca.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "imported:")
    assert all(re.search(rf"\b{noun}\s+[A-Z]", done.stdout) for noun in ("run", "simulate", "config", "status", "down"))
