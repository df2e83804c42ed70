"""Training jobs: dates of completion, lost work as in Daly's formula, lent nights, launches, roll-outs."""

import numpy as np
import pytest
from bed import STAGE, play, scenario, system

from factory_sim.engine.control.training import _progress, roll_out
from factory_sim.errors import ScenarioError
from factory_sim.inputs.training_jobs import Rollouts
from factory_sim.model import training as laws
from factory_sim.units import DAY_S, HOUR_S

JOB = {
    "gpu": "h100",
    "gpus": 64,
    "params_active": 1e9,
    "mfu": 0.4,
    "checkpoint_minutes": 30,
    "checkpoint_s": 0,
    "restart_s": 0,
}


def days(tokens_days):
    """Tokens that the job trains in so many days."""
    return laws.tokens_per_s("h100", 64, 1e9, "bf16", 0.4) * tokens_days * DAY_S


def test_completion_date_and_tokens_without_trouble():
    windows, events = play(scenario({"requests_per_s": 1}, training={"run": JOB | {"tokens": days(1.3)}}))
    done = events[events.kind == "training_complete"].time_s.item()
    assert done == pytest.approx(1.3 * DAY_S, abs=1)
    own = windows[windows.service == "run"]
    assert own.trained_tokens.sum() == pytest.approx(days(1.3))
    assert own.gpu_hours.sum() == pytest.approx(64 * 1.3 * 24)


def test_checkpoints_cost_their_writing_time():
    job = JOB | {"tokens": days(1.0), "checkpoint_s": 90}
    _, events = play(scenario({"requests_per_s": 1}, training={"run": job}))
    done = events[events.kind == "training_complete"].time_s.item()
    assert done == pytest.approx(DAY_S * (1 + 90 / 1800), abs=100)


def test_interruptions_lengthen_a_run_as_daly_says():
    job = JOB | {"tokens": days(6.0), "checkpoint_minutes": 120, "checkpoint_s": 60, "restart_s": 600}
    rate = 1 / (5 * HOUR_S)  # of the whole job
    rules = {"classes": {"stop": {"scope": "gpu", "per_unit_year": rate * 365.25 * DAY_S / 64, "repair_hours": 0.1,
                                  "repair": "fixed"}}}  # fmt: skip
    expected = laws.expected_duration_s(6 * DAY_S, 7200, 60, 600, rate)
    found = []
    for seed in range(8):
        _, events = play(
            scenario({"requests_per_s": 1e-9}, seed=seed, duration_days=14, training={"run": job}, outages=rules)
        )
        found.append(events[events.kind == "training_complete"].time_s.item())
    assert abs(np.mean(found) - expected) < 4 * np.std(found, ddof=1) / np.sqrt(8)
    assert expected > 1.2 * 6 * DAY_S


def test_a_service_lends_its_nights():
    rhythm = {"hours": [0.1] * 10 + [1.6] * 14}
    scaler = {"policy": "target_load", "minimum": 2, "down_delay_minutes": 0, "unneeded": "lend", "lend_to": "run"}
    job = JOB | {"gpus": 0, "tokens": days(100), "restart_s": 60}
    scene = scenario({"requests_per_s": 300, "rhythm": rhythm}, {"autoscaler": scaler}, training={"run": job})
    windows, events = play(scene)
    own = windows[windows.service == "run"]
    assert own[own.start_s % DAY_S < 9 * HOUR_S].gpus.max() >= 15
    assert own.trained_tokens.sum() > 0
    spans = (windows.end_s - windows.start_s) / HOUR_S
    assert (windows.gpus * spans).sum() == pytest.approx(20 * 48, rel=0.01)  # every GPU serves or trains
    assert "scaled_up" in set(events.kind)


def test_a_curtailment_pauses_training():
    event = {"kind": "curtailment", "at_day": 0.5, "hours": 12, "mw": 50}
    _, events = play(scenario({"requests_per_s": 1}, training={"run": JOB | {"tokens": days(0.8)}}, events=[event]))
    done = events[events.kind == "training_complete"].time_s.item()
    assert done == pytest.approx((0.8 + 0.5) * DAY_S, abs=2)


def test_a_better_model_enters_service():
    launch = {
        "service": "chat",
        "after_days": 0.25,
        "demand_multiplier": 2,
        "adoption_days": 0,
        "price_multiplier": 1.5,
    }
    job = JOB | {"tokens": days(0.5), "launch": launch}
    windows, events = play(scenario({"requests_per_s": 20}, training={"run": job}))
    chat = windows[windows.service == "chat"]
    rate = chat.latent_requests / (chat.end_s - chat.start_s)
    assert rate.iloc[0] == 20
    assert rate.iloc[-1] == pytest.approx(40)
    assert chat.price_multiplier.iloc[-1] == 1.5
    assert events[events.kind == "model_launched"].time_s.item() == pytest.approx(0.75 * DAY_S, abs=2)


def breaking(**changes):
    """Nodes break ten times in two days and are away for twelve hours."""
    rules = {"classes": {"node": {"scope": "node", "per_unit_year": 230, "repair_hours": 12, "repair": "fixed"}}}
    job = JOB | {"tokens": days(100), "restart_s": 60} | changes
    return play(scenario({"requests_per_s": 1e-9}, training={"run": job}, outages=rules))


