"""vLLM `vllm bench throughput --output-json`: an offline run; only totals, input and output tokens together."""

from factory_sim.calibration.importers.point import Point
from factory_sim.calibration.importers.report import Found, Report
from factory_sim.calibration.importers.tally import ratio
from factory_sim.inputs.logs.jsonscan import Head
from factory_sim.inputs.logs.values import count, number, positive

FORMAT = "vllm_bench_throughput"
TOOL = "vllm bench throughput"


def detect(head: Head) -> bool:
    """True for the totals of an offline throughput run."""
    return head.has("elapsed_time", "tokens_per_second")


def read(report: Report, head: Head) -> Found:
    """Return one point for each result in the file."""
    points = []
    for document, where in report.documents():
        elapsed_s, completed = positive(document.get("elapsed_time")), count(document.get("num_requests"))
        if elapsed_s is None:
            report.complaints.add("dropped, elapsed_time is not positive", where)
            continue
        prompt, output = number(document.get("total_prompt_tokens")), number(document.get("total_output_tokens"))
        total = number(document.get("total_num_tokens"))
        report.note(f"{where}: offline run: no latencies, and tokens_per_second ({document.get('tokens_per_second')}) "
                    "counts input and output tokens together; output tokens alone are not in the file")
        points.append(
            Point(
                requests_completed=completed,
                input_tokens=None if prompt is None else round(prompt),
                output_tokens=None if output is None else round(output),
                output_tokens_per_s=ratio(output, elapsed_s),
                duration_s=elapsed_s,
                request_rate_per_s=ratio(completed, elapsed_s),
                source=report.source.path.name,
                format=FORMAT,
                extra={"total_num_tokens": total, "total_tokens_per_s": positive(document.get("tokens_per_second"))},
            )
        )
    return Found(points, TOOL)
