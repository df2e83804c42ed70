"""GuideLLM reports: versions 1 and 2, and the older without version (0.2, 0.3; 0.1 apart); JSON, YAML and CSV.

`request_latency` is in seconds between neighbours in ms. Its TPOT counts from the start of the request (0.3: from the
first token) over all output tokens; its ITL is (last - first token)/(output tokens - 1), which is TPOT here. Both means
are weighted by tokens, so TPOT is computed request by request where the report lists every request.
"""

import json
from typing import Any

from factory_sim.calibration.importers import guidellm_first
from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import Tally, ratio, times, whole
from factory_sim.errors import MeasurementError
from factory_sim.inputs.logs import tables
from factory_sim.inputs.logs.jsonscan import SKIP, Each, Head
from factory_sim.inputs.logs.values import count, number, positive

FORMAT = "guidellm"
TOOL = "GuideLLM"
_METRICS = ("request_latency", "time_to_first_token_ms", "inter_token_latency_ms", "time_per_output_token_ms",
            "prompt_token_count", "output_token_count", "request_concurrency", "requests_per_second")


def detect(head: Head) -> bool:
    """True for a report of any version."""
    return head.has("benchmarks") and head.any(
        "benchmarks.metrics", "benchmarks.run_stats", "benchmarks.scheduler_metrics", "benchmarks.request_totals",
        "metadata.guidellm_version", "benchmarks.benchmarks.mode", "benchmarks.benchmarks.results",
    )


class _Requests:
    """Sums over the listed successful requests while they are read; texts are dropped."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.partial = 0

    def take(self, request: Any) -> None:
        if not isinstance(request, dict):
            return
        info = request.get("info") if isinstance(request.get("info"), dict) else {}
        moments = info.get("timings") if isinstance(info.get("timings"), dict) else {}
        osl = _first(request.get("output_tokens"), (request.get("output_metrics") or {}).get("text_tokens"))
        isl = _first(request.get("prompt_tokens"), (request.get("input_metrics") or {}).get("text_tokens"))
        start_s, end_s = number(moments.get("request_start")), number(moments.get("request_end"))
        e2e_s = _first(request.get("request_latency"), end_s - start_s if start_s is not None and end_s else None)
        first_s, last_s = number(moments.get("first_token_iteration")), number(moments.get("last_token_iteration"))
        ttft_s = first_s - start_s if first_s and start_s is not None else None
        if ttft_s is None and positive(request.get("time_to_first_token_ms")):
            ttft_s = number(request["time_to_first_token_ms"]) / 1000
        decode_s = last_s - first_s if first_s and last_s else None
        if decode_s is None and osl and positive(request.get("inter_token_latency_ms")):
            decode_s = number(request["inter_token_latency_ms"]) / 1000 * (osl - 1)
        told_ms = number(request.get("time_to_first_token_ms"))
        if told_ms is not None and told_ms < 0 and ttft_s is None:  # 0.3: no token came; length and times are fillers
            osl, decode_s = 0.0, None
        self.partial += (ttft_s is None and osl != 0) or osl is None
        self.tally.add(start_s=start_s, e2e_s=e2e_s, ttft_s=ttft_s, decode_s=decode_s, isl=isl, osl=osl)

    def result(self) -> "_Requests":
        return self


def _benchmark_plan() -> dict[str, Any]:
    listed = _Requests()
    metrics = {name: None for name in (*_METRICS, "request_totals")} | {"*": SKIP}
    return {
        "metrics": metrics,
        "requests": {"successful": Each(listed.take, listed.result), "*": SKIP},
        "scheduler_state": SKIP,
        "worker": SKIP,
        "request_loader": SKIP,
    } | guidellm_first.plan()


def read(report: Report, head: Head) -> Found:
    """Return one point for each benchmark of a JSON report; those before a cut are kept."""
    plan, benchmarks = tree_plan()
    top: dict[str, Any] = {}
    for document, _ in report.documents(plan, keep_partial=True):
        top = top or document
    return found(benchmarks, top, report)


def tree_plan() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the plan for a report in YAML, and the list that it fills with benchmarks."""
    benchmarks: list[dict[str, Any]] = []
    return {"benchmarks": Each(benchmarks.append, inner=_benchmark_plan)}, benchmarks


