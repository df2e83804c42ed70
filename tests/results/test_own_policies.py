"""Policies of a user's own: from Python, or named in a scenario and allowed on the command line."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from factory_sim.cli.app import app
from factory_sim.errors import FactorySimError, ScenarioError, SimulationStopped
from factory_sim.inputs.overrides import parse_scenario
from factory_sim.results.run import run
from factory_sim.results.schema import summary_problems
from factory_sim.results.store import read_run


@pytest.fixture
def scaled(small_dict):
    """The small scenario with one stage and an autoscaler."""
    service = small_dict["services"]["chat"]
    service["stages"] = service["stages"][:1]
    service["traffic"]["demand"] = {"requests_per_s": 2.0}
    service["autoscaler"] = {"policy": "mine", "interval_minutes": 60, "minimum": 1}
    return small_dict


def test_a_function_from_python_decides(scaled):
    seen = []

    def mine(view, rule):
        seen.append(view)
        return 2 if view.time_s < 86400 else view.maximum

    windows = run(parse_scenario(scaled), policies={"mine": mine}, threads=1).tables["windows"]
    assert seen
    assert not any(hasattr(view, name) for view in seen for name in ("osl", "lengths", "future"))
    early = windows[(windows.start_s >= 7200) & (windows.end_s <= 86400)]
    late = windows[windows.start_s >= 90000]
    assert early.replicas.max() <= 2 < late.replicas.max()


def test_an_unknown_policy_names_the_known_ones(scaled):
    with pytest.raises(ScenarioError, match="autoscaler.policy: 'mine' is not known"):
        run(parse_scenario(scaled))


def test_a_policy_that_raises_keeps_the_finished_part(scaled, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def decide(view, rule):\n    if view.time_s > 40000:\n        raise RuntimeError('no idea')\n    return 2\n"
    )
    scaled["services"]["chat"]["autoscaler"]["policy"] = f"{tmp_path / 'mine.py'}:decide"
    (tmp_path / "scene.yaml").write_text(yaml.safe_dump(scaled), encoding="utf-8")
    command = ["run", str(tmp_path / "scene.yaml"), "--out", str(tmp_path / "part"), "--quiet"]
    with pytest.raises(FactorySimError, match="run with --allow-code"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not (tmp_path / "part").exists()
    with pytest.raises(FactorySimError, match="raised RuntimeError: no idea on day 0.5.*marked incomplete"):
        CliRunner().invoke(app, [*command, "--allow-code"], catch_exceptions=False)
    part = read_run(tmp_path / "part", unfinished=True)
    assert part.summary["figures"] == []
    assert "no idea" in part.summary["incomplete"]
    assert summary_problems(part.summary) == []
    assert part.tables["windows"].end_s.max() < 50000
    shown = CliRunner().invoke(app, ["timeline", str(tmp_path / "part"), "--kind", "stopped", "--json"])
    assert "no idea" in json.loads(shown.stdout)["events"][0]["effect"]


def test_the_finished_part_comes_with_the_error(scaled):
    def mine(view, rule):
        return "many"

    with pytest.raises(SimulationStopped, match="a number of instances is needed") as stopped:
        run(parse_scenario(scaled), policies={"mine": mine})
    assert list(stopped.value.run.figures) == []
