"""Figures of a run from its tables: every one can be recomputed from windows, weights, latency histograms and postings.

Each figure is computed once a replication; `value`, `low` and `high` are the P50, P10 and P90 over replications.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from factory_sim.engine.journal import METRICS
from factory_sim.histogram import quantile_rows
from factory_sim.ledger.accounts import FLEET_BESIDE, NANO
from factory_sim.ledger.makers import OUTPUTS, made_by, maker_services, of_tokens
from factory_sim.ledger.sanity import SPOT
from factory_sim.units import DAY_S, HOUR_S, KILOWATT_HOUR_J, MILLION, WEEK_S

TRUST = ("measured", "interpolated", "extrapolated", "estimated")
"""Rungs of the ladder of trust, best first; a figure stands on the worst rung below it."""

QUANTILES = (0.50, 0.95, 0.99)

KEYS = ["window", "service", "replication"]

BATCH = (
    "batch_requests_submitted", "batch_requests_completed", "batch_requests_dropped", "batch_input_tokens",
    "batch_output_tokens",
)  # fmt: skip
"""Columns of the journal's windows that say what became of batch jobs."""

SUMS = (
    "requests_arrived", "requests_completed", "requests_turned_away", "requests_lost", "requests_within_slo",
    "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "gpu_hours", "gpu_hours_down",
    "facility_energy_j", "latent_requests", "busy_gpu_hours",
)  # fmt: skip

UNITS = {
    "cost_per_million_output_tokens": "USD/million tokens",
    "cost_per_million_tokens": "USD/million tokens",
    "revenue": "USD",
    "cost": "USD",
    "cost_simulated_fleet": "USD",
    "margin": "USD",
    "gross_margin": "fraction",
    "output_tokens": "tokens",
    "input_tokens": "tokens",
    "cached_input_tokens": "tokens",
    "reasoning_tokens": "tokens",
    "batch_requests_submitted": "requests",
    "batch_requests_completed": "requests",
    "batch_input_tokens": "tokens",
    "batch_output_tokens": "tokens",
    "batch_within_deadline": "fraction",
    "requests_arrived": "requests",
    "requests_completed": "requests",
    "requests_turned_away": "requests",
    "requests_lost": "requests",
    "ttft_p50": "s",
    "ttft_p95": "s",
    "ttft_p99": "s",
    "tpot_p50": "s",
    "tpot_p95": "s",
    "tpot_p99": "s",
    "e2e_p50": "s",
    "e2e_p95": "s",
    "e2e_p99": "s",
    "images": "images",
    "videos": "videos",
    "video_seconds": "s",
    "cost_per_image": "USD/image",
    "cost_per_video": "USD/video",
    "cost_per_video_second": "USD/video-second",
    "energy_per_image": "J/image",
    "energy_per_video": "J/video",
    "time_to_output_p50": "s",
    "time_to_output_p95": "s",
    "time_to_output_p99": "s",
    "time_to_first_answer_token_p50": "s",
    "time_to_first_answer_token_p95": "s",
    "time_to_first_answer_token_p99": "s",
    **{f"{wait}_p{q}": "s" for wait in ("token_wait", "reader_wait") for q in (50, 95, 99)},
    "slo_attainment": "fraction",
    "prefix_cache_hit_rate": "fraction",
    "utilisation": "fraction",
    "availability": "fraction",
    "gpu_hours": "GPU-h",
    "energy": "kWh",
    "energy_per_output_token": "J/token",
    "carbon": "t CO2e",
    "output_tokens_per_s_per_gpu": "tokens/s",
    "demand": "requests",
    "trained_tokens": "tokens",
    "lost_trained_tokens": "tokens",
    "cost_per_million_trained_tokens": "USD/million tokens",
    "training_progress": "fraction",
    "training_days": "day",
    "cost_reduction_first_to_last_week": "ratio",
    "revenue_growth_first_to_last_week": "ratio",
    "output_token_growth_first_to_last_week": "ratio",
    "cost_reduction_first_to_last_stage": "ratio",
}
"""Every figure and its unit."""


