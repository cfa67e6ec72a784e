"""`orca show`: a product by any of its files, and what became of them and of what it was made of."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import Result
from typer import Typer
from typer.testing import CliRunner

from orca.cli.show import show
from orca.errors import InvalidDataError, MissingDataError
from orca.manifest import draft
from orca.naming import manifest_path
from orca.process import ProgramRecord
from orca.products import publish
from orca.provenance import trace

NAME = "20260110_203143_73MHz"
PROGRAM = ProgramRecord(("wsclean", "-name", "a b", "x.ms"), 0, 10.5, 20.0, 2_000_000_000, 400, 500, "wsclean.log")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The folder of an image of one input and a bandpass, beside those of other integrations."""
    for number in range(3):
        made(tmp_path, f"20260110_2031{number}3_73MHz")
    return made(tmp_path, NAME)


def made(root: Path, name: str) -> Path:
    (root / "raw").mkdir(exist_ok=True)
    source, table = root / "raw" / f"{name}.ms.tar", root / "raw" / "bandpass_concat.73MHz_20.bandpass"
    source.write_text("visibilities")
    if not table.exists():
        table.write_text("gains")
    begun = draft(name, "image", [source, table], {"size": 4096, "niter": 0, "pol": "I"})
    work, folder = root / "work", root / "images"
    work.mkdir(exist_ok=True)
    files = [work / f"{name}{ending}" for ending in ("-dirty.fits", ".png")]
    for file in files:
        file.write_text(file.name)
    manifest = begun.manifest(
        programs=[PROGRAM], software={"wsclean": "3.1"}, quality={"rms_jy": 3.25, "checksums x": "DATA 1"}
    )
    publish({file: folder / file.name for file in files}, manifest, manifest_path(folder / name))
    return folder


def orca_show(*words: str | Path) -> Result:
    app = Typer()
    app.command()(show)
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("ending", ["-dirty.fits", ".png", "", ".manifest.json"])
def test_a_product_is_found_by_any_of_its_files(image: Path, ending: str) -> None:
    found = trace(image / f"{NAME}{ending}")
    assert found.manifest.product == NAME
    assert found.whole
    assert [each.state for each in (*found.inputs, *found.outputs)] == ["unchanged"] * 4
    assert [table.name for table in found.tables] == ["bandpass_concat.73MHz_20.bandpass"]


def test_what_people_read_has_all_that_matters(image: Path) -> None:
    told = orca_show(image / f"{NAME}.png")
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert lines[0] == f"image {NAME}"
    [command] = [line for line in lines if line.startswith("  wsclean")]
    assert tuple(shlex.split(command)) == PROGRAM.argv
    text = " ".join(told.stdout.split())
    for words in ("20.0 CPU s, 2 GB of memory", "wsclean 3.1", "size 4096", "rms_jy 3.25", "outputs: 2"):
        assert words in text
    assert "checksums" not in text, "that is for programs"


def test_machines_get_the_manifest_and_what_was_seen(image: Path) -> None:
    told = json.loads(orca_show("--json", image / f"{NAME}.png").stdout)
    assert told["manifest"] == json.loads(manifest_path(image / NAME).read_text())
    assert (told["whole"], [each["state"] for each in told["outputs"]]) == (True, ["unchanged"] * 2)


def test_what_changed_or_is_gone_is_told_and_the_exit_status_is_1(image: Path, tmp_path: Path) -> None:
    (image / f"{NAME}.png").write_text("another picture")
    (image / f"{NAME}-dirty.fits").unlink()
    (tmp_path / "raw" / f"{NAME}.ms.tar").unlink()
    told = orca_show(image / NAME)
    assert told.exit_code == 1
    assert "NOT WHOLE" in told.stdout
    states = {Path(line.split()[-1]).name: line.split()[0] for line in told.stdout.splitlines() if "/" in line}
    assert states[f"{NAME}.png"] == "changed"
    assert states[f"{NAME}-dirty.fits"] == states[f"{NAME}.ms.tar"] == "gone"
    assert trace(image / f"{NAME}-dirty.fits").manifest.product == NAME, "what is gone is told of all the same"


def test_a_product_whose_folder_was_moved_is_whole(image: Path) -> None:
    moved = image.rename(image.with_name("archive"))
    found = trace(moved / f"{NAME}.png")
    assert found.whole
    assert [(each.state, each.path.parent) for each in found.outputs] == [("moved", moved)] * 2


def test_what_is_no_product_is_refused_with_the_remedy(image: Path) -> None:
    (image / "notes.txt").write_text("x")
    with pytest.raises(MissingDataError, match="Only products of ORCA have one"):
        trace(image / "notes.txt")
    with pytest.raises(MissingDataError, match="no such file or folder"):
        trace(image / "nothing.fits")
    manifest_path(image / "20260110_203113_73MHz").write_text("{")
    assert trace(image / f"{NAME}.png").whole, "another product's broken manifest is no hindrance"
    with pytest.raises(InvalidDataError, match="not a manifest"):
        trace(image / "20260110_203113_73MHz.manifest.json")
