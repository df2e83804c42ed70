"""Operating points as rows of the measurement table, with the facts about the system that no file knows."""

import zlib
from typing import TYPE_CHECKING, Any

from factory_sim.calibration.importers.inferencex import AGENTS
from factory_sim.calibration.importers.point import Inspection, Point
from factory_sim.errors import MeasurementError, ScenarioError, closest
from factory_sim.inputs import catalog
from factory_sim.inputs.logs.values import positive
from factory_sim.inputs.parallelism import parse_parallelism

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "measurement_id", "group_id", "source", "origin", "measured_on", "model", "gpu", "backend", "backend_version",
    "precision", "mode", "spec_decoding", "isl", "osl", "concurrency", "n_gpus", "parallelism", "ttft_ms", "tpot_ms",
    "model_listed", "n_gpus_basis", "tp", "pp", "ep", "dp_attention", "replicas", "prefill_workers",
    "prefill_gpus_per_worker", "prefill_ep", "prefill_dp_attention", "decode_workers", "decode_gpus_per_worker",
    "decode_ep", "decode_dp_attention", "length_distribution", "mean_input_tokens", "mean_output_tokens", "n_requests",
    "request_rate_per_s", "load", "flags",
)
_FACTS = (
    "model", "gpu", "n_gpus", "engine", "engine_version", "precision", "mode", "spec_decoding", "isl", "osl",
    "concurrency", "length_distribution", "measured_on", "parallelism", "tp", "pp", "ep", "dp_attention", "replicas",
    "prefill_workers", "prefill_gpus_per_worker", "prefill_ep", "prefill_dp_attention", "decode_workers",
    "decode_gpus_per_worker", "decode_ep", "decode_dp_attention", "request_rate_per_s",
)
_AMOUNTS = ("n_gpus", "isl", "osl", "concurrency", "tp", "pp", "ep", "replicas", "request_rate_per_s")
_LAYOUT = ("tp", "pp", "ep", "mode", "dp_attention", "replicas", "prefill_workers", "prefill_gpus_per_worker",
           "prefill_ep", "prefill_dp_attention", "decode_workers", "decode_gpus_per_worker", "decode_ep",
           "decode_dp_attention")
_REQUIRED = {
    "model": "the model, as the catalogue names it (--model DeepSeek-R1)",
    "gpu": "the GPU (--gpu h100, h200, b200, b300, gb200, gb300, ...)",
    "precision": "the weight precision (--precision bf16, fp8, fp4)",
    "engine": "the engine (--engine vllm, sglang, trtllm)",
}
_GPU_WORDS = ("gb300", "gb200", "b300", "b200", "h200", "h100", "h20", "a100", "l40s", "mi355x", "mi325x", "mi300x")
_PRECISIONS = {"bfloat16": "bf16", "bf16": "bf16", "float16": "fp16", "fp16": "fp16", "fp8": "fp8", "fp4": "fp4",
               "int4": "int4", "w4a16": "int4", "awq": "int4", "gptq": "int4", "int8": "int8"}
_ENGINES = {"vllm": "vllm", "openai": "vllm", "openai-chat": "vllm", "openai-comp": "vllm", "sglang": "sglang",
            "sglang-oai": "sglang", "sglang-native": "sglang", "trt": "trtllm", "trtllm": "trtllm",
            "tensorrt-llm": "trtllm", "tensorrtllm": "trtllm", "dynamo-trt": "trtllm", "dynamo-sglang": "sglang"}


def to_measurements(inspection: Inspection, **facts: Any) -> "pd.DataFrame":
    """Return the points of `inspection` as rows with the columns of serving.csv, for `profiles fit` and `validate`.

    `facts` (model, gpu, n_gpus, engine, engine_version, precision, mode, parallelism, tp, pp, ep, dp_attention,
    replicas, prefill_*, decode_*, isl, osl, concurrency, length_distribution, spec_decoding, measured_on) are what the
    user knows; they win over what the file says. `ttft_ms` and `tpot_ms` are means. `load` is "closed" (a fixed number
    in flight) or "open" (a rate; `concurrency` is then the measured mean, `request_rate_per_s` the rate).

    Points without TTFT, TPOT, lengths or concurrency are left out and listed in `frame.attrs["dropped"]`. Raises
    `MeasurementError` when no row is left, or when model, GPU, precision, engine or GPU count are neither in the file
    nor given: they are never guessed.
    """
    import pandas as pd

    unknown = [name for name in facts if name not in _FACTS]
    if unknown:
        raise MeasurementError(f"{unknown[0]!r} is not known{closest(unknown[0], _FACTS)}")
    facts = {name: value for name, value in facts.items() if value is not None}
    for name in _AMOUNTS:
        if name in facts and positive(facts[name]) is None:
            raise MeasurementError(f"{name} {facts[name]}: is not a number above zero")
    rows, dropped = [], []
    for at, point in enumerate(inspection.points):
        reason = _unusable(point, facts)
        if reason:
            dropped.append(f"{point.source} {point.label}".strip() + f": {reason}")
            continue
        rows.append(_row(point, at, facts, inspection))
    if not rows:
        raise MeasurementError(f"{inspection.path}: no row for a profile is left; {'; '.join(dropped)}")
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    notes = list(inspection.notes)
    if "spec_decoding" not in facts and any(point.speculative is None for point in inspection.points):
        notes.append("speculative decoding is not in the file: taken as none (give --speculation mtp where it was on)")
    frame.attrs = {"dropped": dropped, "notes": notes}
    return frame


