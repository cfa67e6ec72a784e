"""The report of a night: escaped, self-contained, and no wider than a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from some_night import HOUR, Night

from orca import naming
from orca.night.page import page

EVIL = '<script>alert("&")</script>'


class Loads(HTMLParser):
    """Everything in a page that would be fetched or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def draw(path: Path, width: int = 1600, height: int = 1200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path, "PNG")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """Of everything something."""
    made = Night(tmp_path_factory.mktemp("night"))
    sources = made.record(range(30))
    made.reduce(sources[:24])
    made.fail(
        "reduction", EVIL, sources[24:], f"/raw/x.ms: {EVIL}", detail=EVIL, flow_run="0123456789", flow_run_name=EVIL
    )
    draw(made.image(sources[0]).with_suffix(".png"))
    newest = made.image(sources[9])
    draw(newest.with_suffix(".png"))
    newest.with_name(f"{newest.name}-V.png").write_bytes(b"")
    failed = made.record(range(300, 301))
    unit = naming.strip_suffix(failed[0])
    made.fail("imaging", unit, failed, f"{failed[0]}: WSClean failed: {'no' * 90}. See /x/{unit}.failed.log")
    log = naming.image_prefix(made.places.images, naming.parse(failed[0]).observation)
    log.with_name(f"{unit}.failed.log").write_text("line\n" * 3000 + f"the end of it {EVIL}\n")
    for kind in ("cross", "LWA128&LWA160"):
        for correlation in ("XX", "YY"):
            draw(naming.dynspec_path(made.places.dynspec, kind, HOUR.date(), correlation, "png"))
    for band, bad in (("73MHz", False), ("78MHz", True)):
        path = naming.bandpass_qa_path(made.places.calibration, band, HOUR.date(), 3, "json", failed=bad)
        numbers = {"flagged_share": 0.25, "median_snr": 91.23456, "reference_antenna": EVIL, "not_shown": 1}
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"passed": not bad, "reasons": [EVIL] * bad, "warnings": [], "numbers": numbers}))
        draw(naming.bandpass_qa_path(made.places.calibration, band, HOUR.date(), 3, "png", failed=bad))
    (made.places.calibration / "bandpass/78MHz/2026-01-10/03/bandpass_concat.78MHz_03_bandpass_QA.json").write_text("{")
    return made


@pytest.fixture(scope="module")
def text(night: Night) -> str:
    return page(night.account(), night.places)


def test_the_page_is_self_contained_and_everything_is_escaped(text: str) -> None:
    found = Loads(text)
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert len(found.found) == 7
    assert all(each.startswith("data:image/jpeg;base64,") for each in found.found)
    assert not re.search(r"https?://|@import|url\(", text)
    assert "default-src 'none'" in text
    assert EVIL not in text
    assert text.count("&lt;script&gt;") >= 6
    assert len(text) < 10e6


def test_the_page_tells_what_became_of_the_night(text: str) -> None:
    assert "Night of 2026-01-10" in text
    assert re.search(
        r'class="trouble" style="--share:0.067" title="73MHz 03h: 358 expected, 31 recorded[^"]*">6!<', text
    )
    assert "Deleted next: 73MHz 03h, 7 integrations without a product" in text
    assert "the end of it &lt;script" in text
    assert "See /x/" not in text.split("<details>", maxsplit=1)[0].rsplit("What failed", maxsplit=1)[-1]
    assert "✗ failed" in text
    assert text.index("bandpass 78MHz 03h") < text.index("bandpass 73MHz 03h"), "the failed ones come first"
    assert "25 %" in text
    assert "91.23" in text
    assert "not shown" not in text
    assert 'alt="20260110_030132_73MHz"' in text
    assert 'alt="20260110_030002_73MHz"' not in text, "the newest of a subband alone"


def test_a_day_of_which_nothing_is_known_has_a_page(tmp_path: Path) -> None:
    empty = Night(tmp_path)
    assert "nothing was recorded" in page(empty.account(), empty.places)
    assert "No raw data without a product" in page(empty.account(HOUR - timedelta(days=2)), empty.places)


def test_a_phone_need_not_scroll_sideways(text: str, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium")
    (tmp_path / "night.html").write_text(text)
    (tmp_path / "frame.html").write_text(  # a window of Chromium's own is never so narrow
        '<!doctype html><iframe id="f" style="width:390px;height:3000px;border:0" src="night.html"></iframe>'
        '<p id="said">'
        "<script>f.onload=()=>{const d=f.contentDocument,m=d.querySelector('.map').parentElement;"
        "said.textContent=[d.documentElement.scrollWidth<=390,m.scrollWidth>m.clientWidth,"
        "[...d.images].every(i=>i.complete&&i.naturalWidth>0),"
        "getComputedStyle(d.querySelector('td.trouble')).backgroundColor.length>0].join()}</script>"
    )
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--virtual-time-budget=9000",
    )
    command = [
        chromium,
        *flags,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        (tmp_path / "frame.html").as_uri(),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert '<p id="said">true,true,true,true' in shown
