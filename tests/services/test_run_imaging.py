"""`orca run imaging` as people run it: real Prefect server, real Dask workers, real WSClean."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from site_of_tests import Site, outcomes, script

from orca.ms.simulate import SimulationOptions, simulate

pytestmark = pytest.mark.usefixtures("dask")

FINE = ("--size", "1536", "--scale", "0.08", "--extra", "-maxuv-l 250")
SMALL = ("--size", "1024", "--scale", "0.125", "--extra", "-maxuv-l 120")
"""With FINE the beam of 48 antennas is two pixels wide, so that fluxes can be measured; SMALL only saves time."""


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    simulate(root, SimulationOptions(antennas=48, channels=24, integrations=2))
    return root


@pytest.fixture(scope="module")
def integrations(raw: Path) -> list[Path]:
    return sorted(raw.glob("73MHz/*/*/*.ms"))


@pytest.fixture(scope="module")
def tables(raw: Path) -> list[str]:
    truth = raw / "truth"
    return ["--delay", f"{truth}/73MHz.truth.delay", "--bandpass", f"{truth}/73MHz.truth.bandpass"]


def test_sources_are_found_with_their_flux_where_they_are(
    site: Site, raw: Path, integrations: list[Path], tables: list[str]
) -> None:
    words = ("run", "imaging", *integrations, *tables, "--out", "dirty", *FINE, "--json")
    result = site.run(*words)
    assert result.returncode == 0, result.stderr
    for integration in integrations:
        made = outcomes(result)[integration.stem]
        assert made["status"] == "done"
        sky = json.loads((raw / "truth" / f"{integration.stem}.sky.json").read_text())
        true = {source["name"]: source["apparent_jy"] for source in sky["sources"]}
        for name in ("Cyg A", "Cas A"):
            # of few antennas the sidelobes of Cyg A are 2 % of it, and Cas A is less than half as bright
            assert made["quality"][f"I {name} peak_jy"] == pytest.approx(true[name], abs=0.03 * true["Cyg A"])
            assert made["quality"][f"I {name} offset_px"] < 1
        manifest = json.loads(Path(made["manifest"]).read_text())
        assert "-size" in manifest["programs"][0]["argv"]
        assert {Path(i["path"]).name for i in manifest["inputs"]} >= {integration.name, "73MHz.truth.bandpass"}
        kinds = {Path(name).name.removeprefix(integration.stem) for name in made["files"]}
        assert kinds == {"-dirty.fits", ".png", ".log"}


def test_what_is_fresh_is_skipped_and_what_changed_is_made_again(
    site: Site, integrations: list[Path], tables: list[str]
) -> None:
    words = ("run", "imaging", integrations[0], *tables, *SMALL, "--out", "again", "--json")
    first, second = site.run(*words), site.run(*words)
    assert [outcomes(r)[integrations[0].stem]["status"] for r in (first, second)] == ["done", "skipped"]
    other = site.run(*words, "--pol", "XX")
    assert outcomes(other)[integrations[0].stem]["status"] == "done"
    picture = site.folder / "again" / f"{integrations[0].stem}.png"
    picture.unlink()
    mended = site.run(*words, "--pol", "XX")
    assert outcomes(mended)[integrations[0].stem]["status"] == "done"
    assert picture.exists()


def test_integrations_together_make_one_picture_with_the_sources_in_place(
    site: Site, raw: Path, integrations: list[Path], tables: list[str]
) -> None:
    words = ("run", "imaging", *integrations, *tables, "--together", "--out", "together", *FINE, "--json")
    [made] = outcomes(site.run(*words)).values()
    assert made["quality"]["I Cyg A offset_px"] < 1
    sky = json.loads((raw / "truth" / f"{integrations[0].stem}.sky.json").read_text())
    true = next(source["apparent_jy"] for source in sky["sources"] if source["name"] == "Cyg A")
    assert made["quality"]["I Cyg A peak_jy"] == pytest.approx(true, rel=0.03)


def test_each_broken_input_gets_one_line_and_the_others_are_done(
    site: Site, integrations: list[Path], tables: list[str], tmp_path: Path
) -> None:
    good = integrations[0]

    def copy(name: str) -> Path:
        return Path(shutil.copytree(good, tmp_path / f"{name}.ms"))

    (tmp_path / "nothing.ms").mkdir()
    (tmp_path / "text.ms").write_text("no Measurement Set")
    largest = max((p for p in copy("truncated").iterdir() if p.is_file()), key=lambda p: p.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(largest.stat().st_size // 2)
    shutil.rmtree(copy("subtable") / "SPECTRAL_WINDOW")
    subprocess.run(["tar", "-cf", tmp_path / "broken.ms.tar", "-C", good.parent, good.name], check=True)
    with (tmp_path / "broken.ms.tar").open("r+b") as file:
        file.truncate(100_000)
    subprocess.run(["tar", "-cf", tmp_path / "whole.ms.tar", "-C", good.parent, good.name], check=True)
    [zeros] = simulate(tmp_path / "dead", SimulationOptions(antennas=48, channels=24, dead_subbands=("73MHz",)))
    zeros = zeros.rename(tmp_path / "zeros.ms")
    [fewer] = simulate(tmp_path / "fewer", SimulationOptions(antennas=24, channels=24))
    fewer = fewer.rename(tmp_path / "fewer.ms")
    [other] = simulate(tmp_path / "other", SimulationOptions(antennas=48, channels=24, subbands=("50MHz",)))
    growing, stop = copy("growing"), threading.Event()

    def grow() -> None:
        while not stop.wait(0.1):
            with (growing / "table.f0").open("ab") as file:
                file.write(b"\0" * 4096)

    grower = threading.Thread(target=grow)
    grower.start()
    try:
        result = site.run(
            "run", "imaging", tmp_path / "missing.ms", *sorted(tmp_path.glob("*.ms*")), other, good, *tables,
            "--out", tmp_path / "out", *SMALL, "--json",
        )  # fmt: skip
    finally:
        stop.set()
        grower.join()
    expected = {
        "missing": "no such file",
        "nothing": "empty folder",
        "text": "not a Measurement Set",
        "truncated": "rows need",
        "subtable": "SPECTRAL_WINDOW",
        "broken": "ends too early",
        "zeros": "zero",
        "fewer": "has 48 antennas, the observation 24",
        other.stem: "another subband",
        "growing": "being written",
    }
    found = outcomes(result)
    assert result.returncode == 1
    assert {name for name, entry in found.items() if entry["status"] == "done"} == {good.stem, "whole"}
    for name, words in expected.items():
        assert found[name]["status"] == "failed"
        assert found[name]["cause"] == "payload"
        assert words in found[name]["reason"], (name, found[name]["reason"])
        assert "\n" not in found[name]["reason"]
    assert site.leftovers() == []


def test_wrong_commands_exit_with_2_and_start_nothing(site: Site, integrations: list[Path], tmp_path: Path) -> None:
    cases = {
        ("--size", "huge"): "--size",
        ("--bandpass", "none"): "none",
        ("--pol", "Z"): "Z",
        ("--flag-antennas", "!"): "antenna",
    }
    for words, named in cases.items():
        result = site.run("run", "imaging", integrations[0], *words, "--out", tmp_path / "out")
        assert result.returncode == 2
        assert named in result.stderr
        assert "Traceback" not in result.stderr
    missing = site.run("run", "imaging", integrations[0], execs={"wsclean": "no-such-wsclean"})
    assert missing.returncode == 2
    assert "execs.wsclean" in missing.stderr
    assert site.run("run", "imaging", tmp_path / "none.ms").returncode == 2
    assert not (tmp_path / "out").exists()


def test_inputs_stay_inputs_and_tables_are_of_their_kind(
    site: Site, integrations: list[Path], tables: list[str], tmp_path: Path
) -> None:
    inside = site.run("run", "imaging", integrations[0], *SMALL, "--out", integrations[0] / "images")
    assert (inside.returncode, "inputs are only read" in inside.stderr) == (2, True)
    assert not (integrations[0] / "images").exists()
    swapped = site.run("run", "imaging", integrations[0], "--delay", tables[3], "--out", tmp_path / "out")
    assert (swapped.returncode, "is of kind B Jones" in swapped.stderr) == (2, True)


def test_every_polarization_has_a_picture_and_a_path_given_twice_or_as_tar_counts_once(
    site: Site, integrations: list[Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(integrations[0], tmp_path / integrations[0].name))
    subprocess.run(["tar", "-cf", f"{copy}.tar", "-C", copy.parent, copy.name], check=True)
    words = ("run", "imaging", copy, copy, f"{copy}.tar", *SMALL, "--pol", "IV", "--out", tmp_path / "out")
    result = site.run(*words)
    assert result.returncode == 0, result.stderr
    assert "not calibrated" in result.stderr
    assert {path.name.removeprefix(integrations[0].stem) for path in (tmp_path / "out").iterdir()} == {
        "-I-dirty.fits", "-V-dirty.fits", ".png", "-V.png", ".log", ".manifest.json",
    }  # fmt: skip


def test_a_failing_imager_and_a_deadline_are_told_in_words(
    site: Site, integrations: list[Path], tmp_path: Path
) -> None:
    failing = script(tmp_path / "failing", "echo gridder on fire >&2; exit 3")
    words = ("run", "imaging", integrations[0], *SMALL, "--out", tmp_path / "out", "--json")
    [made] = outcomes(site.run(*words, execs={"wsclean": str(failing)})).values()
    assert "exit code 3" in made["reason"]
    assert "gridder on fire" in made["reason"]
    assert "\n" not in made["reason"]
    assert made["detail"].startswith(made["reason"])
    slow = script(tmp_path / "slow", "sleep 600")
    [made] = outcomes(site.run(*words, "--deadline", "1", execs={"wsclean": str(slow)})).values()
    assert "longer than 1 s" in made["reason"]
    assert subprocess.run(["pgrep", "-f", str(slow)], capture_output=True).returncode == 1
    assert site.leftovers() == []
    [log] = (tmp_path / "out").iterdir()
    assert log.name == f"{integrations[0].stem}.failed.log"
    assert str(log) in made["reason"]
    [made] = outcomes(site.run(*words)).values()
    assert made["status"] == "done"
    assert not log.exists()


def test_a_folder_that_cannot_be_written_is_named_before_anything_runs(
    site: Site, integrations: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    result = site.run("run", "imaging", integrations[0], *SMALL, "--out", tmp_path / "file" / "out")
    assert result.returncode == 1
    assert str(tmp_path / "file") in result.stderr
    assert "Traceback" not in result.stderr


def test_too_little_space_is_refused_and_a_disk_that_fills_up_is_survived(
    site: Site, integrations: list[Path], small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    disk = small_disk("40m")
    words = ("run", "imaging", integrations[0], *SMALL, "--out", tmp_path / "out", "--json")
    paths = {"data": str(site.data), "scratch": str(disk)}
    [made] = outcomes(site.run(*words, paths=paths)).values()
    assert "free" in made["reason"]
    assert list(disk.glob("orca-*")) == []
    filling = script(tmp_path / "filling", f'head -c 60M /dev/zero > {disk}/ballast; exec wsclean "$@"')
    none_kept = {"scratch_reserve_gb": 0.0}
    [made] = outcomes(
        site.run(*words, "--size", "512", paths=paths, limits=none_kept, execs={"wsclean": str(filling)})
    ).values()
    assert made["status"] == "failed"
    assert "full" in made["reason"] or "space" in made["reason"]
    (disk / "ballast").unlink()
    [made] = outcomes(site.run(*words, "--size", "512", paths=paths, limits=none_kept)).values()
    assert made["status"] == "done"


def test_a_disk_that_fills_up_while_calibrating_is_survived(
    integrations: list[Path], small_disk: Callable[[str], Path]
) -> None:
    """casacore aborts the process then: it must be a child's, and the error must say why."""
    from orca.errors import StorageError
    from orca.isolation import run_isolated
    from orca.ms.stage import stage

    disk = small_disk("40m")
    (disk / "ballast").write_bytes(b"\0" * (40 * 1024**2 - 500_000))
    with pytest.raises(StorageError, match="full"):
        run_isolated(stage, integrations[:1], disk / "out.ms", deadline_s=60.0, disk=disk)
    (disk / "ballast").unlink()
    shutil.rmtree(disk / "out.ms", ignore_errors=True)
    staged = run_isolated(stage, integrations[:1], disk / "out.ms", deadline_s=60.0, disk=disk)
    assert np.isfinite(staged.flagged_share)


def test_the_server_is_left_for_the_next_call_and_ended_on_request(site: Site) -> None:
    status = json.loads(site.run("status", "--json").stdout)["server"]
    assert status["healthy"]
    for broken in (lambda file: file.write_text("{garbled"), lambda file: file.unlink()):
        broken(site.data / "prefect" / "server.json")
        found = json.loads(site.run("status", "--json").stdout)["server"]
        assert (found["pid"], found["url"]) == (status["pid"], status["url"])
    assert json.loads(site.run("down", "--json").stdout) == {"ended": [status["pid"]]}
    assert json.loads(site.run("status", "--json").stdout)["server"] is None
    with suppress(psutil.NoSuchProcess):  # where nobody asks how it ended, its number stays
        assert psutil.Process(status["pid"]).status() == psutil.STATUS_ZOMBIE
