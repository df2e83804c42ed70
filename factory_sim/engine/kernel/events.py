"""Heaps, lists and the tournament that orders workers by their next step end. Jitted, arrays only."""

from factory_sim.engine.kernel.jit import cold, hot
from factory_sim.engine.kernel.state import FREE


@hot
def heap_push(keys, items, first, size, key, item):
    """Push onto the binary heap of `size` entries that starts at `first`; the caller counts the new size."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if keys[first + parent] <= key:
            break
        keys[first + i] = keys[first + parent]
        items[first + i] = items[first + parent]
        i = parent
    keys[first + i] = key
    items[first + i] = item


@hot
def heap_remove(keys, items, first, size, i):
    """Remove entry `i` of the heap of `size` entries; the caller counts the new size."""
    last = size - 1
    if i == last:
        return
    key = keys[first + last]
    item = items[first + last]
    while i > 0:
        parent = (i - 1) >> 1
        if keys[first + parent] <= key:
            break
        keys[first + i] = keys[first + parent]
        items[first + i] = items[first + parent]
        i = parent
    while True:
        child = 2 * i + 1
        if child >= last:
            break
        if child + 1 < last and keys[first + child + 1] < keys[first + child]:
            child += 1
        if keys[first + child] >= key:
            break
        keys[first + i] = keys[first + child]
        items[first + i] = items[first + child]
        i = child
    keys[first + i] = key
    items[first + i] = item


@hot
def set_end(tree_s, tree_worker, leaves, w, end_s):
    """Record that worker `w`'s step ends at `end_s` and replay its matches; ties go to the lower index."""
    i = leaves + w
    tree_s[i] = end_s
    while i > 1:
        i >>= 1
        child = 2 * i
        if tree_s[child + 1] < tree_s[child]:
            child += 1
        tree_s[i] = tree_s[child]
        tree_worker[i] = tree_worker[child]


@cold
def _before(a_s, a_kind, a_seq, b):
    if a_s != b["time_s"]:
        return a_s < b["time_s"]
    if a_kind != b["kind"]:
        return a_kind < b["kind"]
    return a_seq < b["seq"]


@cold
def _copy_timer(timers, to, of):
    timers[to]["time_s"] = timers[of]["time_s"]
    timers[to]["kind"] = timers[of]["kind"]
    timers[to]["seq"] = timers[of]["seq"]
    timers[to]["slot"] = timers[of]["slot"]
    timers[to]["stamp"] = timers[of]["stamp"]


@cold
def timer_push(pool, timers, time_s, kind, slot, stamp):
    """Add a timer; order is (time, kind, sequence)."""
    seq = pool["timer_seq"]
    pool["timer_seq"] = seq + 1
    i = pool["n_timers"]
    pool["n_timers"] = i + 1
    while i > 0:
        parent = (i - 1) >> 1
        if not _before(time_s, kind, seq, timers[parent]):
            break
        _copy_timer(timers, i, parent)
        i = parent
    timers[i]["time_s"] = time_s
    timers[i]["kind"] = kind
    timers[i]["seq"] = seq
    timers[i]["slot"] = slot
    timers[i]["stamp"] = stamp


@cold
def timer_pop(pool, timers):
    """Remove the first timer."""
    last = pool["n_timers"] - 1
    pool["n_timers"] = last
    if last == 0:
        return
    time_s = timers[last]["time_s"]
    kind = timers[last]["kind"]
    seq = timers[last]["seq"]
    slot = timers[last]["slot"]
    stamp = timers[last]["stamp"]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= last:
            break
        if child + 1 < last and _before(
            timers[child + 1]["time_s"], timers[child + 1]["kind"], timers[child + 1]["seq"], timers[child]
        ):
            child += 1
        if _before(time_s, kind, seq, timers[child]):
            break
        _copy_timer(timers, i, child)
        i = child
    timers[i]["time_s"] = time_s
    timers[i]["kind"] = kind
    timers[i]["seq"] = seq
    timers[i]["slot"] = slot
    timers[i]["stamp"] = stamp


@hot
def slot_take(pool, slots):
    """Take a slot from the free list (the caller made sure there is one)."""
    s = pool["free_head"]
    pool["free_head"] = slots[s]["next"]
    pool["n_free"] -= 1
    return s


@hot
def slot_give(pool, slots, s):
    """Return a slot to the free list."""
    slots[s]["state"] = FREE
    slots[s]["id"] = -1
    slots[s]["next"] = pool["free_head"]
    pool["free_head"] = s
    pool["n_free"] += 1


@hot
def queue_append(queues, slots, w, s):
    """Put a request last in the queue of its priority class at worker `w`."""
    q = queues[w, slots[s]["priority"]]
    tail = q["tail"]
    slots[s]["prev"] = tail
    slots[s]["next"] = -1
    if tail >= 0:
        slots[tail]["next"] = s
    else:
        q["head"] = s
    q["tail"] = s


@cold
def queue_prepend(queues, slots, w, s):
    """Put a request first in the queue of its priority class at worker `w`."""
    q = queues[w, slots[s]["priority"]]
    head = q["head"]
    slots[s]["next"] = head
    slots[s]["prev"] = -1
    if head >= 0:
        slots[head]["prev"] = s
    else:
        q["tail"] = s
    q["head"] = s


@hot
def queue_remove(queues, slots, w, s):
    """Take a request out of its queue, wherever it stands."""
    q = queues[w, slots[s]["priority"]]
    before = slots[s]["prev"]
    after = slots[s]["next"]
    if before >= 0:
        slots[before]["next"] = after
    else:
        q["head"] = after
    if after >= 0:
        slots[after]["prev"] = before
    else:
        q["tail"] = before


@hot
def queue_first(queues, w, classes):
    """First waiting request of the most urgent class, or -1."""
    for c in range(classes):
        s = queues[w, c]["head"]
        if s >= 0:
            return s
    return -1


@hot
def running_append(worker, slots, s):
    """Put a request last (newest) in the list of running ones."""
    newest = worker["newest"]
    slots[s]["prev"] = newest
    slots[s]["next"] = -1
    if newest >= 0:
        slots[newest]["next"] = s
    worker["newest"] = s
    worker["running"] += 1
    worker["ids"] += slots[s]["ids_n"]


@hot
def running_remove(worker, slots, s):
    """Take a request out of the list of running ones."""
    before = slots[s]["prev"]
    after = slots[s]["next"]
    if before >= 0:
        slots[before]["next"] = after
    if after >= 0:
        slots[after]["prev"] = before
    else:
        worker["newest"] = before
    worker["running"] -= 1
    worker["ids"] -= slots[s]["ids_n"]


@hot
def set_idle(tree_s, tree_worker, leaves, w):
    """Take worker `w`, whose leaf is already infinite, out of the running."""
    i = leaves + w
    while i > 1:
        i >>= 1
        child = 2 * i
        if tree_s[child + 1] < tree_s[child]:
            child += 1
        tree_s[i] = tree_s[child]
        tree_worker[i] = tree_worker[child]
