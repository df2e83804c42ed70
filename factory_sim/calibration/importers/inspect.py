"""Reading whatever a user points at: one file, or a folder of runs."""

import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

from factory_sim.calibration.importers import elsewhere
from factory_sim.calibration.importers.logs import TRACES
from factory_sim.calibration.importers.point import FIGURES, Inspection, Point
from factory_sim.calibration.importers.registry import describe, recognise
from factory_sim.calibration.importers.report import Report
from factory_sim.errors import FactorySimError, MeasurementError
from factory_sim.inputs.logs.files import open_bytes

_SIDE_FILES = re.compile(
    r"(\.pytorch\.json|^inputs\.json|_timeslices\.(json|csv)|^gpu_telemetry_export.*|^server_metrics_export.*"
    r"|^phase_manifest\.json|^validation\.json|_collated\.json|^config\.ya?ml|^README.*"
    r"|^warmup\.json|(^|[.-])failure\.json|\.(md|html?|png|svg|pdf|log|py"
    r"|sh|txt|lock|toml))(\.(gz|bz2|xz|zst|zip))?$",
    re.IGNORECASE,
)
_STEM = re.compile(
    r"(_genai_perf|_aiperf(_aggregate|_sweep)?|_individual_responses|_summary|_lifecycle_metrics)?"
    r"(\.(json|jsonl|csv|ya?ml|parquet))?(\.(gz|bz2|xz|zst|zip))?$"
)
_NOT_LAID_OUT = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError)
"""What a reader meets where a file of a known format holds something else than that format does."""
_RANK = {"aiperf": 0, "aiperf_records": 1, "aiperf_csv": 2, "genai_perf": 0, "perf_analyzer": 1, "llmperf": 0,
         "llmperf_responses": 1, "inference_perf": 0, "inference_perf_requests": 1}
_FAMILY = {"aiperf": "aiperf", "aiperf_records": "aiperf", "genai_perf": "genai_perf", "perf_analyzer": "genai_perf",
           "llmperf": "llmperf", "llmperf_responses": "llmperf", "inference_perf": "inference_perf",
           "inference_perf_requests": "inference_perf"}
_FAMILY_TOOL = {"GenAI-Perf": "genai_perf", "AIPerf": "aiperf"}


class _File(NamedTuple):
    """What one file of a folder held."""

    path: Path
    layout: str
    format: str
    tool: str
    tool_version: str | None
    points: list[Point]
    notes: list[str]


def inspect(path: str | Path) -> Inspection:
    """Read any supported file, or all files of a folder, without judging or fitting.

    Raises `MeasurementError` (or `TraceError` for logs) when nothing usable is found; the message lists what was wrong.
    """
    path = Path(path)
    if not path.exists():
        raise MeasurementError(elsewhere.missing(path))
    told = elsewhere.run_folder(path)
    if told:
        raise MeasurementError(told)
    if path.is_dir():
        return _folder(path)
    return _inspection(_read(path), str(path))


def read_results(path: str | Path) -> Inspection:
    """Read benchmark results to calibrate on: as `inspect`, but only points that measure a system are kept.

    Left out are traces, predictions, cancelled runs and points without any latency or output rate; notes tell which.
    Raises `MeasurementError` when none is left.
    """
    found = inspect(path)
    kept, notes = [], list(found.notes)
    for point in found.points:
        reason = _unfit(point)
        if reason:
            notes.append(f"left out, {point.source} {point.label}".rstrip() + f": {reason}")
        else:
            kept.append(point)
    if not kept:
        raise MeasurementError(f"{path}: no usable operating point is left; {'; '.join(notes)}")
    return found.model_copy(update={"points": kept, "notes": notes})


def _unfit(point: Point) -> str | None:
    if point.format in TRACES or point.format == "servegen":
        return "a trace of requests measures no system"
    if point.simulated:
        return "it is a prediction, not a measurement"
    if point.cancelled:
        return "the run was cancelled or is incomplete"
    if point.requests_completed == 0:
        return "no request succeeded"
    done, failed = point.requests_completed, point.requests_failed
    if done and failed and failed > 0.05 * (done + failed):
        return f"{failed} of {done + failed} requests failed (more than 5 %)"
    if all(value is None for value in (point.ttft_mean_ms, point.tpot_mean_ms, point.e2e_mean_ms,
                                       point.output_tokens_per_s)):
        return "it holds no latency and no output rate"
    return None


