"""What thinning over replicas costs under each router: a stage of 32 replicas played whole against fewer of them kept.

    python benchmarks/thinning_routers.py [--hours 2] [--load 0.8]

Prints, for each router and number of replicas kept, the difference of latencies and throughput from the whole stage in
per cent. Random splitting is exact in distribution: its row shows the noise of the comparison.
"""

import argparse

import pandas as pd

from factory_sim import run
from factory_sim.engine.resolve import resolve
from factory_sim.inputs.overrides import parse_scenario

FIGURES = ("ttft_p50", "ttft_p95", "ttft_p99", "tpot_p95", "output_tokens", "slo_attainment")
KEPT = (1, 2, 4, 8, 16)
ROUTERS = ("random", "round_robin", "power_of_two", "least_outstanding", "least_kv")
REPLICAS = 32


def scenario(router: str, hours: float, load: float, kept: int | None, sequences: float = 1.0) -> dict:
    """The stage as a scenario; `kept` None plays it whole. `sequences`: what one replica runs at its tested capacity."""
    sampling = {"mode": "whole"} if kept is None else {
        "instances_kept": 1, "sequences_kept": max(round(kept * sequences), 1), "window_s": 3600 * hours, "window_requests": 10**9,
        "hours_per_window": hours, "warmup_s": 120,
    }  # fmt: skip
    return {
        "name": f"{router}-{kept or 'whole'}".replace("_", "-"), "seed": 5, "start": "2026-07-06T00:00:00+00:00",
        "duration_days": hours / 24, "site": {"gpus": 2 * REPLICAS},
        "services": {
            "chat": {
                "model": "Llama-3.1-70B", "slo": {"ttft_p95_s": 4, "tpot_p95_s": 0.05}, "router": router,
                "traffic": {"lengths": "azure2023_conv", "demand": {"load": load}},
                "stages": [{
                    "name": "h200", "from_day": 0, "replicas": REPLICAS,
                    "system": {"gpu": "h200", "engine": "vllm", "precision": "fp8", "parallelism": "tp2"},
                    "change": {"kind": "initial", "duration_days": 0},
                }],
            }
        },
        "money": {"plans": {"chat": {
            "input_usd_per_million": 0.4, "output_usd_per_million": 0.4, "source": "guess", "as_of": "2026-07-01",
        }}},
        "simulation": {"replications": 2, "profile_error": False, "interval_minutes": 60 * hours, "sampling": sampling},
    }  # fmt: skip


def figures(*arguments) -> tuple[pd.Series, int]:
    """Figures of the whole run by name, and the requests played."""
    result = run(parse_scenario(scenario(*arguments)))
    found = result.figures.query("window == 'whole' and service == 'all'").set_index("figure").value
    return found[list(FIGURES)], int(result.tables["audits"].arrived.sum())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--load", type=float, default=0.8)
    asked = parser.parse_args()
    rows = []
    for router in ROUTERS:
        (service,) = resolve(parse_scenario(scenario(router, asked.hours, asked.load, None)))
        capacity = service.stages[0].capacity_per_s(service.service)
        sequences = capacity * service.lengths.mean_osl * service.service.slo.tpot_p95_s
        whole, played = figures(router, asked.hours, asked.load, None)
        print(f"{router}: {played:,} requests played whole", flush=True)
        for kept in KEPT:
            thin, few = figures(router, asked.hours, asked.load, kept, sequences)
            rows.append({"router": router, "kept": kept, "played": few} | (100 * (thin / whole - 1)).round(2).to_dict())
    print(f"difference from all {REPLICAS} replicas, per cent")
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
