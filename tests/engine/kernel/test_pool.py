"""What a pool promises whatever it plays: slices change nothing, nothing is lost, time and tokens add up."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from factory_sim.engine.kernel import Pool, Requests, play_closed_loop
from factory_sim.errors import CapacityError, ScenarioError
from factory_sim.model.serving import ServingSystem, StepCosts, Worker
from tests.engine.kernel.cases import random_case
from tests.engine.kernel.test_against_reference import POOL_SEED, kernel_requests, play_kernel


def simple_system(base_s=0.01, per_token_s=0.0, kv_s=0.0, prefill_s=0.0, **worker) -> ServingSystem:
    settings = {
        "role": "both",
        "count": 1,
        "gpus": 8,
        "kv_capacity_tokens": 10_000,
        "max_sequences": 16,
        "max_batched_tokens": 128,
    } | worker
    table = base_s + per_token_s * np.arange(settings["max_batched_tokens"] + 1.0)
    table[0] = 0.0
    step = StepCosts(base_s=table, kv_s=kv_s, prefill_s=prefill_s, pair_s=0.0)
    return ServingSystem("simple", "none", 8, (Worker(step=step, **settings),), 1.0)


@pytest.mark.parametrize("seed", range(0, 400, 8))
def test_playing_in_slices_gives_the_same_bits(seed):
    case = random_case(seed, features=True)
    at_once, whole = play_kernel(case)
    stops = np.sort(np.random.default_rng(seed).uniform(0, at_once["finish_s"].max(initial=1.0), 23))
    in_slices, sliced = play_kernel(case, stops=stops)
    for name, column in at_once.items():
        np.testing.assert_array_equal(column, in_slices[name], err_msg=name)
    for name, value in whole.totals().items():
        if name != "time_s":  # a stop may lie beyond the last event
            np.testing.assert_array_equal(value, sliced.totals()[name], err_msg=name)


@pytest.mark.parametrize("seed", range(0, 200, 10))
def test_a_saved_pool_goes_on_with_the_same_bits(seed, tmp_path):
    case = random_case(seed, features=True)
    case.controls = []
    at_once, _ = play_kernel(case)
    pool = Pool(case.systems, seed=POOL_SEED, **case.options)
    pool.offer(kernel_requests(case))
    pool.advance(float(np.median(at_once["finish_s"])))
    np.savez(tmp_path / "pool.npz", **pool.save())
    with np.load(tmp_path / "pool.npz") as saved:
        resumed = Pool.load(saved)
    resumed.drain()
    done = resumed.finished()
    order = np.argsort(done["id"])
    for name, column in at_once.items():
        np.testing.assert_array_equal(column, done[name][order], err_msg=name)


def test_offering_in_pieces_changes_nothing():
    case = random_case(14)
    at_once, _ = play_kernel(case)
    pool = Pool(case.systems, seed=POOL_SEED, **case.options)
    for i in range(len(case.columns["isl"])):
        pool.advance(max(pool.time_s, float(case.columns["arrival_s"][i])))
        pool.offer(Requests(**{name: column[i : i + 1] for name, column in case.columns.items()}))
    pool.drain()
    done = pool.finished()
    order = np.argsort(done["id"])
    for name, column in at_once.items():
        np.testing.assert_array_equal(column, done[name][order], err_msg=name)


def digest(seeds) -> str:
    """Bits of many cases' results, for a comparison across processes."""
    import hashlib

    sha = hashlib.sha256()
    for seed in seeds:
        done, pool = play_kernel(random_case(seed, features=True), stops=[0.1, 0.4, 1.0])
        for column in (*done.values(), *pool.totals().values()):
            sha.update(np.ascontiguousarray(column).tobytes())
    return sha.hexdigest()


def test_the_kernel_gives_the_same_bits_uncompiled():
    seeds = range(0, 60, 2)
    code = f"from tests.engine.kernel.test_pool import digest; print(digest({seeds!r}))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == digest(seeds)


