"""A scheduled calibration runs on data that are there, or not at all; and the schedule follows the stars."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prefect.types import DateTime
from pydantic import TypeAdapter

from flows import bandpass
from orca import naming
from orca.calibration.nightly import check_recorded, why_too_late
from orca.calibration.planning import last_transit
from orca.errors import MissingDataError
from orca.sky import CYG_A
from orca.telescope import SIDEREAL_DAY_S, next_transit

TRANSIT = datetime(2026, 1, 10, 20, 31, 58, tzinfo=UTC)
SCHEDULED = TRANSIT + timedelta(minutes=10)
DEPLOYMENTS = Path(__file__).parents[2] / "deployments" / "prefect.yaml"


@pytest.mark.parametrize(("hours", "late"), [(0.2, False), (23.9, False), (24.1, True), (60, True)])
def test_a_run_is_too_late_when_the_recorder_has_deleted_its_data(hours: float, late: bool) -> None:
    reason = why_too_late(TRANSIT, TRANSIT + timedelta(hours=hours))
    assert (reason is not None) is late
    if reason:
        assert f"{hours:.1f} h after the transit of 2026-01-10 20:31:58 UTC" in reason


@pytest.mark.parametrize(
    ("minutes", "band", "found"),
    [(-29, "82MHz", True), (-1, "13MHz", True), (-31, "82MHz", False), (1, "82MHz", False), (-60 * 24, "73MHz", False)],
)
def test_what_was_recorded_in_the_half_hour_before_counts(
    tmp_path: Path, minutes: float, band: str, found: bool
) -> None:
    start = SCHEDULED + timedelta(minutes=minutes)
    observation = naming.Observation(band, start)
    folder = naming.observation_folder(tmp_path, observation)
    (folder / f"{start:%Y%m%d_%H%M%S}_{band}.ms").mkdir(parents=True)
    if found:
        check_recorded(tmp_path, SCHEDULED)
    else:
        with pytest.raises(MissingDataError, match=r"30 minutes before 2026-01-10 20:41:58 UTC.*recorders"):
            check_recorded(tmp_path, SCHEDULED)


def test_the_half_hour_may_begin_on_the_day_before(tmp_path: Path) -> None:
    folder = tmp_path / "73MHz" / "2026-01-09" / "23"
    (folder / "20260109_235500_73MHz.ms.tar").mkdir(parents=True)
    check_recorded(tmp_path, datetime(2026, 1, 10, 0, 10, tzinfo=UTC))


def test_the_time_may_be_one_of_prefects(tmp_path: Path) -> None:
    (tmp_path / "73MHz" / "2026-01-10" / "20" / "20260110_203143_73MHz.ms").mkdir(parents=True)
    check_recorded(tmp_path, TypeAdapter(DateTime).validate_python("2026-01-10T20:41:58Z"))


def test_a_root_that_is_not_there_is_told() -> None:
    with pytest.raises(MissingDataError, match="no such folder"):
        check_recorded(Path("nowhere"), SCHEDULED)


def test_the_nightly_schedule_stays_ten_minutes_after_the_transit_for_years() -> None:
    entries = yaml.safe_load(DEPLOYMENTS.read_text())["deployments"]
    (schedule,) = next(entry for entry in entries if entry["name"] == "nightly-calibration")["schedules"]
    assert (schedule["interval"], schedule["timezone"]) == (SIDEREAL_DAY_S, "UTC")
    anchor = datetime.fromisoformat(schedule["anchor_date"])
    for days in (0, 100, 365, 5 * 365 + 50, 10 * 365):
        scheduled = anchor + days * timedelta(seconds=SIDEREAL_DAY_S)
        transit = next_transit(CYG_A.ra_rad, CYG_A.dec_rad, scheduled - timedelta(hours=1))
        assert abs((scheduled - transit).total_seconds() - 600) < (1 if days == 0 else 30)


def test_a_scheduled_run_that_is_too_late_is_cancelled_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandpass, "_scheduled_for", lambda: SCHEDULED)
    state = bandpass.nightly_calibration.fn()
    assert (state.is_cancelled(), "h after the transit of 2026-01-10 20:31:5" in state.message) == (True, True)


def test_a_scheduled_run_without_data_fails_and_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bandpass, "_scheduled_for", lambda: last_transit() + timedelta(minutes=10))
    state = bandpass.nightly_calibration.fn(raw=tmp_path)
    assert (state.is_failed(), str(tmp_path) in state.message) == (True, True)
