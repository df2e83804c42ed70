"""The journal: physical facts of one replication, as rows. Events say what changed and why, windows what was served.

Latencies are kept once for each window that was really played; `weights` says for how many instance-seconds of the
calendar each one stands, so any span's percentiles are a weighted sum of histograms.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd


@dataclass
class Journal:
    """Rows that the engine writes while it plays; turned into tables once, at the end."""

    replication: int
    windows: list[dict] = field(default_factory=list)
    """One row per (segment, service, stage), scaled to the whole factory."""
    events: list[dict] = field(default_factory=list)
    """Every change of state: time, kind, subject, cause, effect."""
    latency: list[tuple] = field(default_factory=list)
    """(window, metric, bins, counts per instance and second)."""
    weights: list[tuple] = field(default_factory=list)
    """(start_s, service, stage, window, instance_s)."""
    samples: list[pd.DataFrame] = field(default_factory=list)
    """A sample of the requests played, one row each, unweighted."""
    audits: list[dict] = field(default_factory=list)
    """What each pool really played: integer counts and areas for the conservation checks."""

    incomplete: str = ""
    """Why the replication ended before its time; empty for a whole one."""
    windows_played: int = 0
    """Windows played so far by all pools of the replication."""

    def next_window(self) -> int:
        """Number the next played window."""
        self.windows_played += 1
        return self.windows_played

    def note(self, time_s: float, kind: str, subject: str, cause: str, effect: str) -> None:
        """Write one event."""
        row = {
            "time_s": time_s,
            "replication": self.replication,
            "kind": kind,
            "subject": subject,
            "cause": cause,
            "effect": effect,
        }
        self.events.append(row)


def tables(journals: list[Journal]) -> dict[str, pd.DataFrame]:
    """The journals of all replications as tidy tables: windows, weights, latency, events, requests, audits."""
    events = pd.DataFrame(
        [row for journal in journals for row in journal.events],
        columns=["time_s", "replication", "kind", "subject", "cause", "effect"],
    ).sort_values(["time_s", "replication"], kind="stable", ignore_index=True)
    weights = pd.DataFrame(
        [(journal.replication, *row) for journal in journals for row in journal.weights],
        columns=["replication", "start_s", "service", "stage", "window_played", "instance_s"],
    )
    samples = [frame.assign(replication=journal.replication) for journal in journals for frame in journal.samples]
    return {
        "windows": pd.DataFrame([row for journal in journals for row in journal.windows]),
        "weights": weights,
        "latency": _latency(journals),
        "events": events,
        "requests": pd.concat(samples, ignore_index=True) if samples else pd.DataFrame({"replication": []}),
        "audits": pd.DataFrame([row for journal in journals for row in journal.audits]),
    }


def _latency(journals: list[Journal]) -> pd.DataFrame:
    rows = [(journal.replication, *row) for journal in journals for row in journal.latency]
    sizes = [len(row[3]) for row in rows]
    return pd.DataFrame(
        {
            "replication": np.repeat(np.array([row[0] for row in rows], dtype=np.int32), sizes),
            "window": np.repeat(np.array([row[1] for row in rows], dtype=np.int32), sizes),
            "metric": pd.Categorical.from_codes(
                np.repeat(np.array([METRICS.index(row[2]) for row in rows], dtype=np.int8), sizes), list(METRICS)
            ),
            "bin": np.concatenate([row[3] for row in rows]).astype(np.int32) if rows else np.array([], np.int32),
            "count": np.concatenate([row[4] for row in rows]) if rows else np.array([], float),
        }
    )


METRICS = ("ttft", "tpot", "e2e", "time_to_first_answer_token", "time_to_output", "token_wait", "reader_wait")
"""Latencies that are kept: time to first token, mean time per later token of a request, whole request, and, of
services that reason, time to the first token beyond the reasoning; how long tokens wait for readers and readers for
tokens, where their speed is told. Of services of images or videos only the time to
the output, so that no figure mixes them with tokens."""
