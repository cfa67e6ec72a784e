"""A good calibration that is made again otherwise: it is said how, and the old one can be restored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from file_times import contents
from some_products import a_manifest, a_set

from orca import naming
from orca.calibration.options import BlockOptions, SolveOptions
from orca.calibration.replacing import differences, replacing
from orca.errors import StorageError
from orca.manifest import Manifest
from orca.products import publish
from orca.skyoptions import SkyOptions
from orca.trash import list_trash, restore


@pytest.fixture
def raw(tmp_path: Path) -> list[Path]:
    a_set(tmp_path / "raw" / "20260110_delay.delay")
    return [a_set(tmp_path / "raw" / f"{k}.ms") for k in range(3)]


def made(inputs: list[Path], use_delay: bool = True, bad: tuple[int, ...] = (), **solve: object) -> Manifest:
    delays = [inputs[0].with_name("20260110_delay.delay")] if use_delay else []
    options = {"sky": SkyOptions(), "solve": SolveOptions(**solve), "block": BlockOptions(), "bad": bad}
    return a_manifest([*inputs, *delays], options=options)


def test_the_words_are_the_options_of_the_command_line(raw: list[Path]) -> None:
    usual = made(raw[:2])
    assert differences(usual, made(raw[:2])) == []
    assert differences(usual, made(raw)) == []  # more integrations of the same block
    assert differences(made(raw), usual) == ["of other integrations"]
    others = made(raw[:2], uv="all", flag_antennas=("2", "LWA-114"), reference_antenna="5")
    assert differences(others, usual) == ["with --uv all, --refant 5, --flag-antenna 2,LWA-114"]
    assert differences(usual, others) == ["with --uv 10-350, no --refant, no --flag-antenna"]
    assert differences(made(raw[:2], use_delay=False), usual) == ["with --no-delay"]
    assert differences(usual, made(raw[:2], bad=(3,))) == ["with other bad antennas"]


class Product:
    """A table with a report, published."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = folder / "product" / "a.bandpass"
        self.manifest_path = naming.manifest_path(self.table)
        self.trash = folder / "trash"

    def publish(self, manifest: Manifest, size: int) -> str:
        scratch = self.folder / "scratch"
        files = {a_set(scratch / "table", size=size): self.table, scratch / "qa.pdf": self.table.with_name("a.pdf")}
        (scratch / "qa.pdf").write_text("x" * size)
        with replacing(self.manifest_path, manifest, self.trash, self.folder / "spare") as told:
            publish(files, manifest, self.manifest_path)
        return told


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return Product(tmp_path)


def test_a_table_made_otherwise_is_in_the_trash_and_can_be_restored_whole(product: Product, raw: list[Path]) -> None:
    assert product.publish(made(raw, uv="all"), 1000) == ""
    first = contents(product.table.parent)
    told = product.publish(made(raw), 2000)
    moved = [entry.path for entry in list_trash(product.trash)]
    assert len(moved) == 3
    [together] = {path.parent for path in moved}
    assert told == f"replaces the table made with --uv all, which is now {together / product.table.name}"
    for path in product.table.parent.iterdir():
        path.rename(product.folder / path.name)
    for path in moved:
        restore(path)
    assert contents(product.table.parent) == first


def test_a_table_that_is_made_again_in_the_same_way_is_just_replaced(product: Product, raw: list[Path]) -> None:
    product.publish(made(raw[:2]), 1000)
    assert product.publish(made(raw), 2000) == ""
    assert list_trash(product.trash) == []


def test_when_the_new_one_cannot_be_published_the_old_one_is_back(product: Product, raw: list[Path]) -> None:
    product.publish(made(raw, uv="all"), 1000)
    first = contents(product.table.parent)

    def fail() -> None:
        with replacing(product.manifest_path, made(raw), product.trash, product.folder / "spare"):
            assert not product.table.exists()
            raise StorageError("full")

    with pytest.raises(StorageError, match="full"):
        fail()
    assert contents(product.table.parent) == first
    assert list_trash(product.trash) == []


def test_a_trash_on_another_disk_is_not_used(
    product: Product, raw: list[Path], small_disk: Callable[[str], Path]
) -> None:
    product.trash = small_disk("1m") / "trash"
    product.publish(made(raw, uv="all"), 1000)
    assert f"{product.folder}/spare/" in product.publish(made(raw), 2000)
    assert list_trash(product.trash) == []
    assert len(list_trash(product.folder / "spare")) == 3
