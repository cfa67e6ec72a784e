"""Programs and isolated functions that hang, hog, crash, or lose their caller: nothing is left running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

from orca import isolation
from orca.errors import DeadlineError, InfrastructureError, InputError, ProgramError, StoppedError, StorageError
from orca.isolation import run_isolated
from orca.process import end_orphans, run

HANG = "echo $$ >> pids; sleep 300 & echo $! >> pids; "
"""A shell and a child of it; both tell their ids."""


def shell(script, tmp_path, **options):
    options = {"deadline_s": 60, "threads": 1, "cwd": tmp_path} | options
    return run(["sh", "-c", script], log=tmp_path / "sh.log", **options)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition, patience_s=40.0):
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def pids(tmp_path, count=2):
    file = tmp_path / "pids"
    wait_for(lambda: file.exists() and file.read_text().count("\n") >= count)
    return [int(line) for line in file.read_text().split()]


@pytest.fixture
def caller(tmp_path):
    """Start scripts that call `run`; whatever they leave is killed at the end."""
    started = []
    temporary = tempfile.TemporaryDirectory(prefix="orca-")  # a killed process leaves its own in there; a short path

    def start(code):
        script = tmp_path / "caller.py"
        head = "import sys, time, threading\nfrom pathlib import Path\n"
        head += "from orca.isolation import run_isolated\nfrom orca.process import run\n"
        script.write_text(head + f"FOLDER = Path({str(tmp_path)!r})\n" + textwrap.dedent(code))
        environment = os.environ | {"TMPDIR": temporary.name}
        started.append(subprocess.Popen([sys.executable, script], cwd=tmp_path, env=environment))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()
    for line in (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else []:
        if running(line):
            os.kill(int(line), signal.SIGKILL)
    temporary.cleanup()


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 3 MB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


# Programs ---------------------------------------------------------------------------------------------------------


def test_deadline_ends_the_whole_group(tmp_path):
    start = time.monotonic()
    with pytest.raises(DeadlineError, match=r"sh: took longer than 0\.5 s") as caught:
        shell(HANG + "echo working; wait", tmp_path, deadline_s=0.5)
    assert time.monotonic() - start < 60
    assert not any(map(running, pids(tmp_path)))
    assert caught.value.tail.endswith("working")


def test_deadline_ends_a_group_that_ignores_sigterm(tmp_path):
    start = time.monotonic()
    with pytest.raises(DeadlineError):
        shell("trap '' TERM; " + HANG + "wait", tmp_path, deadline_s=0.3)
    assert 2.0 < time.monotonic() - start < 60
    assert not any(map(running, pids(tmp_path)))


def test_program_may_tidy_up_on_sigterm(tmp_path):
    with pytest.raises(DeadlineError) as caught:
        shell("trap 'echo tidied up; exit 0' TERM; sleep 300 & wait", tmp_path, deadline_s=0.3)
    assert "tidied up" in caught.value.tail


def test_stop_ends_the_whole_group_with_its_reason(tmp_path):
    def stop():
        return "cancelled by the user" if len(pids(tmp_path)) == 2 else None

    with pytest.raises(StoppedError, match="cancelled by the user"):
        shell(HANG + "wait", tmp_path, stop=stop)
    assert not any(map(running, pids(tmp_path)))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, ValueError])
def test_anything_raised_while_waiting_ends_the_whole_group(kind, tmp_path):
    def stop():
        if len(pids(tmp_path)) == 2:
            raise kind

    with pytest.raises(kind):
        shell(HANG + "wait", tmp_path, stop=stop)
    assert not any(map(running, pids(tmp_path)))


def test_nothing_of_the_group_survives_a_program_that_ended_well(tmp_path):
    assert shell("trap '' TERM; " + HANG + "exit 0", tmp_path).exit_code == 0
    assert not any(map(running, pids(tmp_path)))


def test_memory_limit_ends_the_program_and_names_the_remedy(tmp_path):
    hog = f"{sys.executable} -c 'import time; data = bytearray(400_000_000); time.sleep(300)'"
    for script in (f"exec {hog}", f"{hog}; true"):  # itself, and a child of it
        start = time.monotonic()
        with pytest.raises(ProgramError, match=r"more than its limit of 0\.2 GB.*memory_gb"):
            shell(script, tmp_path, memory_gb=0.2)
        assert time.monotonic() - start < 60


def test_mapped_files_are_not_held_against_the_memory_limit(tmp_path):
    """WSClean maps the files into which it reorders visibilities; the kernel takes those pages back when it must."""
    with (tmp_path / "data").open("wb") as sink:
        sink.truncate(400_000_000)
    script = "import mmap, time; file = open('data', 'r+b'); data = mmap.mmap(file.fileno(), 0); sum(data[::4096]); "
    argv = [sys.executable, "-c", script + "time.sleep(0.5)"]
    record = run(argv, log=tmp_path / "log", deadline_s=20, threads=1, memory_gb=0.2, cwd=tmp_path)
    assert record.peak_memory_bytes > 400e6


def test_full_disk_is_told_from_a_bug(tiny_disk, tmp_path):
    with pytest.raises(StorageError, match="disk"):  # it says so
        shell("head -c 9000000 /dev/zero > big", tmp_path, cwd=tiny_disk)
    (tiny_disk / "big").unlink()
    with pytest.raises(StorageError, match=str(tiny_disk)):  # it does not say so, and the disk is full
        shell("head -c 9000000 /dev/zero > big 2>/dev/null; exit 1", tmp_path, cwd=tiny_disk)
    with pytest.raises(StorageError, match=str(tiny_disk)):
        shell("exit 1", tmp_path, cwd=tmp_path, disk=tiny_disk)
    with pytest.raises(StorageError):  # no room even for the log
        run(["sh", "-c", "exit 0"], log=tiny_disk / "log", deadline_s=40, threads=1)
    with pytest.raises(ProgramError):
        shell("exit 1", tmp_path)


# A caller that is killed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["main thread", "worker thread"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_program_dies_with_its_caller(where, number, caller, tmp_path):
    call = "run(['sh', '-c', 'echo $$ >> pids; exec sleep 300'], log=FOLDER / 'log', deadline_s=99, threads=1)"
    if where == "worker thread":
        call = f"threading.Thread(target=lambda: {call}).start(); time.sleep(99)"
    parent = caller(call)
    (program,) = pids(tmp_path, 1)
    assert running(program)
    parent.send_signal(number)
    parent.wait()
    wait_for(lambda: not running(program), 1.0)


def test_children_of_a_wrapper_are_ended_as_orphans(caller, tmp_path):
    """A wrapper dies with the killed caller, what it started does not: that is what the owner token is for."""
    call = "run(['sh', '-c', {script!r}], log=FOLDER / 'log', deadline_s=99, threads=1, owner='host-1-2-abc')"
    parent = caller(call.format(script=HANG + "wait"))
    wrapper, child = pids(tmp_path)
    parent.kill()
    parent.wait()
    wait_for(lambda: not running(wrapper), 1.0)
    assert running(child)
    assert end_orphans("host-1-2-ab") == 0, "another owner, although a beginning of this one's name"
    assert running(child)
    assert end_orphans("host-1-2-abc") == 1
    assert not running(child)
    assert end_orphans("host-1-2-abc") == 0


def test_orphans_that_left_their_session_are_found_and_this_process_is_spared(tmp_path, monkeypatch):
    monkeypatch.setenv("ORCA_OWNER", "host-1-2-def")
    script = "echo $$ >> pids; setsid sh -c 'echo $$ >> pids; exec sleep 300' & wait"
    outside = subprocess.Popen(["sh", "-c", script], cwd=tmp_path, start_new_session=True)
    found = pids(tmp_path)
    assert end_orphans("host-1-2-def") >= 2
    assert not any(map(running, found))
    outside.wait()


def test_owner_must_not_be_empty():
    with pytest.raises(InputError):
        end_orphans("")


# Isolated functions -----------------------------------------------------------------------------------------------


def tell_pid_and_hang(file):
    with Path(file).open("a") as sink:
        sink.write(f"{os.getpid()}\n")
    time.sleep(300)


def tell_pid_and_hold_the_lock(file):
    with Path(file).open("a") as sink:
        sink.write(f"{os.getpid()}\n")
    re.match(r"(a+)+$", "a" * 60 + "b")  # hours inside one C call that never lets another thread run


def hang_with_a_deaf_child(file):
    deaf = subprocess.Popen(["sh", "-c", "trap '' TERM INT; echo $$; exec sleep 300"], stdout=subprocess.PIPE)
    with Path(file).open("a") as sink:
        sink.write(f"{os.getpid()}\n{deaf.pid}\n")
    time.sleep(300)


def fill_and_abort(folder):
    try:
        (Path(folder) / "big").write_bytes(b"x" * 9_000_000)
    except OSError:
        os.abort()


def fill_a_table(folder):
    tables = pytest.importorskip("casacore.tables")
    column = tables.maketabdesc([tables.makescacoldesc("A", 1.0)])
    with tables.table(f"{folder}/full.tab", column, nrow=1_000_000, ack=False) as table:
        table.putcol("A", [1.0] * 1_000_000)


@pytest.mark.parametrize("function", ["tell_pid_and_hang", "tell_pid_and_hold_the_lock"])
def test_isolated_child_and_its_server_die_with_the_killed_caller(function, caller, tmp_path):
    """Also inside a C function that holds the interpreter's lock, as casacore and AOFlagger do."""
    parent = caller(f"""
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_process_faults import {function}
        run_isolated({function}, FOLDER / 'pids', deadline_s=99)
    """)
    (child,) = pids(tmp_path, 1)
    server = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    assert server not in (parent.pid, os.getpid())
    assert running(child)
    parent.kill()
    parent.wait()
    wait_for(lambda: not running(child), 1.0)
    wait_for(lambda: not running(server), 1.0)


