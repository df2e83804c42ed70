"""Files of measured runs as people send them: what is wrong is named by row and column, what is good is kept."""

import pandas as pd
import pytest

from factory_sim.calibration import energy_rows, measurement_files, measurement_reader, online_rows
from factory_sim.calibration.measurement_files import judged_values, usable_rows
from factory_sim.calibration.validation import validate_file
from factory_sim.errors import MeasurementError
from factory_sim.model.step_time import WEIGHT_BYTES

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
        return usable_rows(path)

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
        ({"load": 4}, "row 3: the same as row 2"),
        ({"load": "4.0"}, "row 3: measurement_id: the same run as row 2"),
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
    assert complaints[1] == "row 6: a quote in this row is never closed"


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


def test_measured_values_of_other_tables_are_judged_cell_by_cell(tmp_path):
    table = pd.DataFrame({"model": list("abcdef"), "energy_per_output_token_j": [0.2, 0, "abc", None, -1, 0.3]})
    table = pd.concat([table, table.tail(1)], ignore_index=True)
    path = tmp_path / "file.csv"
    table.to_csv(path, index=False)
    values = judged_values(path, "energy")
    assert list(values.table.energy_per_output_token_j.dropna()) == [0.2, 0.3]
    assert list(values.source) == [0, 1, 2, 3, 4, 5, 5]
    assert values.told == [
        "row 3: energy_per_output_token_j: '0' is not a number above zero",
        "row 4: energy_per_output_token_j: 'abc' is not a number above zero",
        "row 5: energy_per_output_token_j: is empty",
        "row 6: energy_per_output_token_j: '-1' is not a number above zero",
        "row 8: the same as row 7",
    ]
    table.iloc[1:5].to_csv(path, index=False)
    with pytest.raises(MeasurementError, match="no measured value is left; row 2: energy_per_output_token_j"):
        judged_values(path, "energy")


def test_chart_of_a_profile_has_units_on_its_axes():
    from factory_sim.calibration.catalogue import chart_points, page
    from factory_sim.reports.charts.accuracy import accuracy_chart

    figure = accuracy_chart(chart_points(page("llama-3.1-70b.h200.vllm.fp8")))
    figure.canvas.draw()
    told = [label.get_text() for label in figure.axes[0].get_xticklabels() if label.get_text()]
    assert told
    assert all(text.endswith("s") for text in told)


def test_a_utf_16_file_cut_in_its_last_row_keeps_the_whole_ones(tmp_path):
    data = "\n".join([HEADER, *rows({}, {}, {})]).encode("utf-16")
    for cut in (1, 2, 3, 41):
        path = tmp_path / f"cut{cut}.csv"
        path.write_bytes(data[:-cut])
        kept, complaints = usable_rows(path)
        assert len(kept) == 2
        said = "concurrency: not a positive number" if cut == 2 else "the file ends inside this row"
        assert complaints == [f"row 4: {said}"]


def test_lines_that_repeat_are_taken_once_and_memory_does_not_grow_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(measurement_reader, "NOTED_ROWS", 10)
    path, lines = tmp_path / "rows.csv", rows({}, {}, {"tpot": 0})
    path.write_text("\n".join([HEADER, *(lines * 20), *rows({"load": 99})]) + "\n", encoding="utf-8")
    kept, complaints = usable_rows(path)
    assert list(kept.concurrency) == [4, 5, 99]
    assert complaints[:2] == ["row 4: tpot_ms: 0 is not above zero", "row 5: the same as row 2"]
    assert len(complaints) == 1 + 57
    assert max(len(block.same) for block in measurement_reader.blocks(path)) == 10
    found, report, notes = validate_file(path)
    assert len(found) == report["rows"] == 61
    assert report["errors"]["tpot"]["n"] == 3
    assert found.predicted_tpot_ms[0] == found.predicted_tpot_ms[57]
    assert len(notes) == len(complaints) + 1  # and that no row tells its software


def test_a_file_with_more_different_runs_than_a_fit_can_play_is_thinned_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(measurement_files, "MOST_FITTED", 10)
    monkeypatch.setattr(measurement_files, "MOST_TOLD", 3)
    path = tmp_path / "rows.csv"
    bad = rows(*({"load": 400 + at, "tpot": 0} for at in range(5)))
    path.write_text("\n".join([HEADER, *bad, *rows(*({"load": at} for at in range(1, 26)))]), encoding="utf-8")
    kept, complaints = usable_rows(path)
    assert list(kept.concurrency) == [1, 5, 9, 13, 17, 21, 25]
    assert complaints[3] == "and 2 more rows: tpot_ms: ... is not above zero"
    assert complaints[4] == "18 of 25 good rows: one in 4 is taken, 10 at most"


def test_an_open_quote_costs_its_own_row_and_no_other(read):
    lines = rows(*({"load": at} for at in range(1, 200)))
    lines[3] = '"' + lines[3]
    kept, complaints = read("\n".join([HEADER, *lines]) + "\n")
    assert len(kept) == 198
    assert complaints == ["row 5: a quote in this row is never closed"]


def test_a_row_that_is_none_has_an_empty_prediction_with_its_reason(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([HEADER, *rows({}), "a,b", *rows({"load": 9})]) + "\n", encoding="utf-8")
    found, report, _ = validate_file(path)
    assert list(found.reason) == ["", "2 columns, 13 are in the header", ""]
    assert found.predicted_ttft_ms.notna().tolist() == [True, False, True]
    assert (report["rows"], report["predicted"]) == (3, 2)


