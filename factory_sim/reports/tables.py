"""Tables for the terminal: figures as rows; weeks, stages or runs as columns; each cell a value, its band, its trust.

They are rich renderables: print them on a `rich.console.Console`. Columns that do not fit side by side are continued
in a further block below, never cut, so that a pipe or a narrow window loses no figure.
"""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from factory_sim.reports.formatting import (
    UNDEFINED,
    figure_label,
    format_band,
    format_value,
    trust_legend,
    trust_mark,
    unit_label,
    window_label,
)

RUN_FIGURES = {
    "money": ("cost_per_million_output_tokens", "cost_per_million_tokens", "cost", "cost_simulated_fleet", "revenue", "margin"),
    "outputs": (
        "images", "cost_per_image", "energy_per_image", "videos", "cost_per_video", "cost_per_video_second",
        "energy_per_video",
    ),
    "traffic": ("output_tokens", "input_tokens", "requests_arrived", "requests_completed", "requests_turned_away"),
    "batch": (
        "batch_output_tokens", "batch_requests_submitted", "batch_requests_completed", "batch_within_deadline",
    ),
    "latency": ("ttft_p50", "ttft_p95", "ttft_p99", "tpot_p50", "tpot_p95", "tpot_p99", "time_to_output_p50", "time_to_output_p95",
                "time_to_output_p99", "token_wait_p50", "reader_wait_p95", "slo_attainment"),
    "training": (
        "trained_tokens",
        "lost_trained_tokens",
        "cost_per_million_trained_tokens",
        "training_progress",
        "training_days",
    ),
    "fleet": ("utilisation", "gpu_hours", "energy", "carbon"),
    "change": ("cost_reduction_first_to_last_week", "revenue_growth_first_to_last_week"),
}
"""The rows of a run's table, in their groups."""

COLUMN_UNITS = {
    "_usd_per_million_tokens": "USD", "_usd_per_hour": "USD", "_usd_per_gpu_hour": "USD", "_usd": "USD",
    "_tokens_per_s": "tokens/s", "_per_s": "1/s", "_s": "s", "_fraction": "fraction", "_share": "fraction", "_percent": "%",
    "_kwh": "kWh", "_j": "J", "_w": "W", "_bytes": "bytes", "_tokens": "tokens", "_gpus": "GPUs",
}  # fmt: skip
"""Unit of a column by the end of its name, longest first."""

_RANGES = "ranges are P10–P90, left out where they round to the value"
_LABEL_WIDTH = 27
_GAP = 2
"""Between columns: one of padding, one of the box."""


@dataclass(frozen=True)
class Cell:
    """One figure as it is shown: `value` above (or before) `band`."""

    value: str
    band: str = ""
    trust: str | None = None
    quiet: bool = False
    """Shown faintly: a ratio whose band holds 1."""


@dataclass(frozen=True)
class Grid:
    """Labelled rows of cells under headers; prints itself in as many blocks as the width asks for."""

    title: str
    headers: Sequence[str]
    groups: Sequence[Sequence[tuple[str, Sequence[Cell]]]]
    """Groups of rows; a row is its label and one cell for each header."""
    notes: Sequence[str] = field(default_factory=tuple)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only = options.ascii_only
        inline = _widths(self, ascii_only, inline=True)
        one_line = sum(inline) + _LABEL_WIDTH + _GAP * len(inline) <= options.max_width
        widths = inline if one_line else _widths(self, ascii_only, inline=False)
        yield Text(self.title, style="bold")
        for start, end in _blocks(widths, options.max_width - _LABEL_WIDTH):
            yield self._block(start, end, widths, ascii_only, one_line)
            yield Text("")
        seen = [cell.trust for group in self.groups for _, cells in group for cell in cells]
        legend = trust_legend(seen, ascii_only)
        for note in [*([legend] if legend else []), *self.notes]:
            yield Text(_ascii(note) if ascii_only else note, style="dim")
        yield Text("")

    def _block(self, start: int, end: int, widths: Sequence[int], ascii_only: bool, inline: bool) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        table.add_column("", width=_LABEL_WIDTH, overflow="fold")
        for header, width in zip(self.headers[start:end], widths[start:end]):
            table.add_column(_broken(header, width), justify="right", width=width, overflow="fold")
        for group in self.groups:
            shown = [(label, cells[start:end]) for label, cells in group if any(c.value for c in cells[start:end])]
            for number, (label, cells) in enumerate(shown):
                texts = [_cell_text(cell, ascii_only, inline) for cell in cells]
                table.add_row(label, *texts, end_section=number == len(shown) - 1)
        return table


