"""New statements from an old journal: price the windows of a stored run again, without simulating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from pydantic import ValidationError

from factory_sim.errors import PriceError, RunError, closest
from factory_sim.inputs.money import Money, Scale
from factory_sim.inputs.schema_errors import explained
from factory_sim.ledger.accounts import COST_LINES, REVENUE_LINES
from factory_sim.ledger.bands import draw_prices
from factory_sim.ledger.makers import maker_services, of_tokens
from factory_sim.ledger.plan_facts import with_plan_facts
from factory_sim.ledger.plans import check_plan_names
from factory_sim.ledger.postings import Books, keep_books, post
from factory_sim.ledger.statements import window_money
from factory_sim.results.figures import mark_spans
from factory_sim.streams import stream
from factory_sim.units import MILLION

if TYPE_CHECKING:
    import pandas as pd

    from factory_sim.results.store import StoredRun

UNITS = {
    "revenue": "USD", "cost": "USD", "margin": "USD", "gross_margin": "fraction",
    "cost_per_million_output_tokens": "USD/million tokens", "cost_per_million_tokens": "USD/million tokens",
    "attributed_cost_per_million_input_tokens": "USD/million tokens",
    "attributed_cost_per_million_output_tokens": "USD/million tokens",
    "fully_loaded_cost_per_million_input_tokens": "USD/million tokens",
    "fully_loaded_cost_per_million_output_tokens": "USD/million tokens",
    "cost_of_training": "USD",
    "cost_of_idle_capacity": "USD", "cost_of_failed_capacity": "USD", "cost_not_attributed_otherwise": "USD",
    "energy_contained_in_rent": "USD",
}  # fmt: skip
"""Money figures and their units."""


@dataclass(frozen=True)
class RunTerms:
    """What pricing needs from a stored scenario."""

    name: str
    money: Money
    start: datetime | None
    seed: int
    services: tuple[str, ...]
    reacting: tuple[str, ...]
    """Services whose demand or price answered to money while the run was played."""
    users: dict[str, float]
    """Users behind the demand of each service, where the scenario has them."""


@dataclass(frozen=True)
class Repriced:
    """A statement at new prices beside the one at the run's own."""

    before: pd.DataFrame
    """Money figures at the run's own terms: figure, window, service, value, unit."""
    after: pd.DataFrame
    """Money figures at the new terms, with their band: figure, window, service, value, low, high, unit."""
    terms: Money
    books: Books
    """Postings and price rows at the new terms."""
    reacting: tuple[str, ...]


def run_terms(scenario_yaml: str, where: str = "scenario.yaml") -> RunTerms:
    """Read the terms of money out of a resolved scenario."""
    raw = yaml.safe_load(scenario_yaml)
    if not isinstance(raw, dict):
        raise RunError(f"{where}: holds no scenario")
    start = raw.get("start")
    start = datetime.fromisoformat(start) if isinstance(start, str) else start
    services = raw.get("services") or {}
    return RunTerms(
        name=str(raw.get("name", "")),
        money=read_money(raw.get("money") or {}, where),
        start=start,
        seed=int(raw.get("seed", 1)),
        services=tuple(services),
        reacting=tuple(name for name, service in services.items() if _reacts(service)),
        users={name: float(count) for name, service in services.items() if (count := _users(service))},
    )


def read_money(raw: dict[str, Any], where: str) -> Money:
    """Check a mapping against the schema of money; PriceError says path, found value and reason."""
    try:
        return Money.model_validate(raw)
    except ValidationError as error:
        raise PriceError(explained(error, raw, Money, where, "money")) from None


def _users(service: dict[str, Any]) -> float | None:
    """Users behind the demand of a service; None for a replayed trace."""
    return ((service.get("traffic") or {}).get("demand") or {}).get("users")


def _reacts(service: dict[str, Any]) -> bool:
    """Whether demand answered to the price, or the price to the cost, in the run."""

    def walk(node: Any) -> bool:
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ("price_elasticity", "willing_usd_per_million") and value:
                    return True
                if key == "price_path" and value != "held":
                    return True
                if walk(value):
                    return True
        return isinstance(node, list) and any(walk(item) for item in node)

    return walk(service)


