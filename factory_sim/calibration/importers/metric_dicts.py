"""The metric dictionaries of AIPerf and GenAI-Perf: {name: {unit, avg, p50, ...}}, in JSON or as CSV blocks.

Their `inter_token_latency` is (latency - TTFT)/(output tokens - 1) per request, which is TPOT here; AIPerf's
`inter_chunk_latency` is the chunk gap. Units are read, never assumed.
"""

import re
from typing import Any

from factory_sim.calibration.importers.tally import ratio, times, whole
from factory_sim.inputs.logs.values import number, plain_name, seconds

Metrics = dict[str, tuple[float | None, str, float | None]]  # name -> (mean, unit, sum)

_CSV_NAMES = {
    "total_input_sequence_length": "total_isl",
    "total_output_sequence_length": "total_osl",
    "error_count": "error_request_count",
}
_HEADER = re.compile(r"^(?P<name>.*?)(?:\s*\((?P<unit>[^()]*)\))?\s*$")


def from_json(container: dict[str, Any]) -> Metrics:
    """Collect the metrics of a JSON export (members that hold a unit and a mean)."""
    found: Metrics = {}
    for name, value in container.items():
        if isinstance(value, dict) and "unit" in value:
            mean = value.get("avg", value.get("mean"))
            found[name] = (number(mean), str(value["unit"] or ""), number(value.get("sum")))
    return found


def from_aggregate(container: dict[str, Any]) -> Metrics:
    """Collect the metrics of an aggregate over runs, whose names are `{metric}_{statistic}` or the bare metric."""
    found: Metrics = {}
    for name, (mean, unit, _) in from_json(container).items():
        if name.endswith("_avg"):
            found[name.removesuffix("_avg")] = (mean, unit, None)
    for name, value in from_json(container).items():
        found.setdefault(name, (value[0], value[1], None))
    return found


def from_csv(rows: list[list[str]]) -> tuple[Metrics, list[str]]:
    """Collect the metrics of a CSV export with its blocks (rows), and the header cells of the first block."""
    found: Metrics = {}
    columns: list[str] = []
    first: list[str] = []
    for row in rows:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            columns = []
            continue
        if cells[0] in ("Metric", "Endpoint", "Timeslice"):
            columns = cells
            first = first or cells
            continue
        if not columns or columns[0] != "Metric" or len(cells) < 2:
            continue
        values = dict(zip(columns, cells))
        match = _HEADER.match(cells[0])
        name = plain_name(match["name"])
        name = _CSV_NAMES.get(name, name)
        mean = number(values.get("avg", values.get("Value")))
        if mean is not None:
            found[name] = (mean, match["unit"] or "", number(values.get("sum")))
    return found, first


def milliseconds(metrics: Metrics, *names: str) -> float | None:
    """Mean of the first metric that is there, in ms and above zero."""
    for name in names:
        if name in metrics:
            mean, unit, _ = metrics[name]
            if unit == "ms":
                return _positive(mean)
            found = seconds(mean, unit)
            if found is not None and found > 0:
                return found * 1000
    return None


def value(metrics: Metrics, name: str) -> float | None:
    """Mean of a metric in its own unit."""
    return metrics[name][0] if name in metrics else None


def total(metrics: Metrics, name: str, per_request: str, count: float | None) -> float | None:
    """A total: its own metric, the sum of the metric per request, or mean times count."""
    if value(metrics, name) is not None:
        return value(metrics, name)
    if per_request in metrics:
        mean, _, added = metrics[per_request]
        return added if added is not None else times(mean, count)
    return None


def figures(metrics: Metrics, span_s: float | None = None) -> dict[str, Any]:
    """Return the common figures; `span_s` is used where the file does not tell its duration."""
    count = value(metrics, "request_count")
    rate = value(metrics, "request_throughput")
    duration_s = None
    if "benchmark_duration" in metrics:
        duration_s = seconds(*metrics["benchmark_duration"][:2])
    if not duration_s and {"min_request_timestamp", "max_response_timestamp"} <= metrics.keys():
        start_s = seconds(*metrics["min_request_timestamp"][:2])
        end_s = seconds(*metrics["max_response_timestamp"][:2])
        duration_s = end_s - start_s if start_s is not None and end_s is not None else None
    duration_s = duration_s or ratio(count, rate) or span_s
    completed = whole(count)
    osl = total(metrics, "total_osl", "output_sequence_length", count)
    e2e_ms = milliseconds(metrics, "request_latency")
    return {
        "requests_completed": completed,
        "requests_failed": whole(value(metrics, "error_request_count")),
        "ttft_mean_ms": milliseconds(metrics, "time_to_first_token"),
        "tpot_mean_ms": milliseconds(metrics, "inter_token_latency"),
        "chunk_gap_mean_ms": milliseconds(metrics, "inter_chunk_latency"),
        "e2e_mean_ms": e2e_ms,
        "input_tokens": whole(total(metrics, "total_isl", "input_sequence_length", count)),
        "output_tokens": whole(osl),
        "output_tokens_per_s": ratio(osl, duration_s) or _positive(value(metrics, "output_token_throughput")),
        "duration_s": duration_s,
        "concurrency": ratio(times(e2e_ms and e2e_ms / 1000, completed), duration_s)
        or times(_positive(rate), e2e_ms and e2e_ms / 1000),
        "request_rate_per_s": ratio(completed, duration_s) or _positive(rate),
        "server_input_tokens": whole(total(metrics, "total_usage_prompt_tokens", "usage_prompt_tokens", count)),
        "cached_input_tokens": whole(
            total(metrics, "total_usage_prompt_cache_read_tokens", "usage_prompt_cache_read_tokens", count)
        ),
        "reasoning_tokens": whole(total(metrics, "total_reasoning_tokens", "reasoning_token_count", count)),
        "tpot_basis": "inter_token_latency",
    }


def _positive(found: float | None) -> float | None:
    return found if found is not None and found > 0 else None
