"""Data-parallel attention: each rank of a worker holds its own sequences, and a step waits for the fullest. Jitted.

The sums of a worker's ranks (sequences, tokens attended to, their growth a step) lie in `keys` behind its heap. A
sequence joins the rank with the fewest decoding ones and stays there.
"""

from factory_sim.engine.kernel.jit import cold

SUMS = 3
"""Places of `keys` that a rank takes."""
_FOREVER = 1 << 40


@cold
def rank_gains(worker, keys, rank, sequences, attended, growth):
    """Add to the sums of a rank."""
    at = worker["rank_offset"] + SUMS * rank
    keys[at] += sequences
    keys[at + 1] += attended
    keys[at + 2] += growth


@cold
def join_rank(worker, keys, r, attended, growth):
    """Put a request that begins to decode on the rank with the fewest sequences, the first of equals."""
    first = worker["rank_offset"]
    best = 0
    for rank in range(1, worker["ranks"]):
        if keys[first + SUMS * rank] < keys[first + SUMS * best]:
            best = rank
    r["rank"] = best
    rank_gains(worker, keys, best, 1, attended, growth)


@cold
def ranks_grow(worker, keys, steps):
    """All sequences have decoded `steps` steps more."""
    for rank in range(worker["ranks"]):
        at = worker["rank_offset"] + SUMS * rank
        keys[at + 1] += keys[at + 2] * steps


@cold
def clear_ranks(worker, keys):
    """Nobody decodes any more."""
    for at in range(worker["rank_offset"], worker["rank_offset"] + SUMS * worker["ranks"]):
        keys[at] = 0


@cold
def charge_fullest(worker, keys, base):
    """Let the coming span be charged by its fullest rank; return after how many steps another one may be fuller.

    `base` holds, by number of decoding sequences, what a token of the fullest rank costs over one of the mean.
    """
    first = worker["rank_offset"]
    best = first
    for rank in range(1, worker["ranks"]):
        at = first + SUMS * rank
        if keys[at + 1] > keys[best + 1] or (keys[at + 1] == keys[best + 1] and keys[at + 2] > keys[best + 2]):
            best = at
    worker["charged"] = keys[best + 1]
    worker["charged_growth"] = keys[best + 2]
    worker["span_kv_s"] = worker["cost_kv_s"] * base[worker["balance_offset"] + worker["decoding"]]
    steps = _FOREVER
    for rank in range(worker["ranks"]):
        at = first + SUMS * rank
        faster = keys[at + 2] - keys[best + 2]
        if faster > 0:
            steps = min(steps, (keys[best + 1] - keys[at + 1]) // faster + 1)
    return steps
