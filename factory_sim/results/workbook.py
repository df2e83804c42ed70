"""The finance pack: a workbook whose statements follow from prices and quantities by live formulas, or plain tables.

Quantities are means over replications, by week, service, stage, line and use. A price that was derived (an annuity per
GPU-hour) is a formula on the price it came from. Top-ups to minimum bills, shortfalls of commitments and credits stay
proportional to their price: they are not settled anew in the workbook.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from factory_sim.errors import RunError
from factory_sim.inputs.prices import PriceRow, price_book
from factory_sim.ledger.accounts import NANO, line_title, statement_titles
from factory_sim.ledger.postings import Books, keep_books
from factory_sim.ledger.promises import with_promises
from factory_sim.ledger.statements import kinds, signed_nusd
from factory_sim.results.reprice import run_terms
from factory_sim.units import WEEK_S

if TYPE_CHECKING:
    import pandas as pd

    from factory_sim.results.store import StoredRun

_TOKENS = ("input_tokens", "output_tokens", "requests_completed", "gpu_hours")


@dataclass(frozen=True)
class Pack:
    """The tables of the finance pack."""

    facts: dict[str, str]
    """What the figures assume: name and text."""
    prices: dict[str, PriceRow]
    """Price rows by id, those that others derive from included."""
    quantities: pd.DataFrame
    """week, kind, line, title (idle and failed capacity apart), use, service, stage, quantity, unit, price_row, usd (as
    the ledger has it)."""
    traffic: pd.DataFrame
    """week, input_tokens, output_tokens, requests_completed, gpu_hours."""


def pack(run: StoredRun) -> Pack:
    """Gather the finance pack of a stored run, at the stated prices."""
    stored = run_terms(run.scenario_yaml, str(run.folder / "scenario.yaml"))
    windows = with_promises(run.tables["windows"], run.tables, stored.money)
    books = keep_books(windows, stored.money, start=stored.start)
    count = windows.replication.nunique()
    week = (windows.start_s // WEEK_S).astype(int) + 1
    traffic = windows.groupby(week.rename("week"))[list(_TOKENS)].sum() / count
    compute = stored.money.costs.compute
    basis = [compute.kind, *(str(getattr(compute, name)) for name in ("basis", "vintage") if hasattr(compute, name))]
    facts = {
        "scenario": stored.name,
        "start": str(stored.start or ""),
        "digest": str(run.summary["scenario"].get("digest", "")),
        "seed": str(stored.seed),
        "replications": f"{count} (quantities are their means)",
        "compute": ", ".join(basis),
        "energy": "a cost where machines are owned, else contained in the rent",
        "taxes": "left out",
        "top-ups and credits": "proportional to their price; minimums and thresholds are not settled anew here",
    }
    return Pack(facts, _with_bases(books.rows), _quantities(books, count), traffic.reset_index())


def _quantities(books: Books, count: int) -> pd.DataFrame:
    import pandas as pd

    postings = books.postings
    kind = kinds(postings)
    table = pd.DataFrame(
        {
            "week": (postings.start_s // WEEK_S).astype(int) + 1,
            "kind": kind,
            **{name: postings[name].astype(str) for name in ("line", "use", "service", "stage", "unit", "price_row")},
            "quantity": postings.quantity * np.where(signed_nusd(postings) < 0, -1.0, 1.0) / count,
            "usd": signed_nusd(postings) / NANO / count,
        }
    )
    table = table[table.kind != "memo"]
    table["title"] = [line_title(line, use) for line, use in zip(table.line, table.use)]
    keys = ["week", "kind", "line", "title", "use", "service", "stage", "unit", "price_row"]
    return table.groupby(keys, as_index=False, sort=True)[["quantity", "usd"]].sum()


def _with_bases(rows: dict[str, PriceRow]) -> dict[str, PriceRow]:
    """The rows used, and the rows of the book behind derived ones, bases first."""
    known = {row.row: row for row in price_book().rows()}
    bases = {}
    for name in sorted(rows):
        base = _base(name)
        if base in known:
            bases[base] = known[base]
    return {name: bases[name] for name in sorted(bases)} | {name: rows[name] for name in sorted(rows)}


def _base(name: str) -> str:
    return name.partition(" <- ")[2]


def write_workbook(run: StoredRun, path: str | Path, force: bool = False) -> Path:
    """Write the finance pack as an Excel workbook; return its path.

    Sheets: Assumptions, Prices (change column B), Quantities, Traffic, Statement, Check. Written to a temporary name
    and renamed. Raises RunError if the file is there and ``force`` is not given, if another program has it open, or if
    it cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".xlsx":
        raise RunError(f"{path}: a workbook ends in .xlsx")
    if path.exists() and not force:
        raise RunError(f"{path}: is already there; give another name, or --force to replace it")
    for lock in (path.with_name(f"~${path.name}"), path.with_name(f".~lock.{path.name}#")):
        if lock.exists():
            raise RunError(f"{path}: is open in another program ({lock.name}); close it first, nothing was written")
    book = _workbook(pack(run))
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        book.save(partial)
        os.replace(partial, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error}); nothing was written over") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _workbook(content: Pack):
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    sheet.title = "Assumptions"
    _fill(sheet, ["What", "Value"], [[name, text] for name, text in content.facts.items()], (1, 2))
    price_cell = _price_sheet(book.create_sheet("Prices"), content.prices)
    last = _quantity_sheet(book.create_sheet("Quantities"), content.quantities, price_cell)
    _traffic_sheet(book.create_sheet("Traffic"), content.traffic)
    rows = _statement_sheet(book.create_sheet("Statement"), content, last)
    _check_sheet(book.create_sheet("Check"), content, rows)
    for page in book.worksheets:
        page.freeze_panes = "B2"
        for column, width in zip("ABCDEFGHIJK", (44, 18, 18, 14, 14, 16, 16, 44, 16, 16, 16)):
            page.column_dimensions[column].width = width
    return book


