"""TensorRT-LLM `trtllm-bench --report_json`. Offline (all requests at once) unless a concurrency was set; times in ms.

Its per-request mean gap excludes TTFT, so it is TPOT (older versions call it itl). Per-user throughput includes TTFT.
"""

from typing import Any

from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import ratio, times, whole
from factory_sim.inputs.logs.jsonscan import Head
from factory_sim.inputs.logs.values import count, number, positive

FORMAT = "trtllm_bench"
TOOL = "trtllm-bench"


def detect(head: Head) -> bool:
    """True for a report."""
    return head.has("world_info", "performance")


def read(report: Report, head: Head) -> Found:
    """Return one point for each report in the file."""
    points, version = [], None
    for document, where in report.documents():
        engine = _object(document, "engine")
        version = version or engine.get("version")
        points.append(_point(document, engine, where, report))
    return Found(points, TOOL, version if isinstance(version, str) else None)


def _point(document: dict[str, Any], engine: dict[str, Any], where: str, report: Report) -> Point:
    world, request = _object(document, "world_info"), _object(document, "request_info")
    done, streaming = _object(document, "performance"), _object(document, "streaming_metrics")
    completed = count(request.get("num_requests"))
    total_ms = positive(done.get("total_latency_ms"))
    duration_s = total_ms and total_ms / 1000
    duration_s = duration_s or ratio(completed, positive(done.get("request_throughput_req_s")))
    output_tokens = times(number(request.get("avg_output_length")), completed)
    e2e_ms = positive(done.get("avg_request_latency_ms"))
    ttft_ms = positive(streaming.get("avg_ttft_ms"))
    tpot_ms = positive(streaming.get("avg_tpot_ms")) or positive(streaming.get("avg_itl_ms"))
    if not streaming:
        report.note(f"{where}: run without --streaming: no TTFT and no TPOT")
    machine = _object(document, "machine")
    accepted = _object(_object(document, "decoding_stats"), "acceptance_length_percentiles")
    layout = {name: size for name, key in (("tp", "tp_size"), ("pp", "pp_size"), ("ep", "ep_size"))
              if (size := count(world.get(key)))}
    return Point(
        requests_completed=completed, ttft_mean_ms=ttft_ms, tpot_mean_ms=tpot_ms, e2e_mean_ms=e2e_ms,
        input_tokens=whole(times(number(request.get("avg_input_length")), completed)),
        output_tokens=whole(output_tokens),
        output_tokens_per_s=ratio(output_tokens, duration_s)
        or positive(done.get("system_output_throughput_tok_s")),
        duration_s=duration_s,
        concurrency=positive(request.get("avg_num_concurrent_requests"))
        or ratio(times(e2e_ms and e2e_ms / 1000, completed), duration_s),
        request_rate_per_s=ratio(completed, duration_s),
        n_gpus=positive(world.get("world_size")), parallelism=layout,
        model=engine.get("model") if isinstance(engine.get("model"), str) else None, engine="trtllm",
        engine_version=engine.get("version") if isinstance(engine.get("version"), str) else None,
        precision=engine.get("quantization") or engine.get("dtype"),
        gpu=machine.get("name") if isinstance(machine.get("name"), str) else None,
        tokens_per_step=positive(accepted.get("average")),
        speculative="yes" if document.get("decoding_stats") else None, streaming=bool(streaming),
        isl=positive(request.get("avg_input_length")), osl=positive(request.get("avg_output_length")),
        tpot_basis="avg_tpot_ms" if streaming.get("avg_tpot_ms") else "avg_itl_ms" if tpot_ms else None,
        source=report.source.path.name, format=FORMAT,
        extra={name: number(world.get(name)) for name in ("max_batch_size", "max_num_tokens")},
    )


def _object(container: dict[str, Any], name: str) -> dict[str, Any]:
    found = container.get(name)
    return found if isinstance(found, dict) else {}
