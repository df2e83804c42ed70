"""Unit economics: what a request, a user, a conversation, a page, an image or a minute of speech costs and earns.

A unit is so many input and output tokens. Its cost is those tokens at the fully loaded cost of their kind (idle and
failed capacity spread in proportion), so the units of all tokens together cost the whole bill.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.inputs.content import Content
from factory_sim.model.tokenization import content_tokens, total_tokens
from factory_sim.records import Record
from factory_sim.units import MILLION

if TYPE_CHECKING:
    import pandas as pd


class Unit(Record):
    """One thing that a planner counts, in tokens."""

    name: str
    input_tokens: float
    output_tokens: float
    requests: float = 0.0
    """Mean requests that it stands for; 0 for a piece of content, which is only tokens."""


@cache
def content_units(family: str = "openai", tokenizer: str | None = None, language: str = "en") -> tuple[Unit, ...]:
    """Pages, images, minutes of audio, seconds of video and a thousand words, under the rules of a family of models."""
    given = {
        "page in": (Content(pages=1, language=language), Content()),
        "image in (1024x1024)": (Content(images=("1024x1024",)), Content()),
        "minute of audio in": (Content(audio_s=60), Content()),
        "second of video in": (Content(video_s=1), Content()),
        "thousand words in": (Content(words=1000, language=language), Content()),
        "thousand words out": (Content(), Content(words=1000, language=language)),
        "minute of speech out": (Content(), Content(audio_s=60)),
    }
    return tuple(
        Unit(
            name=name,
            input_tokens=total_tokens(content_tokens(sent, family, tokenizer)),
            output_tokens=total_tokens(content_tokens(said, family, tokenizer, output=True)),
        )
        for name, (sent, said) in given.items()
    )


def traffic_units(
    figures: pd.Series,
    users: float | None = None,
    requests_per_conversation: float = 4.0,
    requests_per_task: float = 20.0,
) -> tuple[Unit, ...]:
    """Mean request, conversation, agent task, and (with ``users``) a user over the time that the figures cover.

    ``figures`` is a row of ``statements.unit_costs``. How many requests make a conversation or a task is stated.
    """
    requests = float(figures.requests_completed)
    if requests <= 0:
        return ()
    tokens = np.array([figures.input_tokens, figures.output_tokens], dtype=float)
    counts = {
        "request": 1.0,
        f"conversation ({requests_per_conversation:g} requests)": requests_per_conversation,
        f"agent task ({requests_per_task:g} requests)": requests_per_task,
    }
    if users:
        counts["user"] = requests / users
    return tuple(
        Unit(name=name, input_tokens=mean[0], output_tokens=mean[1], requests=count)
        for name, count in counts.items()
        for mean in [tokens / requests * count]
    )


def unit_economics(
    figures: pd.Series, units: tuple[Unit, ...], price: tuple[float, float] | None = None
) -> pd.DataFrame:
    """Cost, revenue and margin of each unit, USD: unit, input_tokens, output_tokens, cost_usd, revenue_usd, margin_usd.

    ``figures`` is a row of ``statements.unit_costs``. What stands for requests earns its part of all sales, fees and
    credits included; a piece of content earns ``price``, (input, output) in USD per million tokens, or the mean revenue
    per token of the figures.
    """
    import pandas as pd

    cost_in = figures.fully_loaded_cost_per_million_input_tokens / MILLION
    cost_out = figures.fully_loaded_cost_per_million_output_tokens / MILLION
    mean = figures.revenue_per_million_tokens
    price_in, price_out = (mean, mean) if price is None else price
    rows = []
    for unit in units:
        cost = unit.input_tokens * cost_in + unit.output_tokens * cost_out
        if unit.requests:
            revenue = figures.revenue / figures.requests_completed * unit.requests
        else:
            revenue = (unit.input_tokens * price_in + unit.output_tokens * price_out) / MILLION
        rows.append([unit.name, unit.input_tokens, unit.output_tokens, cost, revenue, revenue - cost])
    columns = ["unit", "input_tokens", "output_tokens", "cost_usd", "revenue_usd", "margin_usd"]
    return pd.DataFrame(rows, columns=columns)


def power_figures(figures: pd.Series, hours: float) -> dict[str, float]:
    """Revenue per GPU-hour (USD) and per MW-year of mean power at the meter (USD)."""
    mean_mw = figures.energy_kwh / hours / 1e3 if hours else float("nan")
    years = hours / (365.25 * 24)
    return {
        "revenue_per_gpu_hour": float(figures.revenue / figures.gpu_hours) if figures.gpu_hours else float("nan"),
        "revenue_per_mw_year": float(figures.revenue / (mean_mw * years)) if mean_mw else float("nan"),
    }
