"""Long contexts: which part of a service's tokens is in requests whose prompt is longer than a plan's threshold.

A plan may state the parts; else they are those of the requests that were played (the sample that a run keeps).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from factory_sim.errors import PriceError
from factory_sim.inputs.list_prices import ListPrice, list_price
from factory_sim.inputs.plans import LongContext, Plan

if TYPE_CHECKING:
    import pandas as pd

    from factory_sim.inputs.money import Money


def listed_price(plan: Plan, key: str) -> ListPrice:
    """The list price that a plan names; PriceError says which plan."""
    try:
        return list_price(plan.list_price, plan.as_of, plan.processing)
    except PriceError as error:
        raise PriceError(f"money.plans.{key}.{error}") from None


def long_context(plan: Plan, key: str) -> LongContext | None:
    """The plan's terms for long prompts; with a list price the provider's own, with the parts that the plan states."""
    if not plan.list_price:
        return plan.long_context
    listed = listed_price(plan, key)
    if listed.long_above_tokens is None:
        return None
    stated = plan.long_context
    return LongContext(
        above_tokens=listed.long_above_tokens,
        input_multiplier=listed.long_input_usd_per_million / listed.input_usd_per_million,
        output_multiplier=listed.long_output_usd_per_million / listed.output_usd_per_million,
        share_of_input=stated.share_of_input if stated else None,
        share_of_output=stated.share_of_output if stated else None,
    )


def column_name(above_tokens: float, side: str) -> str:
    """Column of windows for the part of the ``input`` or ``output`` tokens in prompts above a threshold."""
    return f"long_above_{above_tokens:.9g}_{side}"


def measured_thresholds(money: Money) -> list[float]:
    """Thresholds of all plans whose parts are to be measured, rising."""
    plans = [
        (plan, key) for key, found in money.plans.items() for plan in (found if isinstance(found, tuple) else (found,))
    ]
    terms = [long for plan, key in plans if (long := long_context(plan, key)) is not None]
    return sorted({t.above_tokens for t in terms if None in (t.share_of_input, t.share_of_output)})


def with_long_shares(windows: pd.DataFrame, tables: Mapping[str, pd.DataFrame], money: Money) -> pd.DataFrame:
    """The windows with two columns a threshold to be measured: the parts of the tokens of their service in long prompts.

    Reads ``requests`` and ``weights`` of the run where a plan needs them; a service without sampled requests has none.
    """
    thresholds = measured_thresholds(money)
    if not thresholds:
        return windows
    keys = ["replication", "window_played"]
    of_service = tables["weights"].drop_duplicates(keys).set_index(keys).service.astype(str)
    played = tables["requests"].join(of_service, on=["replication", "window"], how="inner")
    sums = played.groupby("service")[["isl", "osl"]].sum()
    columns = {}
    for threshold in thresholds:
        long = played[played.isl > threshold].groupby("service")[["isl", "osl"]].sum().reindex(sums.index, fill_value=0)
        for side, length in (("input", "isl"), ("output", "osl")):
            share = (long[length] / sums[length].where(sums[length] > 0)).fillna(0.0)
            columns[column_name(threshold, side)] = windows.service.astype(str).map(share).fillna(0.0).to_numpy(float)
    return windows.assign(**columns)