def _fill(sheet, header: list[str], rows: list[list], words: Sequence[int] = ()) -> None:
    """Append header and rows; ``words`` are the columns (from 1) that hold text as given."""
    from openpyxl.styles import Font

    sheet.append(header)
    for cell in sheet[1]:
        cell.font = Font(bold=True)
    for row in rows:
        sheet.append(row)
        for column in words:
            # Words of a user or a source are never a formula, whatever they begin with.
            cell = sheet.cell(sheet.max_row, column)
            if isinstance(cell.value, str):
                cell.data_type = "s"


def _price_sheet(sheet, rows: dict[str, PriceRow]) -> dict[str, str]:
    """Prices in column B; a derived price is a formula on its base. Returns the cell of each row."""
    cell = {name: f"Prices!$B${number}" for number, name in enumerate(rows, start=2)}
    lines = []
    for name, row in rows.items():
        base = rows.get(_base(name))
        value: float | str = row.value
        if base is not None and base.value:
            # The unit of the base may be another: the factor holds units, currency and formula together.
            value = f"={cell[base.row].removeprefix('Prices!')}*{float(row.value / base.value)!r}"
        lines.append([name, value, row.unit, row.low, row.high, row.as_of, row.trust, row.source, row.note])
    _fill(
        sheet,
        ["Price row", "Value", "Unit", "Low", "High", "As of", "Class", "Source", "Note"],
        lines,
        (1, 3, 6, 7, 8, 9),
    )
    return cell


def _quantity_sheet(sheet, table: pd.DataFrame, price_cell: dict[str, str]) -> int:
    """Quantities, each with its price by reference and its amount by formula. Returns the last row."""
    header = [
        "Price row",
        "Week",
        "Kind",
        "Line",
        "Use",
        "Service",
        "Stage",
        "Unit",
        "Quantity",
        "Price, USD",
        "Amount, USD",
    ]
    names = ["price_row", "week", "kind", "title", "use", "service", "stage", "unit", "quantity"]
    rows = [
        [*values, f"={price_cell[values[0]]}", f"=I{number}*J{number}"]
        for number, values in enumerate(table[names].values.tolist(), start=2)
    ]
    _fill(sheet, header, rows, (1, 3, 4, 5, 6, 7, 8))
    return max(len(rows) + 1, 2)


def _traffic_sheet(sheet, traffic: pd.DataFrame) -> None:
    _fill(sheet, ["Week", *_TOKENS], [[int(row[0]), *map(float, row[1:])] for row in traffic.itertuples(index=False)])


