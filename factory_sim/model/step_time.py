"""The physical terms of a serving step, and the seconds that they take at a data sheet's peak.

One step of one worker costs a sum of terms. `facts_at_peak` gives their seconds at peak from published facts of the GPU
and the model; calibration fits how far real software is from it. Reading weights and arithmetic cost ``(1 + excess)``
times the time at peak: efficiencies above the data sheet's would only hide fixed costs. KV cache and links cost a multiple
of it (sliding windows and in-network reduction save work that the facts count). Fixed and per-item costs have no peak:
they are fitted in seconds.

Bytes: weights are read once a step. Of E experts, T tokens that each choose k of them touch ``E (1 - (1 - k/E)^T)`` on
average (independent, uniform choice; a fitted share of T counts as independent). Tensor parallelism over g GPUs splits
weights by g, a grouped-query KV cache by min(g, KV heads) and a latent (MLA) cache not at all; data-parallel attention
splits the sequences, so the KV cache by g and attention weights by 1. Each layer of tensor-parallel attention and MLP
ends in an all-reduce, which moves ``2 (g-1)/g`` of its bytes and does the work of an expert exchange; behind
data-parallel attention each token's hidden state moves to its experts and back.
"""

import re
from dataclasses import dataclass
from math import log2

import numpy as np

from factory_sim.inputs import profiles
from factory_sim.inputs.catalog import Gpu, ModelSpec

WEIGHT_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5625, "int4": 0.53125}
"""Bytes of one weight with its share of scales: NVFP4 has one 8-bit scale for 16 weights, INT4 one 16-bit for 64."""
COMPUTED_IN = {"int4": "bf16"}
"""Precision of the arithmetic where it is not that of the weights: INT4 weights are widened as they are read."""
ACTIVATION_BYTES = 2.0
"""Bytes of one activation element on a link (bf16)."""

PARAMETERS = tuple(term.parameter for term in profiles.terms())
"""Fitted parameters in the order of `data/profiles/terms.csv`: excess over peak, times, and factors of curves."""
INDEX = {name: index for index, name in enumerate(PARAMETERS)}


def _nodes(prefix: str) -> tuple[slice, np.ndarray]:
    """Positions of a curve's parameters, which follow each other, and log2 of their nodes."""
    names = [name for name in PARAMETERS if re.fullmatch(prefix + r"_\d+", name)]
    return slice(INDEX[names[0]], INDEX[names[-1]] + 1), np.log2([float(name.split("_")[1]) for name in names])


BASE_CURVE, BASE_NODES_LOG2 = _nodes("base")
REQUEST_CURVE, REQUEST_NODES_LOG2 = _nodes("request")


@dataclass(frozen=True)
class WorkerFacts:
    """Seconds at the data sheet's peak, and counts, of one worker; scalars, or arrays of one shape for many workers."""

    layers: float
    moe_layers: float
    """Layers whose MLP is routed experts."""
    weights_s: float
    """Reading the always-read weights of one GPU once."""
    experts_s: float
    """Reading all routed experts of one GPU once."""
    experts: float
    experts_per_token: float
    flops_s: float
    """Arithmetic of one token."""
    expert_flops_s: float
    """The part of `flops_s` that is in routed experts."""
    kv_s: float
    """Reading one token's KV cache."""
    pair_s: float
    """Arithmetic of one (query, key) pair."""
    allreduces: float
    """All-reduces of one step times log2 of their GPUs."""
    link_s: float
    """All-reduce bytes of one token over the scale-up link."""
    exchanges: float
    """Expert exchanges of one step."""
    exchange_s: float
    """Expert-exchange bytes of one token."""
    handoff_s: float
    """KV cache of one token over the network of one GPU."""
    ranks: float
    """Attention data-parallel ranks (1 without)."""
    gpus: float


def kv_bytes_per_token(model: ModelSpec, precision: str) -> float:
    """Bytes of KV cache of one token over all full-attention layers: fp8 for 8- and 4-bit weights, else 16 bit."""
    return model.kv_elements_per_token * (1.0 if precision in ("fp8", "fp4", "int8") else 2.0)


