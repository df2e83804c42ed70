"""Sums over requests, fed one by one or in arrays, so that a file of any size needs no more memory than a small one."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Mean:
    """A running sum and its count."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        """Add one value; None and NaN do not count."""
        if value is not None and not math.isnan(value):
            self.total += value
            self.count += 1

    @property
    def mean(self) -> float | None:
        """The mean, or None where there was nothing."""
        return self.total / self.count if self.count else None

    @property
    def sum(self) -> float | None:
        """The sum, or None where there was nothing."""
        return self.total if self.count else None


@dataclass
class Tally:
    """Figures of a set of requests by the definitions of `point`; times in seconds."""

    def __post_init__(self) -> None:
        self.completed = self.failed = self.zero_output = 0
        self.ttft_s, self.tpot_s, self.gap_s, self.e2e_s = Mean(), Mean(), Mean(), Mean()
        self.isl, self.osl, self.cached, self.reasoning, self.spend_usd = Mean(), Mean(), Mean(), Mean(), Mean()
        self.server_isl = Mean()
        self.first_start_s, self.last_end_s = math.inf, -math.inf
        self.last_start_s = -math.inf
        self.shortest, self.longest = [math.inf, math.inf], [-math.inf, -math.inf]

    def fail(self, start_s: float | None = None, end_s: float | None = None) -> None:
        """Count one failed request."""
        self.failed += 1
        self._span(start_s, end_s)

    def add(
        self,
        *,
        start_s: float | None = None,
        e2e_s: float | None = None,
        ttft_s: float | None = None,
        decode_s: float | None = None,
        isl: float | None = None,
        osl: float | None = None,
    ) -> None:
        """Count one successful request; `decode_s` runs from its first to its last token."""
        self.completed += 1
        if osl == 0:
            self.zero_output += 1
            ttft_s = decode_s = None
        self.isl.add(isl)
        self.osl.add(osl)
        for at, length in enumerate((isl, osl)):
            if length is not None:
                self.shortest[at] = min(self.shortest[at], length)
                self.longest[at] = max(self.longest[at], length)
        self.ttft_s.add(ttft_s if ttft_s and ttft_s > 0 else None)
        self.e2e_s.add(e2e_s if e2e_s and e2e_s > 0 else None)
        if decode_s is not None and decode_s > 0 and osl is not None and osl > 1:
            self.tpot_s.add(decode_s / (osl - 1))
        self._span(start_s, start_s + e2e_s if start_s is not None and e2e_s is not None else None)

    def _span(self, start_s: float | None, end_s: float | None) -> None:
        if start_s is not None and not math.isnan(start_s):
            self.first_start_s = min(self.first_start_s, start_s)
            self.last_start_s = max(self.last_start_s, start_s)
        if end_s is not None and not math.isnan(end_s):
            self.last_end_s = max(self.last_end_s, end_s)

    def add_batch(self, frame: "pd.DataFrame") -> None:
        """Count many requests, a table with the columns of `inputs.logs.records.Request`."""
        ok = frame["ok"]
        good = frame[ok]
        self.failed += int((~ok).sum())
        self.completed += len(good)
        empty = good["osl"] == 0
        self.zero_output += int(empty.sum())
        for mean, name in (
            (self.isl, "isl"), (self.osl, "osl"), (self.e2e_s, "e2e_s"), (self.cached, "cached_tokens"),
            (self.reasoning, "reasoning_tokens"), (self.spend_usd, "spend_usd"),
        ):
            mean.total += float(good[name].sum())
            mean.count += int(good[name].notna().sum())
        ttft_s = good["ttft_s"][~empty]
        self.ttft_s.total += float(ttft_s.sum())
        self.ttft_s.count += int(ttft_s.notna().sum())
        tpot_s = (good["decode_s"] / (good["osl"] - 1))[(good["osl"] > 1) & (good["decode_s"] > 0)]
        self.tpot_s.total += float(tpot_s.sum())
        self.tpot_s.count += int(tpot_s.notna().sum())
        starts = frame["start_s"].dropna()
        if len(starts):
            self.first_start_s = min(self.first_start_s, float(starts.min()))
            self.last_start_s = max(self.last_start_s, float(starts.max()))
        ends = (frame["start_s"] + frame["e2e_s"]).dropna()
        if len(ends):
            self.last_end_s = max(self.last_end_s, float(ends.max()))

    @property
    def equal_lengths(self) -> bool:
        """True when every request had the same input and the same output length."""
        return self.shortest == self.longest and math.isfinite(self.shortest[0])

    @property
    def span_s(self) -> float | None:
        """From the first start to the last end, seconds."""
        span = self.last_end_s - self.first_start_s
        return span if math.isfinite(span) and span > 0 else None

    @property
    def arrival_span_s(self) -> float | None:
        """From the first start to the last start, seconds."""
        span = self.last_start_s - self.first_start_s
        return span if math.isfinite(span) and span > 0 else None

    def figures(self, duration_s: float | None) -> dict[str, Any]:
        """Return the common figures; `duration_s` is the tool's own, or the span of the requests."""
        return {
            "requests_completed": self.completed,
            "requests_failed": self.failed,
            "ttft_mean_ms": ms(self.ttft_s.mean),
            "tpot_mean_ms": ms(self.tpot_s.mean),
            "chunk_gap_mean_ms": ms(self.gap_s.mean),
            "e2e_mean_ms": ms(self.e2e_s.mean),
            "input_tokens": whole(self.isl.sum),
            "output_tokens": whole(self.osl.sum),
            "output_tokens_per_s": ratio(self.osl.sum, duration_s),
            "duration_s": duration_s,
            "concurrency": ratio(self.e2e_s.sum, duration_s),
            "request_rate_per_s": ratio(self.completed, duration_s) if self.completed else None,
            "zero_output_requests": self.zero_output,
        }


def ms(value_s: float | None) -> float | None:
    """Seconds to milliseconds, None stays None."""
    return None if value_s is None else value_s * 1000


def whole(value: float | None) -> int | None:
    """A count as an integer, None stays None."""
    return round(value) if value is not None and math.isfinite(value) else None


def ratio(over: float | None, under: float | None) -> float | None:
    """`over` / `under`, or None where either is missing or the divisor is not positive."""
    return None if over is None or under is None or under <= 0 else over / under


def times(value: float | None, count: float | None) -> float | None:
    """`value` x `count`, or None where either is missing."""
    return None if value is None or count is None else value * count
