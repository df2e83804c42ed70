"""Prefix caching: prompt blocks that later requests may reuse, in the same KV memory, least recently used out first.

Blocks form chains (a block's id stands for everything up to and including it), so a sequence remembers only the last
block it uses and the rest follow by `parent`. A block in use by some sequence is pinned; the others stand in a list by
age, children before their parents, and make room when the batch grows. What is pushed out of the GPU goes to the
second tier, host memory or SSD, if there is one.
"""

from factory_sim.engine.kernel.jit import cold
from factory_sim.engine.kernel.kv_cache import decoding_blocks
from factory_sim.engine.kernel.state import UNIT


@cold
def _bucket(pool, w, block_id):
    h = ((block_id ^ (block_id >> 31)) & 0x7FFFFFFF) * 2654435761 + w * 40503
    h = ((h ^ (h >> 31)) & 0x7FFFFFFF) * 2246822519  # neither product leaves 63 bits
    return (h ^ (h >> 17)) & pool["bucket_mask"]


@cold
def _find(pool, nodes, buckets, w, block_id):
    n = buckets[_bucket(pool, w, block_id)]
    while n >= 0:
        if nodes[n]["id"] == block_id and nodes[n]["worker"] == w:
            return n
        n = nodes[n]["next_in_bucket"]
    return -1


