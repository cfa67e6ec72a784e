"""Prefect's server on SQLite, while many write at once: nobody is turned away, and nobody waits for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from orca.cluster.machine.questions import call_api

WRITERS, RUNS = 32, 96
STATES = ("PENDING", "RUNNING", "COMPLETED")
PATIENCE_S = 60.0


def test_many_writers_at_once_are_all_served(url: str) -> None:
    flow = call_api(url, "flows/", {"name": "many"}, patience_s=PATIENCE_S)["id"]

    def write(number: int) -> str:
        """A flow run from its beginning to its end; any answer but success is an error."""
        body = {"name": f"run {number}", "flow_id": flow, "state": {"type": "SCHEDULED"}}
        run = call_api(url, "flow_runs/", body, patience_s=PATIENCE_S)["id"]
        for state in STATES:
            changed = call_api(url, f"flow_runs/{run}/set_state", {"state": {"type": state}}, patience_s=PATIENCE_S)
            assert changed["status"] == "ACCEPT"
        return str(run)

    with ThreadPoolExecutor(WRITERS) as pool:
        runs = list(pool.map(write, range(RUNS), timeout=2 * PATIENCE_S))
    found = {"flow_runs": {"id": {"any_": runs}, "state": {"type": {"any_": ["COMPLETED"]}}}}
    assert call_api(url, "flow_runs/count", found, patience_s=PATIENCE_S) == RUNS
