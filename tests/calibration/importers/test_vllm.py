"""vLLM: versions, failures, runs without streaming, and files that hold several results."""

import json

import pytest

from factory_sim.calibration.importers import inspect, read_results
from factory_sim.errors import MeasurementError

NAME = "vllm/concurrency4_detailed.json"
ARRAYS = ("ttfts", "itls", "errors", "input_lens", "output_lens", "start_times", "generated_texts")
LATENCIES = ("ttft_mean_ms", "tpot_mean_ms", "chunk_gap_mean_ms", "e2e_mean_ms")


@pytest.fixture
def result(sample):
    return sample(NAME)


def fail(result, *indices):
    for at in indices:
        result["errors"][at] = "boom"
        result["ttfts"][at] = result["latencies"][at] = 0.0
        result["output_lens"][at] = 0
        result["itls"][at] = []
    result["completed"] = 24 - len(indices)
    result["failed"] = len(indices)
    result["total_output_tokens"] = 50 * (24 - len(indices))
    result["total_input_tokens"] = 200 * (24 - len(indices))
    return result


def without(result, *names):
    return {name: value for name, value in result.items() if name not in names}


def test_failed_requests_stay_out_of_every_figure(result, write):
    point = inspect(write("run.json", fail(result, 1, 5, 9, 13))).points[0]
    assert (point.requests_completed, point.requests_failed, point.output_tokens) == (20, 4, 1000)
    assert point.ttft_mean_ms == pytest.approx(203.6, rel=0.01)
    assert point.e2e_mean_ms == pytest.approx(1183.7, rel=0.01)
    assert point.output_tokens_per_s == pytest.approx(1000 / 7.106, rel=0.01)
    assert point.concurrency == pytest.approx(20 * 1.1837 / 7.106, rel=0.01)


def test_old_files_without_failed_count_what_is_missing(result, write):
    old = without(fail(result, 1, 2), "failed", "latencies", "queue_times", *ARRAYS)
    point = inspect(write("run.json", old)).points[0]
    assert (point.requests_completed, point.requests_failed) == (22, 2)
    assert point.e2e_mean_ms is None


def test_when_all_failed_the_zeros_are_missing_values(result, write):
    fail(result, *range(24))
    result |= {name: 0.0 for name in result if name.startswith(("mean_", "median_", "p99_"))}
    path = write("run.json", result)
    point = inspect(path).points[0]
    assert (point.requests_completed, point.requests_failed) == (0, 24)
    assert all(getattr(point, name) is None for name in (*LATENCIES, "output_tokens_per_s", "concurrency"))
    with pytest.raises(MeasurementError, match="no request succeeded"):
        read_results(path)


@pytest.mark.parametrize("detailed", [True, False])
def test_without_streaming_ttft_is_missing_and_e2e_is_kept(result, write, detailed):
    result |= {"itls": [[]] * 24, "ttfts": result["latencies"], "mean_tpot_ms": 0.0, "mean_itl_ms": 0.0,
               "mean_ttft_ms": 1183.7}
    point = inspect(write("run.json", result if detailed else without(result, *ARRAYS))).points[0]
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.chunk_gap_mean_ms) == (None, None, None)
    assert point.e2e_mean_ms == pytest.approx(1183.72, rel=0.01)


def test_one_output_token_has_a_ttft_and_no_tpot(result, write):
    result |= {"itls": [[]] * 24, "latencies": result["ttfts"], "output_lens": [1] * 24, "total_output_tokens": 24,
               "mean_tpot_ms": 0.0, "mean_itl_ms": 0.0}
    for variant in (result, without(result, "latencies", *ARRAYS)):
        point = inspect(write("run.json", variant)).points[0]
        assert point.ttft_mean_ms == pytest.approx(203.63, rel=0.01)
        assert (point.tpot_mean_ms, point.chunk_gap_mean_ms) == (None, None)


def test_request_without_a_token_is_completed_but_not_in_ttft(result, write):
    result["output_lens"][0], result["itls"][0], result["ttfts"][0] = 0, [], 9.0
    found = inspect(write("run.json", result))
    assert found.points[0].requests_completed == 24
    assert found.points[0].zero_output_requests == 1
    assert found.points[0].ttft_mean_ms == pytest.approx(203.5, rel=0.01)


def test_several_tokens_a_chunk_keep_gap_and_tpot_apart(result, write):
    result["itls"] = [[0.04] * 24 for _ in range(24)]
    result["latencies"] = [ttft + 24 * 0.04 for ttft in result["ttfts"]]
    point = inspect(write("run.json", result)).points[0]
    assert point.chunk_gap_mean_ms == pytest.approx(40)
    assert point.tpot_mean_ms == pytest.approx(24 * 40 / 49)


def test_latencies_without_details_give_e2e_and_concurrency(result, write):
    point = inspect(write("run.json", without(result, *ARRAYS))).points[0]
    assert point.e2e_mean_ms == pytest.approx(1183.72, rel=0.001)
    assert point.concurrency == pytest.approx(4.0, rel=0.01)
    assert point.tpot_basis == "mean_tpot_ms"


