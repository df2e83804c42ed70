"""inference-perf, LLMPerf, InferenceX, trtllm-bench and llm-d reports."""

import json
from pathlib import Path

import pytest
import yaml

from factory_sim.calibration.importers import inspect, to_measurements
from factory_sim.errors import MeasurementError

DATA = Path(__file__).parents[2] / "data" / "importers"


@pytest.fixture
def stage(sample):
    return sample("inference-perf/stage_0_lifecycle_metrics.json")


def test_stages_are_points_and_what_pools_them_is_left_out(stage, write, tmp_path):
    del stage["load_summary"]["concurrency"]
    stage["load_summary"]["requested_rate"] = 3.5
    for at in (0, 1):
        write(f"stage_{at}_lifecycle_metrics.json", {**stage, "benchmark_time_seconds": 7.0 + at})
    for name in ("summary_lifecycle_metrics.json", "per_request_lifecycle_metrics.json", "config.yaml"):
        write(name, (DATA / "inference-perf" / name).read_text())
    found = inspect(tmp_path)
    assert [point.duration_s for point in found.points] == [7.0, 8.0]
    assert [point.request_rate_set_per_s for point in found.points] == [3.5, 3.5]


def test_requested_rate_is_a_filler_when_the_load_is_concurrent(stage, write):
    point = inspect(write("stage_0_lifecycle_metrics.json", stage)).points[0]
    assert (point.concurrency_set, point.request_rate_set_per_s) == (4, None)


def test_inference_perf_without_streaming(stage, write):
    stage["successes"]["latency"] |= dict.fromkeys(
        ("time_to_first_token", "time_per_output_token", "inter_token_latency"))
    point = inspect(write("run.json", stage)).points[0]
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.chunk_gap_mean_ms) == (None, None, None)
    assert point.e2e_mean_ms == pytest.approx(1183.25, rel=1e-3)


def test_inference_perf_zeros_between_tokens_of_a_chunk_are_no_chunk_gaps(stage, write):
    stage["successes"]["latency"]["inter_token_latency"] |= {"median": 0.0, "min": 0.0}
    point = inspect(write("run.json", stage)).points[0]
    assert point.chunk_gap_mean_ms is None
    assert point.tpot_mean_ms == pytest.approx(20.007, rel=1e-3)


def test_inference_perf_older_names_of_lengths(stage, write):
    good = stage["successes"]
    good["prompt_len"], good["output_len"] = {"mean": 200.0}, {"mean": 50.0}
    del good["prompt_tokens"]
    good.pop("output_tokens", None)
    point = inspect(write("run.json", stage)).points[0]
    assert (point.input_tokens, point.output_tokens) == (4800, 1200)


def test_inference_perf_failures(stage, write):
    stage["failures"] = {"count": 24}
    stage["successes"] = {"count": 0, "latency": {"request_latency": None}, "throughput": {}}
    point = inspect(write("run.json", stage)).points[0]
    assert (point.requests_completed, point.requests_failed, point.e2e_mean_ms) == (0, 24, None)


