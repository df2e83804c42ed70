"""What leavers say in one compiled pass is what plain array formulas say."""

import numpy as np
import pytest

from factory_sim.engine import leavers
from factory_sim.engine.kernel.state import FINISHED
from factory_sim.histogram import bin_of


def some_rows(n=5000, seed=3):
    """Requests that left in all ways, with latencies over many octaves, exact zeros and single tokens among them."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, FINISHED)
    rows["id"] = rng.permutation(n)
    rows["status"] = rng.choice(5, n, p=[0.8, 0.05, 0.05, 0.05, 0.05])
    rows["isl"], rows["osl"] = rng.integers(1, 5000, n), rng.integers(1, 4, n)
    rows["output_tokens"] = np.where(rows["status"] == 0, rows["osl"], rng.integers(0, 2, n))
    rows["arrival_s"] = rng.uniform(0, 100, n)
    waits = np.exp2(rng.uniform(-20, 12, (3, n))) * (rng.random((3, n)) > 0.01)
    rows["first_token_s"] = rows["arrival_s"] + waits[0]
    rows["first_answer_s"] = rows["first_token_s"] + waits[1]
    rows["finish_s"] = rows["first_answer_s"] + waits[2]
    return rows, rng.random(n) < 0.1


def test_latencies_are_those_of_the_formulas():
    rows, seeded = some_rows()
    found = leavers.answered(rows, seeded, 1.25, 2.0, 0.5, True)
    ok = (rows["status"] == 0) & ~seeded[rows["id"]]
    ttft = ((rows["first_token_s"] - rows["arrival_s"]) * 1.25)[ok]
    gaps = rows["osl"][ok] - 1
    tpot = (rows["finish_s"] - rows["first_token_s"])[ok] / np.maximum(gaps, 1)
    seconds = {
        "ttft": ttft,
        "tpot": tpot[gaps > 0],
        "e2e": (rows["finish_s"] - rows["arrival_s"])[ok],
        "time_to_first_answer_token": ttft + (rows["first_answer_s"] - rows["first_token_s"])[ok],
    }
    assert found.which.tolist() == np.flatnonzero(ok).tolist()
    assert found.within_slo == ((ttft <= 2.0) & ((tpot <= 0.5) | (gaps == 0))).sum()
    for metric, values in seconds.items():
        bins, counts = np.unique(bin_of(values), return_counts=True)
        assert found.latency[metric][0].tolist() == bins.tolist()
        assert found.latency[metric][1].tolist() == counts.tolist()
    assert "time_to_first_answer_token" not in leavers.answered(rows, seeded, 1.0, 2.0, 0.5, False).latency


def test_every_edge_of_an_octave_falls_into_the_bin_that_it_opens():
    edges = np.exp2(np.arange(-350, 351) / 70)
    values = np.concatenate([edges, np.nextafter(edges, 0.0)])
    rows = np.zeros(len(values), FINISHED)
    rows["osl"], rows["finish_s"] = 1, values
    bins, counts = leavers.answered(rows, np.zeros(1, bool), 1.0, 1.0, 1.0, False).latency["e2e"]
    expected, number = np.unique(bin_of(values), return_counts=True)
    assert bins.tolist() == expected.tolist()
    assert counts.tolist() == number.tolist()


def test_totals_add_up():
    rows, _ = some_rows()
    left = leavers.totals(rows)
    done, begun = rows["status"] == 0, rows["status"] >= 2
    assert left.sojourn_s == pytest.approx((rows["finish_s"] - rows["arrival_s"]).sum(), rel=1e-12)
    assert left.isl_completed == rows["isl"][done].sum()
    assert left.isl_partial == rows["isl"][begun].sum()
    assert left.osl_emitted == rows["output_tokens"].sum()


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_a_latency_that_cannot_be_is_an_error(wrong):
    rows = np.zeros(1, FINISHED)
    rows["osl"], rows["finish_s"] = 1, wrong
    with pytest.raises(ValueError, match="latency"):
        leavers.answered(rows, np.zeros(1, bool), 1.0, 1.0, 1.0, False)


def test_reading_waits_are_those_of_evenly_spaced_tokens():
    rows = np.zeros(3, FINISHED)
    rows["osl"] = [101, 101, 1]
    rows["first_answer_s"] = 2.0
    rows["finish_s"] = [2.0 + 5.0, 2.0 + 20.0, 2.0]  # 20 and 5 tokens a second, and a single token
    found = leavers.reading(rows, np.zeros(3, np.int64), 10.0)
    token_s = np.arange(101) * 0.05
    waits_s = np.arange(101) * 0.1 - token_s
    for metric, expected in (("token_wait", [waits_s.mean(), 0, 0]), ("reader_wait", [0, 20.0 - 10.0, 0])):
        bins, counts = np.unique(bin_of(np.array(expected)), return_counts=True)
        np.testing.assert_array_equal(found[metric][0], bins)
        np.testing.assert_array_equal(found[metric][1], counts)


def test_hidden_reasoning_is_not_read():
    rows = np.zeros(1, FINISHED)
    rows["osl"], rows["first_answer_s"], rows["finish_s"] = 101, 2.0, 3.0
    bins, _ = leavers.reading(rows, np.array([60]), 10.0)["token_wait"]
    assert bins[0] == bin_of(np.array([(40 / 10.0 - 1.0) / 2]))[0]
