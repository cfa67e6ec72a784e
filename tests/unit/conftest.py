"""What the tests of manifests and of publication share."""

from __future__ import annotations

import pytest
from some_products import a_manifest, a_set

from orca.products import publish


@pytest.fixture
def published(tmp_path):
    """A product of two files made of two inputs: final folder, inputs, manifest path."""
    inputs = [tmp_path / "raw.ms.tar", a_set(tmp_path / "raw.ms")]
    inputs[0].write_bytes(b"tar")
    work, final = tmp_path / "work", tmp_path / "images" / "73MHz"
    work.mkdir()
    (work / "a.fits").write_bytes(b"fits")
    a_set(work / "a.ms")
    manifest_path = final / "a.manifest.json"
    publish({work / "a.fits": final / "a.fits", work / "a.ms": final / "a.ms"}, a_manifest(inputs), manifest_path)
    return final, inputs, manifest_path
