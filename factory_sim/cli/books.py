"""`factory-sim reprice`, `explain` and `export`: the money side of a run."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from factory_sim.cli.printing import RunFolder, finite, plain, short


def reprice(
    run: RunFolder,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="PATH=VALUE", help="Change a value below money; may be given often.")
    ] = [],  # noqa: B006
    scales: Annotated[
        list[str],
        typer.Option("--scale", metavar="NAME=FACTOR", help="Multiply prices, costs, sales, or one line (rent=1.2)."),
    ] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Make a new statement from the journal of a run at other prices, without simulating."""
    from factory_sim.ledger.bands import one_sided
    from factory_sim.ledger.sanity import absurd_prices
    from factory_sim.results.reprice import reprice as price_again
    from factory_sim.results.store import read_run

    stored = read_run(run)
    found = price_again(stored, settings, scales)
    table = found.after.rename(columns={"value": "new"}).merge(
        found.before[["figure", "window", "service", "value"]].rename(columns={"value": "before"}),
        on=["figure", "window", "service"],
    )
    for warning in absurd_prices(list(found.books.rows.values())):
        print(f"warning: {warning}", file=sys.stderr)
    note = ""
    if found.reacting:
        note = (
            f"demand or prices of {', '.join(found.reacting)} answered to money when this was played; "
            "the statement is for the same traffic, which other prices would have changed: simulate again for that"
        )
    if as_json:
        records = [
            {
                "figure": row.figure, "window": row.window, "service": row.service, "value": finite(row.new),
                "low": finite(row.low), "high": finite(row.high), "before": finite(row.before), "unit": row.unit,
            }
            for row in table.itertuples()
        ]  # fmt: skip
        answer = {"schema": "factory_sim.reprice/1", "run": run.name, "settings": settings, "scales": scales}
        print(json.dumps(answer | {"marked": note, "figures": records}, ensure_ascii=False, indent=1))
        return
    _print_repriced(table, run.name)
    leaning = one_sided(found.terms, sorted(set(stored.tables["windows"].gpu)))
    if leaning:
        print(f"\n{leaning}")
    if note:
        print(f"note: {note}", file=sys.stderr)


def _print_repriced(table, name: str) -> None:
    print(f"{name}: new statement, whole run, all services")
    heads = ("before", "new", "low", "high", "new/before")
    print(f"{'figure':46}" + "".join(f"{head:>18}" for head in heads) + "  unit")
    for row in table[(table.window == "whole") & (table.service == "all")].itertuples():
        ratio = f"{row.new / row.before:.6g}" if row.before else ""
        numbers = [*map(short, (row.before, row.new, row.low, row.high)), ratio]
        print(f"{row.figure:46}" + "".join(f"{number:>18}" for number in numbers) + f"  {row.unit}")
    weeks = table[table.window.str.startswith("week_") & (table.service == "all")]
    shown = ["revenue", "cost", "margin", "cost_per_million_output_tokens"]
    print("\n" + f"{'week':46}" + "".join(f"{figure:>18}" for figure in (*shown[:3], "cost/M output")))
    for week, part in weeks.groupby("window", sort=False):
        values = part.set_index("figure").new
        print(f"{week.removeprefix('week_'):46}" + "".join(f"{short(values[figure]):>18}" for figure in shown))


