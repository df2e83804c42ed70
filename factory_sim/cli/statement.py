"""`factory-sim statement`: profit and loss, cash, cost of tokens, margins, units and worth of a run."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from factory_sim.cli.printing import RunFolder, plain, short

_UNIT_COSTS = (
    "cost_per_million_output_tokens",
    "cost_per_million_tokens",
    "attributed_cost_per_million_input_tokens",
    "attributed_cost_per_million_output_tokens",
    "fully_loaded_cost_per_million_input_tokens",
    "fully_loaded_cost_per_million_output_tokens",
    "cost_per_request",
    "revenue_per_gpu_hour",
    "margin_fraction",
)
_PERIODS_SHOWN = 11


def statement(
    run: RunFolder,
    period: Annotated[str, typer.Option("--period", help="hour, day, week or month.")] = "week",
    service: Annotated[str, typer.Option("--service", help="Service, or all.")] = "all",
    family: Annotated[str, typer.Option("--family", help="Family of models for pages, images and speech.")] = "openai",
    margin: Annotated[
        float | None, typer.Option("--margin", help="Gross margin (fraction) whose prices are wanted.")
    ] = None,
    per_conversation: Annotated[float, typer.Option("--per-conversation", help="Requests of a conversation.")] = 4.0,
    per_task: Annotated[float, typer.Option("--per-task", help="Requests of an agent task.")] = 20.0,
    chart: Annotated[
        Path | None, typer.Option("--chart", metavar="FILE", help="Chart of cost against load (.svg or .png).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print profit and loss, cash and cost of tokens by period, margins, unit economics, worth and cost against load."""
    from factory_sim.errors import RunError
    from factory_sim.results import statement as books
    from factory_sim.results.store import read_run

    if chart is not None and (chart.exists() or chart.suffix not in (".svg", ".png")):
        wrong = "is already there; give another name" if chart.exists() else "a chart ends in .svg or .png"
        raise RunError(f"{chart}: {wrong}")
    stored = read_run(run)
    found = books.accounts(stored, service)
    each = {"family": family, "requests_per_conversation": per_conversation, "requests_per_task": per_task}
    tables = {
        "profit_and_loss": books.statement(found, period),
        "cash": books.cash(found, period),
        "unit_costs": books.unit_costs_by_period(found, period),
        "margins": books.margins(found),
        "units": books.units(found, **each),
        "outputs": books.outputs(found),
        "cost_against_load": books.load_curve(found),
    }
    figures = books.key_figures(found, margin)
    if chart is not None and figures["load"] is None:
        raise RunError(f"{stored.folder}: tells no load, so there is no cost against load to draw")
    if chart is not None:
        _draw(chart, tables["cost_against_load"], figures["load"], stored)
    if as_json:
        answer = {"schema": "factory_sim.statement/1", "service": service, "period": period}
        answer |= {name: _records(table) for name, table in tables.items()}
        answer["units_by_period"] = _records(books.units_by_period(found, period, **each))
        print(json.dumps(answer | {"figures": figures}, ensure_ascii=False, indent=1))
        return
    _print_tables(tables, service, period)
    print()
    for name, value in figures.items():
        shown = "undefined" if value is None else value if isinstance(value, str) else short(value)
        print(f"{name:46}{shown:>18}")
    print("taxes are left out", file=sys.stderr)


def _draw(path: Path, curve, load: float | None, stored) -> None:
    from factory_sim.reports.charts import save
    from factory_sim.reports.charts.load_curve import load_curve_chart

    figure = load_curve_chart(
        curve,
        at_load=load,
        subtitle=str(stored.summary["scenario"]["name"]),
        footnote="Load: requests served over what all GPUs paid for would serve within the promise. Fixed costs over the "
        "tokens of each load, costs that follow tokens on top.",
    )
    save(figure, path.parent, path.stem, (path.suffix.removeprefix("."),))
    print(path, file=sys.stderr)


def _records(table) -> list[dict]:
    return [{name: plain(value) for name, value in row.items()} for row in table.to_dict("records")]


def _print_tables(tables: dict, service: str, period: str) -> None:
    _print_profit_and_loss(tables["profit_and_loss"], service, period)
    cash = tables["cash"].pivot(index="line", columns="period", values="usd").fillna(0.0)
    cash = cash[list(dict.fromkeys(tables["cash"].period))].assign(total=cash.sum(axis=1))
    _print_wide(f"cash by {period}, USD", cash)
    names = {name: name.replace("_", " ") for name in _UNIT_COSTS}
    _print_wide("cost of tokens, USD", tables["unit_costs"].set_index("period")[list(names)].rename(columns=names).T)
    _print_margins(tables["margins"])
    money = {"cost": "cost_usd", "revenue": "revenue_usd", "margin": "margin_usd"}
    _print_each("a unit, USD", tables["units"], {"tokens in": "input_tokens", "tokens out": "output_tokens"} | money)
    _print_each("an output, USD", tables["outputs"], {"made": "count"} | money)
    _print_load(tables["cost_against_load"])


def _print_rows(title: str, heads: Iterable[str], rows: Iterable[tuple[str, Iterable[float]]]) -> None:
    """A table: its title above the names of the rows, a head above each number."""
    print("\n" + f"{title:46}" + "".join(f"{head:>18}" for head in heads))
    for name, numbers in rows:
        print(f"{name:46}" + "".join(f"{short(number):>18}" for number in numbers))


def _print_wide(title: str, wide) -> None:
    """Lines down, periods across; with many periods the first eleven and the total."""
    periods = [name for name in wide.columns if name != "total"]
    shown = [*periods[:_PERIODS_SHOWN], *(name for name in wide.columns if name == "total")]
    _print_rows(title, shown, ((name, row[shown]) for name, row in wide.iterrows()))
    if len(periods) > _PERIODS_SHOWN:
        print(f"({len(periods) - _PERIODS_SHOWN} more in --json)", file=sys.stderr)


def _print_profit_and_loss(table, service: str, period: str) -> None:
    """Profit and loss with the totals of both sides."""
    import pandas as pd

    parts = []
    for kind in ("revenue", "cost"):
        part = table[table.kind == kind].drop(columns="kind").set_index("title")
        parts += [part, part.sum().to_frame(f"Total {kind}").T]
    gross = (parts[1].iloc[0] - parts[3].iloc[0]).to_frame("Margin").T
    _print_wide(f"profit and loss by {period}, {service}, USD", pd.concat([*parts, gross]))


def _print_margins(table) -> None:
    rows = []
    for row in table.itertuples():
        name = f"{row.level} {row.name}" + (f" ({row.customers:,} customers)" if row.customers > 1 else "")
        rows.append((name, (row.revenue_usd, row.cost_usd, row.margin_usd, row.margin_fraction)))
    heads = ("revenue", "cost", "margin", "gross margin")
    _print_rows("gross margin by service, plan, customers, USD", heads, rows)


def _print_each(title: str, table, columns: dict[str, str]) -> None:
    """A row for each unit of a table, `columns` by the head that they get; nothing where the table is empty."""
    if len(table):
        _print_rows(title, columns, table.set_index("unit")[list(columns.values())].iterrows())


def _print_load(curve) -> None:
    if curve.usd_per_million_output_tokens.isna().all():
        print("\ncost against load is undefined: the run tells no capacity, or made no tokens")
        return
    print("\n" + f"{'load, part of what the fleet could serve':46}" + "".join(f"{load:>9g}" for load in curve.load))
    numbers = "".join(f"{value:>9.4g}" for value in curve.usd_per_million_output_tokens)
    print(f"{'cost per million output tokens, USD':46}{numbers}")
