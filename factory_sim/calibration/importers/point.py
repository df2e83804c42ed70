"""What every benchmark file, log or trace is turned into: operating points with one definition for each figure.

TTFT is the first token minus the start of the request; TPOT is (last token - first token)/(output tokens - 1) per
request, averaged over requests with more than one token; the chunk gap is the mean over every gap between two streamed
chunks, pooled; end-to-end times are those of successful requests; output tokens per second are the output tokens of
successful requests over the duration; concurrency is the sum of end-to-end times over the duration (Little). What a
file does not hold is None, never 0.
"""

import math
from typing import Any

from pydantic import Field, field_validator

from factory_sim.records import Record

FIGURES = (
    "requests_completed",
    "requests_failed",
    "ttft_mean_ms",
    "tpot_mean_ms",
    "chunk_gap_mean_ms",
    "e2e_mean_ms",
    "input_tokens",
    "output_tokens",
    "output_tokens_per_s",
    "duration_s",
    "concurrency",
    "request_rate_per_s",
)


class Point(Record):
    """One benchmark, stage or log: the figures of `FIGURES`, and what the file tells about how they came about."""

    requests_completed: int | None = None
    """Requests that succeeded."""
    requests_failed: int | None = None
    """Requests that ended in an error or were cancelled."""
    ttft_mean_ms: float | None = None
    tpot_mean_ms: float | None = None
    chunk_gap_mean_ms: float | None = None
    e2e_mean_ms: float | None = None
    input_tokens: int | None = None
    """Input tokens of successful requests, all together, by the count that the tool itself reports."""
    output_tokens: int | None = None
    """Output tokens of successful requests, all together, reasoning included."""
    output_tokens_per_s: float | None = None
    duration_s: float | None = None
    concurrency: float | None = None
    """Mean requests in flight, measured; what was set is `concurrency_set` (InferenceX and tables tell only that)."""
    request_rate_per_s: float | None = None
    """Completed requests a second."""

    source: str = ""
    """File the figures come from, within the folder that was given."""
    format: str = ""
    label: str = ""
    """Benchmark, stage, experiment or row within the file."""
    concurrency_set: float | None = None
    """Requests in flight that the client was told to keep (a limit when there is a rate as well)."""
    request_rate_set_per_s: float | None = None
    """Requests a second that the client was told to send."""
    requests_incomplete: int | None = None
    """Requests cut off by the end of the run, neither completed nor failed."""
    zero_output_requests: int | None = None
    """Requests counted as completed that returned no token."""
    cancelled: bool | None = None
    """The run was stopped before its end."""
    streaming: bool | None = None
    server_input_tokens: int | None = None
    """Input tokens as the server counted them, with the chat template, where the file has both counts."""
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    spend_usd: float | None = None
    tpot_basis: str | None = None
    """Field of the file that TPOT was taken from, or "requests" when it was computed request by request."""
    isl: float | None = None
    """Nominal input length that was asked for, tokens."""
    osl: float | None = None
    """Nominal output length that was asked for, tokens."""
    length_distribution: str | None = None
    model: str | None = None
    gpu: str | None = None
    n_gpus: float | None = None
    engine: str | None = None
    engine_version: str | None = None
    precision: str | None = None
    parallelism: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Layout as far as the file tells: tp, pp, ep, dp_attention, prefill_*, decode_*, mode."""
    tokens_per_step: float | None = None
    """Accepted tokens a decode step under speculative decoding."""
    speculative: str | None = None
    measured_on: str | None = None
    simulated: bool = False
    """The figures are predictions, not measurements."""
    identity: str | None = None
    """What makes this run the same run in another file."""
    extra: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Other scalars of the file that may matter."""

    @field_validator("model", "gpu", "engine", "engine_version", "precision", "speculative", "measured_on",
                     "length_distribution", "identity", mode="before")
    @classmethod
    def _text_or_nothing(cls, value: Any) -> str | None:
        """Files are not ours: what should be a name and is none says nothing."""
        return value if isinstance(value, str) and value else None

    @field_validator("ttft_mean_ms", "tpot_mean_ms", "chunk_gap_mean_ms", "e2e_mean_ms", "output_tokens_per_s",
                     "duration_s", "concurrency", "request_rate_per_s", "input_tokens", "output_tokens", mode="before")
    @classmethod
    def _possible_or_nothing(cls, value: Any) -> Any:
        return value if value is None or (math.isfinite(value) and value >= 0) else None

    def figures(self) -> dict[str, float | int | None]:
        """Return the common figures alone."""
        return {name: getattr(self, name) for name in FIGURES}


class Inspection(Record):
    """What was found in a file or folder."""

    format: str
    tool: str | None
    tool_version: str | None
    points: list[Point]
    notes: list[str]
    """What was dropped, repaired or doubted, and why."""
    path: str = ""
