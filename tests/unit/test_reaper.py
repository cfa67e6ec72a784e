"""What the reaper takes for dead, and what it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orca.cluster.warm.ending import end_of, end_session
from orca.cluster.warm.reaper import SILENT_S, Sightings
from orca.cluster.warm.records import Process, Record, locked, read, records, this_host

RUN = "0b0ff2a0-5f3f-4c43-a3a5-3a2ad2a0c5a1"


def record_of(folder: Path, process: Process, host: str = "node1") -> Record:
    """A record on disk."""
    return Record(RUN, host, process, "imaging", f"{host}-imaging", None, folder / host).write()


@pytest.fixture
def mine(tmp_path: Path) -> Record:
    """A record of this process."""
    return record_of(tmp_path, Process.of(os.getpid()))


def test_a_record_comes_back_from_disk_as_it_was(mine: Record, tmp_path: Path) -> None:
    assert read(mine.path) == mine
    assert records(tmp_path) == records(tmp_path, "node1") == [mine]
    assert records(tmp_path, "node2") == []


def test_a_broken_record_is_none(mine: Record, tmp_path: Path) -> None:
    mine.path.write_text('{"flow_run_id": ')
    assert records(tmp_path) == []


def test_a_process_is_told_from_another_with_its_number_and_from_one_before_a_reboot(mine: Record) -> None:
    assert mine.process.alive()
    assert not replace(mine.process, ticks=mine.process.ticks - 1).alive()
    assert not replace(mine.process, boot="another").alive()


def test_a_process_that_has_ended_is_dead_though_nobody_waited_for_it() -> None:
    child = subprocess.Popen(["sleep", "600"])
    process = Process.of(child.pid)
    assert process.alive()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.alive()
    child.wait()


def test_a_record_that_is_touched_is_never_silent(mine: Record) -> None:
    sightings = Sightings()
    for second in range(0, 1000, 10):
        os.utime(mine.path, (second // 15, second // 15))  # a clock that is decades off
        assert sightings.silent([mine], float(second)) == []


def test_a_record_is_silent_when_it_was_watched_for_long_and_did_not_change(mine: Record) -> None:
    sightings = Sightings()
    os.utime(mine.path, (0, 0))
    silent = [second for second in range(0, 200, 10) if sightings.silent([mine], float(second))]
    assert silent[0] == 100 > SILENT_S
    assert silent[-1] == 190


def test_time_in_which_nobody_looked_does_not_count(mine: Record) -> None:
    sightings = Sightings()
    for second in (0, 10, 20, 200, 210):  # the disk was away, or this machine slept
        assert sightings.silent([mine], float(second)) == []


def test_two_at_once_do_not_both_end_a_record(mine: Record) -> None:
    code = (
        "import sys; from pathlib import Path; from orca.cluster.warm.records import locked, read\n"
        "with locked(read(Path(sys.argv[1]))) as ours: print(ours)"
    )

    def other() -> str:
        command = [sys.executable, "-c", code, str(mine.path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with locked(mine) as ours:
        assert ours
        assert other() == "False"
    assert other() == "True"
    mine.forget()
    with locked(mine) as ours:
        assert not ours


def test_a_record_of_a_later_process_is_not_ended_for_an_earlier_one(mine: Record) -> None:
    with locked(replace(mine, process=replace(mine.process, pid=1))) as ours:
        assert not ours


@pytest.mark.parametrize(
    ("code", "text", "outside"),
    [
        (-signal.SIGKILL, "memory ran out", True),
        (-signal.SIGTERM, "SIGTERM", True),
        (-signal.SIGSEGV, "SIGSEGV", False),
        (-64, "SIGRTMAX", False),
        (1, "exit status 1", False),
        (None, "nobody saw how", True),
    ],
)
def test_the_message_says_how_a_process_ended(mine: Record, code: int | None, text: str, outside: bool) -> None:
    if code is not None:
        mine.exit_path.write_text(str(code))
    mine.log.write_text("first\nModuleNotFoundError: no such thing\n")
    end = end_of(mine)
    assert text in end.message
    assert str(mine.process.pid) in end.message
    assert end.outside is outside
    assert ("no such thing" in end.message) is (code == 1)


def test_what_a_dead_leader_left_of_its_session_is_killed_and_a_living_ones_is_not() -> None:
    leader = subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert leader.stdout is not None
    child = Process.of(int(leader.stdout.readline()))
    process = Process.of(leader.pid)
    end_session(process)
    assert child.alive()
    leader.kill()
    leader.wait()
    end_session(replace(process, boot="another"))
    assert child.alive()
    end_session(process)
    for _ in range(100):
        if not child.alive():
            break
        signal.sigtimedwait([], 0.02)
    assert not child.alive()


def test_the_host_is_that_of_the_environment_where_it_says_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCA_NODE", "node7")
    assert this_host() == "node7"
    monkeypatch.delenv("ORCA_NODE")
    assert "." not in this_host()