def found(benchmarks: list[dict[str, Any]], top: dict[str, Any], report: Report) -> Found:
    """Return one point for each benchmark; `top` holds the members beside them."""
    meta = top.get("metadata") if isinstance(top.get("metadata"), dict) else {}
    oldest = "metadata" not in top and any("run_stats" in item for item in benchmarks if isinstance(item, dict))
    if oldest:
        report.note("GuideLLM 0.3 or older: its time_per_output_token_ms has another definition; TPOT is taken from "
                    "the inter-token latency")
    first = any("benchmarks" in item for item in benchmarks if isinstance(item, dict))
    if "metadata" not in top and benchmarks and not oldest and not first:
        report.note("the report ends before its metadata: it is cut off, and what stood after the cut is missing")
    points = []
    for at, benchmark in enumerate(benchmarks):
        if isinstance(benchmark, dict) and isinstance(benchmark.get("benchmarks"), list):
            points.extend(guidellm_first.points(benchmark, at, report))
            continue
        if not isinstance(benchmark, dict) or not isinstance(benchmark.get("metrics"), dict):
            report.complaints.add("dropped, benchmark without metrics", f"benchmarks[{at}]")
            continue
        point = _point(benchmark, at, top, report)
        if point.requests_completed is None and point.e2e_mean_ms is None:
            report.complaints.add("dropped, benchmark without counts and latencies (cut off?)", f"benchmarks[{at}]")
            continue
        points.append(point)
    return Found(points, TOOL, meta.get("guidellm_version"))


def _point(benchmark: dict[str, Any], at: int, top: dict[str, Any], report: Report) -> Point:
    where = f"benchmarks[{at}]"
    metrics = benchmark["metrics"]
    totals = metrics.get("request_totals") or benchmark.get("request_totals") or benchmark.get("total_count") or {}
    if not isinstance(totals, dict) or not totals:
        totals = (benchmark.get("scheduler_metrics") or {}).get("requests_made") or {}
    completed = count(totals.get("successful"))
    duration_s = _duration(benchmark)
    facts = _summary({name: _successful(metrics.get(name)) for name in _METRICS}, completed, duration_s)
    listed = benchmark.get("requests") if isinstance(benchmark.get("requests"), dict) else {}
    listed = listed.get("successful")
    if isinstance(listed, _Requests) and listed.tally.completed and listed.tally.completed == completed:
        by_request = listed.tally.figures(duration_s)
        if listed.tally.zero_output and listed.partial == 0:
            report.note(f"{where}: {listed.tally.zero_output} requests ended without a token: completed, with 0 output "
                        "tokens, and left out of TTFT and TPOT")
            facts |= {name: by_request[name] for name in ("ttft_mean_ms", "output_tokens", "output_tokens_per_s")}
        if listed.partial == 0 and by_request["tpot_mean_ms"] is not None:
            facts["tpot_mean_ms"], facts["tpot_basis"] = by_request["tpot_mean_ms"], "requests"
        facts["zero_output_requests"] = listed.tally.zero_output
    elif facts["tpot_mean_ms"] is not None:
        report.note(f"{where}: not every request is listed: TPOT is the mean weighted by tokens")
    incomplete = count(totals.get("incomplete"))
    if incomplete:
        report.note(f"{where}: {incomplete} requests were cut off by the end of the run: neither completed nor failed")
    if completed == 0:
        report.note(f"{where}: no request succeeded: its zeros mean missing")
    elif facts["ttft_mean_ms"] is None and "time_to_first_token_ms" in metrics:
        report.note(f"{where}: no first token was timed (not streamed): TTFT and TPOT are missing")
    return Point(
        **facts,
        **_setting(benchmark, top),
        requests_failed=count(totals.get("errored")),
        requests_incomplete=incomplete,
        source=report.source.path.name,
        format=FORMAT,
    )


def _duration(benchmark: dict[str, Any]) -> float | None:
    if positive(benchmark.get("duration")):
        return positive(benchmark["duration"])
    for container, first, last in (
        (benchmark, "start_time", "end_time"),
        (benchmark.get("scheduler_metrics") or {}, "measure_start_time", "measure_end_time"),
        (benchmark.get("run_stats") or {}, "start_time", "end_time"),
    ):
        start_s, end_s = number(container.get(first)), number(container.get(last))
        if start_s is not None and end_s is not None and end_s > start_s:
            return end_s - start_s
    return None


