"""The kernel, which skips steps, against a plain program that plays every one."""

import numpy as np
import pytest

from factory_sim.engine.kernel import Pool, Requests
from factory_sim.streams import stream
from tests.engine.kernel.cases import Case, random_case
from tests.reference.simulator import Options, Reference, Request

POOL_SEED = 5


def play_kernel(case: Case, stops=()):
    pool = Pool(case.systems, seed=POOL_SEED, **case.options)
    pool.offer(Requests(**case.columns))
    for stop in stops:
        pool.advance(stop)
    pool.drain()
    done = pool.finished()
    order = np.argsort(done["id"])
    return {name: column[order] for name, column in done.items()}, pool


def play_reference(case: Case):
    c = case.columns
    n = len(c["isl"])
    draws = stream(POOL_SEED, "router").random((n, 2))
    requests = [
        Request(
            id=i,
            arrival_s=float(c["arrival_s"][i]),
            isl=int(c["isl"][i]),
            osl=int(c["osl"][i]),
            steps=int(c["decode_steps"][i]) if c["osl"][i] > 1 else 0,
            cached=int(min(c["cached_tokens"][i], c["isl"][i] - 1)),
            priority=int(c["priority"][i]),
            draws=tuple(draws[i]),
        )
        for i in range(n)
    ]
    return requests, Reference(case.systems, Options(**case.options)).run(requests)


def assert_same(case: Case):
    done, pool = play_kernel(case)
    requests, reference = play_reference(case)
    np.testing.assert_array_equal(done["id"], np.arange(len(requests)))
    for name in ("status", "instance", "preemptions"):
        np.testing.assert_array_equal(done[name], [getattr(r, name) for r in requests], err_msg=name)
    for name in ("first_token_s", "finish_s"):
        np.testing.assert_allclose(done[name], [getattr(r, name) for r in requests], rtol=1e-9, err_msg=name)
    totals = pool.totals()
    for name in ("busy_s", "steps", "decode_tokens", "prefill_tokens", "recomputed_tokens"):
        want = [getattr(w, name) for w in reference.workers]
        np.testing.assert_allclose(totals[name], want, rtol=1e-9, atol=1e-12, err_msg=name)
    return done, pool


@pytest.mark.parametrize("batch", range(10))
def test_random_cases_give_the_times_of_the_plain_simulator(batch):
    for seed in range(batch * 100, batch * 100 + 100):
        try:
            assert_same(random_case(seed))
        except AssertionError as error:
            raise AssertionError(f"case {seed}: {error}") from error
