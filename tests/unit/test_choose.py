"""Which calibration is taken, which ones are not and what is said about them; no table is ever opened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from some_products import a_manifest, a_set

from orca import naming
from orca.calibration.choice_options import ChoiceOptions
from orca.calibration.choose import Choice, delays_for, find_calibration, latest_good
from orca.errors import InputError, MissingDataError
from orca.products import publish
from orca.telescope import datetime_of, sidereal_time_h, time_s_of

BAND = "73MHz"
EVENING = datetime(2026, 1, 10, 3, 0, tzinfo=UTC)
NEAREST_IN_TIME = ChoiceOptions(nearest="time")


class Shelf:
    """A calibration folder, filled as the flows fill it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "calibration"
        self.work = folder / "work"
        self.made = 0

    def _publish(self, table: Path, kind: str, when: datetime, inputs=(), **quality) -> Path:
        self.made += 1
        made = a_set(self.work / str(self.made), size=1000 + self.made)
        known = {"time_s": time_s_of(when), "passed": 1, "reason": "", "n_integrations": 24, **quality}
        manifest = a_manifest(inputs, product=table.name, kind=kind, quality=known)
        publish({made: table}, manifest, naming.manifest_path(table))
        return table

    def delay(self, when: datetime, failed: bool = False, **quality) -> Path:
        quality = {"passed": int(not failed), **quality}
        return self._publish(naming.delay_path(self.root, when, failed=failed), "delay", when, **quality)

    def bandpass(self, when: datetime, delay: Path | None = None, band: str = BAND, failed=False, **quality) -> Path:
        table = naming.bandpass_path(self.root, band, when, when.hour, failed=failed)
        quality = {"subband": band, "passed": int(not failed), **quality}
        return self._publish(table, "bandpass", when, [] if delay is None else [delay], **quality)

    def find(self, when: datetime = EVENING, options: ChoiceOptions = ChoiceOptions(), band: str = BAND) -> Choice:
        return find_calibration(self.root, band, time_s_of(when), options)

    def refusal(self, when: datetime = EVENING, options: ChoiceOptions = ChoiceOptions()) -> str:
        with pytest.raises(MissingDataError) as caught:
            self.find(when, options)
        assert caught.value.remedy == f"Make one with: orca run calibrate --date {when:%Y-%m-%d}"
        return caught.value.problem


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


def change_manifest(table: Path, **changes) -> None:
    path = naming.manifest_path(table)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_quality(table: Path, **changes) -> None:
    quality = json.loads(naming.manifest_path(table).read_text())["quality"]
    change_manifest(table, quality=quality | changes)


# ---- which one is taken ----


def test_the_nearest_sky_is_taken_and_not_the_nearest_time(shelf: Shelf) -> None:
    near_in_time = shelf.bandpass(EVENING - hours(5))
    near_in_sky = shelf.bandpass(EVENING + timedelta(days=3) - hours(0.5))
    sky, time = shelf.find(), shelf.find(options=NEAREST_IN_TIME)
    assert (sky.bandpass, time.bandpass) == (near_in_sky, near_in_time)
    assert (sky.age_days, time.age_days) == (pytest.approx(3 - 0.5 / 24), pytest.approx(5 / 24))


def test_the_distance_in_the_sky_is_that_of_the_sidereal_time_and_goes_round_the_clock(shelf: Shelf) -> None:
    """Compared with astropy: six candidates around the clock, each the nearest for some hour of observation."""
    tables = {
        shelf.bandpass(when): sidereal_time_h(when)
        for when in (EVENING + timedelta(days=day, hours=day * 4.1) for day in range(-3, 3))
    }
    taken = set()
    for hour in range(0, 48, 3):
        when = EVENING + hours(hour - 24)
        here = sidereal_time_h(when)
        away = {table: abs((there - here + 12) % 24 - 12) for table, there in tables.items()}
        choice = shelf.find(when)
        assert away[choice.bandpass] == pytest.approx(min(away.values()), abs=1e-9)
        assert f"({away[choice.bandpass]:.1f} h away in sidereal time" in choice.why
        taken.add(choice.bandpass)
    assert len(taken) == 6


def test_of_two_under_the_same_sky_the_younger_is_taken(shelf: Shelf) -> None:
    sidereal_day = timedelta(seconds=86164.0905)
    shelf.bandpass(EVENING - 5 * sidereal_day)
    younger = shelf.bandpass(EVENING + 2 * sidereal_day + timedelta(seconds=50))
    assert shelf.find().bandpass == younger
    shelf.bandpass(EVENING - 1 * sidereal_day + timedelta(seconds=120))
    assert shelf.find().bandpass == younger, "two minutes of sky count more than a day"