@cold
def _add(pool, nodes, buckets, w, block_id, parent, tokens):
    n = pool["free_node"]
    node = nodes[n]
    pool["free_node"] = node["after"]
    pool["n_free_nodes"] -= 1
    b = _bucket(pool, w, block_id)
    node["id"] = block_id
    node["worker"] = w
    node["parent"] = parent
    node["tokens"] = tokens
    node["blocks"] = -((-tokens) // pool["block_tokens"])
    node["refs"] = 0
    node["on_host"] = 0
    node["next_in_bucket"] = buckets[b]
    buckets[b] = n
    return n


@cold
def _forget(pool, nodes, buckets, n):
    node = nodes[n]
    b = _bucket(pool, node["worker"], node["id"])
    if buckets[b] == n:
        buckets[b] = node["next_in_bucket"]
    else:
        at = buckets[b]
        while nodes[at]["next_in_bucket"] != n:
            at = nodes[at]["next_in_bucket"]
        nodes[at]["next_in_bucket"] = node["next_in_bucket"]
    node["id"] = -1
    node["parent"] = -1
    node["after"] = pool["free_node"]
    pool["free_node"] = n
    pool["n_free_nodes"] += 1


@cold
def _age(worker, nodes, n):
    """Put an unused block last (youngest) in the list of its tier."""
    node = nodes[n]
    node["after"] = -1
    if node["on_host"] != 0:
        tail = worker["host_tail"]
        worker["host_tail"] = n
        if tail < 0:
            worker["host_head"] = n
        worker["host_blocks"] += node["blocks"]
    else:
        tail = worker["lru_tail"]
        worker["lru_tail"] = n
        if tail < 0:
            worker["lru_head"] = n
        worker["cached_blocks"] += node["blocks"]
    node["before"] = tail
    if tail >= 0:
        nodes[tail]["after"] = n


@cold
def _unage(worker, nodes, n):
    """Take an unused block out of the list of its tier."""
    node = nodes[n]
    before = node["before"]
    after = node["after"]
    if before >= 0:
        nodes[before]["after"] = after
    if after >= 0:
        nodes[after]["before"] = before
    if node["on_host"] != 0:
        if before < 0:
            worker["host_head"] = after
        if after < 0:
            worker["host_tail"] = before
        worker["host_blocks"] -= node["blocks"]
    else:
        if before < 0:
            worker["lru_head"] = after
        if after < 0:
            worker["lru_tail"] = before
        worker["cached_blocks"] -= node["blocks"]


@cold
def match(pool, w, ids, ids_at, ids_n, limit, nodes, buckets):
    """Longest chain of leading blocks, at most `limit` tokens, that worker `w` has, GPU first, then host.

    Returns (last block or -1, blocks matched, tokens, tokens on the host, KV blocks that using them would pin anew).
    """
    last = -1
    matched = 0
    tokens = 0
    host_tokens = 0
    to_pin = 0
    for k in range(ids_n):
        n = _find(pool, nodes, buckets, w, ids[ids_at + k])
        if n < 0:
            break
        node = nodes[n]
        if node["parent"] != last or (host_tokens > 0 and node["on_host"] == 0) or tokens + node["tokens"] > limit:
            break
        tokens += node["tokens"]
        matched += 1
        if node["on_host"] != 0:
            host_tokens += node["tokens"]
        if node["refs"] == 0:
            to_pin += node["blocks"]
        last = n
    return last, matched, tokens, host_tokens, to_pin


@cold
def _pin(worker, nodes, n):
    node = nodes[n]
    if node["refs"] == 0:
        _unage(worker, nodes, n)
        node["on_host"] = 0
        worker["pinned_blocks"] += node["blocks"]
    node["refs"] += 1


@cold
def pin_chain(worker, r, nodes, last, matched, tokens):
    """Let a sequence use the chain that ends in block `last`."""
    r["node"] = last
    r["n_nodes"] = matched
    r["shared"] = tokens
    n = last
    while n >= 0:
        _pin(worker, nodes, n)
        n = nodes[n]["parent"]


@cold
def unpin_chain(worker, r, nodes):
    """A sequence is done with its shared blocks; the deepest grows old first."""
    n = r["node"]
    while n >= 0:
        node = nodes[n]
        node["refs"] -= 1
        if node["refs"] == 0:
            worker["pinned_blocks"] -= node["blocks"]
            _age(worker, nodes, n)
        n = node["parent"]
    r["node"] = -1
    r["n_nodes"] = 0
    r["shared"] = 0


@cold
def share(pool, worker, w, r, ids, nodes, buckets, upto):
    """The first `upto` tokens of a sequence are computed: from now on their blocks can be shared.

    A last block that is not full is shared only where the request's ids end with its prompt. A twin computed meanwhile
    is used in place of the own copy.
    """
    size = pool["prefix_tokens"]
    for k in range(r["n_nodes"], r["ids_n"]):
        tokens = min(size, upto - r["shared"])
        if tokens <= 0 or (tokens < size and (upto != r["isl"] or k != r["ids_n"] - 1)):
            break
        block_id = ids[r["ids_at"] + k]
        n = _find(pool, nodes, buckets, w, block_id)
        if n < 0:
            n = _add(pool, nodes, buckets, w, block_id, r["node"], tokens)
            nodes[n]["refs"] = 1
            worker["pinned_blocks"] += nodes[n]["blocks"]
        elif nodes[n]["parent"] != r["node"] or nodes[n]["tokens"] != tokens:
            break
        else:
            _pin(worker, nodes, n)
        r["node"] = n
        r["n_nodes"] = k + 1
        r["shared"] += tokens


@cold
def evict(pool, worker, slots, items, nodes, buckets, ahead):
    """Push out old blocks until the cache fits beside what the batch needs `ahead` steps from now."""
    if worker["cached_blocks"] == 0:
        return
    room = worker["capacity_blocks"] - worker["prefill_blocks"] - worker["pinned_blocks"] - worker["cached_blocks"]
    if worker["decoding"] > 0:
        unit_block = pool["block_tokens"] * UNIT
        private = worker["held"] - worker["shared"] + worker["held_growth"] * (ahead + 1)
        if private + worker["decoding"] * unit_block <= room * unit_block:
            return
        room -= decoding_blocks(worker, slots, items, pool["block_tokens"], ahead)
    while room < 0 and worker["lru_head"] >= 0:
        n = worker["lru_head"]
        _unage(worker, nodes, n)
        room += nodes[n]["blocks"]
        if pool["host_blocks"] > 0:
            nodes[n]["on_host"] = 1
            _age(worker, nodes, n)
            while worker["host_blocks"] > pool["host_blocks"]:
                oldest = worker["host_head"]
                _unage(worker, nodes, oldest)
                _forget(pool, nodes, buckets, oldest)
        else:
            _forget(pool, nodes, buckets, n)


@cold
def forget_all(pool, worker, w, nodes, buckets):
    """A worker loses its memory, both tiers."""
    for n in range(len(nodes)):
        if nodes[n]["id"] != -1 and nodes[n]["worker"] == w:
            _forget(pool, nodes, buckets, n)
    worker["lru_head"] = worker["lru_tail"] = worker["host_head"] = worker["host_tail"] = -1
    worker["pinned_blocks"] = 0
    worker["cached_blocks"] = 0
    worker["host_blocks"] = 0


@cold
def fill_buckets(pool, nodes, buckets):
    """Fill an enlarged bucket table anew."""
    for b in range(len(buckets)):
        buckets[b] = -1
    for n in range(len(nodes)):
        if nodes[n]["id"] != -1:
            b = _bucket(pool, nodes[n]["worker"], nodes[n]["id"])
            nodes[n]["next_in_bucket"] = buckets[b]
            buckets[b] = n
