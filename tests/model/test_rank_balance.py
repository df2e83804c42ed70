"""Ranks of data-parallel attention: the measured imbalance is divided out, more uneven lengths cost more."""

import numpy as np
import pytest

from factory_sim.engine.kernel import play_closed_loop
from factory_sim.engine.resolve import planned_system
from factory_sim.errors import ScenarioError
from factory_sim.inputs.services import System
from factory_sim.model.rank_balance import mean_imbalance
from factory_sim.model.serving import serving_system
from factory_sim.streams import stream

WIDE = {"gpu": "h200", "engine": "trtllm", "precision": "fp8", "parallelism": "tp8pp1ep8dpaTr1"}


def test_imbalance_is_one_over_the_share_in_use_and_falls_with_the_number_of_sequences():
    found = mean_imbalance(8, 2048)
    assert found[1] == pytest.approx(8.0)  # all tokens are on one of eight ranks
    assert found[8] == pytest.approx(
        1.25, abs=0.05
    )  # eight lengths, evenly from 0.9 to 1.9 thousand: mean 1.4, top 1.75
    assert found[2048] == pytest.approx(1.0, abs=0.02)
    assert np.all(np.diff(found[8:512:32]) < 0)
    assert found[17] > found[16]  # one rank has one more than the others
    assert np.array_equal(mean_imbalance(1, 5), np.ones(6))


def tpot(uneven: bool, isl: np.ndarray, osl: np.ndarray, concurrency: int, parallelism=WIDE["parallelism"]) -> float:
    system = planned_system("DeepSeek-R1", System(**(WIDE | {"parallelism": parallelism}), uneven_ranks=uneven))
    played = play_closed_loop(system, isl, osl, concurrency, seed=1)
    pace = (played["finish_s"] - played["first_token_s"]) / np.maximum(osl - 1, 1)
    return float(np.mean(pace[concurrency : -concurrency or None]))


@pytest.mark.parametrize("concurrency", [4, 64, 256])
def test_a_benchmark_costs_on_average_what_it_was_measured_at(concurrency):
    rng = stream(2, "benchmark lengths")
    isl, osl = rng.integers(820, 1025, (2, 12 * concurrency))
    assert tpot(True, isl, osl, concurrency) == pytest.approx(tpot(False, isl, osl, concurrency), rel=0.02)


def test_uneven_lengths_wait_for_the_fullest_rank():
    rng = stream(3, "uneven lengths")
    n, concurrency = 600, 64
    isl = np.where(rng.random(n) < 0.1, 100_000, 1_000)
    osl = rng.integers(1000, 2000, n)
    even, uneven = (tpot(told, isl, osl, concurrency, "P8x8-D1x8dep") for told in (False, True))
    assert uneven > 1.03 * even


def test_only_data_parallel_attention_has_ranks():
    with pytest.raises(ScenarioError, match="no data-parallel attention"):
        planned_system("DeepSeek-R1", System(**(WIDE | {"parallelism": "tp8"}), uneven_ranks=True))
    plain = serving_system("DeepSeek-R1", *[WIDE[key] for key in ("gpu", "engine", "precision", "parallelism")])
    assert [worker.step.attention_ranks for worker in plain.workers] == [1]
