"""The packaged facts about measured workloads: published statistics and the request traces that ship with the
package."""

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from factory_sim.errors import TraceError, closest

FOLDER = files("factory_sim") / "data" / "workloads"


class Statistic(NamedTuple):
    """One number about one measured workload."""

    value: str
    unit: str
    source: str
    date: str
    note: str

    @property
    def number(self) -> float:
        """The value as a number."""
        return float(self.value)


@cache
def _statistics() -> dict[str, dict[str, dict[str, Statistic]]]:
    table: dict[str, dict[str, dict[str, Statistic]]] = {}
    with (FOLDER / "workloads.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            statistic = Statistic(row["value"], row["unit"], row["source"], row["date"], row["note"])
            table.setdefault(row["trace"], {}).setdefault(row["quantity"], {})[row["statistic"]] = statistic
    return table


def workload_names() -> list[str]:
    """Return the names of the workloads of which at least one statistic is packaged, sorted."""
    return sorted(_statistics())


def statistics(workload: str, quantity: str) -> dict[str, Statistic]:
    """Return the packaged statistics of one quantity of a workload, e.g. ``("servegen_deepseek-r1",
    "input_tokens")``.

    Raises TraceError if the workload is unknown or the quantity is not published for it.
    """
    table = _statistics()
    if workload not in table:
        raise TraceError(f"workload '{workload}' is not known{closest(workload, sorted(table))}")
    if quantity not in table[workload]:
        raise TraceError(f"workload '{workload}' has no '{quantity}'{closest(quantity, sorted(table[workload]))}")
    return table[workload][quantity]


def quantiles(workload: str, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(probabilities, values)`` of the published quantiles of a quantity, increasing in probability."""
    rows = statistics(workload, quantity)
    pairs = sorted(
        (float(name[1:]) / 100, row.number) for name, row in rows.items() if name[1:].replace(".", "").isdigit()
    )
    return np.array([p for p, _ in pairs]), np.array([v for _, v in pairs])


@cache
def trace_index() -> dict[str, dict[str, str]]:
    """Return the packaged request traces by name: file, rows, source, licence, date and note of each."""
    with (FOLDER / "traces.csv").open(encoding="utf-8", newline="") as lines:
        return {row["trace"]: row for row in csv.DictReader(lines)}


@cache
def packaged_columns(name: str) -> dict[str, np.ndarray]:
    """Return the columns of a packaged trace as arrays (read only); lists of block ids as ``block_offsets`` and
    ``block_ids``.

    Columns: ``isl`` and ``osl`` (tokens), and where the trace has them ``arrival_s``, ``session``, ``agent``,
    ``cached_tokens``, ``think_time_s``, ``api_time_s``, ``shared_prefix_tokens``.
    """
    index = trace_index()
    if name not in index:
        raise TraceError(f"no trace '{name}' is packaged{closest(name, sorted(index))}")
    import pyarrow.parquet as parquet

    with (FOLDER / index[name]["file"]).open("rb") as stored:
        table = parquet.read_table(stored)
    columns: dict[str, np.ndarray] = {}
    for column in table.column_names:
        values = table[column].combine_chunks()
        if column == "block_ids":
            columns["block_offsets"] = values.offsets.to_numpy().astype(np.int64)
            columns["block_ids"] = values.flatten().to_numpy().astype(np.int64)
        else:
            values = values.to_numpy(zero_copy_only=False)
            columns[column] = values.astype(np.int64 if np.issubdtype(values.dtype, np.integer) else np.float64)
    for values in columns.values():
        values.setflags(write=False)
    return columns


@cache
def rate_series(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(start_s, requests_per_s)`` of a measured rate series, e.g. ``servegen_m-large``: 10-minute windows.

    Empty windows after the end of a series are dropped; gaps within it stay as the zeros of the source.
    """
    with (FOLDER / "servegen_rate_10min_week1.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    known = sorted(column.removesuffix("_rps") for column in rows[0] if column.endswith("_rps"))
    if name not in known:
        raise TraceError(f"no rate series '{name}' is packaged{closest(name, known)}")
    pairs = [(float(row["t_s"]), float(row[f"{name}_rps"])) for row in rows if row[f"{name}_rps"] != ""]
    return np.array([t for t, _ in pairs]), np.array([rate for _, rate in pairs])
