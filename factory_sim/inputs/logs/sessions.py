"""Traces of sessions in JSON: WEKA/AgentX conversations and LLMServingSim sessions."""

from collections.abc import Iterator
from typing import Any

from factory_sim.inputs.logs.jsonscan import Head
from factory_sim.inputs.logs.records import Complaints, Request
from factory_sim.inputs.logs.values import number, positive


def detect(head: Head) -> str | None:
    """Return the format name, or None."""
    if head.any("sub_requests.input_toks", "sub_requests.output_toks"):
        return "llmservingsim_trace"
    if head.has("requests.t", "requests.in", "requests.out") or (head.has("block_size", "requests") and
                                                                 head.any("requests.in", "tool_tokens")):
        return "weka_trace"
    return None


def requests(document: dict[str, Any], where: str, complaints: Complaints) -> Iterator[Request]:
    """Yield the requests of one session; their start times count from the start of the session."""
    if "sub_requests" in document:
        yield from _serving_sim(document, where, complaints)
        return
    session = document.get("id")
    for item in _nested(document.get("requests")):
        isl, osl = number(item.get("in")), number(item.get("out"))
        if isl is None or osl is None or isl < 0 or osl < 0:
            complaints.add("dropped, no count of tokens", where)
            continue
        ttft_s, e2e_s = positive(item.get("ttft")), positive(item.get("api_time"))
        if ttft_s is not None and e2e_s is not None and ttft_s > e2e_s:
            ttft_s = None
        start_s = number(item.get("t"))
        yield Request(
            start_s=_or_nan(start_s), isl=isl, osl=osl, ttft_s=_or_nan(ttft_s), e2e_s=_or_nan(e2e_s),
            decode_s=_or_nan(e2e_s - ttft_s if ttft_s is not None and e2e_s is not None else None),
            session=session, model=item.get("model"),
        )


def _nested(items: object) -> Iterator[dict[str, Any]]:
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, dict):
            continue
        if isinstance(item.get("requests"), list):
            yield from _nested(item["requests"])
        elif "in" in item:
            yield item


def _serving_sim(document: dict[str, Any], where: str, complaints: Complaints) -> Iterator[Request]:
    arrival_ns = number(document.get("arrival_time_ns"))
    for item in document["sub_requests"] if isinstance(document["sub_requests"], list) else []:
        isl, osl = number(item.get("input_toks")), number(item.get("output_toks"))
        if isl is None or osl is None or isl < 0 or osl < 0:
            complaints.add("dropped, no count of tokens", where)
            continue
        yield Request(start_s=_or_nan(arrival_ns and arrival_ns * 1e-9), isl=isl, osl=osl,
                      session=document.get("session_id"))


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
