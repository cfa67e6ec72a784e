"""Batches of spectra, and the tasks that make and reduce them, without Prefect around them."""

from __future__ import annotations

import shutil
import socket
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from casacore import tables as ct
from file_times import age

from flows.spectrum import How, Made, Reduced, Request, Site, make_spectra, reduce_kind
from orca import naming
from orca.config.secret import SecretUri
from orca.dynspec.product import DEAD, GOOD, MISSING, Product
from orca.errors import InputError, MissingDataError
from orca.ms.acceptance import Acceptance
from orca.ms.simulate import SimulationOptions, simulate
from orca.ms.spectrum import spectra
from orca.spectrum import chosen, plan_day, plan_given
from orca.spectrum_options import SpectrumOptions
from orca.telescope import INTEGRATION_S, SUBBANDS

FIRST = datetime(2026, 1, 10, 18, 59, 31, tzinfo=UTC)
DAY = FIRST.date()
OPTIONS = SpectrumOptions(baselines="none", batch=3)
BAND = next(band.index for band in SUBBANDS if band.name == "73MHz")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six integrations around the end of an hour; nobody's to change."""
    root = tmp_path_factory.mktemp("night")
    simulate(root, SimulationOptions(antennas=24, channels=192, start=FIRST, integrations=6))
    age(root)
    return root


@pytest.fixture
def raw(night: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(night, tmp_path / "raw"))


def a_site(tmp_path: Path) -> Site:
    return Site(
        scratch=tmp_path / "scratch",
        trash=tmp_path / "trash",
        stage_s=300,
        reserve_bytes=0,
        acceptance=Acceptance(settle_s=0),
        cache=tmp_path / "cache",
        prefix="somebody",
        expire_s=3600,
        dynspec=tmp_path / "dynspec",
    )


def how(tmp_path: Path, options: SpectrumOptions = OPTIONS) -> How:
    bad: dict[date, tuple[int | str, ...]] = {DAY: (3,)}
    return How(options=options, average=1, calibrations=tmp_path / "none", max_age_days=1, bad=bad)


def a_request(raw: Path) -> Request:
    return Request(day=DAY, root=raw)


def make_all(raw: Path, tmp_path: Path) -> list[Made]:
    return [make_spectra.fn(batch, how(tmp_path), a_site(tmp_path)) for batch in a_request(raw).batches(OPTIONS.batch)]


def reduce(raw: Path, tmp_path: Path, hopeless: tuple[Path, ...] = ()) -> Reduced:
    made: Reduced = reduce_kind.fn("cross", a_request(raw), how(tmp_path), a_site(tmp_path), hopeless)
    return made


def sources(raw: Path) -> list[Path]:
    return sorted(raw.glob("73MHz/*/*/*.ms"))


def waterfall(made: Reduced, correlation: int = 0) -> tuple[np.ndarray, list[int]]:
    """Channels x times of the subband, and what each integration is."""
    with Product(made.files[correlation]) as product:
        return np.array(product.band(BAND)), product.status[BAND].tolist()


def test_spectra_of_batches_become_a_dynamic_spectrum(raw: Path, tmp_path: Path) -> None:
    made = make_all(raw, tmp_path)
    assert [(each.sets, each.dead, each.spilled, each.left_out) for each in made] == [(3, 0, 0, {}), (3, 0, 0, {})]
    reduced = reduce(raw, tmp_path)
    samples, status = waterfall(reduced)
    assert (reduced.tally["cache"], reduced.tally["recomputed"], status) == (6, 0, [GOOD] * 6)
    for k, source in enumerate(sources(raw)):
        wanted = spectra(source, OPTIONS, bad_antennas=[3], acceptance=Acceptance(settle_s=0), scratch=tmp_path)
        np.testing.assert_array_equal(samples[:, k], wanted.values["cross"][:, 0])
    assert reduced.files[0] == naming.dynspec_path(tmp_path / "dynspec", "cross", DAY, "XX")
    assert not any((tmp_path / "scratch").iterdir())


def test_what_the_cache_lost_is_made_again(raw: Path, tmp_path: Path) -> None:
    make_all(raw, tmp_path)
    with a_site(tmp_path).open_cache() as cache:
        cache.delete(cache.keys("cross")[1:4])
    reduced = reduce(raw, tmp_path)
    assert (reduced.tally["cache"], reduced.tally["recomputed"], reduced.tally["missing"]) == (3, 3, 0)
    samples, status = waterfall(reduced)
    assert status == [GOOD] * 6
    assert np.isfinite(samples).all()


