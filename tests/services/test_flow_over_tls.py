"""`network.tls`: a flow finds the scheduler of the configuration, and its tasks run there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_flow_runs_on_a_cluster_that_talks_tls(tmp_path: Path) -> None:
    script = Path(__file__).with_name("flow_over_tls.py")
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    result = subprocess.run(
        [sys.executable, script, tmp_path], env=environment, capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == ["done", "done", "skipped"]
