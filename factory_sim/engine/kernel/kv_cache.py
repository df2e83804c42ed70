"""KV memory of a worker in blocks: what its batch needs, whether a prompt fits, when the batch outgrows it.

A decoding sequence needs, during a step, the blocks of everything it holds after that step and shares with no other.
Summing the ceilings over the batch costs O(batch); most of the time two bounds decide (a sequence wastes less than one
block), and the sum is formed only when memory is within one block a sequence of full. Shared prefix blocks in use are
`pinned_blocks`; those that nobody uses, `cached_blocks`, give way (`prefix.py`).
"""

from factory_sim.engine.kernel.jit import cold, hot
from factory_sim.engine.kernel.state import EVENT_END, UNIT


@hot
def blocks_of(tokens, block_tokens):
    """Blocks that hold `tokens` tokens."""
    return -((-tokens) // block_tokens)


@cold
def decoding_blocks(worker, slots, items, block_tokens, ahead):
    """Private blocks that the decoding sequences need during the step `ahead` steps from now (0: the next one)."""
    unit_block = block_tokens * UNIT
    first = worker["heap_offset"]
    at = worker["count"] + ahead + 1
    total = 0
    for i in range(worker["heap_size"]):
        item = items[first + i]
        if item & 3 == EVENT_END:
            r = slots[item >> 2]
            total += -((-(r["held"] - r["shared"] * UNIT + r["growth"] * (at - r["join"]))) // unit_block)
    return total


@hot
def fits(worker, slots, items, block_tokens, ahead, extra):
    """Whether the batch, `ahead` steps from now, and `extra` blocks fit together."""
    free = worker["capacity_blocks"] - worker["prefill_blocks"] - worker["pinned_blocks"] - extra
    if worker["decoding"] == 0:
        return free >= 0
    unit_block = block_tokens * UNIT
    private = worker["held"] - worker["shared"] + worker["held_growth"] * (ahead + 1)
    if private + worker["decoding"] * unit_block <= free * unit_block:
        return True
    if private > free * unit_block:
        return False
    return decoding_blocks(worker, slots, items, block_tokens, ahead) <= free


@hot
def steps_that_fit(worker, slots, items, block_tokens, steps):
    """How many of the next `steps` decode steps (the first is known to fit) can be played before blocks run out.

    May return fewer than the true number, never more: far from full it is a bound, near full it is exact.
    """
    unit_block = block_tokens * UNIT
    growth = worker["held_growth"]
    free = worker["capacity_blocks"] - worker["prefill_blocks"] - worker["pinned_blocks"] - worker["decoding"]
    room = free * unit_block - (worker["held"] - worker["shared"])
    if growth * steps <= room:
        return steps
    if room > 0 and room // growth >= 1:
        return room // growth
    low, high = 1, steps
    while low < high:
        middle = (low + high + 1) // 2
        if fits(worker, slots, items, block_tokens, middle - 1, 0):
            low = middle
        else:
            high = middle - 1
    return low
