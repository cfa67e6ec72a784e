"""Waiting for what other processes do, and looking at processes that may end meanwhile."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import psutil

COMMAND_S = 1.5
"""How often to ask where the answer is that of a command, which takes a second of a core."""


def wait_for(condition: Callable[[], Any], what: str, patience_s: float = 60.0, every_s: float = 0.05) -> Any:
    """What the condition returns once that is true."""
    end = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {patience_s} s"
        time.sleep(every_s)
    return value


def argv(process: psutil.Process) -> list[str]:
    """Its command; empty for one that is gone or about to be."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def family(command: subprocess.Popen[str]) -> list[psutil.Process]:
    """All that a command of `orca` has started, but for the server, which stays for the next command."""
    return [p for p in psutil.Process(command.pid).children(recursive=True) if "uvicorn" not in argv(p)]
