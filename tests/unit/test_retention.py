"""Retention: what is removed from disks, and what stays since it is young, or in use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from distributed.diskutils import WorkSpace

from orca.cluster.retention import sweep_dask
from orca.retention import Swept, log_files, sweep_failures, sweep_logs, sweep_scratch, sweep_trash
from orca.scratch import scratch_folder
from orca.trash import list_trash, trash


def age(path: Path, hours: float) -> Path:
    at = time.time() - 3600 * hours
    os.utime(path, (at, at))
    return path


def counts(swept: Swept) -> tuple[int, int]:
    assert swept.problem == ""
    assert (swept.freed_bytes > 0) == (swept.removed > 0)
    return swept.removed, swept.kept


def test_the_trash_is_emptied_of_what_lies_there_for_longer(tmp_path: Path) -> None:
    root = tmp_path / "trash"
    for name, days in (("old", 8), ("young", 6)):
        folder = tmp_path / f"{name}.ms"
        folder.mkdir()
        (folder / "table.dat").write_bytes(b"x" * 10_000)
        trashed = trash(folder, root)
        since = datetime.now(UTC) - timedelta(days=days)
        sidecar = trashed.with_name(f"{trashed.name}.trash.json")
        sidecar.write_text(json.dumps({"original": str(folder), "since": since.isoformat()}))
    assert counts(sweep_trash([root], 7, only_tell=True)) == (1, 1)
    assert len(list_trash(root)) == 2
    told = sweep_trash([root, tmp_path / "none"], 7)
    assert counts(told) == (1, 1)
    assert told.freed_bytes > 10_000
    assert [entry.path.name for entry in list_trash(root)] == ["young.ms"]


DIES = """
import os, signal, sys
from pathlib import Path
from orca.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), need_bytes=1, label="imaging") as work:
    (work.path / "half.ms").write_bytes(b"x" * 10_000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_scratch_of_a_process_that_was_killed_goes_when_it_is_old(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=False)
    assert killed.returncode == -9
    [dead] = tmp_path.iterdir()
    with scratch_folder(tmp_path, need_bytes=1, label="living") as living:
        age(living.path, 48)
        assert counts(sweep_scratch(tmp_path, 1)) == (0, 2)
        age(dead, 2)
        assert counts(sweep_scratch(tmp_path, 1, only_tell=True)) == (1, 1)
        assert counts(sweep_scratch(tmp_path, 1)) == (1, 1)
        assert list(tmp_path.iterdir()) == [living.path]
    assert counts(sweep_scratch(tmp_path / "none", 1)) == (0, 0)


WORKER_DIES = """
import os, signal, sys
from distributed.diskutils import WorkSpace
space = WorkSpace(sys.argv[1])
made = [space.new_work_dir(name=name) for name in ("worker-dead", "worker-young")]
for each in made:
    open(os.path.join(each.dir_path, "spilled"), "wb").write(b"x" * 10_000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_dask_worker_left_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    space = tmp_path / "dask" / "node-0" / "dask-scratch-space"
    space.mkdir(parents=True)
    killed = subprocess.run([sys.executable, "-c", WORKER_DIES, str(space)], check=False)
    assert killed.returncode == -9
    other = tmp_path / "dask" / "dask-scratch-space"  # a new worker in the same place would remove what is dead
    alive = WorkSpace(str(other)).new_work_dir(name="worker-alive")
    for lock in (space / "worker-dead.dirlock", other / "worker-alive.dirlock"):
        age(lock, 3)
    assert counts(sweep_dask(tmp_path, 1, only_tell=True)) == (1, 2)
    assert counts(sweep_dask(tmp_path, 1)) == (1, 2)
    left = sorted(path.name for path in (tmp_path / "dask").rglob("worker-*") if path.is_dir())
    assert left == ["worker-alive", "worker-young"]
    alive.release()


def test_logs_go_that_nothing_writes_to_any_more(tmp_path: Path) -> None:
    run, home, temporary = tmp_path / "run", tmp_path / "prefect", tmp_path / "tmp"
    (run / "logs").mkdir(parents=True)
    (home / "runs" / "node").mkdir(parents=True)
    temporary.mkdir()
    old = [run / "logs" / "redis.log", run / "logs" / "server.log.1", home / "runs" / "node" / "lost.12.log"]
    old += [temporary / "orca-traceback-x.txt"]
    kept = [run / "logs" / "server.log", home / "server.log", home / "runs" / "node" / "known.13.log"]
    for path in (*old, *kept):
        path.write_text("x")
        age(path, 24 * 31)
    (home / "runs" / "node" / "known.json").write_text("{}")
    age(kept[1], 1)
    with kept[0].open("a"):  # which writes seldom
        files = log_files(run, home, temporary)
        assert counts(sweep_logs(files, 30, only_tell=True)) == (4, 2)
        assert counts(sweep_logs(files, 30)) == (4, 2)
    assert [path.exists() for path in (*old, *kept)] == [False] * 4 + [True] * 3


def test_of_failures_whole_days_go(tmp_path: Path) -> None:
    assert counts(sweep_failures(tmp_path / "none", 30)) == (0, 0)
    today = datetime.now(UTC).date()
    days = {number: f"{today - timedelta(days=number)}" for number in (0, 29, 31, 400)}
    for name in (*days.values(), "notes", "2026-13-01"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log").write_text("x")
    assert counts(sweep_failures(tmp_path, 30, only_tell=True)) == (2, 4)
    assert counts(sweep_failures(tmp_path, 30)) == (2, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([days[0], days[29], "notes", "2026-13-01"])


def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orca.retention.remove", lambda path: None)  # as where its rights do not allow it
    (tmp_path / "2020-01-01").mkdir()
    told = sweep_failures(tmp_path, 30)
    assert (told.removed, told.kept, told.problem) == (0, 1, "1 could not be removed: see their rights")
