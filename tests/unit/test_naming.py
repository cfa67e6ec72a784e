"""Names both ways, and the mistakes that names invite."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from orca import naming
from orca.errors import InputError
from orca.naming import Kind, Observation
from orca.telescope import INTEGRATION_S, SUBBANDS

START = datetime(2026, 1, 10, 18, 0, 5, tzinfo=UTC)
OBSERVATION = Observation("73MHz", START)
FOLDER = "73MHz/2026-01-10/18"

# maker, path below the root, what is parsed from it
OF_AN_INTEGRATION = [
    (naming.raw_path, "20260110_180005_73MHz.ms", Kind.RAW, False),
    (lambda r, o: naming.raw_path(r, o, tar=True), "20260110_180005_73MHz.ms.tar", Kind.RAW, True),
    (naming.averaged_path, "20260110_180005_73MHz_averaged.ms", Kind.AVERAGED, False),
    (lambda r, o: naming.averaged_path(r, o, tar=True), "20260110_180005_73MHz_averaged.ms.tar", Kind.AVERAGED, True),
    (naming.flagmeta_path, "20260110_180005_73MHz_flagmeta.bin", Kind.FLAGMETA, False),
    (naming.cosmology_path, "20260110_180005_73MHz.ms", Kind.RAW, False),
    (lambda r, o: naming.cosmology_path(r, o, split=True), "20260110_180005_73MHz_2pol.ms", Kind.COSMOLOGY, False),
    (naming.image_prefix, "20260110_180005_73MHz", Kind.IMAGE, False),
]


@pytest.mark.parametrize(("make", "name", "kind", "tar"), OF_AN_INTEGRATION)
def test_names_of_an_integration_go_both_ways(make, name, kind, tar):
    path = make("/data", OBSERVATION)
    assert path == Path("/data") / FOLDER / name
    for given in (path, str(path), f"{path}/", name, f"{name}/", f"./{name}", naming.manifest_path(path)):
        parsed = naming.parse(given)
        assert (parsed.kind, parsed.tar, parsed.observation) == (kind, tar, OBSERVATION)
        assert (parsed.day, parsed.hour) == (date(2026, 1, 10), 18)
        assert parsed.manifest == str(given).endswith(".manifest.json")


@pytest.mark.parametrize(("make", "kind"), [(row[0], row[2]) for row in OF_AN_INTEGRATION])
def test_any_time_and_subband_survives_the_way_there_and_back(make, kind):
    rng = np.random.default_rng(6)
    for _ in range(100):
        start = datetime(2015, 1, 1, tzinfo=UTC) + timedelta(seconds=float(rng.uniform(0, 20 * 365.25 * 86400)))
        zone = timezone(timedelta(minutes=int(rng.integers(-720, 840))))
        observation = Observation(SUBBANDS[rng.integers(16)].name, start.astimezone(zone))
        path = make("root/of.ms/73MHz_x", observation)
        parsed = naming.parse(path)
        assert parsed.kind is kind
        assert parsed.observation == observation
        assert parsed.start == start.replace(microsecond=0)
        assert path.parts[-3:-1] == (start.strftime("%Y-%m-%d"), start.strftime("%H"))


@pytest.mark.parametrize(
    "suffix", ["-dirty.fits", "-I-dirty.fits", "-MFS-V-image.fits", "-t0001-psf.fits", ".png", ".log"]
)
def test_files_of_an_image_are_known_by_their_prefix(suffix):
    prefix = naming.image_prefix("/images", OBSERVATION)
    parsed = naming.parse(f"{prefix}{suffix}")
    assert (parsed.kind, parsed.suffix, parsed.observation) == (Kind.IMAGE, suffix, OBSERVATION)


DAY = date(2024, 5, 24)


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize(
    ("make", "name", "kind", "suffix"),
    [
        (naming.delay_path, "20240524_delay.delay", Kind.DELAY, ""),
        (naming.delay_qa_path, "20240524_delay_QA.pdf", Kind.DELAY_QA, ".pdf"),
        (partial(naming.delay_qa_path, ending="png"), "20240524_delay_QA.png", Kind.DELAY_QA, ".png"),
        (partial(naming.delay_qa_path, ending="json"), "20240524_delay_QA.json", Kind.DELAY_QA, ".json"),
    ],
)
def test_delay_tables_and_their_plots_go_both_ways(make, name, kind, suffix, failed):
    path = make("/cal", DAY, failed=failed)
    assert path == Path("/cal/delay/2024-05-24") / (name + ".failed" * failed)
    for given in (f"{path}/", path.name, naming.manifest_path(path)):
        parsed = naming.parse(given)
        assert (parsed.kind, parsed.suffix, parsed.failed, parsed.day) == (kind, suffix, failed, DAY)
        assert (parsed.subband, parsed.hour) == (None, None)
        assert parsed.manifest == str(given).endswith(".manifest.json")


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize(
    ("make", "ending", "kind", "suffix"),
    [
        (naming.bandpass_path, ".bandpass", Kind.BANDPASS, ""),
        (naming.bandpass_qa_path, "_bandpass_QA.pdf", Kind.BANDPASS_QA, ".pdf"),
        (partial(naming.bandpass_qa_path, ending="png"), "_bandpass_QA.png", Kind.BANDPASS_QA, ".png"),
        (partial(naming.bandpass_qa_path, ending="json"), "_bandpass_QA.json", Kind.BANDPASS_QA, ".json"),
    ],
)
def test_bandpass_tables_and_their_plots_go_both_ways(make, ending, kind, suffix, failed):
    path = make("/cal", "73MHz", DAY, 7, failed=failed)
    name = f"bandpass_concat.73MHz_07{ending}{'.failed' * failed}"
    assert path == Path("/cal/bandpass/73MHz/2024-05-24/07") / name
    for given in (path, naming.manifest_path(path)):
        parsed = naming.parse(given)
        assert (parsed.kind, parsed.suffix, parsed.failed) == (kind, suffix, failed)
        assert (parsed.subband, parsed.day, parsed.hour) == ("73MHz", DAY, 7)
        assert parsed.manifest == str(given).endswith(".manifest.json")
        with pytest.raises(InputError, match="does not tell an integration"):
            _ = parsed.observation
    assert naming.parse(path.name).day is None


def test_other_products_cannot_have_failed():
    for path in (naming.raw_path("/data", OBSERVATION), naming.dynspec_path("/d", "mean", DAY, "XX")):
        assert naming.parse(path).failed is False
        with pytest.raises(InputError, match="no name of"):
            naming.parse(f"{path}.failed")


@pytest.mark.parametrize("polarization", ["XX", "XY", "YX", "YY"])
@pytest.mark.parametrize("spectrum", ["mean", "LWA128&LWA160", "LWA-094&065"])
def test_dynamic_spectra_go_both_ways(spectrum, polarization):
    path = naming.dynspec_path("/spectra", spectrum, date(2024, 5, 24), polarization)
    assert path == Path(f"/spectra/{spectrum}/2024-05-24-{polarization}.fits")
    parsed = naming.parse(path)
    assert (parsed.kind, parsed.spectrum, parsed.polarization) == (Kind.DYNSPEC, spectrum, polarization)
    assert naming.parse(path.name).spectrum is None


def test_the_folders_are_those_of_the_start_in_utc():
    late_in_california = datetime(2026, 1, 9, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=-8)))
    path = naming.raw_path("/data", Observation("13", late_in_california))
    assert path == Path("/data/13MHz/2026-01-10/07/20260110_075959_13MHz.ms")
    assert naming.delay_path("/c", late_in_california).name == "20260110_delay.delay"
    assert naming.bandpass_path("/c", "13", late_in_california, 7).parts[-3] == "2026-01-10"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("20260110_180005_73MHz.ms", "20260110_180005_73MHz"),
        ("/a.ms/20260110_180005_73MHz.ms.tar", "20260110_180005_73MHz"),
        ("20260110_180005_73MHz.ms/", "20260110_180005_73MHz"),
        ("alarms.ms", "alarms"),
        ("forms.ms.ms", "forms.ms"),
        ("tams.", "tams."),
        ("x.fits", "x.fits"),
    ],
)
def test_a_suffix_is_cut_off_once_and_no_letter_more(name, stem):
    assert naming.strip_suffix(name) == stem


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "notes.txt",
        "x.ms",
        "20260110_180005_73MHz.ms.tar.gz",
        "20260110_180005_73MHz.msx",
        "20260110_180005_73MHz_avg.ms",
        "20260110_180005_73MHz.ms\n",
        "20260110T180005_73MHz.ms",
        "20260110_180005.ms",
        "2026-01-10-ZZ.fits",
        "bandpass_concat.73MHz_24.bandpass",
        "20261310_180005_73MHz.ms",
        "20260230_180005_73MHz.ms",
        "20260110_186005_73MHz.ms",
        "20260110_180061_73MHz.ms",
        "２０２６0110_180005_73MHz.ms",
        "20260110_180005_73mhz.ms",
        "20260110_180005_73.ms",
        "20260110_180005_73.0MHz.ms",
        "20260110_180005_-73MHz.ms",
        "20260231_delay.delay",
        "20260110_delay.delay.failed.failed",
        "20260110_delay_QA.svg",
        "20260110_delay_QA",
        "bandpass_concat.73MHz_07_QA.pdf",
        "20260110_180005_73MHz_averaged.ms.manifest.json.manifest.txt",
    ],
)
def test_other_names_are_refused_with_the_path_and_a_right_one(name):
    with pytest.raises(InputError) as caught:
        naming.parse(f"/data/{name}")
    assert str(caught.value).startswith("/data")
    assert "20260110_180000_73MHz.ms" in str(caught.value) or "Hours are" in str(caught.value)


def test_a_subband_that_does_not_exist_is_refused_with_its_neighbour():
    with pytest.raises(InputError, match=r"^/data/20260110_180005_74MHz\.ms: .*nearest is 73MHz"):
        naming.parse("/data/20260110_180005_74MHz.ms")


@pytest.mark.parametrize(
    "path",
    ["../20260110_180005_73MHz.ms", "/data/../etc/20260110_180005_73MHz.ms", "/data/20260110_180005_73MHz.ms/.."],
)
def test_a_path_with_detours_is_refused(path):
    with pytest.raises(InputError, match=r"\.\."):
        naming.parse(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Observation("../..", START),
        lambda: Observation("74MHz", START),
        lambda: Observation("73MHz", START.replace(tzinfo=None)),
        lambda: naming.stamp(START.replace(tzinfo=None)),
        lambda: naming.parse_stamp("20260110"),
        lambda: naming.raw_path("/data/..", OBSERVATION),
        lambda: naming.delay_path("/c", datetime(2026, 1, 10)),
        lambda: naming.delay_path("/c/../d", START),
        lambda: naming.bandpass_path("/c", "../x", START, 7),
        lambda: naming.bandpass_path("/c", "73MHz", START, 24),
        lambda: naming.bandpass_qa_path("/c", "73MHz", START, 7, "svg"),
        lambda: naming.delay_qa_path("/c", START, ".pdf"),
        lambda: naming.dynspec_path("/d", "..", START, "XX"),
        lambda: naming.dynspec_path("/d", "a/b", START, "XX"),
        lambda: naming.dynspec_path("/d", "", START, "XX"),
        lambda: naming.dynspec_path("/d", "mean", START, "Q"),
    ],
)
def test_no_path_is_made_of_what_cannot_be(make):
    with pytest.raises(InputError):
        make()


def test_stamps_go_both_ways():
    assert naming.stamp(START + timedelta(microseconds=999_999)) == "20260110_180005"
    assert naming.parse_stamp("20260110_180005") == START


def test_manifests_stand_beside_their_product():
    assert naming.manifest_path("/a/b.ms/") == Path("/a/b.ms.manifest.json")
    assert naming.manifest_path(Path("/a/c_73MHz")) == Path("/a/c_73MHz.manifest.json")


def test_stamps_a_second_apart_are_one_integration():
    rng = np.random.default_rng(7)
    truth = [START + timedelta(seconds=k * INTEGRATION_S) for k in range(20)]
    starts, member = [], []
    for k, time in enumerate(truth):
        for _ in range(16):
            jittered = time + timedelta(seconds=int(rng.integers(-1, 2)))
            starts.append(jittered.replace(microsecond=0))
            member.append(k)
    order = rng.permutation(len(starts))
    groups = naming.group_integrations([starts[k] for k in order])
    assert [sorted({member[order[index]] for index in group}) for group in groups] == [[k] for k in range(20)]
    assert all(len(group) == 16 for group in groups)
    for k, time in enumerate(truth):
        nearest = naming.nearest_integration(starts, time)
        assert nearest is not None
        assert member[starts.index(nearest)] == k


def test_stamps_across_midnight_are_one_integration_and_neighbours_are_two():
    before = datetime(2026, 1, 10, 23, 59, 59, tzinfo=UTC)
    assert naming.same_integration(before, before + timedelta(seconds=1))
    assert naming.same_integration(before, (before + timedelta(seconds=2)).astimezone(timezone(timedelta(hours=3))))
    assert not naming.same_integration(before, before + timedelta(seconds=9))
    assert naming.nearest_integration([before], before + timedelta(seconds=9)) is None
    assert naming.nearest_integration([], before) is None
    assert naming.group_integrations([]) == []
