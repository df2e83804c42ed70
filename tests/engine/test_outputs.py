"""Services of images and videos: the table's throughput and joules, laws of queues, and nobody else's numbers moved."""

import copy

import numpy as np
import pandas as pd
import pytest

from factory_sim.engine.kernel import Pool, Requests
from factory_sim.engine.load_test import load_test
from factory_sim.engine.outputs import one_output
from factory_sim.engine.watts import host_watts
from factory_sim.errors import CapacityError, FactorySimError, PriceError, ProfileError, ScenarioError
from factory_sim.inputs.generation import _TOKEN_KEYS, DiffusionSystem
from factory_sim.inputs.overrides import parse_scenario
from factory_sim.inputs.services import System
from factory_sim.model.generation import generation_service, generation_system, measured_rows
from factory_sim.results.run import run

IMAGES = {
    "model": "stable-diffusion-3.5-medium",
    "slo": {"time_to_output_p95_s": 60},
    "traffic": {"demand": {"requests_per_s": 2.0, "patience_hours": 1}},
    "stages": [
        {"name": "sd", "from_day": 0, "gpus": 8, "system": {"gpu": "h100", "engine": "diffusion", "batch": 4}},
    ],
}  # fmt: skip
VIDEOS = {
    "model": "Wan2.1-T2V-1.3B",
    "slo": {"time_to_output_p95_s": 400},
    "traffic": {"demand": {"load": 0.6}},
    "stages": [
        {"name": "wan", "from_day": 0, "replicas": 4, "system": {"gpu": "b200", "engine": "diffusion", "gpus": 2, "batch": 1}},
    ],
}  # fmt: skip
CHAT = {
    "model": "DeepSeek-R1",
    "slo": {"ttft_p95_s": 15, "tpot_p95_s": 0.05},
    "traffic": {"lengths": {"uniform": {"isl": 512, "osl": 128}}, "demand": {"load": 0.5}},
    "stages": [{"name": "h200", "from_day": 0, "gpus": 16, "system": {
        "gpu": "h200", "engine": "trtllm", "precision": "fp8", "parallelism": "tp8pp1ep1dpaFr1"}}],
}  # fmt: skip
MONEY = {
    "plans": {
        "chat": {"input_usd_per_million": 0.5, "output_usd_per_million": 2.0},
        "images": {"image_usd": 0.04},
        "videos": {"video_second_usd": 0.1, "video_usd": 0.01},
    },
    "band": "none",
}


def scenario(**services):
    raw = {
        "name": "outputs", "seed": 5, "start": "2026-07-06T00:00:00+00:00", "duration_days": 0.5, "site": {"gpus": 64},
        "services": services,
        "money": {**MONEY, "plans": {name: plan for name, plan in MONEY["plans"].items() if name in services}},
        "simulation": {"replications": 1, "profile_error": False, "sampling": {"hours_per_window": 24}},
    }  # fmt: skip
    return copy.deepcopy(raw)


def played(raw):
    result = run(parse_scenario(raw))
    assert [check for check in result.summary["checks"] if not check["ok"]] == []
    return result


def value(result, figure, service="all", window="whole"):
    rows = result.figures.query("figure == @figure and service == @service and window == @window")
    return float(rows.value.iloc[0])


@pytest.fixture(scope="module")
def studio():
    return played(scenario(chat=CHAT, images=IMAGES, videos=VIDEOS))


def row_of(model, gpu, n_gpus, batch):
    return next(
        r for r in measured_rows()
        if model in r.model and (r.gpu, r.n_gpus, r.batch_size) == (gpu, n_gpus, batch)
    )  # fmt: skip


def test_saturated_servers_make_the_batch_of_the_table_in_the_seconds_of_the_table():
    raw = scenario(images=IMAGES)
    raw["services"]["images"]["traffic"]["demand"]["requests_per_s"] = 6.0  # 2.3 times what they can
    raw["services"]["images"]["admission"] = {"limit": "none"}
    raw["services"]["images"]["scheduling"] = {"queue_limit": 40}  # ten batches; the rest is turned away
    windows = played(raw).tables["windows"]
    row = row_of("3.5-medium", "h100", 1, 4)
    rate = windows.images.sum() / windows.instance_s.sum()
    assert rate == pytest.approx(4 / row.batch_latency_s, rel=0.01)  # a window begins and ends within a batch
    joules = (windows.output_energy_j + windows.input_energy_j + windows.idle_energy_j).sum()
    assert joules / windows.images.sum() == pytest.approx(row.power_w * row.batch_latency_s / 4, rel=0.01)


