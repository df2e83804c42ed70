"""AIPerf 0.3 and later: the JSON and CSV summaries, the records of every request, aggregates and sweeps.

Warm-up requests are dropped. A cancelled run keeps partial figures and says so; a killed one leaves only the records.
"""

from typing import Any

from factory_sim.calibration.importers import metric_dicts
from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import Tally
from factory_sim.errors import MeasurementError
from factory_sim.inputs.logs import tables
from factory_sim.inputs.logs.jsonscan import SKIP, Head
from factory_sim.inputs.logs.values import count, epoch_seconds, number, plain_name, positive, seconds

FORMAT = "aiperf"
TOOL = "AIPerf"
RECORDS = "aiperf_records"
_PLAN = {"warmup_metrics": SKIP, "telemetry_data": {"endpoints": SKIP}, "server_metrics": SKIP}


def detect(head: Head) -> bool:
    """True for a summary, an aggregate or a sweep (any version)."""
    if head.any("aggregation_type", "metadata.aggregation_type"):
        return True
    if head.has("aiperf_version"):
        return head.any("request_throughput", "request_latency", "metrics", "per_combination_metrics", "request_count",
                        "output_token_throughput", "input_config")
    return head.any("input_config.loadgen", "input_config.phases", "records") and head.has("input_config") and head.any(
        "request_throughput.unit", "request_latency.unit", "request_count.unit", "was_cancelled"
    )


def detect_bare(head: Head) -> bool:
    """True for a summary cut down to its metrics, without a word about the tool; AIPerf and GenAI-Perf name them alike."""
    names = ("request_latency.unit", "time_to_first_token.unit", "inter_token_latency.unit", "request_throughput.unit")
    return sum(name in head.paths for name in names) >= 2


def detect_records(head: Head) -> bool:
    """True for the records of every request."""
    return head.any("metadata.benchmark_phase", "metadata.credit_phase") or head.has(
        "metadata.request_start_ns", "metadata.request_end_ns", "metrics"
    )


def read(report: Report, head: Head) -> Found:
    """Return the points of a summary, an aggregate over runs, or a sweep."""
    points, version = [], None
    for document, where in report.documents(_PLAN):
        meta = document.get("metadata") if isinstance(document.get("metadata"), dict) else {}
        kind = document.get("aggregation_type") or meta.get("aggregation_type")
        version = version or document.get("aiperf_version")
        combinations = document.get("per_combination_metrics")
        if combinations is None and isinstance(document.get("metrics"), list):
            combinations = document["metrics"]
        if isinstance(combinations, list):
            points.extend(_combination(item, report) for item in combinations if isinstance(item, dict))
        elif kind:
            metrics = document.get("metrics") if isinstance(document.get("metrics"), dict) else document
            points.append(_aggregate(metrics, document, report))
        else:
            points.append(_summary(document, where, report))
    return Found(points, TOOL, version)


def _summary(document: dict[str, Any], where: str, report: Report) -> Point:
    metrics = metric_dicts.from_json(document)
    if isinstance(document.get("records"), dict):  # before 0.2, under the names of the report
        for name, metric in metric_dicts.from_json(document["records"]).items():
            metrics.setdefault(plain_name(name), metric)
        if "time_to_last_token" in metrics:
            metrics.setdefault("request_latency", metrics["time_to_last_token"])
    start_s, end_s = epoch_seconds(document.get("start_time")), epoch_seconds(document.get("end_time"))
    span_s = end_s - start_s if start_s is not None and end_s is not None and end_s > start_s else None
    facts = metric_dicts.figures(metrics, span_s)
    errors = document.get("error_summary")
    if facts["requests_failed"] is None and isinstance(errors, list):
        facts["requests_failed"] = sum(count(item.get("count")) or 0 for item in errors if isinstance(item, dict))
    cancelled = document.get("was_cancelled") is True
    if cancelled or document.get("is_complete") is False:
        reason = document.get("incomplete_reason")
        why = f" ({reason})" if reason else ""
        report.note(f"{where}: the run was cancelled or is incomplete{why}: its figures are partial")
        cancelled = True
    if facts["requests_completed"] is None and facts["requests_failed"]:
        facts["requests_completed"] = 0
        report.note(f"{where}: no request succeeded")
    note_input_counts(facts, report, where)
    config = document.get("input_config") if isinstance(document.get("input_config"), dict) else {}
    return Point(**facts, **_setting(config), cancelled=cancelled, source=report.source.path.name, format=FORMAT,
                 identity=document.get("benchmark_id"), gpu=_gpu_name(document))


