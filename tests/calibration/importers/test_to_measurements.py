"""Points as rows of the measurement table: what the file does not know is asked for, never guessed."""

from pathlib import Path

import pytest

from factory_sim.calibration.importers import inspect, read_results, to_measurements
from factory_sim.calibration.measurement_files import checked
from factory_sim.errors import MeasurementError
from factory_sim.inputs.measurements import normalise

DATA = Path(__file__).parents[2] / "data" / "importers"
FACTS = {"model": "Llama-3.1-8B", "precision": "bf16", "engine": "vllm"}


@pytest.fixture
def vllm():
    return read_results(DATA / "vllm")


def test_row_has_the_columns_that_a_fit_needs(vllm):
    frame = to_measurements(vllm, **FACTS)
    row = frame.iloc[0]
    assert (row.model, row.gpu, row.backend, row.precision) == ("Llama-3.1-8B", "h100", "vllm", "bf16")
    assert (row.isl, row.osl, row.concurrency, row.n_gpus) == (200, 50, 4, 2)
    assert (row["mode"], row.parallelism, row.length_distribution, row.load) == ("agg", "tp2pp1ep1dpaFr1", "fixed",
                                                                             "closed")
    assert row.ttft_ms == pytest.approx(203.63, rel=1e-3)
    assert row.tpot_ms == pytest.approx(20.0, rel=1e-3)
    usable = normalise(frame)
    assert usable.problem.tolist() == [""]
    assert usable.clean.tolist() == [True]


def test_what_nobody_said_is_asked_for(vllm):
    with pytest.raises(MeasurementError, match="precision is not in the file; give the weight precision"):
        to_measurements(vllm, model="m", engine="vllm")
    sglang = read_results(DATA / "sglang")
    with pytest.raises(MeasurementError, match="gpu is not in the file"):
        to_measurements(sglang, model="m", precision="fp8")
    guidellm = read_results(DATA / "guidellm")
    facts = {"model": "m", "gpu": "h100", "precision": "fp8", "engine": "vllm"}
    with pytest.raises(MeasurementError, match="number of GPUs is not in the file and is never guessed; give --gpus"):
        to_measurements(guidellm, **facts)
    with pytest.raises(MeasurementError, match="how the model is spread over 8 GPUs"):
        to_measurements(guidellm, **facts, n_gpus=8)
    assert to_measurements(guidellm, **facts, tp=4, replicas=2).n_gpus.tolist() == [8]
    assert to_measurements(guidellm, **facts, n_gpus=1).parallelism.tolist() == ["tp1"]


def test_unknown_facts_are_refused_with_the_nearest_name(vllm):
    with pytest.raises(MeasurementError, match="did you mean 'precision'"):
        to_measurements(vllm, precison="fp8")


@pytest.mark.parametrize(("short", "gpus", "mode"), [("tp4pp1ep4dpaTr2", 8, "agg"), ("P3x4-D4x8dep", 44, "disagg")])
def test_given_parallelism_counts_the_gpus(vllm, short, gpus, mode):
    frame = to_measurements(vllm, **FACTS, parallelism=short)
    assert (frame.n_gpus[0], frame["mode"][0], frame.parallelism[0]) == (gpus, mode, short)
    assert normalise(frame).problem.tolist() == [""]


def test_points_that_lack_something_are_left_out_and_named(write):
    text = "concurrency,isl,osl,ttft_ms,tpot_ms\n4,200,50,203,20\n8,200,50,250,\n16,200,50,,22\n"
    frame = to_measurements(inspect(write("r.csv", text)), **FACTS, gpu="h100", tp=1)
    assert frame.concurrency.tolist() == [4]
    assert frame.attrs["dropped"] == ["r.csv row 3: has no mean TPOT", "r.csv row 4: has no mean TTFT"]
    with pytest.raises(MeasurementError, match="no row for a profile is left"):
        to_measurements(inspect(write("s.csv", "concurrency,isl,osl,ttft_ms\n4,200,50,203\n")), **FACTS, gpu="h100")


def test_server_count_of_input_tokens_wins(vllm):
    row = to_measurements(read_results(DATA / "aiperf"), **FACTS, gpu="h100", tp=1).iloc[0]
    assert (row.mean_input_tokens, row.isl, row.mean_output_tokens) == (210, 200, 50)


def test_open_loop_keeps_the_measured_concurrency_and_the_rate(sample, write):
    result = sample("vllm/concurrency4_detailed.json") | {"request_rate": 3.0, "max_concurrency": None}
    row = to_measurements(read_results(write("run.json", result)), **FACTS).iloc[0]
    assert row.load == "open"
    assert row.concurrency == pytest.approx(4, rel=0.01)
    assert row.request_rate_per_s == pytest.approx(3.377, rel=0.01)


def test_inferencex_rows_carry_their_own_facts(write):
    row = {"hw": "b200-trt", "conc": 64, "model": "DeepSeek-R1", "infmax_model_prefix": "dsr1", "framework": "trt",
           "precision": "fp4", "isl": 1024, "osl": 1024, "is_multinode": True, "disagg": True, "num_prefill_gpu": 8,
           "num_decode_gpu": 16, "prefill_num_workers": 2, "decode_num_workers": 2, "decode_ep": 8,
           "decode_dp_attention": "true", "tput_per_gpu": 500.0, "mean_ttft": 0.9, "mean_tpot": 0.03}
    frame = to_measurements(inspect(write("agg.json", [row])))
    found = frame.iloc[0]
    assert (found.gpu, found.backend, found["mode"], found.parallelism) == ("b200", "trtllm", "disagg", "P2x4-D2x8dep")
    assert (found.n_gpus, found.ttft_ms, found.mean_input_tokens) == (24, 900, pytest.approx(921.6))
    assert normalise(frame).problem.tolist() == [""]


@pytest.mark.parametrize(("told", "short"), [("bfloat16", "bf16"), ("NVFP4", "fp4"), ("FP8_BLOCK", "fp8")])
def test_precision_has_one_name(vllm, told, short):
    assert to_measurements(vllm, **{**FACTS, "precision": told}).precision[0] == short


def test_rows_pass_the_checks_of_measurement_files(vllm):
    rows, complaints = checked(to_measurements(vllm, **FACTS), "import")
    assert (len(rows), complaints) == (1, [])


def test_same_file_gives_the_same_ids(vllm):
    first, second = (to_measurements(vllm, **FACTS) for _ in range(2))
    assert first.equals(second)
    assert first.measurement_id[0] != first.group_id[0]


@pytest.mark.parametrize(
    ("told", "gpu"),
    [("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H100 PCIe", "h100-pcie"), ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
     ("NVIDIA B300 SXM6 AC", "b300"), ("NVIDIA A100 80GB PCIe", "nvidia a100 80gb pcie")],
)  # fmt: skip
def test_gpu_of_a_file_keeps_what_tells_products_apart(sample, write, told, gpu):
    result = sample("vllm/concurrency4_detailed.json") | {"gpu": told}
    frame = to_measurements(inspect(write("run.json", result)), model="Llama-3.1-8B", precision="fp8", engine="vllm")
    assert list(frame.gpu) == [gpu]


@pytest.mark.parametrize(("name", "value"), [("n_gpus", 0), ("n_gpus", -1), ("isl", 0), ("concurrency", float("nan"))])
def test_amounts_that_are_none_are_refused(vllm, name, value):
    with pytest.raises(MeasurementError, match=f"{name} .*not a number above zero"):
        to_measurements(vllm, **FACTS, **{name: value})
