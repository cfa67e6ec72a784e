"""What the tests of manifests and of publication share, and CASA where it is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from casa import Casa, casa_python
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


@pytest.fixture(scope="module")
def casa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Casa]:
    """CASA's tasks; the test is skipped where CASA is not installed."""
    python = casa_python()
    if python is None:
        pytest.skip("CASA is not installed (extra 'casa', or ORCA_CASA_PYTHON)")
    process = Casa(python, tmp_path_factory.mktemp("casa"))
    yield process
    process.close()
