"""MLPerf® results on a page of their own, under the rules of their owner; nothing else in the package reads the table.

The rules (MLCommons, MLPerf Results Messaging Guidelines, April 2026) as kept here: every result names submitter,
system, benchmark and version and has footnotes; only results of one benchmark and scenario, one division and compatible
versions stand in one table, with version, availability, number of chips and verification stated; none stands beside a
figure from elsewhere; no rate per chip, per watt or per dollar is derived; power is shown only where it was measured
with the suite's method for that same submission.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from factory_sim.errors import MeasurementError, closest

NAME = "MLPerf®"
PACKAGED_ON = "2026-11-24"
"""Date on which the table was taken into this package."""
COMPATIBLE = {
    "llama2-70b": ("v4.0", "v4.1", "v5.0", "v5.1", "v6.0"),
    "mixtral-8x7b": ("v4.1", "v5.0", "v5.1", "v6.0"),
    "llama3.1-405b": ("v5.0", "v5.1", "v6.0"),
    "gptj-6b": ("v3.1", "v4.0", "v4.1", "v5.0"),
    "deepseek-r1": ("v5.1", "v6.0"),
    "llama3.1-8b": ("v5.1", "v6.0"),
    "whisper": ("v5.1", "v6.0"),
}
"""Versions of one model's benchmark that may be compared (compatibility table of the guidelines; v6.1 is not in it)."""
TRADEMARK = (
    "The MLPerf name and logo are registered and unregistered trademarks of MLCommons Association in the United States "
    "and other countries. All rights reserved. Unauthorized use strictly prohibited. See www.mlcommons.org for more "
    "information."
)
UNVERIFIED = "Result not verified by MLCommons Association."


DERIVED = ("tokens_per_s_per_accelerator",)
"""Columns of the table that are no published metric; they are not read."""


@cache
def _rows() -> tuple[dict[str, str], ...]:
    with files("factory_sim.data").joinpath("measurements", "mlperf.csv").open(encoding="utf-8", newline="") as file:
        return tuple({name: row[name] for name in row if name not in DERIVED} for row in csv.DictReader(file))


@dataclass(frozen=True)
class Chosen:
    """Which results are asked for; None: whatever it is."""

    model: str | None = None
    """Model of the benchmark, e.g. llama2-70b."""
    scenario: str | None = None
    """Offline, Server or Interactive."""
    version: str | None = None
    """Version of the benchmark, e.g. v6.0."""
    accelerator: str | None = None
    """Short name of a family, e.g. H100, MI355X."""
    division: str | None = None
    """closed or open."""


def mlperf_page(chosen: Chosen) -> str:
    """Return the page as text: an index of what is held where no model is chosen, else its results in comparable tables.

    Raises MeasurementError where a name is not in the table or nothing is left.
    """
    kept = mlperf_rows(chosen)
    if chosen.model is None:
        return _index(kept)
    tables = sorted({_table_of(row) for row in kept})
    lines = [f"{NAME} Inference, datacenter: {kept[0]['model']}", ""]
    footnotes: list[str] = []
    for table in tables:
        rows = [row for row in kept if _table_of(row) == table]
        lines += _table(table, rows, footnotes)
    lines += [f"({number}) {text}" for number, text in enumerate(footnotes, start=1)]
    lines += ["", *closing()]
    return "\n".join(lines) + "\n"


def mlperf_rows(chosen: Chosen) -> list[dict[str, str]]:
    """Return the rows of the table that match, as published; errors as for `mlperf_page`."""
    kept = list(_rows())
    for column, wanted in (
        ("model", chosen.model), ("scenario", chosen.scenario), ("round", chosen.version),
        ("accelerator_family", chosen.accelerator), ("division", chosen.division),
    ):  # fmt: skip
        if wanted is None:
            continue
        known = sorted({row[column] for row in _rows()})
        match = [name for name in known if name.lower() == wanted.lower()]
        if not match:
            raise MeasurementError(f"{column} '{wanted}' is not in the table{closest(wanted, known)}")
        kept = [row for row in kept if row[column] == match[0]]
    if not kept:
        raise MeasurementError("no result is left under these filters; drop one of them")
    return kept


def _table_of(row: dict[str, str]) -> tuple[str, str, str, str]:
    """Benchmark, scenario, division and set of compatible versions: what may stand in one table."""
    versions = COMPATIBLE.get(row["model"], ())
    together = f"{versions[0]} to {versions[-1]}" if row["round"] in versions else row["round"]
    return row["benchmark"], row["scenario"], row["division"], together


