"""Statements: profit and loss, and what a token costs, as functions of postings and windows.

Two ways of costing a token stand side by side. *Attributed*: each dollar goes to input or to output by the seconds and
joules it paid for, idle and failed capacity stays apart, and the parts add up to the bill. *Whole hour*: the industry's
habit of dividing the whole bill by one kind of token, which counts every dollar once for each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import FactorySimError
from factory_sim.ledger.accounts import COST_LINES, MEMO_LINES, NANO, REVENUE_LINES, USES, exact_sum_nusd, sum_usd
from factory_sim.ledger.entries import Calendar
from factory_sim.ledger.makers import maker_services, of_tokens
from factory_sim.units import DAY_S, HOUR_S, MILLION, WEEK_S

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("cost", "memo", "revenue")
PERIODS = ("hour", "day", "week", "month")
_PERIOD_S = {"hour": HOUR_S, "day": DAY_S, "week": WEEK_S}


def kinds(postings: pd.DataFrame) -> pd.Categorical:
    """``cost``, ``revenue`` or ``memo`` for each posting, by its accounts."""
    import pandas as pd

    by_debit, by_credit = (_by_account(postings[side], _kind) for side in ("debit", "credit"))
    return pd.Categorical.from_codes(np.where(by_debit >= 0, by_debit, by_credit).astype(np.int8), KINDS)


def _by_account(accounts: pd.Series, of: Callable[[str], object]) -> np.ndarray:
    """A function of the account's name for every posting, computed once an account."""
    import pandas as pd

    if not len(accounts):
        return np.empty(0, dtype=np.int8)
    labels = accounts.array if isinstance(accounts.dtype, pd.CategoricalDtype) else pd.Categorical(accounts)
    return np.array([of(str(name)) for name in labels.categories])[labels.codes]


def _kind(account: str) -> int:
    head = account.partition(":")[0]
    return KINDS.index(head) if head in KINDS else -1


def signed_nusd(postings: pd.DataFrame) -> np.ndarray:
    """Amounts with the sign they have in their statement: what debits a revenue account (a credit note) is negative."""
    amounts = postings.amount_nusd.to_numpy()
    if not len(amounts):
        return amounts
    return amounts * np.where(_by_account(postings.debit, lambda name: name.startswith("revenue:")), -1, 1)


