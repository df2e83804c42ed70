"""The scheduler's specification as a plain program: every serving step of every worker is played, one by one.

Nothing here is fast and nothing is shared with the kernel except the records of `model.serving`. Read `begin_step` and
`end_step` to know what one worker does, `route` for the routers, and the handlers below for what happens to a request.

Order of events: (time, kind, sequence); kinds are step ends (by worker), timers (by kind, then age), arrivals (in order
of offering), step starts. A request that arrives at the instant a step starts is in time for it.
"""

import heapq
import itertools
import math
from dataclasses import dataclass, field

END, TIMER, ARRIVAL, START = 0, 1, 2, 3
TRANSFERRED, READY, LOADED, TIMEOUT, CANCEL, RETRY, SESSION = 1, 2, 3, 4, 5, 6, 7
COMPLETED, REJECTED, TIMED_OUT, LOST, CANCELLED = 0, 1, 2, 3, 4
BATCH_CLASS = 1000  # after all others
UNIT = 1 << 24  # a sequence's gain per step is rounded to this fraction of a token, as the kernel documents
GOLDEN = 0.6180339887498949


@dataclass
class Options:
    router: str = "least_outstanding"
    block_tokens: int = 16
    queue_limit: int = 0
    timeout_s: float = math.inf
    prefill_first: bool = False
    swap_s_per_token: float = 0.0
    retries: int = 0
    retry_after_s: float = 1.0
    retry_backoff: float = 2.0
    prefix_cache: bool = False
    prefix_block_tokens: int = 512
    host_cache_tokens: int = 0
    host_cache_s_per_token: float = 0.0
    signal_age_s: float = 0.0
    batch_limit: int = 0
    costs: list | None = None
    promise_outstanding: list | None = None
    paces: list | None = None


@dataclass(eq=False)
class Request:
    id: int
    arrival_s: float
    isl: int
    osl: int
    steps: int = 0
    cached: int = 0
    priority: int = 0
    patience_s: float = math.inf
    reasoning: int = 0
    session: int = -1
    after: int = -1
    think_s: float = 0.0
    batch: bool = False
    blocks: tuple = ()
    draws: tuple = (0.0, 0.0)
    # what happens to it
    first_arrival_s: float = math.nan
    first_token_s: float = math.nan
    first_answer_s: float = math.nan
    finish_s: float = math.nan
    status: int = -1
    instance: int = -1
    worker: "WorkerState | None" = None
    state: str = "new"
    attempt: int = 0
    prompt: int = 0
    prefilled: int = 0
    computed: int = 0
    chunk: int = 0
    done: int = 0
    admitted: bool = False
    transferred: bool = False
    cancelled: bool = False
    preemptions: int = 0
    hit: int = 0
    ready_s: float = math.nan
    reserved: int = 0
    nodes: list = field(default_factory=list)
    produced: int = 0
    rank: int = 0
    brought: int = 0

    @property
    def growth(self) -> int:
        return round((self.osl - 1) / max(self.steps, 1) * UNIT)

    def held(self, steps_more=0) -> int:
        return self.isl * UNIT + self.growth * (self.done + steps_more)

    def shared(self) -> int:
        return sum(node.tokens for node in self.nodes)


@dataclass(eq=False)
class Node:
    """One cached prefix block."""

    id: int
    parent: "Node | None"
    tokens: int
    refs: int = 0
    on_host: bool = False


