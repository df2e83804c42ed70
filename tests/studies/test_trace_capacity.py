"""Capacity by simulation: against closed forms where there are any, of traces and of conversations."""

import json
from math import exp, factorial
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq

from factory_sim.engine.kernel import Pool, Requests
from factory_sim.engine.resolve import resolve
from factory_sim.errors import CapacityError, ScenarioError
from factory_sim.inputs.overrides import load_scenario
from factory_sim.streams import stream
from factory_sim.studies.capacity import capacity

REPLAY = Path(__file__).parents[2] / "scenarios" / "replay.yaml"


def test_a_trace_of_poisson_arrivals_has_the_capacity_of_the_load_test(tmp_path):
    """The same law of arrivals and lengths, found in two ways: drawn loads of one instance, and a file played faster."""
    rng, n = stream(4, "poisson"), 8000
    rows = zip(np.cumsum(rng.exponential(0.5, n)), rng.integers(1, 2049, n), rng.integers(1, 513, n))
    (tmp_path / "p.csv").write_text(
        "arrival_s,input_tokens,output_tokens\n" + "".join(f"{t:.6f},{isl},{osl}\n" for t, isl, osl in rows)
    )
    base = ["slo.tpot_p95_s=0.025", "slo.ttft_p95_s=30", "router=random"]
    traced = capacity(load_scenario(REPLAY, [f"traffic.trace.path={tmp_path / 'p.csv'}", *base]), tests=2).iloc[0]
    lengths = "traffic.lengths={uniform: {isl: 2048, osl: 512, low_fraction: 0}}"
    drawn = ["traffic.trace=null", "traffic.demand={load: 0.5}", lengths, "prefix_cache=null"]
    tested = capacity(load_scenario(REPLAY, [*drawn, *base]), tests=3).iloc[0]
    assert traced.requests_per_s == pytest.approx(tested.requests_per_s, rel=0.08)
    assert traced.limited_by == tested.limited_by == "tpot"
    assert traced.band_low < traced.requests_per_s < traced.band_high


def m_d_1_waits_less(t: float, rho: float) -> float:
    """P(W <= t) of an M/D/1 queue, t in service times (Erlang 1909)."""
    terms = [(rho * (k - t)) ** k / factorial(k) * exp(-rho * (k - t)) for k in range(int(t) + 1)]
    return (1 - rho) * sum(terms)


@pytest.mark.parametrize("rho", [0.6, 0.8])
def test_equal_requests_one_by_one_have_the_capacity_of_an_m_d_1_queue(tmp_path, rho):
    """Where each of equal requests has the instance to itself, the load under a limit on the 95th percentile of the wait
    is that of the exact distribution of waits."""
    settings = ["stages.0.system.max_sequences=1", "traffic.trace.requests_per_s=0.1", "slo.tpot_p95_s=10"]
    (tmp_path / "alone.csv").write_text("input_tokens,output_tokens\n" + "512,101\n" * 12000)
    settings += [f"traffic.trace.path={tmp_path / 'alone.csv'}"]
    system = resolve(load_scenario(REPLAY, settings))[0].stages[0].system
    pool = Pool([(system, 1)])
    pool.offer(Requests(np.zeros(1), np.array([512]), np.array([101]), decode_steps=np.array([100])))
    pool.drain()
    (alone,) = pool.finished_rows()
    service_s = alone["finish_s"] - system.request_overhead_s
    wait = brentq(lambda t: m_d_1_waits_less(t, rho) - 0.95, 0.0, 10.0)
    limit_s = wait * service_s + alone["first_token_s"]
    found = capacity(load_scenario(REPLAY, [*settings, f"slo.ttft_p95_s={limit_s}"]), tests=3).iloc[0]
    assert found.limited_by == "ttft"
    assert found.requests_per_s * service_s == pytest.approx(rho, abs=0.025)


def test_conversations_have_a_capacity_and_a_tighter_promise_a_lower_one():
    chats = "traffic.chats={lengths: azure2023_conv, mean_turns: 3, sessions: 300, sessions_per_s: 2, think_median_s: 5, think_p90_s: 20}"
    found = [
        capacity(load_scenario(REPLAY, ["traffic.trace=null", chats, f"slo.tpot_p95_s={tpot}"]), tests=2).iloc[0]
        for tpot in (0.05, 0.02)
    ]
    assert found[0].requests_per_s > 1.3 * found[1].requests_per_s > 0
    assert found[0].ci_low <= found[0].requests_per_s <= found[0].ci_high


@pytest.mark.parametrize(
    "settings",
    [
        ["traffic.trace.path=azure2023_conv", "traffic.trace.first=2000"],
        [
            "traffic.trace=null",
            "traffic.chats={lengths: azure2023_conv, mean_turns: 3, sessions: 100, sessions_per_s: 2}",
        ],
        ["traffic.trace=null", "traffic.demand={load: 0.5}", "prefix_cache=null"],
    ],
)
@pytest.mark.parametrize("promise", ["slo.tpot_p95_s=0.0001", "slo.ttft_p95_s=0.0001"])
def test_a_promise_that_no_load_keeps_is_said(settings, promise):
    with pytest.raises(CapacityError, match=r"no load keeps the promise .*p95 TTFT is .* s and p95 TPOT"):
        capacity(load_scenario(REPLAY, [*settings, promise]), tests=2)


def test_requests_without_a_rate_have_no_capacity(tmp_path):
    with pytest.raises(ScenarioError, match="one_at_a_time is no load"):
        capacity(load_scenario(REPLAY, ["traffic.trace.pacing=one_at_a_time", "traffic.trace.first=50"]), tests=2)
    rows = [json.dumps({"timestamp": 0, "input_length": 100, "output_length": 5, "hash_ids": [k]}) for k in range(30)]
    (tmp_path / "m.jsonl").write_text("\n".join(rows))
    with pytest.raises(ScenarioError, match="arrive at once"):
        capacity(load_scenario(REPLAY, [f"traffic.trace.path={tmp_path / 'm.jsonl'}"]), tests=2)
