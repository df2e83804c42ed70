"""What one serving system costs in seconds: the records that the kernel plays.

One serving step of one worker processes ``T`` tokens at once (one for each decoding sequence, or ``1 + k`` where ``k``
drafted tokens are verified, and the tokens of prompts in prefill)::

    step = base_s[T] + kv_s * kv + prefill_s * p + pair_s * q          seconds

with ``kv`` the cached tokens that the decoding sequences attend to, ``p`` the prefill tokens and ``q`` their
(query, key) pairs. `model/step_time.py` derives the four costs from physical terms and fitted efficiencies.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from factory_sim.errors import CapacityError, ProfileError, closest
from factory_sim.inputs import catalog, profiles
from factory_sim.inputs.parallelism import Layout, WorkerLayout, parse_parallelism
from factory_sim.model import step_time, trust
from factory_sim.model.hardware import sheet_range, stand_in


@dataclass(frozen=True)
class StepCosts:
    """Seconds of one worker's serving step."""

    base_s: np.ndarray
    """float64, shape (n,): seconds of a step by its tokens T (decode_sequences * tokens_per_sequence + prefill tokens);
    ``base_s[0] == 0``. Longer than the largest step that the worker can run."""
    kv_s: float
    """Seconds for each cached token that a decoding sequence attends to."""
    prefill_s: float
    """Seconds for each prefill token, beyond `base_s`."""
    pair_s: float
    """Seconds for each (query, key) pair of prefill tokens; p tokens after c earlier ones make p*c + p*(p+1)/2."""
    tokens_per_sequence: int = 1
    """Tokens that a decoding sequence puts into each step: 1 + k with k drafted tokens to verify."""
    attention_cap_tokens: int = 0
    """Sparse attention: a sequence attends to min(held, cap) tokens; 0 means no cap."""
    attention_ranks: int = 1
    """Ranks of data-parallel attention whose fullest a step waits for: the term of cached tokens is then
    ``kv_s * ranks * (tokens of the fullest rank) / rank_balance[n]`` with n decoding sequences. 1: all ranks count as even."""
    rank_balance: np.ndarray | None = None
    """float64, by number of decoding sequences: fullest rank over the mean rank in the runs that `kv_s` was fitted to, since
    `kv_s` holds that already; longer than the most sequences. Needed with several ranks."""


@dataclass(frozen=True)
class Worker:
    """One kind of worker of an instance: an engine process over `gpus` GPUs."""

    role: str
    """"both" (aggregated), "prefill" or "decode"."""
    count: int
    """Identical workers of this role in one instance."""
    gpus: int
    """GPUs of one worker."""
    step: StepCosts
    kv_capacity_tokens: int
    """Tokens of KV cache that one worker holds: (memory - weights - reserve) / bytes a token."""
    max_sequences: int
    """Sequences that one worker runs at once."""
    max_batched_tokens: int
    """Token budget of one step, decode and prefill together (chunked prefill)."""
    expert_parallel: int = 1
    """GPUs over which experts are spread whole."""
    data_parallel_attention: bool = False
    """Whether each GPU holds its own sequences and attention weights."""


@dataclass(frozen=True)
class ServingSystem:
    """One instance: the smallest unit that serves a request end to end (a replica, or a prefill-decode unit)."""

    name: str
    gpu: str
    gpus: int
    """All GPUs of the instance: the sum of count * gpus over its workers."""
    workers: tuple[Worker, ...]
    """One worker kind "both", or one "prefill" and one "decode"."""
    tokens_per_step: float
    """Mean tokens that a sequence gains in a decode step; 1.0 without speculation."""
    kv_transfer_s_per_token: float = 0.0
    """Seconds a prompt token to hand its KV from prefill to decode."""
    kv_link_s_per_token: float = 0.0
    """Seconds a prompt token occupies the link of its prefill worker: transfers queue for it; 0 means no contention."""
    kv_transfer_latency_s: float = 0.0
    """Seconds a request of that hand-off whatever its length."""
    request_overhead_s: float = 0.0
    """Seconds before a request can be scheduled (frontend, tokenizer): delays TTFT, occupies nothing."""
    max_context_tokens: int = 131072
    model: str = ""
    """Model of the catalogue, e.g. DeepSeek-R1."""
    precision: str = ""
    """Precision of weights and GEMMs: bf16, fp8, fp4, int4."""
    profile: str = ""
    """Name of the profile that the step costs come from."""
    trust: str = "estimated"
    """"measured", "interpolated", "extrapolated" or "estimated"."""
    tpot_band: tuple[float, float] = (1.0, 1.0)
    """P10 and P90 of true TPOT over predicted TPOT on this rung of trust."""
    ttft_band: tuple[float, float] = (1.0, 1.0)
    """P10 and P90 of true TTFT over predicted TTFT on this rung of trust."""

    def scaled(self, factor: float) -> "ServingSystem":
        """Return the system with every step time multiplied by `factor`: one draw of the profile's systematic error."""
        return replace(
            self,
            workers=tuple(
                replace(
                    worker,
                    step=replace(
                        worker.step,
                        base_s=worker.step.base_s * factor,
                        kv_s=worker.step.kv_s * factor,
                        prefill_s=worker.step.prefill_s * factor,
                        pair_s=worker.step.pair_s * factor,
                    ),
                )
                for worker in self.workers
            ),
        )


