"""Print what the demo's images measure beside what was simulated, and where the pictures are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main() -> None:
    folder = Path(sys.argv[1])
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("image", "source", "elevation", "apparent Jy", "measured Jy", "difference", "off by pixels"):
        table.add_column(column, justify="left" if column in ("image", "source") else "right")
    pictures = []
    for path in sorted((folder / "images").glob("*.manifest.json")):
        manifest = json.loads(path.read_text())
        quality = manifest["quality"]
        sky = json.loads((folder / "raw" / "truth" / f"{manifest['product']}.sky.json").read_text())
        for source in sky["sources"]:
            measured, offset = (quality.get(f"I {source['name']} {key}") for key in ("peak_jy", "offset_px"))
            if measured is None:
                continue
            table.add_row(
                manifest["product"],
                source["name"],
                f"{source['elevation_deg']:.0f}°",
                f"{source['apparent_jy']:.0f}",
                f"{measured:.0f}",
                f"{measured / source['apparent_jy'] - 1:+.1%}",
                f"{offset:.2f}",
            )
        pictures += [output["path"] for output in manifest["outputs"] if output["path"].endswith(".png")]
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(
        "Measured on the dirty images, against what was simulated, as the dipoles see it (a sparse array: the"
    )
    console.print("sidelobes of one source lie on the others, most on the faint and low ones)\n")
    console.print(table)
    console.print("\nPictures:")
    for picture in pictures:
        console.print(f"  {picture}", soft_wrap=True)


if __name__ == "__main__":
    main()