def weight_bytes(model: ModelSpec, precision: str) -> tuple[float, float]:
    """Bytes of (always-read weights, all routed experts).

    Published 4-bit mixture-of-experts checkpoints keep attention and shared parts in 8 or 16 bit; 8 is taken here and
    the fitted efficiency carries the rest.
    """
    width = WEIGHT_BYTES[precision]
    always = max(width, 1.0) if model.experts else width
    return (
        model.params_always_read * always,
        model.moe_layers * model.experts * model.params_per_expert * width,
    )


def facts_at_peak(
    model: ModelSpec, gpu: Gpu, precision: str, gpus: int, expert_parallel: int, data_parallel_attention: bool
) -> WorkerFacts:
    """Return the physical facts of one worker of `gpus` GPUs; see the module for the formulas."""
    ranks = gpus if data_parallel_attention else 1
    tensor = 1 if data_parallel_attention else gpus
    bandwidth, peak = gpu.memory_bandwidth_bytes_per_s, gpu.peak(COMPUTED_IN.get(precision, precision))
    always, routed = weight_bytes(model, precision)
    kv_split = gpus if data_parallel_attention else (1 if model.latent else min(gpus, model.kv_heads))
    inside = gpus <= gpu.scale_up_domain_gpus
    link = gpu.scale_up_bandwidth_bytes_per_s if inside else gpu.scale_out_bandwidth_bytes_per_s
    hidden = model.hidden_size * ACTIVATION_BYTES
    exchange = bool(model.moe_layers) and gpus > 1 and data_parallel_attention
    return WorkerFacts(
        layers=model.layers,
        moe_layers=model.moe_layers,
        weights_s=always / tensor / bandwidth,
        experts_s=routed / gpus / bandwidth,
        experts=max(model.experts, 1),
        experts_per_token=max(model.experts_per_token, 1),
        flops_s=2 * model.params_active / gpus / peak,
        expert_flops_s=2 * model.moe_layers * model.experts_per_token * model.params_per_expert / gpus / peak,
        kv_s=kv_bytes_per_token(model, precision) / kv_split / bandwidth,
        pair_s=model.attention_flops_per_token_pair / gpus / gpu.peak("bf16"),
        allreduces=2 * model.layers * log2(tensor) if tensor > 1 else 0.0,
        link_s=2 * model.layers * hidden * 2 * (tensor - 1) / tensor / link if tensor > 1 else 0.0,
        exchanges=2.0 * model.moe_layers * exchange,
        exchange_s=2 * model.moe_layers * hidden * model.experts_per_token / gpus / link * exchange,
        handoff_s=kv_bytes_per_token(model, precision) / gpu.scale_out_bandwidth_bytes_per_s,
        ranks=ranks,
        gpus=gpus,
    )


def experts_touched(facts: WorkerFacts, tokens):
    """Fraction of the routed experts that `tokens` independent tokens touch: 1 - (1 - k/E)^T."""
    chosen = np.minimum(facts.experts_per_token / facts.experts, 0.999999)
    return -np.expm1(np.asarray(tokens, dtype=float) * np.log1p(-chosen))


def curve(parameters: np.ndarray, where: slice, nodes_log2: np.ndarray, at):
    """Factor of a curve at `at`: log-linear between its nodes (log2 apart), flat outside."""
    x = np.clip(np.log2(np.maximum(np.asarray(at, dtype=float), 1.0)), nodes_log2[0], nodes_log2[-1])
    if np.ndim(parameters) == 1:
        return np.exp(np.interp(x, nodes_log2, np.log(parameters[where])))
    weights = np.maximum(0.0, 1.0 - np.abs(x[..., None] - nodes_log2) / (nodes_log2[1] - nodes_log2[0]))
    return np.exp((weights * np.log(np.asarray(parameters)[..., where])).sum(-1))


def decode_tokens_limit(sequences, tokens_per_sequence):
    """Largest decode-only step of a system set up for `sequences` a worker: the next power of two, at least 64."""
    return 2.0 ** np.ceil(np.log2(np.maximum(sequences, 32.0))) * tokens_per_sequence * 2.0