def test_limit_is_no_measured_concurrency(result, write):
    old = without(result, "latencies", "queue_times", *ARRAYS)
    found = inspect(write("closed.json", old))
    assert (found.points[0].concurrency, found.points[0].concurrency_set) == (None, 4)
    assert any("its limit was 4" in note for note in found.notes)
    opened = inspect(write("open.json", {**old, "request_rate": 3.0})).points[0]
    assert (opened.concurrency, opened.request_rate_set_per_s, opened.concurrency_set) == (None, 3.0, 4)


def test_concurrency_is_never_the_peak_of_one_second_buckets(result, write):
    assert result["max_concurrent_requests"] == 8
    assert inspect(write("run.json", result)).points[0].concurrency == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("joint", ["\n", "", "\n\n"])
@pytest.mark.parametrize("indent", [None, 4])
def test_appended_results_are_points_of_their_own(result, write, joint, indent):
    second = {**result, "duration": 2 * result["duration"]}
    text = joint.join(json.dumps(item, indent=indent) for item in (result, second))
    points = inspect(write("run.json", text)).points
    assert [point.output_tokens_per_s for point in points] == [
        pytest.approx(168.87, rel=0.01), pytest.approx(84.44, rel=0.01)]


def test_cut_file_is_refused_with_line_and_column(result, write):
    text = json.dumps(result)
    for end in (200, 20_000, len(text) - 1):
        with pytest.raises(MeasurementError, match=rf"line 1, column {end + 1}"):
            inspect(write("run.json", text[:end]))


def test_results_before_a_cut_are_kept(result, write):
    text = json.dumps(result)
    found = inspect(write("run.json", text + "\n" + text[:9000]))
    assert len(found.points) == 1
    assert any("line 2, column 9001" in note for note in found.notes)


def test_log_lines_before_the_result_are_left_out(result, write):
    found = inspect(write("run.log.json", "INFO starting the benchmark\nINFO done\n" + json.dumps(result) + "\n"))
    assert found.points[0].ttft_mean_ms == pytest.approx(203.63, rel=0.01)
    assert any("not JSON: line 1, column 1" in note for note in found.notes)


def test_old_goodput_key_and_nan_do_no_harm(result, write):
    text = json.dumps({**without(result, "request_goodput"), "request_goodput:": None, "std_ttft_ms": float("nan"),
                       "mean_e2el_ms": float("inf")})
    assert inspect(write("run.json", text)).points[0].ttft_mean_ms == pytest.approx(203.63, rel=0.01)


def test_ramp_is_no_single_operating_point(result, write):
    found = inspect(write("run.json", {**result, "ramp_up_strategy": "linear"}))
    assert any("ramped up" in note for note in found.notes)


def test_pooling_benchmark_is_refused(write):
    with pytest.raises(MeasurementError, match="pooling"):
        inspect(write("run.json", {"duration": 1.0, "completed": 3, "total_input_sequences": 3,
                                   "total_token_throughput": 4.0}))


def test_texts_do_not_survive(result, write):
    result["generated_texts"] = ["SECRET ANSWER"] * 24
    result["errors"][0] = "SECRET ERROR"
    assert "SECRET" not in str(inspect(write("run.json", result)).model_dump())


def test_too_many_failures_are_no_basis_for_a_profile(result, write):
    with pytest.raises(MeasurementError, match="more than 5 %"):
        read_results(write("run.json", fail(result, 1, 2, 3)))


def test_throughput_run_has_totals_only(write):
    found = inspect(write("run.json", {"elapsed_time": 10.0, "num_requests": 100, "total_num_tokens": 50_000,
                                       "requests_per_second": 10.0, "tokens_per_second": 5000.0}))
    point = found.points[0]
    assert found.format == "vllm_bench_throughput"
    assert (point.requests_completed, point.duration_s, point.request_rate_per_s) == (100, 10.0, 10.0)
    assert (point.output_tokens, point.output_tokens_per_s, point.ttft_mean_ms) == (None, None, None)


def test_older_embedding_benchmark_is_refused(write):
    result = {"backend": "openai-embeddings", "model_id": "bge", "duration": 2.0, "completed": 10, "num_prompts": 10,
              "total_input_tokens": 100, "request_throughput": 5.0, "total_token_throughput": 50.0,
              "mean_e2el_ms": 20.0}
    with pytest.raises(MeasurementError, match="embedding"):
        inspect(write("run.json", result))


@pytest.mark.parametrize(
    ("result", "what"),
    [({"avg_latency": 1.2, "latencies": [1.2], "percentiles": {"10": 1.2}}, "bench latency"),
     ({"run_name": "a", "batch_size": 1, "input_len": 9, "output_len": 9, "latency": 0.5, "output_throughput": 1.0,
       "overall_throughput": 2.0}, "bench_one_batch"),
     ({"backend": "engine", "successful_requests": 9, "total_latency": 5.0, "input_throughput": 2.0},
      "bench_offline_throughput")],
)
def test_what_measures_no_service_is_refused_by_its_name(write, result, what):
    with pytest.raises(MeasurementError, match=what):
        inspect(write("result.json", result))
