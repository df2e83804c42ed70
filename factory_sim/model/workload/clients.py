"""Client skew: a few clients make most of the traffic, and each has its own burstiness.

Published (ServeGen): the share of requests of the largest 1, 5, 10 and 20 clients, their number, and quantiles over
requests of the coefficient of variation of one client's gaps. Assumed: within a published group shares fall as a
power of rank, each client keeps one CV (drawn so that the published quantiles over requests come out), and clients
are independent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from factory_sim.errors import TraceError
from factory_sim.inputs import workloads
from factory_sim.model.workload.arrivals import ArrivalStream
from factory_sim.model.workload.bursts import Burstiness
from factory_sim.model.workload.quantiles import QuantileCurve

MOST_CLIENTS = 1_000_000
"""Most clients of one service."""
LEAST_CV, LARGEST_CV_FACTOR = 0.1, 1.5
"""Bounds of drawn CVs: the least, and the largest as a multiple of the highest published quantile. Choices of ours."""


@dataclass(frozen=True)
class Clients:
    """The customers of one service."""

    name: str
    source: str
    share: np.ndarray
    """float64, falling, sum 1: each client's share of the requests."""
    cv: np.ndarray
    """float64: coefficient of variation of each client's gaps."""

    def __len__(self) -> int:
        return len(self.share)

    @property
    def long_window_dispersion(self) -> float:
        """Index of dispersion of counts of all clients together in long windows: sum of share times CV squared."""
        return float(self.share @ self.cv**2)


def client_shares(name: str) -> np.ndarray:
    """Return falling shares of all clients of a ServeGen workload that match the published top 1, 5, 10 and 20."""
    total = int(workloads.statistics(name, "clients")["count"].number)
    rows = workloads.statistics(name, "client_share")
    known = sorted((int(key.removeprefix("top")), row.number) for key, row in rows.items())
    known = [(rank, share) for rank, share in known if rank < total] + [(total, 1.0)]
    shares, before = [], (0, 0.0)
    for at, (rank, share) in enumerate(known):
        ranks = np.arange(before[0] + 1, rank + 1, dtype=float)
        part = share - before[1]
        later = known[at + 1] if at + 1 < len(known) else None
        here = part / len(ranks)
        below = (later[1] - share) / (later[0] - rank) if later else here / 4
        steep = np.log(max(here / max(below, 1e-12), 1.0)) / np.log(
            ((later[0] if later else 2 * rank) + rank) / (rank + before[0] + 1)
        )
        weight = ranks**-steep
        shares.append(part * weight / weight.sum())
        before = (rank, share)
    return _falling(shares)


def shares_of(spec: str | Mapping) -> np.ndarray:
    """Return falling shares of the clients that a scenario names: a ServeGen workload, or ``{count: 500, skew: 1.1}``
    (shares fall with the rank as ``rank ** -skew``; Zipf). Raises TraceError."""
    if isinstance(spec, str):
        return client_shares(spec)
    if not isinstance(spec, Mapping) or not set(spec) <= {"count", "skew"} or "count" not in spec:
        raise TraceError(f"clients: a ServeGen workload or {{count: 500, skew: 1.1}} is needed, got {spec!r}")
    count, skew = spec["count"], spec.get("skew", 1.0)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_CLIENTS:
        raise TraceError(f"clients.count: a whole number from 1 to {MOST_CLIENTS:,} is needed, got {count!r}")
    if isinstance(skew, bool) or not isinstance(skew, int | float) or not 0 <= skew <= 5:
        raise TraceError(f"clients.skew: a number from 0 (all alike) to 5 is needed, got {skew!r}")
    weight = np.arange(1, count + 1, dtype=float) ** -float(skew)
    return weight / weight.sum()


