"""What all tests share: an environment of their own, and simulated Measurement Sets."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from file_times import age, contents
from site_of_tests import WARM, Site

if TYPE_CHECKING:
    from standing_broker import Broker

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # of a machine that is busy
}
PRIVATE = ("ORCA_CONF", "ORCA_OWNER", "ORCA_TRACEBACK", "PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILES_PATH")


def pytest_configure(config: pytest.Config) -> None:
    """Leave the user's home alone, before anything is imported that looks into it."""
    home = Path(tempfile.mkdtemp(prefix="orca-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    config.add_cleanup(WARM.end)
    for name in PRIVATE:
        os.environ.pop(name, None)
    caches = {"MPLCONFIGDIR": home / "matplotlib", "XDG_CACHE_HOME": home / "cache", "XDG_CONFIG_HOME": home / "config"}
    for path in caches.values():
        path.mkdir()
    os.environ |= {name: str(path) for name, path in caches.items()}
    os.environ |= {"HOME": str(home), "PREFECT_HOME": str(home / "prefect"), **QUIET}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give each test a home of its own, no configuration, and a current folder without one."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PREFECT_HOME", str(home / ".prefect"))
    for name in PRIVATE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(home)


class Simulations:
    """Simulated Measurement Sets, each made once in a test session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[Any, list[Path]] = {}
        self.originals: dict[str, tuple[int, int]] = {}

    def __call__(self, **options: Any) -> list[Path]:
        """The Measurement Sets of `orca.ms.simulate.SimulationOptions`; 24 antennas and 16 channels unless told."""
        from orca.ms.simulate import SimulationOptions, simulate

        chosen = SimulationOptions(**{"antennas": 24, "channels": 16, **options})
        if chosen not in self.made:
            root = self.folder / f"{len(self.made):02d}"
            self.made[chosen] = simulate(root, chosen)
            self.originals |= contents(age(root))
        return self.made[chosen]


@pytest.fixture(scope="session")
def simulations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulations]:
    """All Measurement Sets that options ask for, `simulations(integrations=3, ...) -> list[Path]`.

    They belong to everybody: read them, and change a copy (`copy_ms`). They look an hour old.
    """
    made = Simulations(tmp_path_factory.mktemp("simulations"))
    yield made
    changed = [name for name, state in contents(made.folder).items() if made.originals.get(name) != state]
    changed += [name for name in made.originals if not Path(name).exists()]
    assert [name for name in changed if not name.endswith("table.lock")] == [], "a test changed a shared original"


@pytest.fixture(scope="session")
def make_ms(simulations: Simulations) -> Callable[..., Path]:
    """`make_ms(rfi=2, ...) -> Path` of the first Measurement Set that these options make; see `simulations`."""
    return lambda **options: simulations(**options)[0]


@pytest.fixture(scope="session")
def root_of() -> Callable[[Path], Path]:
    """`root_of(ms)`: the root of the raw data in which a simulated MS is; the truth is in its folder `truth`."""
    return lambda path: path.parents[3]


@pytest.fixture
def copy_ms(make_ms: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """`copy_ms(**options) -> Path` of a copy that the test may change; `age` as the originals."""

    def copy(**options: Any) -> Path:
        original = make_ms(**options)
        target = tmp_path / original.name
        if original.is_dir():
            shutil.copytree(original, target)
        else:
            shutil.copy2(original, target)
        return target

    return copy


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A home, a configuration and a Prefect server for all tests of a module that call the command line."""
    place = Site(tmp_path_factory.mktemp("site"), {"dask": {"workers": 1}, "limits": {"settle_s": 2.0}})
    yield place
    place.run("down")


@pytest.fixture(scope="module")
def dask(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands of the site find a Dask cluster that stands, instead of each starting its own."""
    from standing_dask import standing_dask

    with standing_dask(site, tmp_path_factory.mktemp("dask"), "default", "imaging", "bandpass", "cosmology") as address:
        site.settings["dask"] = {"address": address}
        yield


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A RabbitMQ for all tests of this process: take a `queue.prefix` of your own (see standing_broker.py)."""
    from orca.cluster.machine.broker import find_program

    if find_program() is None:
        pytest.skip("needs RabbitMQ")
    from standing_broker import standing_broker

    with standing_broker(tmp_path_factory.mktemp("broker")) as made:
        yield made


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Address of a Prefect server of a test's own."""
    from orca.cluster import server

    made, _ = server.ensure(tmp_path)
    server.wait_until_healthy(made)
    yield made.url
    server.stop(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`small_disk("40m")`: an empty file system of that size; needs root."""
    places: list[Path] = []

    def mount(size: str) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a small disk")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True)
