"""The kernel's cases under pytest-benchmark, to compare two states of the code on one machine.

    python -m pytest benchmarks --benchmark-only --benchmark-save=before
    python -m pytest benchmarks --benchmark-only --benchmark-compare --benchmark-columns=min,median,rounds
"""

import pytest

from benchmarks import kernel_cases as cases

REQUESTS = 100_000


@pytest.mark.parametrize("make", [cases.plain, cases.pressed, cases.reasoning, cases.chats], ids=lambda f: f.__name__)
def test_kernel(benchmark, make):
    case = make(REQUESTS)
    pools = []

    def offered():
        pools[:] = [case.pool()]
        return tuple(pools), {}

    benchmark.pedantic(lambda pool: pool.drain(), setup=offered, rounds=5, warmup_rounds=1)
    assert pools[0].totals()["completed"] == REQUESTS
