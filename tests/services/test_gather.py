"""How a flow waits: every unit ends with a reason, and no task run stays Running."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from site_of_tests import Site


def test_every_way_in_which_a_task_ends_is_told_apart(site: Site, tmp_path: Path) -> None:
    script = Path(__file__).with_name("gathering.py")
    result = subprocess.run(
        [sys.executable, script, tmp_path], env=site.environment(), capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    ended = {o["unit"]: (o["status"], o["cause"], o["attempts"]) for o in found["outcomes"]}
    assert ended == {
        "fine": ("done", "", 1),
        "fresh": ("skipped", "", 1),
        "wrong data": ("failed", "payload", 1),
        "a bug": ("failed", "payload", 1),
        "machine trouble once": ("done", "", 2),
        "kills its worker once": ("done", "", 2),
        "always kills its worker": ("failed", "infrastructure", 2),
        "stopped": ("failed", "infrastructure", 2),
    }
    reasons = {o["unit"]: o["reason"] for o in found["outcomes"]}
    assert reasons["wrong data"] == "the-file: is wrong. Do something"
    assert "ZeroDivisionError: oops" in reasons["a bug"]
    assert "worker died" in reasons["always kills its worker"]
    assert len((tmp_path / "always kills its worker").read_text()) == 2
    states = Counter(state for state, _ in found["states"])
    assert states == {"COMPLETED": 4, "FAILED": 3, "CRASHED": 3, "CANCELLED": 2}
    messages = [message for _, message in found["states"]]
    assert messages.count("the-file: is wrong. Do something") == 1
    assert messages.count("its Dask worker ends") == 2
    assert "wrong data failed the-file: is wrong. Do something" in found["log"]
    assert "DataError" not in found["log"]  # no traceback
