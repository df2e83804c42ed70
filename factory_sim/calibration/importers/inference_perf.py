"""inference-perf: stage and summary reports, and the per-request report. All times in seconds.

A stage is one operating point; the summary pools the stages and its time includes the pauses between them. With
`concurrency` in the load the requested rate is a filler. Tokens of one chunk share its time, so the gaps between tokens
are chunk gaps only where every chunk holds one token.
"""

from itertools import pairwise
from typing import Any

from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import Tally, ms, ratio, times, whole
from factory_sim.inputs.logs.jsonscan import Head
from factory_sim.inputs.logs.values import count, number, positive

FORMAT = "inference_perf"
TOOL = "inference-perf"
REQUESTS = "inference_perf_requests"


def detect(head: Head) -> bool:
    """True for a stage or summary report."""
    return head.has("load_summary", "successes")


def detect_requests(head: Head) -> bool:
    """True for the per-request report."""
    return head.has("start_time", "end_time") and head.any(
        "info.request_metrics", "info.output_token_times", "info.response_metrics", "info.input_tokens"
    )


def read(report: Report, head: Head) -> Found:
    """Return one point for each report in the file."""
    return Found([_point(document, where, report) for document, where in report.documents()], TOOL)


def _point(document: dict[str, Any], where: str, report: Report) -> Point:
    load, good = _object(document, "load_summary"), _object(document, "successes")
    latency, throughput = _object(good, "latency") or good, _object(good, "throughput")  # 0.1 has no "latency"
    completed = count(good.get("count"))
    duration_s = positive(document.get("benchmark_time_seconds")) or ratio(
        completed, positive(throughput.get("requests_per_sec")))
    e2e_s = _mean(latency, "request_latency")
    isl = _total(good, completed, "prompt_tokens", "prompt_len")
    osl = _total(good, completed, "output_len", "output_tokens")
    server_osl = _total(good, completed, "output_tokens")
    if osl and server_osl and abs(osl / server_osl - 1) > 0.01:
        report.note(f"{where}: doubtful, output tokens are the client's count of the text ({osl:.0f}); the server "
                    f"counted {server_osl:.0f}, so output rate and TPOT are off by as much")
    gap = _object(latency, "inter_token_latency")
    gap_s = positive(gap.get("mean"))
    if gap_s is not None and (number(gap.get("median")) == 0 or number(gap.get("min")) == 0):
        report.note(f"{where}: several tokens came in one chunk: the gaps between tokens hold zeros and are no chunk "
                    "gaps")
        gap_s = None
    ttft_s = _mean(latency, "time_to_first_token")
    stage = "requested_rate" in load or "send_duration" in load or "concurrency" in load
    if not stage:
        report.note("summary report: pools all stages, and its time includes the pauses between them")
    if completed and ttft_s is None:
        report.note(f"{where}: no TTFT (not streamed)")
    concurrency = positive(load.get("concurrency"))
    return Point(
        requests_completed=completed, requests_failed=count(_object(document, "failures").get("count")),
        ttft_mean_ms=ms(ttft_s), tpot_mean_ms=ms(_mean(latency, "time_per_output_token")), chunk_gap_mean_ms=ms(gap_s),
        e2e_mean_ms=ms(e2e_s), input_tokens=whole(isl), output_tokens=whole(osl),
        output_tokens_per_s=ratio(osl, duration_s) or positive(throughput.get("output_tokens_per_sec")),
        duration_s=duration_s, concurrency=ratio(times(e2e_s, completed), duration_s),
        request_rate_per_s=ratio(completed, duration_s) if completed else None,
        concurrency_set=concurrency,
        request_rate_set_per_s=None if concurrency else positive(load.get("requested_rate")),
        cached_input_tokens=whole(number(_object(good, "prompt_tokens").get("cached"))),
        tpot_basis="time_per_output_token", label="" if stage else "summary",
        source=report.source.path.name, format=FORMAT,
    )


def _object(container: dict[str, Any], name: str) -> dict[str, Any]:
    found = container.get(name)
    return found if isinstance(found, dict) else {}


def _mean(latency: dict[str, Any], name: str) -> float | None:
    return positive(_object(latency, name).get("mean"))


def _total(good: dict[str, Any], completed: int | None, *names: str) -> float | None:
    for name in names:
        found = _object(good, name)
        total = number(found.get("total"))
        if total is None:
            total = times(number(found.get("mean")), completed)
        if total is not None:
            return total if completed else None
    return None


def read_requests(report: Report, head: Head) -> Found:
    """Return one point, over all stages, from the per-request report."""
    tally = Tally()
    for record, where in report.documents():
        start_s, end_s = number(record.get("start_time")), number(record.get("end_time"))
        if record.get("error"):
            tally.fail(start_s, end_s)
            continue
        if start_s is None or end_s is None or end_s <= start_s:
            report.complaints.add("dropped, end_time is not after start_time", where)
            continue
        _add(tally, record, start_s, end_s)
    if tally.zero_output:
        report.note(f"{tally.zero_output} requests without a token count as successes, and are left out of TTFT")
    report.note("per-request report: all stages together")
    facts = tally.figures(tally.span_s)
    return Found([Point(**facts, tpot_basis="requests", source=report.source.path.name, format=FORMAT)], TOOL)


def _add(tally: Tally, record: dict[str, Any], start_s: float, end_s: float) -> None:
    info = _object(record, "info")
    answer = _object(info, "response_metrics") or info
    prompt = _object(_object(info, "request_metrics"), "text")
    isl = number(prompt.get("input_tokens", info.get("input_tokens")))
    osl = number(answer.get("output_tokens", info.get("output_tokens")))
    moments = answer.get("output_token_times") or info.get("output_token_times") or []
    moments = [moment for moment in map(number, moments) if moment is not None]
    chunks = [moment for moment in map(number, answer.get("chunk_times") or []) if moment is not None]
    chunks = [moment for moment in chunks if not moments or moment <= moments[-1]]  # not the usage chunk
    tally.add(
        start_s=start_s, e2e_s=end_s - start_s, isl=isl, osl=osl,
        ttft_s=moments[0] - start_s if moments else None,
        decode_s=moments[-1] - moments[0] if len(moments) > 1 else None,
    )
    for earlier, later in pairwise(chunks or sorted(set(moments))):
        tally.gap_s.add(later - earlier)
