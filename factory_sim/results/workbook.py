"""The finance pack: a workbook whose statements follow from prices and quantities by live formulas, or plain tables.

Quantities are means over replications, by week, service, stage, line and use. A price that was derived (an annuity per
GPU-hour) is a formula on the price it came from. Service credits are a formula on the sales of their service. Top-ups to
minimum bills and shortfalls of commitments were settled bill by bill in the run; they stay in proportion to their own
price and are marked so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from factory_sim.errors import RunError
from factory_sim.inputs.money import Own
from factory_sim.inputs.prices import PriceRow, price_book
from factory_sim.ledger import tariffs
from factory_sim.ledger.accounts import NANO, line_title, statement_titles
from factory_sim.ledger.bands import other_prices
from factory_sim.ledger.fleet import all_terms
from factory_sim.ledger.makers import maker_services
from factory_sim.ledger.plan_facts import with_plan_facts
from factory_sim.ledger.plans import plans_of, token_rows
from factory_sim.ledger.postings import Books, keep_books
from factory_sim.ledger.statements import kinds, signed_nusd
from factory_sim.results.reprice import run_terms
from factory_sim.units import WEEK_S

if TYPE_CHECKING:
    import pandas as pd

    from factory_sim.inputs.money import Money
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
    tokens_only: bool = True
    """Whether all services make tokens, so that the whole cost over tokens means something."""
    invoices: pd.DataFrame | None = None
    """Invoice lines by group, customer, month and line (mean over replications), where customers are told apart."""


def pack(run: StoredRun) -> Pack:
    """Gather the finance pack of a stored run, at the stated prices."""
    stored = run_terms(run.scenario_yaml, str(run.folder / "scenario.yaml"))
    windows = with_plan_facts(run.tables["windows"], run.tables, stored.money)
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
        "live": "every amount in Quantities is quantity x price; service credits are a share of their service's sales",
        "not live": "top-ups to minimums and shortfalls of commitments (column Amount is: settled in the run); which "
        "tokens fall into which volume tier or allowance; demand (what was served does not answer to a price here)",
    }
    makers = maker_services(windows)
    if makers:
        facts["cost of tokens"] = (
            f"not in this workbook: {', '.join(sorted(makers))} make images or videos; `factory-sim statement` has it"
        )
    facts |= _terms(stored.money)
    return Pack(
        facts,
        _with_bases(books.rows, stored.money, sorted(map(str, windows.gpu.unique()))),
        _quantities(books, count),
        traffic.reset_index(),
        not makers,
        _invoices(books, count),
    )


def _invoices(books: Books, count: int) -> pd.DataFrame | None:
    if books.invoices is None:
        return None
    keys = ["group", "customer", "month", "line"]
    return (books.invoices.groupby(keys, sort=True).usd.sum() / count).reset_index()


def _terms(money: Money) -> dict[str, str]:
    """The terms of money by path: how machines are held in full, the rest where it differs from the defaults."""
    stated = money.model_dump(mode="json", exclude_defaults=True)
    costs = money.costs.model_dump(mode="json")
    held = {name: costs[name] for name in ("compute", "compute_by_gpu", "compute_by_stage")}
    return dict(
        _flat({"costs": stated.get("costs", {}) | held} | {k: v for k, v in stated.items() if k != "costs"}, "money")
    )


def _flat(node: object, path: str) -> Iterator[tuple[str, str]]:
    """Path and value of every leaf that holds something."""
    if isinstance(node, dict | list):
        for name, item in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _flat(item, f"{path}.{name}")
    elif node not in (None, ""):
        yield path, str(node)


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


def _with_bases(rows: dict[str, PriceRow], money: Money, gpus: Sequence[str]) -> dict[str, PriceRow]:
    """The rows used, and the rows behind derived ones, of the book or stated in the scenario, bases first."""
    known = {row.row: row for row in _stated_rows(money, gpus)} | {row.row: row for row in price_book().rows()}
    wanted = {_base(name) for name in rows} - set(rows)
    bases = {name: known[name] for name in sorted(wanted) if name in known}
    return bases | {name: rows[name] for name in sorted(rows, key=lambda name: (bool(_base(name)), name))}


def _stated_rows(money: Money, gpus: Sequence[str]) -> list[PriceRow]:
    """Prices that the scenario states itself, in dollars: machines, other costs, plans."""
    book = price_book()
    found = [tariffs.priced(ref, name, unit, money, book) for ref, name, unit in other_prices(money)]
    for terms in all_terms(money):
        if isinstance(terms, Own):
            found.append(tariffs.priced(terms.facility, "facility", "MW", money, book))
            found += [row for gpu in gpus for row in tariffs.purchase_rows(terms, gpu, money, book)]
    for key in money.plans:
        for plan in plans_of(money, key):
            found += token_rows(plan, key, money).values()
    return found


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
        for column, width in zip("ABCDEFGHIJKL", (44, 18, 18, 14, 14, 16, 16, 44, 16, 16, 16, 44)):
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


_SETTLED = ("minimum", "commitment")
_QUANTITY_HEADER = (
    "Price row", "Week", "Kind", "Line", "Use", "Service", "Stage", "Unit", "Quantity", "Price, USD", "Amount, USD",
    "Amount is",
)  # fmt: skip


def _quantity_sheet(sheet, table: pd.DataFrame, price_cell: dict[str, str]) -> int:
    """Quantities, each with its price by reference and its amount by formula, credits last. Returns the last row."""
    credits = (table.line == "sla_credit").to_numpy()
    table = table.iloc[np.argsort(credits, kind="stable")]
    last_sale = int((~credits).sum()) + 1
    sold = table[(table.kind == "revenue") & (table.line != "sla_credit")].groupby("service").usd.sum()
    rows = []
    for number, row in enumerate(table.itertuples(index=False), start=2):
        amount, how = f"=I{number}*J{number}", "quantity x price"
        if row.line in _SETTLED:
            how = "settled in the run; follows its own price only"
        elif row.line == "sla_credit" and sold.get(row.service, 0.0):
            share = float(row.usd / sold[row.service])
            span = {letter: f"${letter}$2:${letter}${last_sale}" for letter in "CFK"}
            amount = f'={share!r}*SUMIFS({span["K"]},{span["C"]},"revenue",{span["F"]},F{number})'
            how = "share of the sales of its service"
        rows.append([
            row.price_row, row.week, row.kind, row.title, row.use, row.service, row.stage, row.unit, row.quantity,
            f"={price_cell[row.price_row]}", amount, how,
        ])  # fmt: skip
    _fill(sheet, list(_QUANTITY_HEADER), rows, (1, 3, 4, 5, 6, 7, 8, 12))
    return max(len(rows) + 1, 2)


def _traffic_sheet(sheet, traffic: pd.DataFrame) -> None:
    _fill(sheet, ["Week", *_TOKENS], [[int(row[0]), *map(float, row[1:])] for row in traffic.itertuples(index=False)])


def _statement_sheet(sheet, content: Pack, last: int) -> dict[str, int]:
    """Profit and loss by week, all formulas. Returns the row of each total."""
    page = _Statement([int(week) for week in content.traffic.week])
    for kind in ("revenue", "cost"):
        used = set(content.quantities[content.quantities.kind == kind].title)
        first = page.next_row
        for title in statement_titles():
            if title in used:
                page.add(title, _amounts(kind, title, last))
        end = page.next_row - 1
        page.add(f"Total {kind}", f"=SUM({{column}}{first}:{{column}}{end})" if end >= first else "=0", kind)
    page.add("Margin", f"={{column}}{page.row['revenue']}-{{column}}{page.row['cost']}", "margin")
    for number, name in enumerate(_TOKENS):
        letter = chr(ord("B") + number)
        page.add(name.replace("_", " ").capitalize(), f"=Traffic!{letter}{{line}}", name)
    if content.tokens_only:
        page.ratio("Cost per million output tokens, USD", "cost", "output_tokens", "*1000000")
        page.ratio("Cost per million input tokens, USD", "cost", "input_tokens", "*1000000")
    page.ratio("Revenue per GPU-hour, USD", "revenue", "gpu_hours")
    page.ratio("Cost per request, USD", "cost", "requests_completed")
    page.ratio("Gross margin, fraction", "margin", "revenue")
    _fill(sheet, ["USD by week", *page.weeks, "Total"], page.lines)
    return page.row


def _amounts(kind: str, title: str, last: int) -> str:
    """Formula of a line: the amounts of its title in the week of the column."""
    span = {letter: f"Quantities!${letter}$2:${letter}${last}" for letter in "BCDK"}
    return f'=SUMIFS({span["K"]},{span["B"]},{{column}}$1,{span["C"]},"{kind}",{span["D"]},"{title}")'


class _Statement:
    """Lines of the statement as they are added, with the row of each total; weeks across, their sum at the end."""

    def __init__(self, weeks: list[int]):
        from openpyxl.utils import get_column_letter

        self.weeks = weeks
        self.columns = [get_column_letter(number) for number in range(2, 2 + len(weeks))]
        self.total = get_column_letter(2 + len(weeks))
        self.lines: list[list[str]] = []
        self.row: dict[str, int] = {}

    @property
    def next_row(self) -> int:
        return len(self.lines) + 2

    def add(self, label: str, formula: str, name: str = "") -> None:
        """Add a line; ``formula`` may hold {column} (its own) and {line} (the row of its week in a sheet by week)."""
        cells = [formula.format(column=column, line=place + 2) for place, column in enumerate(self.columns)]
        whole = f"=SUM(B{self.next_row}:{self.columns[-1]}{self.next_row})"
        if name:
            self.row[name] = self.next_row
        self.lines.append([label, *cells, whole])

    def ratio(self, label: str, top: str, bottom: str, times: str = "") -> None:
        """Add the ratio of two lines, empty where there is nothing to divide by."""
        above, below = self.row[top], self.row[bottom]
        cells = [f'=IF({c}{below}=0,"",{c}{above}/{c}{below}{times})' for c in [*self.columns, self.total]]
        self.lines.append([label, *cells])


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
    """Write the finance pack as csv or parquet files into a new folder; return them.

    Files: prices, quantities, traffic, and invoices where customers are told apart.
    """
    import pandas as pd

    from factory_sim.results.store import write_table

    folder = Path(folder)
    if folder.exists():
        raise RunError(f"{folder}: is already there; give a new folder")
    content = pack(run)
    columns = ("row", "value", "low", "high", "unit", "as_of", "basis", "trust", "source", "note")
    prices = pd.DataFrame([[getattr(row, c) for c in columns] for row in content.prices.values()], columns=columns)
    tables = {"prices": prices, "quantities": content.quantities, "traffic": content.traffic}
    tables |= {} if content.invoices is None else {"invoices": content.invoices}
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
