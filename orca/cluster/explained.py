"""How flows and tasks end that meet an error of ours: in a state that says what is wrong and what to do.

Prefect writes a traceback of a hundred lines for any exception. What `OrcaError` explains needs none: its words are the
message of the state, which Prefect logs, and the end of the log of a program that failed is logged once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from prefect import get_run_logger
from prefect.states import Cancelled, Failed

from orca.errors import OrcaError, StoppedError

F = TypeVar("F", bound=Callable[..., Any])


def explained(function: F) -> F:
    """The function of a flow or task, which returns a state where it would have raised an error of ours."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except OrcaError as error:
            first_line = str(error).partition("\n")[0]
            if isinstance(error, StoppedError):
                return Cancelled(message=first_line, data=error)
            if error.tail:
                get_run_logger().error("the end of its log:\n%s", error.tail)
            return Failed(message=first_line, data=error)

    return call  # type: ignore[return-value]
