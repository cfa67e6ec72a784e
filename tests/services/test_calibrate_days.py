"""`orca run delay | bandpass` over several days: what is taken from an earlier one, said of it, and kept of it.

And what images measure that are made with the tables that were found.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from casacore.tables import table
from file_times import age
from site_of_tests import Site, outcomes

from orca import naming
from orca.calibration.planning import transit_on
from orca.calibration.tables import read_table
from orca.manifest import read_manifest
from orca.ms.simulate import SimulationOptions, simulate
from orca.trash import list_trash

pytestmark = pytest.mark.usefixtures("dask")

FIRST, SECOND, THIRD = (datetime(2026, 1, day, tzinfo=UTC) for day in (10, 11, 12))
MOVED, BY_NS = 7, 150.0
"""On the second day the cable of this antenna has another length."""
BLOCK = ("--integrations", 3, "--min-integrations", 2)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days at the transit of Cyg A; of the third, some minutes long before it."""
    root = tmp_path_factory.mktemp("raw")

    def record(start: datetime, integrations: int, *bands: str) -> list[Path]:
        options: dict[str, Any] = {"antennas": 24, "channels": 16, "subbands": bands, "integrations": integrations}
        return simulate(root, SimulationOptions(start=start, **options))

    at_transit = [transit_on(day.date()).replace(microsecond=0) - timedelta(seconds=4) for day in (FIRST, SECOND)]
    record(at_transit[0], 1, "55MHz", "73MHz")
    for path in record(at_transit[1], 1, "55MHz", "73MHz"):
        lengthen(path)
    record(THIRD.replace(hour=18, minute=5), 3, "73MHz")
    return age(root)


def lengthen(path: Path) -> None:
    """Delay what one antenna of a Measurement Set hears."""
    with table(str(path), readonly=False, ack=False) as main, table(f"{path}/SPECTRAL_WINDOW", ack=False) as windows:
        turn = np.exp(2j * np.pi * BY_NS * 1e-9 * windows.getcell("CHAN_FREQ", 0))[None, :, None]
        data, first, second = (main.getcol(name) for name in ("DATA", "ANTENNA1", "ANTENNA2"))
        data[(first == MOVED) & (second != MOVED)] *= turn
        data[(second == MOVED) & (first != MOVED)] *= turn.conj()
        main.putcol("DATA", data)


@pytest.fixture(scope="module")
def second_day(site: Site, raw: Path) -> subprocess.CompletedProcess[str]:
    """Delays of the second day, after those of the first."""
    for day in (FIRST, SECOND):
        result = site.run("run", "delay", "--date", day.date(), "--raw", raw, "--json")
        assert result.returncode == 0, result.stderr
    return result


def test_a_delay_that_jumped_is_an_alarm_and_the_table_is_good(
    site: Site, second_day: subprocess.CompletedProcess[str]
) -> None:
    [made] = outcomes(second_day).values()
    [delays] = read_table(Path(made["table"]))
    name = delays.antenna_names[MOVED]
    alarm = rf"ALARM: 1 of 2\d antennas moved by more than 100 ns since the last good delays, most {name} by \+15\d"
    assert re.search(rf"^orca: warning: delay 2026-01-11: {alarm}", second_day.stderr, re.MULTILINE)
    assert re.match(alarm, made["warnings"][0])
    numbers = json.loads(naming.delay_qa_path(site.data / "calibration", SECOND, "json").read_text())
    assert (numbers["passed"], numbers["numbers"]["moved_antennas"]) == (True, 1)
    assert numbers["warnings"] == made["warnings"]
    assert "detail" not in made


