"""`orca run reduction` as people run it: products, what is skipped, what becomes of the originals."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from casacore.tables import table
from file_times import age
from site_of_tests import Site, outcomes

from orca import naming
from orca.manifest import read_manifest
from orca.ms.flagmeta import read_flagmeta
from orca.ms.simulate import SimulationOptions, simulate
from orca.trash import list_trash, restore

pytestmark = pytest.mark.usefixtures("dask")

FIRST = datetime(2026, 1, 10, 18, 58, 31, tzinfo=UTC)
"""Nine integrations until the hour ends."""
BLOCK = "73MHz 2026-01-10 18h block 14"
LATER = "73MHz 2026-01-10 19h block 00"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A subband around an hour boundary, nobody's to change."""
    root = tmp_path_factory.mktemp("night")
    simulate(root, SimulationOptions(antennas=24, channels=16, start=FIRST, integrations=12, rfi=2))
    age(root)
    return root


@pytest.fixture
def raw(night: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(night, tmp_path / "raw"))


def recorded(raw: Path) -> list[Path]:
    return sorted((raw / "73MHz").glob("*/*/*.ms"))


def reduce(site: Site, raw: Path, tmp_path: Path, *words: Any, **settings: Any) -> dict[str, dict[str, Any]]:
    where = ("--raw", raw, "--date", "2026-01-10", "--out", tmp_path / "averaged", "--json")
    paths = {"paths": {"trash": str(tmp_path / "trash")}}
    return outcomes(site.run("run", "reduction", *where, *words, **paths, **settings))


def test_a_day_is_reduced_block_by_block_and_what_is_fresh_is_skipped(site: Site, raw: Path, tmp_path: Path) -> None:
    made = reduce(site, raw, tmp_path)
    assert {name: (entry["status"], entry["quality"]["integrations"]) for name, entry in made.items()} == {
        BLOCK: ("done", 9),
        LATER: ("done", 3),
    }
    for source in recorded(raw):
        observation = naming.parse(source).observation
        averaged = naming.averaged_path(tmp_path / "averaged", observation)
        with table(str(source), ack=False) as before, table(str(averaged), ack=False) as after:
            shape = before.getcol("DATA").shape
            flags = read_flagmeta(naming.flagmeta_path(tmp_path / "averaged", observation), *shape)
            assert after.getcol("DATA").shape == (shape[0], 4, 4)
            np.testing.assert_array_equal(after.getcol("FLAG"), flags.reshape(shape[0], 4, 4, 4).all(2))
    manifest = read_manifest(Path(made[BLOCK]["manifest"]))
    assert naming.parse(Path(made[BLOCK]["manifest"])).block == 14
    assert (len(manifest.inputs), len(manifest.outputs)) == (9, 18)
    assert {entry["status"] for entry in reduce(site, raw, tmp_path).values()} == {"skipped"}
    some = [str(path) for path in recorded(raw)[2:4]]
    words = ("run", "reduction", *some, "--out", tmp_path / "averaged", "--json")
    assert [entry["status"] for entry in outcomes(site.run(*words)).values()] == ["skipped"]
    again = reduce(site, raw, tmp_path, "--hour", "19", "--average", "2")
    assert [(name, entry["status"]) for name, entry in again.items()] == [(LATER, "done")]


def test_a_bad_integration_is_named_and_one_that_comes_later_is_added(site: Site, raw: Path, tmp_path: Path) -> None:
    first, second, *_ = recorded(raw)
    with table(str(first), readonly=False, ack=False) as broken:
        broken.putcol("DATA", 0 * broken.getcol("DATA"))
    away = second.rename(tmp_path / second.name)
    made = reduce(site, raw, tmp_path, "--hour", "18")[BLOCK]
    assert (made["quality"]["integrations"], made["quality"]["left_out"]) == (7, 1)
    assert made["warnings"] == [f"{first.name} was left out: all visibilities are zero"]
    away.rename(second)
    made = reduce(site, raw, tmp_path, "--hour", "18")[BLOCK]
    assert (made["status"], made["quality"]["integrations"]) == ("done", 8)


