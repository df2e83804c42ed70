"""Users' files of measured runs, checked row by row: bad rows are named, good ones kept, whatever the size of the file."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.calibration.measurement_reader import REMEMBERED_ROWS, Block, Places, blocks
from factory_sim.errors import FactorySimError, MeasurementError
from factory_sim.inputs import catalog
from factory_sim.inputs.measurements import COUNTS, REQUIRED, layout_of, normalise
from factory_sim.model import serving, step_time

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 50_000
"""Different rows of one energy or online table that are judged, at most."""
MOST_FITTED = 5_000
"""Rows of one file that are taken into a fit, at most: twice the packaged table, whose fit takes minutes."""
MOST_TOLD = 200
"""Complaints that are told row by row; of the rest only how many of each kind there are."""
PRECISION_NAMES = {"bfloat16": "bf16", "float16": "fp16", "nvfp4": "fp4", "mxfp4": "fp4", "w4a16": "int4", "awq": "int4",
                   "gptq": "int4", "w8a8": "fp8", "w8a16": "int8"}  # fmt: skip
"""Other names of precisions of weights -> those of the step-time model."""
LENGTHS = ("isl", "osl", "mean_input_tokens", "mean_output_tokens")
MOST_GPUS = 100_000
MOST_TOKENS = 10_000_000
MOST_CONCURRENT = 100_000
"""Requests in flight that are still played: six times the most of the packaged rows, a quarter of a minute."""
LONGEST_TPOT_S = 5.0
SHORTEST_TPOT_S = 5e-5
SHORTEST_TTFT_IN_TPOT = 0.2
"""A first token comes out of a whole step: a TTFT below this share of TPOT is in another unit."""
MOST_TOKENS_PER_STEP = 8.0
"""Tokens that a speculating sequence can gain in a step, for the roofline check."""
ROOFLINE_SHARE = 0.5
"""A time below this share of its floor at the data sheet's peak is impossible: rounding, FP8 attention and the like."""


class Complaints:
    """What is wrong with the rows of a file: the first ones row by row, the rest counted by kind."""

    def __init__(self) -> None:
        self._first: list[tuple[int, str]] = []
        self._rest: Counter[str] = Counter()

    def add(self, told: Iterable[tuple[int, str]]) -> None:
        """Add complaints as (number of the row, text)."""
        for number, text in sorted(told):
            if len(self._first) < MOST_TOLD:
                self._first.append((number, text))
            else:
                self._rest[re.sub(r"'[^']*'|-?\d[\d.,e+]*", "...", text)] += 1

    def lines(self) -> list[str]:
        """One line a complaint, "row N: what", and one for each kind of those that are only counted."""
        told = [f"row {number}: {text}" for number, text in sorted(self._first)]
        return told + [f"and {count:,} more rows: {kind}" for kind, count in self._rest.most_common()]

    def __bool__(self) -> bool:
        return bool(self._first)


class Runs:
    """The runs met so far, to know one that is listed again under another name."""

    def __init__(self) -> None:
        self._row: dict[bytes, int] = {}

    def first(self, row, number: int) -> int:
        """Number of the row in which this run first stood: `number` itself for a new one."""
        told = (row.model, row.gpu, row.backend, row.precision, row.mode, row.parallelism, row.spec_decoding, row.isl,
                row.osl, row.concurrency, row.ttft_s, row.tpot_s, row.measured_on)  # fmt: skip
        key = hashlib.blake2b(repr(told).encode(), digest_size=12).digest()
        if len(self._row) >= REMEMBERED_ROWS:
            return self._row.get(key, number)
        return self._row.setdefault(key, number)


def judged_blocks(path: Path, complaints: Complaints) -> "Iterator[tuple[Block, pd.DataFrame, dict[int, str]]]":
    """Yield (block, its rows in the form of `measurements.serving()`, position -> what is wrong with it) of a file.

    What is wrong is added to `complaints`. Raises MeasurementError for missing columns, for times in seconds under a
    name in milliseconds, and at the end when no row was usable.
    """
    runs, usable, where = Runs(), 0, str(path)
    for block in blocks(path):
        rows, reasons = _judge(block.table, where, block.numbers, runs)
        usable += len(rows) - len(reasons)
        wrong = ((int(block.numbers[at]), text) for at, text in reasons.items())
        complaints.add([*block.broken.items(), *_repeats(block), *wrong])
        yield block, rows, reasons
    if not usable:
        _nothing_left(where, complaints)


