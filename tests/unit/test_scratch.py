"""Owners, scratch folders, what the dead left, and space, one behaviour a test."""

from __future__ import annotations

import os
import socket

import pytest
from some_products import a_set, dead_token

from orca.errors import StorageError
from orca.scratch import owner_alive, owner_token, require_space, scratch_folder, sweep


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
    with scratch_folder(tmp_path / "new" / "scratch", need_bytes=1000, label="stage 73-MHz") as work:
        assert work.path.parent == tmp_path / "new" / "scratch"
        assert work.path.name == f"orca-stage_73_MHz-{work.owner}"
        a_set(work.path / "x.ms")
    assert not work.path.exists()
    with scratch_folder(tmp_path, need_bytes=0, label="x" * 300) as work:
        assert work.path.exists()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with scratch_folder(tmp_path, need_bytes=0, label="x") as work:
            a_set(work.path / "x.ms")
            raise KeyboardInterrupt
    assert not work.path.exists()


def test_scratch_is_refused_before_work_starts_when_it_cannot_hold_it(tmp_path):
    with pytest.raises(StorageError, match=r"scratch for image needs 1e\+06 GB, and .* are free.*Free some space"):
        with scratch_folder(tmp_path / "new", need_bytes=10**15, label="image"):
            pytest.fail("entered")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Choose another folder"):
        with scratch_folder(tmp_path / "file" / "scratch", need_bytes=0, label="image"):
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