def _falling(groups: list[np.ndarray]) -> np.ndarray:
    """Flatten groups so that shares never rise from one to the next, keeping each group's sum."""
    for at in range(1, len(groups)):
        ceiling, group = groups[at - 1][-1], groups[at]
        mean = group.mean()
        if group[0] > ceiling and group[0] > mean:
            groups[at] = mean + (group - mean) * max((ceiling - mean) / (group[0] - mean), 0.0)
    return np.concatenate(groups)


def clients(name: str, rng: np.random.Generator) -> Clients:
    """Return the clients of a ServeGen workload (``servegen_deepseek-r1``, ...); `rng` decides who is how bursty.

    Raises TraceError if no client shares are published for the workload.
    """
    share = client_shares(name)
    rows = workloads.statistics(name, "client_interarrival_cv")
    published = sorted(
        (float(k[1:].split("_")[0]) / 100, row.number) for k, row in rows.items() if k.endswith("_request_weighted")
    )
    top = published[-1][1] * LARGEST_CV_FACTOR
    curve = QuantileCurve(*zip(*published), name=f"{name}: client CV", smallest=LEAST_CV, largest=top, tail_decades=0.3)
    order = rng.permutation(len(share))
    middle = (np.cumsum(share[order]) - share[order] / 2 + rng.random()) % 1.0  # turned: each client anywhere alike

    cv = np.empty(len(share))
    cv[order] = curve.at(np.array([NormalDist().inv_cdf(float(np.clip(u, 1e-9, 1 - 1e-9))) for u in middle]))
    source = f"{rows['p50_request_weighted'].source}; shares within groups and CVs per client drawn (assumed)"
    return Clients(name, source, share, cv)


def clients_of_folder(path: str) -> Clients:
    """Return the clients of a folder of ServeGen's client data: their own shares and mean CVs, nothing assumed."""
    from factory_sim.inputs.traces import read_servegen

    data = read_servegen(path)
    order = np.argsort(-data.share, kind="stable")
    cv = np.clip(data.cv[order], LEAST_CV, None)
    return Clients(data.name, f"ServeGen client data: {data.report.notes[0]}", data.share[order], cv)


class ClientStream:
    """Arrivals of all clients of one service, each a gamma renewal process of its own, taken slice by slice.

    Scaling the rate scales every client alike: its CV stays, so the dispersion of counts in long windows stays too.
    """

    def __init__(self, rng: np.random.Generator, who: Clients, *, share: float = 1.0, start_s: float = 0.0):
        self._who = who
        self._streams = [
            ArrivalStream(
                child, Burstiness(who.name, who.source, cv), whole_rate_per_s=1.0, share=share, start_s=start_s
            )
            for child, cv in zip(rng.spawn(len(who)), who.cv.tolist())
        ]
        self.now_s = start_s

    def take(self, until_s: float, rate_per_s: float | tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(times, client)`` of the arrivals in [now_s, until_s), sorted; `rate_per_s` is that of all
        clients."""
        found = []
        for stream, share in zip(self._streams, self._who.share.tolist()):
            rate = (
                rate_per_s * share if np.ndim(rate_per_s) == 0 else (rate_per_s[0], np.asarray(rate_per_s[1]) * share)
            )
            found.append(stream.take(until_s, rate))
        self.now_s = until_s
        times = np.concatenate(found)
        client = np.repeat(np.arange(len(found)), [len(part) for part in found])
        order = np.argsort(times, kind="stable")
        return times[order], client[order]


def client_arrivals(
    rng: np.random.Generator, spec: str | Mapping | Clients, rate_per_s: float, duration_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(times, client)`` in [0, duration_s) of a service with skewed clients, e.g.
    ``servegen_deepseek-r1``."""
    who_rng, arrivals_rng = rng.spawn(2)
    if isinstance(spec, Mapping):
        if set(spec) != {"clients"}:
            raise TraceError(f"clients: a workload or {{clients: WORKLOAD}} is needed, got {spec!r}")
        spec = spec["clients"]
    who = spec if isinstance(spec, Clients) else clients(spec, who_rng)
    return ClientStream(arrivals_rng, who).take(duration_s, rate_per_s)
