"""The trigger: takes messages from the queues, and has Prefect run what they ask for.

A message is acknowledged when the flow run that it is for exists, or when it lies in the dead letters; never before.
What was begun is in the journal, so that a message that comes again makes no second flow run.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import amqp  # type: ignore[import-untyped]
from kombu import Connection

from orca import naming
from orca.cluster.pools import POOLS
from orca.config import Config
from orca.errors import (
    BrokerAwayError,
    ConfigError,
    InfrastructureError,
    InputError,
    MessageError,
    MissingDataError,
    RightsError,
    StorageError,
)
from orca.events import names
from orca.events.announcements import Announcement, hour_request
from orca.events.asking import LONGEST_PAUSE_S, Asking, SuspendedError, sleep
from orca.events.broker import connect, setup
from orca.events.delivery import ANNOUNCEMENTS, Delivery, Settling
from orca.events.gathering import Batch, Gathering, Recording
from orca.events.journal import Journal, Request
from orca.events.message import Message
from orca.events.refusals import translated
from orca.events.rules import AnnouncedRule, RecordedRule, Rules, refused
from orca.events.runs import FlowRuns, check_path, data_roots, run_key
from orca.events.state import TriggerState

log = logging.getLogger("orca.trigger")

PREFETCH = 4000
"""Messages in hand at once: many times a block of 24 for each of 16 subbands."""
HEARTBEAT_S = 30
AT_ONCE = 500
"""Messages before it looks at the clock."""
LOOK_S = 0.5
"""How long it waits for a message before it looks at the clock."""
FORGET_EVERY_S = 3600.0
READ_EVERY_S = 5.0
STANDBY_S = 5.0
"""How often a second trigger looks whether the first is gone."""


class _ChangedError(Exception):
    """The file of the rules is another one."""


class _SecondError(InfrastructureError):
    """Another trigger works with the same prefix."""


class Trigger:
    """One trigger.

    Parameters
    ----------
    settings : Config
    rules : Rules
    journal : Journal
    runs : FlowRuns
    state : TriggerState
        What it shows of itself.
    read_rules : callable, optional
        Reads the rules again, which are taken over while it works.
    """

    def __init__(
        self,
        settings: Config,
        rules: Rules,
        journal: Journal,
        runs: FlowRuns,
        state: TriggerState,
        read_rules: Callable[[], Rules] | None = None,
    ) -> None:
        self._settings, self._rules, self._journal, self._runs = settings, rules, journal, runs
        self._asking = Asking(journal, runs, state)
        self._reader, self._wrong_rules = read_rules, ""
        self._state = state
        self._roots = data_roots(settings)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """As it is without a connection: what was in hand is the broker's again."""
        self._inbox: deque[Delivery] = deque()
        self._gathering = Gathering()
        self._waiting: dict[tuple[str, str], list[Delivery]] = {}  # identity and rule -> who waits for it
        self._asking.forget()
        self._forget_at, self._read_at = 0.0, 0.0
        self._lost = ""

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until `stop` says so. What the broker or Prefect has is waited for, however long it takes.

        Raises
        ------
        ConfigError
            There is no broker in the configuration.
        StorageError
            The journal cannot be written.
        """
        pause_s, second = 1.0, False
        while not stop():
            self._begin_anew()
            begin = time.monotonic()
            try:
                self._asking.finish_begun(stop)
                for name, why in refused(self._rules, self._runs).items():
                    log.warning("rule %s: %s; its messages go to the dead letters until that is mended", name, why)
                with connect(self._settings, confirm=True, heartbeat_s=HEARTBEAT_S) as connection:
                    self._work(connection, stop)
                return
            except _ChangedError:
                log.info("the rules have changed: what is in hand is looked at anew")
                continue
            except SuspendedError:
                log.warning("messages are back in their queues until the Prefect server answers")
            except _SecondError as error:  # what there is to show, the other one shows
                log.log(logging.DEBUG if second else logging.INFO, "stands by: %s", error)
                second = True
                sleep(STANDBY_S, stop)
                continue
            except (InfrastructureError, RightsError, StorageError) as error:
                log.warning("%s; trying again in %.0f s", error, pause_s)
                self._state.tell("waits for the broker", str(error))
            pause_s = 1.0 if time.monotonic() - begin > LONGEST_PAUSE_S else min(2 * pause_s, LONGEST_PAUSE_S)
            sleep(pause_s, stop)

    # ---- One connection ----

    def _work(self, connection: Connection, stop: Callable[[], bool]) -> None:
        with translated():
            self._prepare(connection)
            channel = connection.channel()
            self._settling = Settling(channel, connection.channel(), self._settings.queue.prefix, self._state)
            channel.basic_qos(0, PREFETCH, False)
            prefix = self._settings.queue.prefix
            queues = {pool: names.queue(prefix, pool) for pool in POOLS}
            if self._rules.announced:
                queues[ANNOUNCEMENTS] = names.triggers(prefix)
            for pool, queue in queues.items():
                self._consume(channel, pool, queue)
            log.info("taking messages from %s", ", ".join(queues.values()))
            while not stop():
                self._turn(connection)
        log.info("stops; %d messages go back to their queues", len(self._gathering) + len(self._asking))

    def _prepare(self, connection: Connection) -> None:
        """Be the only one, and have all queues."""
        prefix = self._settings.queue.prefix
        with connection.channel() as channel:
            try:
                setup(self._settings)
            except RightsError as error:
                log.warning("%s; taking the queues as they are", error)
            if self._rules.announced:
                name, topic = names.triggers(prefix), names.events_exchange(prefix)
                channel.queue_declare(name, durable=True, auto_delete=False, arguments=names.triggers_arguments(prefix))
                for rule in self._rules.announced:
                    channel.queue_bind(name, topic, f"{rule.after}.#")
        with connection.channel() as channel:
            try:  # the broker keeps it as long as this connection lives, and lets nobody else have it
                channel.queue_declare(names.lock(prefix), exclusive=True)
            except amqp.ResourceLocked as error:
                problem = f"another trigger works with the prefix {prefix}"
                raise _SecondError(problem, remedy="This one takes over when that one ends") from error

    def _consume(self, channel: Any, pool: str, queue: str) -> None:
        def deliver(message: Any) -> None:
            self._inbox.append(Delivery(pool, message))

        def cancelled(_tag: str) -> None:
            self._lost = f"queue {queue} was deleted"

        channel.basic_consume(queue, callback=deliver, on_cancel=cancelled)

    def _turn(self, connection: Connection) -> None:
        """Take what has come, pass on what is due."""
        now = time.monotonic()
        wait_s = min(LOOK_S, self._gathering.next_due_s(now))
        with suppress(TimeoutError):
            connection.drain_events(timeout=max(wait_s, 0.001))
            for _ in range(AT_ONCE):
                connection.drain_events(timeout=0.001)
        connection.heartbeat_check()
        if self._lost:
            raise BrokerAwayError(self._lost)
        while self._inbox:
            self._take(self._inbox.popleft())
        now = time.monotonic()
        for batch in self._gathering.due(now):
            self._pass_on(batch)
        for asked, why in self._asking.answers(now):
            for delivery in asked.deliveries:
                if why:
                    self._settling.refuse(delivery, why)
                else:
                    self._settling.done(delivery, asked.rule)
        self._show(now)
        if now > self._read_at:
            self._read_at = now + READ_EVERY_S
            self._read_rules()
        if now > self._forget_at:
            self._journal.forget()
            self._forget_at = now + FORGET_EVERY_S

    def _read_rules(self) -> None:
        """Take over what is new in their file; what is wrong there changes nothing."""
        if self._reader is None:
            return
        try:
            rules = self._reader()
        except ConfigError as error:
            if str(error) != self._wrong_rules:
                log.warning("the rules stay as they were: %s", error)
            self._wrong_rules = str(error)
            return
        self._wrong_rules = ""
        if rules != self._rules:
            self._rules = rules
            raise _ChangedError

    def _show(self, now: float) -> None:
        self._state.waiting_files, self._state.waiting_blocks = len(self._gathering), self._gathering.blocks
        self._state.oldest_s = self._gathering.oldest_s(now)
        self._state.waiting_runs = len(self._asking)
        if self._asking.away:
            self._state.tell("waits for Prefect", self._state.problem)
        else:
            self._state.tell("takes messages")

    # ---- One message ----

    def _take(self, delivery: Delivery) -> None:
        self._state.received += 1
        try:
            if delivery.pool == ANNOUNCEMENTS:
                self._take_announcement(delivery, Announcement.decode(delivery.body))
                return
            message = Message.decode(delivery.body)
            if message.run is not None:
                content = {"id": message.id, "parameters": message.run.parameters}
                key = run_key(message.run.full_name, content, message.attempt)
                request = Request(key, message.run.full_name, message.run.parameters, (f"message:{message.id}",))
                self._asking.add(request, "", [delivery])
            elif message.recorded is not None:
                self._take_recorded(delivery, message)
        except MessageError as error:
            self._settling.refuse(delivery, str(error))

    def _take_recorded(self, delivery: Delivery, message: Message) -> None:
        told = message.recorded
        if told is None:
            return
        path = check_path(told.path, self._roots)
        try:
            name = naming.parse(path)
        except InputError as error:
            raise MessageError(error.problem, path, error.remedy) from error
        if not path.exists():
            raise MessageError("is gone", path, "Copy it back and send the message again")
        rules = [rule for rule in self._rules.recorded if rule.wants(name)]
        if not rules or name.start is None or name.subband is None:
            log.debug("%s: no rule wants it", path)
            self._settling.done(delivery)
            return
        recording = Recording(name.start, path, told.size, name.subband, message.attempt)
        for rule in rules:
            self._gather(delivery, rule, recording)
        if not delivery.waits_for:
            self._settling.done(delivery)

    def _gather(self, delivery: Delivery, rule: RecordedRule, recording: Recording) -> None:
        """Have a message wait for the flow run of its file, if that is not there already."""
        key = self._journal.key_of(recording.identity, rule.name)
        run, refused = self._journal.outcome(key) if key else (None, None)
        if run is not None:
            return
        if refused is not None and recording.attempt == 1:  # the trigger was killed before it could say so
            raise MessageError(refused)
        delivery.waits_for.add(rule.name)
        if self._asking.join(key, delivery):  # told again while its flow run is being asked for
            return
        waiting = self._waiting.setdefault((recording.identity, rule.name), [])
        waiting.append(delivery)
        if len(waiting) == 1:
            self._gathering.add(rule, recording, time.monotonic())

    def _take_announcement(self, delivery: Delivery, told: Announcement) -> None:
        rules = [rule for rule in self._rules.announced if rule.after == told.kind and told.subband is not None]
        rules = [rule for rule in rules if rule.wants_subband(str(told.subband))]
        delivery.waits_for = {rule.name for rule in rules}
        for rule in rules:
            self._announced(delivery, rule, told)
        if not delivery.waits_for:
            self._settling.done(delivery)

    def _announced(self, delivery: Delivery, rule: AnnouncedRule, told: Announcement) -> None:
        try:
            request = hour_request(rule, told, self._settings.paths.raw)
        except (MissingDataError, InputError) as error:
            log.warning("%s: %s", rule.name, error)
            delivery.waits_for.discard(rule.name)
            return
        self._asking.add(request, rule.name, [delivery])

    def _pass_on(self, batch: Batch) -> None:
        """Write a batch down, and have it asked for."""
        rule = batch.rule
        parameters = {**rule.parameters, rule.files: [str(file.path) for file in batch.files]}
        content = {"rule": rule.name, "files": [file.identity for file in batch.files]}
        key = run_key(rule.deployment, content, max(file.attempt for file in batch.files))
        tags = sorted({file.subband for file in batch.files})
        tags += sorted({f"{file.start:%Y-%m-%d}" for file in batch.files})
        request = Request(key, rule.deployment, parameters, tuple(tags))
        self._journal.begin(request, rule.name, (file.identity for file in batch.files))
        waiting = [each for file in batch.files for each in self._waiting.pop((file.identity, rule.name), [])]
        log.info("%s: %d files in %d blocks", rule.name, len(batch.files), batch.blocks)
        self._asking.add(request, rule.name, waiting)
