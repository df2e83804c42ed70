"""Where a figure comes from: a tree down to quantity times price, each leaf with row, source, date and class.

The tree is of means over replications (sums of leaves, so it adds up); the summary has their median with its band,
which stands beside the root.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import RunError, closest
from factory_sim.inputs.prices import PriceRow
from factory_sim.inputs.profiles import groups
from factory_sim.ledger.accounts import COST_LINES, FLEET_BESIDE, MEMO_LINES, NANO, REVENUE_LINES
from factory_sim.ledger.makers import made_by, maker_services, of_tokens
from factory_sim.ledger.plan_facts import with_plan_facts
from factory_sim.ledger.postings import Books, keep_books
from factory_sim.ledger.sanity import stale_prices
from factory_sim.ledger.statements import kinds, signed_nusd
from factory_sim.model.generation import rows_of_profile
from factory_sim.results.figures import is_step
from factory_sim.results.reprice import UNITS, RunTerms, run_terms
from factory_sim.units import KILOWATT_HOUR_J, MILLION, WEEK_S

if TYPE_CHECKING:
    import pandas as pd

    from factory_sim.results.store import StoredRun

_PER_MILLION = {
    "cost_per_million_output_tokens": ("output_tokens",),
    "cost_per_million_tokens": ("input_tokens", "output_tokens"),
}
_ATTRIBUTED = {
    "attributed_cost_per_million_input_tokens": "input",
    "attributed_cost_per_million_output_tokens": "output",
}
_PER_OUTPUT = {
    "cost_per_image": ("images", "images", "image"),
    "cost_per_video": ("videos", "videos", "video"),
    "cost_per_video_second": ("videos", "video_s", "video-second"),
}
"""Figures of images and videos: what the services make, the column that counts it, one of it."""
_USE_FIGURES = {
    "cost_of_training": "train",
    "cost_of_idle_capacity": "idle",
    "cost_of_failed_capacity": "down",
    "cost_not_attributed_otherwise": "",
}
RATIOS = {
    "cost_reduction_first_to_last_week": ("cost_per_million_output_tokens", "first / last", "week_"),
    "cost_reduction_first_to_last_stage": ("cost_per_million_output_tokens", "first / last", "stage_"),
    "revenue_growth_first_to_last_week": ("revenue", "last / first", "week_"),
    "output_token_growth_first_to_last_week": ("output_tokens", "last / first", "week_"),
}
"""Ratios: the figure below them, which way round, and the spans whose ends they compare."""
_COUNTED = {
    "input_tokens": "tokens", "cached_input_tokens": "tokens", "output_tokens": "tokens", "reasoning_tokens": "tokens",
    "requests_arrived": "requests", "requests_completed": "requests", "requests_turned_away": "requests",
    "requests_lost": "requests", "requests_within_slo": "requests", "gpu_hours": "GPU-h", "gpu_hours_down": "GPU-h",
    "demand": "requests", "images": "images", "videos": "videos", "video_s": "s",
}  # fmt: skip
_FORMULAS = {
    "slo_attainment": "requests_within_slo / requests_completed, counted request by request",
    "utilisation": "busy GPU-hours / paid GPU-hours",
    "availability": "1 - gpu_hours_down / gpu_hours",
    "prefix_cache_hit_rate": "cached_input_tokens / input_tokens",
    "energy": "(GPUs + share of the hosts) x PUE",
    "energy_per_output_token": "energy / output_tokens, both of the services that make tokens",
    "energy_per_image": "energy / images, both of the services that make images",
    "energy_per_video": "energy / videos, both of the services that make videos",
    "output_tokens_per_s_per_gpu": "output_tokens / (gpu_hours x 3600), both of the services that make tokens",
    "video_seconds": "videos times the seconds that each plays, by its frames and their rate",
    "demand": "latent requests of the demand process, served or not",
}
_PARTS = {
    "slo_attainment": ("requests_within_slo", "requests_completed"),
    "utilisation": ("busy_gpu_hours", "gpu_hours"),
    "availability": ("gpu_hours_down", "gpu_hours"),
    "prefix_cache_hit_rate": ("cached_input_tokens", "input_tokens"),
    "energy": ("gpu_energy", "host_energy", "pue"),
    "energy_per_output_token": ("energy", "output_tokens"),
    "output_tokens_per_s_per_gpu": ("output_tokens", "gpu_hours"),
}
"""What the formula of a figure without money is made of."""
_MEASURED = {
    "busy_gpu_hours": "busy share of the instances that were up, step by step, times their GPU-hours",
    "gpu_energy": "power curves of data/power: measured under load; idle and prefill estimated",
    "host_energy": "all_in_it_power less tdp of data/catalog/gpus.csv, for every GPU-hour",
    "pue": "facility energy / IT energy",
}


@dataclass
class Node:
    """One figure of the tree."""

    label: str
    value: float
    unit: str
    formula: str = ""
    children: list[Node] = field(default_factory=list)
    row: PriceRow | None = None
    """Price row of a leaf."""
    quantity: float = float("nan")
    """Quantity of a leaf, in the unit that its price buys."""
    trust: dict[str, float] = field(default_factory=dict)
    """Part of the quantity on each rung of the ladder of trust, by GPU-hours of its windows."""


@dataclass(frozen=True)
class Explanation:
    """The tree of a figure and what it rests on."""

    root: Node
    summary: dict | None
    """The figure as the summary has it (value, low, high), where it is there."""
    shares: dict[str, float]
    """Part of the money in the tree by class of its price: measured, list price, estimate, stated, assumption."""
    trust: dict[str, float]
    """Part of the windows by the class of the profile behind their quantities, by GPU-hours."""
    profiles: list[dict]
    """Profiles behind the quantities: stage, profile, trust, share (of GPU-hours), measured_rows, first_date, last_date."""
    warnings: list[str]


def explain(run: StoredRun, figure: str, window: str = "whole", service: str = "all") -> Explanation:
    """Explain a figure of a stored run.

    Raises RunError for a figure, window or service that the run does not have, with the closest.
    """
    stored = run_terms(run.scenario_yaml, str(run.folder / "scenario.yaml"))
    figures = run.figures
    known = sorted(set(figures.figure) | set(UNITS))
    if figure not in known:
        raise RunError(f"{run.folder}: no figure '{figure}'{closest(figure, known)}")
    windows = picked(run.tables["windows"], window, service, run)
    books = keep_books(with_plan_facts(run.tables["windows"], run.tables, stored.money), stored.money, start=stored.start)
    root = _tree(figure, windows, books, window, service, run)
    rows = figures[(figures.figure == figure) & (figures.window == window) & (figures.service == service)]
    summary = rows.iloc[0].to_dict() if len(rows) else None
    return Explanation(root, summary, _shares(root), _rungs(windows), _profiles(windows), _warnings(root, stored))


def picked(windows: pd.DataFrame, window: str, service: str, run: StoredRun) -> pd.DataFrame:
    """Windows of a span and service."""
    if service != "all":
        names = sorted(set(windows.service.astype(str)))
        if service not in names:
            raise RunError(f"{run.folder}: no service '{service}'{closest(service, names)}")
        windows = windows[windows.service.astype(str) == service]
    spans = span_names(windows)
    if window not in spans:
        raise RunError(f"{run.folder}: no window '{window}'{closest(window, spans)}")
    return windows[_in_span(windows, window)]


def span_names(windows: pd.DataFrame) -> list[str]:
    """Names of all spans of a table of windows: the whole, its weeks, its stages in order of time."""
    weeks = sorted({int(start // WEEK_S) + 1 for start in windows.start_s.unique()})
    first_s = windows.groupby(windows.stage.astype(str), sort=True).start_s.min().sort_values(kind="stable")
    stages = [stage for stage in first_s.index if stage]
    return ["whole", *(f"week_{week}" for week in weeks), *(f"stage_{stage}" for stage in stages)]


def compared_spans(windows: pd.DataFrame, kind: str) -> list[str]:
    """Weeks, or stages that made tokens, in order of time; their ends are what the first-to-last ratios compare."""
    names = [name for name in span_names(windows) if name.startswith(kind)]
    if kind != "stage_":
        return names
    tokens = windows.groupby(windows.stage.astype(str)).output_tokens.sum()
    return [name for name in names if is_step(name) and tokens[name.removeprefix(kind)] > 0] or names


def _in_span(table: pd.DataFrame, window: str) -> np.ndarray:
    if window.startswith("week_"):
        return ((table.start_s // WEEK_S).astype(int) + 1 == int(window.removeprefix("week_"))).to_numpy()
    if window.startswith("stage_"):
        return (table.stage.astype(str) == window.removeprefix("stage_")).to_numpy()
    return np.ones(len(table), dtype=bool)


def _tree(figure: str, windows: pd.DataFrame, books: Books, window: str, service: str, run: StoredRun) -> Node:
    count = windows.replication.nunique()
    postings = books.postings
    postings = postings[_in_span(postings, window)]
    if service != "all":
        postings = postings[postings.service.astype(str) == service]
    if figure in RATIOS:
        return _ratio_node(figure, books, service, run)
    if figure in ("cost", "revenue"):
        return _money_node(figure, postings, books, windows, count)
    if figure == "margin":
        sides = [_money_node(side, postings, books, windows, count) for side in ("revenue", "cost")]
        return Node("margin", sides[0].value - sides[1].value, "USD", "revenue - cost", sides)
    if figure == "cost_simulated_fleet":
        beside = postings[(postings.line == FLEET_BESIDE).to_numpy()]
        parts = [
            _money_node("cost", postings, books, windows, count),
            _money_node("memo", beside, books, windows, count, label="fleet of the run beyond the paid schedule"),
        ]
        return Node(figure, sum(part.value for part in parts), "USD", "cost + what the run's fleet costs more", parts)
    if figure == "gross_margin":
        sides = [_money_node(side, postings, books, windows, count) for side in ("revenue", "cost")]
        value = 1 - sides[1].value / sides[0].value if sides[0].value else float("nan")
        return Node(figure, value, "fraction", "1 - cost / revenue", sides)
    if figure in _PER_MILLION or figure in _ATTRIBUTED or figure.startswith("fully_loaded"):
        return _per_million_node(figure, postings, books, windows, count)
    if figure in _PER_OUTPUT:
        return _per_output_node(figure, postings, books, windows, count)
    if figure in _USE_FIGURES:
        part = postings[(postings.use.astype(str) == _USE_FIGURES[figure]).to_numpy()]
        return _money_node("cost", part, books, windows, count, label=figure)
    if figure == "energy_contained_in_rent":
        return _money_node(
            "memo", postings[(postings.line == "energy").to_numpy()], books, windows, count, label=figure
        )
    return _physical_node(figure, windows, window, service, run, count)


def _money_node(
    kind: str, postings: pd.DataFrame, books: Books, windows: pd.DataFrame, count: int, label: str | None = None
) -> Node:
    """A side of the statement: lines, and below each its price rows."""
    part = postings[kinds(postings) == kind]
    titles = MEMO_LINES if kind == "memo" else COST_LINES | REVENUE_LINES
    lines = []
    table = part.assign(usd=signed_nusd(part) / NANO)
    for line, of_line in table.groupby("line", observed=True, sort=True):
        leaves = [
            _leaf(str(row), of_row, books.rows[str(row)], windows, count)
            for row, of_row in of_line.groupby("price_row", observed=True, sort=True)
        ]
        leaves.sort(key=lambda leaf: -abs(leaf.value))
        title = titles.get(str(line), str(line))
        lines.append(Node(title, sum(leaf.value for leaf in leaves), "USD", children=leaves))
    lines.sort(key=lambda node: -abs(node.value))
    return Node(label or kind, sum(node.value for node in lines), "USD", "sum of the lines", lines)


def _leaf(name: str, postings: pd.DataFrame, row: PriceRow, windows: pd.DataFrame, count: int) -> Node:
    quantity = float(postings.quantity.sum()) / count
    unit = str(postings.unit.iloc[0])
    uses = postings.assign(use=postings.use.astype(str)).groupby("use").quantity.sum() / count
    split = ", ".join(f"{use} {value:,.4g}" for use, value in uses.items() if use and abs(value) > 1e-9 * abs(quantity))
    formula = f"{quantity:,.6g} {unit} x {row.value:.6g} {row.unit}" + (f" ({split})" if split else "")
    stages = set(postings.stage.astype(str))
    behind = windows[windows.stage.astype(str).isin(stages)]
    return Node(
        name, float(postings.usd.sum()) / count, "USD", formula, row=row, quantity=quantity, trust=_rungs(behind)
    )


def _per_million_node(figure: str, postings: pd.DataFrame, books: Books, windows: pd.DataFrame, count: int) -> Node:
    makers = maker_services(windows)
    windows, postings = windows[of_tokens(windows, makers)], postings[of_tokens(postings, makers)]
    cost = _money_node("cost", postings, books, windows, count)
    if figure in _PER_MILLION:
        sides = _PER_MILLION[figure]
    else:
        use = "input" if "input" in figure else "output"
        sides = (f"{use}_tokens",)
        own = postings[(postings.use.astype(str) == use).to_numpy()]
        whole = cost
        cost = _money_node("cost", own, books, windows, count, label=f"cost attributed to {use}")
        if figure.startswith("fully_loaded"):
            worked = postings[postings.use.astype(str).isin(["input", "output"]).to_numpy()]
            worked_usd = _money_node("cost", worked, books, windows, count).value
            trained = postings[(postings.use.astype(str) == "train").to_numpy()]
            served_usd = whole.value - _money_node("cost", trained, books, windows, count).value
            factor = served_usd / worked_usd if worked_usd else float("nan")
            cost = Node(f"fully loaded cost of {use}", cost.value * factor, "USD", f"attributed x {factor:.6g}", [cost])
    tokens = [_counted(side, windows, count) for side in sides]
    millions = sum(node.value for node in tokens) / MILLION
    value = cost.value / millions if millions else float("nan")
    return Node(figure, value, "USD/million tokens", f"{cost.label} / millions of tokens", [cost, *tokens])


def _per_output_node(figure: str, postings: pd.DataFrame, books: Books, windows: pd.DataFrame, count: int) -> Node:
    made, column, unit = _PER_OUTPUT[figure]
    makers = maker_services(windows)
    windows, postings = windows[made_by(windows, makers, made)], postings[made_by(postings, makers, made)]
    cost, outputs = _money_node("cost", postings, books, windows, count), _counted(column, windows, count)
    value = cost.value / outputs.value if outputs.value else float("nan")
    return Node(figure, value, f"USD/{unit}", f"cost / {column}", [cost, outputs])


def _counted(name: str, windows: pd.DataFrame, count: int) -> Node:
    """A quantity that is a column of the windows."""
    unit = _COUNTED[name]
    formula = f"sum of {name} over {len(windows) // max(count, 1)} windows, mean of {count} replications"
    return Node(name, float(windows[name].sum()) / count, unit, formula, trust=_rungs(windows))


def _ratio_node(figure: str, books: Books, service: str, run: StoredRun) -> Node:
    """Ratio of the first and the last week or stage, each explained."""
    below, form, kind = RATIOS[figure]
    every = run.tables["windows"]
    if service != "all":
        every = every[(every.service.astype(str) == service).to_numpy()]
    spans = compared_spans(every, kind)
    ends = []
    for span in (spans[0], spans[-1]):
        part = picked(every, span, service, run)
        node = _tree(below, part, books, span, service, run)
        node.label = f"{node.label} ({span})"
        ends.append(node)
    top, bottom = ends if form.startswith("first") else ends[::-1]
    value = top.value / bottom.value if bottom.value else float("nan")
    return Node(figure, value, "ratio", form, ends)


def _physical_node(figure: str, windows: pd.DataFrame, window: str, service: str, run: StoredRun, count: int) -> Node:
    """A figure without money: counted in the windows, or named with its rule."""
    if figure in _COUNTED and figure in windows:
        return _counted(figure, windows, count)
    figures = run.figures
    rows = figures[(figures.figure == figure) & (figures.window == window) & (figures.service == service)]
    if not len(rows):
        raise RunError(f"{run.folder}: figure '{figure}' is not there for window '{window}' and service '{service}'")
    row = rows.iloc[0]
    formula = _FORMULAS.get(figure, "from the windows")
    if figure[:4] in ("ttft", "tpot", "e2e_") or figure.startswith("time_to_"):
        formula = "percentile of log-binned histograms of the requests played (70 bins an octave, 1 % wide)"
    parts = [_part(name, windows, window, service, run, count) for name in _PARTS.get(figure, ())]
    return Node(figure, float(row.value), str(row.unit), formula, parts, trust=_rungs(windows))


def _part(name: str, windows: pd.DataFrame, window: str, service: str, run: StoredRun, count: int) -> Node:
    """A quantity below a figure: counted, measured in joules or hours, or a figure of its own."""
    if name in _PARTS:
        return _physical_node(name, windows, window, service, run, count)
    if name not in _MEASURED:
        return _counted(name, windows, count)
    up = windows.gpu_hours - windows.gpu_hours_down
    value, unit = {
        "busy_gpu_hours": lambda: ((windows.busy_fraction * up).sum() / count, "GPU-h"),
        "gpu_energy": lambda: (windows.gpu_energy_j.sum() / KILOWATT_HOUR_J / count, "kWh"),
        "host_energy": lambda: ((windows.it_energy_j - windows.gpu_energy_j).sum() / KILOWATT_HOUR_J / count, "kWh"),
        "pue": lambda: (windows.facility_energy_j.sum() / windows.it_energy_j.sum(), "ratio"),
    }[name]()
    return Node(name, float(value), unit, _MEASURED[name], trust=_rungs(windows))


def _profiles(windows: pd.DataFrame) -> list[dict]:
    """Profiles behind the windows, stage by stage, with what they were fitted to."""
    if "trust" not in windows or "profile" not in windows:
        return []
    keys = [windows[name].astype(str) for name in ("service", "stage", "profile", "trust")]
    hours = windows.gpu_hours.groupby(keys, sort=False).sum()
    whole, found = float(hours.sum()), []
    for (service, stage, profile, trust), own in hours.items():
        fitted = [group for group in groups() if group.profile == profile]
        found.append(
            {
                "service": service,
                "stage": stage,
                "profile": profile,
                "trust": trust,
                "share": float(own) / whole if whole else 0.0,
                "measured_rows": sum(group.rows for group in fitted) or len(rows_of_profile(profile)),
                "first_date": min((group.dates[0] for group in fitted), default=""),
                "last_date": max((group.dates[1] for group in fitted), default=""),
            }
        )
    return found


def _rungs(windows: pd.DataFrame) -> dict[str, float]:
    """Part of the windows on each rung of the ladder of trust, by GPU-hours."""
    if "trust" not in windows or not len(windows):
        return {}
    weight = windows.groupby(windows.trust.astype(str)).gpu_hours.sum()
    total = float(weight.sum())
    return {str(name): float(value) / total for name, value in weight.items()} if total else {}


def _leaves(node: Node) -> list[Node]:
    return [node] if node.row is not None else [leaf for child in node.children for leaf in _leaves(child)]


def _shares(root: Node) -> dict[str, float]:
    """Part of the money by class of its price row."""
    sums: dict[str, float] = {}
    for leaf in _leaves(root):
        sums[leaf.row.trust] = sums.get(leaf.row.trust, 0.0) + abs(leaf.value)
    total = sum(sums.values())
    return {name: value / total for name, value in sorted(sums.items())} if total else {}


def _warnings(root: Node, stored: RunTerms) -> list[str]:
    rows = {leaf.row.row: leaf.row for leaf in _leaves(root)}
    return stale_prices(list(rows.values()), stored.start.date() if stored.start else None)
