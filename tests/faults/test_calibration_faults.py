"""Things die in the middle of `orca run calibrate`: nothing half-written is seen, and running again completes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import psutil
import pytest
from casacore.tables import table
from file_times import age
from site_of_tests import Site, outcomes
from waiting import family, wait_for

from flows.calibration_table import Options, make_table
from flows.calibration_table import Site as Machines
from orca import naming
from orca.antennas import BadAntennas
from orca.calibration.options import BlockOptions, SolveOptions
from orca.calibration.planning import plan_bandpasses, plan_delay
from orca.cluster.worker import ISOLATED_MODULES
from orca.errors import StorageError
from orca.isolation import preload
from orca.manifest import fingerprint, read_manifest
from orca.ms.acceptance import Acceptance
from orca.ms.simulate import SimulationOptions, simulate
from orca.quality_limits import QualityLimits
from orca.skyoptions import SkyOptions

DAY = date(2026, 1, 10)
BLOCK = BlockOptions(integrations=2, min_integrations=2)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    start = datetime(2026, 1, 10, 20, 31, 48, tzinfo=UTC)
    bands = ("55MHz", "73MHz")
    simulate(root, SimulationOptions(antennas=24, channels=16, subbands=bands, integrations=2, start=start))
    return age(root)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    """What the flow knows of the machines, for a task that runs by itself, without Prefect's page."""
    monkeypatch.setattr("flows.calibration_table.show_picture", lambda *_: None)
    preload(ISOLATED_MODULES)
    return Machines(
        calibration=tmp_path / "calibration",
        scratch=tmp_path / "scratch",
        trash=tmp_path / "trash",
        stage_s=120,
        reserve_bytes=0,
        acceptance=Acceptance(settle_s=0),
        outriggers=None,
        bad=BadAntennas((), "no list"),
        limits=QualityLimits(),
    )


HOW = Options(sky=SkyOptions(), solve=SolveOptions(reference_antenna="LWA-114"), block=BLOCK)


def undisturbed(raw: Path, machines: Machines) -> dict[str, tuple[bytes, bytes]]:
    """What the tables hold when nothing goes wrong."""
    delays = make_table.fn(plan_delay(DAY, raw, machines.calibration, HOW.delay), HOW, machines, None).table
    for planned in plan_bandpasses(DAY, None, None, raw, machines.calibration, BLOCK):
        make_table.fn(planned, HOW, machines, delays)
    return published(machines.calibration)


def published(root: Path) -> dict[str, tuple[bytes, bytes]]:
    """Solutions and flags of all tables below a folder, as they are on disk; each has all that belongs to it."""
    found = {}
    for path in sorted([*root.glob("delay/*/*.delay"), *root.glob("bandpass/*/*/*/*.bandpass")]):
        manifest = read_manifest(naming.manifest_path(path))
        assert [fingerprint(Path(output.path)) for output in manifest.outputs] == list(manifest.outputs)
        assert {entry.name for entry in path.parent.iterdir()} == {
            Path(output.path).name for output in manifest.outputs
        } | {naming.manifest_path(path).name}
        with table(str(path), ack=False) as main:
            column = "CPARAM" if "CPARAM" in main.colnames() else "FPARAM"
            found[path.name] = main.getcol(column).tobytes(), main.getcol("FLAG").tobytes()
    return found


def at_work(site: Site, name: str) -> list[int]:
    """Process ids of the workers that are making a table."""
    return [int(path.name.split("-")[-3]) for path in site.scratch.glob(f"orca-{name}_*")]


def end(command: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal to `orca`, and wait until it and all that it started are gone."""
    started = family(command)
    command.send_signal(number)
    assert command.wait(timeout=60) != 0
    _, alive = psutil.wait_procs(started, timeout=90)
    assert alive == []


def test_interrupted_killed_and_run_twice_at_once_the_tables_are_those_of_an_undisturbed_run(
    site: Site, raw: Path, machines: Machines
) -> None:
    out = site.folder / "calibrations"
    words = ("run", "calibrate", "--date", DAY, "--raw", raw, "--out", out, "--integrations", 2)

    command = site.start(*words)
    wait_for(lambda: at_work(site, "delay"), "the making of delays")
    end(command, signal.SIGINT)
    assert "the same command goes on from here" in (site.folder / "background.log").read_text()
    assert site.leftovers() == []
    assert published(out) == {}

    command = site.start(*words)
    wait_for(lambda: at_work(site, "delay"), "the making of delays")
    [worker] = at_work(site, "delay")
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: at_work(site, "bandpass"), "the making of a bandpass after a worker was killed")
    assert worker not in at_work(site, "bandpass")
    assert list(published(out)) == ["20260110_delay.delay"]
    end(command, signal.SIGKILL)
    assert list(published(out)) == ["20260110_delay.delay"]

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: site.run(*words, "--json", alone=True), range(2)))
    for run in runs:
        assert run.returncode == 0, run.stderr
        status = {name: entry["status"] for name, entry in outcomes(run).items()}
        assert set(status.values()) <= {"done", "skipped"}
        assert status["delay 2026-01-10"] == "skipped"
    assert published(out) == undisturbed(raw, machines)
    assert site.leftovers() == []


def test_a_full_disk_of_calibrations_is_told_and_leaves_nothing_half_written(
    raw: Path, machines: Machines, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("2m")
    (disk / "ballast").write_bytes(b"\0" * (2 * 1024**2 - 100_000))
    [planned] = plan_bandpasses(DAY, ["73MHz"], None, raw, disk, BLOCK)
    with pytest.raises(StorageError, match=r"full|are free") as caught:
        make_table.fn(planned, HOW, machines, None)
    assert str(disk) in str(caught.value)
    assert [path for path in disk.rglob("*") if path.is_file()] == [disk / "ballast"]
    assert list(machines.scratch.iterdir()) == []
    (disk / "ballast").unlink()
    assert make_table.fn(planned, HOW, machines, None).table.exists()
    assert list(published(disk)) == [planned.path().name]