def with_period(table: pd.DataFrame, period: str, calendar: Calendar) -> pd.DataFrame:
    """The table with a column ``period``: the number of the hour, day or week from the start, or the calendar month."""
    if period not in PERIODS:
        raise FactorySimError(f"period '{period}' is not known; use {', '.join(PERIODS)}")
    start_s = table.start_s.to_numpy(float)
    number = calendar.month(start_s) if period == "month" else (start_s // _PERIOD_S[period]).astype(np.int64)
    return table.assign(period=number)


def profit_and_loss(postings: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Dollars by line: columns ``by``, kind, line, title, use, usd; credit notes are negative revenue."""
    # Only the columns needed: postings are large, and a copy of them all is the peak of memory.
    table = postings[[*by, "line", "use"]].assign(kind=kinds(postings), amount_nusd=signed_nusd(postings))
    usd = sum_usd(table, [*by, "kind", "line", "use"]).rename("usd").reset_index()
    titles = {"cost": COST_LINES, "revenue": REVENUE_LINES, "memo": MEMO_LINES}
    usd["title"] = [titles[kind].get(line, line) for kind, line in zip(usd.kind, usd.line)]
    return usd[[*by, "kind", "line", "title", "use", "usd"]]


def totals(postings: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Revenue, cost, margin (USD) and margin_fraction by group; without ``by`` one row."""
    by = list(by)
    table = postings[by].assign(kind=kinds(postings), amount_nusd=signed_nusd(postings))
    if not by:
        table, by = table.assign(all="all"), ["all"]
    wide = sum_usd(table, [*by, "kind"]).unstack("kind", fill_value=0.0)
    wide = wide.reindex(columns=["revenue", "cost"], fill_value=0.0)
    wide.columns.name = None
    wide["margin"] = wide.revenue - wide.cost
    wide["margin_fraction"] = _ratio(wide.margin, wide.revenue)
    return wide


def total_nusd(postings: pd.DataFrame, kind: str) -> int:
    """Exact total of ``cost`` or ``revenue`` in nano-dollars."""
    return exact_sum_nusd(signed_nusd(postings)[kinds(postings) == kind])


def trial_balance(postings: pd.DataFrame) -> pd.DataFrame:
    """Debits, credits and balance of each account in whole nano-dollars (Python integers); balances sum to zero."""
    import pandas as pd

    sums: dict[str, list[int]] = {}
    for side, column in enumerate(("debit", "credit")):
        for account, amounts in postings.groupby(column, observed=True).amount_nusd:
            sums.setdefault(str(account), [0, 0])[side] = exact_sum_nusd(amounts.to_numpy())
    table = pd.DataFrame(
        [[name, debit, credit, debit - credit] for name, (debit, credit) in sorted(sums.items())],
        columns=["account", "debit_nusd", "credit_nusd", "balance_nusd"],
    )
    return table.astype({"debit_nusd": object, "credit_nusd": object, "balance_nusd": object})


def _ratio(top: pd.Series, bottom: pd.Series) -> pd.Series:
    """Quotient, undefined (NaN) where there is nothing to divide by."""
    return top / bottom.where(bottom != 0)


def unit_costs(windows: pd.DataFrame, postings: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """What tokens cost and earn, by group (columns of both tables; without ``by`` one row).

    Money, USD: revenue, cost, margin; attributed_input, attributed_output, unattributed_train, unattributed_idle,
    unattributed_down, unattributed_other (these six add up to cost); energy_memo (energy that the rent contains).
    Quantities: input_tokens, output_tokens, requests_completed, gpu_hours, energy_kwh.
    USD per million tokens, of the services that make tokens (images and videos stay out of both sides): cost_per_million_output_tokens and cost_per_million_input_tokens (the whole bill over one
    kind: the industry's figure), cost_per_million_tokens (the whole bill over all tokens),
    attributed_cost_per_million_input_tokens and attributed_cost_per_million_output_tokens, and the same with
    idle and failed capacity spread in proportion (fully_loaded_...; training on the same site stays out).
    """
    makers = maker_services(windows)
    whole = _sums(windows, postings, list(by))
    if not makers:
        return _per_million(whole, whole)
    text = _sums(windows[of_tokens(windows, makers)], postings[of_tokens(postings, makers)], list(by))
    return _per_million(whole, text.reindex(whole.index, fill_value=0.0))


def _sums(windows: pd.DataFrame, postings: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Money and quantities by group."""
    postings = postings[[*keys, "line", "use", "debit", "credit", "amount_nusd"]]
    if not keys:
        windows, postings, keys = windows.assign(all="all"), postings.assign(all="all"), ["all"]
    table = totals(postings, keys)
    parts = _attributed(postings, keys).reindex(table.index, fill_value=0.0)
    table = table.join(parts)
    quantities = ["input_tokens", "output_tokens", "requests_completed", "gpu_hours"]
    sums = windows.groupby(keys, observed=True, sort=True)[[*quantities, "facility_energy_j"]].sum()
    sums["energy_kwh"] = sums.pop("facility_energy_j") / 3.6e6
    return table.reindex(table.index.union(sums.index), fill_value=0.0).join(sums)


def _attributed(postings: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Costs by what they paid for."""
    kind = kinds(postings)
    costs = postings.loc[kind == "cost", [*keys, "use", "amount_nusd"]]
    wide = sum_usd(costs, [*keys, "use"]).unstack("use", fill_value=0.0)
    names = {
        "input": "attributed_input",
        "output": "attributed_output",
        "train": "unattributed_train",
        "idle": "unattributed_idle",
        "down": "unattributed_down",
        "": "unattributed_other",
    }
    wide = wide.reindex(columns=list(names), fill_value=0.0).rename(columns=names)
    wide.columns.name = None
    memo = postings.loc[(kind == "memo") & (postings.line == "energy").to_numpy(), [*keys, "amount_nusd"]]
    wide["energy_memo"] = sum_usd(memo, keys).reindex(wide.index, fill_value=0.0) if len(memo) else 0.0
    return wide


def _per_million(whole: pd.DataFrame, text: pd.DataFrame) -> pd.DataFrame:
    """The sums with the figures per million tokens, which are those of `text`: the services that make tokens."""
    table = whole.copy()
    millions = {"input": text.input_tokens / MILLION, "output": text.output_tokens / MILLION}
    both = millions["input"] + millions["output"]
    table["cost_per_million_tokens"] = _ratio(text.cost, both)
    worked = text.attributed_input + text.attributed_output
    served = text.cost - text.unattributed_train
    for side, quantity in millions.items():
        own = text[f"attributed_{side}"]
        table[f"cost_per_million_{side}_tokens"] = _ratio(text.cost, quantity)
        table[f"attributed_cost_per_million_{side}_tokens"] = _ratio(own, quantity)
        loaded = own * _ratio(served, worked)
        table[f"fully_loaded_cost_per_million_{side}_tokens"] = _ratio(loaded, quantity)
    table["revenue_per_million_tokens"] = _ratio(text.revenue, both)
    table["revenue_per_gpu_hour"] = _ratio(table.revenue, table.gpu_hours)
    table["cost_per_request"] = _ratio(table.cost, table.requests_completed)
    return table


def nano_to_usd(amount_nusd: int) -> float:
    """Nano-dollars as dollars."""
    return amount_nusd / NANO


_COST_USES = (*USES, "other")
MONEY_COLUMNS = ("revenue", "cost", *(f"cost_{use}" for use in _COST_USES), "energy_memo")


def window_money(postings: pd.DataFrame) -> pd.DataFrame:
    """Dollars of each (replication, start_s, service, stage): revenue, cost, the cost by use, and the energy memo."""
    import pandas as pd

    kind = kinds(postings)
    use = _by_account(postings.use, lambda name: name or "other")
    usd = signed_nusd(postings) / NANO
    keys = ["replication", "start_s", "service", "stage"]
    table = postings[keys].copy()
    is_cost = kind == "cost"
    table["revenue"] = np.where(kind == "revenue", usd, 0.0)
    table["cost"] = np.where(is_cost, usd, 0.0)
    for name in _COST_USES:
        table[f"cost_{name}"] = np.where(is_cost & (use == name), usd, 0.0)
    table["energy_memo"] = np.where((kind == "memo") & (postings.line == "energy").to_numpy(), usd, 0.0)
    if not len(table):
        return pd.DataFrame(columns=[*keys, *MONEY_COLUMNS])
    return table.groupby(keys, observed=True, sort=True)[list(MONEY_COLUMNS)].sum().reset_index()
