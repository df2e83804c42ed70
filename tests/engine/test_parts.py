"""Services that share nothing are played apart, and together give what they give alone."""

import copy

import pandas as pd
import pytest

from factory_sim import run
from factory_sim.engine.parts import independent
from factory_sim.inputs.overrides import parse_scenario
from tests.conftest import SMALL


def scenario(**changes):
    """Two services at one site and a third at another."""
    raw = copy.deepcopy(SMALL)
    service = raw["services"]["chat"]
    service["stages"] = service["stages"][:1]
    return raw | {
        "duration_days": 0.25, "site": {"gpus": 96}, "sites": {"north": {"gpus": 96}},
        "services": {"chat": service, "code": service, "far": service | {"site": "north"}},
        "money": {"plans": {"all": raw["money"]["plans"]["chat"]}},
        "simulation": {"replications": 1, "sampling": {"warmup_s": 10, "window_requests": 300}},
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, [["chat"], ["code"], ["far"]]),
        ({"outages": {}}, [["chat", "code"], ["far"]]),
        ({"sites": {"north": {"gpus": 96, "power": {"mw": 1}}}}, [["chat"], ["code"], ["far"]]),
        ({"site": {"gpus": 96, "power": {"mw": 1}}}, [["chat", "code"], ["far"]]),
        (
            {"events": [{"kind": "move", "at_day": 0.1, "service": "chat", "to": "far", "gpus": 8}]},
            [["chat", "far"], ["code"]],
        ),
    ],
)
def test_what_is_shared_is_played_together(changes, parts):
    assert independent(parse_scenario(scenario(**changes))) == parts


def test_parts_together_give_what_each_gives_alone():
    together = run(parse_scenario(scenario()))
    only = scenario()
    only["services"] = {"code": only["services"]["code"]}
    alone = run(parse_scenario(only))
    for name in ("windows", "series"):
        rows, own = (run.tables[name].query("service == 'code'").reset_index(drop=True) for run in (together, alone))
        pd.testing.assert_frame_equal(rows, own)


def test_threads_change_no_byte():
    one, two = (run(parse_scenario(scenario()), threads=threads) for threads in (1, 2))
    assert one.summary == two.summary
    for name, table in one.tables.items():
        pd.testing.assert_frame_equal(table, two.tables[name])