@pytest.mark.parametrize("seed", range(1, 400, 9))
def test_conservation(seed):
    case = random_case(seed, features=True)
    done, pool = play_kernel(case, stops=[0.2, 0.7])
    totals = pool.totals()
    n = len(done["id"])
    assert totals["arrived"] == n == len(case.columns["isl"])
    left = sum(totals[name] for name in ("completed", "rejected", "timed_out", "lost", "cancelled"))
    assert left == n
    assert totals["in_system"] == 0
    assert totals["system_seconds"] == pytest.approx((done["finish_s"] - done["arrival_s"]).sum(), rel=1e-9)
    first = done["first_token_s"]
    started = ~np.isnan(first)
    assert np.all(first[started] >= done["arrival_s"][started])
    assert np.all(done["finish_s"][started] >= first[started])
    assert np.all(done["first_answer_s"][done["status"] == 0] >= first[done["status"] == 0])
    assert np.all(totals["busy_s"] <= totals["time_s"] + 1e-9)
    terms = sum(totals[name] for name in ("base_s_decode_only", "base_s_mixed", "kv_s", "prefill_s", "pair_s"))
    np.testing.assert_allclose(terms, totals["busy_s"], rtol=1e-9, atol=1e-12)
    assert np.all(pool.loads()["outstanding"] == 0)
    assert np.all(pool.loads()["kv_tokens"] == 0)
    broken = any(method == "stop" and value for _, method, _, value in case.controls)
    if (done["status"] == 0).all() and not broken and not totals["retried"]:
        prompts = totals["prefill_tokens"].sum() - totals["recomputed_tokens"].sum() + totals["cached_tokens"].sum()
        assert prompts == done["isl"].sum()
    whole = "paces" not in case.options and (case.columns["decode_steps"] >= done["osl"] - 1).all()
    if not broken and whole:
        # Whole tokens a step: exact, but for a request that stopped half way through a hand-off.
        assert totals["decode_tokens"].sum() + 1e-9 >= done["output_tokens"].sum() + totals["wasted_tokens"]
        if (done["status"] == 0).all():
            assert totals["decode_tokens"].sum() == done["output_tokens"].sum() + totals["wasted_tokens"]


@pytest.mark.parametrize("seed", range(2, 200, 11))
def test_memory_is_empty_once_drained_and_never_over_full(seed):
    case = random_case(seed, features=True)
    pool = Pool(case.systems, seed=POOL_SEED, **case.options)
    pool.offer(kernel_requests(case))
    for time_s in np.arange(0.05, 3.0, 0.05):
        pool.advance(float(time_s))
        w = pool._workers
        pinned = w["pinned_blocks"] + w["cached_blocks"] + w["prefill_blocks"]
        assert np.all(pinned <= w["capacity_blocks"])
        assert np.all(w["running"] <= w["max_sequences"])
    pool.drain()
    w = pool._workers
    for name in ("held", "held_growth", "attended", "attended_growth", "shared", "prefill_blocks", "pinned_blocks"):
        np.testing.assert_array_equal(w[name], 0, err_msg=name)
    assert pool._pool["n_free"][0] == len(pool._slots)


def test_totals_are_cut_exactly_at_the_boundary():
    system = simple_system(base_s=0.01, per_token_s=0.001, kv_s=1e-5, prefill_s=1e-4)
    pool = Pool([(system, 1)])
    pool.offer(Requests(np.array([0.0]), np.array([100]), np.array([50])))
    step_s = 0.01 + 0.1 + 100e-4
    pool.advance(step_s / 4)
    totals = pool.totals()
    assert totals["busy_s"][0] == pytest.approx(step_s / 4)
    assert totals["prefill_tokens"][0] == pytest.approx(25)
    assert totals["decode_tokens"][0] == 0
    begun_s = step_s + 3 * 0.011 + 1e-5 * (100 + 101 + 102)
    pool.advance(begun_s + 0.5 * (0.011 + 1e-5 * 103))
    totals = pool.totals()
    assert totals["busy_s"][0] == pytest.approx(totals["time_s"], rel=1e-12)
    assert totals["decode_tokens"][0] == pytest.approx(1 + 3.5)
    assert totals["kv_s"][0] == pytest.approx(1e-5 * (100 + 101 + 102 + 103 / 2))
    assert totals["steps"][0] == 4


def test_memory_does_not_grow_with_the_horizon():
    pool = Pool([(simple_system(), 2)], timeout_s=5.0, prefix_cache=True, prefix_block_tokens=16)
    rng = np.random.default_rng(3)
    sizes = []
    for k in range(60):
        n = 2000
        arrival_s = np.sort(rng.uniform(20.0 * k, 20.0 * (k + 1), n))
        after = np.where(np.arange(n) % 4 == 3, np.arange(n) - 1, -1)
        starts = 4 * np.arange(n + 1)
        pool.offer(
            Requests(
                arrival_s, np.full(n, 64), np.full(n, 5), after=after, think_s=np.full(n, 0.5),
                block_ids=rng.integers(0, 1 << 40, 4 * n), block_starts=starts,
            )
        )  # fmt: skip
        pool.advance(20.0 * (k + 1))
        pool.finished()
        arrays = ("slots", "timers", "finished", "parked", "nodes")
        sizes.append(sum(getattr(pool, "_" + name).nbytes for name in arrays))
    assert max(sizes[30:]) <= 1.1 * max(sizes[10:30])


