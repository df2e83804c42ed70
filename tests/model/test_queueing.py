"""Closed forms against independent numerical solutions: linear systems of Markov chains and embedded chains."""

from math import comb, exp, factorial

import numpy as np
import pytest
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve

from factory_sim.model import queueing


def stationary(states, transitions):
    """Solve pi Q = 0 for a list of states and a function state -> [(next state, rate)]."""
    index = {state: k for k, state in enumerate(states)}
    rows, columns, rates = [], [], []
    for state in states:
        for after, rate in transitions(state):
            if after in index and rate > 0:
                rows += [index[after], index[state]]
                columns += [index[state], index[state]]
                rates += [rate, -rate]
    balance = csc_matrix((rates, (rows, columns)), shape=(len(states), len(states)))
    rest = spsolve(balance[1:, 1:], -balance[1:, [0]].toarray().ravel())
    solution = np.concatenate([[1.0], rest])
    return dict(zip(states, solution / solution.sum()))


def mg1_mean_number(arrival_rate, poisson_mixture):
    """Mean number in M/G/1 from the embedded chain at departures; `poisson_mixture(k)` = P(k arrivals in a
    service)."""
    size = 120
    a = np.array([poisson_mixture(k) for k in range(size)])
    chain = np.zeros((size, size))
    for n in range(size):
        first = max(n - 1, 0)
        chain[n, first:] = a[: size - first]
    chain /= chain.sum(axis=1, keepdims=True)
    system = np.vstack([chain.T - np.eye(size), np.ones(size)])
    p, *_ = np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)
    return float(p @ np.arange(size))


def test_mm1_is_the_birth_death_chain_with_constant_rates():
    p = queueing.birth_death(np.full(400, 0.7), np.full(400, 1.0))
    assert queueing.mm1_sojourn_s(0.7, 1.0) == pytest.approx(p @ np.arange(401) / 0.7, rel=1e-9)


def test_mm1_median_is_below_the_mean_and_its_quantiles_integrate_to_it():
    u = (np.arange(20000) + 0.5) / 20000
    mean = np.mean([queueing.mm1_sojourn_quantile_s(0.5, 1.0, x) for x in u])
    assert mean == pytest.approx(queueing.mm1_sojourn_s(0.5, 1.0), rel=1e-3)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_md1_wait_is_that_of_the_embedded_chain(load):
    number = mg1_mean_number(load, lambda k: exp(-load) * load**k / factorial(k))
    assert queueing.md1_wait_s(load, 1.0) + 1.0 == pytest.approx(number / load, rel=1e-6)


def test_pollaczek_khinchine_with_two_service_times_is_that_of_the_embedded_chain():
    rate, times, shares = 0.5, (0.5, 2.5), (0.7, 0.3)
    mean = sum(s * t for s, t in zip(shares, times))
    second = sum(s * t**2 for s, t in zip(shares, times))
    number = mg1_mean_number(
        rate, lambda k: sum(s * exp(-rate * t) * (rate * t) ** k / factorial(k) for s, t in zip(shares, times))
    )
    assert queueing.mg1_wait_s(rate, mean, second) + mean == pytest.approx(number / rate, rel=1e-6)


def test_priority_waits_keep_the_conservation_law_and_favour_the_first_class():
    rates, means, seconds = [0.2, 0.3, 0.1], [1.0, 0.5, 2.0], [2.0, 0.4, 6.0]
    waits = queueing.mg1_priority_waits_s(rates, means, seconds)
    loads = np.array(rates) * means
    rate = sum(rates)
    fcfs = queueing.mg1_wait_s(rate, loads.sum() / rate, np.dot(rates, seconds) / rate)
    assert loads @ waits == pytest.approx(loads.sum() * fcfs, rel=1e-12)
    assert waits[0] < waits[1] < waits[2]


