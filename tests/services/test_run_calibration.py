"""`orca run calibrate` as people run it, on a night with troubles, and images made with the tables that it leaves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from casacore.tables import table
from file_times import age, contents
from site_of_tests import Site, outcomes

from flows.calibration_table import Options, make_table
from flows.calibration_table import Site as Machines
from flows.imaging import Site as ImagingMachines
from flows.imaging import Unit, image_unit
from flows.imaging import _calibrated as calibrated
from orca import naming, telescope
from orca.antennas import BadAntennas
from orca.calibration.choice_options import ChoiceOptions
from orca.calibration.choose import find_calibration
from orca.calibration.options import BlockOptions, DelayOptions, SolveOptions
from orca.calibration.planning import plan_bandpasses, plan_delay
from orca.calibration.tables import read_table
from orca.cluster.worker import ISOLATED_MODULES
from orca.errors import FailedCalibrationError, MissingDataError
from orca.isolation import preload
from orca.manifest import read_manifest
from orca.ms.acceptance import Acceptance
from orca.ms.simulate import SimulationOptions, simulate
from orca.quality_limits import QualityLimits
from orca.skyoptions import SkyOptions
from orca.wsclean import ImagingOptions

pytestmark = pytest.mark.usefixtures("dask")

DAY = date(2026, 1, 10)
FIRST = datetime(2026, 1, 10, 20, 31, 28, tzinfo=UTC)
"""Cyg A transits at 20:31:58 on that day: six integrations from here on are the block about it."""
LATER = datetime(2026, 1, 18, 19, 59, 51, tzinfo=UTC)
"""It transits at 20:00:31 on that day: these are the last of one hour and the first of the next."""
INTEGRATION = timedelta(seconds=telescope.INTEGRATION_S)
ANTENNAS, CHANNELS = 48, 16
BLOCK = ("--integrations", "6", "--min-integrations", "2")
FINE = ImagingOptions(size=1536, scale_deg=0.08, extra=("-maxuv-l 250",))
"""With these the beam of 48 antennas is two pixels wide, so that fluxes can be measured."""


def record(root: Path, band: str, start: datetime, integrations: int, **options: Any) -> list[Path]:
    """Simulated Measurement Sets of the array of this module."""
    chosen = SimulationOptions(
        antennas=ANTENNAS, channels=CHANNELS, subbands=(band,), start=start, integrations=integrations, **options
    )
    return simulate(root, chosen)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night: 73MHz whole, 46MHz with four of no use, 50MHz packed, 55MHz too short, 36MHz flagged in 7 channels."""
    root = tmp_path_factory.mktemp("raw")
    whole = record(root, "73MHz", FIRST, 6)
    averaged = whole[0].with_name(f"{whole[0].stem}_averaged.ms")
    shutil.copytree(whole[0], averaged)
    middle = FIRST + 2 * INTEGRATION
    troubled = record(root, "46MHz", FIRST, 6)
    record(root, "50MHz", middle, 2, tar=True)
    record(root, "55MHz", middle, 1)
    flag_channels(record(root, "36MHz", middle, 2), slice(0, 7))
    record(root, "73MHz", LATER, 8)
    age(root)
    truncate(troubled[1])
    with table(str(troubled[2]), readonly=False, ack=False) as main:
        main.putcol("DATA", np.zeros_like(main.getcol("DATA")))
    with table(str(troubled[3]), readonly=False, ack=False) as main:
        main.putkeyword("FILL_LEVEL_0", 0.2)
    return root


SILENT = {"bad_antennas": {"command": "/bin/false {date}", "fallback": [5, "LWA-114"]}}
"""A source of bad antennas that does not answer; the reference antenna is on the fall-back list."""


@pytest.fixture(scope="module")
def calibrations(site: Site) -> Path:
    return site.data / "calibration"