def _successful(metric: Any) -> dict[str, float | None]:
    """Mean, count and sum over successful requests; a count of 0 means that there is nothing."""
    leaf = metric.get("successful") if isinstance(metric, dict) else None
    if not isinstance(leaf, dict) or number(leaf.get("count")) == 0:
        return {}
    return {"mean": number(leaf.get("mean")), "sum": number(leaf.get("total_sum"))}


def _summary(metric: dict[str, dict[str, float | None]], completed: int | None, duration_s: float | None):
    e2e_s = positive(metric["request_latency"].get("mean"))
    ttft_ms = positive(metric["time_to_first_token_ms"].get("mean"))
    isl, osl = (
        metric[name]["sum"] if metric[name].get("sum") is not None else times(metric[name].get("mean"), completed)
        for name in ("prompt_token_count", "output_token_count")
    )
    rate = positive(metric["requests_per_second"].get("mean"))
    duration_s = duration_s or ratio(completed, rate)
    return {
        "requests_completed": completed,
        "ttft_mean_ms": ttft_ms,
        "tpot_mean_ms": positive(metric["inter_token_latency_ms"].get("mean")) if ttft_ms else None,
        "chunk_gap_mean_ms": None,
        "e2e_mean_ms": e2e_s and e2e_s * 1000,
        "input_tokens": whole(isl) if completed else None,
        "output_tokens": whole(osl) if completed else None,
        "output_tokens_per_s": ratio(osl, duration_s) if completed else None,
        "duration_s": duration_s,
        "concurrency": ratio(times(e2e_s, completed), duration_s)
        or positive(metric["request_concurrency"].get("mean")),
        "request_rate_per_s": (ratio(completed, duration_s) or rate) if completed else None,
        "tpot_basis": "inter_token_latency_ms",
    }


