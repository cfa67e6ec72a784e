"""What the checks look at: the configuration as far as it can be read, and the work pools."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from orca import config
from orca.cluster.machine import standing
from orca.cluster.pools import WorkPools, load_pools
from orca.config import Config
from orca.errors import ConfigError, InfrastructureError, OrcaError

Result = TypeVar("Result")

READ_S = 2.5
"""How long reading the configuration may take; a home on a dead network drive does not let go."""


@dataclass(frozen=True)
class Examined:
    """What is examined.

    Attributes
    ----------
    settings : Config or None
        None: it cannot be read, for the reason in `broken`.
    broken : OrcaError or None
    file : Path or None
        The user's orca-conf.yml, valid or not.
    pools : WorkPools or None
    pools_broken : OrcaError or None
    """

    settings: Config | None
    broken: OrcaError | None = None
    file: Path | None = None
    pools: WorkPools | None = None
    pools_broken: OrcaError | None = None


def within(seconds: float, function: Callable[[], Result]) -> Result | None:
    """What a function returns; None where it hangs, and then it is left to itself. Raises what it raises."""
    results: list[Result] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=run, name="doctor-reading", daemon=True)
    thread.start()
    thread.join(seconds)
    for error in errors:
        raise error
    return results[0] if results else None


def hangs(what: str) -> Examined:
    """Nothing can be read, since something that is needed for it hangs."""
    remedy = "See whether the disks of the home and of paths.data answer: df"
    return Examined(None, ConfigError(f"{what} cannot be read within {READ_S:g} s", remedy=remedy))


def read() -> Examined:
    """Read what there is; never raises because of what the files say."""
    file, settings, broken, pools, pools_broken = None, None, None, None, None
    try:
        file = config.find()
        settings = config.load()
    except OrcaError as error:
        broken = error
    try:
        pools = load_pools(None if settings is None else _cluster_file(settings))
    except OrcaError as error:
        pools_broken = error
    return Examined(settings, broken, file, pools, pools_broken)


def _cluster_file(settings: Config) -> Path | None:
    try:
        return standing.cluster_file(settings)
    except InfrastructureError:  # which the check of it says
        return None
