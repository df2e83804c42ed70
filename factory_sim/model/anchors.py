"""Step times held to published throughput: an estimate for systems that are far from anything fitted.

The anchor says what a GPU of one role did at a stated point. The fitted profile, asked for the anchor's own layout at that
point, says something else; the ratio multiplies all step times of that role, so the profile keeps its shape (how steps
grow with batch, context and layout) and gets the anchor's level::

    decode:  predicted = N y / (base[N k] + kv_s N context) / GPUs            N sequences, y tokens gained a step
    prefill: predicted = B / (base[B] + prefill_s B + pair_s B (L + 1) / 2) / GPUs     full steps of prompts of L tokens
    factor on step times = predicted / published
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from factory_sim.errors import ProfileError
from factory_sim.inputs import catalog, profiles
from factory_sim.inputs.anchors import MODELS, Anchor, anchor
from factory_sim.model import trust
from factory_sim.model.hardware import stand_in
from factory_sim.model.serving import ServingSystem, Worker, serving_system


def predicted_tokens_per_s_per_gpu(worker: Worker, at: Anchor, tokens_per_step: float) -> float:
    """Tokens a second and GPU that a worker computes at the anchor's point, by its own step times."""
    step = worker.step
    if worker.role == "decode":
        sequences = at.sequences_per_gpu * worker.gpus
        most = min(worker.max_sequences, worker.kv_capacity_tokens / at.sequence_tokens)
        if sequences > most:
            raise ProfileError(
                f"anchor.decode: '{at.name}' was measured with {at.sequences_per_gpu:g} sequences a GPU; this system holds "
                f"{most / worker.gpus:.0f}; it cannot be compared"
            )
        base_s = step.base_s[round(sequences * step.tokens_per_sequence)]
        return sequences * tokens_per_step / (base_s + step.kv_s * sequences * at.sequence_tokens) / worker.gpus
    tokens = worker.max_batched_tokens
    pairs = tokens * (at.sequence_tokens + 1) / 2
    return tokens / (step.base_s[tokens] + step.prefill_s * tokens + step.pair_s * pairs) / worker.gpus


def slowness(
    at: Anchor, model: str, gpu: str, engine: str, precision: str, *, as_of: str | None = None, folder: Path | None = None
) -> float:
    """Factor on a role's fitted step times that gives the published throughput at the anchor's point."""
    _comparable(at, model, gpu, precision, folder)
    system = serving_system(model, at.gpu, engine, precision, at.parallelism, as_of=as_of, folder=folder)
    (worker,) = [one for one in system.workers if one.role == at.role]
    return predicted_tokens_per_s_per_gpu(worker, at, system.tokens_per_step) / at.tokens_per_s_per_gpu


def _comparable(at: Anchor, model: str, gpu: str, precision: str, folder: Path | None) -> None:
    """ProfileError where a system is not what was published."""
    where, spec = f"anchor.{at.role}: '{at.name}'", catalog.model(model)
    if spec.name not in MODELS:
        raise ProfileError(f"{where} is of {' and '.join(MODELS)}, not of {spec.name}; leave anchor out")
    if precision != "fp8":
        raise ProfileError(f"{where} is of fp8, not of {precision}; leave anchor out")
    known = profiles.effects(folder).known("gpu")
    ours, theirs = (catalog.gpu(name).name for name in (gpu, at.gpu))
    if (stand_in(ours, known) or ours) != (stand_in(theirs, known) or theirs):
        raise ProfileError(f"{where} is of {catalog.gpu(at.gpu).label}, not of {catalog.gpu(gpu).label}; leave anchor out")


def anchored(
    system: ServingSystem, engine: str, names: Mapping[str, str], *, as_of: str | None = None, folder: Path | None = None
) -> ServingSystem:
    """Return the system with the step times of each role of `names` (prefill, decode) held to that anchor.

    It is "estimated", with the band of a system that was never measured. Raises ProfileError for an unknown anchor, or one
    that says nothing about this model, GPU, precision or kind of system.
    """
    if len(system.workers) != 2:
        raise ProfileError("anchor: only disaggregated systems can be anchored, e.g. parallelism P3x32dep-D1x144dep")
    if system.tokens_per_step != 1.0:
        raise ProfileError("anchor: the published rows are without speculation; leave anchor or speculation out")
    workers = list(system.workers)
    for place, worker in enumerate(workers):
        if worker.role in names:
            at = anchor(worker.role, names[worker.role])
            factor = slowness(at, system.model, system.gpu, engine, system.precision, as_of=as_of, folder=folder)
            workers[place] = system.scaled(factor).workers[place]
    band = trust.band("gpu", pooled=True, folder=folder)
    label = ".".join(f"{role}-{names[role]}" for role in ("prefill", "decode") if role in names)
    return replace(
        system,
        workers=tuple(workers),
        profile=f"{system.profile}.anchored.{label}",
        trust=trust.RUNGS["gpu"],
        ttft_band=band.ttft,
        tpot_band=band.tpot,
    )
