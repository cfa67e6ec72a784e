"""Publication under kill -9, two publishers at once, and disks that are full, read-only or another's."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from orca import products
from orca.errors import StorageError
from orca.manifest import Manifest, fresh
from orca.process import run
from orca.products import publish, write_text
from orca.scratch import owner_token, scratch_folder, sweep
from orca.trash import list_trash, trash

SIZE = 200_000
OPTIONS = {"size": 1024}
NAMES = ("a.fits", "b.png", "c.ms")


def a_manifest():
    costs = dict.fromkeys(("seconds", "cpu_seconds", "peak_memory_bytes", "read_bytes", "written_bytes"), 1)
    now = "2026-01-10T18:00:00+00:00"
    return Manifest(
        product="x", kind="image", inputs=(), options=OPTIONS, software={}, started=now, finished=now, host="h", **costs
    )


def make(folder, letter, size=SIZE):
    """Two files and a folder with two, all of one letter: the product before it is published."""
    (folder / "c.ms" / "ANTENNA").mkdir(parents=True)
    for name in ("a.fits", "b.png", "c.ms/table.f0", "c.ms/ANTENNA/table.dat"):
        (folder / name).write_bytes(letter.encode() * size)
    return folder


def publish_from(work, final):
    return publish({work / name: final / name for name in NAMES}, a_manifest(), final / "x.manifest.json")


def is_fresh(final):
    return fresh(final / "x.manifest.json", [], OPTIONS)


def letters(final, size=SIZE):
    """Which publisher each final name is from; fails on anything that is not whole."""
    found = {}
    for name in NAMES:
        path = final / name
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        if not path.exists():
            continue
        assert len(files) == (2 if name == "c.ms" else 1), f"{name} lacks files"
        contents = {file.read_bytes() for file in files}
        assert len(contents) == 1
        content = contents.pop()
        assert len(content) == size
        assert content == content[:1] * size
        found[name] = content[:1].decode()
    return found


def hidden(folder):
    return list(folder.rglob(".*"))


@contextmanager
def forked(function, *args):
    """Call a function in a copy of this process; yield its id. Whatever happens, the copy runs no test of ours."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function(*args)
            code = 0
        finally:
            os._exit(code)
    try:
        yield pid
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)