TRAINING = ("trained_tokens", "lost_trained_tokens", "cost_per_million_trained_tokens", "training_progress", "training_days")
"""Figures of training jobs."""

OF_JOBS = (*TRAINING, "cost", "utilisation", "availability", "gpu_hours", "energy", "carbon")
"""All figures that mean something for a training job."""

Mark = Callable[[pd.DataFrame], pd.DataFrame]
"""Repeats the rows of a table (with start_s, service, stage) for every span they belong to: columns window, service."""


def figures(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """All figures of a run: figure, window, service, value, low, high, unit, trust.

    Windows: ``whole``, ``week_1``.. and ``stage_<name>``; services by name and ``all``. Reads the table `replications`
    (`by_replication`), and `windows` for the ladder of trust.
    """
    trust = _trust(mark_spans(tables["windows"]))
    frame = band(tables["replications"], ["window", "service"])
    frame["trust"] = [trust[key] for key in zip(frame["window"], frame["service"])]
    frame["unit"] = frame["figure"].map(UNITS)
    return frame[["figure", "window", "service", "value", "low", "high", "unit", "trust"]]


def replications(tables: dict[str, pd.DataFrame], drawn: pd.DataFrame) -> pd.DataFrame:
    """Every figure of every window and service in each replication: window, service, replication, figure, value, drawn.

    `value` is at the stated prices (table `postings`), `drawn` at the replication's own draw of the uncertain ones.
    """
    found = _at_both_prices(tables, drawn, mark_spans)
    return pd.concat([found, _first_to_last(found)], ignore_index=True)


def _at_both_prices(tables: dict[str, pd.DataFrame], drawn: pd.DataFrame, mark: Mark) -> pd.DataFrame:
    makers, jobs = maker_services(tables["windows"]), _jobs(tables["windows"])
    windows, weights = mark(with_parts(tables["windows"], makers)), mark(tables["weights"])
    latency = percentiles(tables["latency"], weights)
    stated, other = (
        by_replication(windows, latency, mark(_money_parts(money_by_window(postings), makers, jobs)))
        for postings in (tables["postings"], drawn)
    )
    found = stated.assign(drawn=other["value"])
    return found[_applies(found, makers) & _of_jobs(found, jobs)].reset_index(drop=True) if makers or jobs else found


def _jobs(windows: pd.DataFrame) -> list[str]:
    """Names of training jobs."""
    if "training_progress" not in windows:
        return []
    return list(windows["service"][windows["training_progress"].notna()].unique())


def _of_jobs(found: pd.DataFrame, jobs: list[str]) -> np.ndarray:
    """Rows whose figure means something for their name: training for jobs, nothing but that and their cost."""
    job, training = found["service"].isin(jobs), found["figure"].isin(TRAINING)
    return (found["figure"].isin(OF_JOBS) & job | ~job & (~training | (found["service"] == "all"))).to_numpy()


def _applies(found: pd.DataFrame, makers: dict[str, str]) -> np.ndarray:
    """Rows whose figure means something for their service: of tokens, of images or of videos."""
    made = found["service"].map(lambda name: makers.get(name, "tokens"))
    about, all_services = found["figure"].map(_about), found["service"] == "all"
    any_tokens = bool((made[~all_services] == "tokens").any())
    of_all = all_services & ((about != "tokens") | any_tokens)
    own = ~all_services & ((about == made) | ((about == "outputs") & (made != "tokens")))
    return (of_all | own | (about == "")).to_numpy()


def _about(figure: str) -> str:
    """What a figure is of: "tokens", "images", "videos", "outputs" (either), or "" (anything)."""
    if "image" in figure or "video" in figure:
        return "images" if "image" in figure else "videos"
    if figure.startswith("time_to_output"):
        return "outputs"
    return "tokens" if "token" in figure or figure.startswith(("ttft", "tpot", "e2e", "prefix_cache", "reader")) else ""


def ratio_figures(base: pd.DataFrame, other: pd.DataFrame, *, paired: bool) -> pd.DataFrame:
    """Ratios of two runs' `replications`: figure, window, service, ratio, ratio_low, ratio_high (P50, P10, P90).

    `paired`: within each replication, else over all pairs of replications. A ratio to nothing, or between figures that
    may be negative, is undefined.
    """
    keys = ["figure", "window", "service", *(["replication"] if paired else [])]
    both = base.merge(other, on=keys, suffixes=("_base", "_other"))
    for column in ("value", "drawn"):
        one, other_one = both[f"{column}_base"], both[f"{column}_other"]
        both[column] = (other_one / one.where(one > 0)).where(other_one >= 0)
    ratios = band(both, ["window", "service"])
    ratios.loc[ratios["value"].isna(), ["low", "high"]] = np.nan
    return ratios.rename(columns={"value": "ratio", "low": "ratio_low", "high": "ratio_high"})


def series(tables: dict[str, pd.DataFrame], drawn: pd.DataFrame, step_hours: float = 6.0) -> pd.DataFrame:
    """Figures over time: start_s, end_s, figure, service, value, low, high, unit."""
    step_s = step_hours * HOUR_S

    def mark_steps(table: pd.DataFrame) -> pd.DataFrame:
        return _with_all(table.assign(window=np.floor(table["start_s"] / step_s + 1e-9).astype(int)))

    frame = band(_at_both_prices(tables, drawn, mark_steps), ["window", "service"])
    frame["start_s"] = frame.pop("window") * step_s
    frame["end_s"] = np.minimum(frame["start_s"] + step_s, tables["windows"]["end_s"].max())
    frame["unit"] = frame["figure"].map(UNITS)
    return frame[["start_s", "end_s", "figure", "service", "value", "low", "high", "unit"]]


def mark_spans(table: pd.DataFrame) -> pd.DataFrame:
    """Every row once for the whole run, once for its week and once for its stage (if it has one)."""
    week = (table["start_s"] // WEEK_S).astype(int) + 1
    staged = table[table["stage"] != ""]
    copies = [
        table.assign(window="whole"),
        table.assign(window="week_" + week.astype(str)),
        staged.assign(window="stage_" + staged["stage"].astype(str)),
    ]
    return _with_all(pd.concat(copies, ignore_index=True))


def _with_all(table: pd.DataFrame) -> pd.DataFrame:
    """Every row once for all services and once for its own (rows of no service count for all only)."""
    return pd.concat([table.assign(service="all"), table[table["service"] != ""]], ignore_index=True)


def with_parts(windows: pd.DataFrame, makers: dict[str, str]) -> pd.DataFrame:
    """The windows with GPU-hours and joules of tokens, and joules of images and of videos, in columns of their own;
    where jobs train, with each row's own name too.

    `makers`: services of images or videos (`ledger.makers`).
    """
    tokens = of_tokens(windows, makers) & ~windows["service"].isin(_jobs(windows)).to_numpy()
    parts = {f"token_{name}": windows[name].where(tokens, 0.0) for name in ("gpu_hours", "facility_energy_j")}
    for made in dict.fromkeys(makers.values()):
        parts[f"{made}_energy_j"] = windows["facility_energy_j"].where(made_by(windows, makers, made), 0.0)
    if "training_progress" in windows:
        parts["service_of_row"] = windows["service"]
    return windows.assign(**parts)


def _money_parts(money: pd.DataFrame, makers: dict[str, str], jobs: list[str]) -> pd.DataFrame:
    """Money by window with the cost of tokens, of images, of videos and of training in columns of their own."""
    served = of_tokens(money, makers) & ~money["service"].isin(jobs).to_numpy()
    parts = {"token_cost": money["cost"].where(served, 0.0)}
    for made in dict.fromkeys(makers.values()):
        parts[f"{made}_cost"] = money["cost"].where(made_by(money, makers, made), 0.0)
    if jobs:
        parts["training_cost"] = money["cost"].where(money["service"].isin(jobs), 0.0)
    return money.assign(**parts)


def by_replication(windows: pd.DataFrame, latency: pd.DataFrame, money: pd.DataFrame) -> pd.DataFrame:
    """Figures of every (window, service) in each replication: window, service, replication, figure, value.

    `windows` and `money` are marked and hold their parts (`with_parts`); `latency` comes from `percentiles`.
    """
    up = windows["gpu_hours"] - windows["gpu_hours_down"]
    extra = [name for name in windows if name.startswith("token_") or name in ("images", "videos", "video_s")]
    extra += [name for name in windows if name in ("trained_tokens", "lost_trained_tokens", "training_progress")]
    extra += [name for name in (f"{made}_energy_j" for made in OUTPUTS) if name in windows]
    batch = BATCH if BATCH[0] in windows and windows[BATCH[0]].any() else ()
    extra += batch
    sums = windows.assign(busy_gpu_hours=windows["busy_fraction"] * up).groupby(KEYS, sort=False)[[*SUMS, *extra]].sum()
    costs = [name for name in money if name.endswith("cost") or name == "carbon"]
    money = money.groupby(KEYS, sort=False)[["revenue", *costs]].sum().reindex(sums.index).fillna(0.0)
    latency = latency.reindex(sums.index)
    output, paid = _positive(sums["output_tokens"]), _positive(sums["gpu_hours"])
    counts = (
        "output_tokens",
        "input_tokens",
        "cached_input_tokens",
        "requests_arrived",
        "requests_completed",
        "requests_turned_away",
        "requests_lost",
        *(["reasoning_tokens"] if sums["reasoning_tokens"].any() else []),
    )
    wide = pd.DataFrame(
        {
            "cost_per_million_output_tokens": MILLION * money["token_cost"] / output,
            "cost_per_million_tokens": MILLION
            * money["token_cost"]
            / _positive(sums["output_tokens"] + sums["input_tokens"]),
            "revenue": money["revenue"],
            "cost": money["cost"],
            **(
                {"cost_simulated_fleet": money["simulated_fleet_cost"]} if "simulated_fleet_cost" in money else {}
            ),
            "margin": money["revenue"] - money["cost"],
            "gross_margin": 1.0 - money["cost"] / _positive(money["revenue"]),
            **{name: sums[name] for name in counts},
            **{name: latency[name] for name in latency.columns},
            "slo_attainment": sums["requests_within_slo"] / _positive(sums["requests_completed"]),
            "prefix_cache_hit_rate": sums["cached_input_tokens"] / _positive(sums["input_tokens"]),
            "utilisation": sums["busy_gpu_hours"] / paid,
            "availability": 1.0 - sums["gpu_hours_down"] / paid,
            "gpu_hours": sums["gpu_hours"],
            "energy": sums["facility_energy_j"] / KILOWATT_HOUR_J,
            "energy_per_output_token": sums["token_facility_energy_j"] / output,
            "output_tokens_per_s_per_gpu": sums["output_tokens"] / (_positive(sums["token_gpu_hours"]) * HOUR_S),
            "demand": sums["latent_requests"],
            **({"carbon": money["carbon"]} if "carbon" in money else {}),
            **_outputs(sums, money),
            **(_batch(sums) if batch else {}),
            **(_training(windows, sums, money) if "training_cost" in money else {}),
        }
    )
    return wide.rename_axis(columns="figure").stack(future_stack=True).rename("value").reset_index()


def _outputs(sums: pd.DataFrame, money: pd.DataFrame) -> dict[str, pd.Series]:
    """Figures of images and of videos, each over the services that make it; none where nobody does."""
    found = {}
    for made, one in OUTPUTS.items():
        if f"{made}_cost" not in money:
            continue
        count = _positive(sums[made])
        found |= {
            made: sums[made],
            f"cost_per_{one}": money[f"{made}_cost"] / count,
            f"energy_per_{one}": sums[f"{made}_energy_j"] / count,
        }
        if made == "videos":
            found["video_seconds"] = sums["video_s"]
            found["cost_per_video_second"] = money["videos_cost"] / _positive(sums["video_s"])
    return found


def _batch(sums: pd.DataFrame) -> dict[str, pd.Series]:
    """Figures of batch jobs; those that wait have not missed their deadline yet."""
    decided = sums["batch_requests_completed"] + sums["batch_requests_dropped"]
    counts = {name: sums[name] for name in BATCH if name != "batch_requests_dropped"}
    return counts | {"batch_within_deadline": sums["batch_requests_completed"] / _positive(decided)}


def _training(windows: pd.DataFrame, sums: pd.DataFrame, money: pd.DataFrame) -> dict[str, pd.Series]:
    """Figures of training jobs. Progress and end are those of one job; of several together they are undefined."""
    ends = windows["training_end_s"] if "training_end_s" in windows else pd.Series(np.nan, windows.index)
    jobs = windows[windows["training_progress"].notna()].groupby(KEYS, sort=False)["service_of_row"].nunique()
    alone = jobs.reindex(sums.index) == 1
    return {
        "trained_tokens": sums["trained_tokens"],
        "lost_trained_tokens": sums["lost_trained_tokens"],
        "cost_per_million_trained_tokens": MILLION * money["training_cost"] / _positive(sums["trained_tokens"]),
        "training_progress": sums["training_progress"].where(alone),
        "training_days": (ends.groupby([windows[key] for key in KEYS], sort=False).max() / DAY_S).where(alone),
    }


def percentiles(latency: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Latency percentiles (s) by window, service, replication: histograms of played windows, weighted by the
    instance-seconds that each stands for. `weights` is already marked."""
    groups = weights.groupby([*KEYS, "window_played"], sort=False)["instance_s"].sum()
    index = groups.index.droplevel("window_played").unique()
    metrics = [name for name in METRICS if name in METRICS[:3] or (latency["metric"] == name).any()]
    found = {f"{metric}_p{int(100 * q)}": np.full(len(index), np.nan) for metric in metrics for q in QUANTILES}
    row_of = {key: row for row, key in enumerate(index)}
    for replication, part in groups.groupby("replication", sort=False):
        own = latency[latency["replication"] == replication]
        keys = part.index.droplevel("window_played")
        rows, row_keys = pd.factorize(keys)
        where = np.array([row_of[key] for key in row_keys])
        for metric in metrics:
            of_metric = own[own["metric"] == metric]
            if not len(of_metric):
                continue
            played, played_ids = pd.factorize(of_metric["window"])
            bins, bin_ids = pd.factorize(of_metric["bin"], sort=True)
            table = np.zeros((len(played_ids), len(bin_ids)))
            table[played, bins] = of_metric["count"].to_numpy()
            columns = played_ids.get_indexer(part.index.get_level_values("window_played"))
            mixing = np.zeros((len(row_keys), len(played_ids)))
            np.add.at(mixing, (rows[columns >= 0], columns[columns >= 0]), part.to_numpy()[columns >= 0])
            for q, values in zip(QUANTILES, quantile_rows(np.asarray(bin_ids), mixing @ table, QUANTILES)):
                found[f"{metric}_p{int(100 * q)}"][where] = values
    return pd.DataFrame(found, index=index)


def band(per_replication: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Value (P50 over replications at stated prices), low and high (P10 and P90 at drawn prices) of each figure.

    The band always holds the value; undefined figures stay NaN.
    """
    grouped = per_replication.groupby([*keys, "figure"], sort=False)
    value = grouped["value"].median()
    spread = (
        grouped["drawn" if "drawn" in per_replication else "value"]
        .quantile([0.1, 0.9])
        .unstack()
        .reindex(index=value.index, columns=[0.1, 0.9])  # columns also where there is no row
    )
    frame = pd.DataFrame({"value": value, "low": np.fmin(spread[0.1], value), "high": np.fmax(spread[0.9], value)})
    return frame.reset_index()


def money_by_window(postings: pd.DataFrame) -> pd.DataFrame:
    """Revenue and cost (USD), and emissions (t CO2e) where they are counted, of each (replication, start_s, service,
    stage), from the postings; where a schedule is paid instead of the run's fleet, also `simulated_fleet_cost`, at the
    GPU-hours of the run."""
    keys = ["replication", "start_s", "service", "stage"]
    debit, credit = (_account_sign(postings[side]) for side in ("debit", "credit"))
    amount = postings["amount_nusd"].to_numpy()
    money = postings[keys].assign(
        cost=np.where(debit == "cost", amount, 0) - np.where(credit == "cost", amount, 0),
        revenue=np.where(credit == "revenue", amount, 0) - np.where(debit == "revenue", amount, 0),
    )
    dollars = ["revenue", "cost"]
    beside = (postings["line"] == FLEET_BESIDE).to_numpy()
    if beside.any():
        money["simulated_fleet_cost"] = money["cost"] + np.where(beside, amount, 0)
        dollars.append("simulated_fleet_cost")
    emits = (postings["line"] == "carbon").to_numpy()
    if emits.any():
        money["carbon"] = np.where(emits, postings["quantity"].to_numpy(float), 0.0)
    sums = money.groupby(keys, sort=False, observed=True)[list(money.columns[len(keys) :])].sum()
    sums[dollars] /= NANO
    return sums.reset_index()


def _account_sign(accounts: pd.Series) -> np.ndarray:
    """First word of each account: cost, revenue, payable..."""
    codes, names = pd.factorize(accounts)
    return np.array([str(name).partition(":")[0] for name in names], dtype=object)[codes]


def _positive(values: pd.Series) -> pd.Series:
    """The values, NaN where they are zero: a figure per nothing is undefined."""
    return values.where(values > 0)


def _trust(marked: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Worst rung of the ladder of trust in each (window, service)."""
    rung = marked["trust"].map(TRUST.index)
    return {key: TRUST[worst] for key, worst in rung.groupby([marked["window"], marked["service"]]).max().items()}


def _first_to_last(found: pd.DataFrame) -> pd.DataFrame:
    """Ratios of the last to the first week and stage within each replication, for the whole run and all services."""
    everything = found[found["service"] == "all"]
    stated, drawn = (_first_to_last_at(everything, column) for column in ("value", "drawn"))
    return stated.assign(drawn=drawn["value"])


def is_step(window: str) -> bool:
    """Whether a window is a stage that a service moves through; spot capacity beside one is no step."""
    return window.startswith("stage_") and not window.endswith(SPOT)


def _first_to_last_at(found: pd.DataFrame, column: str) -> pd.DataFrame:
    wide = found.pivot(index="replication", columns=["figure", "window"], values=column)
    windows = [str(window) for window in dict.fromkeys(found["window"])]
    revenue, weeks = wide["revenue"], [window for window in windows if window.startswith("week_")]
    growth = {"revenue_growth_first_to_last_week": revenue[weeks[-1]] / _positive(revenue[weeks[0]])}
    ratios = growth | _token_ratios(wide, windows, weeks)
    ratios = pd.DataFrame({name: ratios[name] for name in UNITS if name in ratios})
    long = ratios.melt(ignore_index=False, var_name="figure").reset_index()
    return long.assign(window="whole", service="all")[["window", "service", "replication", "figure", "value"]]


def _token_ratios(wide: pd.DataFrame, windows: list[str], weeks: list[str]) -> dict[str, pd.Series]:
    """Ratios of the first and the last week and stage of a factory that makes tokens; none of one that makes none."""
    if "output_tokens" not in wide:
        return {}
    cost, tokens = wide["cost_per_million_output_tokens"], wide["output_tokens"]
    stages = [window for window in windows if is_step(window) and (tokens[window] > 0).all()] or [
        window for window in windows if window.startswith("stage_")
    ]
    return {
        "cost_reduction_first_to_last_week": cost[weeks[0]] / cost[weeks[-1]],
        "output_token_growth_first_to_last_week": tokens[weeks[-1]] / _positive(tokens[weeks[0]]),
        "cost_reduction_first_to_last_stage": cost[stages[0]] / cost[stages[-1]],
    }
