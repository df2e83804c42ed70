"""A span: a run of decode steps over an unchanging batch, or one step that also prefills. Jitted, arrays only.

Its times are evaluated from its anchor by absolute step number, so a span cut short (an arrival, a control time) gives
the bits it would have given anyhow.
"""

import math

from factory_sim.engine.kernel.events import set_end
from factory_sim.engine.kernel.jit import cold, hot
from factory_sim.engine.kernel.state import DECODING, IDLE, MIXED, UNIT


@hot
def time_after(worker, steps):
    """Time at which the span has played `steps` decode steps."""
    return worker["anchor_s"] + (
        steps * worker["first_step_s"] + worker["growth_step_s"] * (0.5 * (float(steps) * float(steps - 1)))
    )


@hot
def steps_to(worker, time_s):
    """Smallest number of steps after which the span has reached `time_s`."""
    elapsed = time_s - worker["anchor_s"]
    if elapsed <= 0.0:
        return 0
    growth = worker["growth_step_s"]
    slope = worker["first_step_s"] - 0.5 * growth
    if growth == 0.0:
        guess = elapsed / slope
    else:
        guess = 2.0 * elapsed / (slope + math.sqrt(slope * slope + 2.0 * growth * elapsed))
    steps = min(math.ceil(guess), worker["span"])
    while steps < worker["span"] and time_after(worker, steps) < time_s:
        steps += 1
    while steps > 0 and time_after(worker, steps - 1) >= time_s:
        steps -= 1
    return steps


@hot
def account(worker, base, steps, part):
    """Add `steps` whole steps of the span and the fraction `part` of the next one to the worker's counters."""
    n = worker["decoding"]
    slow = worker["slow"]
    if worker["mode"] == MIXED:
        portion = steps + part
        duration = (worker["end_s"] - worker["anchor_s"]) * portion
        tokens = worker["decodes"] * n * worker["tokens_per_sequence"] + worker["chunk_tokens"]
        worker["total_base_s_mixed"] += slow * base[worker["base_offset"] + tokens] * portion
        if worker["decodes"] != 0:
            worker["total_kv_s"] += slow * worker["span_kv_s"] * (worker["charged"] / UNIT) * portion
            worker["total_decode_tokens"] += (worker["held_growth"] / UNIT) * portion
        worker["total_prefill_s"] += slow * worker["cost_prefill_s"] * worker["chunk_tokens"] * portion
        worker["total_pair_s"] += slow * worker["cost_pair_s"] * worker["pairs"] * portion
        worker["total_prefill_tokens"] += worker["chunk_tokens"] * portion
        worker["total_recomputed_tokens"] += worker["chunk_recomputed"] * portion
        worker["total_kv_token_seconds"] += (worker["held"] / UNIT + worker["prefill_held_tokens"]) * duration
    else:
        m = float(steps)
        ramp = 0.5 * (m * (m - 1.0))
        whole = m * worker["first_step_s"] + worker["growth_step_s"] * ramp
        last = part * (worker["first_step_s"] + worker["growth_step_s"] * m)
        duration = whole + last
        attended = worker["charged"] / UNIT
        growth = worker["charged_growth"] / UNIT
        held = worker["held"] / UNIT + worker["prefill_held_tokens"]
        more = worker["held_growth"] / UNIT
        worker["total_base_s_decode_only"] += (
            slow * base[worker["base_offset"] + n * worker["tokens_per_sequence"]] * (m + part)
        )
        worker["total_kv_s"] += (
            slow * worker["span_kv_s"] * (m * attended + growth * ramp + part * (attended + growth * m))
        )
        worker["total_decode_tokens"] += more * (m + part)
        worker["total_kv_token_seconds"] += (
            held * whole
            + more * (worker["first_step_s"] * ramp + worker["growth_step_s"] * (m * (m - 1.0) * (2.0 * m - 1.0) / 6.0))
            + (held + more * m) * last
        )
    worker["total_steps"] += steps
    worker["total_busy_s"] += duration
    worker["total_sequence_seconds"] += n * duration


@hot
def cut_span(pool, worker, w, tree_s, tree_worker, time_s):
    """End worker `w`'s decode span at its first step end at or after `time_s`, so that the batch can change there."""
    if worker["mode"] != DECODING or worker["span"] <= 1:
        return
    steps = steps_to(worker, time_s)
    if steps < worker["span"]:
        worker["span"] = steps
        worker["end_s"] = time_after(worker, steps)
        set_end(tree_s, tree_worker, pool["leaves"], w, worker["end_s"])


@cold
def settle_worker(worker, base, time_s):
    """Bring a worker's counters to `time_s`, cutting the span that is under way; return its whole steps."""
    if worker["mode"] == IDLE or time_s <= worker["anchor_s"]:
        return 0
    if worker["mode"] == DECODING:
        steps = steps_to(worker, time_s)
        part = 0.0
        if steps > 0 and time_after(worker, steps) > time_s:
            steps -= 1
            begun = time_after(worker, steps)
            part = (time_s - begun) / (time_after(worker, steps + 1) - begun)
        account(worker, base, steps, part)
        return steps
    account(worker, base, 0, (time_s - worker["anchor_s"]) / (worker["end_s"] - worker["anchor_s"]))
    return 0