def _read(path: Path) -> _File:
    with open_bytes(path, MeasurementError) as source:
        known = recognise(source)
        report = Report(source)
        try:
            found = known.read(report)
        except _NOT_LAID_OUT as reason:
            raise MeasurementError(
                f"{path}: looks like {known.name}, but is not laid out so: {type(reason).__name__}: {reason}"
            ) from reason
        notes = report.all_notes()
        bare = [point for point in found.points if _empty(point)]
        if bare:
            notes.append(f"dropped, {len(bare)} results without any figure")
            found.points = [point for point in found.points if not _empty(point)]
        if not found.points:
            why = "; ".join(notes) if notes else "it holds no result"
            raise MeasurementError(f"{path}: nothing usable is left: {why}")
        points = [_checked(point, notes) for point in found.points]
        version = found.tool_version if isinstance(found.tool_version, str) else None
        return _File(path, known.name, describe(known, found), found.tool, version, points, notes)


def _empty(point: Point) -> bool:
    """True for a result that tells nothing: no count, no time, no length."""
    return all(value is None for value in point.figures().values()) and point.isl is None and point.osl is None


def _checked(point: Point, notes: list[str]) -> Point:
    """Compare figures that must agree (Little's law, rates) within 10 %, and tell when they do not."""
    rate, e2e_ms, concurrency = point.request_rate_per_s, point.e2e_mean_ms, point.concurrency
    name = f"{point.label}: " if point.label else ""
    if rate and e2e_ms and concurrency and abs(rate * e2e_ms / 1000 / concurrency - 1) > 0.1:
        notes.append(f"{name}doubtful, request rate x end-to-end time is {rate * e2e_ms / 1000:.4g}, concurrency "
                     f"{concurrency:.4g}")
    if (
        point.concurrency and point.concurrency_set and point.request_rate_set_per_s is None
        and point.concurrency > 1.1 * point.concurrency_set
    ):
        notes.append(f"{name}doubtful, {point.concurrency:.4g} requests in flight with a limit of "
                     f"{point.concurrency_set:g}")
    failed, done = point.requests_failed, point.requests_completed
    if failed and done is not None:
        notes.append(f"{name}{failed} of {failed + done} requests failed; only successful ones are in the figures")
    return point


def _inspection(file: _File, path: str) -> Inspection:
    return Inspection(format=file.format, tool=file.tool, tool_version=file.tool_version, points=file.points,
                      notes=file.notes, path=path)


def _folder(folder: Path) -> Inspection:
    notes: list[str] = []
    files = []
    digests: dict[str, str] = {}
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if _SIDE_FILES.search(path.name) or "phases/" in f"{name.rpartition('/')[0]}/":
            notes.append(f"{name}: left out, not a result by itself")
            continue
        digest = _digest(path)
        if digest in digests:
            notes.append(f"{name}: left out, a copy of {digests[digest]}")
            continue
        digests[digest] = name
        try:
            file = _read(path)
        except FactorySimError as reason:
            text = str(reason).removeprefix(f"{path}: ").split(" Known are ")[0]
            notes.append(f"{name}: left out: {text}")
            continue
        points = [point.model_copy(update={"source": name}) for point in file.points]
        files.append(file._replace(points=points))
    files = _without_summaries(folder, _merged(folder, files, notes), notes)
    files = _without_repeats(folder, files, notes)
    points = [point for file in files for point in file.points]
    if not points:
        why = "; ".join(notes[:20]) if notes else "it is empty"
        raise MeasurementError(f"{folder}: nothing usable in this folder: {why}")
    for file in files:
        name = file.path.relative_to(folder).as_posix()
        notes.extend(note if note.startswith(name) else f"{name}: {note}" for note in file.notes)
    formats = list(dict.fromkeys(file.format for file in files))
    tools = list(dict.fromkeys(file.tool for file in files if file.tool))
    versions = list(dict.fromkeys(file.tool_version for file in files if file.tool_version))
    return Inspection(
        format=formats[0] if len(formats) == 1 else "mixed",
        tool=", ".join(tools) or None,
        tool_version=", ".join(versions) if len(tools) == 1 and versions else None,
        points=points,
        notes=notes,
        path=str(folder),
    )


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _merged(folder: Path, files: list[_File], notes: list[str]) -> list[_File]:
    """Put the summary, the records and the CSV of one run together: the best file leads, the others fill its gaps."""
    groups: dict[Any, list[_File]] = {}
    for file in files:
        family = _FAMILY.get(file.layout)
        if file.layout == "aiperf_csv":
            family = file.format
        stem = _STEM.sub("", file.path.name)
        if family == "inference_perf":
            stem = stem if file.path.name.startswith("stage_") else "run"
        key = (file.path.parent, family, stem) if family else (file.path,)
        groups.setdefault(key, []).append(file)
    merged = []
    for group in groups.values():
        group.sort(key=lambda file: (_RANK.get(file.layout, 9), file.path.name))
        first = group[0]
        for other in group[1:]:
            name = other.path.relative_to(folder).as_posix()
            if len(first.points) == len(other.points) == 1:
                filled = _filled(first.points[0], other.points[0], name, notes)
                if filled is not None:
                    first = first._replace(points=[filled], tool_version=first.tool_version or other.tool_version)
                    continue
            notes.append(f"{name}: left out, another layout of the run in {first.path.name}")
        merged.append(first)
    return merged


