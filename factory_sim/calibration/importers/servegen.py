"""ServeGen: rates of clients (`chunk-i-trace.csv`, no header), their lengths (`chunk-i-dataset.json`), and tables of
rates with one column a model. Rates, not requests: only the request rate and the duration are known.
"""

import ast
import re
from itertools import pairwise
from typing import Any

from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.errors import MeasurementError
from factory_sim.inputs.logs import tables
from factory_sim.inputs.logs.jsonscan import Head
from factory_sim.inputs.logs.values import number, plain_name

FORMAT = "servegen"
TOOL = "ServeGen"
_CHUNK = re.compile(r"^chunk-\d+-trace\.csv$")


def detect_csv(rows: list[list[str]], name: str) -> bool:
    """True for a client's rates, or a table of rates by model."""
    if not rows:
        return False
    first = [plain_name(cell) for cell in rows[0]]
    if first and first[0] == "t_s" and len(first) > 1 and all(cell.endswith("_rps") for cell in first[1:]):
        return True
    return bool(_CHUNK.match(name)) or (
        len(rows[0]) == 6 and number(rows[0][0]) is not None and rows[0][3].strip() in ("Gamma", "Weibull")
    )


def detect(head: Head) -> bool:
    """True for a client's lengths: windows of stringified distributions."""
    return head.kind == "object" and any(
        path.split(".")[0].isdigit() and path.endswith((".input_tokens", ".output_tokens", ".text_tokens"))
        for path in head.paths
    )


def read_csv(report: Report, head: Head | None) -> Found:
    """Return one point for a client, or one for each model of a table of rates."""
    rows = [row for row in tables.all_rows(report.source, MeasurementError) if row]
    named = plain_name(rows[0][0]) == "t_s"
    columns = [name.removesuffix("_rps") for name in rows[0][1:]] if named else [report.source.name]
    series: list[list[tuple[float, float]]] = [[] for _ in columns]
    for at, row in enumerate(rows[1:] if named else rows, start=2 if named else 1):
        start_s = number(row[0])
        if start_s is None or len(row) < 2:
            report.complaints.add("dropped, not a time and rates", f"row {at}, found {row[0]!r}")
            continue
        for column, cell in enumerate(row[1:] if named else row[1:2]):
            rate = number(cell)
            if rate is None and cell.strip():
                report.complaints.add("dropped, not a rate", f"row {at}, column {column + 2}, found {cell!r}")
            elif rate is not None and column < len(series):
                series[column].append((start_s, rate))
    report.note("rates of arrivals, not requests: lengths and latencies are not in this file")
    return Found([_point(name, rates, report) for name, rates in zip(columns, series) if rates], TOOL)


def _point(name: str, rates: list[tuple[float, float]], report: Report) -> Point:
    step_s = min((later[0] - earlier[0] for earlier, later in pairwise(rates) if later[0] > earlier[0]),
                 default=600.0)
    return Point(
        request_rate_per_s=sum(rate for _, rate in rates) / len(rates), duration_s=step_s * len(rates), label=name,
        source=report.source.path.name, format=FORMAT,
    )


def read(report: Report, head: Head) -> Found:
    """Return one point with the mean lengths over all windows (each window counting alike)."""
    means: dict[str, list[float]] = {}
    for document, _ in report.documents():
        for window in document.values():
            for name, cell in window.items() if isinstance(window, dict) else ():
                mean = _mean(cell)
                if mean is not None:
                    means.setdefault(name, []).append(mean)
    if not means:
        return Found([], TOOL)
    average = {name: sum(values) / len(values) for name, values in means.items()}
    report.note("distributions of lengths by window: no requests; isl and osl are means over the windows")
    return Found([Point(isl=average.get("input_tokens", average.get("text_tokens")), osl=average.get("output_tokens"),
                        extra=average, source=report.source.path.name, format=FORMAT)], TOOL)


def _mean(cell: Any) -> float | None:
    try:
        spread = ast.literal_eval(cell) if isinstance(cell, str) else cell
    except (ValueError, SyntaxError):
        return None
    if not isinstance(spread, dict) or not spread:
        return None
    weight = sum(spread.values())
    return sum(length * share for length, share in spread.items()) / weight if weight else None