def test_a_closed_loop_keeps_its_concurrency():
    system = simple_system(per_token_s=1e-4, kv_s=1e-6, prefill_s=1e-5)
    done = play_closed_loop(system, np.full(200, 50), np.arange(1, 201) % 37 + 1, 7)
    times = np.r_[done["start_s"], done["finish_s"]]
    change = np.r_[np.ones(200), -np.ones(200)]
    in_flight = np.cumsum(change[np.lexsort((change, times))])
    assert in_flight.max() == 7
    assert np.all(np.sort(done["start_s"])[:7] == 0)
    releases = np.sort(done["start_s"])[7:]
    np.testing.assert_array_equal(releases, np.sort(done["finish_s"])[: len(releases)])


def test_one_sequence_alone_takes_the_closed_form():
    system = simple_system(base_s=0.02, per_token_s=0.0, kv_s=1e-5, prefill_s=1e-4)
    done = play_closed_loop(system, np.array([300]), np.array([101]), 1)
    chunks_s = 3 * 0.02 + 300 * 1e-4
    assert done["first_token_s"][0] == pytest.approx(chunks_s, rel=1e-12)
    decode_s = 100 * 0.02 + 1e-5 * (100 * 300 + 100 * 99 / 2)
    assert done["finish_s"][0] == pytest.approx(chunks_s + decode_s, rel=1e-12)


def test_doubling_all_times_doubles_all_latencies_exactly():
    rng = np.random.default_rng(1)
    n = 300
    arrival_s = np.cumsum(rng.exponential(0.05, n))
    isl, osl = rng.integers(1, 200, n), rng.integers(1, 80, n)
    finishes = []
    for factor in (1.0, 2.0):
        pool = Pool([(simple_system(per_token_s=1e-4, kv_s=1e-6, prefill_s=1e-5).scaled(factor), 2)])
        pool.offer(Requests(arrival_s * factor, isl, osl))
        pool.drain()
        finishes.append(pool.finished()["finish_s"])
    np.testing.assert_array_equal(2 * finishes[0], finishes[1])


def test_an_idle_pool_of_others_changes_nothing():
    case = random_case(21)
    case.options["router"] = "round_robin"
    alone, _ = play_kernel(case)
    pool = Pool([*case.systems, (simple_system(), 2)], seed=POOL_SEED, **case.options)
    for i in range(pool.n_instances - 2, pool.n_instances):
        pool.set_accepting(i, False)
    pool.offer(kernel_requests(case))
    pool.drain()
    done = pool.finished()
    order = np.argsort(done["id"])
    np.testing.assert_array_equal(alone["finish_s"], done["finish_s"][order])


def test_a_slow_replica_takes_its_factor_from_the_next_step_on():
    pool = Pool([(simple_system(base_s=0.01), 1)])
    pool.offer(Requests(np.array([0.0]), np.array([10]), np.array([11])))
    pool.advance(0.045)
    pool.set_speed(0, 3.0)
    assert pool.drain() == pytest.approx(0.05 + 6 * 0.03)


def test_a_broken_replica_loses_its_requests_or_clients_try_again():
    for retries, status in ((0, 3), (1, 0)):
        pool = Pool([(simple_system(), 2)], retries=retries, retry_after_s=0.5)
        pool.offer(Requests(np.array([0.0]), np.array([10]), np.array([100])))
        pool.advance(0.2)
        pool.stop(0, lost=True)
        end_s = pool.drain()
        done = pool.finished()
        assert done["status"][0] == status
        if retries:
            assert end_s == pytest.approx(0.2 + 0.5 + 100 * 0.01)
            assert done["instance"][0] == 1
            assert pool.totals()["wasted_tokens"] == 20


def test_bad_input_is_told():
    system = simple_system()
    with pytest.raises(ScenarioError, match="least_outstanding"):
        Pool([(system, 1)], router="least_outstandin")
    with pytest.raises(CapacityError, match="at least one instance"):
        Pool([])
    pool = Pool([(system, 1)])
    one = np.array([1.0])
    for wrong, words in (
        (Requests(np.array([1.0, 0.0]), np.ones(2), np.ones(2)), "sorted"),
        (Requests(one, np.array([0]), np.array([1])), "isl"),
        (Requests(one, np.array([1]), np.array([0])), "osl"),
        (Requests(one, np.array([1]), np.array([1]), priority=np.array([9])), "priority"),
        (Requests(np.array([math.nan]), np.array([1]), np.array([1])), "arrival_s"),
        (Requests(one, np.array([1]), np.array([1, 2])), "osl: 2 values for 1"),
    ):
        with pytest.raises(ScenarioError, match=words):
            pool.offer(wrong)
    pool.advance(2.0)
    with pytest.raises(ScenarioError, match="before what was played"):
        pool.offer(Requests(one, np.array([1]), np.array([1])))
    with pytest.raises(ScenarioError, match="before the time already played"):
        pool.advance(1.0)
    with pytest.raises(CapacityError, match="fits neither"):
        play_closed_loop(system, np.array([20_000]), np.array([10]), 1)