def of_job(windows):
    own = windows[windows.service == "run"]
    return own.trained_tokens.sum() / days(1), own


def test_broken_nodes_shrink_a_job_until_they_are_repaired_and_spares_take_their_place():
    (fewer, own), (whole, with_spares), (still, waited) = (
        of_job(breaking(**changes)[0]) for changes in ({}, {"spare_gpus": 64}, {"without_spares": "wait"})
    )
    away = own.gpu_hours_broken.sum()
    assert away > 20 * 8
    assert (own.gpu_hours_down == own.gpu_hours_broken).all()
    worked = fewer + own.lost_trained_tokens.sum() / days(1)
    assert worked == pytest.approx(2 * (1 - away / own.gpu_hours.sum()), rel=0.02)  # restarts besides
    assert still < 0.9 * fewer < fewer < whole
    assert whole > 2 * 0.93
    assert (with_spares.gpus == 128).all()
    assert with_spares.gpu_hours_down.sum() == pytest.approx(64 * 48)  # spares stand by, or stand in for the broken
    stands = waited[waited.gpu_hours_broken > 0]
    assert stands.time_output_s.sum() < 0.1 * (stands.end_s - stands.start_s).sum()


def test_what_interruptions_lose_is_written_down_and_never_counted_as_trained():
    windows, events = breaking(without_spares="wait")
    _, own = of_job(windows)
    stops = events[events.kind == "training_interrupted"]
    told = sum(float(effect.split()[0]) for effect in stops.effect)
    assert len(stops) > 2
    assert own.lost_trained_tokens.sum() == pytest.approx(told, rel=0.01)


def test_quality_moves_demand_by_its_stated_answer():
    loss = laws.loss(laws.scaling_law(), 1e9, days(0.5))
    launch = {"service": "chat", "adoption_days": 0, "loss_before": loss + 0.1, "demand_per_nat": 5}
    windows, events = play(
        scenario({"requests_per_s": 20}, training={"run": JOB | {"tokens": days(0.5), "launch": launch}})
    )
    chat = windows[windows.service == "chat"]
    assert (chat.latent_requests / (chat.end_s - chat.start_s)).iloc[-1] == pytest.approx(20 * np.exp(0.5))
    assert f"loss {loss:.3f} nats/token after" in events[events.kind == "model_launched"].effect.item()
    with pytest.raises(ScenarioError, match="demand_per_nat needs loss_before"):
        scenario(training={"run": JOB | {"launch": {"service": "chat", "demand_per_nat": 5}}})


def test_a_stage_waits_for_the_launch_of_the_model_that_it_serves():
    stages = [STAGE, STAGE | {"name": "better", "from_day": 0.25, "after_training": "run", "model": "DeepSeek-V3",
                              "change": {"kind": "restart", "duration_days": 0.1}}]  # fmt: skip
    job = JOB | {"tokens": days(0.5), "launch": {"service": "chat", "after_days": 0.25}}
    _, events = play(scenario({"requests_per_s": 20}, {"stages": stages}, training={"run": job}))
    begun = events[(events.kind == "stage_begins") & (events.subject == "chat.better")].time_s.item()
    assert begun == pytest.approx(0.75 * DAY_S, abs=2)
    never = job | {"tokens": days(50)}
    windows, events = play(scenario({"requests_per_s": 20}, {"stages": stages}, training={"run": never}))
    assert "better" not in set(windows.stage)
    with pytest.raises(ScenarioError, match="has no `launch` in service 'chat'"):
        scenario(service={"stages": stages}, training={"run": JOB})
    with pytest.raises(ScenarioError, match="is for the last of several stages"):
        scenario(service={"stages": [STAGE | {"after_training": "run"}]}, training={"run": job})


def test_progress_counts_only_what_is_in_a_checkpoint():
    assert _progress(100.0, 0.0, 1000.0, 10.0) == (100.0, 0.0)
    assert _progress(2500.0, 0.0, 1000.0, 10.0) == (480.0, 2000.0)


def test_roll_outs_are_played_by_the_serving_engine():
    rollouts = Rollouts(system={}, lengths={"fixed": {"isl": 64, "osl": 101}}, requests=64)
    seconds, tokens = roll_out(rollouts, system(), 4, np.random.default_rng(0))
    assert tokens == 64 * 165
    assert seconds > 100 * 0.01  # a hundred steps of ten milliseconds at least
    twice, _ = roll_out(rollouts, system(factor=2.0), 4, np.random.default_rng(0))
    assert twice == pytest.approx(2 * seconds)


def test_wrong_jobs_are_named():
    with pytest.raises(ScenarioError, match="exactly one of model and params_active"):
        scenario(training={"run": {"gpu": "h100", "gpus": 8}})
    with pytest.raises(ScenarioError, match=r"no measured training run 'Llama 3-405B'; did you mean 'Llama 3\.1-405B'"):
        play(scenario(training={"run": JOB | {"mfu": "Llama 3-405B"}}))
    with pytest.raises(ScenarioError, match="it holds 200"):
        scenario(training={"run": JOB | {"gpus": 190}})
