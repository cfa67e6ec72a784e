"""The file of numbers beside a calibration table."""

from __future__ import annotations

import json
from pathlib import Path

from some_solutions import a_bandpass

from orca.calibration.made import NUMBERS, Clock, finish
from orca.quality import judge_bandpass

TIME_S = 5274793917.86  # 2026-01-10 20:31:57.86 UTC


def test_the_numbers_are_told_once_each_and_all_warnings_together(tmp_path: Path) -> None:
    solutions = a_bandpass()
    solutions.values[..., 1] *= 3
    verdict = judge_bandpass(solutions)
    assert len(verdict.warnings) == 1
    left_out = {f"{k}.ms": "is broken" for k in range(4)}
    made = finish(
        Clock(), tmp_path, verdict, ["only 2 of 6"], ["LWA-3 (3): dead"], TIME_S, [Path("5.ms")] * 2, left_out, {"n": 2}
    )
    sets = "4 of 6 Measurement Sets left out (0.ms: is broken; 1.ms: is broken; 2.ms: is broken; and 1 more)"
    assert made.warnings == (*verdict.warnings, sets, "only 2 of 6")
    assert {key: made.numbers[key] for key in ("n", "passed", "reason", "time_s")} == {
        "n": 2, "passed": 1, "reason": "", "time_s": TIME_S,
    }  # fmt: skip
    told = json.loads((tmp_path / NUMBERS).read_text())
    assert told["warnings"] == list(made.warnings)
    assert (told["passed"], told["reasons"]) == (True, [])
    assert (told["time_utc"], told["time_mjd_s"]) == ("2026-01-10T20:31:57Z", TIME_S)
    assert told["numbers"]["n"] == 2
    assert not {"passed", "reason", "time_s"} & set(told["numbers"])
    assert (told["sets_left_out"], told["antenna_notes"]) == (left_out, ["LWA-3 (3): dead"])
