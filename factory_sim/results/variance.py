"""Which uncertainty makes the band: the variance of a figure split by source.

Prices are told apart by pricing the same windows at other vintages and ranges. What replications differ in is told apart
by regression on what each drew (table ``draws``): its error of the profiles and its drift of demand; what neither
explains is the sampling of the workload, with failures and everything else that was drawn as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from factory_sim.errors import RunError, closest
from factory_sim.inputs.money import Money
from factory_sim.ledger.bands import draw_prices, vintages, with_vintage
from factory_sim.ledger.makers import maker_services, of_tokens
from factory_sim.ledger.plan_facts import with_plan_facts
from factory_sim.ledger.postings import post
from factory_sim.ledger.sanity import SPOT
from factory_sim.ledger.statements import unit_costs
from factory_sim.results.explain import RATIOS, compared_spans, picked
from factory_sim.results.reprice import run_terms
from factory_sim.streams import stream
from factory_sim.units import MILLION, WEEK_S

if TYPE_CHECKING:
    import pandas as pd

    from factory_sim.results.store import StoredRun


def _loaded(table: pd.DataFrame, side: str) -> pd.Series:
    """Cost of a side with idle and failed capacity spread over both sides in proportion, USD per million tokens."""
    worked = table.attributed_input + table.attributed_output
    served = table.cost - table.unattributed_train
    return table[f"attributed_{side}"] * served / worked / table[f"{side}_tokens"] * MILLION


FIGURES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "cost": lambda table: table.cost,
    "revenue": lambda table: table.revenue,
    "margin": lambda table: table.revenue - table.cost,
    "gross_margin": lambda table: 1 - table.cost / table.revenue,
    "cost_per_million_output_tokens": lambda table: table.cost / table.output_tokens * MILLION,
    "cost_per_million_tokens": lambda table: table.cost / (table.input_tokens + table.output_tokens) * MILLION,
    "attributed_cost_per_million_input_tokens": lambda table: table.attributed_input / table.input_tokens * MILLION,
    "attributed_cost_per_million_output_tokens": lambda table: table.attributed_output / table.output_tokens * MILLION,
    "fully_loaded_cost_per_million_input_tokens": lambda table: _loaded(table, "input"),
    "fully_loaded_cost_per_million_output_tokens": lambda table: _loaded(table, "output"),
    "cost_of_training": lambda table: table.unattributed_train,
    "cost_of_idle_capacity": lambda table: table.unattributed_idle,
    "cost_of_failed_capacity": lambda table: table.unattributed_down,
    "cost_not_attributed_otherwise": lambda table: table.unattributed_other,
    "energy_contained_in_rent": lambda table: table.energy_memo,
    "input_tokens": lambda table: table.input_tokens,
    "output_tokens": lambda table: table.output_tokens,
}
"""Figures that are functions of sums by stage."""
_SUMS = (
    "revenue", "cost", "attributed_input", "attributed_output", "unattributed_train", "unattributed_idle",
    "unattributed_down", "unattributed_other", "energy_memo", "input_tokens", "output_tokens",
)  # fmt: skip
SOURCES = ("price vintage", "price ranges", "profile error", "demand forecast", "workload sampling")
UNSPLIT = "replications"
"""Source that stands for the last three where too few replications were played to tell them apart."""
_DRAWN = {
    "profile error": "profile_error", "profile error of TTFT": "profile_error_ttft", "demand forecast": "demand_forecast",
}  # fmt: skip
"""Sources by their name in the table of draws."""
_PRICE_DRAWS = 32
_LATENCY = ("ttft", "e2e", "slo_attainment")
"""Figures that the error of TTFT moves beside that of the step times."""


@dataclass(frozen=True)
class Fit:
    """A figure by replication as far as its draws explain it."""

    joint: np.ndarray
    """With all draws as they were."""
    alone: dict[str, np.ndarray]
    """With one source as drawn and the others at their mean."""
    used: int
    """Coefficients of the regression besides the constant."""


def variance_split(
    windows: pd.DataFrame,
    terms: Money,
    figure: str = "cost_per_million_output_tokens",
    *,
    draws: pd.DataFrame | None = None,
    seed: int = 1,
    start: datetime | None = None,
) -> pd.DataFrame:
    """Variance of a money figure by source: source, variance, share, low, high (its P10 and P90 from that alone).

    Sources: the vintage of rents (each that all GPUs have is as likely), the ranges of single prices, and what the
    replications drew: profile error and demand forecast by regression on ``draws``, workload sampling the rest. Each is
    a main effect with the others at their stated or mean value; shares add up to 1, interactions are left out. Without
    draws, or with fewer than three replications more than there are coefficients, ``replications`` stands for the last
    three.
    """
    if figure not in FIGURES:
        raise RunError(f"no variance split for '{figure}'{closest(figure, FIGURES)}")
    return _money_split([windows], terms, figure, draws, seed, start)


def _money_split(
    spans: list[pd.DataFrame], terms: Money, figure: str, draws: pd.DataFrame | None, seed: int, start: datetime | None
) -> pd.DataFrame:
    """The split of a money figure of one span, or of the ratio of two."""
    gpus = sorted({str(gpu) for windows in spans for gpu in windows.gpu.unique()})
    services = sorted({str(name) for windows in spans for name in windows.service.unique()})

    def values(money: Money) -> np.ndarray:
        return _figure(figure, [_parts(windows, post(windows, money, start=start), figure) for windows in spans])

    stated = [_parts(windows, post(windows, terms, start=start), figure) for windows in spans]
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = _figure(figure, stated)
    if not np.isfinite(whole).all():
        raise RunError(f"'{figure}' is undefined in some replication, so it has no variance")
    ranges = terms.model_copy(update={"band": "ranges"})
    rng = stream(seed, "variance", figure)
    drawn = [draw_prices(ranges, rng, gpus=gpus, services=services) for _ in range(_PRICE_DRAWS)]
    found = {
        "price vintage": np.array([values(with_vintage(terms, one)).mean() for one in vintages(terms, gpus)]),
        "price ranges": np.array([values(draw).mean() for draw in drawn if draw.drawn]),
    }
    return _table(found, whole, _fit_of_parts(figure, stated, spans, draws))


def _parts(windows: pd.DataFrame, postings: pd.DataFrame, figure: str) -> pd.DataFrame:
    """The sums that a figure is made of, by service, stage and replication; per token those of services of tokens."""
    makers = maker_services(windows) if "per_million" in figure else {}
    windows, postings = windows[of_tokens(windows, makers)], postings[of_tokens(postings, makers)]
    return unit_costs(windows, postings, ["service", "stage", "replication"])[list(_SUMS)].fillna(0.0)


def _figure(figure: str, parts: list[pd.DataFrame]) -> np.ndarray:
    """The figure of each replication from the parts of one span, or the ratio of two spans."""
    ends = [FIGURES[figure](table.groupby(level="replication").sum()).to_numpy(float) for table in parts]
    return ends[0] if len(ends) == 1 else ends[0] / ends[1]


def _table(found: dict[str, np.ndarray], stated: np.ndarray, fit: Fit | None) -> pd.DataFrame:
    """Rows of the split from the values of each source alone."""
    import pandas as pd

    rows = [_row(source, sample, stated.mean()) for source, sample in found.items()]
    rows += replication_effects(stated, fit)
    table = pd.DataFrame(rows, columns=["source", "variance", "low", "high"])
    total = table.variance.sum()
    table.insert(2, "share", table.variance / total if total > 0 else 0.0)
    return table


def _row(source: str, sample: np.ndarray, middle: float) -> list:
    if len(sample) < 2:
        return [source, 0.0, middle, middle]
    spread = float(sample.var(ddof=0 if source == "price vintage" else 1))
    low, high = np.quantile(sample, [0.1, 0.9])
    return [source, spread, float(low), float(high)]


def replication_effects(values: np.ndarray, fit: Fit | None) -> list[list]:
    """[source, variance, low, high] of what replications differ in; the variances add up to that of ``values``.

    The variance not left to the residuals of the fit (per degree of freedom, so that chance correlation counts as
    sampling) is shared in proportion to the variance of each source alone.
    """
    if fit is None or len(values) < fit.used + 3 or not np.isfinite(values).all():
        return [_row(UNSPLIT, values, float(values.mean()))]
    middle, whole, rest = float(values.mean()), float(values.var(ddof=1)), values - fit.joint
    unexplained = min(float(rest @ rest) / (len(values) - 1 - fit.used), whole)
    total = sum(float(part.var(ddof=1)) for part in fit.alone.values())
    scale = (whole - unexplained) / total if total > 0 else 0.0
    # The parts are drawn in to the variance that is left to them, so that range and share say the same.
    rows = [_row(name, middle + (part - part.mean()) * np.sqrt(scale), middle) for name, part in fit.alone.items()]
    sampled = max(whole - sum(row[1] for row in rows), 0.0)
    return [*rows, ["workload sampling", sampled, *(middle + np.quantile(rest, [0.1, 0.9])).tolist()]]


def linear_fit(values: np.ndarray, columns: dict[str, np.ndarray]) -> Fit:
    """Least squares of a figure on the columns of each source, of shape (replications, columns); constants are left out."""
    centred = {name: matrix - matrix.mean(axis=0) for name, matrix in columns.items()}
    centred = {name: matrix[:, np.ptp(matrix, axis=0) > 1e-12] for name, matrix in centred.items()}
    design = np.column_stack([np.ones(len(values)), *centred.values()])
    effect, *_ = np.linalg.lstsq(design, values, rcond=None)
    edges = np.cumsum([1, *(matrix.shape[1] for matrix in centred.values())])
    alone = {
        name: effect[0] + matrix @ effect[first:last]
        for (name, matrix), first, last in zip(centred.items(), edges, edges[1:])
    }
    return Fit(design @ effect, alone, design.shape[1] - 1)


def _fit_of_parts(
    figure: str, parts: list[pd.DataFrame], spans: list[pd.DataFrame], draws: pd.DataFrame | None
) -> Fit | None:
    """The figure from sums by stage that are each fitted to the draws of that stage, in logs (a power law of the error)."""
    if draws is None:
        return None
    joint, used = [table.copy() for table in parts], 0
    alone = {source: [table.copy() for table in parts] for source in ("profile error", "demand forecast")}
    for number, (table, windows) in enumerate(zip(parts, spans)):
        late = float((windows.start_s.min() + windows.end_s.max()) / 2 / WEEK_S)
        for service, stage in table.index.droplevel("replication").unique():
            own = table.loc[(service, stage)]
            columns = {
                source: _draw(draws, source, str(service), str(stage), own.index)[:, None] * (late if forecast else 1.0)
                for source, forecast in (("profile error", False), ("demand forecast", True))
            }
            for name in table.columns:
                fit = _power_fit(own[name].to_numpy(float), columns)
                used = max(used, fit.used)
                joint[number].loc[(service, stage), name] = fit.joint
                for source, values in fit.alone.items():
                    alone[source][number].loc[(service, stage), name] = values
    return Fit(_figure(figure, joint), {source: _figure(figure, tables) for source, tables in alone.items()}, used)


def _power_fit(values: np.ndarray, columns: dict[str, np.ndarray]) -> Fit:
    """The fit in logs; the mean for sums that are not all above zero, or of one replication."""
    if len(values) < 2 or not (values > 0).all():
        flat = np.full(len(values), values.mean())
        return Fit(flat, dict.fromkeys(columns, flat), 0)
    fit = linear_fit(np.log(values), columns)
    return Fit(np.exp(fit.joint), {name: np.exp(part) for name, part in fit.alone.items()}, fit.used)


def _draw(draws: pd.DataFrame, source: str, service: str, stage: str, replications: pd.Index) -> np.ndarray:
    """What each replication drew for a stage of a service (or its demand); zeros where nothing was drawn."""
    own = draws[(draws.source == _DRAWN[source]) & (draws.service == service)]
    if source != "demand forecast":
        own = own[own.stage == stage.removesuffix(SPOT)]
    return own.set_index("replication").value.reindex(replications).fillna(0.0).to_numpy(float)


def _fit_of_played(values: np.ndarray, figure: str, windows: pd.DataFrame, draws: pd.DataFrame | None) -> Fit | None:
    """A figure without money, fitted to the draws of all stages weighted by their output tokens (requests without)."""
    if draws is None:
        return None
    weights = "output_tokens" if windows.output_tokens.any() else "requests_completed"
    tokens = windows.groupby(["service", "stage"], observed=True)[weights].sum()
    tokens = tokens / max(float(tokens.sum()), 1.0)
    replications = windows.replication.drop_duplicates().sort_values()
    wanted = {source: [source] for source in ("profile error", "demand forecast")}
    if figure.startswith(_LATENCY):
        wanted["profile error"].append("profile error of TTFT")
    columns = {
        name: np.column_stack(
            [
                sum(
                    share * _draw(draws, source, str(service), str(stage), replications)
                    for (service, stage), share in tokens.items()
                )
                for source in sources
            ]
        )
        for name, sources in wanted.items()
    }
    return linear_fit(values, columns)


def explain_band(run: StoredRun, figure: str, window: str = "whole", service: str = "all") -> list[dict]:
    """The variance split of a figure of a stored run: source, variance, share, low, high of each.

    Figures without money have no price sources; ratios of first to last week or stage are split like others.
    """
    stored = run_terms(run.scenario_yaml, str(run.folder / "scenario.yaml"))
    draws = run.tables["draws"] if "draws" in run.tables else None  # noqa: SIM401 (get raises on a run without them)
    every = with_plan_facts(run.tables["windows"], run.tables, stored.money)
    windows = picked(every, window, service, run)
    below = RATIOS[figure][0] if figure in RATIOS else figure
    if below in FIGURES:
        spans = _ends(run, every, figure, service) if figure in RATIOS else [windows]
        table = _money_split(spans, stored.money, below, draws, stored.seed, stored.start)
    else:
        values = _played(run, figure, window, service)
        table = _table({}, values, _fit_of_played(values, figure, windows, draws))
    return table.to_dict("records")


def _ends(run: StoredRun, windows: pd.DataFrame, figure: str, service: str) -> list[pd.DataFrame]:
    """Windows of the numerator and of the denominator of a ratio."""
    _, form, kind = RATIOS[figure]
    every = picked(windows, "whole", service, run)
    spans = compared_spans(every, kind)
    ends = [picked(every, span, service, run) for span in (spans[0], spans[-1])]
    return ends if form.startswith("first") else ends[::-1]


def _played(run: StoredRun, figure: str, window: str, service: str) -> np.ndarray:
    """The figure in each replication, as the run has it."""
    table = run.tables["replications"] if "replications" in run.tables else None  # noqa: SIM401
    known = sorted({*FIGURES, *RATIOS, *(() if table is None else map(str, table.figure.unique()))})
    if table is None or figure not in known:
        raise RunError(f"{run.folder}: no variance split for '{figure}'{closest(figure, known)}")
    rows = table[(table.figure == figure) & (table.window == window) & (table.service == service)]
    if not len(rows):
        raise RunError(f"{run.folder}: figure '{figure}' is not there for window '{window}' and service '{service}'")
    values = rows.sort_values("replication").value.to_numpy(float)
    if not np.isfinite(values).all():
        raise RunError(f"{run.folder}: '{figure}' is undefined in some replication, so it has no variance")
    return values
