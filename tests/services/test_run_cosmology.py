"""`orca run cosmology` as people run it, and what is left when it is killed at any moment."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from casacore import tables as ct
from file_times import age, contents
from site_of_tests import Site, outcomes
from waiting import wait_for

import flows.cosmology as stage
from flows.common import Machines
from flows.cosmology import Unit, split_unit
from orca.errors import DataError, InputError, InvalidDataError, MissingDataError, StorageError
from orca.isolation import preload, run_isolated
from orca.manifest import read_manifest
from orca.ms.acceptance import Acceptance
from orca.ms.split import split
from orca.scratch import sweep
from orca.split_options import SplitOptions
from orca.trash import list_trash, restore

STAMP = "20260110_180000_73MHz"
TREE = Path("73MHz/2026-01-10/18")
TRASH = SplitOptions(original="trash")
STEPS = [(Path, name) for name in ("rename", "replace", "unlink")] + [(stage, "run_isolated")]
"""Before any of these the process may be killed: they change what is on the disk."""
CopyMs = Callable[..., Path]


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    """What the flow would give its tasks, all in one folder."""
    return Machines(
        scratch=tmp_path / "scratch",
        trash=tmp_path / "trash",
        stage_s=60,
        reserve_bytes=0,
        acceptance=Acceptance(settle_s=0),
    )


def unit_of(source: Path, folder: Path) -> Unit:
    return Unit(name=source.stem, source=source, product=folder / f"{source.stem}_2pol.ms")


def same_visibilities(product: Path, original: Path) -> bool:
    """Whether DATA and FLAG are those of XX and YY, as casacore reads them."""
    with ct.table(str(product), ack=False) as new, ct.table(str(original), ack=False) as old:
        return all(np.array_equal(new.getcol(name), old.getcol(name)[..., [0, 3]]) for name in ("DATA", "FLAG"))


@pytest.mark.usefixtures("dask")
def test_a_product_is_made_once_and_again_when_options_change_or_it_is_not_whole(site: Site, copy_ms: CopyMs) -> None:
    source = copy_ms()
    before = contents(source)
    words = ("run", "cosmology", source, "--json")
    result = site.run(*words, alone=True)
    assert result.returncode == 0, result.stderr
    made = outcomes(result)[STAMP]
    product = site.data / "cosmology" / TREE / f"{STAMP}_2pol.ms"
    assert (made["status"], made["product"], made["note"]) == ("done", str(product), "")
    assert same_visibilities(product, source)
    manifest = read_manifest(Path(made["manifest"]))
    assert [entry.path for entry in manifest.inputs] == [str(source)]
    assert outcomes(site.run(*words))[STAMP]["status"] == "skipped"
    averaged = outcomes(site.run(*words, "--average", 4))[STAMP]
    assert (averaged["status"], averaged["quality"]["n_channels"]) == ("done", 4)
    assert "options are others" in averaged["note"]
    Path(averaged["manifest"]).unlink()
    half = outcomes(site.run(*words))[STAMP]
    assert half["status"] == "done"
    assert "was not whole" in half["note"]
    assert same_visibilities(product, source)
    assert contents(source) == before
    assert site.leftovers() == []


@pytest.mark.usefixtures("dask")
def test_the_original_goes_to_the_trash_and_comes_back(site: Site, copy_ms: CopyMs, tmp_path: Path) -> None:
    source = copy_ms()
    before = contents(source)
    words = ("run", "cosmology", source, "--out", tmp_path / "out", "--original", "trash")
    told = site.run(*words)
    assert told.returncode == 0, told.stderr
    assert "original in the trash" in " ".join(told.stdout.split())
    assert not source.exists()
    [trashed] = [entry for entry in list_trash(site.data / "trash") if entry.original == source]
    assert same_visibilities(tmp_path / "out" / f"{STAMP}_2pol.ms", trashed.path)
    again = outcomes(site.run(*words, "--json"))[STAMP]
    assert (again["status"], "original is in the trash" in again["note"]) == ("skipped", True)
    assert restore(trashed.path) == source
    assert contents(source) == before
    kept = site.run("run", "cosmology", source, "--out", tmp_path / "out", "--json")
    assert outcomes(kept)[STAMP]["status"] == "skipped"
    assert source.exists()
    late = outcomes(site.run(*words, "--json"))[STAMP]  # fresh: compared, and trashed now
    assert (late["status"], "original in the trash" in late["note"]) == ("skipped", True)
    assert not source.exists()


@pytest.mark.usefixtures("dask")
def test_each_broken_input_gets_one_line_and_the_others_are_done(site: Site, copy_ms: CopyMs, tmp_path: Path) -> None:
    good = copy_ms()
    truncated = Path(shutil.copytree(good, tmp_path / "truncated.ms"))
    largest = max((p for p in truncated.iterdir() if p.is_file()), key=lambda p: p.stat().st_size)
    with largest.open("r+b") as file:
        file.truncate(largest.stat().st_size // 2)
    (tmp_path / "nothing.ms").mkdir()
    subprocess.run(["tar", "-cf", tmp_path / "whole.ms.tar", "-C", good.parent, good.name], check=True)
    shutil.copy(tmp_path / "whole.ms.tar", tmp_path / "broken.ms.tar")
    with (tmp_path / "broken.ms.tar").open("r+b") as file:
        file.truncate(100_000)
    shutil.rmtree(Path(shutil.copytree(good, tmp_path / "made" / "lacking.ms")) / "FEED")
    subprocess.run(["tar", "-cf", tmp_path / "lacking.ms.tar", "-C", tmp_path / "made", "lacking.ms"], check=True)
    split(good, tmp_path / "ready.ms")
    split(good, tmp_path / "by_2pol.ms")
    sources = [tmp_path / "missing.ms", *sorted(tmp_path.glob("*.ms*"))]
    result = site.run("run", "cosmology", *sources, "--out", tmp_path / "out", "--original", "trash", "--json")
    found = outcomes(result)
    assert result.returncode == 1
    assert {name for name, entry in found.items() if entry["status"] == "done"} == {good.stem, "whole"}
    expected = {
        "missing": "there is no such file",
        "truncated": "rows need",
        "nothing": "empty folder",
        "broken": "ends too early",
        "lacking": f"{tmp_path}/lacking.ms.tar: lacks the subtable FEED",
        "ready": "split already",
        "by_2pol": "split already",
    }
    for name, words in expected.items():
        assert words in found[name]["reason"], (name, found[name]["reason"])
        assert "\n" not in found[name]["reason"]
        assert found[name]["cause"] == "payload"
    assert {source.name for source in sources if not source.exists()} == {"missing.ms", good.name, "whole.ms.tar"}
    assert site.leftovers() == []


@pytest.mark.usefixtures("dask")
def test_wrong_commands_exit_with_2(site: Site, copy_ms: CopyMs, tmp_path: Path) -> None:
    source = copy_ms()
    cases = {("--average", "0"): "--average", ("--original", "delete"): "--original"}
    for words, named in cases.items():
        result = site.run("run", "cosmology", source, *words, "--out", tmp_path / "out")
        assert (result.returncode, named in result.stderr) == (2, True), result.stderr
    inside = site.run("run", "cosmology", source, "--out", source / "out")
    assert (inside.returncode, "inputs are only read" in inside.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_gone_before_and_gone_since_are_told_apart(copy_ms: CopyMs, machines: Machines, tmp_path: Path) -> None:
    source = copy_ms()
    unit = unit_of(source, tmp_path / "out")
    with pytest.raises(MissingDataError, match="no such file"):
        split_unit.fn(unit_of(tmp_path / "none.ms", tmp_path / "out"), TRASH, machines)
    done = split_unit.fn(unit, TRASH, machines)
    [trashed] = list_trash(machines.trash)
    assert (done.skipped, str(trashed.path) in done.note) == (False, True)
    since = split_unit.fn(unit, TRASH, machines)
    assert (since.skipped, "split before" in since.note) == (True, True)
    with pytest.raises(MissingDataError, match=r"in the trash.*--average 1.*Restore"):
        split_unit.fn(unit, SplitOptions(average=2), machines)
    manifest = unit.manifest.read_text()
    unit.manifest.unlink()
    with pytest.raises(MissingDataError, match=r"in the trash.*no whole split.*Restore"):
        split_unit.fn(unit, TRASH, machines)
    unit.manifest.write_text(manifest)
    shutil.rmtree(trashed.path.parent)
    emptied = split_unit.fn(unit, TRASH, machines)
    assert (emptied.skipped, "original is gone" in emptied.note) == (True, True)


def test_one_that_vanishes_while_it_is_split_is_told_and_leaves_nothing(
    copy_ms: CopyMs, machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copy_ms()
    run = stage.run_isolated

    def gone_meanwhile(function: object, *args: object, **named: object) -> object:
        shutil.rmtree(source)
        return run(function, *args, **named)

    monkeypatch.setattr(stage, "run_isolated", gone_meanwhile)
    with pytest.raises(MissingDataError, match="vanished while"):
        split_unit.fn(unit_of(source, tmp_path / "out"), TRASH, machines)
    assert list(machines.scratch.iterdir()) == []
    assert not (tmp_path / "out" / f"{STAMP}_2pol.ms").exists()


def test_an_original_stays_where_its_split_is_not_what_was_written(
    copy_ms: CopyMs, machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copy_ms()
    unit = unit_of(source, tmp_path / "out")
    publish = stage.publish

    def published_badly(files: dict[Path, Path], *args: object) -> object:
        [made] = files
        with ct.table(str(made), readonly=False, ack=False) as table:
            table.putcell("DATA", 5, -table.getcell("DATA", 5))
        return publish(files, *args)

    monkeypatch.setattr(stage, "publish", published_badly)
    for _ in range(2):
        with pytest.raises(InvalidDataError, match="DATA is read back otherwise"):
            split_unit.fn(unit, TRASH, machines)
        assert source.exists()
        assert list_trash(machines.trash) == []


def test_an_original_that_changes_while_it_is_compared_stays(
    copy_ms: CopyMs, machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copy_ms()
    run = stage.run_isolated

    def changed_after(function: object, *args: object, **named: object) -> object:
        result = run(function, *args, **named)
        if "scratch" in named:
            age(source, 1000)
        return result

    monkeypatch.setattr(stage, "run_isolated", changed_after)
    with pytest.raises(DataError, match="changed while it was compared"):
        split_unit.fn(unit_of(source, tmp_path / "out"), TRASH, machines)
    assert source.exists()


def test_what_another_original_left_is_not_replaced_when_it_is_all_there_is(
    copy_ms: CopyMs, machines: Machines, tmp_path: Path
) -> None:
    first = copy_ms()
    second = Path(shutil.copytree(first, tmp_path / "elsewhere" / first.name))
    split_unit.fn(unit_of(first, tmp_path / "out"), TRASH, machines)
    with pytest.raises(InputError, match="would replace the split of"):
        split_unit.fn(unit_of(second, tmp_path / "out"), TRASH, machines)
    restore(list_trash(machines.trash)[0].path)
    assert not split_unit.fn(unit_of(second, tmp_path / "out"), SplitOptions(), machines).skipped


def test_a_link_is_not_trashed_and_a_full_disk_is_told(
    copy_ms: CopyMs, machines: Machines, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    source = copy_ms()
    (tmp_path / "link.ms").symlink_to(source)
    with pytest.raises(InputError, match="symbolic link"):
        split_unit.fn(unit_of(tmp_path / "link.ms", tmp_path / "out"), TRASH, machines)
    disk = small_disk("3m")
    small = machines.model_copy(update={"scratch": disk, "reserve_bytes": 10_000_000})
    with pytest.raises(StorageError, match="free"):
        split_unit.fn(unit_of(source, tmp_path / "out"), TRASH, small)
    (disk / "ballast").write_bytes(b"\0" * 2_500_000)
    with pytest.raises(StorageError, match="full"):
        run_isolated(split, source, disk / "split.ms", deadline_s=60, disk=disk)
    assert source.exists()


def test_killed_at_any_step_it_loses_nothing_and_the_next_run_completes(
    simulations: Callable[..., list[Path]], machines: Machines, tmp_path: Path
) -> None:
    [original] = simulations()
    preload(("orca.ms.split",))
    for steps in itertools.count():
        source = tmp_path / f"{steps}.ms"
        shutil.copytree(original, source)
        unit = unit_of(source, tmp_path / "out")
        status = ended_after(steps, lambda unit=unit: split_unit.fn(unit, TRASH, machines))
        trashed = [entry.path for entry in list_trash(machines.trash) if entry.original == source]
        assert [path.exists() for path in (source, *trashed)].count(True) == 1
        if trashed:  # only after the product was whole
            assert split_unit.fn(unit, TRASH, machines).skipped
        assert status in (0, -signal.SIGKILL)
        sweep(machines.scratch)
        split_unit.fn(unit, TRASH, machines)
        assert same_visibilities(unit.product, original)
        [place] = [entry.path for entry in list_trash(machines.trash) if entry.original == source]
        assert set(contents(place)) == {name.replace(str(original), str(place)) for name in contents(original)}
        if status == 0:
            break
    assert steps > 6
    assert list(machines.scratch.iterdir()) == []
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


def ended_after(steps: int, function: Callable[[], object]) -> int:
    """Call a function in a child that is killed before it takes one step more; its exit code."""
    child = os.fork()
    if child == 0:
        try:
            taken = itertools.count()
            stage.run_isolated = here
            for owner, name in STEPS:
                setattr(owner, name, _counted(getattr(owner, name), taken, steps))
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def here(function: Callable[..., object], *args: object, **named: object) -> object:
    """`run_isolated` in a process that is to be killed anyway: a child of its own takes it a second."""
    passed = {name: value for name, value in named.items() if name not in ("deadline_s", "stop", "owner", "disk")}
    return function(*args, **passed)


def _counted(step: Callable[..., object], taken: Iterator[int], limit: int) -> Callable[..., object]:
    def call(*args: object, **named: object) -> object:
        if next(taken) == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, **named)

    return call


def test_killed_before_it_publishes_it_leaves_only_scratch_that_is_swept(
    copy_ms: CopyMs, machines: Machines, tmp_path: Path
) -> None:
    source = copy_ms()
    unit = unit_of(source, tmp_path / "out")
    child = os.fork()
    if child == 0:
        stage.publish = lambda *_: time.sleep(600)
        split_unit.fn(unit, TRASH, machines)
    wait_for(lambda: list(machines.scratch.glob("orca-*/*.ms/table.dat")), "the split")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert source.exists()
    assert not unit.product.exists()
    assert list(machines.scratch.iterdir())
    assert not split_unit.fn(unit, TRASH, machines).skipped
    assert list(machines.scratch.iterdir()) == []
