"""All checks, by section."""

from __future__ import annotations

from collections.abc import Callable, Collection

from orca.cluster.doctor import (
    broker,
    clock,
    configuration,
    cores,
    disks,
    environment,
    measures,
    prefect_server,
    programs,
    redis_server,
    rights,
    scheduler,
)
from orca.cluster.doctor.finding import SECTIONS, Check, Finding
from orca.cluster.doctor.site import READ_S, Examined, hangs, read, within
from orca.errors import OrcaError

NEEDS_SETTINGS = ("broker", "redis", "prefect", "flow-workers", "dask", "disks")


def plan(sections: Collection[str] = SECTIONS) -> list[Check]:
    """Read the configuration, and return the checks; within `READ_S` for each, whatever disks hang."""
    site = within(READ_S, read) or hangs("orca-conf.yml or work_pools.yaml")
    found = within(READ_S, lambda: checks(site, sections))
    return checks(hangs("paths.data or prefect.home"), sections) if found is None else found


def checks(site: Examined, sections: Collection[str] = SECTIONS) -> list[Check]:
    """The checks of some sections, in the order in which their findings are shown.

    Parameters
    ----------
    site : Examined
        Without settings, what needs them is one note a section.
    sections : collection of str
    """
    settings = site.settings
    makers: dict[str, Callable[[], list[Check]]] = {
        "configuration": lambda: configuration.checks(site),
        "programs": lambda: programs.checks(site),
        "measures": measures.checks,
        "broker": lambda: broker.checks(settings) if settings else [],
        "redis": lambda: redis_server.checks(settings) if settings else [],
        "prefect": lambda: prefect_server.checks(site),
        "dask": lambda: scheduler.checks(site),
        "disks": lambda: disks.checks(site),
        "clock": lambda: clock.checks(site),
        "environment": environment.checks,
        "rights": lambda: rights.checks(site),
        "cores": lambda: cores.checks(site),
    }
    found = [check for section, make in makers.items() for check in _made(section, make)]
    if settings is None:
        found += [_left_out(section) for section in NEEDS_SETTINGS]
    return sorted((c for c in found if c.section in sections), key=lambda c: SECTIONS.index(c.section))


def _left_out(section: str) -> Check:
    seen = "not examined, as orca-conf.yml cannot be read"
    return Check(section, "configuration", lambda: [Finding(section, "configuration", "note", seen)])


def _made(section: str, make: Callable[[], list[Check]]) -> list[Check]:
    """The checks of a section; where they cannot even be made, one that says so."""
    try:
        return make()
    except (OrcaError, OSError, ValueError) as error:
        reason = error

        def fail() -> list[Finding]:
            raise reason

        return [Check(section, section, fail)]