def note_input_counts(facts: dict[str, Any], report: Report, where: str) -> None:
    """Tell when client and server count input tokens differently."""
    client, server = facts["input_tokens"], facts["server_input_tokens"]
    if client and server and abs(client / server - 1) > 0.005:
        report.note(f"{where}: input tokens are the client's count ({client}); the server counted {server}, with the "
                    "chat template")


def _gpu_name(document: dict[str, Any]) -> str | None:
    telemetry = document.get("telemetry_data")
    names = telemetry.get("gpu_names") if isinstance(telemetry, dict) else None
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def _setting(config: dict[str, Any]) -> dict[str, Any]:
    endpoint = config.get("endpoint") if isinstance(config.get("endpoint"), dict) else {}
    phases = [phase for phase in config.get("phases") or [] if isinstance(phase, dict)]
    phase = next((item for item in phases if item.get("kind") == "profiling"), {})
    load = phase or (config.get("loadgen") if isinstance(config.get("loadgen"), dict) else {})
    models = config.get("models")
    items = models.get("items") if isinstance(models, dict) else None
    names = endpoint.get("model_names") or [item.get("name") for item in items or [] if isinstance(item, dict)]
    return {
        "model": names[0] if names and isinstance(names[0], str) else None,
        "concurrency_set": positive(load.get("concurrency")),
        "request_rate_set_per_s": positive(load.get("rate", load.get("request_rate"))),
        "streaming": endpoint.get("streaming") if isinstance(endpoint.get("streaming"), bool) else None,
        **_lengths(config),
    }


def _lengths(config: dict[str, Any]) -> dict[str, Any]:
    """Nominal lengths of a synthetic data set: newer `datasets[].prompts`, or older `input.prompt`."""
    datasets = [item for item in config.get("datasets") or [] if isinstance(item, dict)]
    prompts = next((item.get("prompts") for item in datasets if isinstance(item.get("prompts"), dict)), None)
    if prompts is not None:
        isl, osl = prompts.get("isl"), prompts.get("osl")
    else:
        prompt = (config.get("input") or {}).get("prompt") if isinstance(config.get("input"), dict) else None
        prompt = prompt if isinstance(prompt, dict) else {}
        isl, osl = prompt.get("input_tokens"), prompt.get("output_tokens")
    isl, osl = (item if isinstance(item, dict) else {} for item in (isl, osl))
    fixed = number(isl.get("stddev")) == 0 and number(osl.get("stddev")) in (0, None) and positive(isl.get("mean"))
    return {"isl": positive(isl.get("mean")), "osl": positive(osl.get("mean")),
            "length_distribution": "fixed" if fixed else None}


def _aggregate(metrics: dict[str, Any], document: dict[str, Any], report: Report) -> Point:
    meta = document.get("metadata") if isinstance(document.get("metadata"), dict) else {}
    runs = number(meta.get("num_profile_runs", document.get("num_profile_runs", meta.get("num_successful_runs"))))
    report.note(f"mean over {f'{runs:.0f}' if runs else 'several'} runs: counts and totals are those of one run")
    facts = metric_dicts.figures(metric_dicts.from_aggregate(metrics))
    return Point(**facts, source=report.source.path.name, format=FORMAT, label="aggregate")


def _combination(item: dict[str, Any], report: Report) -> Point:
    parameters = item.get("parameters") if isinstance(item.get("parameters"), dict) else {}
    metrics = item.get("metrics") if isinstance(item.get("metrics"), dict) else {}
    facts = metric_dicts.figures(metric_dicts.from_aggregate(metrics))
    short = {str(name).rsplit(".", 1)[-1]: value for name, value in parameters.items()}
    return Point(
        **facts,
        source=report.source.path.name,
        format=FORMAT,
        label=", ".join(f"{name}={value}" for name, value in short.items()),
        concurrency_set=positive(short.get("concurrency")),
        request_rate_set_per_s=positive(short.get("rate", short.get("request_rate"))),
    )