def flag_channels(sets: list[Path], channels: slice) -> None:
    """Flag these channels in all rows, and no others."""
    for path in sets:
        with table(str(path), readonly=False, ack=False) as main:
            flags = np.zeros_like(main.getcol("FLAG"))
            flags[:, channels] = True
            main.putcol("FLAG", flags)


def truncate(path: Path) -> None:
    """Cut the largest file of a Measurement Set in half."""
    largest = max((file for file in path.iterdir() if file.is_file()), key=lambda file: file.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(largest.stat().st_size // 2)


@contextmanager
def growing(path: Path) -> Iterator[None]:
    """Let a Measurement Set grow in this context."""
    stop = threading.Event()

    def grow() -> None:
        while not stop.wait(0.1):
            with (path / "table.f0").open("ab") as file:
                file.write(b"\0" * 512)

    whole = (path / "table.f0").read_bytes()
    grower = threading.Thread(target=grow)
    grower.start()
    try:
        yield
    finally:
        stop.set()
        grower.join()
        (path / "table.f0").write_bytes(whole)


@pytest.fixture(scope="module")
def night(site: Site, raw: Path) -> subprocess.CompletedProcess[str]:
    """The night's calibration, made while one of the Measurement Sets was still being written."""
    with growing(raw / "46MHz" / "2026-01-10" / "20" / f"{naming.stamp(FIRST)}_46MHz.ms"):
        return site.run("run", "calibrate", "--date", DAY, "--raw", raw, *BLOCK, "--json", calibration=SILENT)


def test_a_night_with_troubles_is_calibrated_as_far_as_it_goes_and_told(
    site: Site, night: subprocess.CompletedProcess[str], calibrations: Path
) -> None:
    made = outcomes(night)
    assert {name: entry["status"] for name, entry in made.items()} == {
        "bandpass 36MHz 2026-01-10 20h": "failed",
        "bandpass 46MHz 2026-01-10 20h": "done",
        "bandpass 50MHz 2026-01-10 20h": "done",
        "bandpass 55MHz 2026-01-10 20h": "failed",
        "bandpass 73MHz 2026-01-10 20h": "done",
        "delay 2026-01-10": "done",
    }, night.stderr
    assert night.returncode == 1
    missing = "11 of 16 subbands, 13MHz to 32MHz, 41MHz, 59MHz to 69MHz, 78MHz to 82MHz"
    assert night.stderr.count("not recorded") == 1
    assert f"orca: warning: not recorded on 2026-01-10: {missing}\n" in night.stderr

    whole = made["bandpass 73MHz 2026-01-10 20h"]
    reference = whole["quality"]["reference_antenna"]
    assert reference != "LWA114"
    assert whole["warnings"] == [
        "bad antennas: /bin/false: ended with exit code 1, and printed nothing; "
        "used is the fall-back list of 2 antennas",
        f"reference antenna LWA-114 is flagged: {reference} is taken",
    ]
    assert f"orca: warning: 4 tables: {whole['warnings'][0]}\n" in night.stderr
    manifest = read_manifest(Path(whole["manifest"]))
    recorded = {f"{naming.stamp(FIRST + k * INTEGRATION)}_73MHz.ms" for k in range(6)}
    assert {Path(entry.path).name for entry in manifest.inputs} == recorded | {"20260110_delay.delay"}
    assert manifest.options["block"] == {"integrations": 6, "min_integrations": 2}
    expected = {"passed": 1, "n_integrations": 6, "n_sets_left_out": 0, "n_left_out": 2, "subband": "73MHz"}
    assert {key: manifest.quality[key] for key in expected} == expected
    [bandpass] = read_table(Path(whole["table"]))
    assert bandpass.flags[0, 5].all()
    assert (bandpass.kind, len(bandpass.antenna_names)) == ("B Jones", ANTENNAS)
    for ending, begins in {"pdf": b"%PDF", "png": b"\x89PNG", "json": b"{"}.items():
        assert naming.bandpass_qa_path(calibrations, "73MHz", DAY, 20, ending).read_bytes().startswith(begins)
        assert naming.delay_qa_path(calibrations, DAY, ending).read_bytes().startswith(begins)

    troubled = made["bandpass 46MHz 2026-01-10 20h"]
    assert troubled["quality"]["n_integrations"] == 2
    report = json.loads(naming.bandpass_qa_path(calibrations, "46MHz", DAY, 20, "json").read_text())
    reasons = [report["sets_left_out"][f"{naming.stamp(FIRST + k * INTEGRATION)}_46MHz.ms"] for k in range(4)]
    for reason, words in zip(reasons, ("still being written", "rows need", "zero", "FILL_LEVEL_0"), strict=True):
        assert words in reason
    assert "46MHz 2026-01-10 20h: 4 of 6 Measurement Sets left out" in night.stderr
    assert "only 2 of 6 integrations were used" in night.stderr

    assert made["bandpass 50MHz 2026-01-10 20h"]["quality"]["n_integrations"] == 2
    assert "1 of 1 integrations can be used, needed are 2" in made["bandpass 55MHz 2026-01-10 20h"]["reason"]
    delays = made["delay 2026-01-10"]
    assert delays["quality"]["subbands"] == "50MHz, 55MHz, 73MHz"
    assert any("1 of 4 Measurement Sets left out" in warning for warning in delays["warnings"])
    assert site.leftovers() == []


@pytest.mark.usefixtures("night")
def test_a_calibration_that_does_not_pass_is_kept_apart_with_the_reason(
    site: Site, raw: Path, calibrations: Path
) -> None:
    failed = naming.bandpass_path(calibrations, "36MHz", DAY, 20, failed=True)
    assert read_table(failed)
    manifest = read_manifest(naming.manifest_path(failed))
    assert manifest.quality["passed"] == 0
    assert "43.8 % of the channels have no solution" in str(manifest.quality["reason"])
    for ending in ("pdf", "png", "json"):
        assert naming.bandpass_qa_path(calibrations, "36MHz", DAY, 20, ending, failed=True).exists()
    assert not naming.bandpass_path(calibrations, "36MHz", DAY, 20).exists()
    with pytest.raises(MissingDataError, match="did not pass"):
        find_calibration(calibrations, "36MHz", telescope.time_s_of(FIRST))


@pytest.mark.usefixtures("night")
def test_the_summary_and_the_pictures_are_on_prefects_page(site: Site) -> None:
    url = json.loads(site.run("status", "--json").stdout)["server"]["url"]
    found = httpx.post(f"{url}/api/artifacts/filter", json={"limit": 200}).raise_for_status().json()
    by_key = {artifact["key"]: artifact for artifact in found}
    rows = {row["unit"]: row for row in json.loads(by_key["nightly-calibration-summary"]["data"])}
    assert "4 of 6 Measurement Sets left out" in rows["bandpass 46MHz 2026-01-10 20h"]["warnings"]
    assert "did not pass" in rows["bandpass 36MHz 2026-01-10 20h"]["why"]
    for name in ("73mhz", "36mhz"):
        assert "data:image/jpeg;base64," in by_key[f"image-bandpass-{name}-2026-01-10-20h"]["data"]


@pytest.mark.usefixtures("night")
def test_only_what_changed_is_made_again_and_a_failed_calibration_that_passes_is_withdrawn(
    site: Site, raw: Path, calibrations: Path
) -> None:
    flag_channels(sorted((raw / "36MHz").rglob("*_36MHz.ms")), slice(0, 0))
    tables = [naming.bandpass_path(calibrations, "73MHz", DAY, 20), naming.delay_path(calibrations, DAY)]
    before = [contents(path.parent) for path in tables]
    again = site.run("run", "calibrate", "--date", DAY, "--raw", raw, *BLOCK, calibration=SILENT)
    expected = {
        "bandpass 36MHz 2026-01-10 20h": "done",
        "bandpass 46MHz 2026-01-10 20h": "done",
        "bandpass 50MHz 2026-01-10 20h": "skipped",
        "bandpass 55MHz 2026-01-10 20h": "failed",
        "bandpass 73MHz 2026-01-10 20h": "skipped",
        "delay 2026-01-10": "skipped",
    }
    for name, status in expected.items():
        assert re.search(rf"^{name} +{status}\b", again.stdout, re.MULTILINE), again.stdout
    assert [contents(path.parent) for path in tables] == before
    assert again.returncode == 1
    assert re.search(r"^orca: error: bandpass 55MHz .*needed are 2", again.stderr, re.MULTILINE)
    assert "3 of 6 Measurement Sets left out" in again.stderr
    good = naming.bandpass_path(calibrations, "36MHz", DAY, 20)
    assert list(good.parent.glob("*.failed*")) == []
    assert find_calibration(calibrations, "36MHz", telescope.time_s_of(FIRST)).bandpass == good


@pytest.fixture
def machines(calibrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    """What the flow knows of the machines, for a task that runs by itself, without Prefect's page."""
    monkeypatch.setattr("flows.calibration_table.show_picture", lambda *_: None)
    preload(ISOLATED_MODULES)
    return Machines(
        calibration=calibrations,
        scratch=tmp_path,
        trash=tmp_path.with_name(f"{tmp_path.name}-trash"),
        stage_s=120,
        reserve_bytes=0,
        acceptance=Acceptance(settle_s=0),
        outriggers=None,
        bad=BadAntennas((), "no list"),
        limits=QualityLimits(),
    )


def test_a_block_may_span_two_hours(raw: Path, tmp_path: Path, machines: Machines) -> None:
    block = BlockOptions(integrations=8, min_integrations=8)
    [planned] = plan_bandpasses(LATER.date(), None, None, raw, tmp_path / "other", block)
    assert {path.parent.name for path in planned.sources.values()} == {"19", "20"}
    made = make_table.fn(planned, Options(sky=SkyOptions(), solve=SolveOptions(), block=block), machines, None)
    assert made.table == naming.bandpass_path(tmp_path / "other", "73MHz", LATER.date(), 20)
    assert (made.quality["n_integrations"], made.warnings) == (8, ())


@pytest.mark.usefixtures("night")
def test_an_earlier_good_calibration_stays_when_the_next_one_fails(
    raw: Path, calibrations: Path, machines: Machines
) -> None:
    block = BlockOptions(integrations=6, min_integrations=2)
    [planned] = plan_bandpasses(DAY, ["73MHz"], None, raw, calibrations, block)
    good = contents(planned.path())
    how = Options(sky=SkyOptions(), solve=SolveOptions(flag_channels=("0-6",)), block=block)
    for _ in range(2):
        with pytest.raises(
            FailedCalibrationError, match=r"did not pass: .*43.8 % of the channels.* See .*\.pdf\.failed beside"
        ):
            make_table.fn(planned, how, machines, None)
    assert planned.path(failed=True).exists()
    assert contents(planned.path()) == good
    assert find_calibration(calibrations, "73MHz", telescope.time_s_of(FIRST)).bandpass == planned.path()
    assert list(machines.scratch.iterdir()) == []


@pytest.mark.usefixtures("night")
def test_images_take_the_calibration_that_was_made_and_fluxes_are_right(
    site: Site, raw: Path, calibrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [raw / "73MHz" / "2026-01-10" / "20" / f"{naming.stamp(FIRST)}_73MHz.ms"]
    far = raw / "73MHz" / "2026-01-18" / "20"
    sets.append(sorted(far.glob("*.ms"))[0])
    words = ("run", "imaging", *sets, "--out", "images", "--size", FINE.size, "--scale", FINE.scale_deg)
    result = site.run(*words, "--extra", FINE.extra[0], "--json")
    assert result.returncode == 0, result.stderr
    made = outcomes(result)
    near, later = (made[path.stem] for path in sets)
    tables = {str(naming.bandpass_path(calibrations, "73MHz", DAY, 20)), str(naming.delay_path(calibrations, DAY))}
    assert {entry.path for entry in read_manifest(Path(near["manifest"])).inputs} == tables | {str(sets[0])}
    why = near["quality"]["calibration"]
    assert why.startswith("bandpass of 2026-01-10 20h (0.0 h away")
    assert f"1 image calibrated with the {why.split(' (')[0]}" in result.stderr
    assert later["quality"]["calibration"].startswith("none: no bandpass of 73MHz within 7 days")
    assert "1 image not calibrated: no bandpass of 73MHz" in result.stderr

    truth = compare_with_truth(raw, sets[0], tmp_path, monkeypatch)
    sky = json.loads((raw / "truth" / f"{sets[0].stem}.sky.json").read_text())
    apparent = {source["name"]: source["apparent_jy"] for source in sky["sources"]}
    for name in ("Cyg A", "Cas A"):
        key = f"I {name} peak_jy"
        assert near["quality"][key] == pytest.approx(truth[key], rel=0.003)
        # of few antennas the sidelobes of Cyg A are 2 % of it, and Cas A is less than two thirds as bright
        assert near["quality"][key] == pytest.approx(apparent[name], abs=0.03 * apparent["Cyg A"])


def compare_with_truth(raw: Path, path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Quality of the image made with the gains that were simulated."""
    monkeypatch.setattr("flows.imaging.show_picture", lambda *_: None)
    tables = tuple(raw / "truth" / f"73MHz.truth.{kind}" for kind in ("delay", "bandpass"))
    machines = ImagingMachines(
        trash=folder / "trash",
        scratch=folder,
        threads=2,
        memory_gb=2,
        wsclean=shutil.which("wsclean") or "wsclean",
        wsclean_s=120,
        stage_s=120,
        reserve_bytes=0,
        acceptance=Acceptance(settle_s=0),
    )
    unit = Unit(name="truth", sources=(path,), prefix=folder / "truth", tables=tables)
    without_bad = FINE.model_copy(update={"flag_antennas": ("5", "LWA-114")})
    return dict(image_unit.fn(unit, without_bad, machines).quality)


@pytest.mark.usefixtures("night")
def test_without_a_calibration_it_can_be_required_or_left(
    raw: Path, site: Site, tmp_path: Path, calibrations: Path
) -> None:
    path = sorted((raw / "55MHz").rglob("*.ms"))[0]
    unit = Unit(name="x", sources=(path,), prefix=tmp_path / "x")
    with pytest.raises(MissingDataError, match="no bandpass of 55MHz"):
        calibrated(unit, calibrations, ChoiceOptions(), required=True)
    assert calibrated(unit, calibrations, ChoiceOptions(), required=False).tables == ()


def test_what_cannot_be_is_refused_before_anything_is_read(raw: Path, calibrations: Path) -> None:
    with pytest.raises(MissingDataError, match="nothing was recorded on 2026-01-12"):
        plan_bandpasses(date(2026, 1, 12), None, None, raw, calibrations, BlockOptions())
    with pytest.raises(MissingDataError, match="no such folder of raw data"):
        plan_delay(DAY, raw / "nowhere", calibrations, DelayOptions())
    assert plan_delay(date(2026, 1, 12), raw, calibrations, DelayOptions()).sources == {}


@pytest.mark.parametrize("command", ["delay", "bandpass", "calibrate"])
def test_help_tells_the_options(site: Site, command: str) -> None:
    result = site.run("run", command, "--help")
    assert result.returncode == 0
    own = {"delay": "--subband", "bandpass": "--hour", "calibrate": "--min-subbands"}[command]
    for option in ("--date", "--raw", "--json", "--refant", own):
        assert option in result.stdout
