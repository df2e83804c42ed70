"""Rate series: measured ones, users' own, and what cannot be one."""

import numpy as np
import pytest

from factory_sim.errors import TraceError
from factory_sim.inputs import workloads
from factory_sim.inputs.traces import packaged_rates, read_rates
from factory_sim.model.workload import arrival_times
from factory_sim.streams import stream


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_packaged_week_has_the_published_mean():
    series = packaged_rates("servegen_m-large")
    assert series.end_s == 7 * 86400
    published = workloads.statistics("servegen_m-large", "arrival_rate")["mean"].number / 60
    assert series.mean_per_s == pytest.approx(published, rel=1e-3)
    assert packaged_rates("servegen_m-mid").notes


def test_mean_over_repeats_the_series_and_scales():
    series = packaged_rates("servegen_deepseek-r1").scaled(10.0)
    assert series.mean_per_s == pytest.approx(10.0)
    assert series.mean_over(0, 86400) == pytest.approx(10.0)
    assert series.mean_over(86400 * 3.25, 86400 * 4.25) == pytest.approx(10.0)
    assert series.mean_over(700, 800) == pytest.approx(series.rate_per_s[1])
    assert series.mean_over(86400, 2 * 86400, repeat=False) == 0


def test_a_series_drives_arrivals():
    series = packaged_rates("servegen_deepseek-r1").scaled(2.0)
    times = arrival_times(stream(1, "a"), (series.start_s, series.rate_per_s), series.end_s)
    counts = np.histogram(times, np.append(series.start_s, series.end_s))[0]
    expected = series.rate_per_s * 600
    assert np.mean((counts - expected) ** 2 / expected) == pytest.approx(1.0, abs=4 * np.sqrt(2 / 144))


def test_users_tables_and_servegen_chunks_are_read(tmp_path):
    wide = write(tmp_path, "wide.csv", "t_min,chat_rps,code_rpm\n0,1.5,60\n10,2.5,120\n20,0.5,\n")
    chat = read_rates(wide, "chat")
    assert chat.start_s.tolist() == [0, 600, 1200]
    assert chat.rate_per_s.tolist() == [1.5, 2.5, 0.5]
    assert chat.end_s == 1800
    code = read_rates(wide, "code_rpm")
    assert code.rate_per_s.tolist() == [1.0, 2.0]
    chunk = write(
        tmp_path, "chunk-0-trace.csv", "0,1.3316,8.598,Weibull,0.3753,0.3968\n600,0,0,,0,0\n1200,2,1,Gamma,1,1\n"
    )
    assert read_rates(chunk).rate_per_s.tolist() == [1.3316, 0.0, 2.0]


def test_a_header_like_the_headless_one_is_a_header(tmp_path):
    series = read_rates(write(tmp_path, "h.csv", "t_s,rate_per_s,other\n0,1,5\n60,2,6\n"))
    assert series.rate_per_s.tolist() == [1, 2]


def test_rows_out_of_order_are_sorted_and_told(tmp_path):
    series = read_rates(write(tmp_path, "o.csv", "t_s,rate_per_s\n600,2\n0,1\n1200,3\n"))
    assert series.rate_per_s.tolist() == [1, 2, 3]
    assert any("sorted" in note for note in series.notes)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("t_s,rate_per_s\n0,1\n600,-2\n", None, "row 3"),
        ("t_s,rate_per_s\n0,1\n600,\n1200,2\n", None, "row 3"),
        ("t_s,rate_per_s\n0,1\n0,2\n", None, "more than once"),
        ("t_s,rate_per_s\n0,1\n", None, "two rates"),
        ("t,rate_per_s\n0,1\n", None, "no column of time"),
        ("t_s,rate\n0,1\n", None, "no column of a rate"),
        ("t_s,a_rps,b_rps\n0,1,2\n600,1,2\n", None, "several rates"),
        ("t_s,a_rps,b_rps\n0,1,2\n600,1,2\n", "c", "no rate column 'c'"),
    ],
)
def test_tables_that_are_no_rate_series_are_refused(tmp_path, text, column, message):
    with pytest.raises(TraceError, match=message):
        read_rates(write(tmp_path, "r.csv", text), column)
