"""Who may import what: the walls between orchestration, services, casacore, configuration and science."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Package -> the only places that import it: a folder ends in /.
WALLS = {
    "prefect": ("flows/", "orca/cluster/"),
    "prefect_dask": ("flows/", "orca/cluster/"),
    "dask": ("flows/", "orca/cluster/"),
    "distributed": ("flows/", "orca/cluster/"),
    "kombu": ("orca/events/",),
    "amqp": ("orca/events/",),  # what kombu speaks
    "redis": ("orca/cache/", "orca/cluster/"),
    "casacore": ("orca/ms/", "orca/calibration/tables.py"),
    "flows": ("flows/", "orca/cli/", "orca/cluster/warm/server.py"),  # the last imports them before it forks
    # The science gets paths and options: it reads no configuration, and does not know what runs it.
    "orca.config": ("flows/", "orca/config/", "orca/cli/", "orca/cluster/", "orca/events/"),
    "orca.cluster": ("flows/", "orca/cluster/", "orca/cli/", "orca/events/"),
}
SLOW_TO_IMPORT = (
    "prefect", "prefect_dask", "dask", "distributed", "astropy", "matplotlib", "numba", "numpy", "casacore", "flows",
)  # fmt: skip


def sources() -> list[str]:
    """Return every module of the project, relative to its root."""
    return sorted(str(path.relative_to(ROOT)) for folder in ("orca", "flows") for path in (ROOT / folder).rglob("*.py"))


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything that is imported, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            if called in ("import_module", "__import__") and isinstance(name, str):
                yield node.lineno, name


def is_part(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def package_of(path: str) -> str:
    return ".".join(Path(path).parent.parts)


def breaches(path: str, source: str) -> list[str]:
    """Return what a module imports through a wall, as ``path:line: name``."""
    found = imports(ast.parse(source), package_of(path))
    return [
        f"{path}:{line}: {name}"
        for line, name in found
        for package, places in WALLS.items()
        if is_part(name, package) and not any(path == place or path.startswith(place) for place in places)
    ]


class _AtImport(ast.NodeTransformer):
    """Leaves what runs when the module is imported."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None: ...

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None: ...

    def visit_If(self, node: ast.If) -> ast.AST:
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            node.body = []
        return self.generic_visit(node)


def slow_imports(path: str, source: str) -> list[str]:
    """Return what a command's module imports at its top and should import in a function."""
    found = imports(_AtImport().visit(ast.parse(source)), package_of(path))
    return [f"{path}:{line}: {name}" for line, name in found if any(is_part(name, slow) for slow in SLOW_TO_IMPORT)]


def test_no_module_imports_through_a_wall() -> None:
    modules = sources()
    assert "orca/config/__init__.py" in modules
    assert [breach for path in modules for breach in breaches(path, (ROOT / path).read_text(encoding="utf-8"))] == []


def test_no_command_imports_anything_slow_at_its_top() -> None:
    modules = [path for path in sources() if path.startswith("orca/cli/")]
    assert "orca/cli/config.py" in modules
    assert [slow for path in modules for slow in slow_imports(path, (ROOT / path).read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("orca/imaging.py", "import prefect"),
        ("orca/imaging.py", "from dask.distributed import Client"),
        ("orca/imaging.py", "def f():\n    import distributed.client as c"),
        ("orca/cli/run.py", "from prefect import flow"),
        ("orca/cluster/pools.py", "import kombu"),
        ("orca/cluster/machine/questions.py", "def ask():\n    import amqp"),
        ("orca/events/trigger.py", "import redis"),
        ("orca/calibration/apply.py", "from casacore.tables import table"),
        ("flows/imaging.py", "import casacore.tables"),
        ("orca/imaging.py", "from flows.imaging import image"),
        ("orca/ms/stage.py", "from orca.config import load"),
        ("orca/ms/stage.py", "from orca import config"),
        ("orca/ms/stage.py", "from .. import config"),
        ("orca/ms/stage.py", "from ..config.secret import mask"),
        ("orca/imaging.py", "from orca.cluster.gather import gather"),
        ("orca/imaging.py", "if TYPE_CHECKING:\n    from orca.cluster import TaskRunner"),
        ("orca/imaging.py", "import importlib\nimportlib.import_module('prefect.flows')"),
        ("orca/imaging.py", "__import__('redis')"),
    ],
)
def test_a_breach_is_found(path: str, source: str) -> None:
    assert len(breaches(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("flows/imaging.py", "from prefect import flow\nfrom orca.cluster import gather\nfrom orca.config import load"),
        ("orca/cluster/local.py", "import dask, distributed, redis\nfrom orca.config import load"),
        ("orca/cache/redis_store.py", "import redis"),
        ("orca/ms/blocks.py", "from casacore.tables import table\nfrom . import layout\nfrom .layout import config"),
        ("orca/calibration/tables.py", "import casacore.tables"),
        ("orca/cli/run.py", "def run():\n    from flows.imaging import image"),
        ("orca/imaging.py", "import prefecture\nfrom orca.configuration import x\nopen('redis')"),
    ],
)
def test_what_is_allowed_is_no_breach(path: str, source: str) -> None:
    assert breaches(path, source) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import numpy as np", 1),
        ("try:\n    from astropy.io import fits\nexcept ImportError:\n    fits = None", 1),
        ("class A:\n    import numba", 1),
        ("if True:\n    import matplotlib.pyplot", 1),
        ("from flows.imaging import image", 1),
        ("def f():\n    import numpy\nasync def g():\n    import prefect", 0),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy", 0),
    ],
)
def test_slow_imports_are_told_from_those_in_functions(source: str, count: int) -> None:
    assert len(slow_imports("orca/cli/run.py", source)) == count
