"""From simulated gains to fluxes: recorded, calibrated by us, imaged with the tables that are found, measured."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from file_times import age
from site_of_tests import Site, outcomes

from orca.ms.simulate import SimulationOptions, simulate


def test_fluxes_of_bright_sources_are_right_within_three_percent(site: Site, tmp_path: Path) -> None:
    start = datetime(2026, 1, 10, 20, 31, 43, tzinfo=UTC)
    raw = site.folder / "raw"
    common = {"antennas": 96, "channels": 24, "dead_antennas": (17,), "dead_polarizations": ("30X",)}
    sets = simulate(raw, SimulationOptions(start=start, integrations=3, **common))
    night = start - timedelta(hours=3)  # another sky: Cyg A is low, and Cas A lower
    sets += simulate(raw, SimulationOptions(start=night, integrations=1, **common))
    age(raw)
    words = ("--date", "2026-01-10", "--raw", raw, "--integrations", 3, "--min-integrations", 3, "--no-delay")
    done = site.run("run", "bandpass", *words)
    assert done.returncode == 0, done.stderr
    images = ("--size", 2048, "--scale", 0.0625, "--out", tmp_path / "images", "--calibration", "require", "--json")
    result = site.run("run", "imaging", sets[1], sets[3], *images)
    assert result.returncode == 0, result.stderr
    made = outcomes(result)
    for path, names in ((sets[1], ("Cyg A", "Cas A")), (sets[3], ("Cyg A",))):
        sky = json.loads((raw / "truth" / f"{path.stem}.sky.json").read_text())
        apparent = {source["name"]: source["apparent_jy"] for source in sky["sources"]}
        for name in names:
            quality = made[path.stem]["quality"]
            assert quality[f"I {name} peak_jy"] == pytest.approx(apparent[name], rel=0.03)
            assert quality[f"I {name} expected_jy"] == pytest.approx(apparent[name], rel=1e-3)
            assert quality[f"I {name} offset_px"] < 0.1
