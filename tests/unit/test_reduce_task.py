"""The task of the reduction: what two of them do to one block, and what is refused before any block is begun."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from file_times import age

import flows.reduction_block as stage
from flows.reduction import _check_options
from flows.reduction_block import reduce_block_task
from flows.reduction_units import How, Site, Unit
from orca.errors import InputError
from orca.manifest import read_manifest
from orca.ms.acceptance import Acceptance
from orca.reduction import plan_given
from orca.reduction_options import OriginalOptions, ReductionOptions
from orca.trash import list_trash


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(
        scratch=tmp_path / "scratch",
        trash=tmp_path / "trash",
        stage_s=300,
        reserve_bytes=0,
        lifetime_h=24,
        acceptance=Acceptance(settle_s=0),
    )


@pytest.fixture
def unit(simulations: Callable[..., list[Path]], tmp_path: Path) -> Unit:
    """A block of three integrations."""
    copies = (shutil.copytree(ms, tmp_path / "raw" / ms.name) for ms in simulations(integrations=3))
    sources = tuple(sorted(Path(copy) for copy in copies))
    age(tmp_path / "raw")
    start = datetime(2026, 1, 10, 18, tzinfo=UTC)
    return Unit(name="block", start=start, sources=sources, prefix=tmp_path / "averaged" / "20260110_18_73MHz_block00")


def how(originals: str = "keep") -> How:
    return How(options=ReductionOptions(), originals=OriginalOptions(originals=originals, keep_near=()))


def outputs(manifest: Path) -> list[Path]:
    return [Path(output.path) for output in read_manifest(manifest).outputs]


def test_two_that_reduce_and_trash_one_block_at_once_both_succeed_and_lose_nothing(site: Site, unit: Unit) -> None:
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(reduce_block_task.fn, unit, how("trash"), site) for _ in range(2)]
        made = [job.result() for job in jobs]
    assert sum(each.trashed for each in made) == 3
    assert sorted(entry.original for entry in list_trash(site.trash)) == list(unit.sources)
    assert len(outputs(made[0].manifest)) == 6
    assert all(path.exists() for path in outputs(made[0].manifest))


def test_a_late_integration_does_not_replace_those_that_are_published_meanwhile(
    site: Site, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    *early, late = unit.sources
    as_it_is = stage._reduced

    def overtaken(*arguments: Any) -> Any:
        made = as_it_is(*arguments)
        monkeypatch.setattr(stage, "_reduced", as_it_is)
        reduce_block_task.fn(unit.model_copy(update={"sources": tuple(early)}), how(), site)
        return made

    monkeypatch.setattr(stage, "_reduced", overtaken)
    made = reduce_block_task.fn(unit.model_copy(update={"sources": (late,)}), how(), site)
    assert made.quality["integrations"] == 3
    assert len(outputs(made.manifest)) == 6


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"average": 5}, "16 channels cannot be averaged by 5"),
        ({"flag_channels": "3,16"}, "none with the number 16"),
        ({"flag_antennas": "999"}, "999"),
    ],
)
def test_options_that_no_block_can_have_are_refused_before_the_first(
    simulations: Callable[..., list[Path]], tmp_path: Path, options: dict[str, object], told: str
) -> None:
    blocks = plan_given(simulations(integrations=3), tmp_path, 1)
    with pytest.raises(InputError, match=told):
        _check_options(blocks, ReductionOptions(**options))
    _check_options(blocks, ReductionOptions())