def changed_money(money: Money, settings: Sequence[str], scales: Sequence[str]) -> Money:
    """Terms after ``path=value`` settings (paths below ``money``) and ``name=factor`` scales.

    Scales: ``prices`` (all), ``costs``, ``sales``, or one line of the statement such as ``rent`` or ``output_tokens``.
    """
    raw = money.model_dump(mode="json")
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise PriceError(f"--set {setting}: write path=value, e.g. --set plans.chat.output_usd_per_million=1.5")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise PriceError(f"--set {setting}: '{text}' is not a YAML value") from None
        _put(raw, path.strip().removeprefix("money."), value)
    scale = dict(raw.get("scale") or Scale().model_dump())
    known = ["prices", "costs", "sales", *COST_LINES, *REVENUE_LINES]
    for setting in scales:
        name, equals, text = setting.partition("=")
        factor = _factor(setting, text if equals else "")
        if name in ("prices", "costs", "sales"):
            scale[name] = scale.get(name, 1.0) * factor
        elif name in known:
            scale["lines"] = dict(scale.get("lines") or {})
            scale["lines"][name] = scale["lines"].get(name, 1.0) * factor
        else:
            raise PriceError(f"--scale {setting}: no price or line '{name}'{closest(name, known)}")
    return read_money(raw | {"scale": scale}, "--set")


def _factor(setting: str, text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = float("nan")
    if not 0 < factor < float("inf"):
        raise PriceError(f"--scale {setting}: write name=factor with a factor above 0, e.g. --scale prices=2")
    return factor


def _put(raw: dict[str, Any], path: str, value: Any) -> None:
    parts = path.split(".")
    if parts[0] not in Money.model_fields:
        near = closest(parts[0], Money.model_fields)
        raise PriceError(f"--set {path}: reprice changes money only, nothing of what was played{near}")
    node: Any = raw
    for number, part in enumerate(parts[:-1]):
        if isinstance(node, list):
            node = node[_item(node, part, path)]
            continue
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict | list):
            raise PriceError(
                f"--set {path}: '{'.'.join(parts[: number + 1])}' holds {node!r}, which has nothing below it"
            )
    if isinstance(node, list):
        node[_item(node, parts[-1], path)] = value
    else:
        node[parts[-1]] = value


def _item(items: list, part: str, path: str) -> int:
    names = [str(item.get("name")) if isinstance(item, dict) else "" for item in items]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(items):
        return int(part)
    raise PriceError(f"--set {path}: the list has no item '{part}'{closest(part, [name for name in names if name])}")


def reprice(run: StoredRun, settings: Sequence[str] = (), scales: Sequence[str] = ()) -> Repriced:
    """Price a stored run again at changed terms.

    Where demand or prices answered to money in the run, the result is what the *same* traffic would have cost and
    earned; ``reacting`` names the services concerned, so that it can be marked.
    """
    stored = run_terms(run.scenario_yaml, str(run.folder / "scenario.yaml"))
    terms = changed_money(stored.money, settings, scales)
    check_plan_names(terms, list(stored.services))
    windows = with_plan_facts(run.tables["windows"], run.tables, terms)
    old = keep_books(with_plan_facts(windows, run.tables, stored.money), stored.money, start=stored.start).postings
    before = money_figures(windows, old, old).drop(columns=["low", "high"])
    books = keep_books(windows, terms, start=stored.start)
    after = money_figures(windows, books.postings, drawn_postings(windows, terms, stored))
    return Repriced(before, after, terms, books, stored.reacting)


def drawn_postings(windows: pd.DataFrame, terms: Money, stored: RunTerms) -> pd.DataFrame:
    """Postings of each replication at its own draw of the uncertain prices (the draws that the run itself made)."""
    import pandas as pd

    gpus = sorted(set(windows.gpu.astype(str)))
    alike: dict[str, tuple[Money, list[int]]] = {}
    replications = np.unique(windows.replication)
    for replication in replications:
        rng = stream(stored.seed, "prices", f"replication {replication}")
        place = (replication + 0.5) / len(replications)
        draw = draw_prices(terms, rng, gpus=gpus, services=list(stored.services), stratum=place)
        alike.setdefault(draw.model_dump_json(), (draw, []))[1].append(int(replication))
    # Replications that drew the same prices are priced together.
    return pd.concat(
        [post(windows[windows.replication.isin(own)], draw, start=stored.start) for draw, own in alike.values()],
        ignore_index=True,
    )