def killed(pid):
    """Wait for a copy's end without collecting it; tell whether SIGKILL ended it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT).si_code == os.CLD_KILLED


def mount(folder, options):
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
    return folder


@pytest.fixture
def other_disk(tmp_path):
    """A file system of its own, of 3 MB."""
    folder = mount(tmp_path / "other", "size=3m")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


# kill -9 --------------------------------------------------------------------------------------------------------------

KILL_BEFORE = ("rename", "replace", "unlink", "fsync", "open", "mkdir", "rmdir", "close", "stat", "utime", "sendfile")


def die_at(step, function, *args):
    """Call a function, and die by SIGKILL before its call number `step` into the operating system about files."""
    count = 0

    def wrap(name):
        original = getattr(os, name)

        def call(*args, **kwargs):
            nonlocal count
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return original(*args, **kwargs)

        return call

    for name in KILL_BEFORE:
        setattr(os, name, wrap(name))
    function(*args)


@pytest.mark.parametrize("old", [False, True], ids=["first time", "over an older one"])
@pytest.mark.parametrize("across", [False, True], ids=["by renaming", "by copying"])
def test_killed_at_any_step_leaves_nothing_half_written(across, old, tmp_path, request, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # slow, and nothing that a killed process could miss
    scratch_root = request.getfixturevalue("other_disk") if across else tmp_path / "scratch"
    seen, step, died = set(), 0, True
    while died:
        final, work = tmp_path / f"final{step}", scratch_root / f"work{step}"
        if old:
            publish_from(make(tmp_path / "old", "o"), final)
        make(work, "n")
        with forked(die_at, step, publish_from, work, final) as pid:
            died = killed(pid)
        found = letters(final)
        if is_fresh(final):
            assert set(found) == set(NAMES)
            assert len(set(found.values())) == 1
            seen.add(found["a.fits"])
        else:
            seen.add("incomplete")
        sweep(final)
        assert hidden(final) == []
        again = make(tmp_path / "again", "s")
        publish_from(again, final)
        assert is_fresh(final)
        assert letters(final) == dict.fromkeys(NAMES, "s")
        for folder in (final, work, tmp_path / "old", again):
            shutil.rmtree(folder, ignore_errors=True)
        step += 3 if across else 1  # a copy takes many more
    assert step > 30, "the steps of a publication were not all met"
    assert seen == ({"o", "incomplete", "n"} if old else {"incomplete", "n"})


def test_killed_at_any_moment_of_a_copy_leaves_nothing_half_written(tmp_path):
    disk = mount(tmp_path / "disk", "size=200m")
    try:
        size = 20_000_000
        for _ in range(8):
            final, work = tmp_path / "final", disk / "work"
            make(work, "n", size)
            with forked(publish_from, work, final) as pid:
                time.sleep(random.uniform(0, 0.15))
                os.kill(pid, signal.SIGKILL)
            found = letters(final, size)
            assert not is_fresh(final) or set(found) == set(NAMES)
            sweep(final)
            assert not final.exists() or hidden(final) == []
            shutil.rmtree(final, ignore_errors=True)
            shutil.rmtree(work)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def work_and_hang(root):
    with scratch_folder(root, need_bytes=0, label="image") as work:
        (work.path / "half.fits").write_bytes(b"half")
        script = "sleep 300 & echo $! > child.part; mv child.part child; wait"
        options = {"deadline_s": 99, "threads": 1, "cwd": work.path, "owner": work.owner}
        run(["sh", "-c", script], log=work.path / "log", **options)


def test_sweep_ends_the_programs_of_a_killed_worker_and_removes_its_scratch(tmp_path):
    with forked(work_and_hang, tmp_path) as pid:
        end = time.monotonic() + 10
        while not (found := list(tmp_path.glob("orca-image-*/child"))):
            assert time.monotonic() < end
            time.sleep(0.01)
        child = int(found[0].read_text())
        assert sweep(tmp_path) == [], "the scratch of the living is left alone"
        os.kill(pid, signal.SIGKILL)
    assert Path(f"/proc/{child}").exists()
    assert sweep(tmp_path) == [found[0].parent]
    assert list(tmp_path.iterdir()) == []
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or ") Z " in state.read_text()


def tell_token_and_die(file):
    file.write_text(owner_token())


def test_sweeps_at_the_same_time_do_not_trip_over_each_other(tmp_path):
    with forked(tell_token_and_die, tmp_path / "token"):
        pass
    dead = (tmp_path / "token").read_text()
    folder = tmp_path / "scratch"
    for i in range(40):
        make(folder / f"orca-x{i}-{dead}", "x", 10)
        (folder / f".orca-part-{dead}.{i}").write_text("x")
    with forked(sweep, folder), forked(sweep, folder), forked(sweep, folder):
        sweep(folder)
    assert list(folder.iterdir()) == []


# Two publishers -------------------------------------------------------------------------------------------------------


def publish_at(start, delay_s, work, final):
    while not start.exists():
        time.sleep(0.0005)
    time.sleep(delay_s)
    publish_from(work, final)


def test_two_publishers_at_once_never_pass_for_one(tmp_path):
    """Also for a reader in between: what is fresh before and after reading is of one publisher, and whole."""
    final, start = tmp_path / "final", tmp_path / "start"
    whole = [dict.fromkeys(NAMES, letter) for letter in "xyz"]
    outcomes = {"one": 0, "mixed": 0}
    for _ in range(50):
        works = [make(tmp_path / f"work-{letter}", letter, 2000) for letter in "xy"]
        calls = [(publish_at, start, random.uniform(0, 0.003), work, final) for work in works]
        with forked(*calls[0]) as first, forked(*calls[1]) as second:
            start.write_text("")
            while any(
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None for pid in (first, second)
            ):
                before = is_fresh(final)
                try:
                    found = letters(final, 2000)
                except (OSError, AssertionError):  # a folder was renamed away while it was read
                    continue
                assert before is None or before != is_fresh(final) or found in whole
        found = letters(final, 2000)
        assert set(found) == set(NAMES), "both have ended: everything is there"
        one = len(set(found.values())) == 1
        outcomes["one" if one else "mixed"] += 1
        assert one or is_fresh(final) is None
        assert hidden(final) == []
        publish_from(make(tmp_path / "work-z", "z", 2000), final)
        assert is_fresh(final), "and the next one mends it"
        start.unlink()
        for letter in "xyz":
            shutil.rmtree(tmp_path / f"work-{letter}")
    assert outcomes["one"] > 0, outcomes


def test_mix_of_two_publishers_is_not_fresh(tmp_path, monkeypatch):
    """The worst order, made to happen: the second publishes all of its files between two of the first's."""
    final = tmp_path / "final"
    first, second = make(tmp_path / "first", "x"), make(tmp_path / "second", "y")
    rename = products._rename_into_place

    def interrupted(part, target):
        if target.name == "b.png":
            monkeypatch.setattr(products, "_rename_into_place", rename)
            publish_from(second, final)
            (final / "b.png.kept").write_bytes((final / "b.png").read_bytes())
        rename(part, target)

    monkeypatch.setattr(products, "_rename_into_place", interrupted)
    manifests = []
    monkeypatch.setattr(products, "write_text", lambda path, text: manifests.append(text) or write_text(path, text))
    publish_from(first, final)
    assert letters(final) == {"a.fits": "y", "b.png": "x", "c.ms": "x"}
    for text in manifests:  # whichever of the two manifests had come last
        write_text(final / "x.manifest.json", text)
        assert is_fresh(final) is None


