"""Files of measured runs as people send them: what is wrong is named by row and column, what is good is kept."""

import pandas as pd
import pytest

from factory_sim.calibration.measurement_files import checked, judged_values, read_csv
from factory_sim.errors import MeasurementError

HEADER = "model,gpu,backend,precision,mode,parallelism,spec_decoding,isl,osl,n_gpus,ttft_ms,tpot_ms,concurrency"
GOOD = "DeepSeek-R1,h200,trtllm,fp8,agg,tp8pp1ep1dpaFr1,none,1024,1024,8,{ttft},{tpot},{load}"


def rows(*changes):
    return [GOOD.format(**{"ttft": 300, "tpot": 15, "load": 4 + at} | change) for at, change in enumerate(changes)]


@pytest.fixture
def read(tmp_path):
    """Write a file, read and check it; return (rows kept, complaints)."""

    def through(text, encoding="utf-8"):
        path = tmp_path / "rows.csv"
        path.write_bytes(text.encode(encoding))
        return checked(read_csv(path), "rows.csv")

    return through


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tpot": 0}, "row 3: tpot_ms: 0 is not above zero"),
        ({"ttft": -5}, "row 3: ttft_ms: -5 is not above zero"),
        ({"tpot": "nan"}, "row 3: tpot_ms: not a number"),
        ({"tpot": 0.015}, "row 3: tpot_ms: 0.015 ms is beyond the roofline"),
        ({"tpot": 15000, "ttft": 300000}, "row 3: tpot_ms: 15000 ms a token"),
        ({"ttft": 0.3}, "row 3: ttft_ms: 0.3 ms is shorter than a step"),
        ({"load": -1}, "row 3: concurrency"),
        ({"load": 4}, "row 3: measurement_id: the same run as row 2"),
    ],
)
def test_bad_row_is_named_and_the_good_ones_stay(read, change, complaint):
    kept, complaints = read("\n".join([HEADER, *rows({}, change, {})]) + "\n")
    assert len(kept) == 2
    assert len(complaints) == 1
    assert complaints[0].startswith(complaint)


def test_long_rows_and_a_quote_that_is_never_closed(read):
    kept, complaints = read("\n".join([HEADER, *rows({}, {}), "a,b" + ",c" * 20, *rows({"load": 9}), '"abc,1']) + "\n")
    assert list(kept.concurrency) == [4, 5, 9]
    assert complaints[0] == "row 4: 22 columns, 13 are in the header"
    assert complaints[1] == "row 6: 1 columns, 13 are in the header"


def test_row_in_which_the_file_ends_is_not_taken(read):
    kept, complaints = read("\n".join([HEADER, *rows({}, {})]).rpartition(",")[0])
    assert list(kept.concurrency) == [4]
    assert complaints == ["row 3: the file ends inside this row"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(read, encoding):
    text = "\n".join([HEADER + ",note", *(row + ",Zürich" for row in rows({}, {}))])
    assert len(read(text, encoding)[0]) == 2


def test_when_nothing_is_left_the_first_rows_are_told(read):
    with pytest.raises(MeasurementError, match="no usable row is left; row 2: tpot_ms: 0 is not above zero"):
        read("\n".join([HEADER, *rows({"tpot": 0}, {"tpot": 0})]))


def test_measured_values_of_other_tables_are_judged_cell_by_cell():
    table = pd.DataFrame({"model": list("abcdef"), "energy_per_output_token_j": [0.2, 0, "abc", None, -1, 0.3]})
    table = pd.concat([table, table.tail(1)], ignore_index=True)
    values, complaints = judged_values(table, "energy", "file.csv")
    assert list(values.energy_per_output_token_j.dropna()) == [0.2, 0.3]
    assert complaints == [
        "row 3: energy_per_output_token_j: '0' is not a number above zero",
        "row 4: energy_per_output_token_j: 'abc' is not a number above zero",
        "row 5: energy_per_output_token_j: is empty",
        "row 6: energy_per_output_token_j: '-1' is not a number above zero",
        "row 8: the same as an earlier row",
    ]
    with pytest.raises(MeasurementError, match="no measured value is left; row 2: energy_per_output_token_j"):
        judged_values(table.iloc[1:5].reset_index(drop=True), "energy", "file.csv")


def test_chart_of_a_profile_has_units_on_its_axes():
    from factory_sim.calibration.catalogue import chart_points, page
    from factory_sim.reports.charts.accuracy import accuracy_chart

    figure = accuracy_chart(chart_points(page("llama-3.1-70b.h200.vllm.fp8")))
    figure.canvas.draw()
    told = [label.get_text() for label in figure.axes[0].get_xticklabels() if label.get_text()]
    assert told
    assert all(text.endswith("s") for text in told)
