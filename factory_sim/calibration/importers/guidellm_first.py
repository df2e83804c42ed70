"""GuideLLM 0.1: a report of reports, each with its benchmarks, each with every request; no statistics by status.

Times of requests are in seconds since 1970, the statistics beside them in ms. The earliest files hold the first token
as a span instead, with the gaps between tokens. `rate` is what was asked; the modes are synchronous (one request at a
time), asynchronous (a rate) and throughput (as fast as possible).
"""

from typing import Any

from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Report
from factory_sim.calibration.importers.tally import Tally
from factory_sim.inputs.logs.jsonscan import SKIP, Each
from factory_sim.inputs.logs.values import number, positive


class _Requests:
    """Sums over the requests of one benchmark while they are read; texts are dropped."""

    def __init__(self) -> None:
        self.tally = Tally()

    def take(self, request: Any) -> None:
        if isinstance(request, dict):
            _add(self.tally, request)

    def fail(self, _: Any) -> None:
        self.tally.fail()


def plan() -> dict[str, Any]:
    """What to keep of one report."""
    benchmarks: list[Any] = []
    return {"benchmarks": Each(benchmarks.append, lambda: benchmarks, _benchmark_plan)}


def _benchmark_plan() -> dict[str, Any]:
    requests = _Requests()
    return {"results": Each(requests.take, lambda: requests), "errors": Each(requests.fail, lambda: requests),
            "concurrencies": SKIP}


def points(item: dict[str, Any], at: int, report: Report) -> list[Point]:
    """Return one point for each benchmark of one report."""
    report.note("GuideLLM 0.1: everything is computed request by request")
    args = item.get("args") if isinstance(item.get("args"), dict) else {}
    model = args.get("model") if isinstance(args.get("model"), str) else None
    found = []
    for place, benchmark in enumerate(item["benchmarks"]):
        requests = benchmark.get("results", benchmark.get("errors")) if isinstance(benchmark, dict) else None
        if not isinstance(requests, _Requests):
            report.complaints.add("dropped, benchmark without requests", f"benchmarks[{at}].benchmarks[{place}]")
            continue
        tally = requests.tally
        mode, rate = str(benchmark.get("mode") or ""), positive(benchmark.get("rate"))
        if tally.completed == 0:
            report.note(f"benchmarks[{at}].benchmarks[{place}]: no request succeeded")
        elif tally.ttft_s.count == 0:
            report.note(f"benchmarks[{at}].benchmarks[{place}]: no first token was timed (not streamed): TTFT and TPOT "
                        "are missing")
        found.append(Point(
            **tally.figures(positive(benchmark.get("duration")) or tally.span_s), model=model,
            label=f"{mode}@{rate:g}" if rate else mode, tpot_basis="requests",
            concurrency_set=1.0 if mode == "synchronous" else None,
            request_rate_set_per_s=rate if mode == "asynchronous" else None,
            source=report.source.path.name, format="guidellm",
        ))
    return found


def _add(tally: Tally, request: dict[str, Any]) -> None:
    start_s, end_s = number(request.get("start_time")), number(request.get("end_time"))
    e2e_s = end_s - start_s if start_s is not None and end_s is not None else number(request.get("request_latency"))
    first_s = positive(request.get("first_token_time"))
    last_s = positive(request.get("last_token_time")) or end_s
    gaps = request.get("decode_times")
    gaps = gaps.get("data") if isinstance(gaps, dict) else None
    ttft_s = decode_s = None
    if first_s is not None and start_s is not None and first_s >= start_s:
        ttft_s, decode_s = first_s - start_s, last_s - first_s if last_s is not None else None
    elif first_s is not None and start_s is not None:  # a span, in the earliest files
        ttft_s = first_s
        known = [gap for gap in map(number, gaps) if gap is not None] if isinstance(gaps, list) else []
        decode_s = sum(known) if known else None
        for gap_s in known:
            tally.gap_s.add(gap_s)
    tally.add(start_s=start_s, e2e_s=e2e_s, ttft_s=ttft_s, decode_s=decode_s,
              isl=number(request.get("prompt_token_count")), osl=number(request.get("output_token_count")))
