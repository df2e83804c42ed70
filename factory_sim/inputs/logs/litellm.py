"""LiteLLM logs: StandardLoggingPayload objects (one a line) and rows of LiteLLM_SpendLogs (JSONL or CSV).

`response_time` there is the TTFT for streams and the whole latency otherwise, so times are computed from `startTime`,
`completionStartTime` and `endTime`; without streaming the middle one equals the end, which is no TTFT.
"""

import json
from typing import Any

from factory_sim.inputs.logs.jsonscan import SKIP, Head
from factory_sim.inputs.logs.records import Complaints, Request
from factory_sim.inputs.logs.values import epoch_seconds, number, positive

PLAN = {
    "messages": SKIP,
    "response": SKIP,
    "proxy_server_request": SKIP,
    "hidden_params": SKIP,
    "model_map_information": SKIP,
    "error_information": SKIP,
    "model_parameters": SKIP,
}
FIELDS = (
    "startTime", "endTime", "completionStartTime", "prompt_tokens", "completion_tokens", "metadata", "status", "stream",
    "request_duration_ms", "session_id", "trace_id", "end_user", "team_id", "user", "model", "model_group", "spend",
    "response_cost", "litellm_call_id", "request_id", "id", "error_str", "exception",
)
"""Members that `request` reads: the columns to take from an exported table."""
_FEWEST_SECONDS = 1e-6


WRAPPER = "data"
"""Member in which the proxy's own answer holds the rows."""


def detect(head: Head, inside: str = "") -> bool:
    """True for either of the two layouts, bare or as the rows `inside` a member."""
    place = f"{inside}." if inside else ""
    return head.has(f"{place}startTime", f"{place}endTime") and head.any(*(
        place + name for name in ("call_type", "completionStartTime", "custom_llm_provider", "spend", "response_cost")
    ))


def request(row: dict[str, Any], where: str, complaints: Complaints) -> Request | None:
    """Return one request, or None (with a complaint) when the row holds no usable times or counts."""
    start_s, end_s = epoch_seconds(row.get("startTime")), epoch_seconds(row.get("endTime"))
    if start_s is None:
        complaints.add("dropped, startTime is no time", f"{where}, found {row.get('startTime')!r}")
        return None
    usage = _object(_object(row.get("metadata")).get("usage_object"))
    isl = _first(number(row.get("prompt_tokens")), number(usage.get("prompt_tokens")))
    osl = _first(number(row.get("completion_tokens")), number(usage.get("completion_tokens")))
    ok = _succeeded(row)
    if ok and (isl is None or osl is None or isl < 0 or osl < 0):
        complaints.add("dropped, prompt_tokens or completion_tokens is no count", where)
        return None
    e2e_s = end_s - start_s if end_s is not None else _milliseconds(row.get("request_duration_ms"))
    if e2e_s is not None and e2e_s <= 0:
        complaints.add("latency dropped, endTime is not after startTime", where)
        e2e_s = None
    first_s = epoch_seconds(row.get("completionStartTime"))
    ttft_s = first_s - start_s if first_s is not None else None
    streamed = ttft_s is not None and e2e_s is not None and _FEWEST_SECONDS < ttft_s < e2e_s - _FEWEST_SECONDS
    if not streamed or row.get("stream") is False:
        ttft_s = None
    prompt_details = _object(usage.get("prompt_tokens_details"))
    output_details = _object(usage.get("completion_tokens_details"))
    missing = float("nan")
    return Request(
        start_s=start_s,
        isl=missing if isl is None else isl,
        osl=missing if osl is None else osl,
        cached_tokens=_or_nan(_first(number(prompt_details.get("cached_tokens")),
                                     number(usage.get("cache_read_input_tokens")))),
        reasoning_tokens=_or_nan(number(output_details.get("reasoning_tokens"))),
        ttft_s=_or_nan(ttft_s),
        decode_s=missing if ttft_s is None else e2e_s - ttft_s,
        e2e_s=_or_nan(e2e_s),
        ok=ok,
        session=row.get("session_id") or row.get("trace_id") or None,
        tenant=row.get("end_user") or row.get("team_id") or row.get("user") or None,
        model=row.get("model") or row.get("model_group"),
        spend_usd=_or_nan(_first(number(row.get("spend")), number(row.get("response_cost")))),
        key=row.get("litellm_call_id") or row.get("request_id") or row.get("id"),
    )


def _succeeded(row: dict[str, Any]) -> bool:
    status = row.get("status")
    if status is None or status == "":
        return not row.get("error_str") and not row.get("exception")
    return str(status).lower() in ("success", "ok", "200")


def _object(value: object) -> dict[str, Any]:
    """The object in a member that is one already, or holds one as JSON text."""
    if isinstance(value, dict):
        return value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            found = json.loads(value)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}
    return {}


def _milliseconds(value: object) -> float | None:
    found = positive(value)
    return None if found is None else found / 1000


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
