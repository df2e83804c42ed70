"""Same scenario, seed and version: the same bytes; another seed, other numbers; nothing depends on the threads."""

import pandas as pd
import pytest

from factory_sim.errors import CapacityError, ProfileError, ScenarioError
from factory_sim.inputs.overrides import parse_scenario
from factory_sim.results.run import run
from factory_sim.results.store import summary_bytes


def test_same_seed_twice_and_on_one_thread_gives_the_same_bytes(small_run, small_scenario):
    again = run(small_scenario, threads=1)
    assert summary_bytes(again.summary) == summary_bytes(small_run.summary)
    for name, table in small_run.tables.items():
        pd.testing.assert_frame_equal(table, again.tables[name], check_exact=True)


def test_another_seed_gives_other_numbers(small_run, small_scenario):
    other = run(small_scenario.with_seed(4))
    assert summary_bytes(other.summary) != summary_bytes(small_run.summary)


@pytest.mark.parametrize(
    ("path", "found", "error", "said"),
    [
        (("model",), "DeepSeek-R9", (ScenarioError, ProfileError), "DeepSeek-R"),
        (("stages", 0, "system", "gpu"), "h201", (ScenarioError, ProfileError), "h200"),
        (("stages", 0, "system", "engine"), "trtlm", (ScenarioError, ProfileError), "trtllm"),
        (("stages", 0, "system", "parallelism"), "tp7", (ScenarioError, ProfileError), "tp7"),
        (("stages", 0, "gpus"), 44, ScenarioError, "not a multiple of the 8 GPUs"),
        (("stages", 0, "system", "kv_cache_tokens"), 300, CapacityError, "one request"),
        (("slo", "tpot_p95_s"), 0.001, CapacityError, "no load keeps the promise"),
        (("traffic", "lengths"), "servegen_deepseek", ScenarioError, "servegen_deepseek-r1"),
        (("router",), "least_busy", ScenarioError, "least"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_played(small_dict, path, found, error, said):
    node = small_dict["services"]["chat"]
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = found
    with pytest.raises(error) as raised:
        run(parse_scenario(small_dict))
    assert said in str(raised.value)
    assert "services.chat" in str(raised.value)
