"""Reading users' tables of measured runs, of any size, some rows at a time: lines that are broken or repeated are named.

A file is read once, line by line. Lines identical to an earlier one are told and taken once; what is left comes in
blocks of a bounded number of rows, so that memory does not grow with a file that repeats itself.
"""

import csv
import hashlib
import io
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import MeasurementError
from factory_sim.inputs.logs.files import Source, open_bytes

if TYPE_CHECKING:
    import pandas as pd

BLOCK_ROWS = 20_000
"""Rows of one block, at most."""
NOTED_ROWS = 100_000
"""Broken and repeated lines of one block, at most."""
REMEMBERED_ROWS = 1_000_000
"""Different lines of a file that are remembered to know them again."""
RECORD_LINES = 50
"""Lines over which a quoted cell may go; a quote that is not closed by then never is."""


@dataclass(frozen=True)
class Block:
    """Some rows of a file. Rows are numbered as in the file: the header is row 1, blank lines do not count."""

    table: "pd.DataFrame"
    """Whole rows, none identical to an earlier one."""
    numbers: np.ndarray
    """Number of each."""
    broken: dict[int, str] = field(default_factory=dict)
    """Number of a line that is no row -> what is wrong with it."""
    same: dict[int, int] = field(default_factory=dict)
    """Number of a row -> that of the earlier row to which it is identical."""


def blocks(path: Path, most_rows: int = BLOCK_ROWS) -> Iterator[Block]:
    """Yield a CSV (or Parquet) block by block; compressed or not, of any usual encoding, with `,`, `;` or tab.

    Raises MeasurementError for a missing, empty or binary file, and for JSON.
    """
    path = Path(path)
    if path.is_dir():
        raise MeasurementError(f"{path}: is a folder; a CSV of measured runs is needed (a folder of benchmark results "
                               "goes to `profiles import`)")  # fmt: skip
    if not path.exists():
        raise MeasurementError(f"{path}: does not exist{_nearest(path)}")
    with open_bytes(path, MeasurementError) as source:
        if source.parquet:
            yield from _parquet(path, most_rows)
            return
        if bytes(source.data[:64]).lstrip()[:1] in (b"{", b"["):
            raise MeasurementError(f"{path}: is JSON; a CSV of measured runs is needed (benchmark results go to "
                                   "`profiles import`)")  # fmt: skip
        yield from _csv(source, most_rows)


class Places:
    """Where each row of a file stands among its different rows, block by block."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._ends: list[int] = [2]
        self._rows = 0

    def add(self, block: Block, taken: int | None = None) -> None:
        """Add a block of which the first `taken` rows are taken (all without it)."""
        taken = len(block.numbers) if taken is None else taken
        start = self._ends[-1]
        own = np.full(len(block.numbers) + len(block.broken) + len(block.same), -1, dtype=np.int64)
        own[block.numbers[:taken] - start] = self._rows + np.arange(taken)
        self._parts.append(own)
        self._ends.append(start + len(own))
        self._rows += taken
        for number, first in block.same.items():  # in the order of the file
            own[number - start] = self._at(first)

    def _at(self, number: int) -> int:
        part = bisect_right(self._ends, number) - 1
        return int(self._parts[part][number - self._ends[part]])

    def all(self) -> np.ndarray:
        """For each row of the file, in its order, the place of its row; -1 for one that was not taken."""
        return np.concatenate([np.zeros(0, np.int64), *self._parts])


def _nearest(path: Path) -> str:
    try:
        names = [one.name for one in path.parent.iterdir()]
    except OSError:
        return ""
    match = get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"; did you mean '{match[0]}'?" if match else ""


def _parquet(path: Path, most_rows: int) -> Iterator[Block]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        at = 2
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=most_rows):
            table = batch.to_pandas()
            table.columns = _plain_names(table.columns)
            yield Block(table, np.arange(at, at + len(table)))
            at += len(table)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise MeasurementError(f"{path}: is not a readable Parquet file ({error})") from None


def _csv(source: Source, most_rows: int) -> Iterator[Block]:
    records = _records(source.data)
    header = next(records).text
    separator = max(",;\t", key=header.count)
    columns, number = len(_cells(header, separator)), 1
    known: dict[bytes, int] = {}
    lines, numbers, broken, same = [], [], {}, {}
    for record in records:
        number += 1
        reason = _broken(record, separator, columns, source)
        if reason:
            broken[number] = reason
        else:
            digest = hashlib.blake2b(record.text.encode(), digest_size=12).digest()
            first = known.get(digest)
            if first is not None:
                same[number] = first
            else:
                if len(known) < REMEMBERED_ROWS:
                    known[digest] = number
                lines.append(record.text)
                numbers.append(number)
        if len(lines) >= most_rows or len(broken) + len(same) >= NOTED_ROWS:
            yield _block(source.path, header, separator, lines, numbers, broken, same)
            lines, numbers, broken, same = [], [], {}, {}
    if lines or broken or same or number == 1:
        yield _block(source.path, header, separator, lines, numbers, broken, same)


def _block(path: Path, header: str, separator: str, lines: list[str], numbers, broken, same) -> Block:
    import pandas as pd

    try:
        table = pd.read_csv(io.StringIO("\n".join([header, *lines])), sep=separator, low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise MeasurementError(f"{path}: is not a CSV ({error})") from None
    table.columns = _plain_names(table.columns)
    return Block(table, np.array(numbers, dtype=np.int64), broken, same)


def _plain_names(columns) -> list[str]:
    """Names of columns without the spaces around them, in lower case, unless two would become the same."""
    plain = [str(name).strip().lower() for name in columns]
    return plain if len(set(plain)) == len(plain) else [str(name) for name in columns]


@dataclass(frozen=True)
class _Record:
    """One row as it stands in the file, without its end of line."""

    text: str
    ended: bool = True
    """Whether an end of line came after it."""
    open_quote: bool = False
    """Whether a quote in it is never closed."""


def _records(data) -> Iterator[_Record]:
    """Rows of a text that are not blank; a quoted cell may hold ends of lines."""
    data.seek(0)
    pending: list[bytes] = []
    while True:
        line = pending.pop(0) if pending else data.readline()
        if not line:
            return
        if b'"' in line and line.count(b'"') % 2:
            held = [line]
            while sum(part.count(b'"') for part in held) % 2 and len(held) < RECORD_LINES:
                more = pending.pop(0) if pending else data.readline()
                if not more:
                    break
                held.append(more)
            if sum(part.count(b'"') for part in held) % 2:
                pending = held[1:] + pending
                yield _record(line, open_quote=True)
                continue
            line = b"".join(held)
        if line.strip():
            yield _record(line)


def _record(line: bytes, open_quote: bool = False) -> _Record:
    text = line.decode("utf-8", errors="replace")
    return _Record(text.rstrip("\r\n"), text.endswith("\n"), open_quote)


def _cells(text: str, separator: str) -> list[str]:
    if '"' not in text:
        return text.split(separator)
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator))


def _broken(record: _Record, separator: str, columns: int, source: Source) -> str:
    """Why a line is no row of the table, or ""."""
    if record.open_quote:
        return "a quote in this row is never closed"
    try:
        cells = len(_cells(record.text, separator))
    except csv.Error as error:
        return f"is not a row of a CSV ({error})"
    if not record.ended and (source.cut or cells < columns):
        return "the file ends inside this row"
    return f"{cells} columns, {columns} are in the header" if cells != columns else ""
