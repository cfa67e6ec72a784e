"""What the account of a night counts, by names and manifests."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from some_night import HOUR, NOW, Night, numbers

from orca import naming
from orca.night.hour import expected
from orca.night.reading import came_s
from orca.night.telling import as_json, dies_next, problems, spans

PARTS = ("reduced", "dead", "failed", "waiting", "settling", "overdue", "missing")


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


@pytest.mark.parametrize(
    ("after", "count"),
    [(-60, 0), (0, 0), (9, 0), (11, 1), (1800, 179), (3600, 358), (86400, 358)],
)
def test_an_hour_expects_what_should_be_recorded_by_now_and_nothing_in_the_future(after: int, count: int) -> None:
    assert expected(HOUR, HOUR + timedelta(seconds=after)) == count


def test_hours_to_come_expect_nothing_and_are_not_missing(night: Night) -> None:
    account = night.account(HOUR + timedelta(minutes=30))
    assert [account.of_hour(hour).expected for hour in (2, 3, 4, 23)] == [358, 173, 0, 0]
    assert account.of_hour(4).done is None
    assert account.total.missing == account.total.expected == 3 * 358 + 173


def test_each_recording_is_in_one_part(night: Night) -> None:
    done = night.record(range(24))
    waits = night.record(range(24, 30), tar=False)
    left = night.record(range(30, 54))
    night.reduce(done)
    night.reduce(left, 1, **{left[0].name: "all visibilities are zero", left[1].name: "has 30 times the median level"})
    night.fail("reduction", "block 3", night.record(range(54, 60)), "AOFlagger took too long")
    cell = night.cell()
    assert numbers(cell, "expected", "recorded", *PARTS) == (358, 60, 24 + 22, 1, 7, 6, 0, 0, 358 - 60)
    assert sum(numbers(cell, *PARTS)) == cell.counts.expected
    assert cell.why == (
        ("AOFlagger took too long", 6),
        ("has 30 times the median level", 1),
        ("all visibilities are zero", 1),
    )
    assert cell.at_risk == 13
    start = naming.parse(waits[0]).start
    assert start is not None
    assert cell.at_risk_until == start + timedelta(hours=24)
    assert cell.raw_until == HOUR + timedelta(hours=24, seconds=2)


def test_what_is_as_folder_and_as_tar_counts_once_and_reduced_counts_after_the_raw_data_are_gone(night: Night) -> None:
    both = night.record(range(5))
    night.record(range(5), tar=False)
    assert numbers(night.cell(), "recorded", "waiting") == (5, 5)
    night.reduce([path.with_suffix("") for path in both])
    for path in both:
        path.unlink()
        path.with_suffix("").rmdir()
    cell = night.cell()
    assert numbers(cell, "recorded", "reduced", "lost", "missing") == (5, 5, 0, 353)
    assert (cell.raw_until, cell.at_risk_until) == (None, None)


def test_dead_is_known_from_a_failure_and_failed_is_forgotten_once_it_is_done(night: Night) -> None:
    dead, failed = night.record(range(24)), night.record(range(24, 48))
    night.fail("reduction", "a", dead, "/raw: none of 24 integrations can be used: x all visibilities are zero. See.")
    night.fail("reduction", "b", failed, "the disk is full")
    assert numbers(night.cell(), "dead", "failed") == (24, 24)
    night.reduce(failed, 1)
    assert numbers(night.cell(), "dead", "failed", "reduced") == (24, 0, 24)
    assert [each.unit for each in night.account().failures] == ["a"]
    for path in dead:
        path.unlink()
    assert numbers(night.cell(), "dead", "lost") == (24, 0)


def test_what_was_recorded_and_deleted_without_a_product_is_lost(night: Night) -> None:
    gone = night.record(range(3))
    night.fail("reduction", "a", gone, "the disk is full")
    for path in gone:
        path.unlink()
    night.reduce(night.record(range(3, 6)), **{"20260110_031000_73MHz.ms": "there is no such file"})
    assert numbers(night.cell(), "recorded", "failed", "lost", "missing") == (7, 0, 4, 355)


def test_young_recordings_settle_and_old_ones_are_overdue(night: Night) -> None:
    [path] = night.record(range(1))
    end = HOUR + timedelta(seconds=13)
    assert numbers(night.cell(end + timedelta(seconds=50)), "settling", "waiting") == (1, 0)
    assert numbers(night.cell(end + timedelta(seconds=70)), "settling", "waiting") == (0, 1)
    later = night.cell(HOUR + timedelta(hours=25))
    assert numbers(later, "waiting", "overdue") == (0, 1)
    path.touch()  # by now: something writes
    assert numbers(night.cell(later.at_risk_until or NOW), "settling") == (1,)


def test_images_splits_and_failures_of_other_stages_are_counted(night: Night) -> None:
    sources = night.record(range(6))
    night.image(sources[0])
    night.image(*sources[1:4])
    night.split(sources[0])
    (night.places.images / "73MHz/2026-01-10/03/mine.manifest.json").write_text("{}")
    night.fail("imaging", "x", sources[:1], "WSClean failed")  # and was made since
    night.fail("imaging", "y", sources[5:], "WSClean failed")
    night.fail("cosmology", "z", sources[4:], "the disk is full")
    names = ("imaged", "split", "failed_imaging", "failed_cosmology", "failed_spectrum", "failed")
    assert numbers(night.cell(), *names) == (4, 1, 1, 2, 0, 0)


def test_spectra_are_counted_by_the_files_of_the_day(night: Night) -> None:
    import numpy as np

    from orca.dynspec.axes import make_axes
    from orca.dynspec.product import GOOD, Facts, Writer
    from orca.telescope import INTEGRATION_S, SUBBANDS, subband, time_s_of

    first_s = time_s_of(HOUR) + 7
    axes = make_axes(HOUR.date(), [first_s, first_s + 4 * INTEGRATION_S], average=192)
    path = naming.dynspec_path(night.places.dynspec, "cross", HOUR.date(), "XX")
    path.parent.mkdir(parents=True)
    with Writer(path, axes, Facts("cross", "XX", {}, "0")) as writer:
        for band in SUBBANDS:
            status = np.zeros(axes.n_times, np.uint8)
            if band == subband("73MHz"):
                status[[0, 2, 3]] = GOOD
            samples = np.zeros((axes.band_channels, axes.n_times), np.float32)
            writer.add(samples, status, np.zeros(axes.n_times, np.float32))
        writer.finish("", ())
    sources = night.record(range(5))
    night.fail("spectrum", "has them now", sources[2:4], "the cache was away")
    night.fail("spectrum", "lacks one", sources[3:], "the cache was away")
    account = night.account()
    assert [account.of_hour(hour).spectrum for hour in (2, 3, 4)] == [0, 3, 0]
    assert account.total.failed_spectrum == 2
    assert [each.unit for each in account.failures] == ["lacks one"]
    path.write_bytes(b"SIMPLE")
    assert night.account().total.spectrum == 0


def test_broken_manifests_and_strange_names_are_no_products(night: Night) -> None:
    sources = night.record(range(3))
    night.reduce(sources)
    [manifest] = night.places.averaged.rglob("*.manifest.json")
    (night.places.raw / "73MHz/2026-01-10/03/hello.ms").mkdir()
    for text in ("", "{", "[]", '{"inputs": 3, "quality": {}}', '{"inputs": [{"path": 1}], "quality": {}}'):
        manifest.write_text(text)
        assert numbers(night.cell(), "recorded", "reduced", "waiting") == (3, 0, 3)


def test_what_is_reduced_and_deleted_while_it_is_looked_is_never_lost(night: Night) -> None:
    sources = night.record(range(352))

    def reduce_and_delete() -> None:
        for number in range(44):
            part = sources[8 * number : 8 * number + 8]
            night.reduce(part, number)
            for path in part:
                path.unlink()

    thread = threading.Thread(target=reduce_and_delete)
    thread.start()
    looked = []
    while thread.is_alive():
        looked.append(night.cell())
    thread.join()
    for cell in [*looked, night.cell()]:
        assert sum(numbers(cell, *PARTS)) == cell.counts.expected
        assert numbers(cell, "recorded", "lost", "missing") == (352, 0, 6)
    assert len(looked) > 1


def test_what_is_deleted_between_the_manifests_and_the_look_at_it_counts_as_reduced(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = night.record(range(24))

    def after_it_was_reduced(path: str) -> float | None:
        if sources[0].exists():
            night.reduce(sources)
            for source in sources:
                source.unlink()
        return came_s(path)

    monkeypatch.setattr("orca.night.hour.came_s", after_it_was_reduced)
    assert numbers(night.cell(), "recorded", "reduced", "lost") == (24, 24, 0)


def test_what_dies_next_and_what_is_wrong_is_said_in_words(night: Night) -> None:
    assert dies_next(night.account()) == "no raw data without a product will be deleted"
    night.record(range(24), hour=HOUR + timedelta(hours=1))
    night.record(range(358))
    night.reduce(night.record(range(348)))
    account = night.account()
    assert dies_next(account).startswith("deleted next: 73MHz 03h, 10 integrations without a product, from 2026-01-11")
    assert dies_next(account).endswith("in 21.0 h")
    found = dict(problems(account))
    assert found["73MHz 00-02h, 05-06h"] == "nothing was recorded"
    assert found["73MHz 03h"].startswith("10 waiting; raw data until 2026-01-11 03:58 UT")
    assert "334 never recorded" in found["73MHz 04h"]
    assert "any moment" in dies_next(night.account(NOW + timedelta(days=1)))
    assert spans([0, 1, 2, 5, 7, 8]) == "00-02h, 05h, 07-08h"


def test_json_has_all_of_it(night: Night) -> None:
    night.fail("reduction", "a", night.record(range(2)), "the disk is full")
    told = as_json(night.account(), 24.0)
    assert (told["date"], told["raw_lifetime_h"], len(told["cells"])) == ("2026-01-10", 24.0, 24)
    assert set(told) == {
        "date", "now", "raw_lifetime_h", "total", "subbands", "hours", "cells", "next_to_die", "failures",
        "calibrations",
    }  # fmt: skip
    cell = told["cells"][3]
    assert (cell["failed"], cell["done"], cell["why"]) == (2, 0.0, [{"reason": "the disk is full", "integrations": 2}])
    assert cell["raw_until"] == "2026-01-11T03:00:02+00:00"
    assert told["total"]["failed"] == told["subbands"][0]["failed"] == told["hours"][3]["failed"] == 2
    assert told["next_to_die"]["integrations"] == 2
    assert told["failures"][0]["unit"] == "a"
