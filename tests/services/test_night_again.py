"""A real Prefect server: what the end of a flow leaves of its failures, and what `orca night --resubmit` asks for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.states import Completed
from raw_place import HOUR, RawPlace
from typer.testing import CliRunner

from flows import common
from flows.common import concluded
from orca import failures
from orca.cli import app
from orca.cluster.outcomes import Outcome


class Place(RawPlace):
    """What `orca night` tells of it and asks for."""

    def kept(self) -> list[failures.Failed]:
        return failures.read_failures(self.settings.paths.data / failures.FOLDER, HOUR.date())

    def resubmit(self, which: str, *words: str) -> Any:
        return CliRunner().invoke(
            app, ["night", f"{HOUR:%Y-%m-%d}", "--resubmit", which, *words], env={"COLUMNS": "120"}
        )

    def asked(self, deployment: str) -> list[list[str]]:
        """Names of the files of each flow run that was asked for."""
        ours = DeploymentFilter.model_validate({"name": {"any_": [f"{self.prefix}-{deployment}"]}})
        mine = FlowRunFilter.model_validate({"tags": {"all_": ["night"]}})
        found = self.client.read_flow_runs(deployment_filter=ours, flow_run_filter=mine)
        return [[Path(path).name for path in run.parameters["measurement_sets"]] for run in found]

    def end(self) -> None:
        for run in self.client.read_flow_runs():
            if run.state is not None and not run.state.is_final():
                self.client.set_flow_run_state(run.id, Completed(), force=True)


@pytest.fixture
def place(tmp_path: Path, prefect: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with get_client(sync_client=True) as client:
        made = Place(tmp_path, prefect, client)
        monkeypatch.setenv("ORCA_CONF", str(made.file))
        yield made


def end_flow(outcomes: list[Outcome], sources: dict[str, list[Path]], stage: str) -> None:
    @flow(name=stage)
    def ending() -> Any:
        return concluded(outcomes, stage, sources)

    ending(return_state=True)


def test_the_end_of_a_flow_keeps_failures_until_their_units_are_done(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = place.record(0, count=2), place.record(1, count=2)
    sources = {"one": first, "two": second}
    bad = Outcome("one", "failed", reason="/x: it broke", detail="more", cause="payload")
    end_flow([bad, Outcome("two", "done")], sources, "imaging")
    [kept] = place.kept()
    assert (kept.stage, kept.unit, kept.reason, kept.cause) == ("imaging", "one", "/x: it broke", "payload")
    assert kept.sources == tuple(map(str, first))
    assert place.client.read_flow_run(uuid.UUID(kept.flow_run)).name == kept.flow_run_name
    end_flow([Outcome("one", "skipped")], sources, "imaging")
    assert place.kept() == []

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(common.failures, "tell", full)
    end_flow([bad], sources, "imaging")  # only a warning
    assert place.kept() == []


def test_what_is_without_a_product_or_failed_is_asked_for_once(place: Place) -> None:
    place.deploy()
    waits, failed, image = place.record(0, count=2), place.record(1, count=2), place.record(2, band="78MHz", count=2)
    root = place.settings.paths.data / failures.FOLDER
    for stage, sources in (("reduction", failed), ("imaging", image[:1])):
        told = failures.Failed(stage, "unit", "the disk is full", "infrastructure", tuple(map(str, sources)), "")
        failures.tell(root, told)
    names = {"waits": [path.name for path in [*image, *waits]], "failed": [path.name for path in failed]}

    result = place.resubmit("missing")
    assert result.exit_code == 0, result.output
    assert "1 of 1 asked for" in result.stdout
    [asked] = place.asked("reduction")
    assert sorted(asked) == sorted(names["waits"])
    again = json.loads(place.resubmit("missing", "--json").stdout)
    assert {each["why_not"] for each in again} == {"on its way"}
    assert len(place.asked("reduction")) == 1

    result = place.resubmit("failed")
    assert "2 of 2 asked for" in result.stdout, result.output
    assert sorted(map(len, place.asked("reduction"))) == [2, 4]
    assert names["failed"] in place.asked("reduction")
    assert place.asked("imaging") == [[image[0].name]]
    assert "0 of 2 asked for" in place.resubmit("failed").stdout
    place.end()
    assert place.resubmit("failed").exit_code == 0


def test_what_prefect_refuses_is_told(place: Place) -> None:
    place.record(0)
    result = place.resubmit("missing")
    assert result.exit_code == 1
    assert "there is no deployment" in result.stdout
