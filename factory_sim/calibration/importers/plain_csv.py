"""A plain table of results, one row an operating point, with units in the column names.

| column | meaning |
|---|---|
| `ttft_ms`, `tpot_ms`, `chunk_gap_ms`, `e2e_ms` | means (`mean_ttft_ms` too; `_s` or `_us` for `_ms`) |
| `concurrency`, `request_rate_per_s`, `output_tokens_per_s`, `duration_s` | whole system, achieved |
| `isl`, `osl` | nominal lengths a request, tokens; `mean_input_tokens`, `mean_output_tokens` the mean ones |
| `requests_completed`, `requests_failed`, `input_tokens`, `output_tokens` | counts over the whole run |
| `model`, `gpu`, `n_gpus`, `engine` (`backend`), `engine_version`, `precision`, `mode`, `tp`, `pp`, `ep` | the system |

A column of times without unit is an error, and so are two units for one figure. `itl` is read as the gap between
chunks.
"""

import hashlib
import re
from typing import Any

from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import times
from factory_sim.errors import MeasurementError
from factory_sim.inputs.logs import tables
from factory_sim.inputs.logs.values import SECONDS_PER_UNIT, number, split_unit

FORMAT = "results_csv"
TOOL = "CSV table of results"
SHORTEST_TPOT_MS, LONGEST_TPOT_MS = 0.05, 60_000.0
"""No server is as fast or as slow for a token; seconds or microseconds under another name are."""
SHORTEST_TTFT_IN_TPOT = 0.2
"""A first token cannot come much sooner than a step takes; below this share of TPOT the units differ."""
LARGEST_MISMATCH = 20.0
"""TTFT + TPOT x (length - 1) this far from the end-to-end time means that the units differ."""

_TIMES = {
    "ttft": "ttft_mean_ms", "time_to_first_token": "ttft_mean_ms",
    "tpot": "tpot_mean_ms", "time_per_output_token": "tpot_mean_ms",
    "chunk_gap": "chunk_gap_mean_ms", "itl": "chunk_gap_mean_ms", "inter_token_latency": "chunk_gap_mean_ms",
    "inter_chunk_latency": "chunk_gap_mean_ms",
    "e2e": "e2e_mean_ms", "e2el": "e2e_mean_ms", "e2e_latency": "e2e_mean_ms", "end_to_end_latency": "e2e_mean_ms",
    "request_latency": "e2e_mean_ms",
}
_NUMBERS = {
    "requests_completed": "requests_completed", "completed": "requests_completed",
    "successful_requests": "requests_completed", "n_success": "requests_completed",
    "completed_requests": "requests_completed",
    "requests_failed": "requests_failed", "failed": "requests_failed", "n_failed": "requests_failed",
    "failed_requests": "requests_failed",
    "input_tokens": "input_tokens", "total_input_tokens": "input_tokens",
    "output_tokens": "output_tokens", "total_output_tokens": "output_tokens",
    "output_tokens_per_s": "output_tokens_per_s", "output_throughput": "output_tokens_per_s",
    "output_throughput_tok_s": "output_tokens_per_s", "output_token_throughput": "output_tokens_per_s",
    "output_token_throughput_tok_s": "output_tokens_per_s", "output_throughput_tokens_s": "output_tokens_per_s",
    "output_tokens_per_second": "output_tokens_per_s", "output_tok_s": "output_tokens_per_s",
    "output_tps": "output_tokens_per_s", "duration_sec": "duration_s", "benchmark_duration_s": "duration_s",
    "request_throughput_req_s": "request_rate_per_s", "request_rate": "request_rate_set_per_s",
    "total_generated_tokens": "output_tokens",
    "duration_s": "duration_s", "concurrency": "concurrency", "max_concurrency": "concurrency", "conc": "concurrency",
    "request_rate_per_s": "request_rate_per_s", "request_throughput": "request_rate_per_s",
    "completed_requests_per_s": "request_rate_per_s", "rps": "request_rate_per_s", "qps": "request_rate_per_s",
    "isl": "isl", "input_len": "isl", "osl": "osl", "output_len": "osl", "n_gpus": "n_gpus", "num_gpus": "n_gpus",
    "gpus": "n_gpus", "mean_input_tokens": "mean_isl", "mean_output_tokens": "mean_osl",
    "tokens_per_step": "tokens_per_step",
}
_TEXTS = {
    "model": "model", "gpu": "gpu", "engine": "engine", "backend": "engine", "framework": "engine",
    "engine_version": "engine_version", "backend_version": "engine_version", "precision": "precision",
    "measured_on": "measured_on", "date": "measured_on", "measurement_id": "label", "label": "label", "name": "label",
    "length_distribution": "length_distribution", "spec_decoding": "speculative",
}
_LAYOUT = ("tp", "pp", "ep", "dp", "mode", "replicas", "dp_attention", "parallelism", "prefill_workers",
           "prefill_gpus_per_worker", "prefill_ep", "prefill_dp_attention", "decode_workers", "decode_gpus_per_worker",
           "decode_ep", "decode_dp_attention")
