"""Collecting the rows of a trace from blocks of a file: compact chunks while reading, whole arrays at the end."""

from dataclasses import replace

import numpy as np

from factory_sim.errors import TraceError
from factory_sim.inputs.logs.gateway import LONGEST_TOKENS
from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.logs.values import SECONDS_PER_UNIT
from factory_sim.inputs.traces.trace import Trace, TraceReport

_MISSING = {"arrival_s": np.nan, "think_time_s": np.nan, "e2e_s": np.nan, "ttft_s": np.nan}


MOST_TOKENS = 1e15
"""Counts beside the lengths (turns, cached tokens) beyond this are nonsense and cut, so that they stay whole
numbers."""
OFF_GRID = 2e-3
"""Share of its step by which a time may miss the grid of a coarse clock (Mooncake: 1 ms of 3 s)."""
LONGEST_S = 1e9
"""Measured times of a request beyond this many seconds (30 years) are nonsense and count as missing."""


def usable(isl: float | None, osl: float | None) -> bool:
    """Whether two counts of tokens are lengths: present, not negative, not absurd."""
    return isl is not None and osl is not None and 0 <= isl <= LONGEST_TOKENS and 0 <= osl <= LONGEST_TOKENS


def _whole(values, missing: float) -> np.ndarray:
    found = np.nan_to_num(np.asarray(values, np.float64), nan=missing)
    return np.clip(found, -MOST_TOKENS, MOST_TOKENS).astype(np.int64)