def figures_grid(
    figures: pd.DataFrame,
    windows: Sequence[str],
    *,
    title: str,
    service: str = "all",
    rows: Mapping[str, Sequence[str]] = RUN_FIGURES,
    labels: Mapping[str, str] | None = None,
) -> Grid:
    """Return the table of a run: `rows` of figures against `windows`, for one service.

    figures: tidy frame of figure, window, service, value, low, high, unit, trust (as in `summary.json`). A figure
    that no window has is left out. labels: names of windows for the header where `window_label` does not do.
    """
    chosen = figures[(figures.service == service) & figures.window.isin(list(windows))]
    cells = {(row.figure, row.window): _figure_cell(row) for row in chosen.itertuples(index=False)}
    units = dict(zip(chosen.figure, chosen.unit))
    groups = []
    for group in rows.values():
        known = [name for name in group if name in units]
        lines = [[cells.get((name, window), Cell("")) for window in windows] for name in known]
        groups.append([(_label(name, units[name]), line) for name, line in zip(known, lines)])
    headers = [(labels or {}).get(window, window_label(window)) for window in windows]
    notes = [_RANGES] if any(cell.band for cell in cells.values()) else []
    return Grid(title, headers, [group for group in groups if group], notes)


def windows_of(figures: pd.DataFrame, kind: str) -> list[str]:
    """Return the windows that are weeks or stages (`kind`: "week" or "stage") in order, and `whole` after weeks."""
    names = list(dict.fromkeys(figures.window))
    found = [name for name in names if name.startswith(f"{kind}_")]
    return [*found, "whole"] if kind == "week" and "whole" in names else found


def comparison_grid(
    comparison: pd.DataFrame, *, title: str, rows: Mapping[str, Sequence[str]] = RUN_FIGURES, first: str | None = None
) -> Grid:
    """Return runs side by side, each with its ratio to the first.

    comparison: tidy frame of figure, run, value, low, high, unit, trust (one window and service), and ratio,
    ratio_low, ratio_high against the run `first` (default: the run named first in the frame). A ratio whose band
    holds 1 is marked "≈": no difference beyond the band.
    """
    runs = list(dict.fromkeys(comparison.run))
    first = first or runs[0]
    cells = {(row.figure, row.run): row for row in comparison.itertuples(index=False)}
    units = dict(zip(comparison.figure, comparison.unit))
    headers = []
    for run in runs:
        headers += [run] if run == first else [run, f"{run} / {first}" if len(run) + len(first) < 16 else "ratio"]
    groups = []
    for group in rows.values():
        lines = []
        for name in (name for name in group if name in units):
            line = []
            for run in runs:
                row = cells.get((name, run))
                line.append(Cell("") if row is None else _figure_cell(row))
                if run != first:
                    line.append(Cell("") if row is None else _ratio_cell(row))
            lines.append((_label(name, units[name]), line))
        groups.append(lines)
    same = any(cell.quiet for group in groups for _, line in group for cell in line)
    notes = [f"ratios are to {first}; {_RANGES}", *(["≈ no difference beyond the range"] if same else [])]
    return Grid(title, headers, [group for group in groups if group], notes)


def tidy_table(
    frame: pd.DataFrame, *, title: str = "", units: Mapping[str, str] | None = None, digits: int = 4
) -> "TidyTable":
    """Return any frame as a table: one line a row, numbers with the unit that their column's name ends in.

    units: unit by column, over `COLUMN_UNITS`. Whole numbers without a unit are written out, other numbers in
    `digits` significant digits. Text folds where the width is short; number columns that do not fit continue in a
    block below, under the same first column.
    """
    units = dict(units or {})
    headers, columns, numeric = [], [], []
    for name in frame.columns:
        unit = units.get(name, column_unit(str(name)))
        is_number = pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name])
        numeric.append(is_number)
        headers.append(_column_header(str(name), unit if is_number else ""))
        columns.append([_text(value, unit, digits, is_number) for value in frame[name]])
    return TidyTable(title, headers, columns, numeric)


