"""Taking turns on a machine, between threads and processes, and when a holder dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orca.errors import StoppedError
from orca.turns import turn

HOLDER = """
import sys, time
from pathlib import Path
from orca.turns import turn
with turn(Path(sys.argv[1]), 1, lambda: None):
    print("inside", flush=True)
    time.sleep(60)
"""


def never() -> None:
    return None


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that has the only turn."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    return process


@pytest.mark.parametrize("count", [1, 2])
def test_no_more_than_the_number_are_inside_at_once(tmp_path: Path, count: int) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with turn(tmp_path / "turns", count, never):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.15)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == count


def test_without_a_number_nobody_waits(tmp_path: Path) -> None:
    with turn(tmp_path / "turns", None, never), turn(tmp_path / "turns", None, never):
        assert not (tmp_path / "turns").exists()


def test_the_turn_of_a_process_that_was_killed_is_free_again(tmp_path: Path) -> None:
    other, waited = holder(tmp_path), []
    killer = threading.Timer(0.5, lambda: other.send_signal(signal.SIGKILL))
    killer.start()
    with turn(tmp_path, 1, never, lambda: waited.append("waits")):
        assert other.wait(10) == -signal.SIGKILL
    assert waited == ["waits"]


def test_who_waits_can_be_stopped(tmp_path: Path) -> None:
    other = holder(tmp_path)
    try:
        with pytest.raises(StoppedError, match="enough"), turn(tmp_path, 1, lambda: "enough"):
            pytest.fail("it had no turn")
    finally:
        other.kill()
        other.wait()


def test_a_turn_that_ended_in_an_error_is_free_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), turn(tmp_path, 1, never):
        raise ZeroDivisionError
    with turn(tmp_path, 1, never):
        pass
