"""llm-d Benchmark Reports, versions 0.1 and 0.2: YAML or JSON, every statistic with its unit.

`run.time.duration` includes the start-up, so the duration is requests over request rate.
"""

from typing import Any

from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import ms, ratio, times, whole
from factory_sim.inputs.logs.jsonscan import Head
from factory_sim.inputs.logs.values import count, number, positive, seconds

FORMAT = "llmd_report"
TOOL = "llm-d benchmark report"


def detect(head: Head) -> bool:
    """True for a report in JSON."""
    return head.has("version") and head.any("results.request_performance", "metrics.latency", "metrics.requests")


def detect_tree(tree: dict[str, Any]) -> bool:
    """True for a report that was decoded already."""
    return "version" in tree and bool(_aggregate(tree))


def read(report: Report, head: Head) -> Found:
    """Return one point for each report in the file."""
    found = Found([], TOOL)
    for document, _ in report.documents():
        one = read_tree(document, report)
        found.points.extend(one.points)
        found.tool_version = found.tool_version or one.tool_version
    return found


def read_tree(tree: dict[str, Any], report: Report) -> Found:
    """Return the point of a report that was decoded already."""
    part = _aggregate(tree)
    requests, latency, throughput = (_object(part, name) for name in ("requests", "latency", "throughput"))
    total, failed = count(requests.get("total")), count(requests.get("failures"))
    completed = total - failed if total is not None and failed is not None else total
    if completed == 0:
        report.note("no request succeeded: its zeros mean missing")
        latency = throughput = {}
    rate = _rate(throughput, "request_rate") or _rate(throughput, "requests_per_sec")
    duration_s = ratio(completed, rate)
    if duration_s is None:
        time = _object(part, "time")
        duration_s = seconds(time.get("duration"), time.get("units", "s")) if time else None
    e2e_s = _seconds(latency, "request_latency")
    isl, osl = (times(number(_object(requests, f"{kind}_length").get("mean")), completed or None)
                for kind in ("input", "output"))
    gap = _object(latency, "inter_token_latency")
    gap_s = _seconds(latency, "inter_token_latency")
    if number(gap.get("p50")) == 0 or number(gap.get("min")) == 0:
        report.note("several tokens came in one chunk: the gaps between tokens hold zeros and are no chunk gaps")
        gap_s = None
    gpu, n_gpus, layout = _hardware(tree)
    run = _object(tree, "run")
    return Found([Point(
        requests_completed=completed, requests_failed=failed,
        ttft_mean_ms=ms(_seconds(latency, "time_to_first_token")),
        tpot_mean_ms=ms(_seconds(latency, "time_per_output_token")), chunk_gap_mean_ms=ms(gap_s), e2e_mean_ms=ms(e2e_s),
        input_tokens=whole(isl), output_tokens=whole(osl),
        output_tokens_per_s=ratio(osl, duration_s) or _rate(throughput, "output_token_rate")
        or _rate(throughput, "output_tokens_per_sec"),
        duration_s=duration_s, concurrency=ratio(times(e2e_s, completed), duration_s),
        request_rate_per_s=ratio(completed, duration_s) or rate,
        gpu=gpu, n_gpus=n_gpus, parallelism=layout, tpot_basis="time_per_output_token",
        source=report.source.path.name, format=FORMAT, identity=run.get("uid"),
    )], TOOL, str(tree.get("version")))


def _object(container: Any, name: str) -> dict[str, Any]:
    found = container.get(name) if isinstance(container, dict) else None
    return found if isinstance(found, dict) else {}


def _aggregate(tree: dict[str, Any]) -> dict[str, Any]:
    newer = _object(_object(_object(tree, "results"), "request_performance"), "aggregate")
    older = _object(tree, "metrics")
    return newer or (older if "latency" in older or "requests" in older else {})


def _seconds(latency: dict[str, Any], name: str) -> float | None:
    item = _object(latency, name)
    found = seconds(item.get("mean"), item.get("units"))
    return found if found and found > 0 else None


def _rate(throughput: dict[str, Any], name: str) -> float | None:
    item = throughput.get(name)
    return positive(item.get("mean") if isinstance(item, dict) else item)


def _hardware(tree: dict[str, Any]) -> tuple[str | None, float | None, dict[str, Any]]:
    """GPU model, count and layout of the first accelerator described in the scenario."""
    def walk(node: Any):
        if isinstance(node, dict):
            if isinstance(node.get("accelerator"), dict):
                yield node["accelerator"]
            for child in node.values():
                yield from walk(child)
        elif isinstance(node, list):
            for child in node:
                yield from walk(child)

    for accelerator in walk(tree.get("scenario")):
        layout = {name: size for name in ("tp", "dp", "ep", "pp")
                  if (size := count(_object(accelerator, "parallelism").get(name)))}
        model = accelerator.get("model")
        return model if isinstance(model, str) else None, positive(accelerator.get("count")), layout
    return None, None, {}
