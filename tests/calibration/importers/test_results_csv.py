"""Plain tables of results: units in the names, bad rows listed with row and column, good rows kept."""

import gzip

import pytest

from factory_sim.calibration.importers import inspect, read_results
from factory_sim.errors import MeasurementError

HEADER = "model,gpu,concurrency,isl,osl,ttft_ms,tpot_ms,e2e_ms\n"
GOOD = "m,h100,4,200,50,203.6,20.0,1183.6\n"


def test_good_row_is_read(write):
    point = inspect(write("r.csv", HEADER + GOOD)).points[0]
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.e2e_mean_ms) == (203.6, 20.0, 1183.6)
    assert (point.concurrency, point.isl, point.osl, point.model, point.gpu) == (4, 200, 50, "m", "h100")
    assert (point.requests_completed, point.output_tokens, point.duration_s) == (None, None, None)


@pytest.mark.parametrize(
    ("row", "reason", "where"),
    [
        ("m,h100,8,200,50,-5,20,1200", "not a time above zero", "row 3, column ttft_ms, found '-5'"),
        ("m,h100,8,200,50,NaN,20,1200", "not a time above zero", "row 3, column ttft_ms, found 'NaN'"),
        ("m,h100,8,200,50,250,0,1200", "not a time above zero", "row 3, column tpot_ms, found '0'"),
        ("m,h100,8,200,50,fast,20,1200", "not a time above zero", "found 'fast'"),
        ("m,h100,-8,200,50,250,20,1200", "not a number that makes sense", "row 3, column concurrency, found '-8'"),
        ("m,h100,8,200,50,0.25,20,1200", "another unit", "row 3"),
        ("m,h100,8,200,50,250,20,1.2", "another unit", "row 3"),
        ("m,h100,8,200,50,250", "wrong number of columns", "row 3, found 6, expected 8"),
        (GOOD.strip(), "same as an earlier row", "row 3"),
        ("m,h100,8,200,50,,,", "holds no latency", "row 3"),
    ],
)
def test_bad_row_is_listed_and_the_good_ones_stay(write, row, reason, where):
    found = inspect(write("r.csv", HEADER + GOOD + row + "\nm,h100,16,200,50,250,21,1279\n"))
    assert [point.concurrency for point in found.points] == [4, 16]
    assert any(reason in note and where in note for note in found.notes)


def test_when_every_row_is_bad_nothing_is_left(write):
    with pytest.raises(MeasurementError, match=r"nothing usable is left.*row 2, column ttft_ms"):
        inspect(write("r.csv", HEADER + "m,h100,8,200,50,-5,20,1200\n"))
    with pytest.raises(MeasurementError, match="no result"):
        inspect(write("r.csv", HEADER))


def test_times_without_unit_and_with_two_units_are_refused(write):
    with pytest.raises(MeasurementError, match="'ttft': has no unit; write ttft_ms or ttft_s"):
        inspect(write("a.csv", "concurrency,ttft,tpot\n1,2,3\n"))
    with pytest.raises(MeasurementError, match="two units"):
        inspect(write("b.csv", "concurrency,ttft_ms,ttft_s\n1,2,3\n"))
    with pytest.raises(MeasurementError, match="more than once"):
        inspect(write("c.csv", "concurrency,ttft_ms,ttft_ms\n1,2,3\n"))


