"""The chart of accounts: which account each line debits and credits, and exact sums of nano-dollars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import PriceError

if TYPE_CHECKING:
    import pandas as pd

NANO = 10**9
"""Nano-dollars in a dollar: amounts of postings are int64 nano-dollars."""

_LARGEST = 2.0**63
USES = ("input", "output", "train", "idle", "down")
"""What capacity did: worked on prompts, worked on answers, trained, waited, or was down."""

COST_LINES = {
    "rent": "Rent of GPUs",
    "depreciation": "Depreciation of owned machines",
    "capital": "Cost of capital",
    "facility": "Facility",
    "colocation": "Colocation",
    "maintenance": "Maintenance",
    "energy": "Energy",
    "demand_charge": "Demand charge",
    "staff": "Staff",
    "software": "Software licences",
    "egress": "Network egress",
    "carbon": "Carbon price",
    "fixed": "Fixed costs",
    "training": "Training, amortised",
    "write_off": "Write-off of machines that left",
    "commitment_rest": "Rest of commitments of machines that left",
}
REVENUE_LINES = {
    "input_tokens": "Input tokens",
    "cached_input_tokens": "Cached input tokens",
    "output_tokens": "Output tokens",
    "reasoning_tokens": "Reasoning tokens",
    "requests": "Requests",
    "images": "Images",
    "videos": "Videos",
    "video_seconds": "Seconds of video",
    "subscription": "Subscriptions",
    "minimum": "Top-up to the minimum bill",
    "commitment": "Shortfall of commitments",
    "sla_credit": "Service credits",
}
FLEET_BESIDE = "simulated_fleet"
"""Memo line: what the fleet of the run would cost beyond a schedule that is paid instead."""
MEMO_LINES = {
    "energy": "Energy, contained in the rent",
    "carbon": "Emissions, not priced",
    FLEET_BESIDE: "Simulated fleet beyond the paid schedule",
}


_APART = {"idle": "idle", "down": "failed", "train": "training"}


def line_title(line: str, use: str = "") -> str:
    """Title of a line in a statement; what idle, failed and training capacity cost has a line of its own."""
    title = (REVENUE_LINES | COST_LINES).get(line, line)
    return f"{title}, {_APART[use]}" if use in _APART else title


def statement_titles() -> list[str]:
    """Every title in the order of a statement: sales, then costs, each with its parts."""
    return [line_title(line, use) for line in (*REVENUE_LINES, *COST_LINES) for use in ("", *_APART)]


def cost_accounts(line: str, use: str = "") -> tuple[str, str]:
    """Debit and credit of a cost line: what it was used for, and whom it is owed to."""
    return f"cost:{line}:{use}" if use else f"cost:{line}", f"payable:{line}"


def revenue_accounts(line: str) -> tuple[str, str]:
    """Debit and credit of a sale; a service credit runs the other way."""
    if line == "sla_credit":
        return "revenue:sla_credit", "receivable:customers"
    return "receivable:customers", f"revenue:{line}"


def memo_accounts(line: str, use: str = "") -> tuple[str, str]:
    """Both sides of a quantity that is reported but not charged."""
    return f"memo:{line}:{use}" if use else f"memo:{line}", f"memo_offset:{line}"


def to_nano(dollars: np.ndarray) -> np.ndarray:
    """Dollars as whole nano-dollars (int64), rounded half to even.

    PriceError for amounts that are not finite or above 9.2e9 dollars a posting: then a unit is wrong.
    """
    nano = np.rint(np.asarray(dollars, dtype=np.float64) * NANO)
    if nano.size and not np.abs(nano).max() < _LARGEST:
        worst = np.abs(nano).max() / NANO
        raise PriceError(
            f"a single posting of {worst:g} USD is more than the books hold; is a price in the wrong unit?"
        )
    return nano.astype(np.int64)


def exact_sum_nusd(amounts: np.ndarray) -> int:
    """Sum of nano-dollar amounts as a Python integer: exact, and without overflow however many there are."""
    amounts = np.asarray(amounts, dtype=np.int64)
    return int((amounts // NANO).sum()) * NANO + int((amounts % NANO).sum())


def sum_usd(postings: pd.DataFrame, by: list[str]) -> pd.Series:
    """Dollars by group: whole dollars and nano-dollars are summed apart as integers, then joined once.

    The only rounding is that of one float at the end (relative 1e-16), whatever the number of postings.
    """
    import pandas as pd

    parts = pd.DataFrame({"usd": postings.amount_nusd // NANO, "nusd": postings.amount_nusd % NANO})
    sums = parts.groupby([postings[column] for column in by], observed=True, sort=True).sum()
    return sums.usd + sums.nusd / NANO