def test_a_night_may_take_the_calibration_of_the_next_transit(shelf: Shelf) -> None:
    later = shelf.bandpass(EVENING + hours(20))
    choice = shelf.find()
    assert (choice.bandpass, choice.delay) == (later, None)
    assert choice.age_days == pytest.approx(20 / 24)
    assert choice.why == "bandpass of 2026-01-10 23h (3.9 h away in sidereal time, 0.8 days later), without delays"


def test_why_is_one_line_with_the_delays(shelf: Shelf) -> None:
    delay = shelf.delay(EVENING - hours(6))
    shelf.bandpass(EVENING - hours(0.75), delay)
    assert shelf.find().why == (
        "bandpass of 2026-01-10 02h (0.8 h away in sidereal time, 45 minutes earlier), with the delays of 2026-01-09"
    )


def test_the_delays_are_those_that_the_bandpass_was_solved_with(shelf: Shelf) -> None:
    used, newer = shelf.delay(EVENING - timedelta(days=2)), shelf.delay(EVENING)
    shelf.bandpass(EVENING, used)
    assert shelf.find().delay == used != newer


def test_without_delays_only_a_bandpass_that_needs_none_is_taken(shelf: Shelf) -> None:
    shelf.bandpass(EVENING, shelf.delay(EVENING))
    without = shelf.bandpass(EVENING - hours(7))
    choice = shelf.find(options=ChoiceOptions(use_delay=False))
    assert (choice.bandpass, choice.delay) == (without, None)


@pytest.mark.parametrize("name", ["73MHz", "73", 73])
def test_only_the_same_subband_is_taken(shelf: Shelf, name) -> None:
    shelf.bandpass(EVENING, band="69MHz")
    own = shelf.bandpass(EVENING - hours(9))
    assert shelf.find(band=name).bandpass == own


def test_a_block_that_runs_over_midnight_is_found_on_both_sides_of_its_age(shelf: Shelf) -> None:
    folder_day = datetime(2026, 1, 9, 23, 59, tzinfo=UTC)
    table = shelf.bandpass(folder_day, time_s=time_s_of(folder_day + hours(0.1)))
    for sign in (-1, 1):
        middle = datetime_of(time_s_of(folder_day + hours(0.1)))
        assert shelf.find(middle + sign * hours(47.9), ChoiceOptions(max_age_days=2)).bandpass == table
        shelf.refusal(middle + sign * hours(48.1), ChoiceOptions(max_age_days=2))


def test_less_than_a_day_of_age_may_lie_across_midnight(shelf: Shelf) -> None:
    table = shelf.bandpass(EVENING - hours(4))
    assert shelf.find(options=ChoiceOptions(max_age_days=0.2)).bandpass == table
    assert shelf.refusal(options=ChoiceOptions(max_age_days=0.1)).endswith(": 2026-01-09 23h is 0.2 days away")


def test_calibrations_brought_elsewhere_are_taken_with_their_delays(shelf: Shelf, tmp_path: Path) -> None:
    shelf.bandpass(EVENING, shelf.delay(EVENING))
    subprocess.run(["cp", "-a", shelf.root, tmp_path / "copy"], check=True)
    shutil.rmtree(shelf.root)
    shelf.root = tmp_path / "copy"
    choice = shelf.find()
    assert choice.bandpass == naming.bandpass_path(tmp_path / "copy", BAND, EVENING, 3)
    assert choice.delay == naming.delay_path(tmp_path / "copy", EVENING)
    with (choice.bandpass / "table.dat").open("ab") as stream:
        stream.write(b"x")
    assert "not the table of its manifest" in shelf.refusal()


def test_opening_a_table_to_read_does_not_change_the_choice(shelf: Shelf) -> None:
    table = shelf.bandpass(EVENING)
    (table / "table.lock").write_bytes(b"lock")
    assert shelf.find().bandpass == table


# ---- what is refused ----


def test_without_any_calibration_the_error_says_how_to_make_one(shelf: Shelf) -> None:
    assert shelf.refusal() == "no bandpass of 73MHz within 7 days of 2026-01-10 03:00 UTC can be used: there is none"
    with pytest.raises(MissingDataError, match=r"^\S+/bandpass/73MHz: no .*\. Make one with: orca run calibrate"):
        shelf.find()


