"""Closed forms of queueing and reliability theory, to hold the simulation against and for first estimates.

Rates are per second, times in seconds. Unless said otherwise figures are steady-state means and an unstable system
(load of 1 or more) raises ValueError. Sources by short name: Kleinrock, *Queueing Systems* I (1975) and II (1976);
Cooper, *Introduction to Queueing Theory* (1981); Harchol-Balter, *Performance Modeling and Design of Computer
Systems* (2013); Barlow and Proschan, *Mathematical Theory of Reliability* (1965).
"""

import numpy as np


def _stable(load: float, servers: int = 1) -> None:
    if not 0 <= load < servers:
        raise ValueError(f"no steady state: an offered load of {load:g} needs more than {servers} server(s)")


def mm1_sojourn_s(arrival_rate_per_s: float, mean_service_s: float) -> float:
    """Mean time in an M/M/1 queue, waiting and service: S / (1 - rho) (Kleinrock I, 3.2)."""
    load = arrival_rate_per_s * mean_service_s
    _stable(load)
    return mean_service_s / (1 - load)


def mm1_sojourn_quantile_s(arrival_rate_per_s: float, mean_service_s: float, probability: float) -> float:
    """Quantile of the time in an M/M/1 queue served in order: the sojourn is exponential (Kleinrock I, 5.8)."""
    return -mm1_sojourn_s(arrival_rate_per_s, mean_service_s) * float(np.log1p(-probability))


def mg1_wait_s(arrival_rate_per_s: float, mean_service_s: float, second_moment_s2: float) -> float:
    """Mean wait before service in M/G/1, in order: rate E[S^2] / (2 (1 - rho)) (Pollaczek-Khinchine; Kleinrock I,
    5.6)."""
    load = arrival_rate_per_s * mean_service_s
    _stable(load)
    return arrival_rate_per_s * second_moment_s2 / (2 * (1 - load))


def md1_wait_s(arrival_rate_per_s: float, service_s: float) -> float:
    """Mean wait before service in M/D/1: rho S / (2 (1 - rho)), half of M/M/1."""
    return mg1_wait_s(arrival_rate_per_s, service_s, service_s**2)


def mg1_priority_waits_s(rates_per_s, mean_services_s, second_moments_s2) -> np.ndarray:
    """Mean waits of the classes of a non-preemptive M/G/1 priority queue, highest class first (Cobham 1954).

    W_k = W_0 / ((1 - sigma_{k-1}) (1 - sigma_k)), W_0 = sum_i rate_i E[S_i^2] / 2, sigma_k = rho_1 + ... + rho_k.
    """
    rates, means = np.asarray(rates_per_s, float), np.asarray(mean_services_s, float)
    loads = np.cumsum(rates * means)
    _stable(float(loads[-1]))
    residual = float(rates @ np.asarray(second_moments_s2, float)) / 2
    return residual / ((1 - np.concatenate([[0.0], loads[:-1]])) * (1 - loads))


def mg1_ps_sojourn_s(arrival_rate_per_s: float, mean_service_s: float, own_service_s: float | None = None) -> float:
    """Mean time in M/G/1 processor sharing: E[S] / (1 - rho), for any service distribution (Kleinrock II, 4.4).

    With `own_service_s` x it is the mean of the requests that need exactly x alone: x / (1 - rho).
    """
    load = arrival_rate_per_s * mean_service_s
    _stable(load)
    return (mean_service_s if own_service_s is None else own_service_s) / (1 - load)


def decode_sojourn_s(arrival_rate_per_s: float, mean_osl: float, fixed_s: float, per_sequence_s: float) -> float:
    """Mean time of a request in decode-only batching: OSL (a + b) / (1 - rate OSL b).

    A step over n sequences takes a + b n, each gains one token, there is no limit on n; any OSL distribution. Each
    sequence then decodes at rate 1 / (a + b n) tokens/s: generalised processor sharing with phi(n) = n / (a + b n),
    whose stationary numbers depend on the mean work only (Cohen 1979, *The multiple phase service network with
    generalized processor sharing*). Its birth-death weights rho^n prod_k (a + b k) / n! with rho = rate OSL sum to a
    negative binomial law with mean rho (a + b) / (1 - rho b); Little's law divides by the rate. Steps are discrete,
    so a simulated request waits about half a step longer for its first one.
    """
    load = arrival_rate_per_s * mean_osl * per_sequence_s
    _stable(load)
    return mean_osl * (fixed_s + per_sequence_s) / (1 - load)


def erlang_b(offered_load: float, servers: int) -> float:
    """Share of arrivals blocked in M/G/c/c (Erlang B), by the stable recursion B_k = a B_{k-1} / (k + a B_{k-1})."""
    if offered_load < 0 or servers < 0:
        raise ValueError(f"offered load and servers must not be negative; got {offered_load} and {servers}")
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = offered_load * blocked / (k + offered_load * blocked)
    return blocked


def erlang_c(offered_load: float, servers: int) -> float:
    """Share of arrivals that wait in M/M/c (Erlang C): c B / (c - a (1 - B)) (Cooper, 3.4)."""
    _stable(offered_load, servers)
    blocked = erlang_b(offered_load, servers)
    return servers * blocked / (servers - offered_load * (1 - blocked))


