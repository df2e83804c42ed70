"""Users' files of measured runs: read in any usual encoding, checked row by row, bad rows named."""

import csv
import io
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import FactorySimError, MeasurementError
from factory_sim.inputs import catalog
from factory_sim.inputs.logs.files import open_bytes
from factory_sim.inputs.measurements import REQUIRED, layout_of, normalise
from factory_sim.model import serving, step_time

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 50_000
"""Files with more rows are refused: a table of benchmark runs has thousands, and each is played."""
LONGEST_TPOT_S = 5.0
SHORTEST_TPOT_S = 5e-5
SHORTEST_TTFT_IN_TPOT = 0.2
"""A first token comes out of a whole step: a TTFT below this share of TPOT is in another unit."""
MOST_TOKENS_PER_STEP = 8.0
"""Tokens that a speculating sequence can gain in a step, for the roofline check."""
ROOFLINE_SHARE = 0.5
"""A time below this share of its floor at the data sheet's peak is impossible: rounding, FP8 attention and the like."""
BROKEN = "broken"
"""Key of `DataFrame.attrs`: position of a row -> what is wrong with its line."""


def read_csv(path: Path) -> "pd.DataFrame":
    """Return a CSV (or Parquet) as a table; compressed or not, of any usual encoding, with `,`, `;` or tab.

    Lines with other cells than the header and a line in which the file ends are named in `attrs["broken"]`, which
    `judged` heeds. Raises MeasurementError for a missing, empty, binary or too long file, and for JSON.
    """
    import pandas as pd

    path = Path(path)
    if path.is_dir():
        raise MeasurementError(f"{path}: is a folder; a CSV of measured runs is needed (a folder of benchmark results "
                               "goes to `profiles import`)")  # fmt: skip
    if not path.exists():
        raise MeasurementError(f"{path}: does not exist{_nearest(path)}")
    with open_bytes(path, MeasurementError) as source:
        if source.parquet:
            try:
                return pd.read_parquet(path)
            except (OSError, ValueError) as error:
                raise MeasurementError(f"{path}: is not a readable Parquet file ({error})") from None
        data = source.data
        if bytes(data[:64]).lstrip()[:1] in (b"{", b"["):
            raise MeasurementError(f"{path}: is JSON; a CSV of measured runs is needed (benchmark results go to "
                                   "`profiles import`)")  # fmt: skip
        lines = _newlines(data)
        if lines > MOST_ROWS + 1:
            raise MeasurementError(f"{path}: about {lines:,} lines are no table of benchmark runs (at most {MOST_ROWS:,})")
        text = bytes(data).decode("utf-8", errors="replace")
    first = text.lstrip("\r\n").split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    try:
        table = pd.read_csv(io.StringIO(text), sep=separator, low_memory=False)
    except pd.errors.EmptyDataError as error:
        raise MeasurementError(f"{path}: is not a CSV ({error})") from None
    except pd.errors.ParserError:
        return _uneven(text, separator, path)
    last = text.rsplit("\n", 1)[-1]
    if last.strip() and len(next(csv.reader([last], delimiter=separator))) < len(table.columns):
        table.attrs[BROKEN] = {len(table) - 1: "the file ends inside this row"}
    return table


def _newlines(data) -> int:
    """Lines of a text, counted block by block; stops soon after `MOST_ROWS`."""
    found = 0
    for at in range(0, len(data), 1 << 20):
        found += data[at : at + (1 << 20)].count(b"\n")
        if found > 2 * MOST_ROWS and at:
            return int(found * len(data) / (at + (1 << 20)))
    return found


def _uneven(text: str, separator: str, path: Path) -> "pd.DataFrame":
    """A CSV in which rows are longer than the header or a quote is never closed; `attrs["broken"]` says which."""
    import pandas as pd

    csv.field_size_limit(1 << 24)
    try:
        header, *lines = filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except (csv.Error, ValueError) as error:
        raise MeasurementError(f"{path}: is not a CSV ({error})") from None
    broken = {at: f"{len(line)} columns, {len(header)} are in the header" for at, line in enumerate(lines)
              if len(line) != len(header)}  # fmt: skip
    out = io.StringIO(newline="")
    csv.writer(out).writerows([header, *([""] * len(header) if at in broken else line for at, line in enumerate(lines))])
    table = pd.read_csv(io.StringIO(out.getvalue()), low_memory=False, skip_blank_lines=False)
    table.attrs[BROKEN] = broken
    return table


def _nearest(path: Path) -> str:
    try:
        names = [one.name for one in path.parent.iterdir()]
    except OSError:
        return ""
    match = get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"; did you mean '{match[0]}'?" if match else ""


