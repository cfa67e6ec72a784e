"""Manifests, files like Measurement Sets, and dead owners for the tests of products, scratch and trash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from orca.manifest import Manifest, fingerprint

OPTIONS = {"size": 1024, "scale_deg": 0.03125, "polarizations": ("XX", "YY"), "mask": Path("/masks/horizon")}


def a_manifest(inputs=(), **changes):
    values = {
        "product": "20260110_180000_73MHz",
        "kind": "image",
        "inputs": tuple(fingerprint(path) for path in inputs),
        "options": OPTIONS,
        "software": {"orca": "0.1.0", "wsclean": "3.1"},
        "started": "2026-01-10T18:00:00+00:00",
        "finished": "2026-01-10T18:01:00+00:00",
        "seconds": 60.0,
        "cpu_seconds": 55.5,
        "peak_memory_bytes": 10**9,
        "read_bytes": 4,
        "written_bytes": 5,
        "quality": {"rms_jy": 1.5, "brightest": "Cyg A"},
        "host": "lwacalim00",
    }
    return Manifest(**(values | changes))


def a_set(folder, size=1000):
    """Something like a Measurement Set: a folder with files and a subtable."""
    (folder / "ANTENNA").mkdir(parents=True)
    (folder / "table.dat").write_bytes(b"m" * size)
    (folder / "ANTENNA" / "table.dat").write_bytes(b"a" * size)
    return folder


def hidden(folder):
    return list(folder.rglob(".*"))


def dead_token():
    """Token of a process that has ended."""
    code = "from orca.scratch import owner_token; print(owner_token())"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
