"""Reading request logs and traces of any supported layout, as batches or as one table of arrivals and lengths."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factory_sim.errors import TraceError
from factory_sim.inputs.logs import benchmarks, gateway, jsonscan, litellm, otel, sessions, tables
from factory_sim.inputs.logs.columns import Mapping, mapping
from factory_sim.inputs.logs.files import Source, open_bytes
from factory_sim.inputs.logs.records import BATCH_ROWS, Complaints, Request, batch
from factory_sim.inputs.logs.values import plain_name

if TYPE_CHECKING:
    import pandas as pd

EXPECTED = (
    "LiteLLM logs, OpenTelemetry GenAI spans, vLLM, SGLang and AIPerf results with details, Azure, BurstGPT, Mooncake "
    "or agentic traces, or a CSV, JSONL or Parquet table with a time (ISO, epoch, or arrival_s), input_tokens and "
    "output_tokens"
)


MOST_IDS = 2_000_000
"""Request ids remembered to find repeated rows; beyond that they are no longer looked for."""


@dataclass
class Log:
    """A recognised log or trace: what it is, and its requests batch by batch."""

    format: str
    tool: str
    tool_version: str | None
    batches: Iterator["pd.DataFrame"]
    complaints: Complaints
    session_relative: bool = False
    notes: list[str] = field(default_factory=list)


def detect(source: Source, head: jsonscan.Head | None = None) -> str | None:
    """Return the name of the log's or trace's format, or None when the file is neither."""
    if not source.parquet:
        head = head or jsonscan.head(source.data)
        if head.kind != "other":
            if litellm.detect(head) or litellm.detect(head, litellm.WRAPPER):
                return "litellm"
            if otel.detect(head):
                return "otel_spans"
            other = benchmarks.detect(head) or sessions.detect(head)
            if other:
                return other
    plan = _plan(source, head)
    return plan.format if plan else None


def open_log(source: Source, head: jsonscan.Head | None = None) -> Log:
    """Return the requests of an opened file. Raises `TraceError` when it is no log or trace.

    A row that repeats the id, the start and the lengths of an earlier one is left out.
    """
    log = _open_log(source, head)
    log.batches = _distinct(log.batches, log.complaints)
    return log


def _distinct(batches: Iterator["pd.DataFrame"], complaints: Complaints) -> Iterator["pd.DataFrame"]:
    import pandas as pd

    seen: set[int] = set()
    for part in batches:
        known = part["key"].notna().to_numpy()
        if known.any() and len(seen) < MOST_IDS:
            rows = part.loc[known, ["key", "start_s", "isl", "osl", "ok"]].assign(key=part["key"].astype(str))
            marks = pd.util.hash_pandas_object(rows, index=False).tolist()
            repeated = [mark in seen or bool(seen.add(mark)) for mark in marks]
            if any(repeated):
                for key, again in zip(rows["key"], repeated):
                    if again:
                        complaints.add("left out, same request as an earlier row", f"id {key}")
                keep = ~known
                keep[known] = [not again for again in repeated]
                part = part[keep]
        yield part


def _open_log(source: Source, head: jsonscan.Head | None = None) -> Log:
    if not source.parquet:
        head = head or jsonscan.head(source.data)
    name = detect(source, head)
    complaints = Complaints()
    if name is None:
        raise TraceError(f"{source.path}: is no log or trace that can be read; known are {EXPECTED}")
    is_json = head is not None and head.kind != "other"
    if name == "litellm" and is_json and not litellm.detect(head):
        return Log(name, "LiteLLM", None, _wrapped_batches(source, complaints), complaints)
    if name == "litellm" and is_json:
        return Log(name, "LiteLLM", None, _record_batches(source, litellm.PLAN, _one(litellm.request), complaints),
                   complaints)
    if name == "otel_spans":
        tool, version = otel.tool(head)
        return Log(name, tool or "OpenTelemetry", version, _span_batches(source, complaints), complaints)
    if name in ("benchmark_details", "aiperf_records"):
        notes = ["arrivals are when the benchmark sent its requests"]
        return Log(name, name.replace("_", " "), None,
                   _record_batches(source, benchmarks.PLAN, benchmarks.requests, complaints), complaints, notes=notes)
    if name in ("weka_trace", "llmservingsim_trace"):
        return Log(name, name.replace("_", " "), None, _record_batches(source, None, sessions.requests, complaints),
                   complaints, session_relative=name == "weka_trace")
    plan = _plan(source, head)
    notes = [f"column {column!r} is not used: its unit is not in its name (write {column}_s or {column}_ms)"
             for column in plan.unitless]
    if name == "litellm":
        return Log(name, "LiteLLM", None, _litellm_table(source, complaints), complaints)
    frames = _json_frames(source, plan, complaints) if is_json else tables.blocks(source, plan.wanted, complaints)
    batches = (gateway.requests(frame, plan, str(source.path), complaints) for frame in frames)
    return Log(plan.format, plan.tool, None, batches, complaints, plan.session_relative, notes)


def _one(read):
    def each(document: dict[str, Any], where: str, complaints: Complaints) -> Iterator[Request]:
        found = read(document, where, complaints)
        if found is not None:
            yield found

    return each


def _plan(source: Source, head: jsonscan.Head | None) -> Mapping | None:
    if head is None or head.kind == "other":
        return mapping(tables.header(source))
    return mapping([plain_name(path.replace(".", "_")) for path in head.paths])


def _documents(source: Source, plan, complaints: Complaints) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield objects with where they stand; what cannot be read is complained of."""
    for document, position in jsonscan.documents(source.data, plan):
        if isinstance(document, jsonscan.Loss):
            complaints.add_loss(document, source)
        elif isinstance(document, dict):
            yield document, f"line {source.line_column(position)[0]}"
        else:
            line, _ = source.line_column(position)
            complaints.add("dropped, not an object", f"line {line}, found {str(document)[:20]!r}")


