"""Recorded files on their way into blocks: of one rule, subband and hour, until they are full or have waited enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from orca.events.rules import RecordedRule
from orca.reduction import beat_s, block_number

TOGETHER = 64
"""Blocks of one flow run at most."""


@dataclass(frozen=True, order=True)
class Recording:
    """A file as its message tells it.

    Attributes
    ----------
    start : datetime
        Of its integration.
    path : Path
    size : int
        In bytes.
    subband : str
    """

    start: datetime
    path: Path
    size: int
    subband: str
    attempt: int = 1
    """Of its message."""

    @property
    def identity(self) -> str:
        """The same for all messages about the same file, however often it is told."""
        return f"{self.path}|{self.size}"


@dataclass
class Block:
    """Files of one rule, subband and hour that go together.

    Attributes
    ----------
    since : float
        When the first came, on the clock of whoever gathers.
    ready_since : float or None
        When it was complete, or had waited enough.
    """

    since: float
    files: dict[str, Recording] = field(default_factory=dict)
    ready_since: float | None = None


@dataclass(frozen=True)
class Batch:
    """Blocks that go into one flow run.

    Attributes
    ----------
    rule : RecordedRule
    files : tuple of Recording
        Of all of them, in the order of time.
    blocks : int
    """

    rule: RecordedRule
    files: tuple[Recording, ...]
    blocks: int


class Gathering:
    """All files that wait. Times are seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, str, datetime, int], Block] = {}
        self._rules: dict[str, RecordedRule] = {}
        self._beats: dict[tuple[str, datetime], float] = {}

    def __len__(self) -> int:
        return sum(len(block.files) for block in self._blocks.values())

    @property
    def blocks(self) -> int:
        """Blocks that wait."""
        return len(self._blocks)

    def oldest_s(self, now: float) -> float:
        """How long the first of them has waited."""
        return max((now - block.since for block in self._blocks.values()), default=0.0)

    def add(self, rule: RecordedRule, recording: Recording, now: float) -> None:
        """Put a file into its block; one that is there already changes nothing."""
        hour = recording.start.replace(minute=0, second=0, microsecond=0)
        into_s = (recording.start - hour).total_seconds()
        begins_s = self._beats.setdefault((recording.subband, hour), beat_s([into_s]))
        number = block_number(into_s, begins_s, rule.block)
        self._rules[rule.name] = rule
        block = self._blocks.setdefault((rule.name, recording.subband, hour, number), Block(now))
        block.files.setdefault(recording.identity, recording)
        if len(block.files) >= rule.block:
            block.ready_since = block.ready_since or now
        for (name, band, other, _), waiting in self._blocks.items():
            if (name, band) == (rule.name, recording.subband) and other < hour:  # the hour is over
                waiting.ready_since = waiting.ready_since or now

    def due(self, now: float, *, everything: bool = False) -> Iterator[Batch]:
        """Take out what goes now: of each rule all blocks that are ready, once the first of them has waited enough.

        Parameters
        ----------
        now : float
        everything : bool
            Whatever waits.
        """
        for name, rule in self._rules.items():
            ready = []
            for key, block in self._blocks.items():
                if key[0] != name:
                    continue
                if block.ready_since is None and now - block.since >= rule.wait_s:
                    block.ready_since = now
                if everything or block.ready_since is not None:
                    ready.append(key)
            first = min((self._blocks[key].ready_since or now for key in ready), default=now)
            if everything or len(ready) >= TOGETHER or now - first >= rule.together_s:
                ready.sort(key=lambda key: key[2:])  # the oldest hours first
                for start in range(0, len(ready), TOGETHER):
                    taken = [self._blocks.pop(key) for key in ready[start : start + TOGETHER]]
                    files = sorted(file for block in taken for file in block.files.values())
                    yield Batch(rule, tuple(files), len(taken))
        there = {key[1:3] for key in self._blocks}
        newest = max((hour for _, hour in self._beats), default=None)
        self._beats = {key: beat for key, beat in self._beats.items() if key in there or key[1] == newest}

    def next_due_s(self, now: float) -> float:
        """In how many seconds `due` has to be asked again; infinity when nothing waits."""
        times = []
        for key, block in self._blocks.items():
            rule = self._rules[key[0]]
            ready = block.ready_since
            times.append(block.since + rule.wait_s if ready is None else ready + rule.together_s)
        return max(min(times) - now, 0.0) if times else float("inf")