def base_s(facts: WorkerFacts, parameters: np.ndarray, tokens, tokens_per_sequence, decode_tokens_limit):
    """Seconds of a step of `tokens` tokens before KV, prefill and pairs.

    `parameters` has `PARAMETERS` on its last axis. Costs per decoded token grow up to `decode_tokens_limit` tokens and
    are flat beyond (only prefill makes larger steps, and pays per token itself); a step beyond the limit also pays the
    launches of prefill. The sum of the terms is multiplied by the curve over batch.
    """
    e = dict(zip(PARAMETERS, np.moveaxis(np.asarray(parameters), -1, 0)))
    tokens = np.asarray(tokens, dtype=float)
    decoded = np.minimum(tokens, decode_tokens_limit)
    seconds = (
        e["step"]
        + e["layer"] * facts.layers
        + e["moe_layer"] * facts.moe_layers
        + (1.0 + e["weights"]) * facts.weights_s
        + (1.0 + e["experts"]) * facts.experts_s * experts_touched(facts, e["routing"] * tokens)
        + e["allreduce"] * facts.allreduces
        + e["exchange"] * facts.exchanges
        + decoded
        * (
            (1.0 + e["flops"]) * facts.flops_s
            + e["link"] * facts.link_s
            + e["exchange_bytes"] * facts.exchange_s
            + e["sequence"] / tokens_per_sequence
        )
    )
    correction = curve(parameters, BASE_CURVE, BASE_NODES_LOG2, decoded)
    launches = np.where(tokens > decode_tokens_limit, e["prefill_step"] * e["prefill_layer"] * facts.layers, 0.0)
    return np.where(tokens > 0, e["decode_step"] * seconds * correction + launches, 0.0)


def prefill_costs(facts: WorkerFacts, parameters: np.ndarray):
    """Return (seconds a prefill token beyond base, seconds a pair)."""
    e = dict(zip(PARAMETERS, np.moveaxis(np.asarray(parameters), -1, 0)))
    token = (
        (1.0 + e["prefill_flops"]) * (facts.flops_s - facts.expert_flops_s)
        + (1.0 + e["prefill_experts"]) * facts.expert_flops_s
        + e["prefill_link"] * (facts.link_s + facts.exchange_s)
        + e["prefill_token"] / facts.gpus
    )
    return e["prefill_step"] * token, e["prefill_step"] * e["prefill_pair"] * facts.pair_s


def kv_cost(facts: WorkerFacts, parameters: np.ndarray):
    """Seconds for each attended cached token."""
    parameters = np.asarray(parameters)
    return parameters[..., INDEX["decode_step"]] * parameters[..., INDEX["kv"]] * facts.kv_s


def tokens_per_step(parameters: np.ndarray, tokens_per_sequence):
    """Mean tokens that a sequence gains in a step that verifies `tokens_per_sequence - 1` drafted ones.

    With the fitted odds that a draft is accepted once those before it were, p = odds / (1 + odds): 1 + p + p^2 + ...,
    between 1 and `tokens_per_sequence`.
    """
    odds = np.asarray(parameters)[..., INDEX["acceptance"]]
    accepted = odds / (1.0 + odds)
    most = int(np.max(tokens_per_sequence))
    return sum(np.where(draft < tokens_per_sequence, accepted**draft, 0.0) for draft in range(most))


def request_s(parameters: np.ndarray, concurrency):
    """Seconds of a request before it can be scheduled, at `concurrency` requests in flight on the instance."""
    return np.asarray(parameters)[..., INDEX["request"]] * curve(
        parameters, REQUEST_CURVE, REQUEST_NODES_LOG2, concurrency
    )


def kv_capacity_tokens(
    model: ModelSpec, gpu: Gpu, precision: str, gpus: int, data_parallel_attention: bool, engine: profiles.Engine
) -> float:
    """Tokens of KV cache that one worker holds: memory of the engine, less weights and reserve, over bytes a token.

    Data-parallel attention holds the always-read weights once a GPU; a latent cache under tensor parallelism, and a
    grouped-query cache over more GPUs than KV heads, is held several times. Negative: the weights do not fit.
    """
    always, routed = weight_bytes(model, precision)
    weights = always * (gpus if data_parallel_attention else 1) + routed
    room = gpus * (gpu.memory_bytes * engine.memory_utilisation - engine.reserve_bytes_per_gpu) - weights
    split = gpus if data_parallel_attention else (1 if model.latent else min(gpus, model.kv_heads))
    return engine.free_fraction * room / (kv_bytes_per_token(model, precision) * gpus / split)
