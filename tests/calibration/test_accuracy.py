import gzip

import numpy as np
import pandas as pd
import pytest

from factory_sim.calibration import accuracy, benchmarks, frontier, measurement_files
from factory_sim.calibration.validation import validate_file
from factory_sim.errors import MeasurementError
from factory_sim.inputs.measurements import serving
from factory_sim.model.serving import serving_system

ROW = {
    "measurement_id": "x", "model": "DeepSeek-R1", "gpu": "h200", "backend": "trtllm", "precision": "fp8",
    "mode": "agg", "parallelism": "tp8pp1ep1dpaFr1", "isl": 1024, "osl": 1024, "concurrency": 32, "ttft_ms": 600.0,
    "tpot_ms": 26.0,
}  # fmt: skip


def table(*changes):
    return pd.DataFrame([ROW | change for change in changes])


def test_rows_come_back_in_their_order_with_values_or_a_reason():
    found = accuracy.predict_rows(
        table({"measurement_id": "b"}, {"measurement_id": "a", "model": "DeepSeek-R9"}, {"gpu": "a100", "model":
              "Llama-3.1-8B", "precision": "int4", "parallelism": "tp1"})
    )  # fmt: skip
    assert list(found.measurement_id) == ["b", "a", "x"]
    assert tuple(found.columns) == accuracy.PREDICTION_COLUMNS
    assert np.isnan(found.predicted_tpot_ms[1])
    assert "DeepSeek-R1" in found.reason[1]
    assert found.trust[2] == "estimated"
    good = found.iloc[[0, 2]]
    assert (good.tpot_low_ms <= good.predicted_tpot_ms).all()
    assert (good.predicted_tpot_ms <= good.tpot_high_ms).all()


def test_measured_columns_do_not_reach_the_prediction():
    first, second = accuracy.predict_rows(table({}, {"ttft_ms": 1e5, "tpot_ms": 1e3})).to_dict("records")
    assert first == second


def test_packaged_rows_are_played_within_their_error():
    """Of the main job's first stage: throughput within 15 % at every measured concurrency."""
    points = frontier.frontier(frontier.TWENTY_X[:1])
    simulated = points[points.kind == "simulated"]
    assert len(simulated) == 5
    assert (simulated.difference.abs() < 0.15).all()


def test_frontier_throughput_is_littles_law():
    points = frontier.frontier(frontier.TWENTY_X[:1], {"h200": 2.9})
    measured = points[points.kind == "measured"].iloc[0]
    row = serving().set_index("measurement_id").loc[measured.measurement_id]
    answer = row.mean_output_tokens
    rate = row.concurrency * answer / (row.ttft_s + row.tpot_s * (answer - 1)) / row.n_gpus
    assert measured.tokens_per_s_per_gpu == pytest.approx(rate)
    assert measured.usd_per_million_output_tokens == pytest.approx(2.9 / 3600 / rate * 1e6)


def test_one_request_at_a_time_takes_its_own_steps_and_no_more():
    system = serving_system("Llama-3.1-70B", "h200", "vllm", "fp8", "tp8", concurrency=1)
    played = benchmarks.play(system, 512, 64, 1.0, 1)
    step = system.workers[0].step
    decode = step.base_s[1] + step.kv_s * (512 + 31.5)
    assert np.median(played["tpot_s"]) == pytest.approx(decode, rel=0.02)
    pairs = 512 * 513 / 2
    prompt = step.base_s[512] + step.prefill_s * 512 + step.pair_s * pairs
    assert np.median(played["ttft_s"]) == pytest.approx(system.request_overhead_s + prompt, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"ttft_ms": 0.0}, "ttft_ms: 0 is not above zero"),
        ({"tpot_ms": -3.0}, "tpot_ms: -3 is not above zero"),
        ({"tpot_ms": float("nan")}, "tpot_ms: not a number"),
        ({"tpot_ms": 0.2}, "beyond the roofline"),
        ({"tpot_ms": 2e6}, "microseconds"),
        ({"ttft_ms": 8.0, "isl": 8192}, "ttft_ms: 8 ms is beyond the roofline"),
        ({"ttft_ms": "1,5"}, "ttft_ms: '1,5' is not a number"),
        ({"model": "DeepSeek-R1", "parallelism": "tp1"}, "more than the"),
        ({"concurrency": 0}, "concurrency"),
        ({"mode": "both"}, "use agg or disagg"),
    ],
)
def test_a_bad_row_is_named_and_the_good_ones_are_kept(change, what):
    kept, complaints = measurement_files.checked(table({"concurrency": 16}, change), "file.csv")
    assert len(kept) == 1
    assert complaints[0].startswith("row 3: ")
    assert what in complaints[0]


def test_a_bad_row_judges_nothing(tmp_path):
    path = tmp_path / "rows.csv"
    table({}, {"concurrency": 16}, {"tpot_ms": 1e-4}).to_csv(path, index=False)
    found, report, notes = validate_file(path)
    assert len(found) == report["rows"] == 3
    assert report["errors"]["tpot"]["n"] == 2
    assert report["errors"]["tpot"]["mean"] < 100
    assert any("row 4: tpot_ms" in note for note in notes)


def test_the_same_run_twice_is_taken_once():
    kept, complaints = measurement_files.checked(table({}, {}), "file.csv")
    assert len(kept) == 1
    assert "the same run as row 2" in complaints[0]


def test_seconds_under_a_name_in_milliseconds_and_missing_columns_are_refused():
    with pytest.raises(MeasurementError, match="look like seconds"):
        measurement_files.checked(table({"tpot_ms": 0.026, "ttft_ms": 0.6}), "file.csv")
    with pytest.raises(MeasurementError, match="columns missing: tpot_ms"):
        measurement_files.checked(table({}).drop(columns="tpot_ms"), "file.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_usual_encodings_and_separators_are_read(tmp_path, encoding):
    path = tmp_path / "rows.csv"
    path.write_bytes(table({"backend_version": "für"}).to_csv(index=False, sep=";").encode(encoding))
    assert measurement_files.usable_rows(path)[0].backend_version[0] == "für"


def test_a_packed_table_is_read_and_a_line_with_more_cells_is_named(tmp_path):
    text = table({}, {"concurrency": 16}).to_csv(index=False)
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress((text.rstrip() + ",more,cells\n").encode()))
    rows = table({})
    kept, complaints = measurement_files.usable_rows(tmp_path / "rows.csv.gz")
    assert len(kept) == 1
    assert complaints == [f"row 3: {len(rows.columns) + 2} columns, {len(rows.columns)} are in the header"]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("rows.json", '[{"model": 1}]', "is JSON"),
        ("rows", None, "does not exist; did you mean 'rows.json'"),
    ],
)
def test_what_is_no_table_of_runs_is_told(tmp_path, name, content, what):
    (tmp_path / "rows.json").write_text("{}", encoding="utf-8")
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(MeasurementError, match=what):
        measurement_files.usable_rows(tmp_path / name)


def test_columns_under_another_name_are_pointed_at():
    with pytest.raises(MeasurementError, match="'ttft_s' is there for ttft_ms"):
        measurement_files.checked(table({}).rename(columns={"ttft_ms": "ttft_s"}), "file.csv")


def test_empty_and_binary_files_are_refused(tmp_path):
    for name, content in (("empty.csv", b" \n"), ("binary.csv", b"\x00\x01\x02")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MeasurementError, match=name):
            measurement_files.usable_rows(tmp_path / name)
