"""`dask.address`: tasks run on a Dask cluster that is there already, and stop when nobody waits for them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from site_of_tests import Site, outcomes, script
from standing_dask import standing_dask
from test_imaging_faults import SMALL, imagers
from waiting import wait_for

from orca.ms.simulate import SimulationOptions, simulate


@pytest.fixture(scope="module")
def integration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    [path] = simulate(tmp_path_factory.mktemp("raw"), SimulationOptions(antennas=24, channels=8))
    return path


@pytest.fixture(scope="module")
def address(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with standing_dask(site, tmp_path_factory.mktemp("dask"), "imaging") as made:
        yield made


def test_a_running_cluster_does_the_work(site: Site, address: str, integration: Path, tmp_path: Path) -> None:
    words = ("run", "imaging", integration, *SMALL, "--out", tmp_path / "out", "--json")
    result = site.run(*words, dask={"address": address})
    assert [(made["status"], made["reason"]) for made in outcomes(result).values()] == [("done", "")], result.stderr


def test_the_program_ends_soon_after_the_flow_was_killed(
    site: Site, address: str, integration: Path, tmp_path: Path
) -> None:
    stalling = script(tmp_path / "stalling-wsclean", f"touch {tmp_path}/started; sleep 300")
    words = ("run", "imaging", integration, *SMALL, "--out", tmp_path / "out")
    settings = {"dask": {"address": address}, "execs": {"wsclean": str(stalling)}}
    command = site.start(*words, **settings)
    wait_for((tmp_path / "started").exists, "imaging")
    command.send_signal(signal.SIGKILL)
    command.wait(timeout=90)
    wait_for(lambda: not imagers(stalling), "the end of the imager", patience_s=120.0)
    wait_for(lambda: not site.leftovers(), "the sweeping of scratch", patience_s=90.0)
    assert list((tmp_path / "out").glob("*.fits")) == []
