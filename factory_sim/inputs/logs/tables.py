"""Tables of any size, block by block: CSV (any usual delimiter), Parquet, and JSON records as rows.

Every block is a DataFrame of texts (CSV) or plain values (Parquet, JSON) whose index is the row number as a text
editor or a spreadsheet counts it: the header is row 1.
"""

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from factory_sim.errors import FactorySimError, TraceError
from factory_sim.inputs.logs.files import Source
from factory_sim.inputs.logs.records import Complaints
from factory_sim.inputs.logs.values import plain_name

if TYPE_CHECKING:
    import pandas as pd

_HEAD_BYTES = 1 << 20
_BLOCK_BYTES = 4 << 20
_DELIMITERS = ",;\t|"


def head_rows(source: Source, rows: int = 8) -> tuple[list[list[str]], str]:
    """Return the first rows of a CSV and its delimiter (the one that occurs most often in the first line)."""
    start, _ = _preamble(source)
    text = bytes(source.data[start : start + _HEAD_BYTES]).decode("utf-8", "ignore")
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    found = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            found.append(row)
            if len(found) >= rows:
                break
    except csv.Error:  # the rows before it are enough to recognise the file, and reading it will tell
        pass
    return found, delimiter


def _preamble(source: Source) -> tuple[int, int]:
    """Bytes and lines before the header: blank lines, comments (#) and Excel's `sep=;`."""
    start = lines = 0
    while start < len(source.data):
        end = source.data.find(b"\n", start)
        line = bytes(source.data[start : end if end >= 0 else len(source.data)][:200]).strip().lower()
        if end < 0 or (line and not line.startswith((b"#", b"sep="))):
            break
        start, lines = end + 1, lines + 1
    return start, lines


def all_rows(source: Source, error: type[FactorySimError] = TraceError) -> list[list[str]]:
    """Return every row of a small CSV with commas, blank ones as []. Raises `error` where it is no CSV."""
    csv.field_size_limit(1 << 24)
    text = bytes(source.data).decode("utf-8", "replace")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        return list(reader)
    except csv.Error as reason:
        raise error(f"{source.path}: line {reader.line_num}: is no CSV: {reason}") from None


def header(source: Source) -> list[str]:
    """Return the plain names of the columns of a CSV or Parquet file. Raises `TraceError` for a broken Parquet file."""
    if source.parquet:
        import pyarrow
        import pyarrow.parquet

        try:
            return [plain_name(name) for name in pyarrow.parquet.read_schema(source.path).names]
        except (pyarrow.ArrowException, OSError) as reason:
            raise TraceError(f"{source.path}: is not a whole Parquet file: {reason}") from None
    rows, _ = head_rows(source, 1)
    return [plain_name(name) for name in rows[0]] if rows else []


def blocks(
    source: Source,
    wanted: set[str] | None,
    complaints: Complaints,
    error: type[FactorySimError] = TraceError,
    names: list[str] | None = None,
) -> Iterator["pd.DataFrame"]:
    """Yield blocks of the `wanted` columns (plain names; None: all); `names` are given where there is no header."""
    if source.parquet:
        yield from _parquet_blocks(source, wanted, error)
    else:
        yield from _csv_blocks(source, wanted, complaints, error, names)


def _parquet_blocks(source: Source, wanted: set[str] | None, error) -> Iterator["pd.DataFrame"]:
    import pyarrow
    import pyarrow.parquet

    row = 2
    try:
        with pyarrow.parquet.ParquetFile(source.path) as file:
            columns = [name for name in file.schema_arrow.names if wanted is None or plain_name(name) in wanted]
            for part in file.iter_batches(columns=columns):
                frame = part.to_pandas(ignore_metadata=True)  # pandas' own missing values cannot be compared
                frame.columns = [plain_name(name) for name in frame.columns]
                frame.index = range(row, row + len(frame))
                row += len(frame)
                yield frame
    except (pyarrow.ArrowException, OSError) as reason:
        raise error(f"{source.path}: is not a whole Parquet file: {reason}") from None


def _csv_blocks(source, wanted, complaints, error, names) -> Iterator["pd.DataFrame"]:
    import pyarrow
    import pyarrow.csv

    rows, delimiter = head_rows(source, 1)
    start, lines_before = _preamble(source)
    own = [plain_name(name) for name in rows[0]] if names is None else names
    repeated = sorted({name for name in own if own.count(name) > 1 and (wanted is None or name in wanted)})
    if repeated:
        raise error(f"{source.path}: row 1: column {repeated[0]!r} is there more than once; keep one of them")
    own = [name if own.index(name) == at else f"{name}_{at + 1}" for at, name in enumerate(own)]
    bad_rows: list[tuple[int, int]] = []

    def refuse(row) -> str:
        bad_rows.append(((row.number or 0) + lines_before, row.actual_columns))
        return "skip"

    try:
        with pyarrow.csv.open_csv(
            pyarrow.BufferReader(pyarrow.py_buffer(memoryview(source.data)[start:])),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=_BLOCK_BYTES, column_names=own, skip_rows=0 if names else 1
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=refuse),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pyarrow.string() for name in own},
                include_columns=[name for name in own if wanted is None or name in wanted],
                strings_can_be_null=False,
            ),
        ) as reader:
            row = (1 if names else 2) + lines_before
            for part in reader:
                frame = part.to_pandas()
                numbers = range(row, row + len(frame) + len(bad_rows))
                broken = {at for at, _ in bad_rows}
                frame.index = [at for at in numbers if at not in broken][: len(frame)]
                row += len(frame) + len(bad_rows)
                for at, cells in bad_rows:
                    complaints.add("dropped, wrong number of columns", f"row {at}, found {cells}, expected {len(own)}")
                bad_rows.clear()
                yield frame
        for at, cells in bad_rows:
            complaints.add("dropped, wrong number of columns", f"row {at}, found {cells}, expected {len(own)}")
    except pyarrow.ArrowException as reason:
        raise error(f"{source.path}: cannot be read as CSV: {reason}") from None