def _statement_sheet(sheet, content: Pack, last: int) -> dict[str, int]:
    """Profit and loss by week, all formulas. Returns the row of each total."""
    from openpyxl.utils import get_column_letter

    weeks = [int(week) for week in content.traffic.week]
    columns = [get_column_letter(number) for number in range(2, 2 + len(weeks))]
    total = get_column_letter(2 + len(weeks))
    rows: dict[str, int] = {}
    lines: list[list] = []

    def add(label: str, formula) -> int:
        number = len(lines) + 2
        lines.append(
            [
                label,
                *(formula(column, place) for place, column in enumerate(columns)),
                f"=SUM(B{number}:{columns[-1]}{number})",
            ]
        )
        return number

    def amounts(kind: str, title: str):
        def formula(column: str, place: int) -> str:
            span = {letter: f"Quantities!${letter}$2:${letter}${last}" for letter in "BCDK"}
            return f'=SUMIFS({span["K"]},{span["B"]},{column}$1,{span["C"]},"{kind}",{span["D"]},"{title}")'

        return formula

    for kind in ("revenue", "cost"):
        used = set(content.quantities[content.quantities.kind == kind].title)
        first = len(lines) + 2
        for title in statement_titles():
            if title in used:
                add(title, amounts(kind, title))
        end = len(lines) + 1
        if end >= first:
            rows[kind] = add(
                f"Total {kind}", lambda column, place, first=first, end=end: f"=SUM({column}{first}:{column}{end})"
            )
        else:
            rows[kind] = add(f"Total {kind}", lambda column, place: 0)
    rows["margin"] = add("Margin", lambda column, place: f"={column}{rows['revenue']}-{column}{rows['cost']}")
    for number, name in enumerate(_TOKENS):
        letter = get_column_letter(2 + number)
        rows[name] = add(
            name.replace("_", " ").capitalize(), lambda column, place, letter=letter: f"=Traffic!{letter}{place + 2}"
        )

    def ratio(label: str, top: str, bottom: str, times: str = "") -> None:
        cells = [f'=IF({c}{rows[bottom]}=0,"",{c}{rows[top]}/{c}{rows[bottom]}{times})' for c in [*columns, total]]
        lines.append([label, *cells])

    ratio("Cost per million output tokens, USD", "cost", "output_tokens", "*1000000")
    ratio("Cost per million input tokens, USD", "cost", "input_tokens", "*1000000")
    ratio("Revenue per GPU-hour, USD", "revenue", "gpu_hours")
    ratio("Cost per request, USD", "cost", "requests_completed")
    ratio("Gross margin, fraction", "margin", "revenue")
    _fill(sheet, ["USD by week", *weeks, "Total"], lines)
    return rows


def _check_sheet(sheet, content: Pack, rows: dict[str, int]) -> None:
    """The workbook's totals beside the ledger's, as they were when it was written."""
    from openpyxl.utils import get_column_letter

    total = get_column_letter(2 + len(content.traffic))
    usd = content.quantities.groupby("kind").usd.sum()
    lines = []
    for number, kind in enumerate(("revenue", "cost"), start=2):
        ledger = float(usd.get(kind, 0.0))
        lines.append([f"Total {kind}", f"=Statement!{total}{rows[kind]}", ledger, f"=B{number}-C{number}"])
    _fill(
        sheet,
        ["Total", "Workbook, USD", "Ledger when written, USD", "Difference, USD (0 until a price is changed)"],
        lines,
    )


def write_tables(run: StoredRun, folder: str | Path, kind: str) -> list[Path]:
    """Write the finance pack as csv or parquet files (prices, quantities, traffic) into a new folder; return them."""
    import pandas as pd

    from factory_sim.results.store import write_table

    folder = Path(folder)
    if folder.exists():
        raise RunError(f"{folder}: is already there; give a new folder")
    content = pack(run)
    columns = ("row", "value", "low", "high", "unit", "as_of", "basis", "trust", "source", "note")
    prices = pd.DataFrame([[getattr(row, c) for c in columns] for row in content.prices.values()], columns=columns)
    tables = {"prices": prices, "quantities": content.quantities, "traffic": content.traffic}
    try:
        folder.mkdir(parents=True)
        written = []
        for name, table in tables.items():
            path = folder / f"{name}.{kind}"
            if kind == "csv":
                table.to_csv(path, index=False, lineterminator="\n")
            else:
                write_table(table, path)
            written.append(path)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return written
