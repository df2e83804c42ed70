"""The reference pages are what the schema says, no more and no less."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from factory_sim.errors import ScenarioError
from factory_sim.inputs.overrides import load_scenario, scenario_yaml
from factory_sim.inputs.scenario import Scenario
from factory_sim.inputs.traffic import Demand
from factory_sim.reports import reference
from factory_sim.results.figures import UNITS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("page", "made", "command"),
    [
        ("reference-scenario.md", reference.scenario_reference, "factory-sim schema"),
        ("reference-figures.md", reference.figures_reference, "factory-sim schema figures"),
    ],
)
def test_committed_page_is_what_the_command_prints(page, made, command):
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == made(), f"stale: {command} > docs/{page}"


def test_every_key_of_every_record_has_a_row_once():
    page = reference.scenario_reference()
    for name, record in reference.scenario_schema()["$defs"].items():
        section = page.split(f"\n## {name}\n")
        assert len(section) == 2, name
        rows = section[1].split("\n## ")[0]
        for key in record.get("properties", {}):
            assert rows.count(f"| `{key}` |") == 1, f"{name}.{key}"


def test_links_lead_to_sections():
    page = reference.scenario_reference()
    anchors = {line.removeprefix("## ").lower() for line in page.splitlines() if line.startswith("## ")}
    linked = {part.split(")")[0] for part in page.split("](#")[1:]}
    assert linked
    assert linked <= anchors


def test_rows_say_range_default_and_choices():
    page = reference.record_reference("demand")
    assert "| `patience_hours` | number ≥ 0 | `6.0` |" in page
    assert "| `growth` | [Growth](#growth) | its own |" in page
    assert "| `kind` | `none`, `exponential`, `logistic`, `launch` | `none` |" in reference.record_reference("Growth")
    assert "| `start` | moment | needed |" in reference.record_reference("Scenario")
    assert Demand.model_fields["patience_hours"].description in page


def test_unknown_record_names_the_closest():
    with pytest.raises(ScenarioError, match="did you mean 'Demand'"):
        reference.record_reference("Demnd")


def test_every_figure_has_a_meaning_and_no_meaning_lacks_its_figure():
    assert set(reference.FIGURES) == set(UNITS)


def test_json_schema_accepts_the_shipped_scenarios_and_refuses_an_unknown_key():
    import yaml

    schema = reference.scenario_schema()
    validator = Draft202012Validator(schema)
    files = sorted((ROOT / "scenarios").glob("*.yaml"))
    assert files
    for path in files:
        raw = yaml.safe_load(scenario_yaml(load_scenario(path)))
        assert not [error.message for error in validator.iter_errors(raw)], path
    assert list(validator.iter_errors(raw | {"colour": "red"}))
    assert json.dumps(schema)
    assert set(schema["properties"]) == set(Scenario.model_fields)
