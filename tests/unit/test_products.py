"""Fingerprints, manifests, freshness, scratch, publication and trash, one behaviour a test."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from orca import products
from orca.errors import InputError, InvalidDataError, MissingDataError, StorageError
from orca.process import ProgramRecord
from orca.products import (
    Manifest,
    fingerprint,
    fresh,
    list_trash,
    owner_alive,
    owner_token,
    publish,
    read_manifest,
    require_space,
    restore,
    scratch,
    sweep,
    trash,
    write_text,
)

OPTIONS = {"size": 1024, "scale_deg": 0.03125, "polarizations": ("XX", "YY"), "mask": Path("/masks/horizon")}


def a_manifest(inputs=(), **changes):
    values = {
        "product": "20260110_180000_73MHz",
        "kind": "image",
        "inputs": tuple(fingerprint(path) for path in inputs),
        "options": OPTIONS,
        "software": {"orca": "0.1.0", "wsclean": "3.1"},
        "started": "2026-01-10T18:00:00+00:00",
        "finished": "2026-01-10T18:01:00+00:00",
        "seconds": 60.0,
        "cpu_seconds": 55.5,
        "peak_memory_bytes": 10**9,
        "read_bytes": 4,
        "written_bytes": 5,
        "quality": {"rms_jy": 1.5, "brightest": "Cyg A"},
        "host": "lwacalim00",
    }
    return Manifest(**(values | changes))


def a_set(folder, size=1000):
    """Something like a Measurement Set: a folder with files and a subtable."""
    (folder / "ANTENNA").mkdir(parents=True)
    (folder / "table.dat").write_bytes(b"m" * size)
    (folder / "ANTENNA" / "table.dat").write_bytes(b"a" * size)
    return folder


@pytest.fixture
def published(tmp_path):
    """A product of two files made of two inputs: final folder, inputs, manifest path."""
    inputs = [tmp_path / "raw.ms.tar", a_set(tmp_path / "raw.ms")]
    inputs[0].write_bytes(b"tar")
    work, final = tmp_path / "work", tmp_path / "images" / "73MHz"
    work.mkdir()
    (work / "a.fits").write_bytes(b"fits")
    a_set(work / "a.ms")
    manifest_path = final / "a.manifest.json"
    publish({work / "a.fits": final / "a.fits", work / "a.ms": final / "a.ms"}, a_manifest(inputs), manifest_path)
    return final, inputs, manifest_path


def hidden(folder):
    return list(folder.rglob(".*"))


# Fingerprints and manifests -------------------------------------------------------------------------------------------


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


# Owners, scratch, sweep, space ----------------------------------------------------------------------------------------


def dead_token():
    """Token of a process that has ended."""
    code = "from orca.products import owner_token; print(owner_token())"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_owner_is_alive_while_its_process_runs_and_unknown_elsewhere(monkeypatch):
    token = owner_token()
    host, pid, start, _ = token.split("-")
    assert owner_token() != token
    assert int(pid) == os.getpid()
    assert owner_alive(token)
    assert not owner_alive(dead_token())
    assert not owner_alive(f"{host}-{pid}-{int(start) + 1}-ab12"), "the process id was given to another process"
    assert owner_alive(f"elsewhere-{pid}-{int(start) + 1}-ab12")
    assert owner_alive("not a token"), "what cannot be judged is left alone"
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7.site")
    assert owner_token().startswith("node_7.site-")
    assert owner_alive(owner_token())


def test_scratch_is_removed_at_the_end_and_after_an_error(tmp_path):
    with scratch(tmp_path / "new" / "scratch", need_bytes=1000, label="stage 73-MHz") as work:
        assert work.path.parent == tmp_path / "new" / "scratch"
        assert work.path.name == f"orca-stage_73_MHz-{work.owner}"
        a_set(work.path / "x.ms")
    assert not work.path.exists()
    with scratch(tmp_path, need_bytes=0, label="x" * 300) as work:
        assert work.path.exists()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with scratch(tmp_path, need_bytes=0, label="x") as work:
            a_set(work.path / "x.ms")
            raise KeyboardInterrupt
    assert not work.path.exists()


def test_scratch_is_refused_before_work_starts_when_it_cannot_hold_it(tmp_path):
    with pytest.raises(StorageError, match=r"scratch for image needs 1e\+06 GB, and .* are free.*Free some space"):
        with scratch(tmp_path / "new", need_bytes=10**15, label="image"):
            pytest.fail("entered")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Choose another folder"):
        with scratch(tmp_path / "file" / "scratch", need_bytes=0, label="image"):
            pytest.fail("entered")


def test_space_is_that_of_the_nearest_folder_that_exists(tmp_path):
    require_space(tmp_path / "not" / "yet", 1000, "a test")
    with pytest.raises(StorageError, match="a test needs"):
        require_space(tmp_path / "not" / "yet", 10**15, "a test")


def test_sweep_removes_what_the_dead_left_and_nothing_else(tmp_path):
    alive, dead = owner_token(), dead_token()
    elsewhere = f"elsewhere-{dead.split('-', 1)[1]}"
    keep = [
        a_set(tmp_path / f"orca-stage-{alive}"),
        a_set(tmp_path / f"orca-stage-{elsewhere}"),
        a_set(tmp_path / f"orca-a-b-{dead}"),  # not a name that we give
        a_set(tmp_path / "orca-lwa"),
        a_set(tmp_path / "20260110_180000_73MHz.ms"),
        tmp_path / f".orca-part-{alive}.0",
        tmp_path / f"notes-{dead}",
    ]
    for file in keep[-2:]:
        file.write_text("x")
    gone = [
        a_set(tmp_path / f"orca-stage-{dead}"),
        a_set(tmp_path / f".orca-part-{dead}.0"),
        a_set(tmp_path / f".orca-part-{dead}.0.aside"),
        tmp_path / f".orca-part-{dead}.12",
        tmp_path / f".orca-part-{dead}.text",
    ]
    for file in gone[-2:]:
        file.write_text("x")
    assert sorted(sweep(tmp_path)) == sorted(gone)
    assert sorted(tmp_path.iterdir()) == sorted(keep)
    assert sweep(tmp_path) == []
    assert sweep(tmp_path / "missing") == []


# Publication ----------------------------------------------------------------------------------------------------------


def test_published_files_leave_scratch_and_keep_their_times(tmp_path):
    source, final = tmp_path / "work.fits", tmp_path / "images" / "x.fits"
    source.write_bytes(b"fits")
    os.utime(source, ns=(1_700_000_000_000_000_001, 1_700_000_000_123_456_789))
    manifest = publish({source: final}, a_manifest(), tmp_path / "images" / "x.manifest.json")
    assert not source.exists()
    assert final.read_bytes() == b"fits"
    assert final.stat().st_mtime_ns == manifest.outputs[0].mtime_ns == 1_700_000_000_123_456_789
    assert hidden(tmp_path) == []


def test_publishing_again_replaces_files_and_folders(published, tmp_path):
    final, inputs, manifest_path = published
    (tmp_path / "b.fits").write_bytes(b"new fits")
    a_set(tmp_path / "b.ms", size=5)
    files = {tmp_path / "b.fits": final / "a.fits", tmp_path / "b.ms": final / "a.ms"}
    publish(files, a_manifest(inputs), manifest_path)
    assert (final / "a.fits").read_bytes() == b"new fits"
    assert (final / "a.ms" / "table.dat").read_bytes() == b"mmmmm"
    assert sorted(path.name for path in final.iterdir()) == ["a.fits", "a.manifest.json", "a.ms"]
    assert fresh(manifest_path, inputs, OPTIONS)


def test_a_file_may_take_the_place_of_a_folder_and_a_folder_that_of_a_file(published, tmp_path):
    final, inputs, manifest_path = published
    (tmp_path / "b").write_bytes(b"file")
    a_set(tmp_path / "c")
    publish({tmp_path / "b": final / "a.ms", tmp_path / "c": final / "a.fits"}, a_manifest(inputs), manifest_path)
    assert (final / "a.ms").read_bytes() == b"file"
    assert (final / "a.fits" / "table.dat").exists()
    assert fresh(manifest_path, inputs, OPTIONS)
    assert hidden(final) == []


def test_folder_is_replaced_although_others_keep_publishing_it(published, tmp_path, monkeypatch):
    final, inputs, manifest_path = published
    replace, calls = Path.replace, []

    def another_was_quicker(self, target):
        if target.name == "a.ms" and len(calls) < 4:
            calls.append(target)
            if not target.exists():
                a_set(target, size=3)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", another_was_quicker)
    publish({a_set(tmp_path / "b.ms", size=5): final / "a.ms"}, a_manifest(inputs), manifest_path)
    assert len(calls) == 4
    assert (final / "a.ms" / "table.dat").read_bytes() == b"mmmmm"
    assert fresh(manifest_path, inputs, OPTIONS)
    assert hidden(final) == []


def test_publishing_clears_what_a_dead_publisher_left(published, tmp_path):
    final, inputs, manifest_path = published
    (final / f".orca-part-{dead_token()}.0").write_text("half")
    (tmp_path / "b.fits").write_bytes(b"new")
    publish({tmp_path / "b.fits": final / "a.fits"}, a_manifest(inputs), manifest_path)
    assert hidden(final) == []


def test_copy_to_another_file_system_is_whole_and_keeps_times(published, tmp_path, monkeypatch):
    final, inputs, manifest_path = published
    source = a_set(tmp_path / "b.ms")
    os.utime(source / "table.dat", ns=(5, 1_700_000_000_123_456_789))
    before = fingerprint(source)
    rename = Path.rename

    def another_device(self, target):
        if self == source:
            raise OSError(18, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", another_device)
    manifest = publish({source: final / "a.ms"}, a_manifest(inputs), manifest_path)
    assert manifest.outputs[0].mtime_ns == before.mtime_ns
    assert manifest.outputs[0].size == before.size
    assert not source.exists()
    assert fresh(manifest_path, inputs, OPTIONS)


def test_nothing_happens_when_a_file_is_not_in_scratch(published, tmp_path):
    final, inputs, manifest_path = published
    (tmp_path / "b.fits").write_bytes(b"new")
    files = {tmp_path / "b.fits": final / "a.fits", tmp_path / "missing": final / "missing"}
    with pytest.raises(MissingDataError, match="missing"):
        publish(files, a_manifest(inputs), manifest_path)
    assert fresh(manifest_path, inputs, OPTIONS)
    assert (tmp_path / "b.fits").exists()


def test_products_without_files_or_with_two_files_of_one_name_are_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    for files in (
        {},
        {tmp_path / "a": tmp_path / "c", tmp_path / "b": tmp_path / "c"},
        {tmp_path / "a": tmp_path / "m"},
    ):
        with pytest.raises(InputError):
            publish(files, a_manifest(), tmp_path / "m")


def test_product_folder_in_an_impossible_place_is_a_storage_error(tmp_path):
    (tmp_path / "a").write_text("a")
    with pytest.raises(StorageError, match="Choose another folder"):
        publish({tmp_path / "a": tmp_path / "a" / "b"}, a_manifest(), tmp_path / "m")
    assert (tmp_path / "a").read_text() == "a"


def test_failure_between_two_files_leaves_no_manifest_and_no_hidden_file(published, tmp_path, monkeypatch):
    final, inputs, manifest_path = published
    (tmp_path / "b.fits").write_bytes(b"new")
    a_set(tmp_path / "b.ms")
    replace = products._rename_into_place

    def fail_on_the_second(part, target):
        if target.name == "a.ms":
            raise OSError(5, "Input/output error")
        replace(part, target)

    monkeypatch.setattr(products, "_rename_into_place", fail_on_the_second)
    with pytest.raises(StorageError, match="Input/output error"):
        publish(
            {tmp_path / "b.fits": final / "a.fits", tmp_path / "b.ms": final / "a.ms"},
            a_manifest(inputs),
            manifest_path,
        )
    assert not manifest_path.exists()
    assert hidden(final) == []


def test_small_file_is_replaced_whole(tmp_path):
    path = tmp_path / "x.json"
    write_text(path, "old")
    write_text(path, "new ü\n")
    assert path.read_text() == "new ü\n"
    assert hidden(tmp_path) == []
    with pytest.raises(StorageError):
        write_text(tmp_path / "missing" / "x.json", "text")


# Trash ----------------------------------------------------------------------------------------------------------------


def test_what_is_trashed_comes_back_as_it_was(tmp_path):
    folder, file = a_set(tmp_path / "raw" / "x.ms"), tmp_path / "raw" / "x.tar"
    file.write_text("tar")
    before = [fingerprint(folder), fingerprint(file)]
    trashed = [trash(path, tmp_path / "trash") for path in (folder, file)]
    assert not folder.exists()
    assert not file.exists()
    assert [entry.path for entry in list_trash(tmp_path / "trash")] == trashed
    assert [entry.original for entry in list_trash(tmp_path / "trash")] == [folder, file]
    assert [restore(path) for path in trashed] == [folder, file]
    assert [fingerprint(folder), fingerprint(file)] == before
    assert list_trash(tmp_path / "trash") == []
    assert list((tmp_path / "trash").iterdir()) == []


def test_trash_takes_many_files_of_one_name(tmp_path):
    for i in range(3):
        (tmp_path / "x").write_text(str(i))
        trash(tmp_path / "x", tmp_path / "trash")
    assert sorted(entry.path.read_text() for entry in list_trash(tmp_path / "trash")) == ["0", "1", "2"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_is_overwritten_by_what_comes_back(kind, tmp_path):
    path = tmp_path / "x"
    make = path.mkdir if kind == "folder" else lambda: path.write_text("old")
    make()
    trashed = trash(path, tmp_path / "trash")
    make()
    with pytest.raises(InputError, match="not overwritten"):
        restore(trashed)
    assert trashed.exists()
    if kind == "file":
        path.write_text("new")
        with pytest.raises(InputError):
            restore(trashed)
        assert path.read_text() == "new"


def test_trash_says_what_it_cannot_find(tmp_path):
    with pytest.raises(MissingDataError):
        trash(tmp_path / "missing", tmp_path / "trash")
    with pytest.raises(MissingDataError):
        restore(tmp_path / "trash" / "missing")
    (tmp_path / "x").write_text("x")
    trashed = trash(tmp_path / "x", tmp_path / "trash")
    trashed.with_name("x.trash.json").write_text("{")
    with pytest.raises(InvalidDataError):
        restore(trashed)
    assert list_trash(tmp_path / "trash") == []
    assert trashed.exists()
