"""Frames of an invented run for the charts: four weeks, five stages, six-hour steps."""

import numpy as np
import pandas as pd
import pytest

from factory_sim.streams import stream
from factory_sim.units import DAY_S, HOUR_S

STAGES = [
    ("h200-baseline", "H200, TensorRT-LLM, FP8, TP8", 0, 7, 3.59, "measured"),
    ("h200-optimised", "H200, MTP, expert parallel", 7, 10, 1.44, "interpolated"),
    ("b200-baseline", "B200, TensorRT-LLM, FP4", 10, 14, 0.63, "measured"),
    ("b200-mtp", "B200, MTP", 14, 18, 0.73, "extrapolated"),
    ("b200-disaggregated", "B200, disaggregated", 18, 28, 0.16, "interpolated"),
]


@pytest.fixture(scope="session")
def stages():
    rows = [(name, start * DAY_S, end * DAY_S, label) for name, label, start, end, *_ in STAGES]
    return pd.DataFrame(rows, columns=["name", "start_s", "end_s", "label"])


@pytest.fixture(scope="session")
def make_series():
    """Makes a run of other length, step or service."""
    return _series


@pytest.fixture(scope="session")
def series():
    return _series()


def _series(days: float = 28.0, step_s: float = 6 * HOUR_S, service: str = "all") -> pd.DataFrame:
    rng = stream(1, "series")
    start = np.arange(0, days * DAY_S, step_s)
    day = start / DAY_S
    level = np.array([1, 2.5, 7, 12, 20])[np.searchsorted([7, 10, 14, 18], day, side="right")]
    wave = 1 + 0.3 * np.sin(2 * np.pi * day)
    figures = {
        "cost_per_million_output_tokens": (3.6 / level, "USD/million tokens"),
        "revenue": (9e3 * level, "USD"),
        "cost": (np.full(len(day), 1.3e4), "USD"),
        "margin": (9e3 * level - 1.3e4, "USD"),
        "requests_completed": (2e6 * level, "requests"),
        "requests_turned_away": (3e7 * wave, "requests"),
        "requests_arrived": (2e6 * level + 3e7 * wave, "requests"),
        "demand": (6e7 * wave, "requests"),
        "output_tokens": (3e9 * level, "tokens"),
        "utilisation": (0.7 + 0.2 * np.sin(day), "fraction"),
        "power": (1e6 * (0.7 + 0.2 * np.sin(day)), "W"),
    }
    for share, factor in (("p50", 1.0), ("p95", 2.2), ("p99", 4.0)):
        figures[f"ttft_{share}"] = (factor * wave * rng.lognormal(0, 0.1, len(day)), "s")
        figures[f"tpot_{share}"] = (0.02 * factor**0.4 * rng.lognormal(0, 0.03, len(day)), "s")
    parts = [
        pd.DataFrame({"start_s": start, "end_s": start + step_s}).assign(
            figure=name, service=service, unit=unit, value=value, low=value - 0.06 * abs(value),
            high=value + 0.08 * abs(value),
        )
        for name, (value, unit) in figures.items()
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="session")
def steps():
    frame = pd.DataFrame(
        [(name, label, cost, trust) for name, label, _, _, cost, trust in STAGES],
        columns=["name", "label", "value", "trust"],
    )
    return frame.assign(low=frame.value * 0.9, high=frame.value * 1.1)


@pytest.fixture(scope="session")
def frontier():
    rows = []
    for number, (_, label, *_) in enumerate(STAGES):
        for kind, factor in (("measured", 1.0), ("simulated", 1.05), ("left_out", 1.2)):
            for concurrency in (4, 16, 64, 256) if number < 4 else (1024,):
                rate = 30.0 * (number + 1) ** 2 * concurrency**0.6 * factor
                speed = 120 / concurrency**0.25
                rows.append((label, kind, concurrency, speed, rate, rate * 0.9, rate * 1.1, 800 / rate))
    names = ["system", "kind", "concurrency", "tokens_per_s_per_user", "tokens_per_s_per_gpu",
             "tokens_per_s_per_gpu_low", "tokens_per_s_per_gpu_high", "usd_per_million_output_tokens"]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


@pytest.fixture(scope="session")
def spans():
    rows = []
    for replica in range(12):
        fails = (replica * 2.1 + 3) * DAY_S
        rows += [
            (f"b200-disaggregated {replica}", 0.0, 0.5 * DAY_S, "starting"),
            (f"b200-disaggregated {replica}", 0.5 * DAY_S, fails, "serving"),
            (f"b200-disaggregated {replica}", fails, fails + DAY_S, "down"),
            (f"b200-disaggregated {replica}", fails + DAY_S, 28 * DAY_S, "training"),
        ]
    return pd.DataFrame(rows, columns=["row", "start_s", "end_s", "state"])


@pytest.fixture(scope="session")
def events():
    rng = stream(2, "events")
    counts = {"gpu_failed": 40, "replica_repaired": 38, "stage_begins": 5, "curtailment_call_from_the_operator": 2}
    parts = [pd.DataFrame({"time_s": rng.uniform(0, 28 * DAY_S, n), "kind": kind}) for kind, n in counts.items()]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="session")
def comparison():
    names = ["held price", "price follows cost", "no demand waiting"]
    figures = {"cost_per_million_output_tokens": (0.36, "USD/million tokens"), "revenue": (9.2e6, "USD"),
               "margin": (8e6, "USD"), "output_tokens": (3.5e12, "tokens"), "gpu_hours": (5.3e5, "GPU-h"),
               "slo_attainment": (0.97, "fraction"), "ttft_p95": (2.8, "s"), "energy": (9.7e5, "kWh")}  # fmt: skip
    rows = []
    for place, run in enumerate(names):
        for figure, (value, unit) in figures.items():
            changed = value * (1, 1.6, 0.2)[place] * (-1 if figure == "margin" and place == 2 else 1)
            changed = min(changed, 0.99) if unit == "fraction" else changed
            band = (changed - 0.08 * abs(changed), changed + 0.1 * abs(changed))
            ratio = changed / value
            rows.append((figure, run, changed, *band, unit, "measured", ratio, ratio - 0.1, ratio + 0.1))
    names = ["figure", "run", "value", "low", "high", "unit", "trust", "ratio", "ratio_low", "ratio_high"]
    return pd.DataFrame(rows, columns=names)


@pytest.fixture(scope="session")
def accuracy():
    rng = stream(3, "accuracy")
    parts = []
    for metric, (low, high) in {"ttft": (0.1, 20.0), "tpot": (0.006, 0.08)}.items():
        for group in ("h200 trtllm", "b200 sglang", "gb200 disaggregated"):
            measured = np.exp(rng.uniform(np.log(low), np.log(high), 15))
            parts.append(pd.DataFrame({"metric": metric, "group": group, "measured": measured,
                                       "predicted": measured * rng.lognormal(0, 0.15, 15)}))  # fmt: skip
    return pd.concat(parts, ignore_index=True)
