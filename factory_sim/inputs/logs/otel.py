"""OpenTelemetry GenAI spans, in both containers: SDK JSON (one span a line) and OTLP JSON (one batch a line).

Most spans of the semantic conventions hold no TTFT, those of the engines themselves (vLLM, SGLang) do. OpenLLMetry adds
one event a streamed chunk: the first is the first token, and one more than there are tokens means that the last chunk
carried only the usage.
"""

from collections.abc import Callable, Iterator
from typing import Any

from factory_sim.inputs.logs.jsonscan import Each, Head, Plan
from factory_sim.inputs.logs.records import Complaints, Request
from factory_sim.inputs.logs.values import epoch_seconds, number

OPERATIONS = ("chat", "text_completion", "completion", "generate_content")
CHUNK_EVENT = "gen_ai.content.completion.chunk"
_BATCHES = ("resourceSpans", "resource_spans", "batches")
_TRACES = "data"
_SCOPES = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans")
_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens",
          "llm.token_count.prompt")
_OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens",
           "llm.token_count.completion")
_CACHED = ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens",
           "gen_ai.usage.cached_tokens", "llm.usage.cache_read_input_tokens")
_REASONING = ("gen_ai.usage.reasoning_tokens", "gen_ai.usage.reasoning.output_tokens",
              "llm.usage.reasoning_tokens")
_FIRST_TOKEN_S = ("gen_ai.server.time_to_first_token", "gen_ai.response.time_to_first_chunk",
                  "gen_ai.client.time_to_first_token", "gen_ai.latency.time_to_first_token",
                  "gen_ai.response.time_to_first_token")


def detect(head: Head) -> bool:
    """True for OTLP batches (also as Tempo gives them), for SDK spans and for traces saved from Jaeger."""
    if head.any("resourceSpans", "resource_spans", "scopeSpans", "batches.scopeSpans", "data.spans.operationName"):
        return True
    return head.has("attributes", "start_time") and head.any("context.trace_id", "context", "trace_id")


def plan(take: Callable[[dict[str, Any]], None]) -> Plan:
    """Return a reading plan that hands over the spans of OTLP batches one by one, those before a cut too."""
    nothing = _Nothing().take
    spans = {"spans": Each(take)}
    scopes = {name: Each(nothing, inner=lambda: spans) for name in _SCOPES}
    traces = {_TRACES: Each(nothing, inner=lambda: spans)}
    return {name: Each(nothing, inner=lambda: scopes) for name in _BATCHES} | scopes | traces


class _Nothing:
    def take(self, _: Any) -> None:
        """What a batch holds beside its spans is not needed."""


def requests(span: dict[str, Any], where: str, complaints: Complaints) -> Iterator[Request]:
    """Yield the request of one span, if it is one to a language model; a document that held a batch has none left."""
    if any(name in span for name in (*_BATCHES, *_SCOPES, _TRACES)):
        return
    attributes = _pairs(span.get("attributes", span.get("tags")))
    operation = attributes.get("gen_ai.operation.name") or attributes.get("llm.request.type")
    if operation is not None and str(operation).lower() not in OPERATIONS:
        complaints.add(f"left out, spans of operation {operation}", where)
    elif operation is None and not any(name.startswith(("gen_ai.", "llm.")) for name in map(str, attributes)):
        complaints.add("left out, spans without gen_ai attributes", where)
    else:
        found = _request(span, attributes, where, complaints)
        if found:
            yield found


def tool(head: Head) -> tuple[str | None, str | None]:
    """Return the instrumentation's name and version where the first batch or span tells them."""
    scopes = ["instrumentation_scope", "instrumentation_info"]
    for batch in ("", *(f"{name}." for name in _BATCHES)):
        scopes += [f"{batch}{scope}.{info}" for scope in _SCOPES for info in ("scope", "instrumentationLibrary")]
    for scope in scopes:
        if head.paths.get(f"{scope}.name"):
            return head.paths[f"{scope}.name"], head.paths.get(f"{scope}.version") or None
    return None, None


