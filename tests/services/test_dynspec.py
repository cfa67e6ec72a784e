"""Reduction of a night of spectra from a real cache: right pixels, and the same files whatever happened to Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image
from some_spectra import AVERAGE, DAY, KIND, Night, slope
from standing_redis import Redis

from orca.cache import SpectrumCache, Spill
from orca.dynspec import Reduced, keep, lost, reduce_spectra, reduce_spectrum
from orca.errors import CacheAwayError, InputError, InvalidDataError, MissingDataError
from orca.manifest import fingerprint, read_manifest
from orca.naming import dynspec_path, manifest_path, parse
from orca.telescope import CHANNEL_WIDTH_HZ, INTEGRATION_S, SUBBANDS, datetime_of, subband

MISSING, GOOD, DEAD = 0, 1, 2


@pytest.fixture
def folder_cache(tmp_path: Path) -> Iterator[SpectrumCache]:
    with SpectrumCache.open(tmp_path / "cache", "anna", 600.0) as cache:
        yield cache


def put(cache: SpectrumCache, night: Night, bands: list[str] | None = None) -> None:
    entries = night.entries(bands)
    for start in range(0, len(entries), 100):
        cache.put_many(entries[start : start + 100])


def reduced(cache: SpectrumCache, night: Night, root: Path, expected: bool = True, **options) -> Reduced:
    return reduce_spectrum(KIND, night.span(expected), cache, root, scratch=root.with_name("scratch"), **options)


def samples(root: Path, correlation: str = "I") -> np.ndarray:
    """(channels, times)."""
    return fits.getdata(dynspec_path(root, KIND, DAY, correlation)).astype(np.float64)


def table(root: Path) -> fits.FITS_rec:
    return fits.getdata(dynspec_path(root, KIND, DAY, "I"), "TIMES")


def contents(root: Path) -> dict[str, bytes]:
    """Every FITS file, bit by bit."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.fits"))}