def test_what_lies_out_of_reach_is_named_but_not_read(shelf: Shelf) -> None:
    table = shelf.bandpass(EVENING - timedelta(days=20))
    naming.manifest_path(table).write_text("broken")
    assert shelf.refusal().endswith("can be used: the nearest is of 2025-12-21")


def test_a_failed_calibration_is_never_taken_and_its_reason_is_told(shelf: Shelf) -> None:
    shelf.bandpass(EVENING, failed=True, reason="40 % flagged")
    shelf.bandpass(EVENING + hours(1), passed=0, reason="")
    assert shelf.refusal().endswith(": 2026-01-10 03h did not pass (40 % flagged); 2026-01-10 04h did not pass")
    far = shelf.bandpass(EVENING - hours(30))
    assert shelf.find().bandpass == far


def test_a_good_table_beside_a_failed_one_of_the_same_hour_is_taken(shelf: Shelf) -> None:
    shelf.bandpass(EVENING, failed=True)
    good = shelf.bandpass(EVENING)
    assert shelf.find().bandpass == good


def overwrite(table: Path) -> None:
    (table / "table.dat").write_bytes(b"another")


def swap_for_a_twin(table: Path) -> None:
    """As a second publisher leaves it whose table has the same size and times, and whose manifest did not come."""
    twin = table.with_name("twin")
    shutil.copytree(table, twin)
    for file in table.rglob("*"):
        state = file.stat()
        os.utime(twin / file.relative_to(table), ns=(state.st_atime_ns, state.st_mtime_ns))
    shutil.rmtree(table)
    twin.rename(table)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda t: naming.manifest_path(t).unlink(), "has no manifest"),
        (lambda t: naming.manifest_path(t).write_text('{"product": "ha'), "has a broken manifest"),
        (lambda t: naming.manifest_path(t).write_bytes(b"\xff\x00"), "has a broken manifest"),
        (lambda t: naming.manifest_path(t).write_text(""), "has a broken manifest"),
        (shutil.rmtree, "is gone, and its manifest is left"),
        (overwrite, "is not the table of its manifest: it was changed, or half published"),
        (swap_for_a_twin, "is not the table of its manifest: it was changed, or half published"),
        (
            lambda t: change_manifest(t, outputs=[]),
            "is not the table of its manifest: it was changed, or half published",
        ),
        (lambda t: change_manifest(t, kind="delay"), "has the manifest of a delay"),
        (lambda t: change_quality(t, subband="69MHz"), "has the manifest of 69MHz"),
        (lambda t: change_quality(t, passed=None), "did not pass"),
        (lambda t: change_quality(t, time_s=None), "has a manifest that tells no time"),
        (lambda t: change_quality(t, time_s="2026"), "has a manifest that tells no time"),
        (lambda t: change_quality(t, time_s=time_s_of(EVENING) / 86400), "is 61049.4 days away"),
    ],
)
def test_a_broken_or_changed_calibration_is_refused_and_the_next_one_taken(shelf: Shelf, damage, reason) -> None:
    table = shelf.bandpass(EVENING)
    damage(table)
    assert shelf.refusal().endswith(f"can be used: 2026-01-10 03h {reason}")
    other = shelf.bandpass(EVENING + hours(10))
    assert shelf.find().bandpass == other


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shutil.rmtree, "that are gone, 20260110_delay.delay"),
        (overwrite, "that have changed since, 20260110_delay.delay"),
        (lambda delay: delay.rename(f"{delay}.failed"), "that are gone, 20260110_delay.delay"),
    ],
)
def test_a_bandpass_whose_delays_are_not_as_they_were_is_refused(shelf: Shelf, damage, reason) -> None:
    delay = shelf.delay(EVENING)
    shelf.bandpass(EVENING, delay)
    assert shelf.find().delay == delay
    damage(delay)
    assert shelf.refusal().endswith(f": 2026-01-10 03h was solved with delays {reason}")


def test_delays_that_were_made_again_are_not_those_of_the_bandpass(shelf: Shelf) -> None:
    shelf.bandpass(EVENING, shelf.delay(EVENING))
    shelf.delay(EVENING)
    assert "was solved with delays that have changed since" in shelf.refusal()


def test_a_bandpass_solved_with_failed_delays_does_not_pass_for_one_without(shelf: Shelf) -> None:
    shelf.bandpass(EVENING, shelf.delay(EVENING, failed=True))
    assert "was solved with delays that did not pass, 20260110_delay.delay.failed" in shelf.refusal()