def usable_rows(path: Path) -> "tuple[pd.DataFrame, list[str]]":
    """Return (rows of a file that can be fitted, what is wrong with the others and what else was done, line by line).

    Of more than MOST_FITTED rows every second, fourth, ... is taken, so that all of the file has its share.
    """
    import pandas as pd

    complaints, parts, stride, found = Complaints(), [], 1, 0
    for _, rows, reasons in judged_blocks(path, complaints):
        kept = rows[~np.isin(np.arange(len(rows)), list(reasons))]
        place = found + np.arange(len(kept))
        found += len(kept)
        parts.append(kept[place % stride == 0].assign(place=place[place % stride == 0]))
        while sum(map(len, parts)) > MOST_FITTED:
            stride *= 2
            parts = [part[part.place % stride == 0] for part in parts]
    taken = pd.concat(parts, ignore_index=True).drop(columns="place")
    told = complaints.lines()
    if stride > 1:
        told.append(f"{found - len(taken):,} of {found:,} good rows: one in {stride} is taken, {MOST_FITTED:,} at most")
    return taken, told


def checked(table: "pd.DataFrame", where: str) -> "tuple[pd.DataFrame, list[str]]":
    """Return (rows of a table that can be fitted or judged, complaints about the others, "row N: column: what").

    Rows are numbered as in a file: the header is row 1. Raises MeasurementError for missing columns, for times in
    seconds under a name in milliseconds, and when no row is left.
    """
    rows, reasons = _judge(table, where, np.arange(2, len(table) + 2), Runs())
    complaints = Complaints()
    complaints.add((index + 2, text) for index, text in reasons.items())
    if len(reasons) == len(rows):
        _nothing_left(where, complaints)
    kept = [index for index in range(len(rows)) if index not in reasons]
    return rows.iloc[kept].reset_index(drop=True), complaints.lines()


def _nothing_left(where: str, complaints: Complaints) -> None:
    """Raise MeasurementError for a file without a usable row."""
    if not complaints:
        raise MeasurementError(f"{where}: has a header and no rows")
    raise MeasurementError(f"{where}: no usable row is left; {'; '.join(complaints.lines()[:5])}")


def _judge(table: "pd.DataFrame", where: str, numbers, runs: Runs) -> "tuple[pd.DataFrame, dict[int, str]]":
    """Return (rows in the form of `measurements.serving()`, position -> what is wrong); `numbers` name the rows."""
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        raise MeasurementError(
            f"{where}: columns missing: {', '.join(missing)}; needed: {', '.join(REQUIRED)}{_other_names(missing, table)}"
        )
    twice = [name for name in REQUIRED if f"{name}.1" in table or list(table).count(name) > 1]
    if twice:
        raise MeasurementError(f"{where}: columns twice in the header: {', '.join(twice)}")
    rows = normalise(table)
    rows["gpu"] = [_short_gpu(name) for name in rows.gpu]
    _name_precisions(rows)
    _refuse_impossible(rows)
    _unit_of_times(rows, where)
    wrong, reasons = _not_numbers(table), {}
    for index, row in enumerate(rows.itertuples()):
        reason = wrong.get(index) or row.problem or _complaint(row)
        if not reason:
            number = int(numbers[index])
            first = runs.first(row, number)
            reason = f"measurement_id: the same run as row {first}" if first != number else ""
        if reason:
            reasons[index] = reason
    return rows, reasons


@cache
def _short_gpu(name: str) -> str:
    """The catalogue's name of a GPU, which the packaged rows have; a name that it does not know stays."""
    try:
        return catalog.gpu_name(name)
    except FactorySimError:
        return name


def _name_precisions(rows: "pd.DataFrame") -> None:
    """Give precisions the names that the model knows; a row with another keeps a reason in `problem`."""
    rows["precision"] = rows.precision.replace(PRECISION_NAMES)
    unknown = ~rows.precision.isin(list(step_time.WEIGHT_BYTES)) & (rows.problem == "")
    for index in np.flatnonzero(unknown):
        name = rows.precision.iloc[index]
        rows.loc[index, "problem"] = f"precision '{name}' is not known; use {', '.join(step_time.WEIGHT_BYTES)}"


