"""The flow `catch_up` with a real Prefect server: what it asks for, and what it leaves alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter
from prefect.states import Cancelled, Completed, Crashed, Failed, Running, Scheduled, State
from raw_place import HOUR, RawPlace

from flows.upkeep import TAG, catch_up
from orca import naming
from orca.manifest import draft
from orca.products import write_text


class Place(RawPlace):
    """What the catch-up asks for in it."""

    def reduced(self, sources: Sequence[Path], block: int) -> None:
        """Leave a manifest, as a reduction would."""
        seen = naming.parse(sources[0]).observation
        prefix = naming.block_prefix(
            self.settings.paths.averaged, seen.subband, seen.start.date(), seen.start.hour, block
        )
        prefix.parent.mkdir(parents=True, exist_ok=True)
        write_text(naming.manifest_path(prefix), draft(prefix.name, "reduction", sources, {}).manifest().text())

    def begin(self, state: State[Any], name: str = "reduction", **parameters: Any) -> None:
        """A flow run of a deployment, in a state."""
        found = self.client.read_deployment_by_name(f"reduction/{self.prefix}-{name}")
        given = json.loads(json.dumps(parameters, default=str))
        first = state if state.is_scheduled() else Scheduled()  # its time is that of its first state
        run = self.client.create_flow_run_from_deployment(found.id, parameters=given, state=first)
        if first is not state:
            self.client.set_flow_run_state(run.id, state, force=True)

    def runs(self) -> list[Any]:
        """Flow runs that were asked for, the first one first."""
        ours = DeploymentFilter.model_validate({"name": {"any_": [f"{self.prefix}-reduction"]}})
        found = self.client.read_flow_runs(deployment_filter=ours)
        return sorted((run for run in found if TAG in run.tags), key=lambda run: run.created)

    def asked(self) -> list[list[str]]:
        """Names of the files of each."""
        return [[Path(path).name for path in run.parameters["measurement_sets"]] for run in self.runs()]

    def end(self, state: State[Any]) -> None:
        """End what was asked for and has not ended."""
        for run in self.runs():
            if not run.state.is_final():
                self.client.set_flow_run_state(run.id, state, force=True)


@pytest.fixture
def place(tmp_path: Path, prefect: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with get_client(sync_client=True) as client:
        made = Place(tmp_path, prefect, client)
        monkeypatch.setenv("ORCA_CONF", str(made.settings.file))
        made.deploy()
        yield made


def told(**parameters: Any) -> str:
    state = catch_up(**parameters, return_state=True)
    assert state.is_completed(), state
    return str(state.message)


def names(*paths: Path) -> list[str]:
    return [path.name for path in paths]


def test_what_is_missing_is_asked_for_once_the_oldest_first(place: Place) -> None:
    assert told() == "0 blocks missing"
    young, done = place.record(3), place.record(4)
    place.reduced(done, 4)
    old = place.record(0, hours_ago=3)
    other = place.record(3, band="13MHz")
    assert told(only_tell=True) == "3 blocks missing: 3 not asked for"
    assert place.asked() == []
    assert told() == "3 blocks missing: 3 asked for"
    assert place.asked() == [names(*old), names(*other, *young)]
    assert told() == "3 blocks missing: 3 on their way"
    for sources, block in ((old, 0), (young, 3), (other, 3)):
        place.reduced(sources, block)
    place.end(Completed())
    assert told() == "0 blocks missing"

    late = place.record(4, count=4)[-1]
    assert told() == "1 blocks missing: 1 asked for"
    assert place.asked()[2:] == [names(*done, late)]
    keys = [run.idempotency_key for run in place.runs()]
    assert len(set(keys)) == 3
    assert all(key.startswith("reduction/reduction:") and key.endswith(":1") for key in keys)
    [table] = [a for a in place.client.read_artifacts() if json.loads(a.data)[0]["block"].endswith("block 04")]
    assert json.loads(table.data)[0]["flow run"] == str(place.runs()[2].id)


def test_a_block_that_failed_three_times_is_given_up_and_named(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    bad = place.record(0)
    for attempt, end in enumerate((Failed(), Crashed(), Cancelled()), 1):
        assert told() == "1 blocks missing: 1 asked for"
        assert [run.idempotency_key.rpartition(":")[2] for run in place.runs()] == list("123")[:attempt]
        place.end(end)
    good = place.record(1)
    with caplog.at_level(logging.WARNING, "prefect.flow_runs"):
        assert told() == "2 blocks missing: 1 asked for, 1 given up"
    assert f"given up after 3 attempts: 73MHz {HOUR:%Y-%m-%d %Hh} block 00" in caplog.text
    assert place.asked()[3:] == [names(*good)]
    came = place.record(0, count=4)[-1]
    assert told() == "2 blocks missing: 1 on their way, 1 asked for"
    assert place.asked()[4:] == [names(*bad, came)]


def test_what_others_reduce_or_are_about_to_is_left_alone(place: Place) -> None:
    of_files, of_day, left = (place.record(0, hours_ago=hours) for hours in (6, 5, 4))
    place.record(0, hours_ago=1)
    other = place.record(0, hours_ago=5, band="78MHz")
    day, hour = of_day[0].parts[-3:-1]
    place.begin(Running(), measurement_sets=of_files[1:2])
    place.begin(Scheduled(), day=day, hours=[int(hour)], subbands=["73MHz"])
    soon, far = (datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (5, 60))
    place.begin(Scheduled(scheduled_time=soon), "reduction-hour", last_hours=8)  # the fourth alone
    place.begin(Scheduled(scheduled_time=far), "reduction-night", last_hours=24)
    place.begin(Completed(), measurement_sets=left)
    place.begin(Running(), measurement_sets=left, out=place.folder / "elsewhere")
    assert told() == "5 blocks missing: 3 on their way, 2 asked for"
    assert place.asked() == [names(*other, *left)]