def test_at_most_five_refusals_are_told_the_nearest_first(shelf: Shelf) -> None:
    for hour in range(9):
        shelf.bandpass(EVENING + hours(hour), failed=True, reason=f"no {hour}")
    problem = shelf.refusal()
    assert [part in problem for part in ("no 0", "no 4", "no 5")] == [True, True, False]
    assert problem.index("no 0") < problem.index("no 1") < problem.index("no 4")
    assert problem.endswith("; and 4 more")
    assert "\n" not in problem


def test_other_things_in_the_folders_do_no_harm(shelf: Shelf) -> None:
    own = shelf.bandpass(EVENING)
    band = own.parents[2]
    for name in ("notes", "2026-01-10/99", "2026-01-10/x", "2026-13-40", "2026-01-11/03"):
        (band / name).mkdir(parents=True)
    (band / "2026-01-12").write_text("a file")
    (band / "2026-01-11/04").write_text("a file")
    assert shelf.find().bandpass == own
    shutil.rmtree(own.parent)
    assert shelf.refusal().endswith("can be used: the nearest is of 2026-01-10")


def test_nonsense_is_refused_as_such(shelf: Shelf) -> None:
    with pytest.raises(InputError, match="no subband"):
        shelf.find(band="74MHz")
    for time_s in (float("nan"), EVENING.timestamp(), -1.0):
        with pytest.raises(InputError, match="is not a time"):
            find_calibration(shelf.root, BAND, time_s)
    with pytest.raises(ValidationError):
        ChoiceOptions(nearest="sky")
    with pytest.raises(ValidationError):
        ChoiceOptions(max_age_days=0)


def test_choosing_opens_no_table_and_its_options_import_at_once() -> None:
    code = "import sys, {}; print(sorted({{'casacore', 'numba', 'astropy', 'prefect', {}}} & set(sys.modules)))"
    for module, more in (("orca.calibration.choose", "'dask'"), ("orca.calibration.choice_options", "'numpy'")):
        command = [sys.executable, "-c", code.format(module, more)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


# ---- the last good one ----


def test_the_last_good_delay_is_the_newest_before_that_passed_and_is_whole(shelf: Shelf) -> None:
    day = timedelta(days=1)
    whole = shelf.delay(EVENING - 40 * day)
    overwrite(shelf.delay(EVENING - 30 * day))
    naming.manifest_path(shelf.delay(EVENING - 20 * day)).unlink()
    shelf.delay(EVENING - 10 * day, failed=True)
    shelf.delay(EVENING - 5 * day, passed=0)
    shelf.delay(EVENING)
    shelf.delay(EVENING + day)
    assert latest_good(shelf.root, "delay", time_s_of(EVENING)) == whole
    assert latest_good(shelf.root, "delay", time_s_of(EVENING - 40 * day)) is None


def test_the_last_good_bandpass_is_of_its_subband_and_strictly_before(shelf: Shelf) -> None:
    shelf.bandpass(EVENING - hours(1), band="69MHz")
    early, late = shelf.bandpass(EVENING - hours(2)), shelf.bandpass(EVENING)
    assert latest_good(shelf.root, "bandpass", time_s_of(EVENING), BAND) == early
    assert latest_good(shelf.root, "bandpass", time_s_of(EVENING) + 1, "73") == late
    assert latest_good(shelf.root, "bandpass", time_s_of(EVENING) + 1, "13MHz") is None
    with pytest.raises(InputError, match="none is given"):
        latest_good(shelf.root, "bandpass", time_s_of(EVENING))
    assert latest_good(shelf.root / "nowhere", "delay", time_s_of(EVENING)) is None


def test_a_day_takes_its_own_delays_or_says_whose_it_takes(shelf: Shelf) -> None:
    day = EVENING.date()
    assert delays_for(shelf.root, day, 7) == (
        None,
        f"no delays of {day} or before it: the bandpasses are solved without",
    )
    shelf.delay(EVENING + hours(24))
    assert delays_for(shelf.root, day, 7)[0] is None
    older = shelf.delay(EVENING - hours(48))
    assert delays_for(shelf.root, day, 7) == (older, f"no delays of {day}: those of 2026-01-08 are taken")
    assert delays_for(shelf.root, day, 1)[0] is None
    assert "those of 2026-01-08 are too old" in delays_for(shelf.root, day, 1)[1]
    own = shelf.delay(EVENING)
    assert delays_for(shelf.root, day, 7) == (own, "")
