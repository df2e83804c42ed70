"""The arrays that hold a pool's state: one record each for the pool, an instance, a worker, a request in flight.

Everything a kernel function reads or writes is in these arrays, so a pool can be saved, copied and resumed. KV lengths
are integers in units of ``1 / UNIT`` tokens: sums over a batch are then exact in any order, and a sequence that gains
1.7 tokens a step needs no floating-point bookkeeping.
"""

import numpy as np

UNIT = 1 << 24
ORDER_BITS = 24
ORDER_MASK = (1 << ORDER_BITS) - 1

# What a worker does now.
IDLE, DECODING, MIXED = 0, 1, 2
# Roles of a worker.
ROLE_BOTH, ROLE_PREFILL, ROLE_DECODE = 0, 1, 2
# Where a request is: away (its client waits to try again), in a delay before the queue, in the queue, having its cached
# prefix loaded from the host, in prefill, in the decoding batch, between two memories, in the backlog of batch jobs.
FREE, AWAY, DELAYED, WAITING, LOADING, PREFILLING, RUNNING, IN_TRANSFER, BACKLOG = 0, 1, 2, 3, 4, 5, 6, 7, 8
# How a request left.
COMPLETED, REJECTED, TIMED_OUT, LOST, CANCELLED = 0, 1, 2, 3, 4
# Why the kernel came back before the time it was asked to play to.
DONE, NEED_OFFERS, OUT_FULL, SLOTS_FULL, TIMERS_FULL, NODES_FULL = 0, 1, 2, 3, 4, 5
# Kinds of timers; at equal times a smaller kind goes first. All timers come after step ends, before arrivals.
TIMER_TRANSFERRED, TIMER_READY, TIMER_LOADED, TIMER_TIMEOUT, TIMER_CANCEL, TIMER_RETRY = 1, 2, 3, 4, 5, 6
TIMER_SESSION = 7
# A timer's stamp is the request's id times this, plus the attempt it belongs to.
ATTEMPTS = 1 << 16
# Events of a decoding sequence on its worker's heap: slot times 4 plus one of these.
EVENT_END, EVENT_CAP, EVENT_ANSWER = 0, 1, 2
# What an operator does to an instance.
STOP_LOSING, STOP_GRACEFULLY, SET_SPEED, ACCEPT = 0, 1, 2, 3

_F, _I = np.float64, np.int64


def _record(floats: str, ints: str) -> np.dtype:
    return np.dtype([(name, _F) for name in floats.split()] + [(name, _I) for name in ints.split()], align=True)


POOL = _record(
    "now area_s system_seconds timeout_s signal_age_s next_refresh_s swap_s_per_token retry_after_s retry_backoff "
    "host_s_per_token wasted_tokens",
    "next_offer n_offers more_offers closed credits next_release release_end router next_instance queue_limit "
    "block_tokens prefix_tokens n_instances n_accepting n_workers leaves classes free_head n_free n_out n_timers "
    "timer_seq n_starting order in_system paced out_margin timer_margin prefill_first retries batch_limit host_blocks "
    "backlog_head backlog_tail n_backlog free_node n_free_nodes bucket_mask live_parked arrived admitted completed rejected "
    "timed_out lost cancelled too_long retried",
)

INSTANCE = _record(
    "overhead_s transfer_s_per_token transfer_latency_s link_s_per_token cost pace",
    "first_worker n_entry n_decode accepting outstanding waiting kv_tokens seen_outstanding seen_kv_tokens "
    "max_context_tokens capacity_blocks promise",
)

COUNTERS = (
    "busy_s steps base_s_decode_only base_s_mixed kv_s prefill_s pair_s prefill_tokens recomputed_tokens "
    "cached_tokens decode_tokens sequence_seconds kv_token_seconds"
)

WORKER = _record(
    "cost_kv_s cost_prefill_s cost_pair_s span_kv_s slow next_slow anchor_s end_s first_step_s growth_step_s pairs link_free_s "
    "host_free_s " + " ".join("total_" + name for name in COUNTERS.split()),
    "instance role max_sequences max_batched_tokens capacity_blocks base_offset heap_offset tokens_per_sequence "
    "attention_cap starting mode decodes decoding running waiting outstanding prompt_tokens seen_prompt_tokens newest prefill_head prefill_tail "
    "prefill_blocks prefill_held_tokens heap_size count span attended attended_growth held held_growth shared "
    "chunk_tokens chunk_recomputed cancelled ids charged charged_growth ranks rank_offset balance_offset pinned_blocks cached_blocks host_blocks lru_head lru_tail host_head "
    "host_tail",
)

QUEUE = _record("", "head tail")

SLOT = _record(
    "arrival_s first_token_s first_answer_s ready_s draw_1 draw_2",
    "id isl osl steps growth cached hit priority service reasoning session batch attempt child ids_at ids_n instance "
    "worker state next prev prefill_next prompt prefilled computed chunk blocks done held join order capped "
    "transferred cancelled preemptions node n_nodes shared rank steps_brought",
)

OFFER = _record(
    "arrival_s patience_s draw_1 draw_2",
    "id isl osl steps growth cached priority service reasoning session batch child sibling ids_at ids_n live",
)
"""An arrival to come. Rows of the table of parked requests, which follow another one, hold their think time as
`arrival_s`."""

TIMER = _record("time_s", "kind seq slot stamp")

FINISHED = _record(
    "arrival_s first_token_s first_answer_s finish_s",
    "id isl osl cached_tokens instance service status preemptions attempts output_tokens",
)

NODE = _record("", "id worker parent tokens blocks refs on_host before after next_in_bucket")
"""A cached prefix block of one worker, on the GPU or (`on_host`) in its second tier."""