def read_records(report: Report, head: Head) -> Found:
    """Return one point from the records of every request."""
    tally = Tally()
    warmup = cancelled = 0
    seen: set[tuple] = set()
    for document, where in report.documents():
        meta, metrics = document.get("metadata"), document.get("metrics")
        if not isinstance(meta, dict) or not isinstance(metrics, dict):
            report.complaints.add("dropped, no record of a request", where)
            continue
        identity = (meta.get("x_request_id"), meta.get("request_start_ns"))
        if identity[0] and identity in seen:
            report.complaints.add("left out, same request as an earlier record", where)
            continue
        seen.add(identity)
        phase = meta.get("benchmark_phase") or meta.get("phase_kind") or meta.get("credit_phase")
        if phase == "warmup":
            warmup += 1
            continue
        start_s, end_s = _nanoseconds(meta.get("request_start_ns")), _nanoseconds(meta.get("request_end_ns"))
        if document.get("error") or meta.get("was_cancelled") or "error_isl" in metrics:  # 0.3: an error without a text
            cancelled += bool(meta.get("was_cancelled"))
            tally.fail(start_s, end_s)
            continue
        _add(tally, metrics, start_s)
    if warmup:
        report.note(f"{warmup} warm-up records dropped")
    if cancelled:
        report.note(f"{cancelled} cancelled requests counted as failed")
    facts = tally.figures(tally.span_s)
    if not tally.completed and not tally.failed:
        return Found([], TOOL)
    facts["server_input_tokens"] = None if tally.server_isl.sum is None else round(tally.server_isl.sum)
    facts["reasoning_tokens"] = None if tally.reasoning.sum is None else round(tally.reasoning.sum)
    note_input_counts(facts, report, "records")
    return Found([Point(**facts, source=report.source.path.name, format=FORMAT, tpot_basis="requests")], TOOL)


def _add(tally: Tally, metrics: dict[str, Any], start_s: float | None) -> None:
    ttft_s, e2e_s = _seconds(metrics, "time_to_first_token"), _seconds(metrics, "request_latency")
    osl = _value(metrics, "output_sequence_length")
    itl_s = _seconds(metrics, "inter_token_latency")
    decode_s = itl_s * (osl - 1) if itl_s is not None and osl is not None and osl > 1 else None
    tally.add(start_s=start_s, e2e_s=e2e_s, ttft_s=ttft_s, decode_s=decode_s, osl=osl,
              isl=_value(metrics, "input_sequence_length"))
    tally.server_isl.add(_value(metrics, "usage_prompt_tokens"))
    tally.reasoning.add(_value(metrics, "reasoning_token_count"))
    gaps = metrics.get("inter_chunk_latency")
    if isinstance(gaps, dict) and isinstance(gaps.get("value"), list):
        for gap in gaps["value"]:
            tally.gap_s.add(seconds(gap, gaps.get("unit")))


def _nanoseconds(stamp: object) -> float | None:
    found = number(stamp)
    return None if found is None else found * 1e-9


def _seconds(metrics: dict[str, Any], name: str) -> float | None:
    item = metrics.get(name)
    return seconds(item.get("value"), item.get("unit")) if isinstance(item, dict) else None


def _value(metrics: dict[str, Any], name: str) -> float | None:
    item = metrics.get(name)
    return number(item.get("value")) if isinstance(item, dict) else None


def detect_csv(rows: list[list[str]]) -> bool:
    """True for the CSV summary of AIPerf or GenAI-Perf."""
    return bool(rows) and [cell.strip() for cell in rows[0][:2]] in (["Metric", "avg"], ["Metric", "Value"])


def read_csv(report: Report, head: Head | None) -> Found:
    """Return the point of a CSV summary; two decimals, so the JSON beside it is better."""
    metrics, header = metric_dicts.from_csv(tables.all_rows(report.source, MeasurementError))
    percentiles = [cell for cell in header if cell.startswith("p") and cell[1:].replace(".", "").isdigit()]
    genai_perf = len(percentiles) > 1 and float(percentiles[0][1:]) > float(percentiles[-1][1:])
    if not metrics:
        return Found([], TOOL)
    facts = metric_dicts.figures(metrics)
    completed = metric_dicts.value(metrics, "completed_requests")  # success and error together
    if facts["requests_failed"] is None and completed is not None and facts["requests_completed"] is not None:
        facts["requests_failed"] = round(completed) - facts["requests_completed"]
    rate = metric_dicts.value(metrics, "request_error_rate")
    if facts["requests_failed"] is None and rate == 0:
        facts["requests_failed"] = 0
    report.note("CSV summary: figures have two decimals")
    note_input_counts(facts, report, "CSV")
    name = "genai_perf" if genai_perf else FORMAT
    return Found([Point(**facts, source=report.source.path.name, format=name)],
                 "GenAI-Perf" if genai_perf else TOOL)
