"""Packaged traces and published statistics describe the same data, by two routes."""

import numpy as np
import pytest

from factory_sim.errors import TraceError
from factory_sim.inputs import workloads

TRACES = list(workloads.trace_index())


@pytest.mark.parametrize("name", TRACES)
def test_packaged_trace_has_the_rows_and_quantiles_of_its_published_statistics(name):
    columns = workloads.packaged_columns(name)
    assert len(columns["isl"]) == int(workloads.trace_index()[name]["rows"])
    for quantity, values in (("input_tokens", columns["isl"]), ("output_tokens", columns["osl"])):
        rows = workloads.statistics(name, quantity)
        assert values.mean() == pytest.approx(rows["mean"].number, rel=1e-5)
        assert (values.min(), values.max()) == (rows["min"].number, rows["max"].number)
        probabilities, published = workloads.quantiles(name, quantity)
        assert np.quantile(values, probabilities) == pytest.approx(published, rel=1e-3, abs=0.5)


def test_mooncake_blocks_cover_the_prompt_and_repeat_as_published():
    columns = workloads.packaged_columns("mooncake_conversation")
    blocks = np.diff(columns["block_offsets"])
    assert np.array_equal(blocks, -(-columns["isl"] // 512))
    seen, hits = set(), 0
    for k in range(len(blocks)):
        ids = columns["block_ids"][columns["block_offsets"][k] : columns["block_offsets"][k + 1]]
        for place, block in enumerate(ids.tolist()):
            if block not in seen:
                break
            hits += min(512, columns["isl"][k] - 512 * place)
        seen.update(ids.tolist())
    published = workloads.statistics("mooncake_conversation", "prefix_cache_hit")["token_ratio_infinite_cache"].number
    assert hits / columns["isl"].sum() == pytest.approx(published, rel=1e-5)


def test_agentic_prefixes_hit_as_published():
    columns = workloads.packaged_columns("agentic_claude_code")
    published = workloads.statistics("agentic_claude_code", "prefix_cache_hit")["token_ratio_within_session"].number
    assert columns["cached_tokens"].sum() / columns["isl"].sum() == pytest.approx(published, rel=1e-5)


def test_every_statistic_has_value_unit_source_and_date():
    for name in workloads.workload_names():
        for rows in workloads._statistics()[name].values():
            for row in rows.values():
                assert all((row.value, row.unit, row.source, row.date))


def test_rate_series_mean_is_the_published_rate():
    start_s, rate = workloads.rate_series("servegen_deepseek-r1")
    assert len(rate) == 144
    assert np.all(np.diff(start_s) == 600)
    assert rate.mean() * 60 == pytest.approx(
        workloads.statistics("servegen_deepseek-r1", "arrival_rate")["mean"].number, rel=1e-4
    )


def test_unknown_names_are_refused_with_the_nearest_known():
    with pytest.raises(TraceError, match="did you mean 'azure2023_conv'"):
        workloads.statistics("azure2023_con", "input_tokens")
    with pytest.raises(TraceError, match="input_tokens"):
        workloads.statistics("azure2023_conv", "input_token")
    with pytest.raises(TraceError, match="no trace 'mooncake'"):
        workloads.packaged_columns("mooncake")
    with pytest.raises(TraceError, match="servegen_m-large"):
        workloads.rate_series("servegen_m-larg")
