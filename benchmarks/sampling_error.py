"""What thinning adds to the headline figures: a scenario as shipped against the same played with four times as much.

    python benchmarks/sampling_error.py [SCENARIO] [--set PATH=VALUE]...

Four times as much: windows of twice the length, each standing for half as many hours, twice the instances behind
the router (so four times the requests a calendar hour, and pooling nearer the whole fleet's). Prints both values of
every headline figure and their difference in per cent; profile and price errors are the same in both (common streams).
"""

import argparse

import pandas as pd

from factory_sim import load_scenario, run
from factory_sim.results.figures import ratio_figures

HEADLINES = (
    "cost_per_million_output_tokens", "revenue", "margin", "output_tokens", "requests_completed", "requests_turned_away",
    "slo_attainment", "ttft_p95", "tpot_p95", "utilisation", "energy", "cost_reduction_first_to_last_week",
    "revenue_growth_first_to_last_week",
)  # fmt: skip


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="?", default="scenarios/twenty-x.yaml")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    shipped = load_scenario(arguments.scenario, arguments.settings)
    sampling = shipped.simulation.sampling
    more = load_scenario(
        arguments.scenario,
        [
            *arguments.settings,
            f"simulation.sampling.window_s={2 * sampling.window_s}",
            f"simulation.sampling.window_requests={4 * sampling.window_requests}",
            f"simulation.sampling.hours_per_window={sampling.hours_per_window / 2}",
            f"simulation.sampling.sequences_kept={2 * sampling.sequences_kept}",
            f"simulation.sampling.instances_kept={2 * sampling.instances_kept}",
        ],
    )
    thin, thick = run(shipped), run(more)
    played = [int(result.tables["audits"]["arrived"].sum()) for result in (thin, thick)]
    ratios = ratio_figures(thick.tables["replications"], thin.tables["replications"], paired=True)
    keys = ["figure", "window", "service"]
    table = thin.figures.merge(thick.figures, on=keys, suffixes=("_shipped", "_more")).merge(ratios, on=keys)
    table = table[table["figure"].isin(HEADLINES) & (table["service"] == "all")]
    table = table[table["window"].isin(["whole", "week_1"]) | table["window"].str.fullmatch("week_4")]
    table["difference_percent"] = 100 * (table["value_shipped"] / table["value_more"] - 1)
    print(f"requests played: {played[0]:,} shipped, {played[1]:,} with more ({played[1] / played[0]:.1f} times)")
    columns = ["figure", "window", "value_shipped", "value_more", "difference_percent"]
    with pd.option_context("display.width", 160, "display.max_rows", 100, "display.float_format", "{:.5g}".format):
        print(table[columns].to_string(index=False))
    print(f"largest difference: {table['difference_percent'].abs().max():.2f} %")


if __name__ == "__main__":
    main()