def test_inference_perf_requests_up_to_a_cut_and_errors(write):
    records = json.loads((DATA / "inference-perf" / "per_request_lifecycle_metrics.json").read_text())
    records[0]["error"] = {"error_type": "x", "error_msg": "y"}
    records[1]["info"]["response_metrics"] |= {"output_tokens": 0, "output_token_times": [], "chunk_times": []}
    whole = inspect(write("requests.json", records)).points[0]
    assert (whole.requests_completed, whole.requests_failed, whole.zero_output_requests) == (23, 1, 1)
    assert whole.ttft_mean_ms == pytest.approx(202.4, rel=1e-2)
    text = json.dumps(records)
    found = inspect(write("cut.json", text[: len(text) // 2]))
    assert 0 < found.points[0].requests_completed < 23
    assert any("cut off" in note for note in found.notes)


LLMPERF = {
    "version": "2023-08-31", "model": "m", "mean_input_tokens": 550, "stddev_input_tokens": 0,
    "mean_output_tokens": 150, "stddev_output_tokens": 0, "num_concurrent_requests": 16,
    "results_inter_token_latency_s_mean": 0.111, "results_ttft_s_mean": 6.0,
    "results_end_to_end_latency_s_mean": 17.6, "results_number_input_tokens_mean": 550.0,
    "results_number_output_tokens_mean": 158.5, "results_number_output_tokens_min": "129",
    "results_number_output_tokens_max": "169", "results_number_errors": 1, "results_num_completed_requests": 112,
    "results_num_completed_requests_per_min": 48.0,
}
RESPONSE = {"error_code": None, "error_msg": "", "inter_token_latency_s": 0.111, "ttft_s": 6.0,
            "end_to_end_latency_s": 17.6, "number_output_tokens": 117, "number_input_tokens": 550}


def test_llmperf_inter_token_latency_is_neither_tpot_nor_gap(write):
    point = inspect(write("m_550_150_summary.json", LLMPERF)).points[0]
    assert (point.tpot_mean_ms, point.chunk_gap_mean_ms) == (None, None)
    assert (point.ttft_mean_ms, point.e2e_mean_ms) == (6000, 17_600)
    assert (point.requests_completed, point.requests_failed) == (112, 1)
    assert point.duration_s == pytest.approx(140)
    assert point.output_tokens == pytest.approx(112 * 158.5)
    assert point.concurrency == pytest.approx(112 * 17.6 / 140)


def test_llmperf_answers_of_one_length_give_tpot_exactly(write):
    fixed = LLMPERF | {"results_number_output_tokens_mean": 117.0, "results_number_output_tokens_min": "117",
                       "results_number_output_tokens_max": "117"}
    assert inspect(write("a_summary.json", fixed)).points[0].tpot_mean_ms == pytest.approx(100)


def test_llmperf_responses_fill_what_the_summary_lacks(write, tmp_path):
    responses = [RESPONSE] * 112 + [{**RESPONSE, "error_code": 500, "error_msg": "boom", "ttft_s": 0.0}]
    alone = inspect(write("m_550_150_individual_responses.json", responses)).points[0]
    assert (alone.requests_completed, alone.requests_failed, alone.duration_s) == (112, 1, None)
    assert alone.tpot_mean_ms == pytest.approx(100)
    write("m_550_150_summary.json", LLMPERF)
    (point,) = inspect(tmp_path).points
    assert point.tpot_mean_ms == pytest.approx(100)
    assert point.duration_s == pytest.approx(140)


INFERENCEX = {
    "hw": "h200-nv", "conc": 64, "image": "x:1", "model": "deepseek-ai/DeepSeek-R1", "infmax_model_prefix": "dsr1",
    "framework": "sglang", "precision": "fp8", "spec_decoding": "none", "disagg": False, "isl": 1024, "osl": 1024,
    "is_multinode": False, "tp": 8, "pp": 1, "ep": 8, "dp_attention": "false", "tput_per_gpu": 500.0,
    "output_tput_per_gpu": 250.0, "mean_ttft": 0.9, "mean_tpot": 0.03, "mean_itl": 0.031, "mean_e2el": 30.0,
}
MULTINODE = INFERENCEX | {
    "is_multinode": True, "disagg": True, "num_prefill_gpu": 8, "num_decode_gpu": 16, "prefill_num_workers": 2,
    "decode_num_workers": 1, "prefill_tp": 4, "decode_tp": 16, "decode_ep": 16, "decode_dp_attention": "true",
}


def test_inferencex_times_are_seconds_and_experts_are_no_gpus(write):
    point = inspect(write("agg.json", INFERENCEX)).points[0]
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.chunk_gap_mean_ms) == (900, 30, 31)
    assert (point.n_gpus, point.gpu, point.concurrency) == (8, "h200", 64)
    assert point.output_tokens_per_s == 2000
    assert point.parallelism["dp_attention"] is False
    assert (point.requests_completed, point.duration_s, point.output_tokens) == (None, None, None)


def test_inferencex_output_rate_of_split_systems_is_over_decode_gpus(write):
    point = inspect(write("agg.json", [MULTINODE])).points[0]
    assert point.n_gpus == 24
    assert point.output_tokens_per_s == 16 * 250
    assert point.parallelism["decode_dp_attention"] is True
    assert point.parallelism["prefill_gpus_per_worker"] == 4


def test_inferencex_bad_rows_are_listed_and_power_needs_its_version(write):
    rows = [INFERENCEX | {"joules_per_output_token": 1.0, "power_valid": 1}, {"infmax_model_prefix": "x", "hw": "h100"}]
    found = inspect(write("agg.json", rows))
    assert len(found.points) == 1
    assert "joules_per_output_token" not in found.points[0].extra
    assert any("no TTFT, TPOT or throughput" in note for note in found.notes)
    told = [{**rows[0], "power_metric_schema_version": 2, "avg_power_w": 600.0}]
    assert inspect(write("power.json", told)).points[0].extra["joules_per_output_token"] == 1.0


TRTLLM = {
    "engine": {"model": "m", "version": "1.0.0", "dtype": "bfloat16", "quantization": "FP8"},
    "machine": {"name": "NVIDIA H100 80GB HBM3"},
    "world_info": {"tp_size": 2, "pp_size": 1, "ep_size": None, "world_size": 2, "max_batch_size": 256},
    "request_info": {"num_requests": 24, "avg_num_concurrent_requests": 3.98, "avg_input_length": 200.0,
                     "avg_output_length": 50.0},
    "performance": {"total_latency_ms": 7106.0, "avg_request_latency_ms": 1183.7},
    "streaming_metrics": {"avg_ttft_ms": 203.6, "avg_tpot_ms": 20.0},
}


def test_trtllm_report(write):
    found = inspect(write("report.json", TRTLLM))
    point = found.points[0]
    assert found.tool_version == "1.0.0"
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.e2e_mean_ms) == (203.6, 20.0, 1183.7)
    assert (point.requests_completed, point.input_tokens, point.output_tokens) == (24, 4800, 1200)
    assert (point.concurrency, point.n_gpus, point.requests_failed) == (3.98, 2, None)
    assert point.output_tokens_per_s == pytest.approx(168.9, rel=1e-3)


def test_trtllm_offline_has_no_ttft_and_older_versions_say_itl(write):
    offline = {name: part for name, part in TRTLLM.items() if name != "streaming_metrics"}
    point = inspect(write("offline.json", offline)).points[0]
    assert (point.ttft_mean_ms, point.tpot_mean_ms) == (None, None)
    older = TRTLLM | {"streaming_metrics": {"avg_ttft_ms": 203.6, "avg_itl_ms": 20.0}}
    point = inspect(write("older.json", older)).points[0]
    assert (point.tpot_mean_ms, point.chunk_gap_mean_ms) == (20.0, None)


LLMD = {
    "version": "0.1",
    "scenario": {"host": {"accelerator": {"model": "H100", "count": 4, "parallelism": {"tp": 4}}}},
    "metrics": {
        "time": {"duration": 16.5},
        "requests": {"total": 26, "failures": 2, "input_length": {"units": "count", "mean": 200.0},
                     "output_length": {"units": "count", "mean": 50.0}},
        "latency": {"time_to_first_token": {"units": "ms", "mean": 203.0},
                    "time_per_output_token": {"units": "s/token", "mean": 0.02},
                    "request_latency": {"units": "s", "mean": 1.183}},
        "throughput": {"requests_per_sec": 3.36},
    },
}


@pytest.mark.parametrize("container", ["json", "yaml"])
def test_llmd_report_reads_its_units(write, container):
    text = json.dumps(LLMD) if container == "json" else yaml.safe_dump(LLMD)
    point = inspect(write(f"report.{container}", text)).points[0]
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.e2e_mean_ms) == (203, 20, 1183)
    assert (point.requests_completed, point.requests_failed, point.n_gpus) == (24, 2, 4)
    assert point.duration_s == pytest.approx(24 / 3.36)  # not the 16.5 s, which include the start-up


