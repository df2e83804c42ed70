"""GenAI-Perf: the summary JSON and the raw export of Perf Analyzer.

Without streaming its JSON stores the whole latency as TTFT. It drops requests without a token silently and writes
nothing when a request fails. The last response of a request may carry usage or [DONE] instead of a token.
"""

import json
from itertools import pairwise
from typing import Any

from factory_sim.calibration.importers import metric_dicts
from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import Tally
from factory_sim.inputs.logs.jsonscan import Each, Head
from factory_sim.inputs.logs.values import count, number, positive

FORMAT = "genai_perf"
TOOL = "GenAI-Perf"
RAW = "perf_analyzer"


def detect(head: Head) -> bool:
    """True for the summary; before 0.0.12 its `input_config` is the flat list of arguments."""
    return not head.has("aiperf_version") and head.any(
        "input_config.perf_analyzer", "telemetry_stats", "input_config.endpoint_type", "input_config.service_kind",
        "input_config.model_names", "input_config.formatted_model_name",
    ) and head.any("request_throughput", "request_latency", "request_count")


def detect_raw(head: Head) -> bool:
    """True for the raw export of Perf Analyzer."""
    return head.any("experiments.requests.timestamp", "experiments.requests.response_timestamps") or head.has(
        "experiments", "service_kind"
    )


def read(report: Report, head: Head) -> Found:
    """Return the point of each summary in the file."""
    points = []
    for document, where in report.documents():
        facts = metric_dicts.figures(metric_dicts.from_json(document))
        config = document.get("input_config") if isinstance(document.get("input_config"), dict) else {}
        endpoint = config.get("endpoint") if isinstance(config.get("endpoint"), dict) else {}
        analyzer = config.get("perf_analyzer") if isinstance(config.get("perf_analyzer"), dict) else {}
        streaming = endpoint.get("streaming", config.get("streaming"))
        streaming = streaming if isinstance(streaming, bool) else None
        if streaming is False or (streaming is None and facts["ttft_mean_ms"] is not None
                                  and facts["ttft_mean_ms"] == facts["e2e_mean_ms"]):
            facts["ttft_mean_ms"] = facts["tpot_mean_ms"] = facts["chunk_gap_mean_ms"] = None
            report.note(f"{where}: not streamed: the TTFT in the file is the whole latency and was left out")
        asked = _asked(analyzer, config)
        facts["requests_failed"] = _failed(facts["requests_completed"], asked, where, report)
        points.append(Point(**facts, **_setting(config, analyzer), streaming=streaming,
                            source=report.source.path.name, format=FORMAT))
    return Found(points, TOOL)


def _asked(analyzer: dict[str, Any], config: dict[str, Any]) -> int | None:
    """Requests that the tool was told to send; None where it ran for a time (a flat `request_count` is then 0)."""
    measurement = analyzer.get("measurement") if isinstance(analyzer.get("measurement"), dict) else {}
    if measurement.get("mode") == "request_count":
        return count(measurement.get("num"))
    return count(positive(config.get("request_count")))


def _failed(completed: int | None, asked: int | None, where: str, report: Report) -> int | None:
    """The tool writes nothing when a request fails; fewer requests than asked had no token."""
    if completed is None or asked is None:
        return None
    if completed < asked:
        report.note(f"{where}: {asked - completed} of {asked} requests are missing: the tool drops those without a "
                    "token silently")
    return max(0, asked - completed)


def _setting(config: dict[str, Any], analyzer: dict[str, Any]) -> dict[str, Any]:
    stimulus = analyzer.get("stimulus") if isinstance(analyzer.get("stimulus"), dict) else {}
    data = config.get("input") if isinstance(config.get("input"), dict) else {}
    isl, osl = data.get("synthetic_tokens"), data.get("output_tokens")
    isl, osl = (
        item if isinstance(item, dict) else {part: config.get(f"{flat}_tokens_{part}") for part in ("mean", "stddev")}
        for item, flat in ((isl, "synthetic_input"), (osl, "output"))
    )
    names = config.get("model_names", config.get("model"))
    return {
        "model": names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None,
        "concurrency_set": positive(stimulus.get("concurrency", config.get("concurrency"))),
        "request_rate_set_per_s": positive(stimulus.get("request_rate", config.get("request_rate"))),
        "isl": positive(isl.get("mean")),
        "osl": positive(osl.get("mean")),
        "length_distribution": "fixed" if number(isl.get("stddev")) == 0 and number(osl.get("stddev")) == 0 else None,
    }