def truth(night: Night, factor: int = 1) -> np.ndarray:
    """What should be in the file: all integrations of all subbands."""
    freq_mhz = np.concatenate([band.frequencies_hz(average=night.average) for band in SUBBANDS]) / 1e6
    wanted = np.stack([factor * night.sky(freq_mhz, k) for k in range(night.integrations)], axis=1)
    there = np.repeat([band.name in night.bands for band in SUBBANDS], len(freq_mhz) // 16)
    return np.where(there[:, None], wanted, np.nan).astype(np.float32)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a night whose cache lost nothing."""
    folder = tmp_path_factory.mktemp("undisturbed")
    night = Night()
    with SpectrumCache.open(folder / "cache", "anna", 600.0) as cache:
        put(cache, night)
        made = reduced(cache, night, folder / "dynspec", recompute=night.recompute)
        assert (made.tally.cache, made.tally.recomputed, night.asked) == (16 * 24, 0, [])
    return contents(folder / "dynspec")


# ---- What is in the files ----


def test_every_sample_is_where_it_belongs_and_every_entry_is_dropped(folder_cache, tmp_path: Path) -> None:
    night = Night()
    put(folder_cache, night)
    made = reduced(folder_cache, night, tmp_path / "dynspec")
    assert np.array_equal(samples(tmp_path / "dynspec", "I"), truth(night))
    assert np.array_equal(samples(tmp_path / "dynspec", "V"), truth(night, 2))
    assert (made.n_times, made.tally.cache, made.tally.deleted, made.tally.missing) == (24, 384, 384, 0)
    assert folder_cache.size() == 0
    assert made.files == tuple(dynspec_path(tmp_path / "dynspec", KIND, DAY, name) for name in "IV")
    for path in (*made.files, *made.pictures):
        assert parse(path).day == DAY
    for path in made.files:
        manifest = read_manifest(manifest_path(path))
        assert [fingerprint(Path(output.path)) for output in manifest.outputs] == list(manifest.outputs)


def test_stamps_a_second_apart_are_one_integration_and_their_exact_times_are_kept(folder_cache, tmp_path: Path) -> None:
    night = Night(integrations=10)
    put(folder_cache, night)
    reduced(folder_cache, night, tmp_path / "dynspec", expected=False)
    found = table(tmp_path / "dynspec")
    assert (found["STATUS"] == GOOD).all()
    assert found["STATUS"].shape == (10, 16)
    exact = found["MJD"][:, None] * 86400 + found["OFFSET_S"]
    wanted = [[night.time_s(band.name, k) for band in SUBBANDS] for k in range(10)]
    assert np.abs(exact - wanted).max() < 1e-4
    assert np.abs(found["OFFSET_S"]).max() < 1


def test_a_burst_that_drifts_is_at_the_right_pixel_with_the_right_amplitude(folder_cache, tmp_path: Path) -> None:
    """Independently of our own axes: by astropy's WCS of the header."""

    def burst_mhz(number: int) -> float:
        return 80.0 - 1.9 * number

    def sky(freq_mhz: np.ndarray, number: int) -> np.ndarray:
        return 10.0 + 500.0 * np.exp(-0.5 * ((freq_mhz - burst_mhz(number)) / 0.15) ** 2)

    night = Night(integrations=30, sky=sky)
    put(folder_cache, night)
    reduced(folder_cache, night, tmp_path / "dynspec")
    with fits.open(dynspec_path(tmp_path / "dynspec", KIND, DAY, "I")) as file:
        image, header = file[0].data, file[0].header
    hours_wcs, time_wcs = WCS(header), WCS(header, key="A")
    for number in range(night.integrations):
        time_s = night.time_s("13MHz", number)
        hours = (time_s - night.first_s) / 3600 + 6.0
        x, y = hours_wcs.world_to_pixel_values(hours, burst_mhz(number) * 1e6)
        assert abs(x - number) < 0.06  # half of the second by which other subbands are late
        assert image[round(float(y)), number] == pytest.approx(510.0, rel=0.05)
        column = image[:, number] - 10.0
        centre = float((np.arange(len(column)) * column).sum() / column.sum())
        assert centre == pytest.approx(float(y), abs=0.05)
        seen = time_wcs.pixel_to_world(number, 0)[0]
        assert seen.scale == "utc"
        assert abs(seen.to_value("mjd") * 86400 - time_s) < 0.6
    first_hz = hours_wcs.pixel_to_world_values(0, 0)[1]
    assert first_hz == pytest.approx(subband("13MHz").frequencies_hz(average=AVERAGE)[0])
    assert (header["CUNIT1"], header["CUNIT2"], header["BUNIT"]) == ("h", "MHz", "Jy")
    assert header["NAXIS2"] == 768


def test_hours_go_on_beyond_midnight(folder_cache, tmp_path: Path) -> None:
    night = Night(integrations=40, start_h=23.95)
    put(folder_cache, night)
    made = reduced(folder_cache, night, tmp_path / "dynspec")
    assert np.array_equal(samples(tmp_path / "dynspec"), truth(night))
    hours = table(tmp_path / "dynspec")["UT_HOURS"]
    assert hours[0] == pytest.approx(23.95, abs=1e-3)
    assert hours[-1] == pytest.approx(23.95 + 39 * INTEGRATION_S / 3600, abs=1e-3)
    assert hours[-1] > 24
    header = fits.getheader(made.files[0])
    assert header["DATEREF"] == "2026-01-10T00:00:00"
    assert header["DATE-OBS"].startswith("2026-01-10T23:57")
    assert header["DATE-END"].startswith("2026-01-11T00:03")
    assert datetime_of(header["MJDREF"] * 86400) == datetime(2026, 1, 10, tzinfo=UTC)


def test_full_resolution_has_3072_channels(folder_cache, tmp_path: Path) -> None:
    night = Night(integrations=3, average=1)
    put(folder_cache, night)
    made = reduced(folder_cache, night, tmp_path / "dynspec")
    assert np.array_equal(samples(tmp_path / "dynspec"), truth(night))
    header = fits.getheader(made.files[0])
    assert (header["NAXIS2"], header["CDELT2"]) == (3072, pytest.approx(CHANNEL_WIDTH_HZ / 1e6))


def test_a_subband_that_is_missing_all_night_and_one_that_is_dead_are_marked(folder_cache, tmp_path: Path) -> None:
    night = Night(integrations=12, missing=["55MHz"])
    for entry in night.entries():
        zeros = entry.subband == "27MHz"
        folder_cache.put_many([replace(entry, values=np.zeros_like(entry.values)) if zeros else entry])
    made = reduced(folder_cache, night, tmp_path / "dynspec")
    header, status = fits.getheader(made.files[0]), table(tmp_path / "dynspec")["STATUS"]
    assert (header["SBMISS"], header["SBDEAD"], header["NGAPS"]) == ("55", "27", 0)
    assert (status[:, subband("55MHz").index] == MISSING).all()
    assert (status[:, subband("27MHz").index] == DEAD).all()
    found, wanted = samples(tmp_path / "dynspec"), truth(night)
    wanted[3 * 48 : 4 * 48] = np.nan
    assert np.array_equal(found, wanted, equal_nan=True)
    assert (made.tally.dead, header["NDEAD"], header["NSOURCES"]) == (12, 12, 15 * 12)


def test_gaps_are_nan_and_counted_and_flagged_channels_stay_so(folder_cache, tmp_path: Path) -> None:
    night = Night(integrations=20)
    for entry in night.entries():
        number = int(entry.made_from.partition("_")[0])
        values = entry.values.copy()
        values[5] = np.nan
        if not 8 <= number < 11 and not (entry.subband == "13MHz" and number == 2):
            folder_cache.put_many([replace(entry, values=values)])
    made = reduced(folder_cache, night, tmp_path / "dynspec")
    found = samples(tmp_path / "dynspec")
    assert np.isnan(found[:, 8:11]).all()
    assert np.isnan(found[:48, 2]).all()
    assert np.isnan(found[5::48]).all()
    header = fits.getheader(made.files[0])
    assert (header["NGAPS"], header["NMISSING"], made.tally.missing) == (3, 3 * 16 + 1, 3 * 16 + 1)


def test_the_picture_shows_signal_gaps_and_axes(folder_cache, tmp_path: Path) -> None:
    night = Night(integrations=60)
    put(folder_cache, night, [band.name for band in SUBBANDS[:8]])
    [picture, _] = reduced(folder_cache, night, tmp_path / "dynspec").pictures
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape[:2] == (900, 1560)
    upper, lower = pixels[150:400, 300:1300].reshape(-1, 3), pixels[500:750, 300:1300].reshape(-1, 3)
    assert len(np.unique(upper, axis=0)) == 1  # nothing was recorded
    assert len(np.unique(lower, axis=0)) > 20


# ---- Whatever happens to the cache ----


def test_after_redis_was_emptied_the_files_are_the_same(redis_server: Redis, tmp_path: Path, undisturbed) -> None:
    night = Night()
    with SpectrumCache.open(redis_server.uri(1), "anna", 600.0) as cache:
        put(cache, night)
        redis_server.client(1).flushdb()
        made = reduced(cache, night, tmp_path / "dynspec", recompute=night.recompute)
    assert contents(tmp_path / "dynspec") == undisturbed
    assert (made.tally.cache, made.tally.recomputed, made.tally.missing) == (0, 384, 0)


class Disturbed(SpectrumCache):
    """A cache to which something happens once some spectra were read."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.happen: Callable[[], object] | None = None
        self.reads = 0

    def get_many(self, keys):
        self.reads += 1
        if self.reads == 5 and self.happen is not None:
            self.happen()
        return super().get_many(keys)


@pytest.mark.parametrize("what", ["emptied", "restarted", "killed", "full"])
def test_what_happens_to_redis_in_the_middle_does_not_show(
    what: str, own_redis: Redis, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    night = Night()
    spill = Spill(tmp_path / "spill", "anna")
    with Disturbed.open(own_redis.uri(), "anna", 600.0, patience_s=0.3) as cache:
        if what == "full":
            put(cache, night, [band.name for band in SUBBANDS[:9]])
            client = own_redis.client()
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", client.info("memory")["used_memory"])
            taken = [keep(cache, spill, [entry]) for entry in night.entries([band.name for band in SUBBANDS[9:]])]
            assert not all(taken)
        else:
            put(cache, night)
            cache.happen = {
                "emptied": lambda: own_redis.client().flushall(),
                "restarted": own_redis.restart,
                "killed": own_redis.kill,
            }[what]
        made = reduced(cache, night, tmp_path / "dynspec", spill=spill, recompute=night.recompute)
    assert contents(tmp_path / "dynspec") == undisturbed
    tally = made.tally
    assert tally.cache + tally.spill + tally.recomputed == 384
    assert (tally.recomputed, tally.spill > 0) == ((0, True) if what == "full" else (len(night.asked), False))
    assert what == "full" or tally.recomputed >= 11 * 24
    if what == "killed":
        assert any("went away" in note for note in tally.notes)
    if what == "full":
        assert spill.keys() == []


def test_without_a_way_to_compute_again_a_dead_redis_is_an_error_and_nothing_is_written(
    own_redis: Redis, tmp_path: Path
) -> None:
    night = Night()
    with Disturbed.open(own_redis.uri(), "anna", 600.0, patience_s=0.3) as cache:
        put(cache, night)
        cache.happen = own_redis.kill
        with pytest.raises(CacheAwayError, match="does not answer"):
            reduced(cache, night, tmp_path / "dynspec")
    assert contents(tmp_path / "dynspec") == {}
    assert list((tmp_path / "scratch").iterdir()) == []


def test_broken_and_foreign_values_are_computed_again(folder_cache, tmp_path: Path, undisturbed) -> None:
    night = Night()
    put(folder_cache, night)
    keys = folder_cache.keys()
    folder_cache.store.put([(keys[0], b"ORCASPEC nonsense"), (keys[7], b"\x80\x04N."), (keys[9], b"")], 600.0)
    made = reduced(folder_cache, night, tmp_path / "dynspec", recompute=night.recompute)
    assert contents(tmp_path / "dynspec") == undisturbed
    assert (made.tally.broken, made.tally.recomputed, len(night.asked)) == (3, 3, 3)


def test_spectra_of_other_options_or_channels_are_left_alone(folder_cache, tmp_path: Path, undisturbed) -> None:
    night = Night()
    put(folder_cache, night)
    others = [replace(entry, options="0" * 16) for entry in night.entries(["73MHz"])]
    others += Night(average=1).entries(["41MHz"])
    folder_cache.put_many(others)
    made = reduced(folder_cache, night, tmp_path / "dynspec", recompute=night.recompute)
    assert contents(tmp_path / "dynspec") == undisturbed
    assert (made.tally.others, made.tally.recomputed) == (48, 48)
    assert folder_cache.size() == 48


def test_two_users_get_their_own_files(redis_server: Redis, tmp_path: Path, undisturbed) -> None:
    night = Night()
    with (
        SpectrumCache.open(redis_server.uri(2), "anna", 600.0) as anna,
        SpectrumCache.open(redis_server.uri(2), "berta", 600.0) as berta,
    ):
        put(anna, night)
        put(berta, Night(sky=lambda freq_mhz, number: slope(freq_mhz, number) * 3))
        reduced(anna, night, tmp_path / "dynspec")
        assert (anna.size(), berta.size()) == (0, 384)
    assert contents(tmp_path / "dynspec") == undisturbed


def test_two_reducers_at_once_give_one_result_and_lose_nothing(
    redis_server: Redis, tmp_path: Path, undisturbed
) -> None:
    night = Night()
    made: list[Reduced] = []

    def reduce() -> None:
        with SpectrumCache.open(redis_server.uri(4), "anna", 600.0) as cache:
            made.append(reduced(cache, night, tmp_path / "dynspec", recompute=night.recompute))

    with SpectrumCache.open(redis_server.uri(4), "anna", 600.0) as cache:
        put(cache, night)
    reducers = [threading.Thread(target=reduce) for _ in range(2)]
    for reducer in reducers:
        reducer.start()
    for reducer in reducers:
        reducer.join()
    assert contents(tmp_path / "dynspec") == undisturbed
    assert sorted(each.skipped for each in made) == [False, True]
    assert night.asked == []


def test_redis_and_folder_give_the_same_files(redis_server: Redis, tmp_path: Path, undisturbed) -> None:
    night = Night()
    with SpectrumCache.open(redis_server.uri(5), "anna", 600.0) as cache:
        put(cache, night)
        reduced(cache, night, tmp_path / "dynspec")
        assert cache.size() == 0
    assert contents(tmp_path / "dynspec") == undisturbed


# ---- Again, and bit by bit ----


def test_a_day_that_comes_in_parts_ends_as_one_file(folder_cache, tmp_path: Path, undisturbed) -> None:
    night = Night()
    put(folder_cache, Night(integrations=10))
    first = reduced(folder_cache, Night(integrations=10), tmp_path / "dynspec")
    assert first.n_times == 10
    later = [entry for entry in night.entries() if int(entry.made_from.partition("_")[0]) >= 10]
    folder_cache.put_many(later)
    whole = night.span()
    part = replace(whole, first_s=night.time_s("13MHz", 10) - 3, expected=whole.expected)
    made = reduce_spectrum(KIND, part, folder_cache, tmp_path / "dynspec", scratch=tmp_path / "scratch")
    assert (made.tally.product, made.tally.cache, made.n_times) == (160, 224, 24)
    assert np.array_equal(samples(tmp_path / "dynspec"), truth(night))
    again = reduced(folder_cache, night, tmp_path / "dynspec", recompute=night.recompute)
    assert (again.skipped, night.asked) == (True, [])
    assert (again.tally.product, again.tally.dead, again.n_times) == (384, 0, 24)


def test_what_cannot_be_had_does_not_make_the_files_anew(folder_cache, tmp_path: Path) -> None:
    """The same missing set, again and again; and another one that is not given up yet."""
    night, root = Night(integrations=6), tmp_path / "dynspec"
    span = night.span()
    broken, late = span.expected[7], span.expected[9]
    entries = night.entries()
    lost = {(each.subband, round(each.time_s)) for each in (broken, late)}
    put_some = [each for each in entries if (each.subband, round(each.time_s)) not in lost]
    assert len(put_some) == len(entries) - 2
    folder_cache.put_many(put_some)
    options = {"recompute": lambda missing: [], "given_up": {broken.path, late.path}}
    assert not reduced(folder_cache, night, root, **options).skipped
    before = contents(root)
    again = reduced(folder_cache, night, root, **options)
    assert (again.skipped, again.tally.missing, again.tally.product) == (True, 2, len(put_some))
    assert contents(root) == before
    options["given_up"] = {broken.path}
    assert not reduced(folder_cache, night, root, **options).skipped


def test_what_was_put_again_replaces_what_the_file_had(folder_cache, tmp_path: Path) -> None:
    night, better = Night(integrations=6), Night(integrations=6, sky=lambda freq_mhz, number: freq_mhz + number)
    put(folder_cache, night)
    reduced(folder_cache, night, tmp_path / "dynspec")
    put(folder_cache, better, ["73MHz"])
    reduced(folder_cache, night, tmp_path / "dynspec")
    rows = slice(13 * 48, 14 * 48)
    found = samples(tmp_path / "dynspec")
    assert np.array_equal(found[rows], truth(better)[rows])
    assert np.array_equal(np.delete(found, np.r_[rows], 0), np.delete(truth(night), np.r_[rows], 0))


def test_entries_stay_when_the_file_cannot_be_read_back(folder_cache, tmp_path: Path, monkeypatch) -> None:
    from orca.dynspec import reduce

    night = Night(integrations=6)
    put(folder_cache, night)
    real = reduce.publish

    def publish_and_spoil(files, *words):
        done = real(files, *words)
        for final in files.values():
            content = bytearray(final.read_bytes())
            content[-8000 if final.suffix == ".fits" else -20] ^= 1
            final.write_bytes(content)
        return done

    monkeypatch.setattr(reduce, "publish", publish_and_spoil)
    with pytest.raises(InvalidDataError, match="holds something else than what was written"):
        reduced(folder_cache, night, tmp_path / "dynspec")
    assert folder_cache.size() == 16 * 6
    monkeypatch.undo()
    reduced(folder_cache, night, tmp_path / "dynspec")
    assert np.array_equal(samples(tmp_path / "dynspec"), truth(night))
    assert folder_cache.size() == 0


def test_a_file_that_was_cut_off_is_made_again(folder_cache, tmp_path: Path, undisturbed) -> None:
    night = Night()
    put(folder_cache, night)
    [first, _] = reduced(folder_cache, night, tmp_path / "dynspec").files
    first.write_bytes(first.read_bytes()[:20000])
    made = reduced(folder_cache, night, tmp_path / "dynspec", recompute=night.recompute)
    assert contents(tmp_path / "dynspec") == undisturbed
    assert any("replaced" in note for note in made.tally.notes)


def test_spectra_of_other_kinds_that_were_computed_on_the_way_are_kept_for_their_turn(
    folder_cache, tmp_path: Path
) -> None:
    night = Night(integrations=4, kinds=(KIND, "stokes-CasA"))
    made = reduce_spectra(
        night.kinds, night.span(), folder_cache, tmp_path / "dynspec", scratch=tmp_path / "scratch",
        recompute=night.recompute,
    )  # fmt: skip
    assert [(each.tally.recomputed, each.tally.cache) for each in made] == [(64, 0), (0, 64)]
    assert len(night.asked) == 64


def test_what_has_to_be_computed_first_is_known_before(folder_cache, tmp_path: Path) -> None:
    night, spill = Night(integrations=4), Spill(tmp_path / "spill", "anna")
    put(folder_cache, night, ["13MHz", "18MHz"])
    spill.put_many(night.entries(["23MHz"]))
    missing = lost([KIND], night.span(), folder_cache, tmp_path / "dynspec", spill)
    assert {each.subband for each in missing} == {band.name for band in SUBBANDS[3:]}
    assert len(missing) == 13 * 4
    reduced(folder_cache, night, tmp_path / "dynspec", spill=spill)
    assert lost([KIND], night.span(), folder_cache, tmp_path / "dynspec", spill) == missing


def test_nothing_at_all_is_an_error(folder_cache, tmp_path: Path) -> None:
    night = Night(integrations=2)
    with pytest.raises(MissingDataError, match="no spectra stokes-CygA of 2026-01-10"):
        reduced(folder_cache, night, tmp_path / "dynspec", recompute=lambda _: [])
    with pytest.raises(InputError, match="no spectra"):
        reduced(folder_cache, night, tmp_path / "dynspec", expected=False)
    assert contents(tmp_path / "dynspec") == {}
