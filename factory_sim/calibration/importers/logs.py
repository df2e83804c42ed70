"""Request logs and traces as points: LiteLLM, OpenTelemetry, gateways, Azure, BurstGPT, Mooncake, agentic sessions."""

from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import Tally, whole
from factory_sim.inputs.logs.jsonscan import Head
from factory_sim.inputs.logs.read import open_log

TRACES = ("azure_llm_trace", "burstgpt", "mooncake_trace", "length_trace", "agentic_trace", "frontier_trace",
          "vidur_lengths", "weka_trace", "llmservingsim_trace")


def read(report: Report, head: Head | None) -> Found:
    """Return one point over all requests of a log or trace."""
    import pandas as pd

    log = open_log(report.source, head)
    tally, models, keys, hashes = Tally(), {}, 0, 0
    for part in log.batches:
        tally.add_batch(part)
        for model in part["model"].dropna().unique():
            models.setdefault(str(model), None)
        known = part["key"].dropna()
        keys += len(known)
        if len(known):
            hashes = (hashes + int(pd.util.hash_array(known.astype(str).to_numpy(object)).sum())) % 2**64
    report.complaints = log.complaints
    for note in log.notes:
        report.note(note)
    if not tally.completed and not tally.failed:
        return Found([], log.tool, log.tool_version)
    duration_s = None if log.session_relative else tally.span_s or tally.arrival_span_s
    facts = tally.figures(duration_s)
    if log.session_relative:
        report.note("times count from the start of each session: no duration and no rates")
    elif duration_s is None and tally.e2e_s.count:
        report.note("no times of arrival: no duration, no concurrency and no rates")
    if log.format in TRACES:
        report.note("a trace of requests: lengths and arrivals, no measurement of a system")
        if log.format not in ("burstgpt",):
            facts["requests_failed"] = None
    elif tally.ttft_s.count == 0 and tally.completed:
        report.note("no TTFT in these records")
    if tally.zero_output:
        report.note(f"{tally.zero_output} requests have no output token")
    if len(models) > 1:
        report.note(f"{len(models)} models together: {', '.join(list(models)[:6])}")
    point = Point(
        **facts, source=report.source.path.name, format=log.format,
        cached_input_tokens=whole(tally.cached.sum), reasoning_tokens=whole(tally.reasoning.sum),
        spend_usd=tally.spend_usd.sum, model=next(iter(models)) if len(models) == 1 else None,
        tpot_basis="requests" if facts["tpot_mean_ms"] is not None else None,
        identity=f"{keys} requests {hashes:x}" if keys else None,
    )
    return Found([point], log.tool, log.tool_version, log.session_relative)