def decode_steps(osl: np.ndarray, tokens_per_step: float, rng: np.random.Generator | None = None) -> np.ndarray:
    """Draw the decode steps that each request needs after its first token: int64, shape of `osl`.

    The mean is (osl - 1) / tokens_per_step, rounded up or down at random so that it is kept in the mean (rounded to the
    nearest without `rng`); never below 1 where osl > 1, never above osl - 1, and exactly osl - 1 where
    ``tokens_per_step == 1``. Requests with osl 1 need no decode step.
    """
    gained = np.asarray(osl, dtype=np.int64) - 1
    if tokens_per_step == 1.0:
        return np.maximum(gained, 0)
    mean = gained / tokens_per_step
    shift = 0.5 if rng is None else rng.random(mean.shape)
    steps = np.floor(mean + shift).astype(np.int64)
    return np.where(gained > 0, np.clip(steps, 1, np.maximum(gained, 1)), 0)


PRECISIONS = tuple(step_time.WEIGHT_BYTES)
SPECULATIONS = ("none", "mtp")


def architecture(model: catalog.ModelSpec) -> str:
    """Kind of architecture that models share: attention (mla, linear, gqa) and whether experts are routed."""
    attention = "mla" if model.latent else "linear" if model.linear_attention else "gqa"
    return f"{attention}_{'moe' if model.experts else 'dense'}"


def worker_keys(
    model: str,
    gpu: str,
    engine: str,
    precision: str,
    worker: WorkerLayout,
    speculation: str = "none",
    date: str = "",
    origin: str = "InferenceX",
) -> dict[str, str]:
    """Keys of a worker's parameters, for `profiles.Effects.parameters`; `date` is YYYY-MM-DD, or a version."""
    spec = catalog.model(model)
    chip = gpu.removeprefix("g")
    return {
        "model": spec.name,
        "family": spec.name.split("-")[0],
        "arch": architecture(spec),
        "gpu": gpu,
        "chip": chip,
        "generation": chip.rstrip("0123456789"),
        "engine": engine,
        "precision": precision,
        "role": worker.role,
        "kind": worker.kind,
        "layout": worker.name,
        "spec": speculation,
        "month": date[:7],
        "date": date,
        "origin": origin,
    }


@cache
def worker_facts(model: str, gpu: str, precision: str, worker: WorkerLayout) -> step_time.WorkerFacts:
    """Physical facts of a worker by names."""
    return step_time.facts_at_peak(
        catalog.model(model),
        catalog.gpu(gpu),
        precision,
        worker.gpus,
        worker.expert_parallel,
        worker.data_parallel_attention,
    )