def test_predictions_and_side_files_are_refused_with_their_name(write):
    prediction = {"num_requests": 1, "completed_requests": 1, "wall_time_ms": 1.0, "mean_ttft_ms": 1.0}
    with pytest.raises(MeasurementError, match="simulated"):
        inspect(write("prediction.json", prediction))
    with pytest.raises(MeasurementError, match="its members are: apples"):
        inspect(write("other.json", {"apples": 1}))


def test_inference_perf_before_latencies_had_a_place_of_their_own(write):
    report = {"load_summary": {"count": 20},
              "successes": {"count": 17, "request_latency": {"mean": 0.6}, "prompt_len": {"mean": 100.0},
                            "output_len": {"mean": 20.0}, "normalized_time_per_output_token": {"mean": 0.03}},
              "failures": {"count": 3}}
    (point,) = inspect(write("summary_lifecycle_metrics.json", report)).points
    assert (point.e2e_mean_ms, point.input_tokens, point.output_tokens) == (pytest.approx(600), 1700, 340)
    assert (point.tpot_mean_ms, point.duration_s, point.requests_failed) == (None, None, 3)


def test_inference_perf_tells_when_client_and_server_count_other_tokens(sample, write):
    report = sample("inference-perf/stage_0_lifecycle_metrics.json")
    report["successes"]["output_tokens"] = {"total": 900.0}
    found = inspect(write("stage_0_lifecycle_metrics.json", report))
    assert found.points[0].output_tokens == 1200
    assert any("1200" in note and "counted 900" in note for note in found.notes)


