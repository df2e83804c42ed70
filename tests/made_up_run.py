"""A stored run with round facts, for the tests of the money commands."""

import numpy as np
import pandas as pd
import yaml

from factory_sim.inputs.money import Money
from factory_sim.ledger.postings import post
from factory_sim.results.store import read_run, write_run

HOURS = 24 * 8
MONEY = {
    "plans": {
        "chat": {
            "input_usd_per_million": 0.5, "output_usd_per_million": 2.0, "as_of": "2026-11-01",
            "tiers": [{"name": "batch", "multiplier": 0.5, "share": 0.25}],
        },
        "code": {"list_price": "openai/gpt-oss-120b@groq", "as_of": "2026-11-01"},
    },
}  # fmt: skip


def _windows(replications=2):
    rng = np.random.default_rng(4)
    parts = []
    for service, stage, gpu in (("chat", "old", "h200"), ("code", "new", "b200")):
        n = HOURS * replications
        start_s = np.tile(np.arange(HOURS) * 3600.0, replications)
        output = rng.uniform(1e6, 1e7, n)
        parts.append(
            pd.DataFrame(
                {
                    "replication": np.repeat(np.arange(replications), HOURS),
                    "start_s": start_s,
                    "end_s": start_s + 3600.0,
                    "week": (start_s // 604800 + 1).astype(int),
                    "service": service,
                    "stage": stage,
                    "profile": "p",
                    "gpu": gpu,
                    "trust": "measured" if service == "chat" else "interpolated",
                    "replicas": 1.0,
                    "gpus": 8.0,
                    "gpu_hours": 8.0,
                    "gpu_hours_down": 0.1,
                    "busy_fraction": 0.5,
                    "capacity_requests": output / 400,
                    "requests_arrived": output / 900,
                    "requests_completed": output / 1000,
                    "requests_turned_away": 0.0,
                    "requests_lost": 0.0,
                    "requests_within_slo": output / 1001,
                    "input_tokens": output * 1.2,
                    "cached_input_tokens": output * 0.3,
                    "output_tokens": output,
                    "reasoning_tokens": 0.0,
                    "time_input_s": 900.0,
                    "time_output_s": 1800.0,
                    "time_idle_s": 900.0,
                    "gpu_energy_j": 2e7,
                    "it_energy_j": 3e7,
                    "facility_energy_j": 4e7,
                    "input_energy_j": 5e6,
                    "output_energy_j": 1e7,
                    "idle_energy_j": 5e6,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def store(folder, money=MONEY, **demand):
    """Write the run to a folder and read it back; `demand` goes into the scenario of the chat service."""
    windows = _windows()
    scenario = {
        "name": "made-up",
        "seed": 3,
        "start": "2026-11-02T00:00:00+00:00",
        "money": Money.model_validate(money).model_dump(mode="json"),
        "services": {"chat": {"traffic": {"demand": demand}}, "code": {}},
    }
    figure = {
        "figure": "cost",
        "window": "whole",
        "service": "all",
        "value": 1.0,
        "low": 0.5,
        "high": 2.0,
        "unit": "USD",
    }
    more = [figure | {"figure": name, "trust": "measured"} for name in ("utilisation", "ttft_p95", "slo_attainment")]
    write_run(
        folder,
        scenario_yaml=yaml.safe_dump(scenario),
        provenance={},
        tables={"windows": windows, "postings": post(windows, Money.model_validate(money))},
        summary={
            "schema": "factory_sim.summary/1",
            "scenario": {"name": "made-up", "digest": "d", "seed": 3, "version": "0"},
            "figures": [figure | {"trust": "measured"}, *more],
            "checks": [],
        },
    )
    return read_run(folder)