def serving_system(
    model: str,
    gpu: str,
    engine: str,
    precision: str,
    parallelism: str | Layout,
    *,
    speculation: str = "none",
    as_of: str | None = None,
    concurrency: float | None = None,
    load: tuple[float, float, float] | None = None,
    max_sequences: int | None = None,
    max_batched_tokens: int | None = None,
    kv_cache_tokens: int | None = None,
    origin: str = "InferenceX",
    predecessor: str | None = None,
    folder=None,
) -> ServingSystem:
    """Return one instance of a system, measured or not, with the step costs that calibration gives it.

    `parallelism` is a short form (`tp8pp1ep1dpaFr1`, `P3x4-D4x8dep`) or a Layout. `as_of` (YYYY-MM-DD or YYYY-MM)
    picks the software: the last measured month of this engine not after it (the newest without). `concurrency` is the
    number of requests in flight on one instance that the frontend's delay is stated for, `load` the (isl, osl, requests
    in flight) that trust is judged for (within the measured range when left out). The settings of the engine
    (`data/profiles/engines.csv`) can be overridden. `predecessor` is the measured GPU whose efficiencies stand for
    `gpu`; a GPU that was never measured has one in a table (`hardware.py`) and is "estimated". `folder` holds other
    profiles than the packaged ones.

    Raises ProfileError for unknown names and a short form that no engine could start, CapacityError where the weights leave no room for KV cache.
    """
    spec, hardware, settings = catalog.model(model), catalog.gpu(gpu), profiles.engine(engine)
    layout = parallelism if isinstance(parallelism, Layout) else _buildable(parallelism, spec)
    if precision not in PRECISIONS:
        raise ProfileError(f"precision '{precision}' is not known{closest(precision, PRECISIONS)}")
    effects = profiles.effects(folder)
    like = stand_in(hardware.name, effects.known("gpu"), predecessor)
    date = _software_date(effects, spec.name, like or hardware.name, settings.name, as_of)
    parameters = {
        worker.role: effects.parameters(
            worker_keys(spec.name, like or hardware.name, settings.name, precision, worker, speculation, date, origin)
        )
        for worker in layout.workers
    }
    measured = (spec.name, hardware.name, settings.name, precision, layout, speculation, load, folder)
    band = trust.band(rung := trust.rung(*measured) if like is None else "gpu", layout.pooled, folder)
    system = assemble(
        spec.name,
        hardware.name,
        settings.name,
        precision,
        layout,
        parameters,
        speculation=speculation,
        concurrency=concurrency,
        max_sequences=max_sequences,
        max_batched_tokens=max_batched_tokens,
        kv_cache_tokens=kv_cache_tokens,
    )
    low, high = sheet_range(hardware.name, precision) if like else (1.0, 1.0)
    return replace(
        system,
        trust=trust.RUNGS[rung],
        profile=f"{system.profile}.like.{like}" if like else system.profile,
        ttft_band=(band.ttft[0] * low, band.ttft[1] * high),
        tpot_band=(band.tpot[0] * low, band.tpot[1] * high),
    )


def _buildable(parallelism: str, spec: catalog.ModelSpec) -> Layout:
    """The layout of a short form, if the model's attention heads divide over the GPUs that share them, as engines ask."""
    layout = parse_parallelism(parallelism)
    for worker in layout.workers:
        if not worker.data_parallel_attention and spec.heads % worker.gpus:
            fits = max(n for n in range(1, worker.gpus) if spec.heads % n == 0)
            raise ProfileError(
                f"parallelism '{parallelism}': the {spec.heads} attention heads of {spec.name} do not divide over {worker.gpus} GPUs; "
                f"use {fits} GPUs, or data-parallel attention"
            )
    return layout


def assemble(
    model: str,
    gpu: str,
    engine: str,
    precision: str,
    layout: Layout,
    parameters: dict[str, np.ndarray],
    *,
    speculation: str = "none",
    concurrency: float | None = None,
    max_sequences: int | None = None,
    max_batched_tokens: int | None = None,
    kv_cache_tokens: int | None = None,
) -> ServingSystem:
    """Return one instance from given parameters of each role (`step_time.PARAMETERS`); names as in the catalogue.

    Raises CapacityError where the weights leave no room for KV cache.
    """
    spec, settings = catalog.model(model), profiles.engine(engine)
    workers = tuple(
        _worker(
            spec,
            catalog.gpu(gpu),
            precision,
            worker,
            settings,
            parameters[worker.role],
            speculation,
            max_sequences,
            max_batched_tokens,
            kv_cache_tokens,
        )
        for worker in layout.workers
    )
    first, front = layout.workers[0], parameters[layout.workers[-1].role]
    facts = worker_facts(model, gpu, precision, first)
    in_flight = concurrency or sum(one.max_sequences * one.count for one in workers if one.role != "prefill") / 4
    return ServingSystem(
        name=" ".join((model, gpu, engine, precision, trust.layout_name(layout), speculation)).removesuffix(" none"),
        gpu=gpu,
        gpus=layout.gpus,
        workers=workers,
        tokens_per_step=float(step_time.tokens_per_step(front, tokens_per_sequence(speculation))),
        kv_transfer_s_per_token=float(front[step_time.INDEX["handoff"]] * facts.handoff_s / first.gpus)
        if layout.pooled
        else 0.0,
        request_overhead_s=float(step_time.request_s(front, in_flight)),
        max_context_tokens=spec.max_context_tokens,
        model=spec.name,
        precision=precision,
        profile=profile_name(model, gpu, engine, precision),
    )


