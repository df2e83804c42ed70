"""LLMPerf (ray-project): `*_summary.json` and `*_individual_responses.json`.

Its inter-token latency is the sum of all gaps *including the first token* over the output tokens: neither TPOT nor a
chunk gap. TPOT is computed from the requests; from a summary only when all answers have the same length.
"""

from typing import Any

from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import Tally, ms, ratio, times, whole
from factory_sim.inputs.logs.jsonscan import Head
from factory_sim.inputs.logs.values import count, number, positive

FORMAT = "llmperf"
TOOL = "LLMPerf"
RESPONSES = "llmperf_responses"


def detect(head: Head) -> bool:
    """True for a summary."""
    return head.any("results_ttft_s_mean", "results_end_to_end_latency_s_mean", "results_num_completed_requests",
                    "results.ttft_s", "results_mean_output_throughput_token_per_s")


def detect_responses(head: Head) -> bool:
    """True for the list of responses."""
    return head.has("end_to_end_latency_s", "ttft_s")


def read(report: Report, head: Head) -> Found:
    """Return one point for each summary."""
    points, version = [], None
    for document, where in report.documents():
        version = version or document.get("version")
        points.append(_point(document, where, report))
    return Found(points, TOOL, version if isinstance(version, str) else None)


def _statistic(document: dict[str, Any], name: str, statistic: str) -> float | None:
    flat = document.get(f"results_{name}_{statistic}")
    nested = document.get("results") if isinstance(document.get("results"), dict) else {}
    nested = nested.get(name) if isinstance(nested.get(name), dict) else {}
    return number(flat if flat is not None else nested.get(statistic))


def _value(document: dict[str, Any], name: str) -> float | None:
    nested = document.get("results") if isinstance(document.get("results"), dict) else {}
    return number(document.get(f"results_{name}", nested.get(name)))


def _point(document: dict[str, Any], where: str, report: Report) -> Point:
    completed, failed = _value(document, "num_completed_requests"), _value(document, "number_errors")
    per_minute = positive(_value(document, "num_completed_requests_per_min"))
    duration_s = ratio(completed, per_minute and per_minute / 60)
    ttft_s, e2e_s = positive(_statistic(document, "ttft_s", "mean")), positive(
        _statistic(document, "end_to_end_latency_s", "mean"))
    isl, osl = (_statistic(document, f"number_{kind}_tokens", "mean") for kind in ("input", "output"))
    output_tokens = times(osl, completed)
    tpot_s = None
    shortest, longest = (_statistic(document, "number_output_tokens", edge) for edge in ("min", "max"))
    if osl and osl > 1 and shortest == longest == osl and ttft_s and e2e_s and e2e_s > ttft_s:
        tpot_s = (e2e_s - ttft_s) / (osl - 1)
    else:
        report.note(f"{where}: TPOT is missing: answers differ in length, and LLMPerf's inter-token latency includes "
                    "the first token (the *_individual_responses.json would give it)")
    same = isl is not None and number(document.get("stddev_input_tokens")) == 0
    return Point(
        requests_completed=whole(completed), requests_failed=whole(failed),
        ttft_mean_ms=ms(ttft_s), tpot_mean_ms=ms(tpot_s), e2e_mean_ms=ms(e2e_s),
        input_tokens=whole(times(isl, completed)), output_tokens=whole(output_tokens),
        output_tokens_per_s=ratio(output_tokens, duration_s)
        or positive(_value(document, "mean_output_throughput_token_per_s")),
        duration_s=duration_s, concurrency=ratio(times(e2e_s, completed), duration_s),
        request_rate_per_s=ratio(completed, duration_s),
        concurrency_set=positive(document.get("num_concurrent_requests")),
        isl=positive(document.get("mean_input_tokens")), osl=positive(document.get("mean_output_tokens")),
        length_distribution="fixed" if same and number(document.get("stddev_output_tokens")) == 0 else None,
        model=document.get("model") if isinstance(document.get("model"), str) else None,
        tpot_basis="end_to_end_latency_s, ttft_s" if tpot_s else None,
        source=report.source.path.name, format=FORMAT,
    )


def read_responses(report: Report, head: Head) -> Found:
    """Return one point from the responses of a run; the duration of the run is not among them."""
    tally = Tally()
    for response, where in report.documents():
        if response.get("error_code") not in (None, "", 0) or response.get("error_msg"):
            tally.fail()
            continue
        ttft_s, e2e_s = positive(response.get("ttft_s")), positive(response.get("end_to_end_latency_s"))
        osl = count(response.get("number_output_tokens"))
        if e2e_s is None:
            report.complaints.add("dropped, end_to_end_latency_s is not positive", where)
            continue
        start_s = number(response.get("start_time"))
        streamed = ttft_s is not None and ttft_s < e2e_s
        tally.add(start_s=start_s, e2e_s=e2e_s, ttft_s=ttft_s if streamed or osl == 1 else None,
                  decode_s=e2e_s - ttft_s if streamed else None, isl=number(response.get("number_input_tokens")),
                  osl=osl)
    report.note("individual responses: the duration of the run is in the summary beside them")
    facts = tally.figures(None)
    return Found([Point(**facts, tpot_basis="requests", source=report.source.path.name, format=FORMAT)], TOOL)