@pytest.fixture(scope="module")
def third_day(site: Site, raw: Path, second_day: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """A bandpass of the third day, of which there are no delays, with a list of bad antennas."""
    (site.folder / "bad.yml").write_text("2026-01-12:\n- 5\n- LWA-999\n")
    return site.run(*of_third_day(raw), **listed(site))


def of_third_day(raw: Path, *words: Any) -> tuple[Any, ...]:
    return ("run", "bandpass", "--date", THIRD.date(), "--raw", raw, "--hour", 18, *BLOCK, "--json", *words)


def listed(site: Site) -> dict[str, Any]:
    """Configuration with the file of bad antennas."""
    return {"calibration": {"bad_antennas": {"file": str(site.folder / "bad.yml"), "fallback": [6]}}}


def test_a_bandpass_takes_the_last_good_delays_and_says_so(
    site: Site, third_day: subprocess.CompletedProcess[str]
) -> None:
    [made] = outcomes(third_day).values()
    assert made["status"] == "done", third_day.stderr
    assert "orca: warning: no delays of 2026-01-12: those of 2026-01-11 are taken\n" in third_day.stderr
    inputs = [Path(entry.path).name for entry in read_manifest(Path(made["manifest"])).inputs]
    assert naming.delay_path(site.data, SECOND).name in inputs
    assert len(inputs) == 4  # with the block, which is not in the middle of the hour


def test_bad_antennas_of_a_file_are_left_out_and_unknown_ones_are_told(
    site: Site, third_day: subprocess.CompletedProcess[str]
) -> None:
    [made] = outcomes(third_day).values()
    [bandpass] = read_table(Path(made["table"]))
    assert bandpass.flags[0, 5].all()
    assert not bandpass.flags[0, 6].all()
    assert made["quality"]["n_left_out"] == 1
    told = f"bad antennas: {site.folder}/bad.yml:3: the array has no antenna LWA-999"
    assert told in made["warnings"]
    assert third_day.stderr.count(told) == 1


def test_a_good_table_made_with_other_options_is_kept_in_the_trash_and_that_is_said(
    site: Site, raw: Path, third_day: subprocess.CompletedProcess[str]
) -> None:
    [before] = outcomes(third_day).values()
    old = read_table(Path(before["table"]))[0].values
    result = site.run(*of_third_day(raw, "--uv", "all"), **listed(site))
    kept = {entry.original: entry.path for entry in list_trash(site.data / "trash")}
    assert set(map(str, kept)) >= {before["table"], before["manifest"], before["picture"]}
    assert f"replaces the table made with --uv 10-350, which is now {kept[Path(before['table'])]}\n" in result.stderr
    assert np.array_equal(read_table(kept[Path(before["table"])])[0].values, old)
    assert not np.array_equal(read_table(Path(before["table"]))[0].values, old)


def test_what_the_user_got_wrong_is_said_once_before_any_work(site: Site, raw: Path) -> None:
    result = site.run(*of_third_day(raw, "--refant", "LWA-999"))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("--refant: the array has no antenna LWA-999. Give numbers from 0 to 23") == 1
    assert "no delays" not in result.stderr


@pytest.mark.usefixtures("second_day")
def test_images_are_made_without_calibration_when_none_is_asked_for(site: Site, raw: Path) -> None:
    [source] = (raw / "73MHz" / f"{SECOND:%Y-%m-%d}").rglob("*.ms")
    words = ("--calibration", "none", "--size", 256, "--scale", 0.25, "--out", "images", "--json")
    [made] = outcomes(site.run("run", "imaging", source, *words)).values()
    assert (made["status"], made["quality"]["calibration"]) == ("done", "none")
    assert [Path(entry.path) for entry in read_manifest(Path(made["manifest"])).inputs] == [source]


@pytest.mark.usefixtures("second_day")
def test_the_progress_of_a_night_counts_all_tables_from_the_start(site: Site, raw: Path) -> None:
    command = site.command("run", "calibrate", "--date", SECOND.date(), "--raw", raw)  # the delays are fresh
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        command,
        env={**site.environment(), "TERM": "xterm", "COLUMNS": "120"},
        cwd=site.folder,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # a terminal that nobody writes to any more
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 1  # one integration is no bandpass
    counts = re.findall(r"\s(\d)/(\d)\s", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()))
    assert {total for _, total in counts} == {"3"}


def test_fluxes_of_bright_sources_are_right_within_three_percent(site: Site, tmp_path: Path) -> None:
    """From simulated gains to fluxes: recorded, calibrated by us, imaged with the tables that are found, measured."""
    raw, tree = tmp_path / "raw", {"paths": {"calibration": str(tmp_path / "calibration")}}
    start = datetime(2026, 1, 10, 20, 31, 43, tzinfo=UTC)
    common = {"antennas": 96, "channels": 24, "dead_antennas": (17,), "dead_polarizations": ("30X",)}
    sets = simulate(raw, SimulationOptions(start=start, integrations=3, **common))
    night = start - timedelta(hours=3)  # another sky: Cyg A is low, and Cas A lower
    sets += simulate(raw, SimulationOptions(start=night, integrations=1, **common))
    age(raw)
    words = ("--date", FIRST.date(), "--raw", raw, "--integrations", 3, "--min-integrations", 3, "--no-delay")
    done = site.run("run", "bandpass", *words, **tree)
    assert done.returncode == 0, done.stderr
    fine = ("--size", 1792, "--scale", 0.07, "--extra", "-maxuv-l 350")  # the beam is two pixels wide
    images = (*fine, "--out", tmp_path / "images", "--calibration", "require", "--json")
    result = site.run("run", "imaging", sets[1], sets[3], *images, **tree)
    assert result.returncode == 0, result.stderr
    made = outcomes(result)
    for path, names in ((sets[1], ("Cyg A", "Cas A")), (sets[3], ("Cyg A",))):
        sky = json.loads((raw / "truth" / f"{path.stem}.sky.json").read_text())
        apparent = {source["name"]: source["apparent_jy"] for source in sky["sources"]}
        for name in names:
            quality = made[path.stem]["quality"]
            assert quality[f"I {name} peak_jy"] == pytest.approx(apparent[name], rel=0.03)
            assert quality[f"I {name} expected_jy"] == pytest.approx(apparent[name], rel=1e-3)
            assert quality[f"I {name} offset_px"] < 0.1
