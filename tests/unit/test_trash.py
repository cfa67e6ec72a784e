"""What is trashed comes back, and nothing is overwritten."""

from __future__ import annotations

import pytest
from some_products import a_set

from orca.errors import InputError, InvalidDataError, MissingDataError
from orca.manifest import fingerprint
from orca.trash import list_trash, restore, trash


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


def test_what_belongs_together_lies_together_and_files_of_one_name_do_not_meet(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    first = trash(tmp_path / "a", tmp_path / "trash")
    second = trash(tmp_path / "b", tmp_path / "trash", first)
    assert second.parent == first.parent
    (tmp_path / "b").write_text("another")
    other = trash(tmp_path / "b", tmp_path / "trash", first)
    assert (second.read_text(), other.read_text()) == ("b", "another")
    restore(first)
    assert restore(other).read_text() == "another"
    assert [entry.path for entry in list_trash(tmp_path / "trash")] == [second]


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


def test_of_two_that_trash_one_file_the_slower_is_told_that_it_is_gone(tmp_path, monkeypatch):
    original = tmp_path / "a"
    original.write_text("x")

    def overtaken(_):
        monkeypatch.undo()
        trash(original, tmp_path / "trash")

    monkeypatch.setattr("orca.trash.sync", overtaken)
    with pytest.raises(MissingDataError, match="no such file"):
        trash(original, tmp_path / "trash")
    [entry] = list_trash(tmp_path / "trash")
    assert entry.path.read_text() == "x"
    assert len(list((tmp_path / "trash").iterdir())) == 1