def money_figures(windows: pd.DataFrame, postings: pd.DataFrame, drawn: pd.DataFrame) -> pd.DataFrame:
    """Money figures by window (whole, week_n, stage_name) and service (all, each): figure, window, service, value, low,
    high, unit. ``value`` is the median over replications at the stated prices, ``low`` and ``high`` the 10th and 90th
    percentile at the drawn ones.
    """
    import pandas as pd

    tokens = _spans(windows[["replication", "start_s", "service", "stage", "input_tokens", "output_tokens"]])
    keys = ["window", "service", "replication"]
    sums = tokens.groupby(keys, sort=False, observed=True)[["input_tokens", "output_tokens"]].sum()
    makers = maker_services(windows)

    def summed(money: pd.DataFrame) -> pd.DataFrame:
        return _spans(money).groupby(keys, sort=False, observed=True).sum(numeric_only=True)

    def priced(postings: pd.DataFrame) -> pd.DataFrame:
        money = window_money(postings)
        whole = summed(money)
        return _figures(whole, summed(money[of_tokens(money, makers)]) if makers else whole, sums)

    stated, other = priced(postings), priced(drawn)
    value = stated.groupby(["window", "service"], sort=False).median()
    low, high = (other.groupby(["window", "service"], sort=False).quantile(q) for q in (0.1, 0.9))
    parts = {"value": value, "low": low, "high": high}
    long = pd.DataFrame(
        {name: table.rename_axis(columns="figure").stack(future_stack=True) for name, table in parts.items()}
    )
    long = long.reset_index()
    # A band holds its value: at a stated price dearer than every draw the value itself is the end of the band.
    long["low"], long["high"] = long[["low", "value"]].min(axis=1), long[["high", "value"]].max(axis=1)
    long["unit"] = long.figure.map(UNITS)
    return long[["figure", "window", "service", "value", "low", "high", "unit"]]


def _spans(table: pd.DataFrame) -> pd.DataFrame:
    """Every row once for each span and service that it belongs to."""
    text = table.assign(service=table.service.astype(str), stage=table.stage.astype(str))
    return mark_spans(text).drop(columns=["start_s", "stage"])


def _figures(money: pd.DataFrame, text: pd.DataFrame, tokens: pd.DataFrame) -> pd.DataFrame:
    """`text`: the money of the services that make tokens, on which alone the figures per token stand."""
    money, text = (table.reindex(tokens.index).fillna(0.0) for table in (money, text))
    million_in, million_out = (tokens[f"{side}_tokens"] / MILLION for side in ("input", "output"))

    def per(top: pd.Series, bottom: pd.Series) -> pd.Series:
        return top / bottom.where(bottom != 0)

    loading = per(text.cost - text.cost_train, text.cost_input + text.cost_output)
    table = {
        "revenue": money.revenue,
        "cost": money.cost,
        "margin": money.revenue - money.cost,
        "gross_margin": per(money.revenue - money.cost, money.revenue),
        "cost_per_million_output_tokens": per(text.cost, million_out),
        "cost_per_million_tokens": per(text.cost, million_in + million_out),
        "attributed_cost_per_million_input_tokens": per(text.cost_input, million_in),
        "attributed_cost_per_million_output_tokens": per(text.cost_output, million_out),
        "fully_loaded_cost_per_million_input_tokens": per(text.cost_input * loading, million_in),
        "fully_loaded_cost_per_million_output_tokens": per(text.cost_output * loading, million_out),
        "cost_of_training": money.cost_train,
        "cost_of_idle_capacity": money.cost_idle,
        "cost_of_failed_capacity": money.cost_down,
        "cost_not_attributed_otherwise": money.cost_other,
        "energy_contained_in_rent": money.energy_memo,
    }
    import pandas as pd

    return pd.DataFrame(table).replace([np.inf, -np.inf], np.nan)