@pytest.mark.parametrize("header", ["concurrency,TTFT (s),TPOT (ms)", "Concurrency,mean_ttft_s,tpot_mean_ms",
                                    "max_concurrency,ttft_seconds,tpot_ms"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_names_units_and_delimiters(write, header, delimiter):
    text = f"{header}\n4,0.2036,20\n".replace(",", delimiter)
    point = inspect(write("r.csv", text)).points[0]
    assert (point.ttft_mean_ms, point.tpot_mean_ms, point.concurrency) == (pytest.approx(203.6), 20, 4)


@pytest.mark.parametrize("pack", [lambda text: text.encode("utf-16"), lambda text: text.encode("utf-8-sig"),
                                  lambda text: gzip.compress(text.encode())])
def test_encodings(write, pack):
    assert inspect(write("r.csv", pack(HEADER + GOOD))).points[0].ttft_mean_ms == 203.6


def test_itl_is_a_chunk_gap_and_never_tpot(write):
    found = inspect(write("r.csv", "concurrency,ttft_ms,itl_ms\n4,200,20\n"))
    assert (found.points[0].tpot_mean_ms, found.points[0].chunk_gap_mean_ms) == (None, 20)
    assert any("itl was read as" in note for note in found.notes)


def test_derived_rates_come_from_counts_and_duration(write):
    header = "requests_completed,requests_failed,output_tokens,duration_s,ttft_ms,e2e_ms\n"
    point = inspect(write("r.csv", header + "24,0,1200,7.2,200,1200\n")).points[0]
    assert (point.output_tokens_per_s, point.request_rate_per_s) == (pytest.approx(1200 / 7.2), pytest.approx(24 / 7.2))
    assert point.concurrency == pytest.approx(4.0)


def test_impossible_rate_is_dropped(write):
    header = "concurrency,ttft_ms,tpot_ms,output_tokens_per_s\n"
    found = inspect(write("r.csv", header + "4,200,20,200\n4,200,20,90000\n"))
    assert len(found.points) == 1
    assert any("impossible at this concurrency" in note for note in found.notes)


@pytest.mark.parametrize("before", ["\n\n", "# made by hand\n", "sep=,\n", "\ufeff"])
def test_lines_before_the_header_are_no_rows(write, before):
    text = before + HEADER + GOOD + "m,h100,8,200,50,-5,20,1200\n"
    found = inspect(write("r.csv", text.encode()))
    assert len(found.points) == 1
    row = 3 + before.count("\n")
    assert any(f"row {row}, column ttft_ms" in note for note in found.notes)


def test_other_tables_are_refused_with_their_columns(write):
    with pytest.raises(MeasurementError, match="columns a, b, c"):
        inspect(write("r.csv", "a,b,c\n1,2,3\n"))
    with pytest.raises(MeasurementError, match="no table"):
        inspect(write("r.txt", "hello world\n"))


def test_points_without_figures_are_no_basis_for_a_profile(write):
    assert len(read_results(write("r.csv", HEADER + GOOD)).points) == 1


def test_comma_between_semicolons_is_never_guessed(write):
    text = "concurrency;ttft_ms;tpot_ms\n4;1,200;20,5\n8;210.5;21\n"
    found = inspect(write("runs.csv", text))
    assert [point.ttft_mean_ms for point in found.points] == [210.5]
    assert any("decimal comma" in note and "row 2, column ttft_ms" in note for note in found.notes)


def test_names_of_reports_with_their_units(write):
    text = "Concurrency,Mean TTFT (ms),Mean E2E Latency (s),Output Token Throughput (tok/s),request_rate\n4,200,1.18,168,inf\n"
    (point,) = inspect(write("runs.csv", text)).points
    assert (point.ttft_mean_ms, point.e2e_mean_ms, point.output_tokens_per_s) == (200, 1180, 168)
    assert point.request_rate_set_per_s is None


def test_asked_rate_is_no_measured_rate(write):
    text = "concurrency,request_rate,ttft_ms,tpot_ms\n4,5,200,20\n4,0,210,20\n"
    points = inspect(write("runs.csv", text)).points
    assert [(point.request_rate_set_per_s, point.request_rate_per_s) for point in points] == [(5, None), (None, None)]


def test_medians_are_no_means(write):
    with pytest.raises(MeasurementError, match="column 'median_ttft_ms': is a median"):
        inspect(write("runs.csv", "concurrency,median_ttft_ms,p99_ttft_ms\n4,200,300\n"))
    found = inspect(write("more.csv", "concurrency,p50_ttft_ms,output_tokens_per_s\n4,200,168\n"))
    assert found.points[0].ttft_mean_ms is None
    assert any("p50_ttft_ms is a median" in note for note in found.notes)


@pytest.mark.parametrize(("ttft", "tpot"), [(0.5, 0.02), (500_000, 90_000)])
def test_seconds_or_microseconds_under_a_name_in_milliseconds_are_dropped(write, ttft, tpot):
    found = inspect(write("runs.csv", f"concurrency,ttft_ms,tpot_ms\n4,{ttft},{tpot}\n4,500,20\n"))
    assert [point.tpot_mean_ms for point in found.points] == [20]
    assert any("another unit" in note and "row 2" in note for note in found.notes)