class WorkerState:
    def __init__(self, index, instance, kind, options):
        self.index, self.instance, self.kind, self.options = index, instance, kind, options
        self.block = options.block_tokens
        self.capacity = kind.kv_capacity_tokens // self.block
        self.max_sequences = min(kind.max_sequences, kind.max_batched_tokens // kind.step.tokens_per_sequence)
        self.waiting = []  # in order of service: class, then place in line
        self.running = []  # in order of admission
        self.prefilling = []  # those of them whose prompt is not complete, in order of service
        self.outstanding = 0
        self.busy_until = None
        self.starting = False
        self.epoch = 0
        self.slow = self.next_slow = 1.0
        self.link_free_s = 0.0
        self.host_free_s = 0.0
        self.nodes = {}  # block id -> Node
        self.step_needs = 0
        self.decodes = True
        self.lru = []  # unreferenced nodes on the GPU, oldest first
        self.host_lru = []
        self.busy_s = 0.0
        self.steps = 0
        self.decode_tokens = 0.0
        self.prefill_tokens = 0
        self.recomputed_tokens = 0

    def ceil_blocks(self, tokens_in_units):
        return -(-tokens_in_units // (self.block * UNIT))

    def decoding(self):
        return [r for r in self.running if r.state == "running"]

    def needed_blocks(self):
        """Blocks that cannot be evicted during the step about to start."""
        total = sum(self.ceil_blocks(r.held(1) - r.shared() * UNIT) for r in self.decoding())
        total += sum(r.reserved for r in self.running if r.state in ("prefilling", "loading"))
        return total + sum(self.node_blocks(n) for n in self.nodes.values() if n.refs > 0)

    def node_blocks(self, node):
        return -(-node.tokens // self.block)

    def attended(self):
        cap, ranks = self.kind.step.attention_cap_tokens, self.kind.step.attention_ranks
        sums = [0.0] * ranks
        for r in self.decoding():
            tokens = r.held() / UNIT
            sums[r.rank] += min(tokens, cap) if cap else tokens
        if ranks == 1:
            return sums[0]
        return ranks * max(sums) / self.kind.step.rank_balance[len(self.decoding())]

    def begin_decoding(self, r):
        """It joins the attention rank with the fewest sequences."""
        on = [0] * self.kind.step.attention_ranks
        for other in self.decoding():
            on[other.rank] += 1
        r.rank = on.index(min(on))
        r.state = "running"


class Reference:
    def __init__(self, systems, options):
        self.o = options
        self.systems = [s for s, count in systems for _ in range(count)]
        self.system_of = [k for k, (_, count) in enumerate(systems) for _ in range(count)]
        self.workers, self.entry, self.decoders = [], [], []
        for i, system in enumerate(self.systems):
            entry, decoders = [], []
            for kind in system.workers:
                for _ in range(kind.count):
                    w = WorkerState(len(self.workers), i, kind, options)
                    self.workers.append(w)
                    (decoders if kind.role == "decode" else entry).append(w)
            self.entry.append(entry)
            self.decoders.append(decoders)
        n = len(self.systems)
        self.accepting = [True] * n
        self.outstanding = [0] * n
        self.kv_tokens = [0] * n
        self.seen = ([0] * n, [0] * n)
        self.next_refresh_s = 0.0
        self.pointer = 0
        self.events, self.sequence = [], itertools.count()
        self.now = 0.0
        self.requests = {}
        self.children = {}
        self.backlog = []
        self.retried = 0

    # -- the calendar

    def push(self, time_s, kind, rank, payload):
        heapq.heappush(self.events, (time_s, kind, rank, next(self.sequence), payload))

    def timer(self, time_s, kind, request):
        self.push(time_s, TIMER, kind, (request, request.attempt))

    def run(self, requests, controls=()):
        """Play all requests and controls [(time, function of self)] to the end."""
        for r in requests:
            self.requests[r.id] = r
            if r.after >= 0:
                self.children.setdefault(r.after, []).append(r)
            else:
                self.push(r.arrival_s, ARRIVAL, r.id, r)
        controls = sorted(controls, key=lambda c: c[0])
        while self.events or controls:
            if controls and (not self.events or controls[0][0] <= self.events[0][0]):
                time_s, act = controls.pop(0)
                self.now = time_s
                self.refresh()
                act(self)
                continue
            self.now, kind, rank, _, payload = heapq.heappop(self.events)
            self.refresh()
            if kind == END:
                worker, epoch = payload
                if worker.epoch == epoch:
                    self.end_step(worker)
                    self.pull(worker.instance)
            elif kind == TIMER:
                self.ring(rank, *payload)
            elif kind == ARRIVAL:
                self.arrive(payload)
            elif payload.starting:
                payload.starting = False
                self.begin_step(payload)
        return self

    def refresh(self):
        """The router's picture of the loads is taken at multiples of `signal_age_s`, before what happens then."""
        age = self.o.signal_age_s
        if age > 0 and self.now >= self.next_refresh_s:
            self.seen = (list(self.outstanding), list(self.kv_tokens))
            self.seen_in_care = self.in_care()
            self.next_refresh_s = (math.floor(self.now / age) + 1.0) * age

    def in_care(self):
        """Prompt tokens of the requests that each entry worker has, by worker."""
        having = ("delayed", "waiting", "prefilling", "running", "loading", "in_transfer")
        there = [r for r in self.requests.values() if r.worker is not None and r.state in having]
        return {w: sum(r.isl for r in there if r.worker is w) for workers in self.entry for w in workers}

    def wake(self, worker):
        if worker.busy_until is None and not worker.starting:
            worker.starting = True
            self.push(self.now, START, worker.index, worker)

    # -- arrivals and routing

    def arrive(self, r):
        r.first_arrival_s = self.now
        r.state = "routing"
        if r.patience_s < math.inf:
            self.timer(self.now + r.patience_s, CANCEL, r)
        if r.batch and self.o.batch_limit > 0:
            r.priority = BATCH_CLASS
            room = [i for i in self.able() if self.outstanding[i] < self.o.batch_limit]
            i = min(room, key=lambda i: (self.outstanding[i], i)) if room else None
            if i is None:
                r.state = "backlog"
                self.backlog.append(r)
            elif self.too_long(r, i):
                self.leave(r, REJECTED)
            else:
                self.send(r, i, None)
            return
        self.route(r)

    def able(self):
        return [i for i in range(len(self.systems)) if self.accepting[i]]

    def route(self, r):
        r.instance = -1
        r.prompt = r.isl
        i, worker = self.choose(r)
        if i is None:
            self.turn_away(r)
            return
        if self.too_long(r, i):
            self.leave(r, REJECTED)
            return
        waiting = sum(len(w.waiting) for w in self.entry[i] + self.decoders[i])
        if self.o.queue_limit > 0 and waiting >= self.o.queue_limit:
            self.turn_away(r)
            return
        self.send(r, i, worker)

    def too_long(self, r, i):
        """Beyond the model's window, or more than a worker's KV memory (a shared last block may waste one more)."""
        system = self.systems[i]
        blocks = min(k.kv_capacity_tokens for k in system.workers) // self.o.block_tokens
        capacity = (blocks - self.o.prefix_cache) * self.o.block_tokens
        return r.isl + r.osl > min(system.max_context_tokens, capacity)

    def send(self, r, i, worker):
        r.instance = i
        if self.o.paces and r.osl > 1:
            r.brought = r.brought or r.steps
            r.steps = max(1, math.floor(r.brought * self.o.paces[self.system_of[i]] + 0.5))
        self.outstanding[i] += 1
        self.kv_tokens[i] += r.isl
        worker = worker or min(self.entry[i], key=lambda w: (w.outstanding, w.index))
        worker.outstanding += 1
        r.worker, r.prompt, r.prefilled, r.computed, r.done = worker, r.isl, 0, 0, 0
        r.admitted = r.transferred = False
        if self.o.timeout_s < math.inf and not r.batch:
            self.timer(self.now + self.o.timeout_s, TIMEOUT, r)
        overhead = self.systems[i].request_overhead_s
        if overhead > 0:
            r.state = "delayed"
            self.timer(self.now + overhead, READY, r)
        else:
            self.enqueue(r)
            self.wake(worker)

    def enqueue(self, r, front=False):
        r.state = "waiting"
        line = r.worker.waiting
        at = 0
        while at < len(line) and (line[at].priority < r.priority or (line[at].priority == r.priority and not front)):
            at += 1
        line.insert(at, r)

    def choose(self, r):
        able = self.able()
        if not able:
            return None, None
        n = len(self.systems)
        draw_1, draw_2 = ((d + GOLDEN * r.attempt) % 1.0 for d in r.draws)
        outstanding, kv = self.seen if self.o.signal_age_s > 0 else (self.outstanding, self.kv_tokens)
        from_pointer = sorted(able, key=lambda i: (i - self.pointer) % n)
        router, worker = self.o.router, None
        if router == "random":
            return able[int(draw_1 * len(able))], None
        if router == "power_of_two":
            a, b = able[int(draw_1 * len(able))], able[int(draw_2 * len(able))]
            return (b if outstanding[b] < outstanding[a] else a), None
        if router == "session_affinity" and r.session >= 0:
            return able[r.session % len(able)], None
        if router == "round_robin":
            chosen = from_pointer[0]
        elif router == "least_kv":
            chosen = min(from_pointer, key=lambda i: kv[i])
        elif router == "prefix_aware":
            best = None
            in_care = self.seen_in_care if self.o.signal_age_s > 0 else self.in_care()
            for i in from_pointer:
                for w in self.entry[i]:
                    self.evict(w, during=True)
                    cost = r.isl - sum(node.tokens for node in self.match(w, r)) + in_care[w]
                    if best is None or cost < best[0]:
                        best = (cost, i, w)
            _, chosen, worker = best
        elif router == "cost_aware":
            within = [i for i in from_pointer if outstanding[i] < self.o.promise_outstanding[self.system_of[i]]]
            if within:
                chosen = min(within, key=lambda i: (self.o.costs[self.system_of[i]], outstanding[i]))
            else:
                chosen = min(from_pointer, key=lambda i: outstanding[i] / self.o.promise_outstanding[self.system_of[i]])
        else:
            chosen = min(from_pointer, key=lambda i: outstanding[i])
        self.pointer = (chosen + 1) % n
        return chosen, worker

    # -- leaving

    def turn_away(self, r):
        self.fail(r, REJECTED)

    def fail(self, r, status):
        """Refused, timed out or lost: try again later if the client still wants to, else leave."""
        if r.batch and self.o.batch_limit > 0:
            r.attempt += 1
            r.state = "backlog"
            r.first_token_s = r.first_answer_s = math.nan
            self.backlog.append(r)
        elif r.attempt < self.o.retries:
            delay = self.o.retry_after_s * self.o.retry_backoff**r.attempt
            r.attempt += 1
            r.state = "away"
            r.first_token_s = r.first_answer_s = math.nan
            self.retried += 1
            self.timer(self.now + delay, RETRY, r)
        else:
            self.leave(r, status)

    def leave(self, r, status):
        r.finish_s, r.status, r.state = self.now, status, "left"
        if not math.isnan(r.first_token_s):
            r.produced = 1 + r.growth * r.done // UNIT
        if status == COMPLETED:
            r.produced = r.osl
        self.release_children(r)

    def release_children(self, r):
        for child in self.children.pop(r.id, []):
            self.push(self.now + child.think_s, TIMER, SESSION, (child, 0))

    def let_go(self, r):
        """The instance no longer has the request."""
        self.outstanding[r.instance] -= 1
        self.kv_tokens[r.instance] -= r.isl

    def pull(self, i):
        while self.backlog and self.accepting[i] and self.outstanding[i] < self.o.batch_limit:
            r = self.backlog.pop(0)
            if self.too_long(r, i):
                self.leave(r, REJECTED)
            else:
                self.send(r, i, None)

    # -- timers

    def ring(self, kind, r, attempt):
        if kind == SESSION:
            self.arrive(r)
            return
        if r.state == "left" or (kind != CANCEL and attempt != r.attempt):
            return
        if kind == READY and r.state == "delayed":
            self.enqueue(r)
            self.wake(r.worker)
        elif kind == TRANSFERRED and r.state == "in_transfer":
            r.transferred = True
            if r.worker is None:
                r.worker = min(self.decoders[r.instance], key=lambda w: (w.outstanding, w.index))
                r.worker.outstanding += 1
                self.enqueue(r)
            else:
                self.enqueue(r, front=True)
            self.wake(r.worker)
        elif kind == LOADED and r.state == "loading" and r.ready_s == self.now:
            r.state = "prefilling"
            r.worker.prefilling.append(r)
            self.wake(r.worker)
        elif kind == TIMEOUT and not r.admitted and r.state in ("delayed", "waiting"):
            self.withdraw(r)
            self.fail(r, TIMED_OUT)
            self.pull(r.instance)
        elif kind == CANCEL:
            if r.state in ("prefilling", "running") and r.worker.busy_until is not None:
                r.cancelled = True  # taken out of the batch at the end of the step
                return
            if r.state in ("prefilling", "running", "loading"):
                self.take_off_batch(r)
            has = r.state not in ("away", "backlog", "routing")
            if has:
                self.withdraw(r)
            if r in self.backlog:
                self.backlog.remove(r)
            self.leave(r, CANCELLED)
            if has:
                self.pull(r.instance)
        elif kind == RETRY and r.state == "away":
            self.route(r)

    def withdraw(self, r):
        """Take a request away from its worker; it is not in the batch."""
        if r.worker is not None:
            if r in r.worker.waiting:
                r.worker.waiting.remove(r)
            r.worker.outstanding -= 1
        self.let_go(r)

    # -- prefix cache of one worker

    def match(self, w, r):
        """Longest chain of the request's leading blocks that the worker has, on the GPU first, then on the host."""
        found, parent, on_host = [], None, False
        if self.o.prefix_cache and w.kind.role != "decode":
            covered = 0
            size = self.o.prefix_block_tokens
            limit = r.isl if r.prompt == r.isl else r.isl // size * size  # one that comes back uses whole blocks only
            for block in r.blocks:
                node = w.nodes.get(block)
                if node is None or node.parent is not parent or (on_host and not node.on_host):
                    break
                if covered + node.tokens > limit:
                    break
                on_host = node.on_host
                covered += node.tokens
                found.append(node)
                parent = node
        return found

    def register(self, w, r, upto):
        """The first `upto` tokens of the sequence are computed: their blocks can be shared from now on."""
        size = self.o.prefix_block_tokens
        covered = r.shared()
        for k, block in enumerate(r.blocks):
            if k < len(r.nodes):
                continue
            tokens = min(size, upto - covered)
            if tokens <= 0 or (tokens < size and not (upto == r.isl and k == len(r.blocks) - 1)):
                break
            parent = r.nodes[-1] if r.nodes else None
            node = w.nodes.get(block)
            if node is not None and node.on_host and node.parent is parent and node.tokens == tokens:
                w.host_lru.remove(node)
                node.on_host = False
            elif node is not None and (node.on_host or node.parent is not parent or node.tokens != tokens):
                break
            if node is None:
                node = w.nodes[block] = Node(block, parent, tokens)
            if node in w.lru:
                w.lru.remove(node)
            node.refs += 1
            r.nodes.append(node)
            covered += tokens

    def unpin(self, w, r):
        for node in reversed(r.nodes):
            node.refs -= 1
            if node.refs == 0:
                w.lru.append(node)
        r.nodes = []

    def evict(self, w, during=False):
        """Drop the least recently used blocks until the step's batch fits beside the cache."""
        if not self.o.prefix_cache:
            return
        if during and w.busy_until is None:
            return
        while w.lru and w.step_needs + sum(w.node_blocks(n) for n in w.lru) > w.capacity:
            node = w.lru.pop(0)
            room = self.o.host_cache_tokens // w.block
            if room > 0:
                node.on_host = True
                w.host_lru.append(node)
                while sum(w.node_blocks(n) for n in w.host_lru) > room:
                    del w.nodes[w.host_lru.pop(0).id]
            else:
                del w.nodes[node.id]

    # -- one worker's step

    def preempt(self, w, victim):
        decoding = victim.state == "running"
        if decoding and self.o.swap_s_per_token > 0:
            delay = 2 * self.o.swap_s_per_token * (victim.held() / UNIT)
            self.take_off_batch(victim)
            victim.preemptions += 1
            victim.state = "in_transfer"
            self.timer(self.now + delay, TRANSFERRED, victim)
            return
        self.take_off_batch(victim)
        if decoding:
            victim.prompt = victim.isl + victim.growth * (victim.done + 1) // UNIT
            victim.computed = victim.prompt
        victim.preemptions += 1
        victim.transferred = False
        self.enqueue(victim, front=True)

    def take_off_batch(self, r):
        w = r.worker
        w.running.remove(r)
        if r in w.prefilling:
            w.prefilling.remove(r)
        self.unpin(w, r)

    def begin_step(self, w):
        w.slow = w.next_slow
        kind, step = w.kind, w.kind.step
        tps = step.tokens_per_sequence
        preempted = False
        while w.decoding() and w.needed_blocks() > w.capacity:
            preempted = True
            self.preempt(w, max(w.running, key=lambda r: (r.priority, w.running.index(r))))
        budget = kind.max_batched_tokens - (0 if self.o.prefill_first else len(w.decoding()) * tps)
        chunks = []

        def schedule(r):
            nonlocal budget
            r.chunk = min(budget, r.prompt - r.prefilled)
            budget -= r.chunk
            if r.chunk > 0:
                chunks.append(r)

        for r in w.prefilling:
            schedule(r)
        batch_pushed_out = False
        while not preempted and w.waiting and budget > 0:
            head = w.waiting[0]
            if batch_pushed_out and head.batch:
                break
            if head.transferred:
                extra = w.ceil_blocks(head.held(1))
                if budget < tps and not self.o.prefill_first:
                    break
                found = []
            else:
                found = self.match(w, head)
                extra = w.ceil_blocks((head.prompt - sum(n.tokens for n in found)) * UNIT)
                extra += sum(w.node_blocks(n) for n in found if n.refs == 0)
            if len(w.running) >= w.max_sequences or w.needed_blocks() + extra > w.capacity:
                victims = [r for r in w.running if r.batch]
                if head.batch or not victims or self.o.batch_limit == 0:
                    break
                victim = victims[-1]
                if victim in chunks:
                    chunks.remove(victim)
                    budget += victim.chunk
                elif victim.state == "running" and not self.o.prefill_first:
                    budget += tps
                self.preempt(w, victim)
                batch_pushed_out = True
                continue
            w.waiting.remove(head)
            w.running.append(head)
            head_first = not head.admitted
            head.admitted = True
            if head.transferred:
                w.begin_decoding(head)
                budget -= 0 if self.o.prefill_first else tps
                continue
            loading = 0
            for node in found:
                if node.on_host:
                    w.host_lru.remove(node)
                    node.on_host = False
                    loading += node.tokens
                elif node.refs == 0:
                    w.lru.remove(node)
                node.refs += 1
            head.nodes = list(found)
            cached = max(sum(n.tokens for n in found), head.cached)
            if head_first:
                head.hit = cached
            head.prefilled = min(cached, head.prompt - 1)
            if cached > head.prefilled:
                head.computed = max(head.computed, cached)
            head.reserved = w.ceil_blocks((head.prompt - head.shared()) * UNIT)
            if loading:
                begin = max(self.now, w.host_free_s)
                w.host_free_s = begin + loading * self.o.host_cache_s_per_token
                head.state = "loading"
                head.ready_s = w.host_free_s
                self.timer(head.ready_s, LOADED, head)
                continue
            head.state = "prefilling"
            w.prefilling.append(head)
            schedule(head)
        w.step_needs = w.needed_blocks()
        self.evict(w)
        prefill = sum(r.chunk for r in chunks)
        w.decodes = not (self.o.prefill_first and prefill > 0)
        decoding = w.decoding() if w.decodes else []
        if not decoding and not prefill:
            return
        seconds = step.base_s[len(decoding) * tps + prefill] + step.prefill_s * prefill
        if decoding:
            seconds += step.kv_s * w.attended()
        for r in chunks:
            seconds += step.pair_s * (r.chunk * r.prefilled + r.chunk * (r.chunk + 1) / 2)
            w.prefill_tokens += r.chunk
            w.recomputed_tokens += min(r.chunk, max(0, r.computed - r.prefilled))
        w.busy_s += w.slow * seconds
        w.steps += 1
        w.busy_until = self.now + w.slow * seconds
        w.epoch += 1
        self.push(w.busy_until, END, w.index, (w, w.epoch))

    def end_step(self, w):
        w.busy_until = None
        if w.decodes:
            for r in w.decoding():
                r.done += 1
                w.decode_tokens += r.growth / UNIT
                self.note_answer(r)
        for r in w.decoding():
            if w.decodes and r.done >= r.steps:
                self.finish(w, r)
        for r in list(w.prefilling):
            if r.chunk == 0:
                continue
            r.prefilled += r.chunk
            r.computed = max(r.computed, r.prefilled)
            r.chunk = 0
            if r.prefilled >= r.prompt:
                w.prefilling.remove(r)
                self.end_prefill(w, r)
        for r in reversed(list(w.running)):
            if r.cancelled:
                self.take_off_batch(r)
                self.withdraw(r)
                self.leave(r, CANCELLED)
        w.starting = True
        self.push(self.now, START, w.index, w)

    def note_answer(self, r):
        enough = min(-(-r.reasoning * UNIT // r.growth), r.steps) if r.steps else 0
        if math.isnan(r.first_answer_s) and r.done >= enough:
            r.first_answer_s = self.now

    def end_prefill(self, w, r):
        if self.o.prefix_cache and w.kind.role != "decode":
            self.register(w, r, r.isl)
        if math.isnan(r.first_token_s):
            r.first_token_s = self.now
            w.decode_tokens += 1
        else:
            r.done += 1
            w.decode_tokens += r.growth / UNIT
        self.note_answer(r)
        if r.done >= r.steps:
            self.finish(w, r)
        elif w.kind.role == "prefill":
            system = self.systems[r.instance]
            self.take_off_batch(r)
            w.outstanding -= 1
            r.worker, r.state = None, "in_transfer"
            if r.cancelled:
                self.let_go(r)
                self.leave(r, CANCELLED)
                return
            start_s = max(self.now, w.link_free_s)
            w.link_free_s = start_s + system.kv_link_s_per_token * r.isl
            self.timer(start_s + system.kv_transfer_s_per_token * r.isl + system.kv_transfer_latency_s, TRANSFERRED, r)
        else:
            w.begin_decoding(r)

    def finish(self, w, r):
        if self.o.prefix_cache and w.kind.role != "decode":
            self.register(w, r, r.isl + r.osl - 1)
        self.take_off_batch(r)
        self.withdraw(r)
        self.leave(r, COMPLETED)

    # -- what operators do

    def stop(self, i, lost):
        """Send nothing more to an instance; lose all it has, or finish what runs and route anew what waits."""
        self.accepting[i] = False
        workers = self.entry[i] + self.decoders[i]
        if not lost:
            for w in self.entry[i]:
                for r in [r for r in w.waiting if not r.admitted]:
                    self.withdraw(r)
                    self.route(r)
            return
        for w in workers:
            w.epoch += 1
            w.busy_until, w.starting = None, False
            w.waiting, w.running, w.prefilling = [], [], []
            w.nodes, w.lru, w.host_lru = {}, [], []
            w.link_free_s = w.host_free_s = 0.0
        for r in sorted(self.requests.values(), key=lambda r: r.id):
            if r.instance == i and r.state in (
                "delayed", "waiting", "prefilling", "running", "loading", "in_transfer"
            ):  # fmt: skip
                r.nodes = []
                if r.worker is not None:
                    r.worker.outstanding -= 1
                self.let_go(r)
                self.fail(r, LOST)
        for k in range(len(self.systems)):
            self.pull(k)

    def set_accepting(self, i, accepting):
        self.accepting[i] = accepting
        self.pull(i)

    def set_speed(self, i, slow):
        for w in self.entry[i] + self.decoders[i]:
            w.next_slow = slow

