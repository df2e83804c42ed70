"""Scenario files: what is wrong is said with file, path, what was found and what would be right."""

from pathlib import Path

import pytest
import yaml

from factory_sim.errors import ScenarioError
from factory_sim.inputs.overrides import load_scenario, scenario_yaml
from factory_sim.inputs.provenance import digest

TWENTY_X = Path(__file__).parents[2] / "scenarios" / "twenty-x.yaml"


def write(tmp_path, text: str) -> Path:
    path = tmp_path / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("slo.ttft_p95_sec=15", ("services.chat.slo.ttft_p95_sec", "did you mean 'ttft_p95_s'")),
        ("slo.ttft_p95_s=15 ms", ("services.chat.slo.ttft_p95_s", "'15 ms'", "seconds")),
        ("slo.tpot_p95_s=-0.04", ("services.chat.slo.tpot_p95_s", "-0.04", "greater than 0")),
        ("slo.tpot_p95_s=.nan", ("services.chat.slo.tpot_p95_s", "finite")),
        ("stages.b200-mtp.from_day=40", ("b200-mtp", "day 40")),
        ("stages.b200-disaggregated.from_day=29", ("b200-disaggregated", "after the end")),
        ("stages.b200-xtp.from_day=3", ("b200-xtp", "did you mean 'b200-mtp'")),
        ("site.gpus=100", ("792 GPUs", "it holds 100")),
        ("stages.b200-mtp.replicas=3", ("replicas: 3 (of this system: ", "give one of the two")),
        ("start=2026-07-06", ("start", "2026-07-06")),
        ("start=2026-07-06T00:00:00", ("start", "UTC offset")),
        ("admission.limit=loadtest", ("admission.limit", "did you mean 'load_test'")),
        ("seed=-1", ("seed", "-1")),
        ("nonsense", ("nonsense", "path=value")),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(setting, said):
    with pytest.raises(ScenarioError) as error:
        load_scenario(TWENTY_X, [setting])
    for part in said:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("- 1\n- 2\n", "holds a list"),
        ("name: a\nname: b\n", "stands twice"),
        ("name: [a\n", "not valid YAML"),
    ],
)
def test_an_unusable_file_is_named(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(ScenarioError) as error:
        load_scenario(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_and_a_folder_and_bytes_are_named(tmp_path):
    with pytest.raises(ScenarioError, match="no such file"):
        load_scenario(tmp_path / "nothing.yaml")
    with pytest.raises(ScenarioError, match="is a folder"):
        load_scenario(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ScenarioError, match="not UTF-8"):
        load_scenario(tmp_path / "bytes.yaml")


def test_a_resolved_scenario_reads_back_as_itself(tmp_path):
    scenario = load_scenario(TWENTY_X)
    again = load_scenario(write(tmp_path, scenario_yaml(scenario)))
    assert again.model_copy(update={"variants": scenario.variants}) == scenario
    assert digest(again) == digest(scenario)


def test_settings_reach_the_same_place_with_and_without_the_name_of_the_only_service():
    short = load_scenario(TWENTY_X, ["slo.ttft_p95_s=9"])
    full = load_scenario(TWENTY_X, ["services.chat.slo.ttft_p95_s=9"])
    assert short == full
    assert short.services["chat"].slo.ttft_p95_s == 9
    assert digest(short) != digest(load_scenario(TWENTY_X))


def test_every_variant_of_the_shipped_scenarios_is_a_scenario_of_its_own():
    for path in sorted(TWENTY_X.parent.glob("*.yaml")):
        variants = yaml.safe_load(path.read_text(encoding="utf-8")).get("variants") or {}
        digests = {digest(load_scenario(path, variant=name)) for name in [None, *variants]}
        assert len(digests) == 1 + len(variants), path.name


def test_an_unknown_variant_is_named():
    with pytest.raises(ScenarioError, match="did you mean 'no-demand-waiting'"):
        load_scenario(TWENTY_X, variant="no-demand")