def _span_batches(source: Source, complaints: Complaints) -> Iterator["pd.DataFrame"]:
    """Requests among spans, whether each has a document of its own or many share a batch."""
    rows: list[Request] = []

    def take(span: Any) -> None:
        if isinstance(span, dict):
            rows.extend(otel.requests(span, f"span {span.get('spanId') or span.get('span_id')}", complaints))

    for document, where in _documents(source, otel.plan(take), complaints):
        rows.extend(otel.requests(document, where, complaints))
        if len(rows) >= BATCH_ROWS:
            yield batch(rows)
            rows.clear()
    if rows:
        yield batch(rows)


def _wrapped_batches(source: Source, complaints: Complaints) -> Iterator["pd.DataFrame"]:
    """Rows of LiteLLM inside one member of each document."""
    rows: list[Request] = []
    seen = 0

    def take(row: Any) -> None:
        nonlocal seen
        seen += 1
        found = litellm.request(row, f"{litellm.WRAPPER}[{seen - 1}]", complaints) if isinstance(row, dict) else None
        if found is not None:
            rows.append(found)

    plan = {litellm.WRAPPER: jsonscan.Each(take, inner=lambda: litellm.PLAN)}
    for _ in _documents(source, plan, complaints):
        pass
    if rows:
        yield batch(rows)


def _record_batches(source: Source, plan, read, complaints: Complaints) -> Iterator["pd.DataFrame"]:
    rows: list[Request] = []
    for document, where in _documents(source, plan, complaints):
        rows.extend(read(document, where, complaints))
        if len(rows) >= BATCH_ROWS:
            yield batch(rows)
            rows = []
    if rows:
        yield batch(rows)


def _litellm_table(source: Source, complaints: Complaints) -> Iterator["pd.DataFrame"]:
    """Rows of LiteLLM_SpendLogs exported as CSV or Parquet: their times and usage objects need LiteLLM's own reader."""
    names = {name.replace("_", ""): name for name in tables.header(source)}
    known = {plain.replace("_", ""): field for field in litellm.FIELDS for plain in [plain_name(field)]}
    wanted = {name: known[squeezed] for squeezed, name in names.items() if squeezed in known}
    for frame in tables.blocks(source, set(wanted), complaints):
        records = frame.rename(columns=wanted).to_dict("records")
        rows = (litellm.request(record, f"row {row}", complaints) for row, record in zip(frame.index, records))
        yield batch([row for row in rows if row is not None])


