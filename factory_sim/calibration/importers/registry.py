"""Which reader a file belongs to: the first whose detector says yes."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from factory_sim.calibration.importers import (
    aiperf,
    console,
    elsewhere,
    flat_table,
    genai_perf,
    guidellm,
    inference_perf,
    inferencex,
    llmd,
    llmperf,
    logs,
    plain_csv,
    servegen,
    sglang,
    trtllm,
    vllm,
    vllm_throughput,
)
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.errors import MeasurementError
from factory_sim.inputs.logs import jsonscan, tables, yamlscan
from factory_sim.inputs.logs import read as log_reader
from factory_sim.inputs.logs.files import Source
from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.logs.values import plain_name


class Reader(NamedTuple):
    """One layout of one tool: how to recognise it and how to read it."""

    name: str
    detect: Callable[[jsonscan.Head], bool]
    read: Callable[[Report, jsonscan.Head], Found]


JSON_READERS = (
    Reader(aiperf.FORMAT, aiperf.detect, aiperf.read),
    Reader(aiperf.RECORDS, aiperf.detect_records, aiperf.read_records),
    Reader(genai_perf.FORMAT, genai_perf.detect, genai_perf.read),
    Reader(aiperf.FORMAT, aiperf.detect_bare, aiperf.read),
    Reader(genai_perf.RAW, genai_perf.detect_raw, genai_perf.read_raw),
    Reader(guidellm.FORMAT, guidellm.detect, guidellm.read),
    Reader(inferencex.FORMAT, inferencex.detect, inferencex.read),
    Reader(trtllm.FORMAT, trtllm.detect, trtllm.read),
    Reader(inference_perf.FORMAT, inference_perf.detect, inference_perf.read),
    Reader(inference_perf.REQUESTS, inference_perf.detect_requests, inference_perf.read_requests),
    Reader(llmd.FORMAT, llmd.detect, llmd.read),
    Reader(llmperf.FORMAT, llmperf.detect, llmperf.read),
    Reader(llmperf.RESPONSES, llmperf.detect_responses, llmperf.read_responses),
    Reader(sglang.FORMAT, sglang.detect, sglang.read),
    Reader(vllm.FORMAT, vllm.detect, vllm.read),
    Reader(vllm_throughput.FORMAT, vllm_throughput.detect, vllm_throughput.read),
    Reader(servegen.FORMAT, servegen.detect, servegen.read),
)
KNOWN = (
    "results of vLLM (bench serve, bench throughput), SGLang, AIPerf, GenAI-Perf, GuideLLM, LLMPerf, inference-perf, "
    "InferenceX, trtllm-bench, llm-d reports; a CSV of results with units in its names (ttft_ms, tpot_ms, ...); "
    + log_reader.EXPECTED
)
_NOT_RESULTS = {
    "prediction of AISimulate (simulated, not measured)": ("num_requests", "wall_time_ms", "mean_ttft_ms"),
    "set of prompts for AIPerf (inputs.json)": ("data.session_id", "data.payloads"),
    "GPU telemetry or server metrics of AIPerf": ("timestamp_ns", "endpoint_url"),
    "measurement of single batches by vLLM (bench latency), which tells neither their lengths nor their size": (
        "avg_latency", "percentiles"),
    "result of SGLang for single batches (bench_one_batch), not of a service under load": (
        "batch_size", "input_len", "output_len", "overall_throughput"),
    "result of SGLang for an offline run (bench_offline_throughput), without latencies": (
        "successful_requests", "total_latency", "input_throughput"),
    "failure that a sweep of vLLM noted": ("error_type", "serve_overrides"),
}
_HEAD_BYTES = 1 << 16
_YAML_LINE = re.compile(rb"^(---|[\w\"'.$-]+:(\s|$))")


class Known(NamedTuple):
    """A recognised file, ready to be read."""

    name: str
    read: Callable[[Report], Found]


def recognise(source: Source) -> Known:
    """Return the reader of an opened file. Raises `MeasurementError` when no format fits."""
    if source.parquet:
        return _table(source, tables.header(source), None)
    head = jsonscan.head(source.data)
    if head.kind == "other" and not _is_yaml(source):
        head = jsonscan.head(source.data, position=_first_object(source))
    if head.kind != "other":
        for reader in JSON_READERS:
            if reader.detect(head):
                return Known(reader.name, lambda report, reader=reader: reader.read(report, head))
        for what, names in _NOT_RESULTS.items():
            if head.has(*names):
                raise MeasurementError(f"{source.path}: is a {what}; there is nothing to take from it")
        name = log_reader.detect(source, head)
        if name:
            return Known(name, lambda report: logs.read(report, head))
        raise MeasurementError(f"{source.path}: {_unknown_json(source, head)}. Known are {KNOWN}")
    if console.detect(source):
        return Known(console.FORMAT, console.read)
    if _is_yaml(source):
        return Known("yaml", _read_yaml)
    rows, _ = tables.head_rows(source)
    if guidellm.detect_csv(rows):
        return Known(guidellm.FORMAT, lambda report: guidellm.read_csv(report, None))
    if aiperf.detect_csv(rows):
        return Known("aiperf_csv", lambda report: aiperf.read_csv(report, None))
    if servegen.detect_csv(rows, source.name):
        return Known(servegen.FORMAT, lambda report: servegen.read_csv(report, None))
    return _table(source, [plain_name(cell) for cell in rows[0]] if rows else [], head)


def _first_object(source: Source) -> int:
    """Where JSON starts behind lines of a log that are no table; 0 where it does not."""
    lines = bytes(source.data[:_HEAD_BYTES]).split(b"\n")
    position = 0
    for line in lines:
        if line.startswith(b"{"):
            return position
        if any(mark in line for mark in (b",", b";", b"\t")) and position == 0:
            return 0
        position += len(line) + 1
    return 0


def _unknown_json(source: Source, head: jsonscan.Head) -> str:
    if re.match(rb"\s*\[?\s*\{\s*'", bytes(source.data[:200])):
        return "is a dictionary as Python prints it, with single quotes, and no JSON; write it with json.dump"
    shown = ", ".join(list(dict.fromkeys(path.split(".")[0] for path in head.paths))[:10]) or "none"
    try:
        jsonscan.skip(source.data, jsonscan.after_space(source.data, 0))
    except jsonscan.JsonCut as reason:
        line, column = source.line_column(reason.position)
        return f"is cut off (line {line}, column {column}) before its format can be told; its members are: {shown}"
    except jsonscan.JsonBad:
        pass
    return f"is JSON of no known format; its members are: {shown}"


def _table(source: Source, names: list[str], head: jsonscan.Head | None) -> Known:
    told = elsewhere.table(source.path, names)
    if told:
        raise MeasurementError(told)
    flat = flat_table.detect(names)
    if flat:
        return Known(flat, lambda report: flat_table.read(report, flat))
    log = log_reader.detect(source, head)
    results = plain_csv.detect_table(names)
    if log and (log in logs.TRACES or not results or "concurrency" not in names):
        return Known(log, lambda report: logs.read(report, head))
    if results:
        return Known(plain_csv.FORMAT, lambda report: plain_csv.read(report, names))
    column = plain_csv.only_percentiles(names)
    if column:
        raise MeasurementError(f"{source.path}: row 1, column {column!r}: is a median or a percentile; a mean is needed "
                               "(ttft_ms, tpot_ms, e2e_ms, or mean_ttft_ms and so on)")
    shown = ", ".join(names[:10])
    what = f"a table with the columns {shown}" if len(names) > 1 else "no table, no JSON and no YAML"
    raise MeasurementError(f"{source.path}: is {what}, which is no known format. Known are {KNOWN}")


def _is_yaml(source: Source) -> bool:
    if source.name.lower().endswith((".yaml", ".yml")):
        return True
    lines = [line for line in bytes(source.data[:4096]).split(b"\n") if line.strip() and not line.startswith(b"#")]
    return bool(lines) and bool(_YAML_LINE.match(lines[0])) and len(lines) > 1


def _read_yaml(report: Report) -> Found:
    """Read a YAML report: GuideLLM's or llm-d's.

    A cut leaves valid YAML, only shorter: the last line of a report that ends early is not trusted.
    """
    found, ended = _yaml_report(report, None)
    if not ended and report.source.data[-1:] != b"\n":
        report.complaints = Complaints()
        last_line = report.source.data.rfind(b"\n") + 1
        report.note(f"{report.where(last_line)}: the last line is cut and was left out")
        found, _ = _yaml_report(report, last_line)
    return found


def _yaml_report(report: Report, end: int | None) -> tuple[Found, bool]:
    """Read a YAML report up to the byte `end`; tell also whether it came to its own end."""
    plan, benchmarks = guidellm.tree_plan()
    found = Found([], "")
    known, ended, members = False, True, []
    for document in yamlscan.documents(report.source, plan, end):
        if isinstance(document, jsonscan.Loss):
            report.complaints.add("dropped, cut off" if document.cut else "dropped, not YAML", document.message)
            ended = False
            if benchmarks:
                found, known = guidellm.found(benchmarks, {}, report), True
        elif isinstance(document, dict) and "benchmarks" in document:
            found, known = guidellm.found(benchmarks, document, report), True
            ended = "metadata" in document or any("run_stats" in item for item in benchmarks)
        elif isinstance(document, dict) and llmd.detect_tree(document):
            more = llmd.read_tree(document, report)
            found = Found([*found.points, *more.points], more.tool, more.tool_version)
            known, ended = True, bool(found.points and found.points[-1].request_rate_per_s)
        elif isinstance(document, dict):
            members = [str(name) for name in document]
    told = elsewhere.scenario(report.source.path, members)
    if told:
        raise MeasurementError(told)
    if not known and not report.complaints.total:
        raise MeasurementError(f"{report.source.path}: is YAML of no known format. Known are {KNOWN}")
    return found, ended


def describe(known: Known, found: Found) -> str:
    """Name of the format of a file that was read: that of its points where they agree."""
    names: dict[str, Any] = dict.fromkeys(point.format for point in found.points if point.format)
    return next(iter(names)) if len(names) == 1 else known.name