def _setting(benchmark: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    config = benchmark.get("config") or benchmark.get("args") or {}
    config = config if isinstance(config, dict) else {}
    strategy = config.get("strategy") if isinstance(config.get("strategy"), dict) else {}
    kind = str(strategy.get("type_") or strategy.get("type") or "")
    streams = positive(strategy.get("streams"))
    if streams is None and kind == "synchronous":
        streams = 1.0
    spec = (top.get("config") or {}).get("spec") if isinstance(top.get("config"), dict) else None
    spec = spec if isinstance(spec, dict) else top.get("args") if isinstance(top.get("args"), dict) else {}
    backend = config.get("backend") if isinstance(config.get("backend"), dict) else {}
    model = backend.get("model") or (spec.get("backend") or {}).get("model") if isinstance(
        spec.get("backend"), dict) else backend.get("model") or spec.get("model")
    level = streams if streams is not None else positive(strategy.get("rate"))
    data = _synthetic(spec.get("data"))
    fixed = positive(data.get("prompt_tokens")) and not any(
        positive(data.get(f"{side}_tokens_{how}")) for side in ("prompt", "output") for how in ("stdev", "min", "max"))
    identity = config.get("id_") or benchmark.get("id_")
    return {
        "label": f"{kind}@{level:g}" if level else kind,
        "concurrency_set": streams,
        "request_rate_set_per_s": positive(strategy.get("rate")),
        "model": model if isinstance(model, str) else None,
        "isl": positive(data.get("prompt_tokens")),
        "osl": positive(data.get("output_tokens")),
        "length_distribution": "fixed" if fixed else None,
        "identity": identity if isinstance(identity, str) else None,
    }


def _synthetic(told: Any) -> dict[str, Any]:
    """Settings of synthetic data: an object, or the text of the command line ("prompt_tokens=256,output_tokens=128")."""
    for item in told if isinstance(told, list) else [told]:
        if isinstance(item, str) and "=" in item and not item.lstrip().startswith("{"):
            item = dict(part.strip().split("=", 1) for part in item.split(",") if "=" in part)
        elif isinstance(item, str):
            item = _json(item)
        if isinstance(item, dict) and "prompt_tokens" in item:
            return item
    return {}


def detect_csv(rows: list[list[str]]) -> bool:
    """True for the CSV of either generation."""
    if not rows:
        return False
    top = {cell.strip() for cell in rows[0]}
    return {"Run Info", "Timings", "Request Counts"} <= top or {"Run Id", "Successful Requests", "Duration"} <= top or (
        len(rows) > 1 and {"Benchmark", "Timings"} <= top and "Strategy" in rows[1])


def read_csv(report: Report, head: Head | None) -> Found:
    """Return one point for each row of a CSV report."""
    rows = [row for row in tables.all_rows(report.source, MeasurementError) if row]
    three = "Run Info" in rows[0] or "Timings" in rows[0]
    headers = rows[:3] if three else rows[:1]
    names = [" | ".join(cell.strip() for cell in cells if cell.strip()) for cells in zip(*headers)]
    points, version = [], None
    for at, row in enumerate(rows[len(headers) :], start=len(headers) + 1):
        if len(row) != len(names):
            report.complaints.add("dropped, wrong number of columns",
                                  f"row {at}, found {len(row)}, expected {len(names)}")
            continue
        cells: dict[str, str] = {}
        for name, cell in zip(names, row):
            cells.setdefault(name, cell)
        point = _row(cells, three, report)
        if point is None:
            report.complaints.add("dropped, no duration and no requests", f"row {at}")
            continue
        points.append(point)
        version = version or _json(cells.get("Runtime Info | Metadata")).get("guidellm_version")
    report.note("CSV report: TPOT is the mean weighted by tokens")
    return Found(points, TOOL, version)


_NEW = {
    "request_latency": "Request Latency | Successful Sec | ",
    "time_to_first_token_ms": "Time to First Token | Successful ms | ",
    "inter_token_latency_ms": "Inter Token Latency | Successful ms | ",
    "prompt_token_count": "Token Metrics | Successful Input Tokens | ",
    "output_token_count": "Token Metrics | Successful Output Tokens | ",
    "request_concurrency": "Server Throughput | Successful Concurrency | ",
    "requests_per_second": "Server Throughput | Successful Requests/Sec | ",
}
_OLD = {
    "request_latency": "Successful Request latency ",
    "time_to_first_token_ms": "Successful Time to first token ms ",
    "inter_token_latency_ms": "Successful Inter token latency ms ",
    "prompt_token_count": "Successful Prompt token count ",
    "output_token_count": "Successful Output token count ",
    "request_concurrency": "Successful Request concurrency ",
    "requests_per_second": "Successful Requests per second ",
}


def _row(cells: dict[str, str], three: bool, report: Report) -> Point | None:
    stems, mean = (_NEW, "Mean") if three else (_OLD, "mean")
    status = "Request Counts | {}" if three else "{} Requests"
    completed = count(cells.get(status.format("Successful")))
    duration_s = positive(cells.get("Timings | Duration | Sec", cells.get("Duration")))
    if completed is None and duration_s is None:
        return None
    metric = {name: {} for name in _METRICS}
    for name, stem in stems.items():
        value = number(cells.get(stem + mean))
        metric[name] = {"mean": value} if value is not None and completed else {}
    facts = _summary(metric, completed, duration_s)
    label = cells.get("Benchmark | Strategy") or cells.get("Name") or ""
    kind, _, level = label.partition("@")
    facts |= {"requests_failed": count(cells.get(status.format("Errored"))),
              "requests_incomplete": count(cells.get(status.format("Incomplete")))}
    if completed and facts["ttft_mean_ms"] is None:
        report.note(f"{label}: no first token was timed (not streamed): TTFT and TPOT are missing")
    backend = _json(cells.get("Run Info | Backend"))
    if not level:  # versions 1 and 2 name the level in the profile only
        level = _level(_json(cells.get("Run Info | Profile")), count(cells.get("Run Info | Run Index")))
    if positive(level) and "@" not in label:
        label = f"{kind}@{positive(level):g}"
    streams = positive(level) if "concurren" in kind or kind == "throughput" else 1.0 if kind == "synchronous" else None
    return Point(
        **facts, label=label, source=report.source.path.name, format=FORMAT,
        concurrency_set=streams,
        request_rate_set_per_s=positive(level) if kind in ("constant", "poisson", "async") else None,
        model=backend.get("model") if isinstance(backend.get("model"), str) else None,
        identity=cells.get("Benchmark | ID") or cells.get("Id") or None,
    )


def _level(profile: dict[str, Any], at: int | None) -> float | None:
    """Streams or rate of the benchmark with this index among the strategies of a profile."""
    done = profile.get("completed_strategies")
    strategy = done[at] if isinstance(done, list) and at is not None and at < len(done) else None
    if not isinstance(strategy, dict):
        return None
    return positive(strategy.get("streams")) or positive(strategy.get("rate"))


def _json(cell: str | None) -> dict[str, Any]:
    try:
        found = json.loads(cell or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _first(*values: Any) -> float | None:
    return next((found for value in values if (found := number(value)) is not None), None)
