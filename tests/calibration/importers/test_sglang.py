"""SGLang: with and without details, without streaming, older versions, requests that ended without a token."""

import json

import pytest

from factory_sim.calibration.importers import inspect

NAME = "sglang/concurrency4_details.jsonl"
ARRAYS = ("ttfts", "itls", "errors", "input_lens", "output_lens", "generated_texts")


@pytest.fixture
def result(sample):
    return sample(NAME)


def without(result, *names):
    return {name: value for name, value in result.items() if name not in names}


def test_without_details_the_failed_are_unknown(result, write):
    point = inspect(write("run.jsonl", without(result, *ARRAYS))).points[0]
    assert (point.requests_completed, point.requests_failed) == (24, None)
    assert point.e2e_mean_ms == pytest.approx(1183.36, rel=0.001)
    assert point.concurrency == pytest.approx(3.99, rel=0.01)


def test_old_version_without_newer_keys(result, write):
    old = without(result, "tag", "server_info", "max_concurrency", "max_output_tokens_per_s", *ARRAYS)
    point = inspect(write("run.jsonl", old)).points[0]
    assert (point.ttft_mean_ms, point.concurrency_set) == (pytest.approx(203.40, rel=0.001), None)


@pytest.mark.parametrize("detailed", [True, False])
def test_without_streaming_nothing_but_e2e_is_left(result, write, detailed):
    result |= {"mean_tpot_ms": -0.0003, "mean_itl_ms": 0.0, "mean_ttft_ms": 1183.36, "ttfts": [1.18336] * 24,
               "itls": [[]] * 24}
    point = inspect(write("run.jsonl", result if detailed else without(result, *ARRAYS))).points[0]
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.chunk_gap_mean_ms) == (None, None, None)
    assert point.e2e_mean_ms == pytest.approx(1183.36, rel=0.001)


def test_failed_requests_are_counted_from_their_errors(result, write):
    for at in (2, 3):
        result["errors"][at], result["ttfts"][at], result["output_lens"][at] = "boom", 0.0, 0
        result["itls"][at] = []
    result["completed"] = 22
    point = inspect(write("run.jsonl", result)).points[0]
    assert (point.requests_completed, point.requests_failed, point.output_tokens) == (22, 2, 1100)
    assert point.ttft_mean_ms == pytest.approx(203.4, rel=0.01)


def test_asked_length_of_silent_requests_is_not_output(result, write):
    result["backend"] = "vllm"
    for at in (2, 3):
        result["ttfts"][at], result["itls"][at] = 0.0, []
    result["mean_ttft_ms"] *= 22 / 24
    found = inspect(write("run.jsonl", result))
    assert found.points[0].output_tokens == 1100
    assert found.points[0].ttft_mean_ms == pytest.approx(203.4, rel=0.01)
    assert any("asked output length" in note for note in found.notes)


def test_each_line_is_a_run(result, write):
    lines = [json.dumps({**result, "duration": seconds}) for seconds in (7.1, 14.2)]
    points = inspect(write("run.jsonl", "\n".join(lines) + "\n" + lines[0][:500])).points
    assert [point.duration_s for point in points] == [7.1, 14.2]


def test_gap_of_the_native_backend_is_told_to_be_per_token(result, write):
    assert any("native backend" in note for note in inspect(write("a.jsonl", result)).notes)
    result["backend"] = "sglang-oai"
    assert not any("native backend" in note for note in inspect(write("b.jsonl", result)).notes)


def test_set_and_asked_values_are_read(result, write):
    point = inspect(write("run.jsonl", {**result, "request_rate": 2.5, "accept_length": 2.1})).points[0]
    assert (point.request_rate_set_per_s, point.tokens_per_step) == (2.5, 2.1)
    assert (point.isl, point.osl, point.length_distribution) == (200, 50, "fixed")


def test_llm_optimizer_wraps_the_same_keys(result, write):
    found = inspect(write("run.json", {"config": {"client_args": {}}, "results": without(result, *ARRAYS)}))
    assert found.points[0].ttft_mean_ms == pytest.approx(203.40, rel=0.001)


def test_oldest_version_has_medians_only(write):
    result = {"backend": "sglang", "request_rate": 8.0, "total_input_tokens": 3231, "total_output_tokens": 414,
              "mean_e2e_latency_ms": 656.0, "median_e2e_latency_ms": 600.0, "median_ttft_ms": 240.0,
              "median_itl_ms": 19.0, "output_throughput": 117.0, "duration": 3.5, "completed": 20}
    found = inspect(write("run.jsonl", result))
    point = found.points[0]
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.chunk_gap_mean_ms) == (None, None, None)
    assert point.concurrency == pytest.approx(0.656 * 20 / 3.5)
    assert any("medians" in note for note in found.notes)