def mmc_wait_s(arrival_rate_per_s: float, mean_service_s: float, servers: int) -> float:
    """Mean wait before service in M/M/c: C(c, a) S / (c - a)."""
    load = arrival_rate_per_s * mean_service_s
    return erlang_c(load, servers) * mean_service_s / (servers - load)


def mmc_wait_exceeds(arrival_rate_per_s: float, mean_service_s: float, servers: int, limit_s: float) -> float:
    """Share of arrivals that wait longer than `limit_s` in M/M/c served in order: C exp(-(c - a) t / S)."""
    load = arrival_rate_per_s * mean_service_s
    return erlang_c(load, servers) * float(np.exp(-(servers - load) * limit_s / mean_service_s))


def servers_needed(offered_load: float, wait_share: float) -> int:
    """Fewest servers with which at most `wait_share` of the arrivals wait in M/M/c (inverse of Erlang C)."""
    if not 0 < wait_share <= 1:
        raise ValueError(f"wait_share must lie above 0 and up to 1, got {wait_share}")
    servers = int(np.floor(offered_load)) + 1
    while erlang_c(offered_load, servers) > wait_share:
        servers += 1
    return servers


def gg1_wait_s(arrival_rate_per_s: float, mean_service_s: float, arrival_cv: float, service_cv: float) -> float:
    """Approximate mean wait in G/G/1: rho/(1-rho) S (ca^2 + cs^2)/2 (Kingman 1961), an upper bound in heavy traffic
    only."""
    load = arrival_rate_per_s * mean_service_s
    _stable(load)
    return load / (1 - load) * mean_service_s * (arrival_cv**2 + service_cv**2) / 2


def birth_death(birth_rates_per_s, death_rates_per_s) -> np.ndarray:
    """Stationary probabilities of states 0..n of a birth-death chain (Kleinrock I, 3.1).

    `birth_rates_per_s[k]` leads from k to k + 1 and `death_rates_per_s[k]` from k + 1 to k, k = 0..n-1; deaths
    positive. A chain cut at n must have negligible weight there; the caller checks the last probability.
    """
    births, deaths = np.asarray(birth_rates_per_s, float), np.asarray(death_rates_per_s, float)
    if births.shape != deaths.shape or np.any(births < 0) or np.any(deaths <= 0):
        raise ValueError("as many birth rates (>= 0) as death rates (> 0) are needed")
    with np.errstate(divide="ignore"):
        log_weight = np.concatenate([[0.0], np.cumsum(np.log(births) - np.log(deaths))])
    weight = np.exp(log_weight - log_weight.max())
    return weight / weight.sum()


def batch_decode_chain(
    arrival_rate_per_s: float,
    mean_osl: float,
    fixed_s: float,
    per_sequence_s: float,
    max_sequences: int,
    states: int = 2000,
) -> dict[str, float]:
    """Decode-only batching with at most `max_sequences` in the batch and geometric OSL, as a birth-death chain.

    With n requests present min(n, limit) = m decode, each ending at rate 1 / (OSL (a + b m)). Returns ``in_system``,
    ``sojourn_s``, ``wait_s`` (before joining the batch), ``busy_share`` and ``cut`` (probability of the last state).
    Continuous time: the discreteness of steps is left out.
    """
    running = np.minimum(np.arange(1, states + 1), max_sequences)
    deaths = running / (mean_osl * (fixed_s + per_sequence_s * running))
    _stable(arrival_rate_per_s / deaths[-1])
    p = birth_death(np.full(states, arrival_rate_per_s), deaths)
    n = np.arange(states + 1)
    in_system, waiting = float(p @ n), float(p @ np.maximum(n - max_sequences, 0))
    return {
        "in_system": in_system,
        "sojourn_s": in_system / arrival_rate_per_s,
        "wait_s": waiting / arrival_rate_per_s,
        "busy_share": float(1 - p[0]),
        "cut": float(p[-1]),
    }


def availability(mean_time_to_failure_s: float, mean_time_to_repair_s: float) -> float:
    """Long-run share of time a machine is up: MTTF / (MTTF + MTTR), any distributions (alternating renewal
    process)."""
    return mean_time_to_failure_s / (mean_time_to_failure_s + mean_time_to_repair_s)


def machine_repair(
    needed: int, spares: int, repairers: int, mean_time_to_failure_s: float, mean_time_to_repair_s: float
) -> np.ndarray:
    """Probabilities of 0..needed+spares machines being down: the machine-repair model with cold spares.

    `needed` machines work, each fails at rate 1/MTTF; a spare replaces it at once and does not age; `repairers`
    repair one machine each at rate 1/MTTR, both exponential (Barlow and Proschan, chapter 5; Cooper, 3.8). With as
    many repairers as machines and no spares the number down is binomial.
    """
    total = needed + spares
    down = np.arange(total)
    failing = np.minimum(needed, total - down) / mean_time_to_failure_s
    repairing = np.minimum(down + 1, repairers) / mean_time_to_repair_s
    return birth_death(failing, repairing)


def machines_working(
    needed: int, spares: int, repairers: int, mean_time_to_failure_s: float, mean_time_to_repair_s: float
) -> tuple[float, float]:
    """Return ``(mean machines working, probability that all `needed` work)`` of `machine_repair`."""
    p = machine_repair(needed, spares, repairers, mean_time_to_failure_s, mean_time_to_repair_s)
    working = np.minimum(needed, needed + spares - np.arange(len(p)))
    return float(p @ working), float(p[working == needed].sum())
