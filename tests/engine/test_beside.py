"""Old and new GPUs behind one router: what each serves, what its tokens cost, and what the router makes of it."""

import copy

import pytest

from factory_sim.errors import ScenarioError
from factory_sim.inputs.overrides import parse_scenario
from factory_sim.results.run import run
from tests.conftest import SMALL

OLD = {"gpu": "h200", "engine": "trtllm", "precision": "fp8", "parallelism": "tp8pp1ep1dpaFr1"}
NEW = {"gpu": "b200", "engine": "trtllm", "precision": "fp4", "parallelism": "tp4pp1ep1dpaFr1"}


def scenario(router, load=0.5, old=OLD, new=NEW, new_gpus=16):
    raw = copy.deepcopy(SMALL) | {"duration_days": 0.25}
    chat = raw["services"]["chat"]
    chat["stages"] = [{"name": "new", "from_day": 0, "gpus": new_gpus, "system": new}]
    chat["beside"] = [{"name": "old", "gpus": 32, "system": old}]
    chat["traffic"]["demand"] = {"load": load}
    chat["router"] = router
    raw["simulation"] |= {"profile_error": False, "replications": 1}
    raw["simulation"]["sampling"] |= {
        "window_requests": 4000,
        "window_s": 600,
        "warmup_s": 60,
        "sequences_kept": 10_000,
    }
    return parse_scenario(raw)


def figures(router, **more):
    """Figures by window: whole, stage_new, stage_old."""
    result = run(scenario(router, **more))
    assert [check for check in result.summary["checks"] if not check["ok"]] == []
    return result.figures.query("service == 'all'").pivot(index="window", columns="figure", values="value")


def test_each_kind_has_its_own_tokens_latency_and_cost():
    found = figures("least_outstanding")
    new, old, whole = (found.loc[name] for name in ("stage_new", "stage_old", "whole"))
    assert new.output_tokens + old.output_tokens == pytest.approx(whole.output_tokens)
    assert new.requests_arrived + old.requests_arrived == pytest.approx(whole.requests_arrived)
    assert whole.requests_arrived == pytest.approx(whole.demand, rel=0.03)
    assert new.gpu_hours == 16 * 6
    assert old.gpu_hours == 32 * 6
    assert new.tpot_p50 < whole.tpot_p50 < old.tpot_p50
    assert new.cost_per_million_output_tokens < old.cost_per_million_output_tokens
    assert new.cost + old.cost == pytest.approx(whole.cost)


def test_two_kinds_that_are_alike_share_evenly_and_are_as_good_as_one():
    two = figures("round_robin", new=OLD)
    assert two.loc["stage_new"].output_tokens == pytest.approx(0.5 * two.loc["stage_old"].output_tokens, rel=0.03)
    assert two.loc["stage_new"].tpot_p50 == pytest.approx(two.loc["stage_old"].tpot_p50, rel=0.02)


def test_the_cost_aware_router_fills_the_cheaper_kind_first():
    blind, aware = figures("round_robin"), figures("cost_aware")
    shares = [found.loc["stage_new"].output_tokens / found.loc["whole"].output_tokens for found in (blind, aware)]
    assert shares[0] == pytest.approx(0.5, abs=0.02)  # four instances of each
    assert shares[1] > 0.9
    assert aware.loc["stage_new"].cost_per_million_output_tokens < 0.7 * (
        blind.loc["stage_new"].cost_per_million_output_tokens
    )


def test_only_the_cost_aware_router_knows_how_much_each_kind_can_take():
    kept = {name: figures(name, load=0.9).loc["whole"] for name in ("round_robin", "least_outstanding", "cost_aware")}
    assert kept["round_robin"].slo_attainment < kept["least_outstanding"].slo_attainment - 0.1
    assert kept["least_outstanding"].slo_attainment < 0.8
    assert kept["cost_aware"].slo_attainment > 0.97
    assert kept["cost_aware"].tpot_p95 <= 0.05


def test_speculation_in_one_kind_speeds_up_that_kind():
    plain, fast = figures("least_outstanding"), figures("least_outstanding", new=NEW | {"speculation": "mtp"})
    assert fast.loc["stage_new"].tpot_p50 < 0.8 * plain.loc["stage_new"].tpot_p50
    assert fast.loc["stage_new"].tpot_p50 < 0.6 * fast.loc["stage_old"].tpot_p50
    new, old, whole = (fast.loc[name] for name in ("stage_new", "stage_old", "whole"))
    assert new.output_tokens + old.output_tokens == pytest.approx(whole.output_tokens)


def test_cost_aware_needs_kinds_to_choose_between():
    raw = copy.deepcopy(SMALL)
    raw["services"]["chat"]["router"] = "cost_aware"
    with pytest.raises(ScenarioError, match="`beside` or another router"):
        run(parse_scenario(raw))