def test_joules_close_with_the_meter_and_are_those_of_the_measured_batch(studio):
    windows = studio.tables["windows"].query("service == 'videos'")
    row = row_of("T2V-1.3B", "b200", 2, 1)
    busy_s = windows.time_output_s.sum()
    fastest_s = min(r.batch_latency_s for r in measured_rows()
                    if "T2V-1.3B" in r.model and (r.gpu, r.n_gpus, r.batch_size) == ("b200", 2, 1))  # fmt: skip
    assert windows.videos.sum() == pytest.approx(busy_s / fastest_s, rel=0.02)
    watts = {r.batch_latency_s: r.power_w for r in measured_rows() if r.model == row.model and r.gpu == "b200"}
    assert windows.output_energy_j.sum() == pytest.approx(busy_s * watts[fastest_s], rel=1e-9)
    gpu_j, gpu_s = (windows.output_energy_j + windows.idle_energy_j).sum(), windows.gpu_hours.sum() * 3600
    meter_j = 1.25 * (gpu_j + host_watts("b200", gpu_j / gpu_s) * gpu_s)
    assert meter_j == pytest.approx(windows.facility_energy_j.sum(), rel=1e-9)
    assert value(studio, "energy_per_video") == pytest.approx(windows.facility_energy_j.sum() / windows.videos.sum())


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_at_a_time_is_the_queue_of_khinchine(load):
    system = generation_system(generation_service("3.5-medium", "h100", 1, 1))
    service_s, rng, times = float(system.workers[0].step.base_s[1]), np.random.default_rng(11), 60_000
    arrival_s = np.cumsum(rng.exponential(service_s / load, times))
    pool = Pool([(system, 1)])
    ones = np.ones(times, np.int64)
    pool.offer(Requests(arrival_s=arrival_s, isl=ones, osl=ones))
    pool.drain()
    done = pool.finished()
    waits = (done["finish_s"] - done["arrival_s"])[2000:] - service_s
    assert waits.mean() == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.08)


def test_a_larger_batch_never_lowers_the_capacity_of_a_generous_promise():
    def capacity(batch):
        system = generation_system(generation_service("SANA1.5_1.6B", "b200", 1, batch))
        return load_test(system, one_output(), np.inf, router="least_outstanding", seed=2).capacity_per_s(1e3, np.inf)

    small, large = capacity(1), capacity(16)
    one, sixteen = (generation_service("SANA1.5_1.6B", "b200", 1, n) for n in (1, 16))
    assert small < large
    assert small <= one.outputs_per_s * 1.03
    assert 0.8 * sixteen.outputs_per_s <= large <= sixteen.outputs_per_s * 1.03


def test_images_and_videos_beside_it_move_no_number_of_a_chat(studio):
    alone = played(scenario(chat=CHAT))
    mine = studio.tables["windows"].query("service == 'chat'").reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, alone.tables["windows"].reset_index(drop=True), check_exact=True)
    of_chat, of_alone = (
        result.figures.query("service == 'chat'").set_index(["figure", "window"]).value for result in (studio, alone)
    )
    pd.testing.assert_series_equal(of_chat, of_alone, rtol=1e-12, atol=0)


def test_figures_per_token_of_the_whole_factory_are_those_of_the_chat(studio):
    for figure in (
        "cost_per_million_output_tokens", "cost_per_million_tokens", "output_tokens", "energy_per_output_token",
        "output_tokens_per_s_per_gpu", "ttft_p95", "tpot_p95", "e2e_p95",
    ):  # fmt: skip
        assert value(studio, figure) == value(studio, figure, "chat"), figure
    assert value(studio, "cost") > value(studio, "cost", "chat")


def test_a_service_has_the_figures_of_what_it_makes_and_no_others(studio):
    named = {name: set(rows.figure) for name, rows in studio.figures.groupby("service")}
    assert {"images", "cost_per_image", "energy_per_image", "time_to_output_p95"} <= named["images"]
    assert not {"ttft_p95", "tpot_p95", "output_tokens", "cost_per_million_tokens", "videos"} & named["images"]
    assert not {"images", "videos", "time_to_output_p95", "cost_per_image"} & named["chat"]


def test_a_factory_without_tokens_has_no_figure_of_tokens():
    figures = set(played(scenario(images=IMAGES)).figures.figure)
    assert {"images", "cost_per_image", "revenue_growth_first_to_last_week"} <= figures
    assert not {"ttft_p95", "output_tokens", "cost_reduction_first_to_last_week", "energy_per_output_token"} & figures


def test_outputs_are_sold_at_their_price_and_tokens_at_theirs(studio):
    windows = studio.tables["windows"]
    images, videos = (windows.query("service == @name") for name in ("images", "videos"))
    assert value(studio, "revenue", "images") == pytest.approx(0.04 * images.images.sum(), rel=1e-6)
    seconds = videos.videos.sum() * 81 / 15
    assert videos.video_s.sum() == pytest.approx(seconds)
    assert value(studio, "revenue", "videos") == pytest.approx(0.1 * seconds + 0.01 * videos.videos.sum(), rel=1e-6)
    assert value(studio, "cost_per_image") * images.images.sum() == pytest.approx(value(studio, "cost", "images"))
    assert windows.query("service != 'chat'")[["input_tokens", "output_tokens"]].to_numpy().sum() == 0


