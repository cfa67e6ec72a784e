"""Records of task runs that died with their workers, among them such as the server hears of late or never."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow, get_client, task
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Pending
from prefect.utilities.engine import emit_task_run_state_change_event
from waiting import wait_for

from orca.cluster import lost
from orca.cluster.lost import Ended, end_records


@task
def unit() -> None:
    """Never runs."""


def test_a_task_run_that_the_server_hears_of_too_late_is_crashed_all_the_same(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost, "PATIENCE_S", 1.0)
    late, never, known, done = uuid4(), uuid4(), uuid4(), uuid4()
    begun = Pending()

    def tell(run: UUID, state: Any) -> None:
        record = asyncio.run(unit.create_local_run(id=run, flow_run_context=FlowRunContext.get()))
        emit_task_run_state_change_event(record, None, state)

    @flow
    def night() -> UUID:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        tell(known, Pending())
        tell(done, Pending())
        ends = [
            Ended("a", late, Crashed(message="its worker died"), lost=True),
            Ended("b", never, Crashed(message="lost"), lost=True),
            Ended("c", known, Crashed(message="died as well"), lost=True),
            Ended("d", done, Completed(message="done")),
        ]
        end_records(unit, context.flow_run.id, ends)
        tell(late, begun)
        return context.flow_run.id

    with temporary_settings({PREFECT_API_URL: url}):
        run = night()
        with get_client(sync_client=True) as client:

            def states() -> dict[UUID, tuple[str, str | None]]:
                return {
                    each.id: (each.state.name, each.state.message) for each in client.read_task_runs() if each.state
                }

            expected = {
                late: ("Crashed", "its worker died"),
                never: ("Crashed", "lost"),
                known: ("Crashed", "died as well"),
                done: ("Completed", "done"),
            }
            assert states() == expected
            wait_for(lambda: len(client.read_task_run_states(late)) == 2, "the late word of its beginning", 30)
            assert states() == expected
            assert {each.flow_run_id for each in client.read_task_runs()} == {run}
