"""An inspection as JSON and as text."""

from typing import Any

from factory_sim.calibration.importers.point import FIGURES, Inspection, Point

_HEADINGS = {
    "requests_completed": "completed",
    "requests_failed": "failed",
    "ttft_mean_ms": "TTFT ms",
    "tpot_mean_ms": "TPOT ms",
    "chunk_gap_mean_ms": "chunk gap ms",
    "e2e_mean_ms": "e2e ms",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "output_tokens_per_s": "output tok/s",
    "duration_s": "duration s",
    "concurrency": "concurrency",
    "request_rate_per_s": "requests/s",
}
SHOWN_POINTS = 200


def as_json(inspection: Inspection) -> dict[str, Any]:
    """Return the contract of `inspect --json`: every figure of every point (null: missing), then the rest."""
    return {
        "format": inspection.format,
        "tool": inspection.tool,
        "tool_version": inspection.tool_version,
        "points": [_point(point) for point in inspection.points],
        "notes": inspection.notes,
    }


def _point(point: Point) -> dict[str, Any]:
    more = {
        name: value
        for name, value in point.model_dump(mode="json").items()
        if name not in FIGURES and value not in (None, "", {}) and not (name == "simulated" and not value)
    }
    return {**point.figures(), **more}


def as_text(inspection: Inspection) -> str:
    """Return a table of the points and the notes under it."""
    tool = inspection.tool or "unknown tool"
    version = f" {inspection.tool_version}" if inspection.tool_version else ""
    count = len(inspection.points)
    lines = [f"{inspection.path}: {inspection.format} ({tool}{version}), {count} point{'' if count == 1 else 's'}", ""]
    shown = inspection.points[:SHOWN_POINTS]
    names = [point.label or point.source for point in shown]
    if len({point.source for point in shown}) > 1:
        names = [f"{point.source} {point.label}".strip() for point in shown]
    table = [["point", *_HEADINGS.values()]]
    table += [[name, *(_cell(value) for value in point.figures().values())] for name, point in zip(names, shown)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells).rstrip())
    if count > SHOWN_POINTS:
        lines.append(f"... and {count - SHOWN_POINTS} more (--json shows all)")
    if inspection.notes:
        lines += ["", "Notes:", *(f"- {note}" for note in inspection.notes)]
    return "\n".join(lines)


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.2f}" if abs(value) < 1e5 else f"{value:,.0f}"
