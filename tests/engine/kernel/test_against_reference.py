"""The kernel, which skips steps, against a plain program that plays every one."""

import numpy as np
import pytest

from factory_sim.engine.kernel import Pool, Requests
from factory_sim.engine.kernel.requests import session_key
from factory_sim.streams import stream
from tests.engine.kernel.cases import Case, random_case
from tests.reference.simulator import Options, Reference, Request

POOL_SEED = 5


def kernel_requests(case: Case) -> Requests:
    columns = dict(case.columns)
    blocks = columns.pop("blocks", None)
    if blocks is not None:
        columns["block_ids"] = np.array([b for ids in blocks for b in ids], dtype=np.int64)
        columns["block_starts"] = np.cumsum([0] + [len(ids) for ids in blocks])
    return Requests(**columns)


def play_kernel(case: Case, stops=()):
    pool = Pool(case.systems, seed=POOL_SEED, **case.options)
    pool.offer(kernel_requests(case))
    acts = [(time_s, None) for time_s in stops] + [(act[0], act[1:]) for act in case.controls]
    for time_s, act in sorted(acts, key=lambda a: a[0]):
        pool.advance(time_s)
        if act is not None:
            method, instance, value = act
            getattr(pool, method)(instance, value)
    pool.drain()
    done = pool.finished()
    order = np.argsort(done["id"])
    return {name: column[order] for name, column in done.items()}, pool


def reference_requests(case: Case) -> list[Request]:
    c = case.columns
    n = len(c["isl"])
    draws = stream(POOL_SEED, "router").random((n, 2))
    keys = session_key(np.maximum(c.get("session", np.zeros(n)), 0))
    requests = []
    for i in range(n):
        r = Request(
            id=i,
            arrival_s=float(c["arrival_s"][i]),
            isl=int(c["isl"][i]),
            osl=int(c["osl"][i]),
            steps=int(c["decode_steps"][i]) if c["osl"][i] > 1 else 0,
            cached=int(min(c["cached_tokens"][i], c["isl"][i] - 1)),
            priority=int(c["priority"][i]),
            draws=tuple(draws[i]),
        )
        for name, field in (
            ("patience_s", "patience_s"),
            ("reasoning_tokens", "reasoning"),
            ("after", "after"),
            ("think_s", "think_s"),
            ("batch", "batch"),
            ("blocks", "blocks"),
        ):
            if name in c:
                setattr(r, field, c[name][i])
        if "session" in c and c["session"][i] >= 0:
            r.session = int(keys[i])
        requests.append(r)
    return requests


def play_reference(case: Case):
    requests = reference_requests(case)
    controls = [
        (time_s, lambda ref, method=method, i=i, value=value: getattr(ref, method)(i, value))
        for time_s, method, i, value in case.controls
    ]
    return requests, Reference(case.systems, Options(**case.options)).run(requests, controls)


def assert_same(case: Case):
    done, pool = play_kernel(case)
    requests, reference = play_reference(case)
    np.testing.assert_array_equal(done["id"], np.arange(len(requests)))
    for name, field in (
        ("status", "status"),
        ("instance", "instance"),
        ("preemptions", "preemptions"),
        ("cached_tokens", "hit"),
        ("output_tokens", "produced"),
    ):
        np.testing.assert_array_equal(done[name], [getattr(r, field) for r in requests], err_msg=name)
    for name, field in (
        ("arrival_s", "first_arrival_s"),
        ("first_token_s", "first_token_s"),
        ("first_answer_s", "first_answer_s"),
        ("finish_s", "finish_s"),
    ):
        np.testing.assert_allclose(done[name], [getattr(r, field) for r in requests], rtol=1e-9, err_msg=name)
    totals = pool.totals()
    assert totals["retried"] == reference.retried
    if not any(method == "stop" and value for _, method, _, value in case.controls):
        for name in ("busy_s", "steps", "decode_tokens", "prefill_tokens", "recomputed_tokens"):
            want = [getattr(w, name) for w in reference.workers]
            np.testing.assert_allclose(totals[name], want, rtol=1e-9, atol=1e-12, err_msg=name)
    return done, pool


def assert_all_same(seeds, features):
    for seed in seeds:
        try:
            assert_same(random_case(seed, features))
        except Exception as error:
            raise AssertionError(f"case {seed}: {error}") from error


@pytest.mark.parametrize("batch", range(5))
def test_random_cases_give_the_times_of_the_plain_simulator(batch):
    assert_all_same(range(batch * 100, batch * 100 + 100), features=False)


@pytest.mark.parametrize("batch", range(20))
def test_random_cases_of_all_features_give_the_times_of_the_plain_simulator(batch):
    assert_all_same(range(batch * 100, batch * 100 + 100), features=True)