_COUNTS = ("requests_completed", "requests_failed", "input_tokens", "output_tokens")
_ALL_FIELDS = set(Point.model_fields)
_PERCENTILE = re.compile(r"^p\d+$")
_COMMA = "dropped, a decimal comma? write a point, and no separators of thousands"
_EMPTY = {"", "null", "none", "n/a", "na", "-"}


def _columns(names: list[str]) -> tuple[dict[str, tuple[str, float]], dict[str, str], dict[str, str], list[str]]:
    """Sort columns into times (with their factor to ms), numbers and texts; list the times without unit."""
    timed: dict[str, tuple[str, float]] = {}
    numbers: dict[str, str] = {}
    texts: dict[str, str] = {}
    unitless = []
    for name in names:
        stem, unit = split_unit(name)
        for word in ("mean_", "avg_", "average_"):
            stem = stem.removeprefix(word)
        for word in ("_mean", "_avg", "_average"):
            stem = stem.removesuffix(word)
        if stem in _TIMES and unit is not None:
            other = timed.get(_TIMES[stem])
            if other and split_unit(other[0])[1] != unit:
                raise MeasurementError(f"row 1: columns {other[0]!r} and {name!r} hold one figure in two units; keep "
                                       "one of them")
            timed.setdefault(_TIMES[stem], (name, SECONDS_PER_UNIT[unit] * 1000))
        elif stem in _TIMES:
            unitless.append(name)
        elif name in _NUMBERS:
            numbers.setdefault(_NUMBERS[name], name)
        elif name in _TEXTS:
            texts.setdefault(_TEXTS[name], name)
    return timed, numbers, texts, unitless


def detect_table(names: list[str]) -> bool:
    """True when the columns (plain names) hold a latency or an output rate and something about the load."""
    try:
        timed, numbers, _, unitless = _columns(names)
    except MeasurementError:
        return True
    return bool(timed or unitless or "output_tokens_per_s" in numbers) and bool(
        {"concurrency", "request_rate_per_s", "isl", "requests_completed", "osl", "output_tokens"} & numbers.keys()
        or len(timed) > 1
    )


def only_percentiles(names: list[str]) -> str | None:
    """The first column of a percentile or median of a latency, in a table that holds no mean of one; else None."""
    found = None
    for name in names:
        stem, unit = split_unit(name)
        parts = [part for part in stem.split("_") if part != "median" and not _PERCENTILE.match(part)]
        if unit and "_".join(parts) in _TIMES:
            if len(parts) == len(stem.split("_")):
                return None
            found = found or name
    return found


def read(report: Report, names: list[str]) -> Found:
    """Return one point for each usable row; the others are listed with row and column."""
    path = report.source.path
    try:
        timed, numbers, texts, unitless = _columns(names)
    except MeasurementError as reason:
        raise MeasurementError(f"{path}: {reason}") from None
    if unitless:
        name = unitless[0]
        raise MeasurementError(f"{path}: row 1, column {name!r}: has no unit; write {name}_ms or {name}_s")
    if any("itl" in name or "inter_token" in name for name, _ in timed.values()):
        report.note("itl was read as the mean gap between chunks; if it is (last - first token)/(tokens - 1), call it "
                    "tpot")
    if not timed and (column := only_percentiles(names)):
        report.note(f"column {column} is a median or a percentile, not a mean: not used")
    wanted = {name for name, _ in timed.values()} | set(numbers.values()) | set(texts.values())
    layout = [name for name in _LAYOUT if name in names]
    decimal_comma = not report.source.parquet and tables.head_rows(report.source, 1)[1] == ";"
    points, seen = [], set()
    layouts: dict[tuple, dict[str, Any]] = {}
    for frame in tables.blocks(report.source, wanted | set(layout), report.complaints, MeasurementError):
        columns = list(frame.columns)
        for row, *values in zip(frame.index, *(frame[name].to_numpy(object) for name in columns)):
            cells = dict(zip(columns, values))
            identity = hashlib.blake2b(repr(values).encode(), digest_size=12).digest()
            if identity in seen:
                report.complaints.add("dropped, same as an earlier row", f"row {row}")
                continue
            seen.add(identity)
            told = tuple(cells[name] for name in layout)
            if told not in layouts:
                layouts[told] = {name: _cell(cell) for name, cell in zip(layout, told) if not _missing(cell)}
            point = _point(cells, row, timed, numbers, texts, layouts[told], report, decimal_comma)
            if point is not None:
                points.append(point)
    return Found(points, TOOL)


