"""How requests are drawn: a property that is off draws nothing; one that is on shows in its column."""

import numpy as np
import pytest

from factory_sim.model.workload import RequestMix, length_model, prefix_groups, reasoning_model

LENGTHS = length_model("servegen_deepseek-r1")


def drawn(n=20_000, window=131_072, seed=3, **properties):
    return RequestMix(LENGTHS, **properties).draw(np.random.default_rng(seed), n, window)


def test_a_mix_without_properties_draws_what_the_lengths_draw():
    isl, osl = LENGTHS.sample(np.random.default_rng(3), 20_000)
    plain = drawn(window=10**9)
    assert set(plain) == {"isl", "osl"}
    assert np.array_equal(plain["isl"], isl)
    assert np.array_equal(plain["osl"], osl)


def test_properties_leave_the_lengths_alone():
    plain = drawn()
    rich = drawn(class_shares=(0.2, 0.8), cancelled_share=0.3, cancelled_after_s=2.0)
    assert np.array_equal(plain["isl"], rich["isl"])
    assert np.array_equal(plain["osl"], rich["osl"])
    assert np.mean(rich["priority"] == 0) == pytest.approx(0.2, abs=0.015)
    goes = np.isfinite(rich["patience_s"])
    assert goes.mean() == pytest.approx(0.3, abs=0.015)
    assert rich["patience_s"][goes].mean() == pytest.approx(2.0, rel=0.06)


def test_a_hundred_times_the_reasoning_is_a_hundred_times_the_hidden_tokens_and_the_same_answer():
    once = drawn(window=10**9, reasoning=reasoning_model({"factor": 1}))
    more = drawn(window=10**9, reasoning=reasoning_model({"factor": 100}))
    assert np.array_equal(more["reasoning_tokens"], 100 * once["reasoning_tokens"])
    assert np.array_equal(more["osl"] - more["reasoning_tokens"], once["osl"] - once["reasoning_tokens"])


def test_requests_beyond_the_window_are_cut_to_fit_or_left_for_the_pool_to_refuse():
    reasoning = reasoning_model({"factor": 100})
    cut = drawn(window=4096, reasoning=reasoning)
    assert (cut["isl"] + cut["osl"]).max() == 4096
    assert cut["isl"].min() >= 1
    assert (cut["reasoning_tokens"] < cut["osl"]).all()
    whole = drawn(window=4096, reasoning=reasoning, refuse=True)
    assert (whole["isl"] + whole["osl"]).max() > 4096


def test_common_prompts_begin_with_the_same_blocks():
    groups = prefix_groups({"share": 0.5, "groups": 3, "tokens": 256})
    columns = drawn(groups=groups, block_tokens=64)
    assert set(np.unique(columns["block_ids"])) == set(range(12))
    assert (np.diff(columns["block_starts"]) <= 4).all()
