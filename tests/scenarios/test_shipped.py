"""Shipped scenarios: each loads with its variants, and plays a shortened form on which the laws hold."""

import csv
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml

from factory_sim.engine.requests import request_mix
from factory_sim.inputs.overrides import load_scenario
from factory_sim.model.workload import length_model
from factory_sim.results.run import run
from factory_sim.units import DAY_S

FOLDER = Path(__file__).parents[2] / "scenarios"
FILES = sorted(FOLDER.glob("*.yaml"))
SHORT = [
    "simulation.replications=1", "simulation.sampling.window_requests=300", "simulation.sampling.window_s=60",
    "simulation.sampling.warmup_s=20", "simulation.sampling.hours_per_window=400", "simulation.sampling.load_tolerance=0.4",
    "simulation.sampling.sequences_kept=100",
]  # fmt: skip
EXPECTED = {
    "black-friday": {"spike_begins", "scaled_up", "scaled_down"},
    "model-launch": {"retirement_begins", "nodes_moved", "retired"},
    "deepseek-day": {"scaled_down", "scaled_up"},
    "heat-wave": {"heat_wave_begins", "curtailment_begins", "power_capped"},
    "night-training": {"training_begins", "scaled_down", "scaled_up"},
    "own-or-spot": {"spot_begins", "spot_evicted"},
    "rack-loss": {"failure", "repaired"},
    "twenty-x:rough-weeks": {"spike_begins", "canary_passed", "upgraded", "rolled_back", "failure", "hardware_late"},
    "two-sites": {"site_down", "site_up"},
}
"""Events without which a scenario (or SCENARIO:VARIANT) would not tell its story."""



def test_the_page_of_scenarios_names_each_with_its_question_and_variants():
    rows = []
    for path in FILES:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        variants = ", ".join(f"`{name}`" for name in raw.get("variants", {}))
        rows.append(f"| `{path.name}` | {raw['question']} | {variants} |")
    page = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in page if line.startswith("| `")] == rows


def published(quantity: str) -> float:
    """A figure of the operator's published day."""
    with files("factory_sim.data").joinpath("economics", "operator_economics.csv").open(encoding="utf-8") as file:
        (value,) = [float(row["value"]) for row in csv.DictReader(file) if row["item"] == quantity]
    return value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_scenario_and_variant_loads(path):
    assert load_scenario(path).question
    for variant in yaml.safe_load(path.read_text()).get("variants", {}):
        assert load_scenario(path, variant=variant).name == f"{path.stem}-{variant}"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_shortened_form_plays_and_the_laws_hold(name):
    file, _, variant = name.partition(":")
    result = run(load_scenario(FOLDER / f"{file}.yaml", SHORT, variant=variant or None))
    assert [check["detail"] for check in result.summary["checks"] if not check["ok"]] == []
    assert set(result.tables["events"].kind) >= EXPECTED[name]


def test_the_published_day_has_its_published_totals():
    """Means, rate and sharing of the scenario against the operator's table; its schedule costs what was published."""
    scenario = load_scenario(FOLDER / "deepseek-day.yaml")
    (service,) = scenario.services.values()
    mix = request_mix(service, length_model(service.traffic.lengths))
    drawn = mix.draw(np.random.default_rng(1), 400_000, 131_072)
    isl, osl = drawn["isl"], drawn["osl"]
    requests = service.traffic.demand.requests_per_s * DAY_S
    assert isl.mean() * requests == pytest.approx(published("input_tokens"), rel=0.01)
    assert osl.mean() * requests == pytest.approx(published("output_tokens"), rel=0.01)
    kv = (osl * (isl + osl / 2)).sum() / osl.sum()
    assert kv == pytest.approx(published("mean_kv_length_per_output_token"), rel=0.01)
    shared = service.prefix_cache.block_tokens * len(drawn["block_ids"]) / isl.sum()
    assert shared == pytest.approx(published("cache_hit_ratio"), abs=0.002)
    hours = scenario.money.costs.schedule.gpus_by_hour
    assert sum(hours) / 24 == 8 * published("nodes_average")
    assert max(hours) == 8 * published("nodes_peak")
    assert sum(hours) * published("gpu_cost_assumed") == published("cost")


@pytest.mark.slow
def test_the_published_day_costs_its_schedule_and_beside_it_the_fleet_of_the_run():
    result = run(load_scenario(FOLDER / "deepseek-day.yaml", SHORT))
    figures = result.figures.query("window == 'whole' and service == 'all'").set_index("figure")
    assert figures.value["cost"] == pytest.approx(published("cost"), abs=0.01)
    assert figures.value["cost_simulated_fleet"] == pytest.approx(
        figures.value["gpu_hours"] * published("gpu_cost_assumed"), rel=1e-9
    )
    assert set(figures.trust) == {"estimated"}
    assert figures.value["prefix_cache_hit_rate"] < published("cache_hit_ratio") + 0.005
