"""Demand: growth, spikes, segments, prices, churn, retirement and overflow, in closed form and through the factory."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from bed import STAGE, another, play, resolved, same, scenario

from factory_sim.engine.control.demand import Backlog, DemandState, adopted, growth, rate_series, spike_factor, willing
from factory_sim.engine.control.distance import farther
from factory_sim.engine.facts import Facts
from factory_sim.engine.journal import tables
from factory_sim.engine.simulate import simulate
from factory_sim.errors import ScenarioError, TraceError
from factory_sim.histogram import lower_edge
from factory_sim.inputs.traffic import Churn, Demand, Growth, Segment
from factory_sim.results.figures import percentiles
from factory_sim.units import DAY_S, HOUR_S, WEEK_S


def state(**demand):
    return DemandState(Demand(requests_per_s=10, **demand), 10.0, 0.0, lambda start, end: 1.0, 0.0)


def test_growth_doubles_in_its_doubling_time():
    shape = Growth(kind="exponential", per_week=0.1)
    doubling = math.log(2) / math.log(1.1)
    assert growth(shape, 3 + doubling) == pytest.approx(2 * growth(shape, 3))
    assert growth(Growth(kind="exponential", per_week=0.0), 7.3) == 1.0


def test_logistic_starts_at_one_with_its_growth_and_ends_at_the_ceiling():
    shape = Growth(kind="logistic", per_week=0.2, ceiling=8.0)
    assert growth(shape, 0.0) == pytest.approx(1.0)
    step = 1e-6
    assert math.log(growth(shape, step)) / step == pytest.approx(math.log(1.2), rel=1e-4)
    assert growth(shape, 400.0) == pytest.approx(8.0)


def test_launch_is_adopted_from_nothing_in_its_time():
    assert adopted(-1.0, 10.0) == 0.0
    times = np.linspace(0, 40, 400_001)
    shares = np.array([adopted(t, 10.0) for t in times[::40]])
    ten, ninety = np.interp([0.1, 0.9], shares, times[::40])
    assert ninety - ten == pytest.approx(10.0, rel=1e-3)


def test_seasonal_swing_has_mean_one_over_a_year():
    shape = Growth(seasonal=0.3, seasonal_peak_day=100)
    weeks = np.arange(0, 365.25, 0.25) / 7
    assert np.mean([growth(shape, week) for week in weeks]) == pytest.approx(1.0, abs=1e-9)
    assert growth(shape, 100 / 7) == pytest.approx(1.3)


def test_spike_adds_its_area_whatever_the_slices():
    edges = np.concatenate([[0.0], np.sort(np.random.default_rng(1).uniform(0, 100, 30)), [100.0]])
    total = sum(spike_factor(8, 4, 6, a, b, 20) * (b - a) for a, b in itertools.pairwise(edges))
    assert total == pytest.approx(100 + 7 * (4 + 6))
    assert spike_factor(8, 0, 6, 22, 24, 20) == 8


def test_full_pass_through_of_a_twentyfold_cost_cut_raises_revenue_by_39_percent():
    demand = state(price_elasticity=-1.11)
    before, after = demand.latent(0, 1, 1.0), demand.latent(0, 1, 1 / 20)
    assert after / 20 / before == pytest.approx(20**0.11)
    assert pytest.approx(1.39, abs=0.005) == 20**0.11


def test_price_held_with_a_backlog_revenue_follows_capacity():
    many, _ = play(scenario({"requests_per_s": 4000}))
    more, _ = play(scenario({"requests_per_s": 8000}))
    assert same(many.output_tokens.to_frame(), more.output_tokens.to_frame())
    assert more.requests_waiting.iloc[-1] > many.requests_waiting.iloc[-1]


def test_segments_of_one_kind_are_the_service_itself():
    whole = state(price_elasticity=-0.5)
    split = state(price_elasticity=-0.5, segments={"a": {"share": 0.3}, "b": {"share": 0.7}})
    for price in (0.5, 1.0, 3.0):
        assert split.latent(0, HOUR_S, price) == pytest.approx(whole.latent(0, HOUR_S, price))


def test_half_of_a_segment_is_willing_to_pay_its_median():
    segment = Segment(share=1.0, willing_usd_per_million=1.4)
    assert willing(segment, 1.4) == pytest.approx(0.5)
    assert willing(segment, 1.4 * math.exp(0.8)) == pytest.approx(0.158655, abs=1e-6)
    assert willing(segment, 0.01) == pytest.approx(1.0, abs=1e-6)


def test_users_leave_only_while_they_are_let_down_and_come_back():
    demand, rule = state(), Churn(per_day=0.1, tolerated=0.05, return_per_day=0.02)
    demand.remember(rule, 0.05, DAY_S)
    assert demand.customers == 1.0
    for _ in range(24):
        demand.remember(rule, 1.0, HOUR_S)
    assert demand.customers == pytest.approx(math.exp(-0.1))
    demand.remember(rule, 0.0, 1e9)
    assert demand.customers == pytest.approx(1.0)


def test_backlog_conserves_requests_in_any_slices():
    rng, backlog, total = np.random.default_rng(3), Backlog(3600.0), 0.0
    for latent, limit, seconds in rng.uniform([0, 0, 1], [20, 12, 5000], (200, 3)):
        before = backlog.waiting
        granted, lost = backlog.step(latent, limit, seconds)
        assert before + latent * seconds == pytest.approx(granted * seconds + lost + backlog.waiting)
        assert granted <= limit * (1 + 1e-12)
        total += lost
    assert total > 0


def test_zero_growth_is_the_steady_state():
    plain, _ = play(scenario())
    flat, _ = play(scenario({"growth": {"kind": "exponential", "per_week": 0.0}}))
    assert same(plain, flat)


def test_a_spike_of_one_and_a_price_change_to_the_same_price_move_nothing_but_the_cut():
    plain, _ = play(scenario())
    event = {"kind": "spike", "at_day": 0.5, "service": "chat", "multiplier": 1.0, "hours": 3}
    spiked, events = play(scenario(events=[event]))
    assert same(plain, spiked)
    assert list(events.kind) == ["stage_begins", "spike_begins", "spike_ends"]


def test_prices_cut_by_half_bring_demand_by_the_elasticity():
    event = {"kind": "price_change", "at_day": 1, "service": "chat", "multiplier": 0.5}
    windows, _ = play(scenario({"price_elasticity": -1.11, "requests_per_s": 20}, events=[event]))
    rate = windows.latent_requests / (windows.end_s - windows.start_s)
    assert rate.iloc[-1] / rate.iloc[0] == pytest.approx(2**1.11)
    assert windows.price_multiplier.iloc[-1] == 0.5


def test_a_retired_model_hands_its_demand_over():
    chat, heir = another(), another()
    heir["traffic"]["demand"] = {"requests_per_s": 1, "patience_hours": 2}
    event = {"kind": "retirement", "at_day": 0.5, "service": "chat", "fade_days": 0.5, "to": "heir", "share": 0.8}
    windows, _ = play(scenario(services={"chat": chat, "heir": heir}, events=[event]))
    last = windows[windows.end_s == windows.end_s.max()].set_index("service")
    assert last.latent_requests["chat"] == 0.0
    assert last.latent_requests["heir"] / HOUR_S == pytest.approx(1 + 0.8 * 100)


def test_overflow_goes_to_the_other_service_and_nothing_gets_lost_on_the_way():
    chat, west = another(overflow={"to": "west"}), another()
    chat["traffic"]["demand"] |= {"requests_per_s": 4000}
    west["traffic"]["demand"] = {"requests_per_s": 10, "patience_hours": 2}
    windows, _ = play(scenario(services={"chat": chat, "west": west}))
    sums = windows.groupby("service")[
        ["latent_requests", "granted_requests", "requests_lost_waiting", "requests_sent"]
    ].sum()
    waiting = windows.groupby("service").requests_waiting.last()
    for name, row in sums.iterrows():
        assert row.latent_requests == pytest.approx(row.granted_requests + row.requests_lost_waiting + waiting[name])
    assert sums.latent_requests["west"] == pytest.approx(10 * 2 * DAY_S + sums.requests_sent["chat"])
    assert sums.requests_sent["chat"] > 0


def test_requests_that_overflow_have_the_network_time_in_their_time_to_first_token():
    def served(**overflow):
        chat, west = another(overflow={"to": "west"} | overflow), another()
        chat["traffic"]["demand"] |= {"requests_per_s": 4000}
        west["traffic"]["demand"] = {"requests_per_s": 1e-6, "patience_hours": 2}
        scene = scenario(services={"chat": chat, "west": west})
        journal = simulate(scene, resolved(scene), 0)
        weights, latency = tables([journal])["weights"], tables([journal])["latency"]
        whole = weights.assign(window="whole", replication=0)
        return pd.DataFrame(journal.windows), percentiles(latency, whole).xs("west", level="service").iloc[0]

    near_rows, near = served()
    far_rows, far = served(latency_s=0.5)
    assert far.ttft_p50 == pytest.approx(near.ttft_p50 + 0.5, rel=0.02)
    assert far.e2e_p95 == pytest.approx(near.e2e_p95 + 0.5, rel=0.02)
    assert far.tpot_p95 == pytest.approx(near.tpot_p95)
    assert far_rows.drop(columns="requests_within_slo").equals(near_rows.drop(columns="requests_within_slo"))
    late_rows, _ = served(latency_s=60)
    of = "requests_within_slo"
    kept, within = (rows[rows.service == "west"][of].sum() for rows in (near_rows, far_rows))
    assert 0.9 * kept < within <= kept
    assert late_rows[late_rows.service == "west"][of].sum() < 1e-4 * kept  # the promise is 5 s


def test_a_window_moved_by_no_time_is_itself_but_for_its_number():
    bins, counts = np.array([-300, -200, 5], np.int32), np.array([1.0, 2.0, 4.0])
    facts = Facts(3, 1.0, {"requests_within_slo": 2.0}, {"ttft": (bins, counts), "tpot": (bins, counts)})
    same = farther(facts, 0.0, 4, 1e3)
    assert same.window == 4
    assert same.values == facts.values
    assert np.array_equal(same.latency["ttft"][0], bins)
    assert np.array_equal(same.latency["ttft"][1], counts)
    twice = farther(facts, 0.25, 5, 0.5).latency["ttft"]
    assert twice[1].sum() == counts.sum()
    assert (lower_edge(twice[0].astype(int) + 1) > 0.25).all()


def test_an_idle_service_changes_nobody_elses_numbers():
    alone, _ = play(scenario({"load": 0.6}))
    chat, idle = another(), another()
    chat["traffic"]["demand"] = {"load": 0.6, "patience_hours": 2}
    idle["traffic"]["demand"] = {"requests_per_s": 1e-9, "patience_hours": 2}
    for order in (["chat", "idle"], ["idle", "chat"]):
        both, _ = play(scenario(services={name: {"chat": chat, "idle": idle}[name] for name in order}))
        mine = both[both.service == "chat"].reset_index(drop=True)
        wanted = [c for c in alone.columns]
        assert same(alone[wanted], mine[wanted])


def test_measured_series_drive_demand_and_keep_its_mean():
    series = rate_series("servegen_m-large")
    assert series.mean_over(0, series.period_s) == pytest.approx(1.0)
    assert series.mean_over(100, 900) == pytest.approx(
        (500 * series.mean_over(100, 600) + 300 * series.mean_over(600, 900)) / 800
    )
    windows, _ = play(scenario({"requests_per_s": 20, "series": "servegen_m-large"}, duration_days=7))
    assert windows.latent_requests.sum() == pytest.approx(20 * WEEK_S, rel=0.02)


def test_own_series_from_a_file(tmp_path):
    path = tmp_path / "rates.csv"
    path.write_text("t_s,requests_per_s\n0,1\n3600,3\n7200,2\n")
    series = rate_series(str(path))
    assert [series.mean_over(h * HOUR_S, (h + 1) * HOUR_S) for h in range(4)] == pytest.approx([0.5, 1.5, 1.0, 0.5])
    bad = tmp_path / "bad.csv"
    bad.write_text("time,rate\n0,1\n")
    with pytest.raises(TraceError, match=r"rate series .*no column of time with its unit \(t_s"):
        rate_series(str(bad))


def test_users_held_to_tokens_per_minute():
    windows, _ = play(scenario({"requests_per_s": 100, "users": 1000}, {"admission": {"user_tokens_per_minute": 96}}))
    assert np.allclose(windows.limit_requests_per_s, 1000 * 96 / 60 / 96)  # 96 tokens a request


def test_users_held_to_requests_per_minute_and_what_that_turns_away():
    demand = {"requests_per_s": 100, "users": 1000, "patience_hours": 0}
    windows, _ = play(scenario(demand, {"admission": {"user_requests_per_minute": 3}}))
    assert np.allclose(windows.limit_requests_per_s, 1000 * 3 / 60)
    assert windows.requests_lost_to_user_limits.sum() == pytest.approx(windows.requests_turned_away.sum())
    assert windows.requests_lost_to_user_limits.sum() == pytest.approx((100 - 50) * 2 * DAY_S)
    both = {"user_requests_per_minute": 3, "user_tokens_per_minute": 96}
    tighter, _ = play(scenario(demand, {"admission": both}))
    assert np.allclose(tighter.limit_requests_per_s, 1000 / 60)
    free, _ = play(scenario(demand, {"admission": {"user_requests_per_minute": 1e6}}))
    assert free.requests_lost_to_user_limits.sum() == 0


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([{"kind": "spike", "at_day": -1, "service": "chat", "multiplier": 2, "hours": 1}], "before the start"),
        ([{"kind": "spike", "at_day": 5, "service": "chat", "multiplier": 2, "hours": 1}], "after the end"),
        ([{"kind": "spike", "at_day": 1, "service": "chta", "multiplier": 2, "hours": 1}], "did you mean 'chat'"),
        (
            [{"kind": "spike", "at": "2026-07-07T00:00:00", "service": "chat", "multiplier": 2, "hours": 1}],
            "UTC offset",
        ),
        (
            [{"kind": "spike", "at": "2026-03-29T02:30:00 Europe/Berlin", "service": "chat", "multiplier": 2, "hours": 1}],
            "names a time zone; give the UTC offset",
        ),
        ([{"kind": "spike", "service": "chat", "multiplier": 2, "hours": 1}], "exactly one of at_day and at"),
        (
            [{"kind": "price_change", "at_day": 1, "service": "chat", "multiplier": m} for m in (1, 2)],
            "contradicts events.0",
        ),
        ([{"kind": "curtailment", "at_day": d, "hours": 9, "mw": 1} for d in (0.5, 0.7)], "overlap"),
        ([{"kind": "delivery", "at_day": 1, "service": "chat", "gpus": 1000}], "it holds 200"),
        ([{"kind": "heat_wave", "at_day": 1, "days": 1, "rise_k": 5}], "has no `cooling`"),
        ([{"kind": "breakdown", "at_day": 1, "hours": 1}], "either service"),
    ],
)
def test_wrong_events_are_named_with_their_time(events, message):
    with pytest.raises(ScenarioError, match=message):
        scenario(events=events)


def test_deliveries_and_moves_are_of_whole_instances():
    eight = STAGE | {"gpus": 16, "system": STAGE["system"] | {"parallelism": "tp8pp1ep1dpaFr1"}}
    services = {"chat": another(stages=[eight]), "a": another(stages=[eight])}
    for event in ({"kind": "move", "to": "a"}, {"kind": "delivery"}):
        with pytest.raises(ScenarioError, match=r"events.0 .* 12 GPUs are no whole instances of chat \(8 GPUs each\)"):
            scenario(services=services, events=[event | {"at_day": 1, "service": "chat", "gpus": 12}])


def test_replicas_cannot_move_to_two_services():
    services = {"chat": another(), "a": another(), "b": another()}
    events = [{"kind": "move", "at_day": 1, "service": "chat", "to": to, "gpus": 15} for to in ("a", "b")]
    with pytest.raises(ScenarioError, match=r"events.1 \(move\) on day 1: chat has 5 GPUs left, not 15"):
        scenario(services=services, events=events)