def checked(table: "pd.DataFrame", where: str) -> "tuple[pd.DataFrame, list[str]]":
    """Return (rows that can be fitted or judged, complaints about the others, "row N: column: what").

    Rows are numbered as in the file: the header is row 1. Raises MeasurementError for missing columns, for times in
    seconds under a name in milliseconds, and when no row is left.
    """
    rows, reasons = judged(table, where)
    kept = [index for index in range(len(rows)) if index not in reasons]
    return rows.iloc[kept].reset_index(drop=True), [f"row {index + 2}: {text}" for index, text in reasons.items()]


def judged(table: "pd.DataFrame", where: str) -> "tuple[pd.DataFrame, dict[int, str]]":
    """Return (all rows in the form of `measurements.serving()`, position -> what is wrong with the unusable ones).

    Raises as `checked`.
    """
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        raise MeasurementError(
            f"{where}: columns missing: {', '.join(missing)}; needed: {', '.join(REQUIRED)}{_other_names(missing, table)}"
        )
    twice = [name for name in REQUIRED if f"{name}.1" in table or list(table).count(name) > 1]
    if twice:
        raise MeasurementError(f"{where}: columns twice in the header: {', '.join(twice)}")
    if not len(table):
        raise MeasurementError(f"{where}: has a header and no rows")
    rows = normalise(table)
    _unit_of_times(rows, where)
    reasons, seen = {}, {}
    broken = table.attrs.get(BROKEN, {})
    for index, row in enumerate(rows.itertuples()):
        identity = (row.model, row.gpu, row.backend, row.precision, row.mode, row.parallelism, row.spec_decoding,
                    row.isl, row.osl, row.concurrency, row.ttft_s, row.tpot_s, row.measured_on)  # fmt: skip
        reason = broken.get(index) or _not_a_number(table, index) or row.problem or _complaint(row)
        if not reason and identity in seen:
            reason = f"measurement_id: the same run as row {seen[identity] + 2}"
        if reason:
            reasons[index] = reason
        else:
            seen[identity] = index
    if len(reasons) == len(rows):
        told = "; ".join(f"row {index + 2}: {text}" for index, text in list(reasons.items())[:5])
        raise MeasurementError(f"{where}: no usable row is left; {told}")
    return rows, reasons


MEASURED = {
    "energy": ("energy_per_output_token_j",),
    "online": ("ttft_mean_ms", "e2e_mean_ms", "tpot_ms_from_requested_length"),
}
"""Kind of table -> its measured columns."""


def judged_values(table: "pd.DataFrame", kind: str, where: str) -> "tuple[pd.DataFrame, list[str]]":
    """Return (an energy or online table whose unusable measured values are empty, what was wrong: "row N: column: ...").

    Raises MeasurementError when no measured value is left.
    """
    import pandas as pd

    out, told = table.copy(), [(at, text) for at, text in table.attrs.get(BROKEN, {}).items()]
    spoilt = {at for at, _ in told}
    for at in np.flatnonzero(table.duplicated().to_numpy()):
        spoilt.add(int(at))
        told.append((int(at), "the same as an earlier row"))
    left = 0
    for name in (name for name in MEASURED[kind] if name in table):
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float, copy=True)
        for at in np.flatnonzero(~(np.isfinite(values) & (values > 0))):
            if int(at) not in spoilt:
                cell = table[name].iloc[at]
                what = "is empty" if cell != cell or cell is None else f"{str(cell)[:40]!r} is not a number above zero"
                told.append((int(at), f"{name}: {what}"))
        values[[at for at in range(len(values)) if at in spoilt or not values[at] > 0 or np.isinf(values[at])]] = np.nan
        out[name] = values
        left += int(np.isfinite(values).sum())
    notes = [f"row {at + 2}: {text}" for at, text in sorted(told)]
    if any(name in table for name in MEASURED[kind]) and not left:
        raise MeasurementError(f"{where}: no measured value is left; {'; '.join(notes[:5]) or 'it has no rows'}")
    return out, notes


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


def _not_a_number(table: "pd.DataFrame", index: int) -> str:
    """Name a cell of a needed number that holds other text; decimal commas and units are not guessed."""
    for name in ("isl", "osl", "concurrency", "ttft_ms", "tpot_ms"):
        cell = table[name].iloc[index]
        if isinstance(cell, str):
            try:
                float(cell)
            except ValueError:
                return f"{name}: {cell.strip()[:40]!r} is not a number"
    return ""


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