def test_a_promise_is_kept_at_the_tested_capacity_and_the_batch_is_chosen_for_it():
    raw = scenario(images=IMAGES)
    del raw["services"]["images"]["stages"][0]["system"]["batch"]
    raw["services"]["images"]["slo"]["time_to_output_p95_s"] = 30
    raw["services"]["images"]["traffic"]["demand"] = {"load": 0.9}
    result = played(raw)
    assert value(result, "slo_attainment", "images") >= 0.94
    assert value(result, "time_to_output_p95", "images") <= 30 * 1.05


def test_the_larger_sampling_of_slow_videos_holds_many_batches(studio):
    audits = studio.tables["audits"].query("makes == 'videos'")
    assert (audits.completed >= 100 * audits.instances).all()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"system": {"speculation": "mtp"}}, ScenarioError, "'speculation' is a key of language models"),
        ({"system": {"parallelism": "tp8pp1ep1dpaFr1"}}, ScenarioError, "'parallelism' is a key of language models"),
        ({"system": {"batches": 4}}, ScenarioError, "unknown key"),
        ({"system": {"gpus": 3}}, ProfileError, "was measured on 1, 2, 4, 8 GPUs, not 3"),
        ({"slo": {"ttft_p95_s": 2}}, ScenarioError, "'ttft_p95_s' is a promise on tokens"),
        ({"slo": {"time_to_output_p95_s": 0.5}}, CapacityError, "p95 time to output 0.5 s"),
        ({"traffic": {"lengths": "azure_conv"}}, ScenarioError, "traffic.lengths are lengths of prompts"),
        ({"traffic": {"reasoning": "high"}}, ScenarioError, "traffic.reasoning describes prompts"),
        ({"service": {"prefix_cache": {}}}, ScenarioError, "prefix_cache keeps tokens"),
        ({"service": {"admission": {"user_tokens_per_minute": 9}}}, ScenarioError, "user_requests_per_minute"),
        ({"service": {"model": "FLUX2-dev"}}, ProfileError, "FLUX"),
        ({"service": {"model": "whisper-large-v3"}}, ProfileError, "audio or speech"),
        ({"plan": {"output_usd_per_million": 2.0}}, PriceError, "give image_usd"),
        ({"plan": {"image_usd": 0.1, "free_tokens_per_month": 10}}, PriceError, "counts tokens"),
    ],
)
def test_what_belongs_to_tokens_is_told_in_a_service_of_images(change, error, said):
    raw = scenario(images=IMAGES)
    service = raw["services"]["images"]
    service["stages"][0]["system"] |= change.get("system", {})
    service["slo"] |= change.get("slo", {})
    service["traffic"] |= change.get("traffic", {})
    service |= change.get("service", {})
    if "plan" in change:
        raw["money"]["plans"]["images"] = change["plan"]
    with pytest.raises(error) as raised:
        run(parse_scenario(raw))
    assert said in str(raised.value)
    assert "images" in str(raised.value)


def test_an_image_model_on_an_engine_of_language_models_is_told_how_to_be_written():
    raw = scenario(chat=CHAT)
    raw["services"]["chat"]["model"] = "FLUX.1-dev"
    with pytest.raises(ScenarioError, match=r"makes images or videos, which trtllm does not; write system: \{gpu: h200"):
        run(parse_scenario(raw))


def test_a_language_model_without_tokens_is_refused():
    raw = scenario(chat=CHAT)
    raw["services"]["chat"]["slo"] = {"time_to_output_p95_s": 10}
    with pytest.raises(ScenarioError, match="promise of image and video models"):
        parse_scenario(raw)
    raw = scenario(chat=CHAT, images=IMAGES)
    raw["services"]["chat"]["overflow"] = {"to": "images"}
    with pytest.raises(ScenarioError, match="the other makes images or videos"):
        parse_scenario(raw)
    raw = scenario(chat=CHAT)
    raw["money"]["plans"]["chat"] = {"image_usd": 0.1}
    with pytest.raises(FactorySimError, match="input_usd_per_million and output_usd_per_million"):
        run(parse_scenario(raw))


def test_every_key_of_a_language_system_is_told_apart_from_those_of_an_image_system():
    assert set(_TOKEN_KEYS) == set(System.model_fields) - set(DiffusionSystem.model_fields)


def test_a_service_makes_one_kind_of_output_and_stands_behind_no_router_of_tokens():
    raw = scenario(images=IMAGES)
    later = copy.deepcopy(IMAGES["stages"][0]) | {"name": "film", "from_day": 0.6, "model": "Wan2.1-T2V-1.3B"}
    raw["services"]["images"]["slo"]["time_to_output_p95_s"] = 400
    raw["duration_days"] = 1
    raw["services"]["images"]["stages"].append(later)
    with pytest.raises(ScenarioError, match="one makes images, another videos; they are two services"):
        run(parse_scenario(raw))
    raw = scenario(images=IMAGES)
    raw["services"]["images"]["beside"] = [{"name": "old", "gpus": 8, "system": CHAT["stages"][0]["system"]}]
    with pytest.raises(ScenarioError, match="beside puts systems of language models"):
        parse_scenario(raw)
