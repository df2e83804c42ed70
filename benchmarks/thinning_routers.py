"""What thinning over replicas costs under each router: a stage of 32 replicas played whole against fewer of them kept.

    python benchmarks/thinning_routers.py [--hours 2] [--load 0.8]

Prints, for each router and number of replicas kept, the difference of latencies and throughput from the whole stage in
per cent. Random splitting is exact in distribution: its row shows the noise of the comparison.
"""

import argparse

import llama_cases as llama
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
    name = f"{router}-{kept or 'whole'}".replace("_", "-")
    chat = llama.service(load, REPLICAS) | {"router": router}
    return llama.scenario(
        name, hours / 24, {"chat": chat}, replications=2, interval_minutes=60 * hours, sampling=sampling
    )


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
