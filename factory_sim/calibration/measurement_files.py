"""Users' files of measured runs: read in any usual encoding, checked row by row, bad rows named."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import FactorySimError, MeasurementError
from factory_sim.inputs import catalog
from factory_sim.inputs.measurements import REQUIRED, layout_of, normalise
from factory_sim.model import serving

if TYPE_CHECKING:
    import pandas as pd

LARGEST_BYTES = 500_000_000
"""Files beyond this are refused: a table of benchmark runs has thousands of rows, not millions."""
LONGEST_TPOT_S = 5.0
SHORTEST_TPOT_S = 5e-5
SHORTEST_TTFT_IN_TPOT = 0.2
"""A first token comes out of a whole step: a TTFT below this share of TPOT is in another unit."""
MOST_TOKENS_PER_STEP = 8.0
"""Tokens that a speculating sequence can gain in a step, for the roofline check."""
_ENCODINGS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))


def read_csv(path: Path) -> "pd.DataFrame":
    """Return a CSV as a table; UTF-8, UTF-16 and Latin-1 are recognised, `;` and tab too.

    Raises MeasurementError for a missing, empty, binary or too large file.
    """
    import pandas as pd

    try:
        size = path.stat().st_size
        head = path.open("rb").read(65536)
    except OSError as error:
        raise MeasurementError(f"{path}: cannot be read ({error.strerror})") from None
    if size > LARGEST_BYTES:
        raise MeasurementError(f"{path}: {size / 1e6:.0f} MB is no table of benchmark runs (at most 500 MB)")
    if not head.strip():
        raise MeasurementError(f"{path}: is empty")
    if head[:4] == b"PAR1":
        return pd.read_parquet(path)
    encoding = next((name for mark, name in _ENCODINGS if head.startswith(mark)), None)
    if encoding is None and b"\0" in head:
        raise MeasurementError(f"{path}: is not a text file; a CSV is needed")
    if encoding is None:
        encoding = "utf-8" if _decodes(path) else "latin-1"
    first = head.decode(encoding, errors="replace").splitlines()[0]
    separator = max(",;\t", key=first.count)
    try:
        table = pd.read_csv(path, sep=separator, encoding=encoding, low_memory=False)
    except pd.errors.ParserError:
        return _uneven(path, separator, encoding)
    except (pd.errors.EmptyDataError, UnicodeError) as error:
        raise MeasurementError(f"{path}: is not a CSV ({error})") from None
    if _ends_early(path, separator, encoding, len(table.columns)):
        table.attrs["broken"] = {len(table) - 1: "the file ends inside this row"}
    return table


def _uneven(path: Path, separator: str, encoding: str) -> "pd.DataFrame":
    """A CSV in which rows are longer than the header or a quote is never closed; `attrs["broken"]` says which."""
    import pandas as pd

    csv.field_size_limit(1 << 24)
    broken, rows = {}, []
    try:
        with path.open(encoding=encoding, newline="") as file:
            reader = csv.reader(file, delimiter=separator)
            header = next(reader)
            for row in filter(None, reader):
                if len(row) != len(header):
                    broken[len(rows)] = f"{len(row)} columns, {len(header)} are in the header"
                    row = [""] * len(header)
                rows.append(row)
    except (csv.Error, UnicodeError, StopIteration) as error:
        raise MeasurementError(f"{path}: is not a CSV ({error})") from None
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    table = pd.read_csv(io.StringIO(text.getvalue()), low_memory=False, skip_blank_lines=False)
    table.attrs["broken"] = broken
    return table


def _ends_early(path: Path, separator: str, encoding: str, columns: int) -> bool:
    """True when the last line has neither its end nor all its columns: the file was cut (not told for UTF-16)."""
    if encoding == "utf-16":  # its end alone does not tell the order of the bytes
        return False
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 65536, 0))
        last = file.read().decode(encoding, errors="replace").rsplit("\n", 1)[-1]
    return bool(last.strip()) and len(next(csv.reader([last], delimiter=separator))) < columns


def _decodes(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            while file.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return False
    return True


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
        raise MeasurementError(f"{where}: columns missing: {', '.join(missing)}; needed: {', '.join(REQUIRED)}")
    if not len(table):
        raise MeasurementError(f"{where}: has a header and no rows")
    rows = normalise(table)
    _unit_of_times(rows, where)
    broken, reasons, seen = table.attrs.get("broken", {}), {}, {}
    for index, row in enumerate(rows.itertuples()):
        identity = (row.model, row.gpu, row.backend, row.precision, row.mode, row.parallelism, row.spec_decoding,
                    row.isl, row.osl, row.concurrency, row.ttft_s, row.tpot_s, row.measured_on)  # fmt: skip
        reason = broken.get(index) or row.problem or _complaint(row)
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


def _unit_of_times(rows: "pd.DataFrame", where: str) -> None:
    """Refuse a file whose `tpot_ms` can only be seconds."""
    tpot = rows.tpot_s[rows.tpot_s > 0]
    if len(tpot) and float(tpot.median()) < SHORTEST_TPOT_S:
        raise MeasurementError(
            f"{where}: tpot_ms: the median is {1e3 * float(tpot.median()):.3g}; these look like seconds, "
            "milliseconds are needed"
        )


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
        limit = roofline_tpot_s(row)
    except FactorySimError as error:
        return str(error)
    if row.tpot_s < limit:
        return (
            f"tpot_ms: {1e3 * row.tpot_s:g} ms is beyond the roofline: reading the weights once takes "
            f"{1e3 * limit:.3g} ms at peak bandwidth"
        )
    return ""


def roofline_tpot_s(row) -> float:
    """Least seconds a token of a row: always-read weights of a GPU over its peak bandwidth, over tokens a step."""
    worker = layout_of(row).workers[-1]
    model, gpu = catalog.model(row.model).name, catalog.gpu_name(row.gpu)
    facts = serving.worker_facts(model, gpu, row.precision, worker)
    return facts.weights_s * 0.5 / (1.0 if row.spec_decoding == "none" else MOST_TOKENS_PER_STEP)
