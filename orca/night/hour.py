"""A subband and hour in full: where each of its integrations belongs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from orca import naming, telescope
from orca.night.cell import Cell, Counts, Places
from orca.night.reading import ABSENT, DEAD, Reduced, came_s, imaged_in, recorded_in, reduced_in, split_in


@dataclass
class Hour:
    """A subband and hour in full: integrations by name.

    Attributes
    ----------
    begin : datetime
    band : str
    now : datetime
    lifetime : timedelta
    there : dict
        File names of the raw data.
    reduced : set of str
    dead, failed : dict
        Why, by name.
    waiting, settling, overdue, lost, imaged, split : set of str
    expected : int
    """

    begin: datetime
    band: str
    now: datetime
    lifetime: timedelta
    there: dict[str, str]
    reduced: set[str]
    expected: int
    dead: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    settling: set[str] = field(default_factory=set)
    overdue: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    imaged: set[str] = field(default_factory=set)
    split: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, places: Places, band: str, begin: datetime, reasons: Mapping[str, str], now: datetime) -> Hour:
        """Look at the folders of a subband and hour; `reasons` of failed reductions by name."""

        def folder(root: Path) -> Path:
            return root / band / f"{begin:%Y-%m-%d}" / f"{begin:%H}"

        raw = folder(places.raw)
        there = recorded_in(raw)  # before all else: see take_account
        made = reduced_in(folder(places.averaged))
        came = {name: came_s(f"{raw}/{there[name]}") for name in there.keys() - made.done}
        if None in came.values():  # deleted since, which is after it was reduced
            made = reduced_in(folder(places.averaged))
        found = cls(
            begin=begin,
            band=band,
            now=now,
            lifetime=timedelta(hours=places.lifetime_h),
            there=there,
            reduced=made.done,
            expected=expected(begin, now, places.settle_s),
            imaged=imaged_in(folder(places.images)),
            split=split_in(folder(places.cosmology)),
        )
        found._sort(made, reasons, came, timedelta(seconds=places.settle_s))
        return found

    def _sort(
        self, made: Reduced, reasons: Mapping[str, str], came: Mapping[str, float | None], settle: timedelta
    ) -> None:
        """Put each integration where it belongs; `came` is when each that is not reduced came, None if it is gone."""
        why = {**reasons, **made.left_out}
        for name in sorted((self.there.keys() | why.keys()) - self.reduced):
            reason = why.get(name, "")
            if DEAD.search(reason):
                self.dead[name] = reason
            elif (at := came.get(name)) is None:
                self.there.pop(name, None)
                self.lost.add(name)
            elif reason and reason != ABSENT:
                self.failed[name] = reason
            elif max(at, self._end(name).timestamp()) > (self.now - settle).timestamp():
                self.settling.add(name)
            elif self._start(name) + self.lifetime < self.now:
                self.overdue.add(name)
            else:
                self.waiting.add(name)

    @property
    def unready(self) -> set[str]:
        """What is there, has no product, and would die without one."""
        return self.waiting | self.overdue | self.failed.keys() & self.there.keys()

    def cell(self, in_spectra: int, failed_stages: Mapping[str, int]) -> Cell:
        """Its numbers."""
        present = len(self.failed) + len(self.waiting) + len(self.settling) + len(self.overdue)
        accounted = len(self.reduced) + len(self.dead) + present
        why = Counter([*self.failed.values(), *self.dead.values()])
        at_risk = self.unready
        return Cell(
            subband=self.band,
            hour=self.begin.hour,
            counts=Counts(
                expected=self.expected,
                recorded=len(self.there.keys() | self.reduced | self.dead.keys() | self.lost),
                reduced=len(self.reduced),
                dead=len(self.dead),
                failed=len(self.failed),
                waiting=len(self.waiting),
                settling=len(self.settling),
                overdue=len(self.overdue),
                missing=max(self.expected - accounted, len(self.lost)),
                lost=len(self.lost),
                imaged=len(self.imaged),
                spectrum=in_spectra,
                split=len(self.split),
                **{f"failed_{stage}": number for stage, number in failed_stages.items()},
            ),
            raw_until=self._first(self.there),
            at_risk_until=self._first(at_risk),
            at_risk=len(at_risk),
            why=tuple(why.most_common()),
        )

    def _first(self, names: Iterable[str]) -> datetime | None:
        """When the first of some raw data are deleted."""
        first = min(names, default=None)
        return None if first is None else self._start(first) + self.lifetime

    def _start(self, name: str) -> datetime:
        return naming.parse_stamp(name[:15])

    def _end(self, name: str) -> datetime:
        return self._start(name) + timedelta(seconds=telescope.INTEGRATION_S)


def expected(begin: datetime, now: datetime, settle_s: float = 0.0) -> int:
    """Integrations that an hour should have by now: 358, one less than some hours have, once it is over.

    Parameters
    ----------
    begin : datetime
        Of the hour.
    now : datetime
    settle_s : float
        What began later than so long ago is not expected yet.
    """
    elapsed_s = min((now - begin).total_seconds() - settle_s, 3600.0)
    return max(0, int(elapsed_s // telescope.INTEGRATION_S))