@pytest.mark.parametrize(
    ("told", "precision"), [("bfloat16", "bf16"), ("NVFP4", "fp4"), ("w4a16", "int4"), ("awq", "int4"), ("INT8", "int8")]
)
def test_other_names_of_precisions_are_known(read, told, precision):
    row = GOOD.replace("DeepSeek-R1,h200,trtllm,fp8", f"Llama-3.1-8B,h200,vllm,{told}").replace("tp8", "tp1")
    kept, complaints = read("\n".join([HEADER, row.format(ttft=300, tpot=15, load=4)]) + "\n")
    assert list(kept.precision) == [precision]
    assert complaints == []


def test_unknown_speculation_method_is_refused_and_off_is_none(read):
    told = [rows({}, {}, {})[at].replace("none", name) for at, name in enumerate(("eagle", "off", "MTP"))]
    kept, complaints = read("\n".join([HEADER, *told]) + "\n")
    assert list(kept.spec_decoding) == ["none", "mtp"]
    assert complaints == ["row 2: spec_decoding 'eagle' is not known; known: none, mtp, unknown"]


def test_software_that_is_not_told_widens_the_band_and_is_noted(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([HEADER + ",measured_on", *(row + date for row in rows({}, {}) for date in (",", ",2025-11-02"))]))
    found, _, notes = validate_file(path)
    untold, dated = found.iloc[0], found.iloc[1]
    assert (untold.trust, dated.trust) == ("extrapolated", "measured")
    assert untold.tpot_high_ms / untold.tpot_low_ms > dated.tpot_high_ms / dated.tpot_low_ms
    assert any(note.startswith("2 rows tell neither") for note in notes)


def test_the_band_of_a_run_of_unknown_speculation_reaches_to_both(tmp_path):
    told = [rows({})[0].replace("none", speculation) for speculation in ("unknown", "none", "mtp")]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([HEADER, *told]))
    found = validate_file(path)[0]
    unknown, plain, drafted = (found.iloc[at] for at in range(3))
    assert unknown.predicted_tpot_ms == plain.predicted_tpot_ms > drafted.predicted_tpot_ms
    assert (unknown.tpot_low_ms, unknown.tpot_high_ms) == (drafted.tpot_low_ms, plain.tpot_high_ms)
    assert unknown.reason.startswith("speculation unknown")


def test_unknown_precision_is_a_reason_and_no_end(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([HEADER, *rows({}), rows({"load": 9})[0].replace("fp8", "auto")]) + "\n")
    predictions, found, notes = validate_file(path)
    assert (found["rows"], found["predicted"]) == (2, 1)
    assert predictions.reason.iloc[1].startswith("precision 'auto' is not known; use bf16")
    assert any("row 3: precision 'auto'" in note for note in notes)


def test_spaces_and_capitals_in_the_header_do_no_harm(read):
    header = ", ".join(name.upper() for name in HEADER.split(","))
    kept, complaints = read("\n".join([header, *rows({}, {})]) + "\n")
    assert (len(kept), complaints) == (2, [])


def test_the_three_kinds_of_tables_know_the_same_names_of_precisions():
    serving = {*measurement_files.PRECISION_NAMES, *WEIGHT_BYTES}
    assert serving == set(energy_rows.PRECISIONS) == set(online_rows.PRECISIONS)


def test_other_names_of_a_gpu_are_the_same_gpu(read):
    told = [line.replace("h200", gpu) for gpu, line in zip(("h200", "NVIDIA H200", "h200_sxm"), rows({}, {}, {}))]
    again = rows({})[0].replace("h200", "H200 SXM")
    kept, complaints = read("\n".join([HEADER, *told, again]) + "\n")
    assert list(kept.gpu) == ["h200"] * 3
    assert complaints == ["row 5: measurement_id: the same run as row 2"]


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("concurrency", "inf", "concurrency: inf is more than"), ("concurrency", 10**9, "concurrency: 1e+09 is more than"),
        ("tp", 0, "tp: 0 is no count above zero"), ("replicas", "inf", "replicas: inf is more than"),
        ("tp", 4.5, "tp: 4.5 is no count"), ("mean_output_tokens", 0, "mean_output_tokens: 0 is no count"),
        ("length_distribution", "uniform[1.5*L,L]", "length_distribution: 'uniform[1.5*L,L]' is no spread"),
    ],
)  # fmt: skip
def test_what_cannot_be_played_is_a_reason_and_no_end(tmp_path, column, cell, reason):
    frame = pd.DataFrame([line.split(",") for line in rows({}, {})], columns=HEADER.split(","))
    frame[column] = frame.get(column)
    frame.loc[1, column] = str(cell)
    path = tmp_path / "rows.csv"
    frame.to_csv(path, index=False)
    predictions, found, notes = validate_file(path)
    assert (found["rows"], found["predicted"]) == (2, 1)
    assert predictions.reason.iloc[1].startswith(reason)
    assert any(f"row 3: {reason}" in note for note in notes)


def test_counts_of_the_other_mode_say_nothing(tmp_path):
    frame = pd.DataFrame([line.split(",") for line in rows({})], columns=HEADER.split(","))
    path = tmp_path / "rows.csv"
    frame.assign(prefill_workers=0, decode_workers=0, decode_gpus_per_worker=0).to_csv(path, index=False)
    assert validate_file(path)[1]["predicted"] == 1