def _unusable(point: Point, facts: dict[str, Any]) -> str | None:
    if point.simulated:
        return "is a prediction"
    if point.extra.get("scenario_type") == AGENTS:
        return "replays sessions of agents with cached prefixes, which a fit does not know"
    for name, what in (("ttft_mean_ms", "TTFT"), ("tpot_mean_ms", "TPOT")):
        if getattr(point, name) is None:
            return f"has no mean {what}"
    isl, osl = _lengths(point, facts)
    if isl is None or osl is None:
        return "does not tell input and output lengths; give --isl and --osl"
    if _concurrency(point, facts) is None:
        return "does not tell its concurrency; give --concurrency"
    return None


def _lengths(point: Point, facts: dict[str, Any]) -> tuple[float | None, float | None]:
    """Mean input and output tokens a request: counted, else nominal."""
    isl, osl = point.extra.get("mean_isl"), point.extra.get("mean_osl")
    done = point.requests_completed
    counted = point.server_input_tokens or point.input_tokens
    if isl is None and done and counted:
        isl = counted / done
    if osl is None and done and point.output_tokens:
        osl = point.output_tokens / done
    shrink = 0.9 if (facts.get("length_distribution") or point.length_distribution) == "uniform[0.8*L,L]" else 1.0
    isl = isl if isl is not None else _scaled(facts.get("isl", point.isl), shrink)
    osl = osl if osl is not None else _scaled(facts.get("osl", point.osl), shrink)
    return isl, osl


def _scaled(nominal: Any, share: float) -> float | None:
    return None if nominal is None else float(nominal) * share


def _concurrency(point: Point, facts: dict[str, Any]) -> float | None:
    if "concurrency" in facts:
        return float(facts["concurrency"])
    if point.concurrency_set and not point.request_rate_set_per_s:
        return point.concurrency_set
    return point.concurrency


def _row(point: Point, at: int, facts: dict[str, Any], inspection: Inspection) -> dict[str, Any]:
    split = point.parallelism | {name: value for name, value in facts.items() if name in _LAYOUT}
    if "parallelism" in facts:
        split |= _layout(facts["parallelism"])
    told = {
        "model": facts.get("model", point.model),
        "gpu": _gpu(facts.get("gpu", point.gpu)),
        "precision": _precision(facts.get("precision", point.precision)),
        "engine": facts.get("engine", _ENGINES.get((point.engine or "").lower(), point.engine)),
    }
    where = f"{point.source} {point.label}".strip()
    missing = [name for name in _REQUIRED if not told[name]]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MeasurementError(f"{where}: {', '.join(missing)} {verb} not in the file; give "
                               + ", ".join(_REQUIRED[name] for name in missing))
    mode = str(split.get("mode") or ("disagg" if "prefill_workers" in split else "agg"))
    n_gpus, basis = _gpu_count(point, facts, split, mode)
    if n_gpus is None:
        raise MeasurementError(f"{where}: the number of GPUs is not in the file and is never guessed; give --gpus (all "
                               "GPUs of the system), or --parallelism (tp8, P3x4-D4x8dep)")
    isl, osl = _lengths(point, facts)
    layout = facts.get("parallelism") or split.get("parallelism") or parallelism_name(split, mode)
    if layout is None and n_gpus == 1:
        layout = "tp1"
    if layout is None:
        raise MeasurementError(f"{where}: how the model is spread over {n_gpus:g} GPUs is not in the file; give "
                               "--parallelism (tp8, tp8pp1ep1dpaFr1, P3x4-D4x8dep)")
    nominal_isl = facts.get("isl", point.isl)
    nominal_osl = facts.get("osl", point.osl)
    spread = facts.get("length_distribution", point.length_distribution)
    if spread is None and nominal_isl and nominal_osl:
        same = abs(isl / nominal_isl - 1) < 0.06 and abs(osl / nominal_osl - 1) < 0.02
        spread = "fixed" if same else None
    group = (told["model"], told["gpu"], told["engine"], told["precision"], mode, layout)
    return {
        "measurement_id": f"u{_digest(point.source, point.label, str(at), str(point.ttft_mean_ms))}",
        "group_id": f"u{_digest(*map(str, group))}",
        "source": f"{inspection.tool}: {where}", "origin": point.format, "measured_on": facts.get(
            "measured_on", point.measured_on),
        "model": told["model"], "gpu": str(told["gpu"]).lower(), "backend": told["engine"],
        "backend_version": facts.get("engine_version", point.engine_version),
        "precision": told["precision"], "mode": mode,
        "spec_decoding": facts.get("spec_decoding", point.speculative or "none"),
        "isl": float(nominal_isl or isl), "osl": float(nominal_osl or osl), "concurrency": _concurrency(point, facts),
        "n_gpus": n_gpus, "parallelism": layout, "ttft_ms": point.ttft_mean_ms, "tpot_ms": point.tpot_mean_ms,
        "model_listed": point.model, "n_gpus_basis": basis,
        **{name: split.get(name) for name in COLUMNS if name in ("tp", "pp", "ep", "dp_attention", "replicas")
           or name.startswith(("prefill_", "decode_"))},
        "length_distribution": spread or "measured_mean", "mean_input_tokens": isl, "mean_output_tokens": osl,
        "n_requests": point.requests_completed, "request_rate_per_s": facts.get(
            "request_rate_per_s", point.request_rate_per_s),
        "load": "open" if point.request_rate_set_per_s else "closed", "flags": "",
    }