def _refuse_impossible(rows: "pd.DataFrame") -> None:
    """Give rows that cannot be played a reason in `problem`: counts, lengths and loads that are none or have no end."""
    layout = [name for name in COUNTS if name != "n_gpus"]
    limits = dict.fromkeys(layout, MOST_GPUS) | dict.fromkeys(LENGTHS, MOST_TOKENS) | {"concurrency": MOST_CONCURRENT}
    pooled = (rows["mode"] == "disagg").to_numpy()
    for name, most in limits.items():
        values = rows[name].to_numpy(float)
        wrong = ~np.isnan(values) & ((values < 1) | (values > most))
        if name in COUNTS:  # those of the other mode say nothing
            wrong |= ~np.isnan(values) & (values != np.floor(values))
            wrong &= pooled == name.startswith(("prefill_", "decode_"))
        for index in np.flatnonzero(wrong & (rows.problem == "").to_numpy()):
            what = f"is more than {most:,}" if values[index] > most else "is no count above zero"
            rows.loc[index, "problem"] = f"{name}: {values[index]:g} {what}"
    spread = rows.low_fraction.to_numpy(float)
    for index in np.flatnonzero(~((spread > 0) & (spread <= 1)) & (rows.problem == "").to_numpy()):
        told = rows.length_distribution.iloc[index]
        rows.loc[index, "problem"] = f"length_distribution: {told!r} is no spread; the shortest share is above 0, at most 1"
    rows["clean"] &= rows.problem == ""


MEASURED = {
    "energy": ("energy_per_output_token_j",),
    "online": ("ttft_mean_ms", "e2e_mean_ms", "tpot_ms_from_requested_length"),
}
"""Kind of table -> its measured columns."""


@dataclass(frozen=True)
class ValueTable:
    """An energy or online table of which the unusable measured values are empty, row by row as the file."""

    table: "pd.DataFrame"
    """Different rows."""
    source: np.ndarray
    """For each row of the file the position of its row in `table`; -1 where it was not taken."""
    reasons: dict[int, str]
    """Number of a row that was not taken -> why."""
    told: list[str]
    """What was wrong: "row N: column: ..."."""


def judged_values(path: Path, kind: str) -> ValueTable:
    """Read and judge an energy or online table cell by cell; of more than MOST_ROWS different rows the first are taken.

    Raises MeasurementError when no measured value is left.
    """
    import pandas as pd

    parts, told, places, numbers, reasons = [], Complaints(), Places(), [], {}
    for block in blocks(path):
        room = max(MOST_ROWS - len(numbers), 0)
        beyond = {int(at): f"beyond the first {MOST_ROWS:,} different rows" for at in block.numbers[room:]}
        places.add(block, min(room, len(block.numbers)))
        reasons |= block.broken | beyond
        told.add([*(block.broken | beyond).items(), *_repeats(block)])
        numbers += [int(number) for number in block.numbers[:room]]
        parts.append(block.table[:room])
    table = pd.concat(parts, ignore_index=True)
    left = 0
    for name in (name for name in MEASURED[kind] if name in table):
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float, copy=True)
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        told.add((numbers[at], f"{name}: {_no_value(table[name].iloc[at])}") for at in bad)
        values[bad] = np.nan
        table[name] = values
        left += len(values) - len(bad)
    if any(name in table for name in MEASURED[kind]) and not left:
        raise MeasurementError(f"{path}: no measured value is left; {'; '.join(told.lines()[:5]) or 'it has no rows'}")
    return ValueTable(table, places.all(), reasons, told.lines())


def _repeats(block: Block) -> list[tuple[int, str]]:
    return [(number, f"the same as row {first}") for number, first in block.same.items()]


def _no_value(cell) -> str:
    return "is empty" if cell is None or cell != cell else f"{str(cell)[:40]!r} is not a number above zero"


def _unit_of_times(rows: "pd.DataFrame", where: str) -> None:
    """Refuse a file whose `tpot_ms` can only be seconds."""
    tpot = rows.tpot_s[rows.tpot_s > 0]
    if len(tpot) and float(tpot.median()) < SHORTEST_TPOT_S:
        raise MeasurementError(
            f"{where}: tpot_ms: the median is {1e3 * float(tpot.median()):.3g}; these look like seconds, "
            "milliseconds are needed"
        )