def _filled(point: Point, other: Point, name: str, notes: list[str]) -> Point | None:
    """Fill what `point` lacks from `other`, when both count the same successful requests; None when they do not."""
    if None not in (point.requests_completed, other.requests_completed) and (
        point.requests_completed != other.requests_completed
    ):
        notes.append(f"{name}: left out, {other.requests_completed} successful requests here, "
                     f"{point.requests_completed} in {point.source}")
        return point
    skip = {"source", "label", "identity", "extra", "format", "cancelled"}
    if point.streaming is False:  # the summary knew better than to keep these
        skip |= {"ttft_mean_ms", "tpot_mean_ms", "chunk_gap_mean_ms"}
    if point.tpot_mean_ms is not None:
        skip.add("tpot_basis")
    gaps = {field: value for field in Point.model_fields if field not in skip
            and getattr(point, field) in (None, {}) and (value := getattr(other, field)) not in (None, {})}
    if "duration_s" not in gaps and point.duration_s and point.output_tokens and point.output_tokens_per_s is None:
        gaps["output_tokens_per_s"] = point.output_tokens / point.duration_s
    told = [field for field in gaps if field in FIGURES]
    notes.append(f"{name}: same run as {point.source}" + (f"; gave {', '.join(told)}" if told else "; left out"))
    return point.model_copy(update=gaps)


def _without_summaries(folder: Path, files: list[_File], notes: list[str]) -> list[_File]:
    """Drop pooled files where what they pool is there: AIPerf aggregates and sweeps, inference-perf summaries."""
    kept = []
    singles = [file for file in files if file.format == "aiperf" and not _pooled(file.path)]
    staged = {file.path.parent: file for file in files if file.path.name.startswith("stage_")
              and file.format == "inference_perf"}
    for file in files:
        name = file.path.relative_to(folder).as_posix()
        if file.format == "aiperf" and _pooled(file.path) and singles:
            notes.append(f"{name}: left out, a summary of the runs beside it")
        elif file.path.parent in staged and not file.path.name.startswith("stage_") and file.format in (
            "inference_perf", "llmd_report"
        ):
            notes.append(f"{name}: left out, the stages it covers are read one by one")
        else:
            kept.append(file)
    return kept


def _pooled(path: Path) -> bool:
    return path.name.endswith(("_aggregate.json", "_sweep.json", "_sweep.csv", "_aggregate.csv"))


def _without_repeats(folder: Path, files: list[_File], notes: list[str]) -> list[_File]:
    """Drop points that are in an earlier file too: same identity, or the same figures to the last digit."""
    order = sorted(files, key=lambda file: (_CONTAINER_RANK.get(file.path.suffix, 1), file.path.parent,
                                            _STEM.sub("", file.path.name)))
    seen: dict[Any, str] = {}
    dropped: dict[Path, list[Point]] = {}
    for file in order:
        keep = []
        for point in file.points:
            keys = [("figures", file.format, *point.figures().values(), point.concurrency_set,
                     point.label if file.format == "results_csv" else "")]
            if point.identity:
                keys.append(("identity", file.format, point.identity))
            known = next((seen[key] for key in keys if key in seen), None)
            if known is not None and known != point.source:
                notes.append(f"{point.source} {point.label}".rstrip() + f": left out, the same run is in {known}")
                continue
            for key in keys:
                seen.setdefault(key, point.source)
            keep.append(point)
        dropped[file.path] = keep
    kept = [file._replace(points=dropped[file.path]) for file in files]
    return [file for file in kept if file.points]


_CONTAINER_RANK = {".json": 0, ".jsonl": 0, ".yaml": 1, ".yml": 1, ".csv": 2}
