"""Lengths keep the published quantiles and means, and measured pairs stay pairs."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_sim.errors import TraceError
from factory_sim.inputs import workloads
from factory_sim.model.workload.lengths import ALIASES, assumed_rank_correlation, length_model, length_model_names
from factory_sim.model.workload.quantiles import QuantileCurve
from factory_sim.streams import stream

N = 200_000
SERVEGEN = ["servegen_deepseek-r1", "servegen_m-large", "servegen_m-mid", "servegen_m-small"]


def ranks(values):
    return np.argsort(np.argsort(values + 1e-9 * np.arange(len(values)), kind="stable"), kind="stable")


def spearman(a, b):
    return np.corrcoef(ranks(a), ranks(b))[0, 1]


@pytest.mark.parametrize("name", SERVEGEN)
def test_servegen_samples_have_the_published_quantiles_and_means(name):
    isl, osl = length_model(name).sample(stream(1, "lengths", name), N)
    for quantity, values in (("input_tokens", isl), ("output_tokens", osl)):
        mean = workloads.statistics(name, quantity)["mean"].number
        assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(N) + 0.01 * mean
        for p, published in zip(*workloads.quantiles(name, quantity)):
            error = 4 * np.sqrt(p * (1 - p) / N)
            assert np.mean(values < published) <= p + error + 1e-3
            assert np.mean(values <= published) >= p - error - 1e-3


@pytest.mark.parametrize("name", SERVEGEN)
def test_servegen_model_means_are_the_published_ones(name):
    model = length_model(name)
    assert model.mean_isl == pytest.approx(workloads.statistics(name, "input_tokens")["mean"].number, rel=1e-6)
    assert model.mean_osl == pytest.approx(workloads.statistics(name, "output_tokens")["mean"].number, rel=1e-6)


@pytest.mark.parametrize("name", sorted(workloads.trace_index()))
@pytest.mark.parametrize("quantity", ["input_tokens", "output_tokens"])
def test_curve_through_the_quantiles_of_a_trace_has_nearly_its_mean_unforced(name, quantity):
    """The traces know the truth: quantiles alone, interpolated, give their mean to 7 % (arXiv answers; the rest 2
    %)."""
    curve = QuantileCurve(*workloads.quantiles(name, quantity))
    assert curve.mean == pytest.approx(workloads.statistics(name, quantity)["mean"].number, rel=0.07)


def test_rank_correlation_is_the_assumed_or_the_given_one():
    isl, osl = length_model("servegen_deepseek-r1").sample(stream(2, "lengths"), N)
    assert spearman(isl, osl) == pytest.approx(assumed_rank_correlation(), abs=0.01)
    named = length_model({"named": {"name": "servegen_deepseek-r1", "rank_correlation": 0.5}})
    isl, osl = named.sample(stream(2, "lengths"), N)
    assert spearman(isl, osl) == pytest.approx(0.5, abs=0.01)
    assert "assumed" not in named.source


@pytest.mark.parametrize("name", sorted(workloads.trace_index()))
def test_trace_lengths_are_drawn_as_measured_pairs(name):
    columns = workloads.packaged_columns(name)
    isl, osl = length_model(name).sample(stream(3, "lengths"), 2000)
    pairs = set(zip(columns["isl"].tolist(), np.maximum(columns["osl"], 1).tolist()))
    assert set(zip(isl.tolist(), osl.tolist())) <= pairs
    assert length_model(name).mean_isl == columns["isl"].mean()


def test_multimodal_prompts_are_text_plus_images():
    model = length_model("servegen_mm-image")
    isl, _ = model.sample(stream(4, "lengths"), N)
    assert isl.mean() == pytest.approx(model.mean_isl, rel=0.01)
    text = workloads.statistics("servegen_mm-image", "text_tokens")["mean"].number
    tokens = workloads.statistics("servegen_mm-image", "image_tokens")["mean"].number
    images = workloads.statistics("servegen_mm-image", "image_count")["mean"].number
    assert model.mean_isl == pytest.approx(text + images * tokens, rel=0.02)


def test_benchmark_lengths_are_uniform_from_four_fifths():
    model = length_model("benchmark_1024_512")
    isl, osl = model.sample(stream(5, "lengths"), N)
    assert (isl.min(), isl.max(), osl.min(), osl.max()) == (819, 1024, 409, 512)
    assert isl.mean() == pytest.approx(model.mean_isl, abs=4 * 59 / np.sqrt(N))
    assert model.mean_osl == (409 + 512) / 2


def test_mixture_has_the_weighted_mean():
    model = length_model(
        {
            "mixture": [
                {"share": 3, "lengths": "azure2023_conv"},
                {"share": 1, "lengths": {"fixed": {"isl": 9, "osl": 7}}},
            ]
        }
    )
    isl, osl = model.sample(stream(6, "lengths"), N)
    assert isl.mean() == pytest.approx(model.mean_isl, rel=0.01)
    assert np.mean((isl == 9) & (osl == 7)) == pytest.approx(0.25, abs=0.005)


def test_geometric_answers_have_their_mean_and_no_memory():
    _, osl = length_model({"geometric": {"isl": 10, "mean_osl": 40}}).sample(stream(7, "lengths"), N)
    assert osl.mean() == pytest.approx(40, abs=4 * 40 / np.sqrt(N))
    assert osl[osl > 30].mean() - 30 == pytest.approx(40, rel=0.02)


@pytest.mark.parametrize("name", length_model_names())
def test_every_named_model_gives_positive_whole_lengths_within_its_bounds(name):
    model = length_model(name)
    isl, osl = model.sample(stream(8, "lengths"), 20_000)
    assert isl.dtype == osl.dtype == np.int64
    assert isl.min() >= 1
    assert osl.min() >= 1
    assert isl.max() <= model.max_isl
    assert osl.max() <= model.max_osl
    again = model.sample(stream(8, "lengths"), 20_000)
    assert np.array_equal(isl, again[0])
    assert np.array_equal(osl, again[1])


def test_lengths_of_a_users_file_are_its_pairs(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("input_tokens,output_tokens\n10,5\n2000,30\n")
    model = length_model({"trace": {"path": str(path)}})
    isl, osl = model.sample(stream(9, "l"), 1000)
    assert set(zip(isl.tolist(), osl.tolist())) == {(10, 5), (2000, 30)}
    assert "own.csv" in model.source


def test_short_names_are_aliases():
    for short, name in ALIASES.items():
        assert length_model(short).name == name


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.integers(1, 10**6), min_size=3, max_size=8, unique=True).map(sorted),
    tilt=st.floats(0.35, 0.65),
)
def test_any_quantile_curve_is_monotone_and_passes_its_quantiles(values, tilt):
    p = np.linspace(0.05, 0.99, len(values))
    plain = QuantileCurve(p, values)
    mean = plain.mean * (0.98 + 0.04 * tilt)
    least, most = plain.mean_range()
    if not least <= mean <= most:
        with pytest.raises(TraceError, match="does not fit"):
            QuantileCurve(p, values, mean)
        return
    curve = QuantileCurve(p, values, mean)
    assert np.all(np.diff(curve.values) >= -1e-9 * curve.values[1:])
    assert curve.mean == pytest.approx(mean, rel=1e-6)
    assert curve.at(np.array([NormalDist().inv_cdf(q) for q in p])) == pytest.approx(values, rel=2e-2, abs=1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("servegen_deepseek", "did you mean 'servegen_deepseek-r1'"),
        ("benchmark_1k_1k", "benchmark_ISL_OSL"),
        ({"uniforme": {}}, "did you mean 'uniform'"),
        ({"uniform": {"isl": 10}}, "lengths.uniform.osl"),
        ({"uniform": {"isl": 10, "osl": 10, "low": 0.5}}, "unknown key 'low'"),
        ({"uniform": {"isl": 10, "osl": 10, "low_fraction": 2}}, "fraction from 0 to 1"),
        ({"fixed": {"isl": 0, "osl": 10}}, ">= 1"),
        ({"fixed": {"isl": float("nan"), "osl": 10}}, ">= 1"),
        ({"quantiles": {"isl": {"p50": 100, "p90": 50}, "osl": {"p50": 1, "p90": 2}}}, "must not fall"),
        ({"quantiles": {"isl": {"p50": 100, "p90": 200, "mean": 9000}, "osl": {"p50": 1, "p90": 2}}}, "does not fit"),
        ({"quantiles": {"isl": {"median": 100}, "osl": {"p50": 1, "p90": 2}}}, "unknown key 'median'"),
        ({"mixture": [{"share": 0, "lengths": "azure2023_conv"}]}, "positive"),
        ({"fixed": {"isl": 1, "osl": 1}, "uniform": {}}, "one key"),
        (7, "a name or a mapping"),
    ],
)
def test_wrong_descriptions_say_what_would_be_right(spec, message):
    with pytest.raises(TraceError, match=message):
        length_model(spec)


def test_requests_may_be_given_as_content():
    short = length_model({"content": {"input": {"pages": 1}, "output": {"words": 100, "language": "ja"}}})
    long = length_model({"content": {"input": {"pages": 3}, "output": {"words": 300, "language": "ja"}}})
    assert long.mean_isl > 2 * short.mean_isl
    assert long.mean_osl == pytest.approx(3 * short.mean_osl, rel=0.02)


def test_stretched_lengths_have_their_means_and_the_shape_of_the_others():
    spec = {"stretched": {"lengths": "azure2023_conv", "mean_isl": 4000, "mean_osl": 1000}}
    plain, wide = length_model("azure2023_conv"), length_model(spec)
    isl, osl = wide.sample(np.random.default_rng(3), 200_000)
    assert isl.mean() == pytest.approx(4000, rel=0.01)
    assert osl.mean() == pytest.approx(1000, rel=0.01)
    other = plain.sample(np.random.default_rng(3), 200_000)
    assert np.max(np.abs(isl - other[0] * 4000 / plain.mean_isl)) <= 0.5
    assert np.max(np.abs(np.maximum(osl - other[1] * 1000 / plain.mean_osl, 0))) <= 1


def test_stretched_lengths_need_both_means():
    with pytest.raises(TraceError, match="lengths.stretched.mean_osl"):
        length_model({"stretched": {"lengths": "azure2023_conv", "mean_isl": 4000}})
