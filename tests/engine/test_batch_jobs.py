"""Batch jobs fill what users leave idle: tokens, deadline, price, and the users' promise."""

import pytest

from factory_sim.engine.control.batch import JobQueue
from factory_sim.errors import ScenarioError
from factory_sim.inputs.overrides import parse_scenario
from factory_sim.results.run import run


def with_jobs(small_dict, **batch):
    """One stage for two days at half its capacity, as it comes over the day; with jobs if `batch` is given."""
    service = small_dict["services"]["chat"]
    service["stages"] = service["stages"][:1]
    service["traffic"]["demand"] = {"load": 0.5, "rhythm": "servegen_deepseek-r1"}
    small_dict["simulation"] |= {"profile_error": False}
    small_dict["simulation"]["sampling"] |= {"window_requests": 3000, "window_s": 600, "warmup_s": 60}
    if batch:
        service["batch"] = batch
    return small_dict


def figures(raw) -> dict[str, float]:
    result = run(parse_scenario(raw))
    assert [check for check in result.summary["checks"] if not check["ok"]] == []
    return {
        row["figure"]: row["value"]
        for row in result.summary["figures"]
        if (row["window"], row["service"]) == ("whole", "all")
    }


@pytest.fixture(scope="module")
def played():
    """Figures without jobs, with few, and with more than can be answered."""
    import copy

    from tests.conftest import SMALL

    none = figures(with_jobs(copy.deepcopy(SMALL)))
    spare_per_s = 0.3 * none["requests_completed"] / (2 * 86400)
    few = figures(with_jobs(copy.deepcopy(SMALL), requests_per_s=spare_per_s))
    many = figures(with_jobs(copy.deepcopy(SMALL), requests_per_s=20 * spare_per_s, deadline_hours=6))
    return none, few, many


def test_few_jobs_are_all_answered_in_time(played):
    none, few, _ = played
    assert "batch_output_tokens" not in none
    assert few["batch_within_deadline"] == 1.0
    assert few["batch_requests_completed"] == pytest.approx(few["batch_requests_submitted"], rel=0.05)  # the rest waits
    mean = none["output_tokens"] / none["requests_completed"]
    assert few["batch_output_tokens"] == pytest.approx(few["batch_requests_completed"] * mean, rel=0.03)
    assert few["output_tokens"] == pytest.approx(none["output_tokens"] + few["batch_output_tokens"], rel=0.03)


def test_jobs_cost_no_utilisation_and_lower_the_cost_of_a_token(played):
    none, few, many = played
    assert few["utilisation"] > none["utilisation"] - 1e-9
    assert many["cost_per_million_output_tokens"] < few["cost_per_million_output_tokens"]
    assert few["cost_per_million_output_tokens"] < 0.85 * none["cost_per_million_output_tokens"]


def test_more_jobs_than_room_miss_their_deadline_and_users_keep_their_promise(played):
    none, _, many = played
    assert 0.05 < many["batch_within_deadline"] < 0.9
    assert many["requests_completed"] == pytest.approx(none["requests_completed"], rel=0.02)
    assert many["ttft_p95"] <= 15
    assert many["tpot_p95"] <= 0.05
    assert many["slo_attainment"] > none["slo_attainment"] - 0.01


def test_long_jobs_are_let_in_only_as_far_as_the_users_promise_holds(small_dict):
    long = {"fixed": {"isl": 8000, "osl": 200}}
    found = figures(with_jobs(small_dict, requests_per_s=200.0, lengths=long))
    assert found["batch_requests_completed"] > 1000
    assert found["ttft_p95"] <= 15
    assert found["tpot_p95"] <= 0.05


def test_jobs_are_sold_at_half_the_price_or_at_the_stated_part(played, small_dict):
    none, few, _ = played

    def bill(found, of_users, of_jobs):
        return 1e-6 * (0.5 * (of_users[0] + 0.5 * of_jobs[0]) + 2.0 * (of_users[1] + 0.5 * of_jobs[1]))

    jobs = few["batch_input_tokens"], few["batch_output_tokens"]
    users = few["input_tokens"] - jobs[0], few["output_tokens"] - jobs[1]
    assert few["revenue"] == pytest.approx(bill(few, users, jobs), rel=1e-3)
    assert few["revenue"] > 1.05 * none["revenue"]


def test_a_queue_answers_the_oldest_first_and_drops_what_is_late():
    queue = JobQueue(deadline_s=100.0, per_s=2.0)
    assert queue.submit(0.0, 50.0) == 100.0
    queue.take(30.0)  # those of the first 15 s
    assert queue.waiting[0][0] == pytest.approx(15.0)
    queue.submit(50.0, 110.0)
    assert queue.drop(100.0) == 0.0
    assert queue.drop(120.0) == pytest.approx(10.0)  # submitted from 15 to 20 s
    assert queue.number() == pytest.approx(220.0 - 30.0 - 10.0)
    queue.take(1000.0)
    assert queue.number() == 0.0


def test_a_trace_has_no_idle_hours(small_dict):
    raw = with_jobs(small_dict, requests_per_s=1.0)
    raw["services"]["chat"]["traffic"]["requests"] = 100
    with pytest.raises(ScenarioError, match="batch jobs fill the hours"):
        parse_scenario(raw)