class Gather:
    """Chunks of named columns; a column that a chunk lacks is filled with its missing value."""

    def __init__(self) -> None:
        self._chunks: list[dict[str, np.ndarray]] = []
        self._ids: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._names: dict[str, dict] = {}
        self.rows = 0
        self.failed = 0
        self.first_ns: int | None = None

    def add(self, **columns: np.ndarray) -> None:
        """Add rows; whole numbers are kept in 32 bits where they fit."""
        compact = {}
        for name, values in columns.items():
            values = np.asarray(values)
            if values.dtype == np.int64 and (len(values) == 0 or np.abs(values).max() < 2**31):
                values = values.astype(np.int32)
            compact[name] = values
        self._chunks.append(compact)
        self.rows += len(columns["isl"])

    def add_requests(self, part, extras) -> None:
        """Add one batch of requests (columns of `logs.records.Request`) that succeeded, with extra columns."""
        import pandas as pd

        ok = part["ok"].to_numpy()
        if not ok.all():
            self.failed += int(np.sum(~ok))
            part = part[ok]
            extras = {role: (column[ok], unit) for role, (column, unit) in extras.items()}
        columns = {name: part[name].to_numpy().astype(np.int64) for name in ("isl", "osl")}
        for name, values in (("arrival_s", part["start_s"]), ("e2e_s", part["e2e_s"]), ("ttft_s", part["ttft_s"])):
            if name == "arrival_s" or values.notna().any():
                measured = values.to_numpy()
                columns[name] = measured if name == "arrival_s" else np.where(measured < LONGEST_S, measured, np.nan)
        for name in ("cached_tokens", "reasoning_tokens"):
            if part[name].notna().any():
                columns[name] = _whole(part[name], -1)
        for name in ("session", "tenant"):
            if part[name].notna().any():
                columns[name] = self.number(name, part[name].to_numpy(object))
        tokens = {}
        for role, (column, unit) in extras.items():
            if role == "hashes":
                lists = column.astype("string").str.findall(r"-?\d+").to_list()
                counts = np.array([len(ids) for ids in lists], np.int64)
                self.add_blocks(self.number("block", [block for ids in lists for block in ids]), counts)
                continue
            values = pd.to_numeric(column, errors="coerce").to_numpy("float64", na_value=np.nan)
            if role == "think":
                columns["think_time_s"] = values * SECONDS_PER_UNIT[unit or "s"]
            elif role in ("tools", "system"):
                tokens[role] = _whole(values, 0)
            else:
                columns[role] = _whole(values, 0)
        if tokens:
            columns["shared_prefix_tokens"] = sum(tokens.values())
        self.add(**columns)

    def add_blocks(self, ids: np.ndarray, counts: np.ndarray) -> None:
        """Add the block ids of the rows added last, `counts` a row."""
        self._ids.append(ids)
        self._counts.append(counts)

    def time_range_s(self) -> tuple[float, float]:
        """Return the earliest and latest time of arrival so far, seconds; NaN without times."""
        times = [chunk["arrival_s"] for chunk in self._chunks if len(chunk.get("arrival_s", ()))]
        return (min(t.min() for t in times), max(t.max() for t in times)) if times else (np.nan, np.nan)

    def number(self, kind: str, labels) -> np.ndarray:
        """Return numbers 0.. for labels (any hashable; None is -1), the same label the same number in every chunk."""
        import pandas as pd

        known = self._names.setdefault(kind, {})
        codes, found = pd.factorize(np.asarray(labels, object))
        numbers = np.array([known.setdefault(label, len(known)) for label in found], np.int64)
        return np.where(codes >= 0, np.append(numbers, -1)[codes], -1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the columns as whole arrays (int64 or float64) and let go of the chunks."""
        names = dict.fromkeys(name for chunk in self._chunks for name in chunk)
        sizes = [len(chunk["isl"]) for chunk in self._chunks]
        found = {}
        for name in names:
            floating = any(np.issubdtype(chunk[name].dtype, np.floating) for chunk in self._chunks if name in chunk)
            whole = np.empty(self.rows, np.float64 if floating else np.int64)
            at = 0
            for chunk, rows in zip(self._chunks, sizes):
                whole[at : at + rows] = chunk.pop(name) if name in chunk else _MISSING.get(name, -1)
                at += rows
            found[name] = whole
        self._chunks = []
        if self._ids:
            counts = np.concatenate(self._counts)
            found["block_offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            found["block_ids"] = np.concatenate(self._ids).astype(np.int64)
        return found


def clean_lengths(arrays: dict[str, np.ndarray], complaints: Complaints, path) -> np.ndarray:
    """Make answers of 0 tokens 1 (told) and return the rows that have a prompt. Raises TraceError if none is left."""
    silent = int(np.sum(arrays["osl"] < 1))
    if silent:
        complaints.add("repaired, answers of 0 tokens count as 1", f"{silent} requests", silent)
        arrays["osl"] = np.maximum(arrays["osl"], 1)
    keep = arrays["isl"] >= 1
    if not keep.all():
        complaints.add("left out, requests without a prompt", f"{int(np.sum(~keep))} requests", int(np.sum(~keep)))
    if not keep.any():
        raise TraceError(
            f"{path}: no usable request is left; {'; '.join(complaints.notes()) or 'the file has no rows'}"
        )
    return np.flatnonzero(keep)


def report(format_name: str, tool: str, requests: int, complaints: Complaints, notes=()) -> TraceReport:
    """Return the report of a reading: complaints sorted into what was dropped and what was repaired."""
    dropped = {k: n for k, n in complaints.counts.items() if k.startswith(("dropped", "left out"))}
    repaired = {k: n for k, n in complaints.counts.items() if k not in dropped}
    told = []
    for kind, count in complaints.counts.items():
        places = [place for place in complaints.examples[kind] if not place[:1].isdigit()]
        more = f", and {count - len(places):,} more" if places and count > len(places) else ""
        told.append(f"{kind}: {count:,}" + (f" ({'; '.join(places)}{more})" if places else ""))
    return TraceReport(format_name, tool, requests, dropped, repaired, (*told, *notes))


def in_order(trace: Trace, complaints: Complaints) -> Trace:
    """Return the trace with times from the first request on, in order of arrival (ties keep theirs); what moves is
    told."""
    if trace.arrival_s is None or trace.session_relative:
        return trace
    if np.isnan(trace.arrival_s).any():
        raise TraceError(f"{trace.name}: {int(np.isnan(trace.arrival_s).sum())} requests have no time, others have one")
    arrival_s = trace.arrival_s - trace.arrival_s.min()
    early = int(np.sum(np.diff(arrival_s) < 0))
    trace = trace.rows(np.argsort(arrival_s, kind="stable")) if early else trace
    if early:
        complaints.add("repaired, requests earlier than the one before them: sorted by time", f"{early} places", early)
    arrival_s = trace.arrival_s - trace.arrival_s[0] if len(trace) else trace.arrival_s
    return replace(trace, arrival_s=arrival_s)


def tie_notes(arrival_s: np.ndarray | None) -> list[str]:
    """Tell how many requests share their time with another, and whether times lie on a grid."""
    if arrival_s is None or len(arrival_s) < 2:
        return []
    gaps = np.diff(arrival_s)
    ties = int(np.sum(gaps == 0))
    if ties == 0:
        return []
    notes = [f"kept, {ties:,} requests at the same time as the one before them"]
    step = clock_tick_s(arrival_s)
    if step:
        notes.append(f"times lie on a grid of {step:g} s: burstiness below that is not observable")
    return notes


def clock_tick_s(arrival_s: np.ndarray | None) -> float:
    """Return the step of a coarse clock, seconds: more than half of the requests share their time with the one before
    and all others lie whole steps (at least 1 ms) after it; 0 where times are finer."""
    if arrival_s is None or len(arrival_s) < 2:
        return 0.0
    gaps = np.diff(arrival_s)
    later = gaps[gaps > 0]
    if len(later) == 0 or len(gaps) - len(later) <= len(arrival_s) // 2:
        return 0.0
    step = round(float(np.median(later / np.rint(later / later.min()))), 6)
    on_grid = np.abs(later / step - np.rint(later / step)) < OFF_GRID
    return step if step >= 1e-3 and on_grid.all() else 0.0