# Disks ----------------------------------------------------------------------------------------------------------------


def test_full_disk_is_refused_before_anything_is_copied(other_disk, tmp_path):
    work = make(tmp_path / "work", "n", 2_000_000)
    with pytest.raises(StorageError, match=r"needs 2 MB, and .* are free.*Free some space"):
        publish_from(work, other_disk / "final")
    assert list((other_disk / "final").iterdir()) == []


def test_disk_that_fills_up_during_the_copy_leaves_the_old_product(other_disk, tmp_path, monkeypatch):
    final = other_disk / "final"
    publish_from(make(tmp_path / "old", "o", 100_000), final)
    monkeypatch.setattr(products, "require_space", lambda *_: None)  # another takes the space meanwhile
    for big in NAMES:
        work = make(tmp_path / f"work-{big}", "n", 100_000)
        inside = work / big if big != "c.ms" else work / big / "table.f0"
        inside.write_bytes(b"n" * 4_000_000)
        with pytest.raises(StorageError, match=r"no space left: 4(\.\d)? MB needed, .* free"):
            publish_from(work, final)
        assert hidden(final) == []
        assert letters(final, 100_000) == dict.fromkeys(NAMES, "o")
        assert is_fresh(final)


def test_disk_without_room_for_the_manifest_has_no_product(other_disk, tmp_path):
    work = make(other_disk / "work", "n", 1000)
    subprocess.run(["sh", "-c", "cat /dev/zero > filler"], cwd=other_disk, stderr=subprocess.DEVNULL)
    with pytest.raises(StorageError, match="no space left"):
        publish_from(work, other_disk / "final")
    assert not is_fresh(other_disk / "final")
    assert not (other_disk / "final").exists() or hidden(other_disk / "final") == []
    with pytest.raises(StorageError, match="scratch for x needs"):
        with scratch_folder(other_disk, need_bytes=10_000, label="x"):
            pytest.fail("entered")


def test_read_only_disk_is_a_storage_error_with_a_remedy(other_disk, tmp_path):
    final = other_disk / "final"
    publish_from(make(tmp_path / "old", "o"), final)
    subprocess.run(["mount", "-o", "remount,ro", other_disk], check=True)
    work = make(tmp_path / "work", "n")
    with pytest.raises(StorageError, match=r"cannot be written.*Choose another folder"):
        publish_from(work, final)
    with pytest.raises(StorageError, match=r"cannot be written.*Choose another folder"):
        with scratch_folder(other_disk / "scratch", need_bytes=0, label="x"):
            pytest.fail("entered")
    assert is_fresh(final)
    assert letters(work) == dict.fromkeys(NAMES, "n"), "what could not be published is still in scratch"


def test_trash_on_another_file_system_is_refused(other_disk, tmp_path):
    file = tmp_path / "x.tar"
    file.write_text("x")
    with pytest.raises(StorageError, match="another file system"):
        trash(file, other_disk / "trash")
    assert file.read_text() == "x"
    assert list((other_disk / "trash").iterdir()) == []


def test_killed_while_moving_to_the_trash_loses_nothing(tmp_path):
    where, step = set(), 0
    while "trash" not in where:
        file, root = tmp_path / f"x{step}", tmp_path / f"trash{step}"
        file.write_text("precious")
        with forked(die_at, step, trash, file, root):
            pass
        entries = list_trash(root)
        where.add("place" if file.exists() else "trash")
        assert file.exists() == (entries == [])
        found = file if file.exists() else entries[0].path
        assert found.read_text() == "precious"
        step += 1
    assert "place" in where
    assert json.loads(next(root.rglob("*.trash.json")).read_text())["original"] == str(file)