def profile_name(model: str, gpu: str, engine: str, precision: str) -> str:
    """Name of a profile: model, GPU, engine and precision, e.g. `deepseek-r1.h200.trtllm.fp8`."""
    return ".".join((model, gpu, engine, precision)).lower()


def tokens_per_sequence(speculation: str) -> int:
    """Tokens that a sequence puts into a step: itself and three drafted ones to verify with multi-token prediction."""
    if speculation not in SPECULATIONS:
        raise ProfileError(f"speculation '{speculation}' is not known{closest(speculation, SPECULATIONS)}")
    return 4 if speculation != "none" else 1


def _software_date(effects: profiles.Effects, model: str, gpu: str, engine: str, as_of: str | None) -> str:
    """Date (or version) of the measured software: as asked if its month was measured for this engine, else the last
    measured month not after `as_of`, of this model and GPU if there is one; the newest without `as_of`."""
    months = sorted({key.split("|")[1] for key in effects.known("engine_month") if key.split("|")[0] == engine})
    if as_of is not None and (as_of[:7] in months or as_of[:2] != "20"):
        return as_of
    months = [month for month in months if month[:2] == "20"]
    here = sorted(
        key.split("|")[3]
        for key in effects.known("model_month")
        if key.split("|")[:3] == [engine, gpu, model] and key.split("|")[3][:2] == "20"
    )
    choice = here or months
    if not choice:
        return ""
    if as_of is None:
        return choice[-1]
    earlier = [month for month in choice if month <= as_of[:7]]
    month = earlier[-1] if earlier else choice[0]
    return as_of if as_of[:7] == month else month


def _worker(
    spec, hardware, precision, layout, settings, parameters, speculation, max_sequences, max_batched_tokens, kv_tokens
) -> Worker:
    """One worker with its step costs as tables over the tokens of a step."""
    facts = worker_facts(spec.name, hardware.name, precision, layout)
    verify = 1 if layout.role == "prefill" else tokens_per_sequence(speculation)
    ranks = int(facts.ranks)
    budget = max_batched_tokens or settings.max_batched_tokens * (ranks if layout.role == "prefill" else 1)
    capacity = kv_tokens or int(
        step_time.kv_capacity_tokens(spec, hardware, precision, layout.gpus, layout.data_parallel_attention, settings)
    )
    if capacity < 1:
        raise CapacityError(
            f"{spec.name} in {precision} does not fit on {layout.gpus} x {hardware.label}: the weights leave no room "
            "for KV cache; use more GPUs a worker or a smaller precision"
        )
    sequences = max_sequences or settings.max_sequences * (ranks if layout.role != "both" else 1)
    limit = 0.0 if layout.role == "prefill" else step_time.decode_tokens_limit(min(sequences, 512 * ranks), verify)
    tokens = np.arange(max(budget, sequences * verify) + sequences * verify + 2)
    token_s, pair_s = step_time.prefill_costs(facts, parameters)
    return Worker(
        role=layout.role,
        count=layout.count,
        gpus=layout.gpus,
        expert_parallel=layout.expert_parallel,
        data_parallel_attention=layout.data_parallel_attention,
        step=StepCosts(
            base_s=np.maximum.accumulate(step_time.base_s(facts, parameters, tokens, verify, limit)),
            kv_s=float(step_time.kv_cost(facts, parameters)),
            prefill_s=float(token_s),
            pair_s=float(pair_s),
            tokens_per_sequence=verify,
            attention_cap_tokens=spec.sparse_top_tokens,
        ),
        kv_capacity_tokens=capacity,
        max_sequences=sequences,
        max_batched_tokens=budget,
    )