def _gpu(text: str | None) -> str | None:
    """Short name of a GPU: "NVIDIA H100 PCIe" -> h100-pcie, "NVIDIA B300 SXM6 AC" -> b300."""
    if not text:
        return None
    try:
        return catalog.gpu_name(text)
    except ScenarioError:
        lower = text.lower()
    if "pcie" in lower:  # another product than the SXM board of this name
        return text
    return next((word for word in _GPU_WORDS if word in lower), text)


def _precision(text: Any) -> str | None:
    """Short name of a weight precision: bfloat16 -> bf16, NVFP4 -> fp4, FP8_BLOCK -> fp8."""
    if not text:
        return None
    lower = str(text).lower()
    return next((short for word, short in _PRECISIONS.items() if word in lower), lower)


def _gpu_count(point: Point, facts: dict[str, Any], split: dict[str, Any], mode: str) -> tuple[float | None, str]:
    if "n_gpus" in facts:
        return float(facts["n_gpus"]), "given"
    if point.n_gpus is not None and not ({"tp", "pp", "replicas", "parallelism"} & facts.keys()):
        return float(point.n_gpus), "listed"
    if mode == "disagg":
        sides = [split.get(f"{side}_{what}") for side in ("prefill", "decode") for what in ("workers",
                                                                                           "gpus_per_worker")]
        if all(sides):
            return float(sides[0]) * float(sides[1]) + float(sides[2]) * float(sides[3]), "listed_workers"
        return None, ""
    if split.get("tp"):
        size = float(split["tp"]) * float(split.get("pp") or 1) * float(split.get("replicas") or 1)
        return size, "parallelism" if "parallelism" in facts else "tp"
    return None, ""


def parallelism_name(split: dict[str, Any], mode: str) -> str | None:
    """Return the short form of serving.csv: tp8pp1ep1dpaFr1, or P2x8-D1x32dep. None where the layout is not told."""
    if mode == "disagg":
        names = [split.get(name) for name in ("prefill_workers", "prefill_gpus_per_worker", "decode_workers",
                                              "decode_gpus_per_worker")]
        if not all(names):
            return None
        prefill = "" if split.get("prefill_dp_attention") in (None, True) else _kind(split, "prefill")
        return f"P{names[0]:g}x{names[1]:g}{prefill}-D{names[2]:g}x{names[3]:g}{_kind(split, 'decode')}"
    if not split.get("tp"):
        return None
    sizes = {name: int(split.get(name) or 1) for name in ("tp", "pp", "ep", "replicas")}
    attention = "T" if split.get("dp_attention") is True else "F"
    return f"tp{sizes['tp']}pp{sizes['pp']}ep{sizes['ep']}dpa{attention}r{sizes['replicas']}"


def _kind(split: dict[str, Any], side: str) -> str:
    if split.get(f"{side}_dp_attention") is True:
        return "dep"
    return "tep" if (split.get(f"{side}_ep") or 1) > 1 else "tp"


def _layout(text: str) -> dict[str, Any]:
    """Counts of a short form, under the names of the columns."""
    layout = parse_parallelism(text)
    found: dict[str, Any] = {"mode": "disagg" if layout.pooled else "agg"}
    for worker in layout.workers:
        if layout.pooled:
            found |= {f"{worker.role}_workers": worker.count, f"{worker.role}_gpus_per_worker": worker.gpus,
                      f"{worker.role}_ep": worker.expert_parallel,
                      f"{worker.role}_dp_attention": worker.data_parallel_attention}
        else:
            found |= {"tp": worker.gpus, "pp": 1, "ep": worker.expert_parallel, "replicas": layout.instances,
                      "dp_attention": worker.data_parallel_attention}
    return found


def _digest(*parts: str) -> str:
    return f"{zlib.crc32(chr(31).join(parts).encode()):08x}"
