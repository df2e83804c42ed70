"""Requests inside benchmark results, as a workload: vLLM and SGLang details, AIPerf records.

Arrivals are when the benchmark sent each request: with a closed loop they follow the server it ran against.
"""

from collections.abc import Iterator
from typing import Any

from factory_sim.inputs.logs.jsonscan import SKIP, Head
from factory_sim.inputs.logs.records import Complaints, Request
from factory_sim.inputs.logs.values import number, positive, seconds

PLAN = {"generated_texts": SKIP, "itls": SKIP, "server_info": SKIP}


def detect(head: Head) -> str | None:
    """Return the format name, or None."""
    if head.has("input_lens", "output_lens"):
        return "benchmark_details"
    if head.has("metadata.request_start_ns", "metrics"):
        return "aiperf_records"
    return None


def requests(document: dict[str, Any], where: str, complaints: Complaints) -> Iterator[Request]:
    """Yield the requests of one result or record."""
    if "metrics" in document:
        yield from _record(document)
        return
    isls, osls = document.get("input_lens"), document.get("output_lens")
    if not isinstance(isls, list) or not isinstance(osls, list) or len(isls) != len(osls):
        complaints.add("dropped, no lengths of single requests", where)
        return
    size = len(isls)
    starts, ttfts, latencies, errors = (
        found if isinstance(found := document.get(name), list) and len(found) == size else [None] * size
        for name in ("start_times", "ttfts", "latencies", "errors")
    )
    for at in range(size):
        osl, ttft_s, e2e_s = number(osls[at]), positive(ttfts[at]), positive(latencies[at])
        yield Request(
            start_s=_or_nan(number(starts[at])), isl=_or_nan(number(isls[at])), osl=_or_nan(osl),
            ttft_s=_or_nan(ttft_s), e2e_s=_or_nan(e2e_s), ok=not errors[at] and bool(osl),
            model=document.get("model_id"),
        )


def _record(document: dict[str, Any]) -> Iterator[Request]:
    meta, metrics = document.get("metadata") or {}, document.get("metrics") or {}
    if (meta.get("benchmark_phase") or meta.get("phase_kind")) == "warmup":
        return
    value = {name: item.get("value") for name, item in metrics.items() if isinstance(item, dict)}
    unit = {name: item.get("unit") for name, item in metrics.items() if isinstance(item, dict)}
    start_ns = number(meta.get("request_start_ns"))
    yield Request(
        start_s=_or_nan(start_ns and start_ns * 1e-9),
        isl=_or_nan(number(value.get("usage_prompt_tokens", value.get("input_sequence_length")))),
        osl=_or_nan(number(value.get("output_sequence_length"))),
        cached_tokens=_or_nan(number(value.get("usage_prompt_cache_read_tokens"))),
        ttft_s=_or_nan(seconds(value.get("time_to_first_token"), unit.get("time_to_first_token"))),
        e2e_s=_or_nan(seconds(value.get("request_latency"), unit.get("request_latency"))),
        ok=not document.get("error") and not meta.get("was_cancelled"),
        session=meta.get("conversation_id"),
    )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
