"""An account in words: as JSON with stable names, and the lines that say what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from orca import telescope
from orca.failures import Failed
from orca.night.account import Account
from orca.night.cell import Cell, Counts

_LIMIT = 160
"""Characters of a reason in one line."""


def as_json(account: Account, lifetime_h: float) -> dict[str, Any]:
    """All of an account as JSON values; docs/night.md explains the names, which do not change."""
    die = account.next_to_die
    return {
        "date": account.day.isoformat(),
        "now": _moment(account.now),
        "raw_lifetime_h": lifetime_h,
        "total": _counts(account.total),
        "subbands": [{"subband": name, **_counts(account.of_subband(name))} for name in subbands_of(account)],
        "hours": [{"hour": hour, **_counts(account.of_hour(hour))} for hour in range(24)],
        "cells": [
            {
                "subband": cell.subband,
                "hour": cell.hour,
                **_counts(cell.counts),
                "raw_until": _moment(cell.raw_until),
                "at_risk": cell.at_risk,
                "at_risk_until": _moment(cell.at_risk_until),
                "why": [{"reason": reason, "integrations": number} for reason, number in cell.why],
            }
            for cell in account.cells
        ],
        "next_to_die": None
        if die is None
        else {
            "subband": die.subband,
            "hour": die.hour,
            "integrations": die.at_risk,
            "when": _moment(die.at_risk_until),
        },
        "failures": [asdict(each) for each in account.failures],
        "calibrations": [
            {
                "name": each.name,
                "kind": each.kind,
                "subband": each.subband,
                "hour": each.hour,
                "passed": each.passed,
                "reasons": each.reasons,
                "warnings": each.warnings,
                "numbers": dict(each.numbers),
                "path": str(each.path),
            }
            for each in account.calibrations
        ],
    }


def subbands_of(account: Account) -> list[str]:
    """Names of the subbands, upwards in frequency."""
    return list(dict.fromkeys(cell.subband for cell in account.cells))


def dies_next(account: Account) -> str:
    """Which raw data without a product are deleted next, and when."""
    cell = account.next_to_die
    if cell is None or cell.at_risk_until is None:
        return "no raw data without a product will be deleted"
    left_h = (cell.at_risk_until - account.now).total_seconds() / 3600
    what = f"{cell.subband} {cell.hour:02d}h, {integrations(cell.at_risk)} without a product"
    if left_h <= 0:
        return f"deleted next: {what}, any moment: older than the recorder keeps since {when(cell.at_risk_until)}"
    return f"deleted next: {what}, from {when(cell.at_risk_until)} on, in {left_h:.1f} h"


def problems(account: Account) -> list[tuple[str, str]]:
    """What is wrong: where (subbands and hours), and what, by subband and hour.

    Hours without any recording are told together for all subbands that have the same ones, and first.
    """
    lines: list[tuple[str, str]] = []
    silent: dict[tuple[int, ...], list[str]] = {}
    for band, cells in groupby(account.cells, key=lambda cell: cell.subband):
        hours = []
        for cell in cells:
            if cell.counts.expected and not cell.counts.recorded:
                hours.append(cell.hour)
            elif what := _problem(cell, account.now):
                lines.append((f"{band} {cell.hour:02d}h", what))
        if hours:
            silent.setdefault(tuple(hours), []).append(band)
    told = [(f"{_bands(names)} {spans(hours)}", "nothing was recorded") for hours, names in silent.items()]
    return [*told, *lines]


def _problem(cell: Cell, now: datetime) -> str:
    numbers = cell.counts
    said = [
        f"{number} {what}"
        for number, what in (
            (numbers.failed, "failed"),
            (numbers.dead, "dead"),
            (numbers.overdue, "overdue"),
            (numbers.waiting, "waiting"),
            (numbers.lost, "deleted without a product"),
            (numbers.missing - numbers.lost, "never recorded"),
            (numbers.failed_imaging, "failed in imaging"),
            (numbers.failed_spectrum, "failed in spectrum"),
            (numbers.failed_cosmology, "failed in cosmology"),
        )
        if number > (1 if what == "never recorded" else 0)  # an hour has 358 or 359
    ]
    if cell.at_risk_until is not None and cell.at_risk_until > now:
        said.append(f"raw data until {when(cell.at_risk_until)}")
    if said and cell.why:
        said.append(shortened(cell.why[0][0]))
    return "; ".join(said)


def shortened(reason: str) -> str:
    """The first line of a reason without its path, and of that not too much."""
    line = without_paths(reason)
    return line if len(line) <= _LIMIT else f"{line[: _LIMIT - 1]}…"


def grouped(failures: Iterable[Failed]) -> dict[tuple[str, str], list[Failed]]:
    """Failures by stage and reason, without the paths in it, which differ from unit to unit."""
    groups: dict[tuple[str, str], list[Failed]] = {}
    for each in failures:
        groups.setdefault((each.stage, without_paths(each.reason)), []).append(each)
    return groups


def without_paths(reason: str) -> str:
    """A reason in general: without the path that it begins with, nor where to look for more of this one."""
    plain = re.sub(r"^/\S*: ", "", next(iter(reason.strip().splitlines()), ""))
    return re.sub(r"\.? See (/\S+)$", "", plain)


def spans(hours: Iterable[int]) -> str:
    """Hours in short: 00-03h, 07h."""
    parts = []
    numbered = enumerate(sorted(hours))
    for _, run in groupby(numbered, key=lambda pair: pair[1] - pair[0]):
        those = [hour for _, hour in run]
        parts.append(f"{those[0]:02d}h" if len(those) == 1 else f"{those[0]:02d}-{those[-1]:02d}h")
    return ", ".join(parts)


def integrations(number: int) -> str:
    """So many integrations, in words."""
    return f"{number} integration{'' if number == 1 else 's'}"


def when(time: datetime) -> str:
    """A time as tables show it."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UT"


def _bands(names: list[str]) -> str:
    everything = [band.name for band in telescope.SUBBANDS]
    if names == everything:
        return "all subbands"
    places = [everything.index(name) for name in names]
    parts = []
    for _, run in groupby(enumerate(places), key=lambda pair: pair[1] - pair[0]):
        those = [everything[place] for _, place in run]
        parts.append(those[0] if len(those) == 1 else f"{those[0].removesuffix('MHz')}-{those[-1]}")
    return ", ".join(parts)


def _counts(counts: Counts) -> dict[str, Any]:
    done = counts.done
    return {**asdict(counts), "done": None if done is None else round(done, 4)}


def _moment(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat(timespec="seconds")