def _json_frames(source: Source, plan: Mapping, complaints: Complaints) -> Iterator["pd.DataFrame"]:
    import pandas as pd

    wanted = sorted(plan.wanted)
    rows, numbers = [], []
    for document, where in _documents(source, None, complaints):
        record = gateway.flat(document)
        rows.append([record.get(name) for name in wanted])
        numbers.append(int(where.split()[1]))
        if len(rows) >= BATCH_ROWS:
            yield pd.DataFrame(rows, columns=wanted, index=numbers, dtype=object)
            rows, numbers = [], []
    if rows:
        yield pd.DataFrame(rows, columns=wanted, index=numbers, dtype=object)


def read_request_log(path: str | Path) -> "pd.DataFrame":
    """Read a log or trace as a workload: lengths and arrival times, never text.

    Columns: `arrival_s` (seconds from the first request; from the session's start where the trace tells no more; NaN
    where it has no times), `isl`, `osl`, `cached_tokens`, `reasoning_tokens` (tokens; the last two NaN where unknown),
    `session`, `tenant`, `model` (categories; sessions and tenants only as numbers, -1 unknown), `ttft_s`, `e2e_s`
    (as measured, or NaN). Rows are sorted by arrival (ties keep their order).

    Failed requests and rows without a prompt are left out; an answer of 0 tokens counts as 1. `frame.attrs["notes"]`
    tells what was recognised, dropped and repaired. Raises `TraceError` when nothing is left.
    """
    import numpy as np
    import pandas as pd

    with open_bytes(path, TraceError) as source:
        log = open_log(source)
        parts = [_workload(part) for part in log.batches]
        notes = [f"{log.format}: {sum(len(part) for part in parts)} requests", *source.notes, *log.notes,
                 *log.complaints.notes()]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    lost = 0 if frame.empty else int((~frame["ok"]).sum())
    if lost:
        notes.append(f"left out, {lost} failed requests")
        frame = frame[frame["ok"]]
    unknown = 0 if frame.empty else int((frame["isl"].isna() | frame["osl"].isna()).sum())
    if unknown:
        notes.append(f"left out, {unknown} requests without counts of tokens")
        frame = frame[frame["isl"].notna() & frame["osl"].notna()]
    empty = 0 if frame.empty else int((frame["isl"] < 1).sum())
    if empty:
        notes.append(f"left out, {empty} requests without a prompt")
        frame = frame[frame["isl"] >= 1]
    if frame.empty:
        raise TraceError(f"{path}: no usable request is left; {'; '.join(notes)}")
    silent = int((frame["osl"] < 1).sum())
    if silent:
        notes.append(f"repaired, {silent} answers of 0 tokens count as 1")
    frame = frame.drop(columns="ok").assign(
        isl=frame["isl"].astype("int64"), osl=frame["osl"].clip(lower=1).astype("int64")
    )
    if not log.session_relative and frame["arrival_s"].notna().any():
        frame["arrival_s"] -= frame["arrival_s"].min()
        if (np.diff(frame["arrival_s"].to_numpy()) < 0).any():
            notes.append("repaired, requests were not in order of arrival: sorted")
        frame = frame.sort_values("arrival_s", kind="stable")
    for name in ("session", "tenant"):
        frame[name] = pd.factorize(frame[name])[0]
    frame["model"] = frame["model"].astype("category")
    frame = frame.reset_index(drop=True)
    frame.attrs = {"format": log.format, "tool": log.tool, "notes": notes, "session_relative": log.session_relative}
    return frame


def _workload(part: "pd.DataFrame") -> "pd.DataFrame":
    names = ["start_s", "isl", "osl", "cached_tokens", "reasoning_tokens", "session", "tenant", "model", "ttft_s",
             "e2e_s", "ok"]
    return part[names].rename(columns={"start_s": "arrival_s"})