def _index(rows: list[dict[str, str]]) -> str:
    held: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        held.setdefault(row["model"], []).append(row)
    lines = [f"{NAME} Inference, datacenter: results held, by model", ""]
    wide = max(len(name) for name in held)
    for name in sorted(held):
        versions = ", ".join(sorted({row["round"] for row in held[name]}))
        scenarios = ", ".join(sorted({row["scenario"] for row in held[name]}))
        lines.append(f"{name:<{wide}}  {len(held[name]):>4} results  {scenarios}; {versions}")
    return "\n".join([*lines, "", *closing()]) + "\n"


_HEADINGS = ("version", "entry", "submitter", "system", "accelerators", "availability", "result", "latency p99 / limit")


def _table(table, rows, footnotes: list[str]) -> list[str]:
    benchmark, scenario, division, versions = table
    cells = [list(_HEADINGS)]
    for row in sorted(rows, key=lambda r: (r["round"], r["submitter"], r["platform"], r["result_id"])):
        cells.append(
            [
                row["round"],
                row["result_id"] or "-",
                row["submitter"],
                row["system"] or row["platform"],
                f"{float(row['n_accelerators']):.0f} x {row['accelerator']}"
                if row["n_accelerators"]
                else row["accelerator"],
                row["availability"] or "not recorded",
                f"{_figure(float(row['metric_value']))} {row['metric_unit']} {_marks(row, footnotes)}",
                _latency(row),
            ]
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    title = f"{benchmark}, {scenario}, {division} division, {versions}"
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
    return [title, "-" * len(title), *body, ""]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10_000 else f"{value:,.6g}"


def _latency(row: dict[str, str]) -> str:
    """Measured 99th percentiles beside the limits of the run, where the table has them."""
    parts = []
    for label, measured, limit in (
        ("TTFT", "ttft_p99_ms", "ttft_limit_ms"), ("TPOT", "tpot_p99_ms", "tpot_limit_ms"),
        ("query", "latency_p99_ms", "latency_limit_ms"),
    ):  # fmt: skip
        if row["scenario"] != "Offline" and row[limit]:
            shown = f"{float(row[measured]):.0f}" if row[measured] else "not recorded"
            parts.append(f"{label} {shown} / {float(row[limit]):.0f} ms")
    return ", ".join(parts)


def _marks(row: dict[str, str], footnotes: list[str]) -> str:
    """Footnote numbers of a row; new footnotes are appended."""
    source = f"Retrieved from {row['source_repo']}, commit {row['source_commit'] or 'not recorded'}"
    dated = f", as packaged on {PACKAGED_ON}"
    dated += f"; results committed on {row['round_date']}" if row["round_date"] else "; date of results not recorded"
    texts = [
        f"{NAME} Inference {row['round']} {row['division'].capitalize()}, {row['benchmark']}, {row['scenario']}. "
        f'{source}{dated}, entry as in the column ("-": result ID not recorded).'
    ]
    if not row["result_id"]:
        texts.append(f"Read from the submission's own log or page. {UNVERIFIED}")
    if "69" in row["tokens_basis"]:
        texts.append(
            "The log counts GPT-J tokens as samples/s x 69: a derived figure. "
            f"Derived figures are not {NAME} metrics. {UNVERIFIED}"
        )
    if row["inferred"] in ("1", "1.0"):
        texts.append("The official summary marks the entry as carried over from another run.")
    if row["division"] == "open":
        texts.append("Open division: how the entry fails to qualify as Closed is not recorded here; do not compare it.")
    if row["power_W"]:
        texts.append(f"Whole-system power of this submission, measured with the suite's method: {row['power_W']} W.")
    numbers = []
    for text in texts:
        if text not in footnotes:
            footnotes.append(text)
        numbers.append(str(footnotes.index(text) + 1))
    return f"({','.join(numbers)})"


def closing() -> list[str]:
    return [
        "Compare only within one table: its entries share benchmark, scenario, division and compatible versions.",
        "They differ in what the columns say: version, availability, kind and number of accelerators, verification.",
        "Benchmarks at 99 % and 99.9 % of reference accuracy are often one run.",
        "These results are used for nothing else here: they fit no profile and stand beside no other figure.",
        TRADEMARK,
    ]
