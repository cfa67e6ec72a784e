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