def explain(
    run: RunFolder,
    figure: Annotated[str, typer.Argument(help="Figure of the summary, such as cost_per_million_output_tokens.")],
    window: Annotated[str, typer.Option("--window", help="whole, week_1, ..., or stage_<name>.")] = "whole",
    service: Annotated[str, typer.Option("--service", help="Service, or all.")] = "all",
    variance: Annotated[bool, typer.Option("--variance", help="Split the band by source of uncertainty.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a tree.")] = False,
) -> None:
    """Print where a figure comes from: the tree to quantity times price, with row, source, date and class of each."""
    from factory_sim.results.explain import explain as look_into
    from factory_sim.results.store import read_run
    from factory_sim.results.variance import explain_band

    stored = read_run(run)
    found = look_into(stored, figure, window, service)
    split = explain_band(stored, figure, window, service) if variance else []
    if as_json:
        answer = {
            "schema": "factory_sim.explain/1", "figure": figure, "window": window, "service": service,
            "summary": {key: plain(value) for key, value in (found.summary or {}).items()}, "tree": _node(found.root),
            "shares": found.shares, "share_on_assumptions": found.shares.get("assumption", 0.0), "trust": found.trust,
            "profiles": found.profiles, "variance": split,
            "warnings": found.warnings,
        }  # fmt: skip
        print(json.dumps(answer, ensure_ascii=False, indent=1))
        return
    for line in _tree_lines(found.root):
        print(line)
    print()
    if found.summary:
        value, low, high = (found.summary[name] for name in ("value", "low", "high"))
        unit = found.summary["unit"]
        print(f"summary (median over replications): {value:,.6g} [{low:,.6g} to {high:,.6g}] {unit}")
    if found.shares:
        parts = ", ".join(f"{name} {share:.1%}" for name, share in found.shares.items())
        print(f"rests on prices that are: {parts}")
        print(f"share that rests on assumptions: {found.shares.get('assumption', 0.0):.1%}")
    if found.trust:
        rungs = ", ".join(f"{name} {share:.1%}" for name, share in found.trust.items())
        print(f"quantities from profiles that are: {rungs}")
    for profile in found.profiles:
        dates = f", {profile['first_date']} to {profile['last_date']}" if profile["first_date"] else ""
        rows = f"{profile['measured_rows']} measured rows{dates}"
        print(
            f"  {profile['service']}.{profile['stage']}: {profile['profile']}, {profile['trust']}, "
            f"{rows if profile['measured_rows'] else 'no measured rows'}; {profile['share']:.1%} of GPU-hours"
        )
    for part in split:
        span = f"{part['low']:,.6g} to {part['high']:,.6g}"
        print(f"band from {part['source']}: {part['share']:.1%} of the variance, {span}")
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _node(node) -> dict:
    entry = {
        "label": node.label,
        "value": finite(node.value),
        "unit": node.unit,
        "formula": node.formula,
        "trust": node.trust,
    }
    if node.row is not None:
        row = node.row
        entry |= {
            "quantity": finite(node.quantity), "price": row.value, "price_unit": row.unit, "source": row.source,
            "as_of": row.as_of, "basis": row.basis, "class": row.trust, "note": row.note,
        }  # fmt: skip
    return entry | {"children": [_node(child) for child in node.children]}


def _tree_lines(node, stem: str = "", last: bool = True, top: bool = True) -> list[str]:
    """The tree as text: one line a figure, and for a leaf its price row below."""
    branch = "" if top else ("└─ " if last else "├─ ")
    formula = f" = {node.formula}" if node.formula else ""
    lines = [f"{stem}{branch}{node.label}: {node.value:,.6g} {node.unit}{formula}"]
    below = stem + ("" if top else ("   " if last else "│  "))
    if node.row is not None:
        row = node.row
        dated = f", {row.as_of}" if row.as_of else ""
        lines.append(
            f"{below}     price: {row.trust} ({row.basis}), {row.source}{dated}" + (f"; {row.note}" if row.note else "")
        )
    if node.trust and not node.children:
        rungs = ", ".join(f"{name} {share:.0%}" for name, share in node.trust.items())
        lines.append(f"{below}     quantity: {rungs}")
    for number, child in enumerate(node.children):
        lines += _tree_lines(child, below, number == len(node.children) - 1, False)
    return lines


def export(
    run: RunFolder,
    xlsx: Annotated[Path | None, typer.Option("--xlsx", metavar="FILE", help="Workbook with live formulas.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="DIR", help="Folder of CSV tables.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", metavar="DIR", help="Folder of parquet tables.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing workbook.")] = False,
) -> None:
    """Write the finance pack: assumptions, quantities, prices and statements, tied by live formulas in the workbook."""
    from factory_sim.errors import RunError
    from factory_sim.results.store import read_run
    from factory_sim.results.workbook import write_tables, write_workbook

    if xlsx is None and csv is None and parquet is None:
        raise RunError("nothing to write: give --xlsx FILE, --csv DIR or --parquet DIR")
    stored = read_run(run)
    if xlsx is not None:
        print(write_workbook(stored, xlsx, force))
    for folder, kind in ((csv, "csv"), (parquet, "parquet")):
        if folder is not None:
            for path in write_tables(stored, folder, kind):
                print(path)
