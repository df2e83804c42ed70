"""`factory-sim tokens`, `reprice`, `explain` and `export`: tokens of any content, and the money side of a run."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from factory_sim.cli.printing import RunFolder, finite, plain, short

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def _duration_s(text: str) -> float:
    """Seconds of ``90s``, ``1.5min``, ``2h`` or a bare number."""
    import re

    from factory_sim.errors import ScenarioError

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h)?\s*", text)
    if not match:
        raise ScenarioError(f"duration '{text}' is not a number with s, min or h, such as 90s")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def tokens(
    text: Annotated[list[Path], typer.Option("--text", metavar="FILE", help="Text file (UTF-8); often.")] = [],  # noqa: B006
    words: Annotated[float, typer.Option("--words", help="Words of text.")] = 0.0,
    pages: Annotated[float, typer.Option("--pages", help="Pages of a document.")] = 0.0,
    pages_as: Annotated[str, typer.Option("--pages-as", help="text, image or both.")] = "text",
    image: Annotated[list[str], typer.Option("--image", metavar="WxH", help="Image size in pixels; often.")] = [],  # noqa: B006
    audio: Annotated[str | None, typer.Option("--audio", metavar="90s", help="Length of sound in.")] = None,
    speech: Annotated[str | None, typer.Option("--speech", metavar="90s", help="Length of speech out.")] = None,
    video: Annotated[str | None, typer.Option("--video", metavar="60s", help="Length of video in.")] = None,
    video_size: Annotated[str, typer.Option("--video-size", metavar="WxH", help="Size of its frames.")] = "1280x720",
    bases: Annotated[float, typer.Option("--bases", help="Bases of a gene sequence.")] = 0.0,
    dna_rule: Annotated[str, typer.Option("--dna-rule", help="How a gene sequence is cut.")] = "single-base",
    samples: Annotated[float, typer.Option("--samples", help="Samples of a sensor channel.")] = 0.0,
    channels: Annotated[int, typer.Option("--channels", help="Sensor channels.")] = 1,
    out_words: Annotated[float, typer.Option("--out-words", help="Words of the answer.")] = 0.0,
    language: Annotated[str, typer.Option("--language", help="Language of the text: ja, de, ...")] = "en",
    family: Annotated[str, typer.Option("--family", help="Family of models whose rules apply.")] = "openai",
    tokenizer: Annotated[str | None, typer.Option("--tokenizer", help="Tokenizer, if not the family's.")] = None,
    list_price: Annotated[
        str | None,
        typer.Option("--list-price", metavar="MODEL@PROVIDER", help="Prices to apply; the family's example."),
    ] = None,
    as_of: Annotated[datetime | None, typer.Option("--as-of", formats=["%Y-%m-%d"], help="Day of the prices.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say how many tokens a content is, under which tokenizer and rule, and what it costs at a list price."""
    from factory_sim.errors import ScenarioError
    from factory_sim.inputs.content import Content
    from factory_sim.inputs.list_prices import PRICES_AS_OF
    from factory_sim.inputs.list_prices import list_price as look_up
    from factory_sim.model import tokenization

    if pages_as not in ("text", "image", "both"):
        raise ScenarioError(f"--pages-as {pages_as}: use text, image or both")
    for name, value in (
        ("words", words),
        ("pages", pages),
        ("bases", bases),
        ("samples", samples),
        ("out-words", out_words),
    ):
        if not 0 <= value < float("inf"):
            raise ScenarioError(f"--{name} {value}: give a number of at least 0")
    rules = tokenization.family(family)
    content = Content(
        words=words, pages=pages, pages_as=pages_as, images=tuple(image), audio_s=_duration_s(audio) if audio else 0.0,
        video_s=_duration_s(video) if video else 0.0, video_size=video_size, bases=bases, dna_rule=dna_rule,
        samples=samples, channels=channels, language=language,
    )  # fmt: skip
    incoming = [
        tokenization.count_text(
            tokenization.read_text(str(path)), tokenizer or rules["tokenizer"], language
        ).model_copy(update={"part": f"text {path.name} ({tokenization.language_name(language)})"})
        for path in text
    ]
    incoming += tokenization.content_tokens(content, family, tokenizer)
    answer = Content(words=out_words, language=language, audio_s=_duration_s(speech) if speech else 0.0)
    outgoing = list(tokenization.content_tokens(answer, family, tokenizer, output=True))
    if not incoming and not outgoing:
        raise ScenarioError("nothing to count: give --text, --words, --image, --audio, --video, --pages or --bases")
    prices = look_up(list_price or rules["list_price"], as_of.date() if as_of else PRICES_AS_OF)
    rows = [(part, "in", prices.input_usd_per_million) for part in incoming]
    rows += [(part, "out", prices.output_usd_per_million) for part in outgoing]
    _print_tokens(rows, prices, rules, as_json)


def _print_tokens(rows: list, prices, rules: dict, as_json: bool) -> None:
    lines = [part.model_dump() | {"direction": way, "usd": part.tokens * price / 1e6} for part, way, price in rows]
    total = {way: sum(line["tokens"] for line in lines if line["direction"] == way) for way in ("in", "out")}
    usd = sum(line["usd"] for line in lines)
    if as_json:
        answer = {
            "schema": "factory_sim.tokens/1",
            "parts": lines,
            "input_tokens": total["in"],
            "output_tokens": total["out"],
            "cost_usd": usd,
            "prices": prices.model_dump(mode="json"),
        }
        print(json.dumps(answer, ensure_ascii=False, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Tokens: {rules['label']}", title_justify="left")
    for column in ("Part", "Quantity", "Tokens", "Range", "USD", "Rule", "Basis"):
        right = column in ("Quantity", "Tokens", "Range", "USD")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for line in lines:
        spread = "" if line["low"] == line["high"] else f"{line['low']:,.0f} to {line['high']:,.0f}"
        table.add_row(
            line["part"],
            f"{line['quantity']:,g} {line['unit']}",
            f"{line['tokens']:,.0f}",
            spread,
            f"{line['usd']:.6f}",
            line["rule"],
            line["basis"],
        )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    console.print(table)
    console.print(f"in {total['in']:,.0f} tokens, out {total['out']:,.0f} tokens: {usd:.6f} USD")
    console.print(
        f"at {prices.model}@{prices.provider} on {prices.as_of}: {prices.input_usd_per_million:g} USD in, "
        f"{prices.output_usd_per_million:g} USD out per million; {prices.source}"
    )
    if rules["note"]:
        print(f"note: {rules['note']}", file=sys.stderr)


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
    from factory_sim.results.reprice import reprice as price_again
    from factory_sim.results.store import read_run

    stored = read_run(run)
    found = price_again(stored, settings, scales)
    table = found.after.rename(columns={"value": "new"}).merge(
        found.before[["figure", "window", "service", "value"]].rename(columns={"value": "before"}),
        on=["figure", "window", "service"],
    )
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
        rows = f"{profile['measured_rows']} measured rows, {profile['first_date']} to {profile['last_date']}"
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
