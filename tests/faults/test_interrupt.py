"""Ctrl-C at a terminal while `orca run` starts its parts: one line of ORCA's, and nothing of what it started."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from site_of_tests import Site

from orca.ms.simulate import SimulationOptions, simulate


@pytest.fixture(scope="module")
def integration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    [path] = simulate(tmp_path_factory.mktemp("raw"), SimulationOptions(antennas=24, channels=8))
    return path


def interrupted(site: Site, words: list[str], after_s: float) -> tuple[int, str]:
    """Exit status and what the terminal shows when Ctrl-C is pressed so long after the start."""
    terminal, end = pty.openpty()
    environment = {**site.environment(), "TERM": "dumb"}
    command = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *site.command(*words)],
        env=environment, cwd=site.folder, stdin=end, stdout=end, stderr=end,
    )  # fmt: skip
    os.close(end)
    shown, pressed, began = b"", False, time.monotonic()
    try:
        while time.monotonic() - began < 60:
            if select.select([terminal], [], [], 0.02)[0]:
                shown += os.read(terminal, 65536)
            if not pressed and time.monotonic() - began > after_s:
                pressed = os.write(terminal, b"\x03") == 1
    except OSError:  # nobody has the terminal open any more
        pass
    finally:
        os.close(terminal)
    return command.wait(timeout=90), shown.decode().replace("^C", "").replace("\r", "")


@pytest.mark.parametrize("after_s", [0.5, 1.5, 2.5, 4.0])
def test_an_interrupt_while_workers_start_shows_one_line_and_no_traceback(
    site: Site, integration: Path, tmp_path: Path, after_s: float
) -> None:
    words = ["run", "imaging", str(integration), "--calibration", "none", "--out", str(tmp_path / "out")]
    status, shown = interrupted(site, words, after_s)
    assert status == 130, shown
    lines = [line for line in shown.splitlines() if line.strip()]
    told = [
        line for line in lines if re.search("interrupted with 0( of 1)? done: the same command goes on from here", line)
    ]
    assert len(told) <= 1
    assert "Traceback" not in shown
    assert "Error" not in shown
    assert "KeyboardInterrupt" not in shown


def test_workers_never_hear_of_it_and_the_flow_does(tmp_path: Path) -> None:
    """In a process of its own: an interpreter that used multiprocessing before would hide how the first start is."""
    script = Path(__file__).with_name("blocked_interrupts.py")
    result = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=120)
    assert result.stdout == "[true, true]\nfalse\nfalse\n", result.stderr
