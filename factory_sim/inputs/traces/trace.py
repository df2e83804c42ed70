"""What every trace of requests is turned into: arrays of lengths, times and dependencies, and a report of what was
done."""

from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class TraceReport:
    """What was found in a file, what was left out and what was mended: nothing happens silently."""

    format: str
    """Recognised format, e.g. ``mooncake_trace``."""
    tool: str
    """Who writes such files."""
    requests: int
    """Requests that are left."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""
    repaired: dict[str, int] = field(default_factory=dict)
    """Rows kept with a change, by what was changed."""
    notes: tuple[str, ...] = ()
    """The same in sentences, with the first few places, and what else a reader should know."""
    file: str = ""
    """Path as it was given; empty for packaged and generated traces."""

    def lines(self) -> list[str]:
        """Return the report as sentences, the count of requests first."""
        file = f"{self.file}: " if self.file else ""
        return [f"{file}{self.format}: {self.requests:,} requests", *self.notes]


@dataclass(frozen=True)
class Trace:
    """Requests of one trace. All arrays have one length n; those that the trace does not tell are None.

    Rows are in order of arrival; where times count from the start of each session (`session_relative`) they are in
    order of session, then of arrival within it.
    """

    name: str
    """File name without folder and compression."""
    isl: np.ndarray
    """int64 >= 1: prompt tokens."""
    osl: np.ndarray
    """int64 >= 1: answer tokens, reasoning included."""
    report: TraceReport
    arrival_s: np.ndarray | None = None
    """float64: seconds from the first request, or from the start of the session; None: lengths only."""
    session_relative: bool = False
    """Whether times count from the start of each session, whose own start the file does not tell."""
    session: np.ndarray | None = None
    """int64: number of the session, 0.. in order of appearance; -1 belongs to none."""
    agent: np.ndarray | None = None
    """int64: 0 the main agent of a session, 1.. its sub-agents."""
    depends_on: np.ndarray | None = None
    """int64: index of the request whose answer this one waits for; -1 waits for none."""
    think_time_s: np.ndarray | None = None
    """float64: pause between that answer and this request (tool run, person), seconds; 0 where it waits for none."""
    cached_tokens: np.ndarray | None = None
    """int64: leading prompt tokens already seen before, as the trace tells; -1 unknown."""
    prefix_of: np.ndarray | None = None
    """int64: index of the earlier request that shares those leading tokens; -1 none."""
    shared_prefix_tokens: np.ndarray | None = None
    """int64: leading tokens of tools and system prompt, alike in many sessions."""
    block_tokens: int = 0
    """Tokens of one block of `block_ids`; 0: no blocks."""
    block_offsets: np.ndarray | None = None
    """int64, shape (n + 1,): row i has the ids ``block_ids[block_offsets[i]:block_offsets[i + 1]]``."""
    block_ids: np.ndarray | None = None
    """int64 >= 0: ids of the prompt's leading blocks; equal ids at equal places mean an equal prefix up to there. A
    list shorter than its prompt leaves the rest never seen; a longer one goes on into the answer."""
    reasoning_tokens: np.ndarray | None = None
    """int64: hidden part of `osl`; -1 unknown."""
    tenant: np.ndarray | None = None
    """int64: number of the customer; -1 unknown."""
    e2e_s: np.ndarray | None = None
    """float64: measured time of the request, seconds; NaN unknown."""
    ttft_s: np.ndarray | None = None
    """float64: measured time to first token, seconds; NaN unknown."""

    def __len__(self) -> int:
        return len(self.isl)

    @property
    def sessions(self) -> int:
        """Number of sessions."""
        return 0 if self.session is None or len(self) == 0 else int(self.session.max()) + 1

    @property
    def span_s(self) -> float:
        """Time from the first to the last arrival, seconds."""
        return 0.0 if self.arrival_s is None or len(self) == 0 else float(self.arrival_s[-1] - self.arrival_s[0])

    def rows(self, rows: np.ndarray) -> "Trace":
        """Return the trace with `rows` only, in their order; dependencies on rows left out become none."""
        rows = np.asarray(rows, np.int64)
        place = np.full(len(self) + 1, -1, np.int64)
        place[rows] = np.arange(len(rows))
        changes = {}
        for name in ROW_ARRAYS:
            values = getattr(self, name)
            if values is not None:
                changes[name] = values[rows]
        for name in ("depends_on", "prefix_of"):
            if name in changes:
                changes[name] = place[changes[name]]
        if self.block_offsets is not None:
            counts = np.diff(self.block_offsets)[rows]
            changes["block_offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            starts = np.repeat(self.block_offsets[rows] - changes["block_offsets"][:-1], counts)
            changes["block_ids"] = self.block_ids[starts + np.arange(len(starts))]
        return replace(self, **changes)


ROW_ARRAYS = (
    "isl",
    "osl",
    "arrival_s",
    "session",
    "agent",
    "depends_on",
    "think_time_s",
    "cached_tokens",
    "prefix_of",
    "shared_prefix_tokens",
    "reasoning_tokens",
    "tenant",
    "e2e_s",
    "ttft_s",
)