class _Raw:
    """Sums over the requests of one experiment while they are read."""

    def __init__(self) -> None:
        self.tally, self.without_usage = Tally(), 0

    def take(self, request: Any) -> None:
        if isinstance(request, dict):
            self.without_usage += _add(self.tally, request)

    def result(self) -> "_Raw":
        return self


def _raw_plan() -> dict[str, Any]:
    raw = _Raw()
    return {"requests": Each(raw.take, raw.result)}


def read_raw(report: Report, head: Head) -> Found:
    """Return one point for each experiment of a raw export; token counts only where the server sent usage."""
    experiments: list[dict[str, Any]] = []
    for _ in report.documents({"experiments": Each(experiments.append, inner=_raw_plan)}, keep_partial=True):
        pass
    points = []
    for experiment in experiments:
        raw = experiment.get("requests") if isinstance(experiment, dict) else None
        if not isinstance(raw, _Raw):
            continue
        facts = raw.tally.figures(raw.tally.span_s)
        if raw.without_usage:
            report.note(f"{raw.without_usage} requests without usage: their tokens are not in the raw export, so "
                        "neither is TPOT")
            facts |= dict.fromkeys(("tpot_mean_ms", "output_tokens", "input_tokens", "output_tokens_per_s"))
        load = experiment.get("experiment") if isinstance(experiment.get("experiment"), dict) else {}
        level = positive(load.get("value"))
        points.append(Point(
            **facts, source=report.source.path.name, format=FORMAT, tpot_basis="requests",
            label=f"{load.get('mode', 'experiment')} {level:g}" if level else "",
            concurrency_set=level if load.get("mode") == "concurrency" else None,
            request_rate_set_per_s=level if load.get("mode") == "request_rate" else None,
        ))
    return Found(points, TOOL)


def _add(tally: Tally, request: dict[str, Any]) -> bool:
    """Count one raw request; True when its tokens are not known."""
    start_ns, stamps = number(request.get("timestamp")), request.get("response_timestamps") or []
    outputs = request.get("response_outputs") or [None] * len(stamps)
    chunk_ns, usage = [], {}
    for stamp, output in zip(stamps, outputs):
        text, found = _chunk(output)
        usage = found or usage
        if text:
            chunk_ns.append(int(stamp))
    if start_ns is None or not chunk_ns or request.get("error"):
        tally.fail()
        return False
    start_ns = int(request["timestamp"])
    osl, isl = number(usage.get("completion_tokens")), number(usage.get("prompt_tokens"))
    streamed = len(chunk_ns) > 1
    tally.add(
        start_s=start_ns * 1e-9, e2e_s=(int(stamps[-1]) - start_ns) * 1e-9, isl=isl, osl=osl,
        ttft_s=(chunk_ns[0] - start_ns) * 1e-9 if streamed else None,
        decode_s=(chunk_ns[-1] - chunk_ns[0]) * 1e-9 if streamed else None,
    )
    for earlier, later in pairwise(chunk_ns):
        tally.gap_s.add((later - earlier) * 1e-9)
    return osl is None


def _chunk(output: object) -> tuple[bool, dict[str, Any]]:
    """Tell whether a response holds output text, and the usage in it. The text itself is not kept."""
    text = output.get("response") if isinstance(output, dict) else output
    if not isinstance(text, str):
        return output is None or bool(text), {}
    usage: dict[str, Any] = {}
    has_text = False
    for part in text.split("\n"):
        part = part.strip().removeprefix("data:").strip()
        if not part or part == "[DONE]":
            continue
        try:
            body = json.loads(part)
        except ValueError:
            has_text = True
            continue
        if not isinstance(body, dict):
            continue
        if isinstance(body.get("usage"), dict):
            usage = body["usage"]
        for choice in body.get("choices") or []:
            piece = choice.get("delta") or choice.get("message") or {}
            has_text |= bool(choice.get("text") or piece.get("content") or piece.get("reasoning_content")
                             or piece.get("tool_calls"))
        has_text |= bool(body.get("text_output") or body.get("generated_text"))
    return has_text, usage
