"""The requests of a service as the kernel takes them, and the options of the pool that plays them."""

import math

import numpy as np

from factory_sim.engine.kernel import Requests
from factory_sim.inputs.services import Service
from factory_sim.model.serving import ServingSystem, decode_steps
from factory_sim.model.workload import LengthModel, RequestMix, prefix_groups, reasoning_model, shares_of


def request_mix(service: Service, lengths: LengthModel) -> RequestMix:
    """How the requests of a service are drawn. Raises TraceError where a description is wrong."""
    traffic = service.traffic
    return RequestMix(
        lengths=lengths,
        reasoning=reasoning_model(traffic.reasoning) if traffic.reasoning is not None else None,
        class_shares=tuple(traffic.class_shares),
        cancelled_share=traffic.cancelled.share if traffic.cancelled else 0.0,
        cancelled_after_s=traffic.cancelled.after_s if traffic.cancelled else 0.0,
        groups=prefix_groups(traffic.common_prompts) if traffic.common_prompts is not None else None,
        block_tokens=service.prefix_cache.block_tokens if service.prefix_cache else 512,
        refuse=service.context_window == "refuse",
        client_shares=shares_of(traffic.clients) if traffic.clients is not None else None,
        reading_tokens_per_s=traffic.reading_tokens_per_s,
    )


def drawn_requests(
    rng: np.random.Generator, mix: RequestMix, system: ServingSystem, arrival_s: np.ndarray, *, cached: bool
) -> Requests:
    """Requests at the times `arrival_s` (s, sorted); with the blocks of their prompts where the pool has a cache."""
    columns = mix.draw(rng, len(arrival_s), system.max_context_tokens)
    if not cached:
        columns = {name: values for name, values in columns.items() if not name.startswith("block_")}
    steps = decode_steps(columns["osl"], system.tokens_per_step, rng)
    return Requests(arrival_s=arrival_s, decode_steps=steps, **columns)


def scheduling_options(service: Service) -> dict:
    """Options of the kernel's pool that hold in a load test too: how workers schedule, and the prefix cache."""
    rules, cache = service.scheduling, service.prefix_cache
    options: dict = {}
    if rules is not None:
        options = {
            "prefill_first": rules.order == "prefill_first",
            "swap_s_per_token": rules.swap_s_per_token if rules.preemption == "swap" else 0.0,
            "signal_age_s": rules.signal_age_s,
        }
    if service.traffic.class_shares:
        options["priority_classes"] = max(len(service.traffic.class_shares), 4)
    if cache is not None and service.traffic.common_prompts is not None:
        options |= cache_options(service, cache.block_tokens)
    return options


def pool_options(service: Service) -> dict:
    """Options of the kernel's pool: those of a load test, and when requests are turned away and try again."""
    rules, options = service.scheduling, scheduling_options(service)
    if rules is not None:
        options |= {
            "queue_limit": rules.queue_limit,
            "timeout_s": rules.timeout_s if rules.timeout_s is not None else math.inf,
            "retries": rules.retries,
            "retry_after_s": rules.retry_after_s,
            "retry_backoff": rules.retry_backoff,
        }
    return options


def alone(router: str) -> str:
    """The router over like instances: cost_aware has nothing to choose between them but their load."""
    return "least_outstanding" if router == "cost_aware" else router


def cache_options(service: Service, block_tokens: int) -> dict:
    """Options of the kernel's pool for a prefix cache of blocks of `block_tokens` tokens."""
    return {
        "prefix_cache": True,
        "prefix_block_tokens": block_tokens,
        "block_tokens": math.gcd(16, block_tokens),
        "host_cache_tokens": service.prefix_cache.host_tokens,
        "host_cache_s_per_token": service.prefix_cache.host_s_per_token,
    }