def test_isolated_deadline_ends_the_childs_group(tmp_path):
    with pytest.raises(DeadlineError):
        run_isolated(hang_with_a_deaf_child, tmp_path / "pids", deadline_s=1.5)
    assert not any(map(running, pids(tmp_path)))


def test_isolated_deadline_ends_a_child_that_holds_the_interpreters_lock(tmp_path):
    with pytest.raises(DeadlineError):
        run_isolated(tell_pid_and_hold_the_lock, tmp_path / "pids", deadline_s=1.5)
    assert not any(map(running, pids(tmp_path, 1)))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_anything_raised_while_waiting_ends_the_isolated_child(kind, tmp_path):
    def stop():
        if len(pids(tmp_path, 1)) == 1:
            raise kind

    with pytest.raises(kind):
        run_isolated(tell_pid_and_hang, tmp_path / "pids", deadline_s=30, stop=stop)
    assert not any(map(running, pids(tmp_path, 1)))


def test_isolated_child_killed_from_outside_is_the_infrastructures_fault(tmp_path):
    def kill():
        os.kill(pids(tmp_path, 1)[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InfrastructureError, match="memory") as caught:
        run_isolated(tell_pid_and_hang, tmp_path / "pids", deadline_s=30)
    killer.join()
    assert caught.value.retryable


def test_killed_server_of_isolated_children_is_replaced(tmp_path):
    def kill():
        pids(tmp_path, 1)
        os.kill(isolation._SERVER._forkserver_pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InfrastructureError, match="server"):
        run_isolated(tell_pid_and_hang, tmp_path / "pids", deadline_s=30)
    killer.join()
    wait_for(lambda: not any(map(running, pids(tmp_path, 1))), 1.0)
    assert run_isolated(abs, -3, deadline_s=30) == 3


def test_isolated_abort_on_a_full_disk_is_a_storage_error(tiny_disk):
    with pytest.raises(StorageError, match=str(tiny_disk)):
        run_isolated(fill_and_abort, tiny_disk, deadline_s=30, disk=tiny_disk)
    (tiny_disk / "big").unlink()
    with pytest.raises(ProgramError, match="SIGABRT"):
        run_isolated(os.abort, deadline_s=30, disk=tiny_disk)


def test_casacore_on_a_full_disk_does_not_take_the_caller_with_it(tiny_disk):
    with pytest.raises((StorageError, RuntimeError)) as caught:
        run_isolated(fill_a_table, tiny_disk, deadline_s=30, disk=tiny_disk)
    assert "space" in str(caught.value) or "full" in str(caught.value)


def test_no_file_descriptor_is_left_behind(tmp_path):
    run_isolated(abs, -1, deadline_s=40)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        run_isolated(abs, -1, deadline_s=40)
        shell("true", tmp_path)
        with pytest.raises(ProgramError):
            run_isolated(os.abort, deadline_s=40)
        with pytest.raises(DeadlineError):
            run_isolated(time.sleep, 9, deadline_s=0.05)
        with pytest.raises(ProgramError):
            shell("exit 1", tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