def test_what_is_broken_is_named_and_missing_and_what_is_dead_is_marked(raw: Path, tmp_path: Path) -> None:
    dead, broken, *_ = sources(raw)
    with ct.table(str(dead), readonly=False, ack=False) as table:
        table.putcol("DATA", 0 * table.getcol("DATA"))
        table.putkeyword("FILL_LEVEL_0", 0.0)
    shutil.rmtree(broken / "ANTENNA")
    first, _ = make_all(raw, tmp_path)
    assert (first.sets, first.dead, list(first.left_out)) == (2, 1, [broken])
    assert first.warnings[0].startswith(f"left out: {broken.name}: ")
    reduced = reduce(raw, tmp_path, (broken,))
    assert waterfall(reduced)[1] == [DEAD, MISSING, *[GOOD] * 4]
    assert (reduced.tally["missing"], reduced.tally["recomputed"]) == (1, 0)


def test_without_the_cache_spectra_wait_beside_the_products_and_are_reduced_from_there(
    raw: Path, tmp_path: Path
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = SecretUri(f"redis://127.0.0.1:{nobody.getsockname()[1]}/0")  # bound, and nobody listens
        site = a_site(tmp_path).model_copy(update={"cache": away, "patience_s": 0.2})
        [batch, _] = a_request(raw).batches(OPTIONS.batch)
        made = make_spectra.fn(batch, how(tmp_path), site)
        assert (made.sets, made.spilled) == (3, 3)
        assert made.warnings == ("the spectra of 3 sets wait beside the products",)
        request = Request(measurement_sets=batch.sources, root=raw)
        reduced = reduce_kind.fn("cross", request, how(tmp_path), site, ())
    assert (reduced.tally["spill"], reduced.tally["recomputed"]) == (3, 0)
    assert waterfall(reduced)[1] == [GOOD] * 3


def test_a_calibration_that_is_required_and_not_there_is_an_error(raw: Path, tmp_path: Path) -> None:
    options = SpectrumOptions(calibrate="require")
    [batch] = plan_given(sources(raw)[:2], 90)
    with pytest.raises(MissingDataError, match="no bandpass of 73MHz"):
        make_spectra.fn(batch, how(tmp_path, options), a_site(tmp_path))
    made = make_spectra.fn(batch, how(tmp_path, SpectrumOptions(calibrate="find")), a_site(tmp_path))
    assert made.sets == 2
    assert made.warnings[0].startswith("not calibrated: no bandpass of 73MHz")


def record(root: Path, band: str, count: int, averaged: bool = False) -> list[Path]:
    """Empty folders with the names of consecutive integrations."""
    made = []
    for number in range(count):
        seen = naming.Observation(band, FIRST + timedelta(seconds=number * INTEGRATION_S))
        made.append(naming.averaged_path(root, seen) if averaged else naming.raw_path(root, seen))
        made[-1].mkdir(parents=True)
    return made


def test_batches_are_of_one_subband_and_hour_and_hold_everything_once(tmp_path: Path) -> None:
    paths = [path for band in ("55MHz", "73MHz") for path in record(tmp_path, band, 12)]
    batches = plan_day(tmp_path, naming.Kind.RAW, 5, DAY)
    assert [(batch.name, len(batch.sources)) for batch in batches] == [
        ("55MHz 2026-01-10 18h", 3),
        ("73MHz 2026-01-10 18h", 3),
        ("55MHz 2026-01-10 19h part 1 of 2", 4),
        ("73MHz 2026-01-10 19h part 1 of 2", 4),
        ("55MHz 2026-01-10 19h part 2 of 2", 5),
        ("73MHz 2026-01-10 19h part 2 of 2", 5),
    ]
    assert sorted(path for batch in batches for path in batch.sources) == sorted(paths)
    assert [batch.name for batch in plan_day(tmp_path, naming.Kind.RAW, 90, DAY, ["73"], [19])] == [
        "73MHz 2026-01-10 19h"
    ]
    some = chosen(batches, set(paths[:2]), 5)
    assert [batch.sources for batch in some] == [tuple(paths[:2])]
    assert [batch.sources for batch in plan_given(paths[:2], 5)] == [tuple(paths[:2])]


def test_averaged_data_are_planned_as_raw_ones_are(tmp_path: Path) -> None:
    paths = record(tmp_path, "73MHz", 2, averaged=True)
    [batch] = plan_day(tmp_path, naming.Kind.AVERAGED, 90, DAY)
    assert batch.sources == tuple(paths)
    with pytest.raises(MissingDataError, match="no raw data of 2026-01-10"):
        plan_day(tmp_path, naming.Kind.RAW, 90, DAY)


def test_what_is_no_integration_or_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is delay, not a Measurement Set"):
        plan_given([tmp_path / "20260110_delay.delay"], 90)
    twice = [tmp_path / name / "20260110_180000_73MHz.ms" for name in ("a", "b")]
    with pytest.raises(InputError, match="of the same integration"):
        plan_given(twice, 90)
    with pytest.raises(InputError, match="hours are 0 to 23"):
        plan_day(tmp_path, naming.Kind.RAW, 90, DAY, hours=[24])
