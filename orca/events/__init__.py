"""RabbitMQ: messages that say what is to be run, and how they get to their queues.

``submit_run`` and ``submit_recorded`` are for scripts; they are imported when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orca.events.submit import submit_recorded, submit_run

__all__ = ["submit_recorded", "submit_run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from orca.events import submit

    return getattr(submit, name)
