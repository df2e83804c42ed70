"""Latency promises of plans: how many requests of each window kept them, from the histograms of the run.

The histograms stay with a run, so a promise can be changed and priced anew without playing. Bins are 1 % wide and values lie
evenly within one, so a count is off by less than the requests of the one bin that holds the limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.histogram import lower_edge
from factory_sim.inputs.money import Money
from factory_sim.inputs.plans import LatencyPromise

if TYPE_CHECKING:
    import pandas as pd

_KEYS = ["replication", "start_s", "service", "stage"]


def column_names(promise: LatencyPromise) -> tuple[str, str]:
    """Columns of windows for the requests that kept a promise, and for all that it counts."""
    name = f"promise_{promise.metric}_{promise.limit_s:.9g}_s"
    return f"{name}_kept", f"{name}_all"


def latency_promises(money: Money) -> list[LatencyPromise]:
    """Every latency promise of the plans, each once."""
    plans = [plan for found in money.plans.values() for plan in (found if isinstance(found, tuple) else (found,))]
    return list({column_names(promise): promise for plan in plans for promise in plan.sla.latency}.values())


def with_promises(windows: pd.DataFrame, tables: Mapping[str, pd.DataFrame], money: Money) -> pd.DataFrame:
    """The windows with two columns a latency promise of the plans: requests within the limit, and requests counted.

    ``tables`` holds ``latency`` and ``weights`` of the run; they are read only where a plan promises a latency.
    """
    promises = latency_promises(money)
    if not promises:
        return windows
    latency, weights = tables["latency"], tables["weights"]
    columns = {}
    for promise in promises:
        kept, whole = column_names(promise)
        counts = _counts(latency, weights, promise)
        rows = counts.reindex(_index(windows)).fillna(0.0)
        columns |= {kept: rows.kept.to_numpy(), whole: rows["all"].to_numpy()}
    return windows.assign(**columns)


def _index(windows: pd.DataFrame) -> pd.MultiIndex:
    import pandas as pd

    return pd.MultiIndex.from_frame(windows[_KEYS].astype({"service": str, "stage": str}))


def _counts(latency: pd.DataFrame, weights: pd.DataFrame, promise: LatencyPromise) -> pd.DataFrame:
    """Requests within the limit and all requests by (replication, start_s, service, stage)."""
    own = latency[(latency.metric == promise.metric).to_numpy()]
    bins = own.bin.to_numpy(np.int64)
    low, high = lower_edge(bins), lower_edge(bins + 1)
    within = np.clip((promise.limit_s - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    within = np.where(high > low, within, 1.0)  # exact zeros keep every promise
    played = own.assign(kept=own["count"].to_numpy() * within, all=own["count"])
    each = played.groupby(["replication", "window"])[["kept", "all"]].sum()
    stands = weights.join(each, on=["replication", "window_played"], how="inner")
    stands = stands.assign(
        service=stands.service.astype(str), stage=stands.stage.astype(str),
        kept=stands.kept * stands.instance_s, all=stands["all"] * stands.instance_s,
    )  # fmt: skip
    return stands.groupby(_KEYS)[["kept", "all"]].sum()


def promise_levels(part: pd.DataFrame, promises: Iterable[LatencyPromise]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(kept, all) by window of the promises whose columns are there, under the name of the column."""
    found = {}
    for promise in promises:
        kept, whole = column_names(promise)
        if kept in part:
            found[kept] = (part[kept].to_numpy(float), part[whole].to_numpy(float))
    return found