def test_inferencex_in_milliseconds_is_doubted(write):
    row = {"hw": "h200", "infmax_model_prefix": "dsr1", "conc": 4, "tp": 8, "tput_per_gpu": 10.0, "mean_tpot": 20.0}
    found = inspect(write("agg.json", row))
    assert any("doubtful" in note and "20 s a token" in note for note in found.notes)


def test_llmd_report_of_a_run_that_failed_has_no_figures(write):
    text = ("metrics:\n  latency:\n    time_to_first_token: {mean: 0.0, units: s}\n  requests:\n    failures: 9\n"
            "    input_length: {mean: 0.0}\n    output_length: {mean: 0.0}\n    total: 9\n  throughput:\n"
            "    requests_per_sec: 0.0\nversion: '0.1'\n")
    (point,) = inspect(write("report.yaml", text)).points
    assert (point.requests_completed, point.requests_failed) == (0, 9)
    assert all(value is None for name, value in point.figures().items() if not name.startswith("requests_"))


AGENTS = {
    "hw": "b200-x4", "conc": 8, "model": "org/model", "infmax_model_prefix": "dsr1", "framework": "vllm",
    "precision": "fp4", "spec_decoding": "none", "disagg": False, "scenario_type": "agentic-coding",
    "is_multinode": False, "tp": 4, "ep": 1, "pp": 1, "dcp_size": 1, "pcp_size": 1, "dp_attention": "false",
    "num_requests_total": 28, "num_requests_successful": 20,
    "request_accounting": {"records_total": 28, "records_warmup_dropped": 5, "records_error_dropped": 3},
    "request_metrics": {
        "latency": {name: {"mean": mean, "p50": 9.0} for name, mean in
                    (("ttft", 0.5), ("e2el", 2.0), ("itl", 0.02), ("tpot", 0.02))},
        "tokens": {"input": {"mean": 90_000.5}, "output_actual": {"mean": 250.0}},
        "throughput": {"input": {"tokens_per_second": 180_001.0}, "output": {"tokens_per_second": 500.0},
                       "duration_seconds": 10.0, "per_gpu": {"total_tput_tps": 45_125.25}},
    },
}


def test_inferencex_rows_of_agents_hold_counts_and_no_gaps(write):
    found = inspect(write("agg.json", AGENTS))
    (point,) = found.points
    assert (point.requests_completed, point.requests_failed) == (20, 3)
    assert (point.input_tokens, point.output_tokens, point.duration_s) == (1_800_010, 5_000, 10)
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.e2e_mean_ms) == pytest.approx((500, 20, 2000))
    assert (point.chunk_gap_mean_ms, point.length_distribution) == (None, None)
    assert (point.output_tokens_per_s, point.request_rate_per_s, point.concurrency) == pytest.approx((500, 2, 4))
    assert (point.concurrency_set, point.n_gpus) == (8, 4)
    with pytest.raises(MeasurementError, match="sessions of agents"):
        to_measurements(found)


def test_inferencex_before_speculation_had_its_name(write):
    row = {"hw": "gb200", "tp": 8, "ep": 8, "conc": 64, "model": "dsr1", "framework": "dynamo-trt", "precision": "fp4",
           "isl": 1024, "osl": 1024, "disagg": True, "num_prefill_gpu": 8, "num_decode_gpu": 16, "mtp": "on",
           "tput_per_gpu": 90.0, "output_tput_per_gpu": 30.0, "input_tput_per_gpu": 60.0, "mean_ttft": 0.5,
           "mean_tpot": 0.02}
    (point,) = inspect(write("agg.json", row)).points
    assert (point.speculative, point.n_gpus, point.parallelism["mode"]) == ("mtp", 24, "disagg")
    assert point.output_tokens_per_s == pytest.approx(30 * 16)