@dataclass(frozen=True)
class TidyTable:
    """A frame ready to print: texts by column."""

    title: str
    headers: Sequence[str]
    columns: Sequence[Sequence[str]]
    numeric: Sequence[bool]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Text(self.title, style="bold")
        widths = _shrink([self._natural(place) for place in range(len(self.headers))], self.numeric, options.max_width)
        first = widths[0] if widths else 0
        for start, end in _blocks(widths[1:], options.max_width - first) or [(0, 0)]:
            table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
            places = [0, *range(start + 1, end + 1)] if widths else []
            widths = self._widened(widths, places, options.max_width)
            for place in places:
                justify = "right" if self.numeric[place] else "left"
                header = _broken(self.headers[place], widths[place])
                table.add_column(header, justify=justify, width=widths[place], overflow="fold")
            for texts in zip(*(self.columns[place] for place in places)):
                shown = [_broken(text, widths[place]) for text, place in zip(texts, places)]
                table.add_row(*(Text(_ascii(text) if options.ascii_only else text) for text in shown))
            yield table
            yield Text("")

    @property
    def width(self) -> int:
        """The width that the table asks for in one block, nothing folded."""
        return sum(map(self._natural, range(len(self.headers)))) + _GAP * (len(self.headers) - 1)

    def _widened(self, widths: list[int], places: list[int], room: int) -> list[int]:
        """Give text columns of a block the room that is left in it."""
        widths = list(widths)
        for place in [place for place in places if not self.numeric[place]]:
            spare = room - sum(widths[p] for p in places) - _GAP * (len(places) - 1)
            widths[place] = min(self._natural(place), widths[place] + max(0, spare))
        return widths

    def _natural(self, place: int) -> int:
        """The width that a column asks for: its header may be broken over numbers, not over text."""
        header = _longest_piece(self.headers[place]) if self.numeric[place] else cell_len(self.headers[place])
        return max([header, *map(cell_len, self.columns[place])])


def column_unit(name: str) -> str:
    """Return the unit that a column's name ends in, e.g. `ttft_p95_s` is in "s"; none if it says none."""
    ending = next((end for end in COLUMN_UNITS if name.endswith(end)), None)
    return COLUMN_UNITS[ending] if ending else ""


def _column_header(name: str, unit: str) -> str:
    ending = next((end for end in COLUMN_UNITS if name.endswith(end)), "")
    if ending in ("_tokens", "_gpus", "_share") or not unit:
        return figure_label(name)
    if ending.startswith("_usd_per"):
        return figure_label(name[: -len(ending)]) + " " + ending[5:].replace("_", " ").replace("gpu", "GPU")
    said = unit_label(unit)
    return figure_label(name.removesuffix(ending) or name) + (f", {said}" if said else "")


def _text(value, unit: str, digits: int, is_number: bool) -> str:
    if value is None or value is pd.NA or value != value:  # NaN and NaT alone differ from themselves
        return UNDEFINED if is_number else ""
    if not is_number:
        return "yes" if value is True else "no" if value is False else str(value)
    if unit or float(value) != round(float(value)) or abs(value) >= 1e12:
        return format_value(float(value), unit, digits if not unit else 3)
    return f"{value:,.0f}"


def _label(figure: str, unit: str) -> str:
    said = unit_label(unit)
    label = figure_label(figure)
    return label if not said or said.lower() in label.lower() or "requests" in figure else f"{label}, {said}"


def _figure_cell(row) -> Cell:
    trust = row.trust if isinstance(row.trust, str) else None
    return Cell(format_value(row.value, row.unit), format_band(row.low, row.value, row.high, row.unit), trust)


def _ratio_cell(row) -> Cell:
    low, high = getattr(row, "ratio_low", None), getattr(row, "ratio_high", None)
    same = low is not None and high is not None and low <= 1 <= high
    value = format_value(row.ratio, "ratio") + (" ≈" if same else "")
    return Cell(value, format_band(low, row.ratio, high, "ratio"), quiet=same)


