"""Shipped scenarios: each loads with its variants, and plays a shortened form on which the laws hold."""

from pathlib import Path

import pytest
import yaml

from factory_sim.inputs.overrides import load_scenario

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
    "heat-wave": {"heat_wave_begins", "curtailment_begins", "power_capped"},
    "night-training": {"training_begins", "scaled_down", "scaled_up"},
    "own-or-spot": {"spot_begins", "spot_evicted"},
    "rack-loss": {"failure", "repaired"},
    "twenty-x:rough-weeks": {"spike_begins", "canary_passed", "upgraded", "rolled_back", "failure", "hardware_late"},
    "two-sites": {"site_down", "site_up"},
}
"""Events without which a scenario (or SCENARIO:VARIANT) would not tell its story."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_scenario_and_variant_loads(path):
    assert load_scenario(path).question
    for variant in yaml.safe_load(path.read_text()).get("variants", {}):
        assert load_scenario(path, variant=variant).name == f"{path.stem}-{variant}"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_shortened_form_plays_and_the_laws_hold(name):
    from factory_sim.results.run import run

    file, _, variant = name.partition(":")
    result = run(load_scenario(FOLDER / f"{file}.yaml", SHORT, variant=variant or None))
    assert [check["detail"] for check in result.summary["checks"] if not check["ok"]] == []
    assert set(result.tables["events"].kind) >= EXPECTED[name]
