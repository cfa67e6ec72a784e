"""The report of a night: one page that needs nothing but itself, without a script."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from orca import naming
from orca.errors import InputError
from orca.failures import Failed
from orca.night.account import Account
from orca.night.cell import Cell, Counts, Places
from orca.night.page_style import STYLE
from orca.night.pictures import Picture, of_images, of_reports, of_spectra
from orca.night.telling import dies_next, grouped, problems, shortened, subbands_of, when

TAIL_LINES = 25
"""Of the log of a WSClean that failed."""
_TAIL_BYTES = 6000
_UNITS, _GROUPS, _PROBLEMS = 12, 40, 120
"""That are shown at most: units of one reason, reasons, lines about what is wrong."""
_TILES = ("expected", "recorded", "reduced", "imaged", "spectrum", "split")
_TROUBLE = ("dead", "failed", "waiting", "overdue", "missing", "lost")
_COLUMNS = (
    "expected", "recorded", "reduced", "dead", "failed", "waiting", "settling", "overdue", "missing", "lost",
    "imaged", "spectrum", "split",
)  # fmt: skip


def page(account: Account, places: Places) -> str:
    """The page as HTML.

    Parameters
    ----------
    account : Account
    places : Places
        Where pictures and logs are; what is gone by now is left out.
    """
    reports = of_reports(account)
    parts = [
        _head(account),
        "<h2>Each subband and hour</h2>",
        _map(account),
        "<h2>Sums</h2>",
        _sums(account),
        _wrong(account),
        _failed(account.failures, places.images),
        _calibrations(account, reports),
        _pictures("Pictures", "The newest image of each subband.", of_images(account, places.images), ""),
        _pictures("Dynamic spectra", "", of_spectra(places.dynspec, account.day), " wide"),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Night of {account.day.isoformat()}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _head(account: Account) -> str:
    total = account.total
    done = "–" if total.done is None else _percent(total.done)
    tiles = [f'<div class="tile"><b>{done}</b><span>done</span></div>']
    for name in (*_TILES, *_TROUBLE):
        number = getattr(total, name)
        bad = ' class="bad"' if number and name in _TROUBLE else ""
        tiles.append(f'<div class="tile"><b{bad}>{_grouped(number)}</b><span>{name}</span></div>')
    calm = " calm" if account.next_to_die is None else ""
    return (
        f"<h1>Night of {account.day.isoformat()}</h1>"
        f'<p class="soft">Integrations of 10 s; hours in UT; as of {when(account.now)}</p>'
        f'<div class="tiles">{"".join(tiles)}</div><p class="next{calm}">{escape(_sentence(dies_next(account)))}.</p>'
    )


def _map(account: Account) -> str:
    heads = "".join(f'<th scope="col">{hour:02d}</th>' for hour in range(24))
    rows = []
    for band in subbands_of(account):
        cells = "".join(_cell(cell) for cell in account.cells if cell.subband == band)
        rows.append(f'<tr><th scope="row">{escape(band)}</th>{cells}{_share(account.of_subband(band))}</tr>')
    sums = "".join(_share(account.of_hour(hour)) for hour in range(24))
    rows.append(f'<tr><th scope="row">all</th>{sums}{_share(account.total)}</tr>')
    return (
        '<div class="legend"><span>share done, in %: 0 <i class="ramp"></i> 100</span>'
        "<span>! failed or overdue</span><span>× deleted without a product</span>"
        "<span>– nothing was recorded</span><span>empty: nothing expected yet</span></div>"
        f'<div class="box"><table class="map"><thead><tr><th></th>{heads}<th scope="col">all</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    numbers = cell.counts
    title = f"{cell.subband} {cell.hour:02d}h: " + ", ".join(
        f"{getattr(numbers, name)} {name}" for name in _COLUMNS if getattr(numbers, name)
    )
    if cell.raw_until is not None:
        title += f"; raw data until {when(cell.raw_until)}"
    if cell.why:
        title += f"; {shortened(cell.why[0][0])}"
    signs = "!" * bool(numbers.failed or numbers.overdue) + "×" * bool(numbers.lost)
    return _share(numbers, signs, title)


def _share(numbers: Counts, signs: str = "", title: str = "") -> str:
    told = f' title="{escape(title)}"' if title else ""
    if numbers.done is None and not numbers.recorded:
        return f'<td class="none"{told}></td>'
    if not numbers.recorded:
        return f'<td class="none"{told}>–</td>'
    share = numbers.done if numbers.done is not None else 0.0
    kinds = " ".join([*(["dark"] if share > 0.5 else []), *(["trouble"] if signs else [])])
    return f'<td class="{kinds}" style="--share:{share:.3f}"{told}>{int(share * 100)}{signs}</td>'


def _sums(account: Account) -> str:
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("done", *_COLUMNS))
    rows = []
    for name in [*subbands_of(account), "all"]:
        numbers = account.total if name == "all" else account.of_subband(name)
        done = "" if numbers.done is None else _percent(numbers.done)
        cells = "".join(_number(getattr(numbers, column), column in _TROUBLE) for column in _COLUMNS)
        rows.append(f'<tr><th scope="row">{escape(name)}</th><td>{done}</td>{cells}</tr>')
    return (
        f'<div class="box"><table class="sums"><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _number(number: int, trouble: bool) -> str:
    return f"<td{' class=bad' if number and trouble else ''}>{_grouped(number) if number else '·'}</td>"


def _wrong(account: Account) -> str:
    found = problems(account)
    if not found:
        return ""
    lines = [f"<li><b>{escape(where)}</b>: {escape(what)}</li>" for where, what in found[:_PROBLEMS]]
    more = f"<p>and {len(found) - _PROBLEMS} more</p>" if len(found) > _PROBLEMS else ""
    return f"<h2>What is wrong</h2><ul>{''.join(lines)}</ul>{more}"


def _failed(failures: Iterable[Failed], images: Path) -> str:
    groups = grouped(failures)
    if not groups:
        return ""
    parts = []
    for (stage, reason), those in list(groups.items())[:_GROUPS]:
        units = ", ".join(each.unit for each in those[:_UNITS])
        units += f", {len(those) - _UNITS} more" if len(those) > _UNITS else ""
        causes = " or ".join(sorted({each.cause for each in those if each.cause}))
        latest = max(those, key=lambda each: each.when)
        run = f"{latest.flow_run_name} ({latest.flow_run[:8]})" if latest.flow_run else "a run that is not known"
        log = next((tail for each in those if (tail := log_tail(each, images))), "") or latest.detail
        parts.append(
            f'<div class="card"><h3><span class="bad">{escape(stage)}</span> {len(those)} '
            f"{'unit' if len(those) == 1 else 'units'}</h3><p>{escape(reason)}</p>"
            f'<p class="soft">{escape(units)}</p>'
            f'<p class="soft">whose fault: {escape(causes or "not known")}; last {escape(_minute(latest.when))}, '
            f"in {escape(run)}</p>"
            f"<details><summary>log</summary><pre>{escape(log)}</pre></details></div>"
        )
    more = f"<p>and {len(groups) - _GROUPS} more reasons</p>" if len(groups) > _GROUPS else ""
    return f'<h2>What failed</h2><div class="grid wide">{"".join(parts)}</div>{more}'


def log_tail(failed: Failed, images: Path) -> str:
    """The end of what WSClean said, where that is kept; empty where it is not."""
    if failed.stage != "imaging":
        return ""
    try:
        seen = naming.parse(failed.sources[0]).observation
        path = naming.observation_folder(images, seen) / f"{failed.unit}.failed.log"
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return "\n".join(log.read(_TAIL_BYTES).decode(errors="replace").splitlines()[-TAIL_LINES:])
    except (OSError, LookupError, InputError):
        return ""


def _calibrations(account: Account, pictures: dict[Path, Picture]) -> str:
    if not account.calibrations:
        return ""
    cards = []
    for each in sorted(account.calibrations, key=lambda report: report.passed):
        verdict = '<span class="good">✓ passed</span>' if each.passed else '<span class="bad">✗ failed</span>'
        said = [*each.reasons, *each.warnings]
        notes = f"<ul>{''.join(f'<li>{escape(shortened(text))}</li>' for text in said[:6])}</ul>" if said else ""
        numbers = "".join(
            f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(_value(name, value))}</dd></div>"
            for name, value in each.numbers.items()
        )
        picture = pictures.get(each.path)
        image = f'<img alt="report of {escape(each.name)}" src="{picture.uri}">' if picture else ""
        cards.append(f'<div class="card"><h3>{escape(each.name)} {verdict}</h3>{image}<dl>{numbers}</dl>{notes}</div>')
    return f'<h2>Calibration</h2><div class="grid wide">{"".join(cards)}</div>'


def _pictures(title: str, words: str, pictures: list[Picture], kind: str) -> str:
    if not pictures:
        return ""
    figures = [
        f'<figure><img alt="{escape(each.title)}" src="{each.uri}">'
        f'<figcaption>{escape(each.title)}<br><span class="soft">{escape(str(each.path))}</span></figcaption></figure>'
        for each in pictures
    ]
    told = f'<p class="soft">{escape(words)}</p>' if words else ""
    return f'<h2>{escape(title)}</h2>{told}<div class="grid{kind}">{"".join(figures)}</div>'


def _value(name: str, value: float | int | str | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{100 * value:.3g} %" if name.endswith("_share") else f"{value:.4g}"
    return str(value)


def _percent(share: float) -> str:
    """Rounded down, so that 100 % means all."""
    return f"{int(share * 1000) / 10:g} %"


def _minute(time: str) -> str:
    return f"{time[:16].replace('T', ' ')} UT"


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