def _point(cells, row: int, timed, numbers, texts, layout: dict[str, Any], report: Report, decimal_comma: bool):
    facts: dict[str, Any] = {}
    for role, (name, factor) in timed.items():
        if _missing(cells[name]):
            continue
        value = _amount(cells[name], decimal_comma)
        if value is None or value <= 0:
            kind = _COMMA if "," in str(cells[name]) else "dropped, not a time above zero"
            report.complaints.add(kind, f"row {row}, column {name}, found {cells[name]!r}")
            return None
        facts[role] = value * factor
    for role, name in numbers.items():
        if _missing(cells[name]):
            continue
        value = _amount(cells[name], decimal_comma)
        if value is None and str(cells[name]).strip().lower() in ("inf", "infinity"):
            continue
        if role == "request_rate_set_per_s" and value is not None and value <= 0:  # some write 0 or -1 for no limit
            continue
        if value is None or value < 0 or (value == 0 and role in ("duration_s", "concurrency", "isl", "osl", "n_gpus")):
            kind = _COMMA if "," in str(cells[name]) else "dropped, not a number that makes sense"
            report.complaints.add(kind, f"row {row}, column {name}, found {cells[name]!r}")
            return None
        facts[role] = round(value) if role in _COUNTS else value
    trouble = _trouble(facts)
    if trouble:
        report.complaints.add(trouble, f"row {row}")
        return None
    extra = {name: facts.pop(name) for name in ("mean_isl", "mean_osl") if name in facts}
    if "output_tokens_per_s" not in facts and facts.get("output_tokens") and facts.get("duration_s"):
        facts["output_tokens_per_s"] = facts["output_tokens"] / facts["duration_s"]
    if "request_rate_per_s" not in facts and facts.get("requests_completed") and facts.get("duration_s"):
        facts["request_rate_per_s"] = facts["requests_completed"] / facts["duration_s"]
    if "concurrency" not in facts:
        found = times(facts.get("request_rate_per_s"), facts.get("e2e_mean_ms"))
        if found is not None:
            facts["concurrency"] = found / 1000
    words = {role: str(cells[name]).strip() for role, name in texts.items() if not _missing(cells[name])}
    words.setdefault("label", f"row {row}")
    return Point.model_construct(  # checked above; validation would copy the layout for every row
        _fields_set=_ALL_FIELDS, **facts, **words, parallelism=layout, extra=extra,
        concurrency_set=facts.get("concurrency"),
        tpot_basis=timed["tpot_mean_ms"][0] if "tpot_mean_ms" in facts else None, source=report.source.path.name,
        format=FORMAT,
    )


def _trouble(facts: dict[str, Any]) -> str | None:
    """Say what is impossible about a row, or None."""
    ttft, tpot, e2e = (facts.get(name) for name in ("ttft_mean_ms", "tpot_mean_ms", "e2e_mean_ms"))
    if ttft is None and tpot is None and e2e is None and facts.get("output_tokens_per_s") is None:
        return "dropped, holds no latency and no rate"
    if tpot and not SHORTEST_TPOT_MS <= tpot <= LONGEST_TPOT_MS:
        return f"dropped, TPOT is not between {SHORTEST_TPOT_MS:g} and {LONGEST_TPOT_MS:g} ms: another unit?"
    if ttft and tpot and ttft < SHORTEST_TTFT_IN_TPOT * tpot:
        return "dropped, TTFT is a small part of TPOT: another unit?"
    if ttft and e2e and ttft > 1.01 * e2e:
        return "dropped, TTFT is later than the end of the request: another unit?"
    osl = facts.get("mean_osl") or facts.get("osl")
    if ttft and tpot and e2e and osl:
        built = ttft + tpot * (osl - 1)
        if not 1 / LARGEST_MISMATCH < built / e2e < LARGEST_MISMATCH:
            return "dropped, TTFT + TPOT x (osl - 1) is far from the end-to-end time: another unit?"
    rate, concurrency = facts.get("output_tokens_per_s"), facts.get("concurrency")
    if rate and tpot and concurrency and rate > 5 * concurrency * 1000 / tpot:
        return "dropped, output tokens a second are impossible at this concurrency and TPOT"
    return None


def _amount(cell: Any, decimal_comma: bool) -> float | None:
    """The number in a cell; none where a comma may be a decimal point, as where semicolons part the columns."""
    return None if decimal_comma and isinstance(cell, str) and "," in cell else number(cell)


def _missing(cell: Any) -> bool:
    return cell is None or cell != cell or (isinstance(cell, str) and cell.strip().lower() in _EMPTY)


def _cell(cell: Any) -> str | int | float | bool:
    text = str(cell).strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    value = number(text)
    if value is None:
        return text
    return int(value) if value == int(value) else value
