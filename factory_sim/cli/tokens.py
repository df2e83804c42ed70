"""`factory-sim tokens`: how many tokens a content is, under which rule, and what it costs."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def _duration_s(text: str) -> float:
    """Seconds of ``90s``, ``1.5min``, ``2h`` or a bare number."""
    import re

    from factory_sim.errors import ScenarioError

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h)?\s*", text)
    if not match:
        raise ScenarioError(f"duration '{text}' is not a number with s, min or h, such as 90s")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def _check(pages_as: str, amounts: dict[str, float]) -> None:
    """Raise ScenarioError for an option out of its range."""
    from factory_sim.errors import ScenarioError

    if pages_as not in ("text", "image", "both"):
        raise ScenarioError(f"--pages-as {pages_as}: use text, image or both")
    for name, value in amounts.items():
        if not 0 <= value < float("inf"):
            raise ScenarioError(f"--{name} {value}: give a number of at least 0")


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

    _check(pages_as, {"words": words, "pages": pages, "bases": bases, "samples": samples, "out-words": out_words})
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
