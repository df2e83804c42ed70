"""Results of vLLM and SGLang as a table with their own names, a row a run: the `summary.csv` of `vllm bench sweep`,
or JSON results put together with pandas. Lists stand in cells as text.
"""

import ast
from collections.abc import Iterator
from typing import Any

from factory_sim.calibration.importers import sglang, vllm
from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.errors import MeasurementError
from factory_sim.inputs.logs import tables
from factory_sim.inputs.logs.jsonscan import pruned

_VLLM = ({"completed", "duration", "request_throughput"}, {"mean_ttft_ms", "total_token_throughput", "model_id"})
_SGLANG = ({"completed", "duration", "mean_e2e_latency_ms"}, {"request_throughput", "mean_ttft_ms"})


def detect(names: list[str]) -> str | None:
    """Return the format whose names the columns have, or None."""
    have = set(names)
    for name, (all_of, one_of) in ((sglang.FORMAT, _SGLANG), (vllm.FORMAT, _VLLM)):
        if all_of <= have and one_of & have:
            return name
    return None


def read(report: Report, name: str) -> Found:
    """Return one point for each row of a table in the format `name`."""
    reader, tool = (sglang.point, sglang.TOOL) if name == sglang.FORMAT else (vllm.point, vllm.TOOL)
    points: list[Point] = []
    for document, where in _rows(report):
        if not document.get("completed") and not document.get("duration"):
            report.complaints.add("dropped, no result of a serving benchmark", where)
            continue
        point = reader(pruned(document, vllm.plan()), where, report)
        points.append(point if point.label else point.model_copy(update={"label": where}))
    return Found(points, tool)


def _rows(report: Report) -> Iterator[tuple[dict[str, Any], str]]:
    for frame in tables.blocks(report.source, None, report.complaints, MeasurementError):
        for row, *cells in frame.itertuples(name=None):
            told = {name: _value(cell) for name, cell in zip(frame.columns, cells)}
            yield {name: cell for name, cell in told.items() if cell is not None}, f"row {row}"


def _value(cell: Any) -> Any:
    """What a cell holds: a list where one was written out, None where it is empty, else the cell."""
    cell = _plain(cell)
    if not isinstance(cell, str):
        return None if cell is None or cell != cell else cell
    text = cell.strip()
    if text.startswith("["):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return None
    return None if text in ("", "None", "nan") else text


def _plain(cell: Any) -> Any:
    """Lists and numbers of Python for those of NumPy, which Parquet gives."""
    found = cell.tolist() if hasattr(cell, "tolist") else cell
    return [_plain(item) for item in found] if isinstance(found, list) else found
