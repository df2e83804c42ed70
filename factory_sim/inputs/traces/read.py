"""Reading any trace of requests into arrays: recognised by content, streamed block by block, mended and told."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from factory_sim.errors import TraceError
from factory_sim.inputs.logs import gateway, jsonscan, tables
from factory_sim.inputs.logs.columns import Mapping, mapping
from factory_sim.inputs.logs.files import Source, open_bytes
from factory_sim.inputs.logs.read import detect, open_log
from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.logs.values import plain_name, split_unit
from factory_sim.inputs.traces import blocks, datasets, fast, gather, lines, nested, sessions
from factory_sim.inputs.traces.gather import Gather
from factory_sim.inputs.traces.times import one_unit
from factory_sim.inputs.traces.trace import ROW_ARRAYS, Trace

MOST_REQUESTS_PER_S = 200.0
"""Rate beyond which milliseconds are doubted; the published Mooncake traces have 3 to 7 a second."""
NEEDED = ("input_tokens", "output_tokens")
EXTRA_COLUMNS = {
    "agent": ("agent", "agent_id", "sub_agent"),
    "turn": ("turn", "turn_index", "round", "round_index", "step"),
    "think": ("think_time", "think", "delay", "tool_duration", "pause"),
    "tools": ("tool_tokens",),
    "system": ("system_tokens",),
    "hashes": ("block_hash_ids", "hash_ids"),
}
"""Columns of tables that logs do not need and traces do, by the names they go under (units in the name)."""


def read_trace(path: str | Path, *, count_tokens: Callable[[str], int] | None = None) -> Trace:
    """Return the requests of a trace, request log or benchmark data set, whatever its format, compression and order.

    Read: Azure LLM traces, BurstGPT, Mooncake (block hashes), agentic session CSV, WEKA/AgentX and LLMServingSim
    sessions, Vidur/Frontier, vLLM and SGLang benchmark data sets and detailed results, LiteLLM and OpenTelemetry
    logs, and CSV, JSON lines or Parquet tables with input and output tokens. Text is counted by `count_tokens`
    (None: the installed ``bpe-openai`` tokenizer) and never kept.

    Failed requests, rows without a prompt and broken rows are left out, answers of 0 tokens count as 1, requests are
    sorted by time: each counted in ``trace.report``. Raises TraceError when the file is no trace or nothing is left.
    """
    try:
        return _read(Path(path), count_tokens)
    except csv.Error as reason:
        raise TraceError(f"{path}: cannot be read as CSV: {reason}") from None


def _read(path: Path, count_tokens) -> Trace:
    complaints, rows = Complaints(), Gather()
    with open_bytes(path, TraceError) as source:
        head = None if source.parquet else jsonscan.head(source.data)
        notes = list(source.notes)
        found = datasets.detect(source, head)
        if found:
            name, tool = found
            datasets.read(source, name, rows, complaints, count_tokens)
            relative = False
        else:
            name, tool, relative, more = _rows(source, head, rows, complaints)
            notes += more
        file_name = source.name
    return _finish(file_name, path, name, tool, relative, rows, complaints, notes)


def _rows(source: Source, head, rows: Gather, complaints: Complaints) -> tuple[str, str, bool, list[str]]:
    """Read a file that is no data set into `rows`: (format, tool, times count from sessions' starts, notes)."""
    name = detect(source, head)
    is_json = head is not None and head.kind != "other"
    if name == "mooncake_trace" and is_json and head.kind == "object":
        blocks.read(source, rows, complaints)
        return name, "Mooncake trace", False, _hurried(rows)
    if name in ("weka_trace", "llmservingsim_trace"):
        nested.read(source, rows, complaints)
        weka = name == "weka_trace"
        return name, "WEKA/AgentX sessions" if weka else "LLMServingSim", weka, []
    lengths_only = mapping([*tables.header(source), "arrival_s"]) if name is None and not is_json else None
    if name is None and not is_json and lengths_only is None:
        raise TraceError(_missing(source.path, tables.header(source), "column"))
    if name is None and is_json:
        names = [plain_name(path.replace(".", "_")) for path in head.paths]
        if _lacking([*names, "arrival_s"]) != list(NEEDED):  # one of the two is there
            raise TraceError(_missing(source.path, names, "member"))
    if is_json and head.kind == "object" and name in ("gateway_log", "length_trace", "burstgpt", "azure_llm_trace"):
        plan = mapping([plain_name(path.replace(".", "_")) for path in head.paths])
        if _one_a_line(source):
            lines.read(source, plan, rows, complaints)
            return plan.format, plan.tool, False, _unused(plan)
    if is_json or name in ("litellm", "otel_spans"):
        log = open_log(source, head)
        for part in log.batches:
            rows.add_requests(part, {})
        return log.format, log.tool, log.session_relative, log.notes
    plan = mapping(tables.header(source)) if lengths_only is None else _without_times(lengths_only)
    extras = _extras(tables.header(source))
    told = _unused(plan) + _open_end(source)
    if not extras and fast.read(source, plan, rows, complaints):
        return plan.format, plan.tool, plan.session_relative, told
    for frame in tables.blocks(source, plan.wanted | {column for column, _ in extras.values()}, complaints):
        part = gateway.requests(one_unit(frame, plan, complaints), plan, str(source.path), complaints)
        rows.add_requests(
            part, {role: (frame[column].loc[part.index], unit) for role, (column, unit) in extras.items()}
        )
    return plan.format, plan.tool, plan.session_relative, told


def _open_end(source: Source) -> list[str]:
    """A table whose last line has no end may have lost the end of its last number: nobody can know."""
    if source.parquet or source.data[-1:] in (b"\n", b"\r"):
        return []
    return ["the last line has no end of line and was read as it is: if the file was cut off, its last number may be too"]


def _hurried(rows: Gather) -> list[str]:
    """Mooncake times are milliseconds; requests faster than anybody asks are most likely in seconds."""
    first_s, last_s = rows.time_range_s()
    if rows.rows < 2 or rows.rows <= MOST_REQUESTS_PER_S * (last_s - first_s):
        return []
    return [
        f"times were read as milliseconds: {rows.rows:,} requests in {last_s - first_s:.3g} s; if they are seconds, set "
        "traffic.trace.time_scale to 1000"
    ]


def _one_a_line(source: Source) -> bool:
    """Whether the first line is a whole JSON object: then each line is taken to be one."""
    end = source.data.find(b"\n")
    try:
        return isinstance(json.loads(source.data[: end if end >= 0 else len(source.data)]), dict)
    except ValueError:
        return False


def _lacking(names: list[str]) -> list[str]:
    """Which of the counts of tokens no column or member tells."""
    return [name for name in NEEDED if mapping([*names, "arrival_s", *(w for w in NEEDED if w != name)]) is None]


def _missing(path: Path, names: list[str], what: str) -> str:
    """Say what a table or its records lack to be a trace, and what they have."""
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    lacks = _lacking(names) or ["a time (arrival_s, or ISO 8601)"]
    return f"{path}: has no {what} of {' and '.join(lacks)}; found: {shown or 'nothing'}"


def _without_times(plan: Mapping) -> Mapping:
    roles = {role: column for role, column in plan.roles.items() if role != "start"}
    return replace(plan, format="length_table", tool="table of lengths", roles=roles)


def _unused(plan: Mapping) -> list[str]:
    return [
        f"column {name!r} is not used: its unit is not in its name (write {name}_s or {name}_ms)"
        for name in plan.unitless
    ]


def _extras(names: list[str]) -> dict[str, tuple[str, str | None]]:
    """Return role -> (column, unit of time in its name) of the extra columns that a table has."""
    found = {}
    for name in names:
        stem, unit = split_unit(name)
        for role, known in EXTRA_COLUMNS.items():
            if role not in found and (name in known or (role == "think" and stem in known and unit)):
                found[role] = (name, unit)
    return found


def _finish(file_name, path, name, tool, relative, rows: Gather, complaints: Complaints, notes) -> Trace:
    if rows.failed:
        complaints.add("left out, failed requests", f"{rows.failed} requests", rows.failed)
    arrays = rows.arrays()
    if not arrays or len(arrays["isl"]) == 0:
        raise TraceError(
            f"{path}: no usable request is left; {'; '.join(complaints.notes()) or 'the file has no rows'}"
        )
    if "arrival_s" in arrays and np.isnan(arrays["arrival_s"]).all() and not relative:
        del arrays["arrival_s"]
    keep = gather.clean_lengths(arrays, complaints, path)
    block_tokens = blocks.settle(arrays, complaints, path) if "block_ids" in arrays else 0
    turn, row = arrays.pop("turn", None), arrays.pop("row", None)
    if row is not None and "prefix_of" in arrays:
        arrays["prefix_of"] = _renumbered(arrays["prefix_of"], row)
    empty = gather.report(name, tool, len(keep), complaints)
    offsets, ids = arrays.pop("block_offsets", None), arrays.pop("block_ids", None)
    trace = Trace(file_name, report=empty, block_tokens=block_tokens, block_offsets=offsets, block_ids=ids, **arrays)
    if len(keep) < len(trace):
        trace, turn = trace.rows(keep), None if turn is None else turn[keep]
    if relative:
        columns = {key: getattr(trace, key) for key in ROW_ARRAYS if getattr(trace, key) is not None}
        order = sessions.settle(columns, turn, complaints)
        trace = replace(trace.rows(order), session_relative=True, **columns)
    else:
        trace = gather.in_order(trace, complaints)
        if trace.session is not None and trace.think_time_s is not None and trace.arrival_s is not None:
            trace = sessions.chain(trace)
    notes = [*notes, *gather.tie_notes(None if relative else trace.arrival_s)]
    told = gather.report(name, tool, len(trace), complaints, notes)
    return replace(trace, report=replace(told, file=str(path)))


def _renumbered(prefix_of: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Translate row numbers of the file into places in the arrays; -1 stays."""
    place = np.full(int(row.max(initial=-1)) + 2, -1, np.int64)
    place[row] = np.arange(len(row))
    return place[prefix_of]
