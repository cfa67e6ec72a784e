"""What an announcement says, and that it costs nothing where there is no broker."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from flows.common import FAILURES, news
from flows.common import _failures as failures
from orca.cluster.gather import Outcome
from orca.errors import MessageError
from orca.events.announcements import Announcement, schema_text

DOCS = Path(__file__).parents[2] / "docs"
FLOWS = ("alarms", "bandpass", "cosmology", "imaging", "reduction", "retention", "upkeep")
TABLE = Path("/calibration/bandpass/73MHz/2026-01-10/20/bandpass_concat.73MHz_20.bandpass")
DELAYS = Path("/calibration/delay/2026-01-10/20260110_delay.delay")
FIRST, NEXT_HOUR = (Path(f"/raw/20260110_{time}_73MHz.ms") for time in ("185959", "190009"))
OTHER = Path("/raw/20260110_185959_78MHz.ms.tar")


def test_the_schema_in_the_docs_is_the_models() -> None:
    assert (DOCS / "announcement.schema.json").read_text() == schema_text()


def test_the_example_in_the_docs_is_an_announcement() -> None:
    text = (DOCS / "announcements.md").read_text()
    told = Announcement.decode(text.partition("```json\n")[2].partition("```")[0].encode())
    assert told.routing_key == "calibration.ready.73MHz"
    assert told.paths == (f"/lustre/pipeline{TABLE}",)


@pytest.mark.parametrize(
    ("paths", "named", "key", "day", "hour"),
    [
        ([TABLE], [], "image.ready.73MHz", date(2026, 1, 10), 20),
        ([DELAYS], [], "image.ready", date(2026, 1, 10), None),
        ([FIRST, NEXT_HOUR], [], "image.ready.73MHz", date(2026, 1, 10), None),
        ([FIRST, OTHER], [], "image.ready", date(2026, 1, 10), 18),
        ([Path("/images/mine.fits")], [FIRST], "image.ready.73MHz", date(2026, 1, 10), 18),
        ([Path("/images/mine.fits")], [], "image.ready", None, None),
        ([], [], "image.ready", None, None),
    ],
)
def test_subband_day_and_hour_are_those_of_which_all_names_tell(
    paths: list[Path], named: list[Path], key: str, day: date | None, hour: int | None
) -> None:
    told = Announcement(**news("image.ready", paths, "good", named))
    assert (told.routing_key, told.day, told.hour) == (key, day, hour)
    assert told.paths == tuple(map(str, paths))
    assert Announcement.decode(told.model_dump_json().encode()) == told


def test_of_many_failures_it_is_told_how_many_more() -> None:
    outcomes = [Outcome(f"unit {n}", "failed", reason="is broken") for n in range(FAILURES)]
    outcomes += [Outcome("good", "done"), Outcome("fresh", "skipped")]
    sources = {outcome.unit: [FIRST] for outcome in outcomes} | {"last": [OTHER]}
    told = failures(outcomes, "imaging", sources)
    assert [each["text"] for each in told] == [f"unit {n}: is broken" for n in range(FAILURES)]
    more = failures([Outcome("last", "failed"), *outcomes], "imaging", sources)
    assert (len(more), more[0]["subband"], more[-1]["text"]) == (FAILURES + 1, "78MHz", "1 more failed")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"kind": "image.ready", "more": 1}', b'{"kind": "image"}', b"\xff"])
def test_what_is_no_announcement_is_refused(body: bytes) -> None:
    with pytest.raises(MessageError, match="is no announcement"):
        Announcement.decode(body)


def test_no_flow_imports_what_only_a_broker_needs() -> None:
    program = (
        f"import importlib, json, sys\n[importlib.import_module('flows.' + name) for name in {FLOWS}]\n"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] in ('amqp', 'kombu')"
        " or name.startswith('orca.events')]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
