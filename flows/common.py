"""What the flows of all stages share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from prefect import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import State
from pydantic import BaseModel, ConfigDict

from orca import config, failures, naming
from orca.cluster.gather import Outcome, conclude
from orca.cluster.machine.standing import broker_uri
from orca.config import Config
from orca.config.secret import mask
from orca.errors import BrokerAwayError, InputError
from orca.ms.acceptance import Acceptance

News = dict[str, Any]
"""Fields of an `orca.events.announcements.Announcement`, which is only imported where there is a broker."""
FAILURES = 50
"""Units of one flow run whose failure is announced; of more it is only told how many."""


class Frozen(BaseModel):
    """Base of what travels from a flow to its tasks, and back."""

    model_config = ConfigDict(frozen=True)


class Machines(Frozen):
    """What the machines are like: where to work, how long it may take, and what is worth working on.

    Attributes
    ----------
    scratch, trash : Path
    stage_s : float
        Deadline of one unit's reading and writing.
    reserve_bytes : int
        Room that stays free on the scratch disk.
    acceptance : Acceptance
    """

    scratch: Path
    trash: Path
    stage_s: float
    reserve_bytes: int
    acceptance: Acceptance

    @classmethod
    def of(cls, settings: Config, **more: Any) -> Self:
        """As the configuration has them, and `more` for what a stage adds."""
        limits = settings.limits
        return cls(
            scratch=settings.paths.scratch,
            trash=settings.paths.trash,
            stage_s=limits.stage_s,
            reserve_bytes=int(limits.scratch_reserve_gb * 1e9),
            acceptance=Acceptance(
                settle_s=limits.settle_s,
                min_fill_level=limits.min_fill_level,
                max_zero_share=limits.max_zero_share,
            ),
            **more,
        )


def distinct_sources(measurement_sets: Sequence[Path], out: Path | None, others: Sequence[Path] = ()) -> list[Path]:
    """Each Measurement Set once, by whatever names it was given; of one and its tar the former.

    Parameters
    ----------
    measurement_sets : paths
    out : Path, optional
        Folder for the products.
    others : paths
        What else is read.

    Raises
    ------
    InputError
        There is none, or the products would go into an input.
    """
    if not measurement_sets:
        raise InputError("no Measurement Set given", remedy="Name at least one")
    given = {Path(source).resolve(): Path(source).absolute() for source in measurement_sets}.values()
    sources = sorted(source for source in given if source.suffix != ".tar" or source.with_suffix("") not in given)
    for used in (*sources, *others):
        if out is not None and out.resolve().is_relative_to(used.resolve()):
            raise InputError("is inside an input, and inputs are only read", out, "Choose another folder")
    return sources


def check_absolute(**paths: Path | None) -> None:
    """Refuse relative paths to a deployment's run, which does not know the folder of whoever asked for it.

    Raises
    ------
    InputError
        One is relative.
    """
    if deployment.id is None:
        return
    for name, path in paths.items():
        if path is not None and not path.is_absolute():
            problem = f"{name.replace('_', ' ')}: a deployment's run does not know what this path is relative to"
            raise InputError(problem, path, "Give the whole path, from the root on")


def concluded(
    outcomes: list[Outcome],
    title: str,
    sources: Mapping[str, Sequence[Path]],
    good: Callable[[], Iterable[News]] = tuple,
    *,
    stage: str | None = None,
) -> State[Any]:
    """End a flow as `conclude` does, keep its failures on disk, and announce what came of it.

    Failures go to `orca.failures`, and those of units that are done now leave there. Announced is to whoever listens at
    the broker, if there is one. Neither makes a flow fail.

    Parameters
    ----------
    outcomes : list of Outcome
    title : str
        Of its table.
    sources : paths by unit
        What each would be made of.
    good : callable, optional
        What is announced besides failures; it is only called where there is a broker.
    stage : str, optional
        Whose failures these are; its title when not given.
    """
    state = conclude(outcomes, title)
    settings = config.load()
    try:
        _keep_failures(settings.paths.data / failures.FOLDER, outcomes, stage or title, sources)
    except Exception as error:  # noqa: BLE001 - whatever hinders it, the work is done
        get_run_logger().warning("what failed could not be written down: %s", error)
    try:
        if broker_uri(settings) is not None:
            from orca.events.announcements import Announcement
            from orca.events.untold import announce_or_keep

            told = [*good(), *_failures(outcomes, stage or title, sources)]
            announce_or_keep(settings, [Announcement(**each) for each in told])
    except BrokerAwayError as error:
        get_run_logger().warning("not announced yet: %s", error)
    except Exception as error:  # noqa: BLE001 - whatever hinders the telling, the work is done
        get_run_logger().warning("not announced: %s", error)
    return state


def to_announce(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Units whose products are new: what was made, and in a run that was begun again what it found to be made.

    The process that made that may have died before it told of it. What is told twice does no harm.
    """
    begun_again = (flow_run.run_count or 0) > 1
    return [each for each in outcomes if each.status == "done" or (begun_again and each.status == "skipped")]


def news(kind: str, paths: Iterable[Path], text: str, named: Iterable[Path] = ()) -> News:
    """What to announce, with the subband, day and hour (UTC) on which the names of all paths agree.

    Parameters
    ----------
    kind : str
        Such as image.ready.
    paths : paths
    text : str
    named : paths, optional
        Whose names count as well, where those of `paths` are silent.
    """
    paths = list(paths)
    told = {**_agreed(named), **_agreed(paths)}
    return {"kind": kind, "paths": tuple(map(str, paths)), "text": text[:5000], **told}


def _agreed(paths: Iterable[Path]) -> News:
    said: dict[str, set[Any]] = {"subband": set(), "day": set(), "hour": set()}
    for path in paths:
        with suppress(InputError):  # a name of the user's own
            name = naming.parse(path)
            for key, values in said.items():
                values.add(getattr(name, key))
    return {key: value for key, values in said.items() if len(values) == 1 for value in values if value is not None}


def _keep_failures(root: Path, outcomes: Iterable[Outcome], stage: str, sources: Mapping[str, Sequence[Path]]) -> None:
    """Write down which units failed, and forget the failures of those that did not."""
    run = {"flow_run": str(flow_run.id or ""), "flow_run_name": str(flow_run.name or "")}
    for outcome in outcomes:
        made_of = sources.get(outcome.unit, ())
        if outcome.status != "failed":
            failures.forget(root, stage, outcome.unit, made_of)
            continue
        failures.tell(
            root,
            failures.Failed(
                stage=stage,
                unit=outcome.unit,
                reason=mask(outcome.reason),
                cause=outcome.cause,
                sources=tuple(str(path) for path in made_of[: failures.SOURCES]),
                when=failures.now(),
                detail=mask(outcome.detail),
                **run,
            ),
        )


def _failures(outcomes: Iterable[Outcome], stage: str, sources: Mapping[str, Sequence[Path]]) -> list[News]:
    kind = f"{stage}.failed"
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    told = [news(kind, sources[o.unit], f"{o.unit}: {o.reason}") for o in failed[:FAILURES]]
    more = len(failed) - FAILURES
    return [*told, news(kind, (), f"{more} more failed")] if more > 0 else told
