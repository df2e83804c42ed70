"""A run as one web page: tables, charts, checks and sources in a single file that needs nothing else and prints."""

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from uuid import uuid4

from factory_sim.errors import RunError
from factory_sim.reports.formatting import figure_label, format_band, format_quantity, trust_legend, trust_mark
from factory_sim.reports.tables import Grid, figures_grid, windows_of
from factory_sim.results.store import StoredRun, figures_frame

HEADLINES = (
    "cost_reduction_first_to_last_week", "revenue_growth_first_to_last_week", "cost_per_million_output_tokens",
    "cost_per_image", "cost_per_video_second", "revenue", "margin", "slo_attainment",
)  # fmt: skip
CHART_NAMES = {
    "money": "Cost, revenue and margin",
    "latency": "Latency against the promise",
    "traffic": "Demand, served and turned away",
    "outputs": "What was made, and what each cost",
    "waterfall": "From the first stage to the last",
    "frontier": "Throughput and cost against speed for each user",
    "timeline": "What happened, and what it did",
    "comparison": "Runs compared",
}

_CSS = """
body { font: 15px/1.45 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #222; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
.quiet, .band, figcaption { color: #666; } .band { font-size: .85em; display: block; white-space: nowrap; }
.headlines { display: flex; flex-wrap: wrap; gap: 1.2rem 2.4rem; margin: 1.4rem 0; padding: 0; list-style: none; }
.headlines b { display: block; font-size: 1.5rem; } .headlines span { display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .7rem .22rem 0; text-align: left; vertical-align: top; }
thead th { border-bottom: 1.5px solid #222; } td.number, th.number { text-align: right; white-space: nowrap; }
tbody + tbody tr:first-child > * { border-top: 1px solid #ddd; }
tbody th { font-weight: normal; white-space: nowrap; }
.broken { color: #B03A00; font-weight: bold; }
figure { margin: 1rem 0 2rem; break-inside: avoid; } figure svg { width: 100%; height: auto; max-width: 46rem; }
pre { font-size: .78rem; background: #f6f6f6; padding: .8rem; overflow-x: auto; white-space: pre-wrap; }
code { overflow-wrap: anywhere; }
@media print { body { margin: 0; max-width: none; font-size: 10pt; } .wide { overflow: visible; }
  h2 { break-after: avoid; } thead { display: table-header-group; } tr { break-inside: avoid; } table { font-size:
  7.5pt; } }
@page { size: A4; margin: 16mm; }
"""


def run_page(run: StoredRun) -> str:
    """Return the page of a stored run as HTML: headlines, tables by week, stage and service, charts, checks, sources.

    The charts are the SVG files of the run folder, put into the page; a run without charts has a page without them.
    """
    charts = {path.stem: path.read_text(encoding="utf-8") for path in sorted((run.folder / "charts").glob("*.svg"))}
    order = {name: place for place, name in enumerate(CHART_NAMES)}
    ordered = dict(sorted(charts.items(), key=lambda item: (order.get(item[0].split("-")[0], len(order)), item[0])))
    return page(run.summary, run.provenance, run.scenario_yaml, ordered)


def page(summary: Mapping, provenance: Mapping, scenario_yaml: str, charts: Mapping[str, str]) -> str:
    """Return the HTML of a summary with its charts (SVG text by name) in the order given."""
    scenario, figures = summary["scenario"], figures_frame(summary)
    name = escape(scenario["name"])
    said = f"digest {escape(scenario['digest'])}, seed {scenario['seed']}, factory_sim {escape(scenario['version'])}"
    parts = [f"<h1>{name}</h1>", f'<p class="quiet">{said}</p>', _headlines(figures)]
    for kind, title in (("week", "By week"), ("stage", "By stage")):
        if windows := windows_of(figures, kind):
            parts += [f"<h2>{title}</h2>", grid_html(figures_grid(figures, windows, title=title))]
    services = [service for service in dict.fromkeys(figures.service) if service != "all"]
    if len(services) > 1:
        for service in services:
            grid = figures_grid(figures, windows_of(figures, "week"), title=service, service=service)
            parts += [f"<h2>Service {escape(service)}, by week</h2>", grid_html(grid)]
    if charts:
        parts += ["<h2>Charts</h2>", *(_figure(chart, svg) for chart, svg in charts.items())]
    parts += ["<h2>Checks</h2>", _checks(summary["checks"]), "<h2>Where the inputs came from</h2>", _tree(provenance)]
    parts += ["<h2>Scenario as resolved</h2>", f"<pre>{escape(scenario_yaml)}</pre>"]
    head = f'<meta charset="utf-8"><title>{name}: factory_sim run</title><style>{_CSS}</style>'
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}{viewport}</head>\n<body>\n{body}\n</body></html>\n'