def _lists(container: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    for name in names:
        found = container.get(name)
        if isinstance(found, list):
            return [item for item in found if isinstance(item, dict)]
    return []


def _pairs(attributes: object) -> dict[str, Any]:
    """Attributes of OTLP JSON as an object, where integers are texts; or the tags of Jaeger."""
    if isinstance(attributes, dict):
        return attributes
    found = {}
    for pair in attributes if isinstance(attributes, list) else []:
        value = pair.get("value") if isinstance(pair, dict) else None
        if isinstance(value, dict):
            for kind in ("stringValue", "intValue", "doubleValue", "boolValue", "string_value", "int_value",
                         "double_value", "bool_value"):
                if kind in value:
                    found[pair.get("key")] = value[kind]
                    break
        elif value is not None:
            found[pair.get("key")] = value
    return found


def _request(span: dict[str, Any], attributes: dict[str, Any], where: str, complaints: Complaints) -> Request | None:
    start_s = _moment(span, "startTimeUnixNano", "start_time_unix_nano", "start_time", "startTime")
    end_s = _moment(span, "endTimeUnixNano", "end_time_unix_nano", "end_time", "endTime")
    if start_s is None:
        complaints.add("dropped, spans without a start time", where)
        return None
    length_us = number(span.get("duration")) if "operationName" in span else None
    if end_s is None and length_us is not None:
        end_s = start_s + length_us * 1e-6
    ok = not _failed(span, attributes)
    isl, osl = _number(attributes, _INPUT), _number(attributes, _OUTPUT)
    if ok and isl is None and osl is None:
        complaints.add("dropped, spans without token counts", where)
        return None
    nan = float("nan")
    e2e_s = end_s - start_s if end_s is not None and end_s > start_s else None
    if ok and e2e_s is None:
        complaints.add("latency dropped, the span has no end after its start", where)
    ttft_s, decode_s = _token_times(span, attributes, start_s, e2e_s, osl)
    context = span.get("context") if isinstance(span.get("context"), dict) else span
    span_id = str(context.get("span_id") or context.get("spanId") or context.get("spanID") or "").removeprefix("0x")
    trace_id = str(context.get("trace_id") or context.get("traceId") or context.get("traceID") or "").removeprefix("0x")
    return Request(
        start_s=start_s,
        isl=nan if isl is None else isl,
        osl=nan if osl is None else osl,
        cached_tokens=_or_nan(_number(attributes, _CACHED)),
        reasoning_tokens=_or_nan(_number(attributes, _REASONING)),
        ttft_s=_or_nan(ttft_s),
        decode_s=_or_nan(decode_s),
        e2e_s=_or_nan(e2e_s),
        ok=ok,
        session=attributes.get("gen_ai.conversation.id") or attributes.get("session.id") or None,
        tenant=attributes.get("enduser.id") or attributes.get("user.id") or None,
        model=attributes.get("gen_ai.response.model") or attributes.get("gen_ai.request.model"),
        key=(trace_id, span_id) if span_id else None,
    )


def _token_times(span, attributes, start_s: float, e2e_s: float | None, osl: float | None):
    """TTFT and time from first to last token, seconds; None where the span does not tell."""
    moments = sorted(
        moment
        for event in _lists(span, "events")
        if event.get("name") == CHUNK_EVENT
        and (moment := _moment(event, "timeUnixNano", "time_unix_nano", "timestamp")) is not None
    )
    if not moments:
        ttft_s = _number(attributes, _FIRST_TOKEN_S)
        if ttft_s is None or e2e_s is None or not 0 < ttft_s <= e2e_s:
            return None, None
        return ttft_s, e2e_s - ttft_s
    if osl is not None and len(moments) == osl + 1:
        moments = moments[:-1]
    ttft_s = moments[0] - start_s
    if ttft_s <= 0:
        return None, None
    return ttft_s, (moments[-1] - moments[0] if len(moments) > 1 else None)


def _failed(span: dict[str, Any], attributes: dict[str, Any]) -> bool:
    status = span.get("status") if isinstance(span.get("status"), dict) else {}
    code = status.get("code", status.get("status_code"))
    if str(attributes.get("error")).lower() == "true":  # Jaeger's word for it
        return True
    return "error.type" in attributes or str(code).upper() in ("2", "ERROR", "STATUS_CODE_ERROR", "STATUSCODE.ERROR")


def _moment(container: dict[str, Any], *names: str) -> float | None:
    for name in names:
        found = epoch_seconds(container.get(name))
        if found is not None:
            return found
    return None


def _number(attributes: dict[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        found = number(attributes.get(name))
        if found is not None and found >= 0:
            return found
    return None


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
