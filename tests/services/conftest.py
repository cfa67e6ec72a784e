"""A site with a running Prefect server, for all tests of a module."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from site_of_tests import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = Site(tmp_path_factory.mktemp("site"), {"dask": {"workers": 1}, "limits": {"settle_s": 2.0}})
    yield place
    place.run("down")