def test_originals_go_to_the_trash_only_where_nothing_keeps_them_and_come_back(
    site: Site, raw: Path, tmp_path: Path
) -> None:
    """Cyg A transits at 20:32, so that the first integration is at LST 18.444 h, and the others follow."""
    sources = recorded(raw)
    keep = ("--originals", "trash", "--keep-lst", "18.455-18.6")
    made = reduce(site, raw, tmp_path, *keep)
    left = recorded(raw)
    assert 0 < len(left) < 12
    assert left == sources[-len(left) :]
    assert sum(entry["trashed"] for entry in made.values()) == 12 - len(left)
    trashed = list_trash(tmp_path / "trash")
    assert [entry.original for entry in trashed] == sources[: -len(left)]

    assert {entry["status"] for entry in reduce(site, raw, tmp_path, *keep).values()} == {"skipped"}
    other = reduce(site, raw, tmp_path, "--hour", "18", "--average", "2")[BLOCK]
    assert other["status"] == "failed"
    assert "the files or the options changed after 4 of its originals were removed" in other["reason"]
    assert len(list((tmp_path / "averaged").rglob("*_averaged.ms"))) == 12

    for entry in trashed:
        restore(entry.path)
    assert recorded(raw) == sources
    assert {entry["status"] for entry in reduce(site, raw, tmp_path).values()} == {"skipped"}


def test_an_original_stays_where_its_product_cannot_be_read_back(site: Site, raw: Path, tmp_path: Path) -> None:
    made = reduce(site, raw, tmp_path, "--hour", "19")[LATER]
    product = Path(json.loads(Path(made["manifest"]).read_text())["outputs"][0]["path"])
    data = max(product.glob("table.f*_TSM0"), key=lambda path: path.stat().st_size)
    content, before = bytearray(data.read_bytes()), data.stat()
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a disk that forgets
    harmed = reduce(site, raw, tmp_path, "--hour", "19", "--originals", "trash", "--keep-near", "Cyg A")[LATER]
    assert harmed["status"] == "failed"
    assert "differ from what was written" in harmed["reason"]
    assert len([path for path in recorded(raw) if path.parent.name == "19"]) == 3


def test_wrong_requests_are_told_before_any_work(site: Site, raw: Path, tmp_path: Path) -> None:
    for words, told in (
        ((*recorded(raw)[:1], "--date", "2026-01-10"), "Measurement Sets and a time were given"),
        (("--hour", "3"), "--hour needs a date"),
        (("--raw", raw, "--date", "2026-01-11"), "nothing was recorded 2026-01-11"),
        (("--raw", raw, "--date", "2026-01-10", "--originals", "trash", "--keep-near", "Sun"), "no source 'Sun'"),
        (("--raw", raw, "--date", "2026-01-10", "--strategy", tmp_path / "none.lua"), "no such strategy"),
    ):
        result = site.run("run", "reduction", *words)
        assert result.returncode != 0
        assert told in " ".join(result.stderr.split()), result.stderr
        assert "Traceback" not in result.stderr


def test_an_averaged_measurement_set_gives_the_image_of_its_original(site: Site, tmp_path: Path) -> None:
    # of longer baselines the averaged channels smear Cas A, far from the zenith: 3 % at 250 wavelengths
    options = SimulationOptions(antennas=48, channels=32, start=FIRST, gains=False)
    [source] = simulate(tmp_path / "raw", options)
    age(tmp_path / "raw")
    [block] = reduce(site, tmp_path / "raw", tmp_path).values()
    [averaged] = (tmp_path / "averaged").rglob("*_averaged.ms")
    assert block["quality"]["channels"] == 8
    words = ("--calibration", "none", "--size", "1024", "--scale", "0.125", "--extra", "-maxuv-l 100", "--json")
    made = outcomes(site.run("run", "imaging", source, averaged, *words, "--out", tmp_path / "images"))
    fluxes = []
    for entry in made.values():
        assert entry["status"] == "done", entry
        fluxes.append({name: value for name, value in entry["quality"].items() if name.endswith("_jy") and "A" in name})
    assert fluxes[0].keys() == fluxes[1].keys() != set()
    for name, flux in fluxes[0].items():
        assert fluxes[1][name] == pytest.approx(flux, abs=0.005 * max(fluxes[0].values())), name
