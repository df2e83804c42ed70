"""What plans need to know of a run beyond its windows: latencies against their promises, long prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from factory_sim.ledger.long_context import column_name, measured_thresholds, with_long_shares
from factory_sim.ledger.promises import column_names, latency_promises, with_promises

if TYPE_CHECKING:
    import pandas as pd

    from factory_sim.inputs.money import Money


def with_plan_facts(windows: pd.DataFrame, tables: Mapping[str, pd.DataFrame], money: Money) -> pd.DataFrame:
    """The windows with the columns that the plans of ``money`` read; further tables of the run are read only for those."""
    return with_long_shares(with_promises(windows, tables, money), tables, money)


def fact_columns(money: Money) -> list[str]:
    """Names of those columns."""
    promised = [name for promise in latency_promises(money) for name in column_names(promise)]
    return promised + [column_name(above, side) for above in measured_thresholds(money) for side in ("input", "output")]
