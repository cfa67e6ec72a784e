"""triggers.yaml: which recorded files, and which announcements, start what."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

import orca
from orca import config, naming, telescope
from orca.cluster import checked_yaml
from orca.config.model import Name, Section
from orca.errors import ConfigError, InputError, MessageError

if TYPE_CHECKING:
    from orca.events.runs import FlowRuns

MARGIN = timedelta(minutes=10)
"""What the trigger has not asked for so long after the longest wait of its rules, it was never told of."""
FILE_NAME = "triggers.yaml"
VARIABLE = "ORCA_TRIGGERS"
PACKAGED = Path(orca.__file__).parents[1] / "deployments" / FILE_NAME

Announced = Literal["calibration.ready"]
_HOURS = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", re.ASCII)
_DEPLOYMENT = r"^[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+$"


class _Rule(Section):
    name: Name
    deployment: Annotated[str, Field(pattern=_DEPLOYMENT)]
    """Such as reduction/reduction, without the prefix."""
    subbands: list[str] | None = None
    """Only these; None: all."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Of the flow, besides the files."""
    files: Name = "measurement_sets"
    """The parameter of the flow that takes the files."""

    @field_validator("subbands")
    @classmethod
    def _are_subbands(cls, names: list[str] | None) -> list[str] | None:
        for name in names or ():
            try:
                telescope.subband(name)
            except InputError as error:
                raise ValueError(error.problem) from None
        return names

    def wants_subband(self, name: str) -> bool:
        """Whether the rule is for a subband."""
        return self.subbands is None or telescope.subband(name).name in [
            telescope.subband(s).name for s in self.subbands
        ]


class RecordedRule(_Rule):
    """What starts when files are recorded."""

    kind: Literal["raw", "averaged", "cosmology"] = "raw"
    """Of the files, by their names."""
    lst_hours: str | None = None
    """Only integrations in this range of sidereal time, such as 11-14; None: all."""
    block: Annotated[int, Field(ge=1, le=360)] = 24
    """Integrations of a subband and hour that go together."""
    wait_s: Annotated[float, Field(gt=0, le=1200)] = 300.0
    """A block that is not full by then goes as it is."""
    together_s: Annotated[float, Field(ge=0, le=300)] = 10.0
    """Blocks that are ready within this time, those of other subbands, say, share one flow run."""

    @field_validator("lst_hours")
    @classmethod
    def _is_a_range(cls, text: str | None) -> str | None:
        match = _HOURS.fullmatch(text) if text is not None else None
        if text is not None and not (match and all(float(hour) <= 24 for hour in match.groups())):
            raise ValueError(f"expected a range of sidereal hours such as 11-14, found {text!r}")
        return text

    def wants(self, name: naming.ParsedName) -> bool:
        """Whether a file is for this rule, by its name."""
        if name.kind.value != self.kind or name.manifest or name.subband is None or name.start is None:
            return False
        return self.wants_subband(name.subband) and self._in_its_hours(name.start)

    def _in_its_hours(self, start: datetime) -> bool:
        if self.lst_hours is None:
            return True
        first, last = (float(hour) for hour in self.lst_hours.split("-"))
        lst_h = float(telescope.sidereal_time_h(start + timedelta(seconds=telescope.INTEGRATION_S / 2)))
        return bool((lst_h - first) % 24 <= (last - first) % 24)


class AnnouncedRule(_Rule):
    """What starts with the recordings of an hour when something is announced that names a subband and an hour."""

    after: Announced
    every: Annotated[int, Field(ge=1)] = 1
    """Of the hour's recordings the first, and then one of so many."""


class Rules(Section):
    """All rules."""

    recorded: list[RecordedRule] = Field(default_factory=list)
    announced: list[AnnouncedRule] = Field(default_factory=list)


def find_rules() -> Path:
    """The file: `$ORCA_TRIGGERS`, else triggers.yaml beside the configuration, else the one that comes with ORCA.

    Raises
    ------
    ConfigError
        The variable names a file that does not exist.
    """
    if named := os.environ.get(VARIABLE):
        path = Path(named).expanduser()
        if not path.exists():
            raise ConfigError(f"${VARIABLE} names a file that does not exist", path)
        return path
    conf = config.find()
    beside = conf.parent / FILE_NAME if conf else None
    return beside if beside is not None and beside.exists() else PACKAGED


def load_rules(path: Path | None = None) -> Rules:
    """Read and check the rules.

    Raises
    ------
    ConfigError
        One line a problem, with file, line, key and what was expected.
    """
    return checked_yaml.load((path or find_rules()).absolute(), Rules, _contradictions)


def left_to_trigger(deployment: str) -> timedelta:
    """How old recorded files have to be before anybody but the trigger asks a deployment for them.

    Raises as `load_rules`.
    """
    waits = [rule.wait_s for rule in load_rules().recorded if rule.deployment == deployment]
    return timedelta(seconds=max(waits, default=0.0)) + MARGIN


def refused(rules: Rules, runs: FlowRuns) -> dict[str, str]:
    """What Prefect would refuse, whatever files it is asked for: names of rules, and why.

    Raises
    ------
    InfrastructureError
        The server does not answer.
    """
    found: dict[str, str] = {}
    for rule in (*rules.recorded, *rules.announced):
        try:
            runs.check(rule.deployment, {**rule.parameters, rule.files: [str(runs.roots[0] / "any.ms")]})
        except MessageError as error:
            found[rule.name] = str(error)
    return found


def _contradictions(rules: Rules) -> Iterator[tuple[str, str]]:
    names = [rule.name for rule in (*rules.recorded, *rules.announced)]
    for kind, found in (("recorded", rules.recorded), ("announced", rules.announced)):
        for number, rule in enumerate(found):
            if names.count(rule.name) > 1:
                yield f"{kind}.{number}.name", f"there are two rules {rule.name}"
            if rule.files in rule.parameters:
                yield f"{kind}.{number}.parameters", f"{rule.files} is what takes the files"
