"""Publication, one behaviour a test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from some_products import OPTIONS, a_manifest, a_set, dead_token, hidden

from orca import products
from orca.errors import InputError, MissingDataError, StorageError
from orca.manifest import fingerprint, fresh
from orca.products import publish, write_text


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


def test_what_only_the_old_product_had_is_removed_unless_somebody_changed_it(published, tmp_path):
    final, inputs, manifest_path = published
    (tmp_path / "b.fits").write_bytes(b"new fits")
    publish({tmp_path / "b.fits": final / "b.fits"}, a_manifest(inputs), manifest_path)
    assert sorted(path.name for path in final.iterdir()) == ["a.manifest.json", "b.fits"]
    (final / "b.fits").write_bytes(b"somebody's own")
    (tmp_path / "c.fits").write_bytes(b"newest fits")
    publish({tmp_path / "c.fits": final / "c.fits"}, a_manifest(inputs), manifest_path)
    assert sorted(path.name for path in final.iterdir()) == ["a.manifest.json", "b.fits", "c.fits"]


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
