"""Flow runs that the trigger is to ask for: in their order, and again while Prefect is away."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orca.errors import InfrastructureError, MessageError
from orca.events.delivery import Delivery
from orca.events.journal import Journal, Request
from orca.events.runs import FlowRuns
from orca.events.state import TriggerState

log = logging.getLogger("orca.trigger")

LONGEST_PAUSE_S = 60.0
LONGEST_ASKING_S = 5.0
"""Then the broker wants a sign of life."""
SUSPEND_S = 600.0
"""When Prefect is away for so long, messages go back to the broker, which takes unacknowledged ones back after 30 min
and counts each time."""


class SuspendedError(Exception):
    """Prefect is away for so long that messages are given back for a while."""


@dataclass
class Asked:
    """A flow run to ask for.

    Attributes
    ----------
    request : Request
    rule : str
        That it is for; empty for a run that a message asks for itself.
    deliveries : list of Delivery
        The messages that wait for it.
    """

    request: Request
    rule: str
    deliveries: list[Delivery]


class Asking:
    """What is to be asked for, and asking.

    Parameters
    ----------
    journal : Journal
    runs : FlowRuns
    state : TriggerState
    """

    def __init__(self, journal: Journal, runs: FlowRuns, state: TriggerState) -> None:
        self._journal, self._runs, self._state = journal, runs, state
        self.forget()

    def __len__(self) -> int:
        return len(self._asked)

    def forget(self) -> None:
        """Begin anew: the messages are the broker's again."""
        self._asked: deque[Asked] = deque()
        self._pause_s, self._again_at, self._away_since = 0.0, 0.0, 0.0

    @property
    def away(self) -> bool:
        """Whether Prefect did not answer last time."""
        return self._away_since > 0

    def add(self, request: Request, rule: str, deliveries: list[Delivery]) -> None:
        """Have a flow run asked for."""
        self._asked.append(Asked(request, rule, deliveries))

    def join(self, key: str | None, delivery: Delivery) -> bool:
        """Have one more message wait for a flow run that is being asked for; False if there is none with this key."""
        for asked in self._asked:
            if asked.request.key == key:
                asked.deliveries.append(delivery)
                return True
        return False

    def answers(self, now: float) -> Iterator[tuple[Asked, str]]:
        """Ask for all that waits; each with why Prefect refuses it, or nothing. When Prefect is away, after a pause.

        Raises
        ------
        SuspendedError
            It has been away for `SUSPEND_S`.
        """
        if now < self._again_at:
            return
        while self._asked and time.monotonic() < now + LONGEST_ASKING_S:
            asked = self._asked[0]
            try:
                why = self._ask(asked.request)
            except InfrastructureError as error:
                self._stay_away(now, error)
                return
            self._pause_s, self._away_since = 0.0, 0.0
            self._asked.popleft()
            yield asked, why

    def finish_begun(self, stop: Callable[[], bool]) -> None:
        """Ask for what was begun and may not have been asked for; until Prefect answers, nothing else is begun."""
        pause_s = 1.0
        while not stop():
            try:
                for request in self._journal.unfinished():
                    self._ask(request)
                if self._runs.healthy():
                    return
                raise InfrastructureError("the Prefect server does not answer")
            except InfrastructureError as error:
                log.warning("%s; trying again in %.0f s", error, pause_s)
                self._state.tell("waits for Prefect", str(error))
                sleep(pause_s, stop)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _ask(self, request: Request) -> str:
        """Ask for a flow run; returns why Prefect refuses it, else nothing. Raises InfrastructureError."""
        try:
            run = self._runs.ask(request)
        except MessageError as error:
            self._journal.refused(request.key, str(error))
            self._state.refused += 1
            return str(error)
        self._journal.done(request.key, run)
        self._state.flow_runs += 1
        log.info("%s: flow run %s", request.deployment, run)
        return ""

    def _stay_away(self, now: float, error: InfrastructureError) -> None:
        self._away_since = self._away_since or now
        self._pause_s = min(max(2 * self._pause_s, 1.0), LONGEST_PAUSE_S)
        self._again_at = now + self._pause_s
        self._state.problem = str(error)
        log.warning("%s; %d flow runs wait; trying again in %.0f s", error, len(self._asked), self._pause_s)
        if now - self._away_since > SUSPEND_S:
            raise SuspendedError


def sleep(seconds: float, stop: Callable[[], bool]) -> None:
    """Sleep, but not when it is to stop."""
    end = time.monotonic() + seconds
    while not stop() and time.monotonic() < end:
        time.sleep(min(0.2, seconds))
