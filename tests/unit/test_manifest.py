"""Fingerprints, manifests and freshness, one behaviour a test."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from some_products import OPTIONS, a_manifest, a_set

from orca.errors import InvalidDataError, MissingDataError
from orca.manifest import draft, fingerprint, fresh, read_manifest
from orca.process import ProgramRecord
from orca.products import write_text


def test_fingerprint_of_a_folder_sums_over_all_files_below(tmp_path):
    folder = a_set(tmp_path / "x.ms", size=700)
    os.utime(folder / "ANTENNA" / "table.dat", ns=(0, 2_000_000_000_000_000_123))
    print_ = fingerprint(folder)
    assert (print_.kind, print_.size, print_.files, print_.mtime_ns) == ("folder", 1400, 2, 2_000_000_000_000_000_123)
    assert fingerprint(folder / "table.dat").size == 700


def test_fingerprint_ignores_the_lock_that_readers_write(tmp_path):
    folder = a_set(tmp_path / "x.ms")
    before = fingerprint(folder)
    (folder / "table.lock").write_bytes(b"lock")
    assert fingerprint(folder) == before


def test_fingerprint_follows_a_link_and_names_what_is_missing(tmp_path):
    folder = a_set(tmp_path / "x.ms")
    (tmp_path / "link").symlink_to(folder)
    assert fingerprint(tmp_path / "link") == fingerprint(folder)
    with pytest.raises(MissingDataError, match=r"no\.ms"):
        fingerprint(tmp_path / "no.ms")


def test_manifest_is_sorted_indented_json_and_reads_back_equal(published):
    *_, manifest_path = published
    text = manifest_path.read_text()
    content = json.loads(text)
    assert list(content) == sorted(content)
    assert text.startswith('{\n  "')
    assert content["options"]["mask"] == "/masks/horizon"
    assert content["options"]["polarizations"] == ["XX", "YY"]
    assert read_manifest(manifest_path).text() == text


def test_manifest_holds_program_records_and_numbers_that_are_not_numbers(tmp_path):
    record = ProgramRecord(("wsclean", "-name", "x"), 0, 1.5, 2.5, 3, 4, 5, "x.log")
    manifest = a_manifest(programs=(asdict(record), record), quality={"rms_jy": float("nan")})
    assert manifest.programs[0] == manifest.programs[1]
    assert manifest.programs[0]["argv"] == ["wsclean", "-name", "x"]
    write_text(tmp_path / "m.json", manifest.text())
    assert read_manifest(tmp_path / "m.json").quality == {"rms_jy": None}


def test_manifest_refuses_unknown_fields_and_change():
    with pytest.raises(ValueError, match="password"):
        a_manifest(password="secret")
    with pytest.raises(ValueError, match="frozen"):
        a_manifest().host = "other"


def test_broken_manifest_is_an_error_to_read(tmp_path):
    (tmp_path / "m.json").write_text('{"product": "half')
    with pytest.raises(InvalidDataError, match=r"m\.json"):
        read_manifest(tmp_path / "m.json")
    with pytest.raises(MissingDataError):
        read_manifest(tmp_path / "none.json")


def test_draft_knows_its_inputs_as_they_were_and_adds_up_what_the_programs_cost(tmp_path):
    (tmp_path / "raw").write_text("old")
    begun = draft("x", "image", [tmp_path / "raw"], OPTIONS)
    (tmp_path / "raw").write_text("changed")
    programs = [ProgramRecord((name,), 0, 1.0, 2.0, 30, 4, 5, f"/scratch/gone/{name}.log") for name in ("a", "b")]
    manifest = begun.manifest(programs=programs, cpu_seconds=0.5, peak_memory_bytes=20, quality={"rms_jy": 1.5})
    assert manifest.inputs == begun.inputs
    assert manifest.inputs[0].size == 3
    assert (manifest.cpu_seconds, manifest.peak_memory_bytes) == (4.5, 30)
    assert (manifest.read_bytes, manifest.written_bytes) == (3 + 8, 10)
    assert [program["log"] for program in manifest.programs] == ["a.log", "b.log"], (
        "they are published with the product"
    )


# Freshness ------------------------------------------------------------------------------------------------------------


def test_product_is_fresh_right_after_publication(published):
    final, inputs, manifest_path = published
    manifest = fresh(manifest_path, inputs, OPTIONS)
    assert manifest == read_manifest(manifest_path)
    assert [Path(output.path) for output in manifest.outputs] == [final / "a.fits", final / "a.ms"]
    assert fresh(manifest_path, [fingerprint(path) for path in reversed(inputs)], dict(reversed(OPTIONS.items())))
    assert fresh(manifest_path, inputs, OPTIONS, version="0.1.0")


def append(path):
    with path.open("ab") as sink:
        sink.write(b"x")


CHANGES = {
    "input file grew": lambda final, inputs: append(inputs[0]),
    "input file was touched": lambda final, inputs: os.utime(inputs[0]),
    "input folder got a file": lambda final, inputs: (inputs[1] / "new").write_bytes(b""),
    "file deep in an input folder was touched": lambda final, inputs: os.utime(inputs[1] / "ANTENNA" / "table.dat"),
    "input is gone": lambda final, inputs: inputs[0].unlink(),
    "input was replaced by another of its size": lambda final, inputs: inputs[0].write_bytes(b"rat"),
    "output grew": lambda final, inputs: append(final / "a.fits"),
    "output is gone": lambda final, inputs: (final / "a.fits").unlink(),
    "file of an output folder is gone": lambda final, inputs: (final / "a.ms" / "ANTENNA" / "table.dat").unlink(),
    "manifest is gone": lambda final, inputs: (final / "a.manifest.json").unlink(),
    "manifest is cut": lambda final, inputs: os.truncate(final / "a.manifest.json", 100),
    "manifest is of another program": lambda final, inputs: (final / "a.manifest.json").write_text("{}"),
    "manifest is a binary": lambda final, inputs: (final / "a.manifest.json").write_bytes(b"\xff\x00"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_product_is_not_fresh_when(change, published):
    final, inputs, manifest_path = published
    time.sleep(0.01)  # longer than a tick of the file system's clock
    CHANGES[change](final, inputs)
    assert fresh(manifest_path, inputs, OPTIONS) is None


def test_product_is_not_fresh_for_other_inputs_options_or_versions(published):
    _, inputs, manifest_path = published
    for other in (inputs[:1], [*inputs, inputs[0].parent / "work"], []):
        assert fresh(manifest_path, other, OPTIONS) is None
    for other in (OPTIONS | {"size": 1025}, OPTIONS | {"niter": 0}, {}):
        assert fresh(manifest_path, inputs, other) is None
    assert fresh(manifest_path, inputs, OPTIONS, version="0.2.0") is None


def test_output_of_equal_size_and_time_from_another_publisher_is_not_fresh(published):
    """Lustre's clock ticks once a second, so that two publishers' files may agree in both."""
    final, inputs, manifest_path = published
    state = (final / "a.fits").stat()
    other = final / "other"
    other.write_bytes(b"stif")
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    other.replace(final / "a.fits")
    assert fresh(manifest_path, inputs, OPTIONS) is None


def test_input_brought_back_from_an_archive_is_the_same_input(published, tmp_path):
    _, inputs, manifest_path = published
    subprocess.run(["cp", "-p", inputs[0], tmp_path / "copy"], check=True)
    (tmp_path / "copy").replace(inputs[0])
    assert fresh(manifest_path, inputs, OPTIONS)


def test_manifest_without_outputs_is_never_fresh(tmp_path):
    write_text(tmp_path / "m.json", a_manifest().text())
    assert fresh(tmp_path / "m.json", [], OPTIONS) is None