def test_priority_wait_of_the_first_class_is_that_of_its_chain():
    # the first class of a non-preemptive M/M/1 with equal service times, solved as a chain (served class, n1, n2)
    r1, r2, mu, cap = 0.3, 0.2, 1.0, 40
    states = [(0, 0, 0)] + [(c, i, j) for c in (1, 2) for i in range(cap) for j in range(cap // 2)]

    def transitions(state):
        c, i, j = state
        if c == 0:
            return [((1, 0, 0), r1), ((2, 0, 0), r2)]
        after = (1, i - 1, j) if i else (2, i, j - 1) if j else (0, 0, 0)
        return [((c, i + 1, j), r1), ((c, i, j + 1), r2), (after, mu)]

    p = stationary(states, transitions)
    waiting = sum(weight * i for (_, i, _), weight in p.items())
    assert queueing.mg1_priority_waits_s([r1, r2], [1.0, 1.0], [2.0, 2.0])[0] == pytest.approx(waiting / r1, rel=1e-5)


@pytest.mark.parametrize("servers", [1, 3, 8])
def test_erlang_b_and_c_are_those_of_their_chains(servers):
    load = 0.8 * servers
    blocked = queueing.birth_death(np.full(servers, load), np.arange(1, servers + 1))[-1]
    assert queueing.erlang_b(load, servers) == pytest.approx(blocked, rel=1e-12)
    deaths = np.minimum(np.arange(1, 801), servers)
    p = queueing.birth_death(np.full(800, load), deaths)
    n = np.arange(801)
    assert queueing.erlang_c(load, servers) == pytest.approx(p[n >= servers].sum(), rel=1e-9)
    assert queueing.mmc_wait_s(load, 1.0, servers) == pytest.approx(p @ np.maximum(n - servers, 0) / load, rel=1e-9)


def test_wait_tail_integrates_to_the_mean_wait():
    t = np.linspace(0, 60, 60001)
    tail = np.array([queueing.mmc_wait_exceeds(3.2, 1.0, 4, x) for x in t])
    assert np.trapezoid(tail, t) == pytest.approx(queueing.mmc_wait_s(3.2, 1.0, 4), rel=1e-5)


def test_servers_needed_is_the_least_number():
    servers = queueing.servers_needed(20.0, 0.1)
    assert queueing.erlang_c(20.0, servers) <= 0.1 < queueing.erlang_c(20.0, servers - 1)


def hyperexponential_chain(rate, shares, works, speed, cap):
    """Two kinds of exponential work in processor sharing: mean numbers (n1, n2); `speed(n)` of each of n present."""
    states = [(i, j) for i in range(cap) for j in range(cap - i)]

    def transitions(state):
        i, j = state
        each = speed(i + j) if i + j else 0.0
        return [
            ((i + 1, j), rate * shares[0]),
            ((i, j + 1), rate * shares[1]),
            ((i - 1, j), i * each / works[0]),
            ((i, j - 1), j * each / works[1]),
        ]

    p = stationary(states, transitions)
    return sum(w * i for (i, _), w in p.items()), sum(w * j for (_, j), w in p.items())


def test_processor_sharing_does_not_see_the_service_distribution():
    rate, shares, works = 0.5, (0.8, 0.2), (0.5, 3.0)
    mean = sum(s * w for s, w in zip(shares, works))
    first, second = hyperexponential_chain(rate, shares, works, lambda n: 1 / n, 45)
    sojourn = queueing.mg1_ps_sojourn_s(rate, mean)
    assert (first + second) / rate == pytest.approx(sojourn, rel=1e-5)
    assert second / (rate * shares[1]) == pytest.approx(queueing.mg1_ps_sojourn_s(rate, mean, works[1]), rel=1e-5)


def test_decode_batching_formula_holds_for_hyperexponential_answers():
    rate, shares, works, a, b = 0.9, (0.7, 0.3), (20.0, 100.0), 0.01, 0.004
    mean = sum(s * w for s, w in zip(shares, works))
    first, second = hyperexponential_chain(rate, shares, works, lambda n: 1 / (a + b * n), 45)
    assert (first + second) / rate == pytest.approx(queueing.decode_sojourn_s(rate, mean, a, b), rel=1e-6)


def test_decode_chain_without_a_binding_limit_is_the_decode_formula():
    chain = queueing.batch_decode_chain(0.9, 44.0, 0.01, 0.004, max_sequences=10**6)
    assert chain["sojourn_s"] == pytest.approx(queueing.decode_sojourn_s(0.9, 44.0, 0.01, 0.004), rel=1e-9)
    assert chain["wait_s"] == 0
    assert chain["cut"] < 1e-12


def test_decode_chain_with_one_sequence_is_mm1():
    chain = queueing.batch_decode_chain(1.0, 44.0, 0.01, 0.004, max_sequences=1)
    service = 44.0 * 0.014
    assert chain["sojourn_s"] == pytest.approx(queueing.mm1_sojourn_s(1.0, service), rel=1e-9)
    assert chain["busy_share"] == pytest.approx(service, rel=1e-9)


def test_machine_repair_is_binomial_with_a_repairer_each_and_no_spares():
    up = queueing.availability(900.0, 100.0)
    p = queueing.machine_repair(12, 0, 12, 900.0, 100.0)
    assert p == pytest.approx([comb(12, k) * (1 - up) ** k * up ** (12 - k) for k in range(13)], rel=1e-12)


def test_machine_repair_with_spares_solves_its_balance_equations():
    needed, spares, repairers, mttf, mttr = 6, 2, 2, 50.0, 9.0
    p = stationary(
        list(range(9)),
        lambda k: [(k + 1, min(needed, needed + spares - k) / mttf), (k - 1, min(k, repairers) / mttr)],
    )
    assert queueing.machine_repair(needed, spares, repairers, mttf, mttr) == pytest.approx(list(p.values()), rel=1e-9)
    working, whole = queueing.machines_working(needed, spares, repairers, mttf, mttr)
    assert working == pytest.approx(sum(w * min(needed, needed + spares - k) for k, w in p.items()), rel=1e-9)
    assert whole == pytest.approx(p[0] + p[1] + p[2], rel=1e-9)


def test_kingman_is_exact_for_mm1():
    wait = queueing.mm1_sojourn_s(0.8, 1.0) - 1.0
    assert queueing.gg1_wait_s(0.8, 1.0, 1.0, 1.0) == pytest.approx(wait, rel=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: queueing.mm1_sojourn_s(1.0, 1.0),
        lambda: queueing.mg1_wait_s(2.0, 1.0, 1.0),
        lambda: queueing.erlang_c(4.0, 4),
        lambda: queueing.decode_sojourn_s(1.0, 100.0, 0.01, 0.01),
        lambda: queueing.batch_decode_chain(100.0, 44.0, 0.01, 0.004, max_sequences=2),
    ],
)
def test_an_unstable_system_is_refused(call):
    with pytest.raises(ValueError, match="no steady state"):
        call()
