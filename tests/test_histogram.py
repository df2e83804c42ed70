"""Latency histograms: quantiles within a bin, counts that add, and doubling that is exact."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_sim import histogram as h
from factory_sim.streams import stream

BIN_WIDTH = 2 ** (1 / h.BINS_PER_OCTAVE) - 1
latencies = st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=60)
latencies_or_zero = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e9)), min_size=0, max_size=40)
any_quantile = st.floats(0, 1)


@given(latencies)
def test_every_value_lies_between_the_edges_of_its_bin(values):
    bins = h.bin_of(values).astype(int)
    assert (h.lower_edge(bins) <= values).all()
    assert (values < h.lower_edge(bins + 1)).all()


@given(latencies)
def test_doubling_values_moves_every_bin_by_seventy(values):
    assert (h.bin_of(2 * np.array(values)) == h.bin_of(values) + 70).all()


@given(latencies, any_quantile)
def test_doubling_values_doubles_quantiles_to_the_last_bit(values, q):
    assert h.quantile(h.histogram(2 * np.array(values)), q) == 2 * h.quantile(h.histogram(values), q)


@given(latencies, any_quantile)
def test_a_quantile_is_within_one_bin_of_the_inverse_distribution_function(values, q):
    exact = np.quantile(values, q, method="inverted_cdf")
    assert h.quantile(h.histogram(values), q) == pytest.approx(exact, rel=BIN_WIDTH)


@pytest.mark.parametrize("q", [0.01, 0.5, 0.95, 0.99])
def test_quantiles_of_a_smooth_distribution_are_far_better_than_a_bin(q):
    values = stream(7, "latency").lognormal(0, 1, 200_000)
    assert h.quantile(h.histogram(values), q) == pytest.approx(np.quantile(values, q), rel=BIN_WIDTH / 3)


@given(latencies_or_zero, latencies_or_zero, latencies_or_zero)
def test_merging_is_associative_commutative_and_the_histogram_of_all_values(a, b, c):
    of = [h.histogram(values) for values in (a, b, c)]
    left = h.merge([h.merge(of[:2]), of[2]])
    right = h.merge([h.merge(of[:0:-1]), of[0]])
    pd.testing.assert_frame_equal(left, right)
    pd.testing.assert_frame_equal(left, h.histogram(a + b + c))


@given(latencies)
def test_a_weight_counts_a_value_that_often(values):
    pd.testing.assert_frame_equal(h.histogram(values, weights=3.0), h.histogram(np.repeat(values, 3)))


def test_quantiles_grow_with_q_and_span_the_values():
    values = stream(1, "latency").gamma(2.0, 0.3, 1_000)
    found = h.quantile(h.histogram(values), np.linspace(0, 1, 50))
    assert (np.diff(found) >= 0).all()
    assert found[0] <= values.min()
    assert found[-1] == pytest.approx(values.max(), rel=BIN_WIDTH)


def test_zeros_have_their_own_bin_and_a_quantile_of_zero():
    zeros_and_ones = h.histogram([0.0, 0.0, 0.0, 1.0])
    assert zeros_and_ones["bin"].tolist() == [h.ZERO_BIN, 0]
    assert h.quantile(zeros_and_ones, 0.5) == 0.0
    assert h.quantile(zeros_and_ones, 0.9) == pytest.approx(1.0, rel=BIN_WIDTH)


def test_an_empty_histogram_has_no_quantile():
    assert np.isnan(h.quantile(h.histogram([]), 0.5))
    assert h.merge([]).empty
    assert h.count(h.merge([])) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_values_that_are_no_latency_are_refused(value):
    with pytest.raises(ValueError, match="finite"):
        h.histogram([1.0, value])


def test_a_quantile_outside_zero_to_one_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        h.quantile(h.histogram([1.0]), 95)


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="weights"):
        h.histogram([1.0], weights=[-1.0])


def test_the_bins_of_the_smallest_and_largest_floats_exist():
    extreme = np.array([5e-324, np.finfo(float).tiny, np.finfo(float).max])
    assert (h.lower_edge(h.bin_of(extreme)) <= extreme).all()


@pytest.fixture
def latency():
    rng = stream(3, "latency")
    keys = pd.DataFrame({"replication": rng.integers(0, 2, 400), "metric": rng.choice(["tpot", "ttft"], 400)})
    return keys, rng.lognormal(-1, 0.5, 400)


def test_histograms_by_key_are_the_histograms_of_the_parts(latency):
    keys, values = latency
    table = h.histogram_by(keys, values)
    assert list(table.columns) == ["replication", "metric", "bin", "count"]
    part = table[(table.replication == 1) & (table.metric == "ttft")][["bin", "count"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, h.histogram(values[(keys.replication == 1) & (keys.metric == "ttft")]))


def test_quantiles_by_key_merge_what_the_key_leaves_out(latency):
    keys, values = latency
    found = h.quantiles_by(h.histogram_by(keys, values), ["metric"], [0.5, 0.95])
    assert found[["metric", "q"]].to_numpy().tolist() == [["tpot", 0.5], ["tpot", 0.95], ["ttft", 0.5], ["ttft", 0.95]]
    tpot = h.histogram(values[keys.metric == "tpot"])
    assert found["value"].tolist()[:2] == h.quantile(tpot, [0.5, 0.95]).tolist()


def test_another_group_changes_nobody_elses_quantiles(latency):
    keys, values = latency
    both = h.quantiles_by(h.histogram_by(keys, values), ["metric"], [0.1, 0.9])
    chosen = keys.metric == "ttft"
    alone = h.quantiles_by(h.histogram_by(keys[chosen], values[chosen]), ["metric"], [0.1, 0.9])
    assert both[both.metric == "ttft"]["value"].tolist() == alone["value"].tolist()


def test_quantiles_without_a_key_are_those_of_everything(latency):
    keys, values = latency
    found = h.quantiles_by(h.histogram_by(keys, values), [], [0.5])
    assert found["value"].tolist() == [h.quantile(h.histogram(values), 0.5)]


@given(st.lists(latencies_or_zero, min_size=1, max_size=5))
def test_quantiles_of_many_rows_are_those_of_each(rows):
    bins = h.merge([h.histogram(row) for row in rows])["bin"].to_numpy()
    counts = np.array([h.histogram(row).set_index("bin")["count"].reindex(bins).fillna(0.0).to_numpy() for row in rows])
    q = [0.0, 0.5, 0.95, 1.0]
    if len(bins):
        found = h.quantile_rows(bins, counts.reshape(len(rows), len(bins)), q)
        for place, row in enumerate(rows):
            expected = h.quantile(h.histogram(row), q)
            if len(row):
                assert found[1:, place].tolist() == expected[1:].tolist()
            else:
                assert np.isnan(found[:, place]).all()