def grid_html(grid: Grid) -> str:
    """Return a grid of figures as an HTML table, its notes below."""
    head = "".join(f'<th class="number" scope="col">{escape(header)}</th>' for header in grid.headers)
    bodies = []
    for group in grid.groups:
        rows = [
            f'<tr><th scope="row">{escape(label)}</th>{"".join(map(_cell, cells))}</tr>'
            for label, cells in group
            if any(cell.value for cell in cells)
        ]
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    seen = [cell.trust for group in grid.groups for _, cells in group for cell in cells]
    notes = " · ".join(filter(None, [trust_legend(seen), *grid.notes]))
    table = f"<table><thead><tr><th></th>{head}</tr></thead>{''.join(bodies)}</table>"
    return f'<div class="wide">{table}</div><p class="quiet">{escape(notes)}</p>'


def write_page(run: StoredRun, path: str | Path) -> Path:
    """Write the page of a run as `path`, whole or not at all, and return it; raises RunError if that cannot be."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        partial.write_text(run_page(run), encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _headlines(figures) -> str:
    whole = figures[(figures.window == "whole") & (figures.service == "all")].set_index("figure")
    items = []
    for name in (name for name in HEADLINES if name in whole.index):
        row = whole.loc[name]
        band = format_band(row.low, row.value, row.high, row.unit)
        mark = trust_mark(row.trust)
        items.append(
            f"<li><span>{escape(figure_label(name))}</span><b>{escape(format_quantity(row.value, row.unit))} {mark}</b>"
            f'<span class="band">{escape(band)}</span></li>'
        )
    return f'<ul class="headlines">{"".join(items)}</ul>'


def _cell(cell) -> str:
    mark = f" {trust_mark(cell.trust)}" if cell.value and trust_mark(cell.trust) else ""
    band = f'<span class="band">{escape(cell.band)}</span>' if cell.band else ""
    return f'<td class="number">{escape(cell.value)}{mark}{band}</td>'


def _figure(name: str, svg: str) -> str:
    """An SVG file as part of the page: without its prolog, its ids made its own, with a name for screen readers."""
    kind, _, service = name.partition("-")
    title = CHART_NAMES.get(kind, name.replace("_", " ")) + (f", {service}" if service else "")
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = body.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    return f"<figure>{body}</figure>"


def _checks(checks) -> str:
    rows = []
    for check in checks:
        state = "holds" if check["ok"] else '<span class="broken">BROKEN</span>'
        rows.append(f"<tr><td>{escape(check['check'])}</td><td>{state}</td><td>{escape(check['detail'])}</td></tr>")
    head = "<thead><tr><th>check</th><th></th><th>detail</th></tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'


def _tree(value) -> str:
    """Nested names and values as nested lists."""
    if isinstance(value, Mapping):
        items = "".join(f"<li>{escape(str(key))}: {_tree(item)}</li>" for key, item in value.items())
        return f"<ul>{items}</ul>"
    if isinstance(value, list):
        return f"<ul>{''.join(f'<li>{_tree(item)}</li>' for item in value)}</ul>"
    return f"<code>{escape(str(value))}</code>"
