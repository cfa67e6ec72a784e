"""`orca run spectrum` as people run it: dynamic spectra of a date, what is not made again, what is told."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from file_times import age
from site_of_tests import Site, outcomes

from orca import naming
from orca.dynspec.product import GOOD, MISSING, Product
from orca.ms.acceptance import Acceptance
from orca.ms.simulate import SimulationOptions, simulate
from orca.ms.spectrum import spectra
from orca.spectrum_options import SpectrumOptions
from orca.telescope import SUBBANDS

pytestmark = pytest.mark.usefixtures("dask")

FIRST = datetime(2026, 1, 10, 18, 59, 41, tzinfo=UTC)
"""Two integrations until the hour ends."""
BANDS = ("69MHz", "73MHz")
CROSS = "dynamic spectrum cross"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subbands around an hour boundary, nobody's to change."""
    root = tmp_path_factory.mktemp("night")
    simulate(root, SimulationOptions(antennas=24, subbands=BANDS, start=FIRST, integrations=4))
    age(root)
    return root


@pytest.fixture
def raw(night: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(night, tmp_path / "raw"))


def command(raw: Path, tmp_path: Path, *words: Any) -> tuple[Any, ...]:
    where = ("--root", raw, "--date", "2026-01-10", "--out", tmp_path / "dynspec", "--baseline", "none")
    return ("run", "spectrum", *where, *words, "--json")


def settings(tmp_path: Path) -> dict[str, Any]:
    return {"cache": {"uri": str(tmp_path / "cache")}}


def band(path: Path, name: str) -> tuple[np.ndarray, list[int]]:
    """Channels x times of a subband, and what each integration is."""
    [number] = [each.index for each in SUBBANDS if each.name == name]
    with Product(path) as product:
        return np.array(product.band(number)), product.status[number].tolist()


def test_a_date_becomes_dynamic_spectra_and_is_not_made_again(site: Site, raw: Path, tmp_path: Path) -> None:
    some = outcomes(site.run(*command(raw, tmp_path, "--hour", "18"), **settings(tmp_path)))
    assert {name: (entry["status"], entry.get("sets")) for name, entry in some.items()} == {
        "69MHz 2026-01-10 18h": ("done", 2),
        "73MHz 2026-01-10 18h": ("done", 2),
        CROSS: ("done", None),
    }
    broken = sorted(raw.glob("73MHz/*/19/*.ms"))[0]
    shutil.rmtree(broken / "ANTENNA")
    made = outcomes(site.run(*command(raw, tmp_path), **settings(tmp_path)))
    assert [name for name, entry in made.items() if entry["status"] == "done"] == [
        "69MHz 2026-01-10 19h",
        "73MHz 2026-01-10 19h",
        CROSS,
    ]
    assert list(made["73MHz 2026-01-10 19h"]["left_out"]) == [str(broken)]
    tally = made[CROSS]["tally"]
    assert {name: tally[name] for name in ("cache", "product", "recomputed", "missing")} == {
        "cache": 3, "product": 4, "recomputed": 0, "missing": 1,
    }  # fmt: skip

    written = json.loads(naming.manifest_path(Path(made[CROSS]["files"][0])).read_text())
    assert written["quality"]["cache"] == 3
    assert all(written[key] > 0 for key in ("seconds", "cpu_seconds", "peak_memory_bytes"))
    url = json.loads(site.run("status", "--json").stdout)["server"]["url"]
    shown = httpx.post(f"{url}/api/artifacts/filter", json={"limit": 200}).raise_for_status().json()
    assert {f"image-cross-2026-01-10-{name}" for name in ("xx", "xy", "yx", "yy")} <= {each["key"] for each in shown}

    for name in BANDS:
        samples, status = band(naming.dynspec_path(tmp_path / "dynspec", "cross", date(2026, 1, 10), "YX"), name)
        sources = sorted(raw.glob(f"{name}/*/*/*.ms"))
        assert status == [MISSING if source == broken else GOOD for source in sources]
        for k, source in enumerate(sources):
            if source != broken:
                found = spectra(source, SpectrumOptions(), acceptance=Acceptance(settle_s=0), scratch=tmp_path)
                np.testing.assert_array_equal(samples[:, k], found.values["cross"][:, 2])

    shutil.rmtree(broken)
    again = outcomes(site.run(*command(raw, tmp_path), **settings(tmp_path)))
    assert {name: entry["status"] for name, entry in again.items()} == {CROSS: "skipped"}


def test_a_calibration_that_is_required_and_not_there_fails_and_says_what_to_do(
    site: Site, raw: Path, tmp_path: Path
) -> None:
    source = sorted(raw.glob("73MHz/*/*/*.ms"))[0]
    words = ("run", "spectrum", source, "--out", tmp_path / "dynspec", "--calibrate", "require")
    done = site.run(*words, **settings(tmp_path))
    assert done.returncode == 1
    assert "orca: error: 73MHz 2026-01-10 18h: " in done.stderr
    assert "orca run calibrate --date 2026-01-10" in done.stderr


def test_wrong_requests_are_told_at_once(site: Site, raw: Path) -> None:
    for words, told in (
        ((), "neither Measurement Sets nor a date"),
        (("nowhere.ms",), "there is no such Measurement Set"),
        (("--date", "2026-01-10", "--baseline", "LWA128"), "is no baseline"),
        (("--root", raw, "--date", "2026-01-10", "--towards", "Nova"), "there is no source 'Nova'"),
        (("--root", raw, "--date", "2026-01-10", "--flag-antenna", "999"), "has no antenna 999"),
    ):
        done = site.run("run", "spectrum", *words)
        assert (done.returncode, told in done.stderr) == (2, True), done.stderr


def test_a_set_that_was_named_and_cannot_be_used_makes_status_1_and_the_others_are_done(
    site: Site, raw: Path, tmp_path: Path
) -> None:
    good, broken = sorted(raw.glob("73MHz/*/18/*.ms"))
    shutil.rmtree(broken / "ANTENNA")
    words = ("--out", tmp_path / "dynspec", "--baseline", "none", "--towards", "Cyg A")
    done = site.run("run", "spectrum", good, broken, *words, **settings(tmp_path))
    assert done.returncode == 1, done.stderr
    assert f"left out: {broken.name}" in done.stderr
    assert "mean nothing without calibration" in done.stderr
    assert naming.dynspec_path(tmp_path / "dynspec", "cross", date(2026, 1, 10), "XX").exists()
    alone = site.run("run", "spectrum", broken, "--out", tmp_path / "other", **settings(tmp_path))
    assert alone.returncode == 1
    assert "none of 1 can be used" in alone.stderr
    assert "1 failed" in alone.stdout
