"""The kernel against the closed forms of queueing theory, within four standard errors over replications.

A request of one prompt token and one answer token is one step; with one sequence at a time that is a server.
"""

import numpy as np
import pytest

from factory_sim.engine.kernel import Pool, Requests
from factory_sim.model.queueing import (
    decode_sojourn_s,
    md1_wait_s,
    mg1_priority_waits_s,
    mg1_ps_sojourn_s,
    mg1_wait_s,
    mm1_sojourn_s,
    mmc_wait_s,
)
from factory_sim.model.serving import ServingSystem, StepCosts, Worker

UNIT_S = 1e-3


def system(base_s, prefill_s=0.0, max_sequences=1, count=1) -> ServingSystem:
    worker = Worker("both", count, 1, StepCosts(base_s, 0.0, prefill_s, 0.0), 10**9, max_sequences, len(base_s) - 1)
    return ServingSystem("server", "none", 1, (worker,), 1.0, max_context_tokens=10**9)


def one_step_server(count=1) -> ServingSystem:
    """Serves one request at a time, `UNIT_S` for each prompt token."""
    return system(np.zeros(200_001), prefill_s=UNIT_S, count=count)


def sojourns(served, arrivals_s, isl, osl, priority=None, warm=0.2):
    pool = Pool([(served, 1)], block_tokens=1)
    pool.offer(Requests(arrivals_s, isl, osl, priority=priority))
    pool.drain()
    done = pool.finished()
    order = np.argsort(done["id"])
    keep = slice(int(warm * len(isl)), None)
    return (done["finish_s"] - done["arrival_s"])[order][keep]


def assert_near(samples, expected, bias=0.0):
    """`samples`: one mean a replication."""
    error = np.std(samples, ddof=1) / np.sqrt(len(samples))
    assert abs(np.mean(samples) - expected) <= 4 * error + bias, (np.mean(samples), expected, error)
    assert 4 * error < 0.05 * expected, "too noisy to tell"


def replications(draw_service, rate_per_s, n=40_000):
    """Mean sojourns at a server of one request at a time, in 20 replications."""
    means = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        isl = draw_service(rng, n)
        means.append(
            sojourns(one_step_server(), np.cumsum(rng.exponential(1 / rate_per_s, n)), isl, np.ones(n, int)).mean()
        )
    return np.array(means)


def decode_replications(served, draw_osl, rate_per_s, n, replications=20):
    """Mean sojourns of requests of one prompt token."""
    means = []
    for seed in range(replications):
        rng = np.random.default_rng(seed)
        arrivals_s = np.cumsum(rng.exponential(1 / rate_per_s, n))
        means.append(sojourns(served, arrivals_s, np.ones(n, int), draw_osl(rng, n)).mean())
    return np.array(means)


def exponential_units(mean):
    return lambda rng, n: np.maximum(1, np.rint(rng.exponential(mean, n))).astype(np.int64)


def test_m_m_1():
    rate = 6.0
    means = replications(exponential_units(100), rate)
    assert_near(means, mm1_sojourn_s(rate, 0.1), bias=2 * UNIT_S)


def test_m_d_1():
    rate = 7.0
    means = replications(lambda rng, n: np.full(n, 100), rate)
    assert_near(means, md1_wait_s(rate, 0.1) + 0.1)


def test_m_g_1_pollaczek_khinchine():
    rate = 5.0
    choices = np.array([20, 100, 400])
    shares = np.array([0.6, 0.3, 0.1])
    means = replications(lambda rng, n: rng.choice(choices, n, p=shares), rate, n=60_000)
    service_s = choices * UNIT_S
    mean_s = (shares * service_s).sum()
    assert_near(means, mg1_wait_s(rate, mean_s, (shares * service_s**2).sum()) + mean_s)


def test_priority_classes_follow_cobham():
    rates = [2.0, 3.0]
    service_s = 0.1
    waits = mg1_priority_waits_s(rates, [service_s] * 2, [service_s**2] * 2)
    means = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = 40_000
        priority = (rng.random(n) < rates[1] / sum(rates)).astype(int)
        times = sojourns(
            one_step_server(), np.cumsum(rng.exponential(1 / sum(rates), n)), np.full(n, 100), np.ones(n, int), priority
        )
        kept = priority[int(0.2 * n) :]
        means.append([times[kept == c].mean() for c in (0, 1)])
    means = np.array(means)
    for c in (0, 1):
        assert_near(means[:, c], waits[c] + service_s)


def test_m_d_1_waits_grow_with_a_formula_five_per_cent_off():
    """The tolerance can tell: a service time 5 % too long is refused."""
    means = replications(lambda rng, n: np.full(n, 100), 7.0)
    with pytest.raises(AssertionError):
        assert_near(means, md1_wait_s(7.0, 0.105) + 0.105)


def test_processor_sharing_does_not_mind_the_distribution():
    """A step of n sequences takes n * b: each gets 1/n of the server."""
    b = 1e-3
    most = 4000
    served = system(b * np.arange(most + 1.0), max_sequences=most)
    for draw in (
        lambda rng, n: rng.geometric(1 / 100, n) + 1,
        lambda rng, n: rng.choice([11, 61, 500], n, p=[0.5, 0.4, 0.1]),
    ):
        mean_steps = np.mean(draw(np.random.default_rng(99), 2_000_000))
        rate = 0.6 / (b * mean_steps)
        means = decode_replications(served, draw, rate, n=30_000)
        expected = mg1_ps_sojourn_s(rate, b * mean_steps)
        assert_near(means, expected, bias=0.02 * expected)


def test_decode_batching_of_any_osl_distribution():
    """Step a + b n, no limit: mean sojourn OSL (a + b) / (1 - rate OSL b), plus about half a step to join."""
    a, b = 0.02, 2e-4
    most = 4000
    served = system(np.r_[0.0, a + b * np.arange(1.0, most + 1)], max_sequences=most)
    for draw in (lambda rng, n: rng.geometric(1 / 150, n), lambda rng, n: rng.choice([20, 400], n, p=[0.7, 0.3])):
        mean_osl = np.mean(draw(np.random.default_rng(99), 2_000_000))
        rate = 0.6 / (b * mean_osl)
        means = decode_replications(served, draw, rate, n=30_000, replications=10)
        expected = decode_sojourn_s(rate, mean_osl, a, b)
        step_s = a + b * rate * expected
        assert_near(means, expected, bias=1.5 * step_s)


def test_many_replicas_behind_one_queue_follow_erlang_c():
    """Several workers fed from one line: a worker with `max_sequences` servers of its own speed, decode only.

    The step time does not depend on the batch, so c sequences are c servers; service is geometric in steps.
    """
    c, step_s = 8, 1e-3
    served = system(np.r_[0.0, np.full(c, step_s)], max_sequences=c)
    mean_steps = 200
    rate = 0.75 * c / (mean_steps * step_s)
    means = decode_replications(served, lambda rng, n: rng.geometric(1 / mean_steps, n), rate, n=40_000)
    mean_s = mean_steps * step_s
    assert_near(means, mmc_wait_s(rate, mean_s, c) + mean_s, bias=3 * step_s)
