"""How figures are written: short, with a unit, and never claiming more than they say."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_sim.reports import formatting as f


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.16, "USD", "$0.16"),
        (3.589, "USD per million tokens", "$3.59"),
        (0.0722, "USD", "$0.072"),
        (0.00361, "USD", "$0.0036"),
        (5, "USD", "$5.00"),
        (127.4, "USD", "$127"),
        (87072, "USD", "$87.1 k"),
        (562027, "USD", "$562 k"),
        (999_600, "USD", "$1.00 M"),
        (-12_345, "USD", "-$12.3 k"),
        (0, "USD", "$0"),
        (0.0384, "s", "38.4 ms"),
        (0.9996, "s", "1.00 s"),
        (15, "s", "15.0 s"),
        (300, "s", "300 s"),
        (900, "s", "15.0 min"),
        (3 * 3600, "s", "3.00 h"),
        (4e5, "s", "4.63 d"),
        (2e-5, "s", "20.0 µs"),
        (0.973, "fraction", "97.3 %"),
        (1, "fraction", "100 %"),
        (0, "fraction", "0 %"),
        (0.00012, "fraction", "0.01 %"),
        (22.04, "ratio", "22.0×"),
        (1.39, "ratio", "1.39×"),
        (0.0453, "ratio", "0.045×"),
        (168e9, "tokens", "168 B"),
        (1_234_567, "requests", "1.23 M"),
        (999, "requests", "999"),
        (1.2e6, "kWh", "1.20 GWh"),
        (0.5, "kWh", "500 Wh"),
        (1730, "W", "1.73 kW"),
        (0.35, "J", "350 mJ"),
        (80e9, "bytes", "80.0 GB"),
        (None, "USD", "–"),
        (float("nan"), "s", "–"),
        (float("inf"), "USD", "∞"),
    ],
)
def test_a_value_reads_as_a_person_would_write_it(value, unit, text):
    assert f.format_value(value, unit) == text


def test_a_given_number_has_no_trailing_zeros():
    assert f.format_value(15, "s", exact=True) == "15 s"
    assert f.format_value(0.04, "s", exact=True) == "40 ms"
    assert f.format_value(0.95, "fraction", exact=True) == "95 %"
    assert f.format_value(100, "requests", exact=True) == "100"


@given(st.floats(0.9, 1, exclude_max=True))
def test_a_share_below_one_never_reads_100_per_cent(share):
    if share < 1 - 1.1e-9:
        assert float(f.format_value(share, "fraction").split()[0]) < 100


@given(st.floats(1e-9, 1e14), st.sampled_from(["USD", "s", "ratio", "tokens", "kWh", "W", "fraction"]))
def test_what_is_written_is_within_half_a_per_cent_or_the_last_place(value, unit):
    scales = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "ms": 1e-3, "µs": 1e-6, "min": 60, "h": 3600, "d": 86400,
              "mWh": 1e-6, "µWh": 1e-9, "Wh": 1e-3, "MWh": 1e3, "GWh": 1e6, "TWh": 1e9, "%": 0.01,
              "mW": 1e-3, "µW": 1e-6, "kW": 1e3, "MW": 1e6, "GW": 1e9, "TW": 1e12}  # fmt: skip
    number, suffix = re.fullmatch(r"\$?([\d.,]+)[ ×]?(.*)", f.format_value(value, unit)).groups()
    place = 10.0 ** -len(number.partition(".")[2])
    scale = scales.get(suffix, 1.0)
    assert float(number.replace(",", "")) * scale == pytest.approx(value, rel=0.006, abs=0.51 * place * scale)


@pytest.mark.parametrize(
    ("band", "unit", "text"),
    [
        ((0.14, 0.16, 0.18), "USD", "0.14–0.18"),
        ((0.0346, 0.0384, 0.0422), "s", "34.6–42.2"),
        ((-143_000, -119_000, -95_000), "USD", "-143 to -95"),
        ((0.9993, 0.9996, 0.9999), "fraction", "99.93–99.99"),
        ((1e-5, 0.5, 0.9), "USD", "<0.01–0.90"),
        ((1e3, 0.5, 1e9), "tokens", "1.00 k–1.00 B"),
        ((1.0, None, 2.0), "USD", "$1.00–$2.00"),
        ((None, 1.0, 2.0), "USD", ""),
        ((float("nan"), 1.0, 2.0), "USD", ""),
        ((3.0, 3.0, 3.0), "GPU-hours", ""),
        ((0.7321, 0.7323, 0.7324), "s", ""),
        ((0.97, 0.999999999999, 1.0), "fraction", "97.0–100"),
    ],
)
def test_a_band_is_in_the_scale_of_its_value(band, unit, text):
    assert f.format_band(*band, unit) == text


def test_units_are_said_once():
    assert f.format_quantity(1.23e6, "tokens") == "1.23 M tokens"
    assert f.format_quantity(0.038, "s") == "38.0 ms"


def test_figures_and_windows_have_names_for_people():
    assert f.figure_label("ttft_p95") == "TTFT p95"
    assert f.figure_label("gpu_energy") == "GPU energy"
    assert f.window_label("week_1") == "week 1"
    assert f.window_label("whole") == "whole run"
    assert f.window_label("stage_b200-disagg") == "b200-disagg"


def test_only_the_steps_of_trust_that_are_shown_are_explained():
    assert f.trust_legend(["extrapolated", None, "measured"]) == "● measured   ○ extrapolated"
    assert f.trust_mark(None) == ""
    assert f.trust_mark("estimated", ascii_only=True) == "E"