def _other_names(missing: list[str], table: "pd.DataFrame") -> str:
    """What the table has instead of missing columns, where a name is near."""
    others = [str(name) for name in table if name not in REQUIRED]
    near = {name: get_close_matches(name, others, n=1, cutoff=0.7) for name in missing}
    told = [f"'{found[0]}' is there for {name}" for name, found in near.items() if found]
    return f" ({', '.join(told)}; rename it if it means the same, in the same unit)" if told else ""


def _not_numbers(table: "pd.DataFrame") -> dict[int, str]:
    """Position -> the cell of a needed number that holds other text; decimal commas and units are not guessed."""
    found: dict[int, str] = {}
    for name in ("isl", "osl", "concurrency", "ttft_ms", "tpot_ms"):
        for index, cell in enumerate(table[name]) if table[name].dtype.kind not in "fiu" else ():
            try:
                isinstance(cell, str) and float(cell)
            except ValueError:
                found.setdefault(index, f"{name}: {cell.strip()[:40]!r} is not a number")
    return found


def _complaint(row) -> str:
    """What is wrong with a row that has all configuration columns, or ""."""
    for name in ("ttft_s", "tpot_s"):
        value, column = getattr(row, name), name.removesuffix("_s") + "_ms"
        if not np.isfinite(value):
            return f"{column}: not a number"
        if value <= 0:
            return f"{column}: {1e3 * value:g} is not above zero"
    if row.tpot_s > LONGEST_TPOT_S:
        return f"tpot_ms: {1e3 * row.tpot_s:g} ms a token; microseconds under a name in milliseconds?"
    if row.ttft_s < SHORTEST_TTFT_IN_TPOT * row.tpot_s:
        return (
            f"ttft_ms: {1e3 * row.ttft_s:g} ms is shorter than a step (tpot_ms is {1e3 * row.tpot_s:g}); seconds under a "
            "name in milliseconds?"
        )
    try:
        told = _too_large(row)
        if told:
            return told
        floors = {"tpot": roofline_tpot_s(row), "ttft": roofline_ttft_s(row)}
    except FactorySimError as error:
        return str(error)
    what = {"tpot": "reading the weights once", "ttft": "computing the prompt"}
    for name, limit in floors.items():
        seconds = getattr(row, f"{name}_s")
        if seconds < limit:
            return (
                f"{name}_ms: {1e3 * seconds:g} ms is beyond the roofline: {what[name]} takes "
                f"{1e3 * limit / ROOFLINE_SHARE:.3g} ms at the data sheet's peak; another unit?"
            )
    return ""


def _too_large(row) -> str:
    """Say so where the weights of a row's model are more than the memory of its GPUs."""
    for worker in layout_of(row).workers:
        needed, held = _weights_and_memory(row.model, row.gpu, row.precision, worker)
        if needed > held:
            return (
                f"parallelism: {row.model} in {row.precision} has {needed / 1e9:.0f} GB of weights, more than the "
                f"{held / 1e9:.0f} GB of {worker.gpus} x {row.gpu}"
            )
    return ""


@cache
def _weights_and_memory(model: str, gpu: str, precision: str, worker) -> tuple[float, float]:
    """Bytes of the weights of one worker, held once, and of the memory of its GPUs."""
    always, routed = step_time.weight_bytes(catalog.model(model), precision)
    return always + routed, worker.gpus * catalog.gpu(gpu).memory_bytes


@cache
def _facts(model: str, gpu: str, precision: str, worker):
    return serving.worker_facts(catalog.model(model).name, catalog.gpu_name(gpu), precision, worker)


def roofline_tpot_s(row) -> float:
    """Least seconds a token of a row: always-read weights of a GPU over its peak bandwidth, over tokens a step."""
    facts = _facts(row.model, row.gpu, row.precision, layout_of(row).workers[-1])
    return facts.weights_s * ROOFLINE_SHARE / (1.0 if row.spec_decoding == "none" else MOST_TOKENS_PER_STEP)


def roofline_ttft_s(row) -> float:
    """Least mean seconds to a first token: reading the weights once, or computing a mean prompt at peak, if longer."""
    facts = _facts(row.model, row.gpu, row.precision, layout_of(row).workers[0])
    return max(facts.weights_s, facts.flops_s * row.mean_input_tokens / facts.ranks) * ROOFLINE_SHARE
