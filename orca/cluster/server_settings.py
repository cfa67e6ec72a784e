"""Settings of the Prefect server that matter for many task runs."""

from __future__ import annotations

SERVER_SETTINGS = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "5",
}
"""Each state of each task run is an event, and stock servers write each in a transaction of its own.

A state is in the database a second late at most (the server takes whole seconds only).
"""
MEMORY = {"MALLOC_ARENA_MAX": "2"}
"""Each of the server's many threads would have memory of its own, and keep what it freed: what lives in the server does
not grow with the task runs, but its size did by 17 kB a task run, and by 10 kB with this."""


def vacuum(keep_days: float | None) -> dict[str, str]:
    """Settings by which the server removes flow runs that ended before, with their task runs, logs and artifacts.

    It looks every hour, in either database; a flow run that has not ended stays however old it is. Of events it
    removes the old ones in any case.

    Parameters
    ----------
    keep_days : float or None
        None: they are kept for ever.
    """
    if keep_days is None:
        return {}
    return {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(round(keep_days * 86400)),
    }
