"""What vLLM and SGLang print, saved in a log: good for the means, told to be rounded."""

import pytest

from factory_sim.calibration.importers import inspect
from factory_sim.errors import MeasurementError

VLLM = """INFO 05-01 10:00:00 [__init__.py:239] Automatically detected platform cuda.
Namespace(backend='vllm', model='org/llama', random_input_len=2048, random_output_len=2048, max_concurrency=32)
Traffic request rate: inf
Maximum request concurrency: 32
100%|####| 32/32 [02:30<00:00,  4.71s/it]
============ Serving Benchmark Result ============
Successful requests:                     32
Benchmark duration (s):                  150.87
Total input tokens:                      65536
Total generated tokens:                  65536
Request throughput (req/s):              0.21
Output token throughput (tok/s):         434.40
---------------Time to First Token----------------
Mean TTFT (ms):                          7279.56
Median TTFT (ms):                        7099.88
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          70.14
---------------Inter-token Latency----------------
Mean ITL (ms):                           70.15
==================================================
Mean TTFT (ms):                          1.0
"""
SGLANG = """
============ Serving Benchmark Result ============
Backend:                                 sglang-oai
Traffic request rate:                    4.0
Max request concurrency:                 8
Successful requests:                     24
Benchmark duration (s):                  7.11
Total input tokens:                      4800
Total generated tokens:                  1200
Concurrency:                             3.99
----------------End-to-End Latency----------------
Mean E2E Latency (ms):                   1183.35
---------------Time to First Token----------------
Mean TTFT (ms):                          203.40
Mean TPOT (ms):                          20.00
==================================================
"""


def test_each_printed_table_is_a_point(write):
    found = inspect(write("run.log", VLLM + SGLANG))
    first, second = found.points
    assert (found.format, first.requests_completed, first.output_tokens) == ("console_log", 32, 65536)
    assert (first.ttft_mean_ms, first.tpot_mean_ms, first.chunk_gap_mean_ms) == (7279.56, 70.14, 70.15)
    assert first.output_tokens_per_s == pytest.approx(65536 / 150.87)
    assert (first.model, first.isl, first.concurrency_set, first.request_rate_set_per_s) == (
        "org/llama", 2048, 32, None)
    assert (second.e2e_mean_ms, second.concurrency, second.concurrency_set) == (1183.35, 3.99, 8)
    assert (second.request_rate_set_per_s, second.requests_failed, second.model) == (4, None, None)
    assert any("two decimals" in note for note in found.notes)


def test_cut_table_is_told(write):
    found = inspect(write("run.log", VLLM + SGLANG[: SGLANG.index("Benchmark duration")]))
    assert len(found.points) == 1
    line = VLLM.count("\n") + 2
    assert any("cut off?" in note and f"line {line}," in note for note in found.notes)
    with pytest.raises(MeasurementError, match="without its counts"):
        inspect(write("cut.log", VLLM[: VLLM.index("Successful")]))


def test_dictionary_of_python_is_no_json(write):
    with pytest.raises(MeasurementError, match="json.dump"):
        inspect(write("run.json", "{'backend': 'vllm', 'duration': 3.2, 'completed': 4, 'mean_ttft_ms': None}"))