def _cell_text(cell: Cell, ascii_only: bool, inline: bool) -> Text:
    value, band = _parts(cell, ascii_only)
    text = Text(value, style="dim" if cell.quiet else "bold")
    if band:
        text.append(f"  {band}" if inline else f"\n{band}", style="dim not bold")
    return text


def _parts(cell: Cell, ascii_only: bool) -> tuple[str, str]:
    mark = trust_mark(cell.trust, ascii_only)
    value = f"{cell.value} {mark}" if mark and cell.value not in ("", UNDEFINED) else cell.value
    return (_ascii(value), _ascii(cell.band)) if ascii_only else (value, cell.band)


def _widths(grid: Grid, ascii_only: bool, inline: bool) -> list[int]:
    """Width of each column of cells: its widest cell, or the longest piece of its header."""
    widths = [max(8, _longest_piece(header)) for header in grid.headers]
    for group in grid.groups:
        for _, cells in group:
            for place, cell in enumerate(cells):
                value, band = map(cell_len, _parts(cell, ascii_only))
                width = value + _GAP + band if inline and band else max(value, band)
                widths[place] = max(widths[place], width)
    return [min(width, 40) for width in widths]


def _blocks(widths: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Split columns into as few runs as fit `room`, of about the same number of columns; a wide one stands alone."""
    blocks, start, used = [], 0, 0
    for place, width in enumerate(widths):
        if place > start and used + _GAP + width > room:
            blocks.append((start, place))
            start, used = place, 0
        used += width + _GAP
    return [*blocks, (start, len(widths))] if len(widths) else []


def _shrink(natural: list[int], numeric: Sequence[bool], room: int, least: int = 14) -> list[int]:
    """Narrow the widest text columns until all fit, or none can give way; never wider than the room."""
    widths = [min(width, room) for width in natural]
    text = [place for place, number in enumerate(numeric) if not number]
    while text and sum(widths) + _GAP * (len(widths) - 1) > room:
        widest = max(text, key=lambda place: widths[place])
        if widths[widest] <= least:
            break
        widths[widest] -= 1
    return widths


def _longest_piece(text: str) -> int:
    """Width of the longest part of a text that cannot be broken."""
    return max(map(cell_len, re.split(r"\s+|(?<=-)(?=\w)", text)), default=0)


def _broken(text: str, width: int) -> str:
    """Break a text into lines of `width` at blanks and hyphens, and inside a word only where nothing else is left."""
    return "\n".join(textwrap.wrap(text, width)) if cell_len(text) > width else text


def _ascii(text: str) -> str:
    swaps = {"–": "-", "×": "x", "≈": "~", "µ": "u", "∞": "inf", "…": "...", "≤": "<=", "≥": ">="}
    for mark, plain in swaps.items():
        text = text.replace(mark, plain)
    return text.encode("ascii", "replace").decode()


def checks_table(checks: Iterable[Mapping]) -> TidyTable:
    """Return the checks of a run as a table: what was checked, whether it holds, the detail."""
    frame = pd.DataFrame(list(checks), columns=["check", "ok", "detail"])
    frame["ok"] = ["holds" if ok else "BROKEN" for ok in frame["ok"]]
    return tidy_table(frame, title="Checks")


def run_report(summary: Mapping, *, name: str = "") -> Group:
    """Return everything that the terminal shows of a run: by week, by stage, each service, and the checks that fail.

    summary: the content of `summary.json`. Print it on a rich Console.
    """
    from factory_sim.results.store import figures_frame

    figures = figures_frame(summary)
    name = name or summary["scenario"]["name"]
    services = [service for service in dict.fromkeys(figures.service) if service != "all"]
    parts = []
    weeks, stages = windows_of(figures, "week"), windows_of(figures, "stage")
    parts.append(figures_grid(figures, weeks or ["whole"], title=f"{name}, by week"))
    if stages:
        parts.append(figures_grid(figures, stages, title=f"{name}, by stage"))
    if len(services) > 1:
        for service in services:
            title = f"{name}, service {service}, by week"
            parts.append(figures_grid(figures, weeks or ["whole"], title=title, service=service))
    broken = [check for check in summary["checks"] if not check["ok"]]
    if broken:
        parts.append(checks_table(broken))
    else:
        parts.append(Text(f"all {len(summary['checks'])} checks hold", style="dim"))
    return Group(*parts)
