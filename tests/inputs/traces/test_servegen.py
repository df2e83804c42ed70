"""A folder of ServeGen's client data: rates, clients and lengths are those of its files."""

import json

import numpy as np
import pytest

from factory_sim.errors import TraceError
from factory_sim.inputs.traces import read_rates, read_servegen
from factory_sim.model.workload import clients_of_folder, length_model
from factory_sim.streams import stream


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "model-x"
    home.mkdir()
    (home / "chunk-0-trace.csv").write_text("0,1.0,2.0,Gamma,1,1\n600,3.0,4.0,Weibull,1,1\n")
    (home / "chunk-1-trace.csv").write_text("0,0.5,1.0,Gamma,1,1\n600,0,0,,0,0\n")
    (home / "chunk-2-trace.csv").write_text("0,0.5,1.0,Gamma,1,1\n")
    first = {"0": {"input_tokens": "{100: 0.5, 300: 0.5}", "output_tokens": "{10: 1.0}", "reason_ratio": "{0.5: 1}"}}
    second = {
        "0": {"input_tokens": "{}", "output_tokens": "{}"},
        "600": {"input_tokens": "{7: 2e-1}", "output_tokens": "{9: 1}"},
    }
    (home / "chunk-0-dataset.json").write_text(json.dumps(first))
    (home / "chunk-1-dataset.json").write_text(json.dumps(second))
    return home


def test_rates_add_up(folder):
    series = read_rates(folder)
    assert series.rate_per_s.tolist() == [2.0, 3.0]
    assert series.end_s == 1200


def test_clients_have_their_shares_and_request_weighted_cvs(folder):
    who = clients_of_folder(str(folder))
    assert who.share == pytest.approx([0.8, 0.1, 0.1])
    assert who.cv == pytest.approx([(1 * 2 + 3 * 4) / 4, 1.0, 1.0])


def test_lengths_come_from_the_clients_histograms_by_requests(folder):
    model = length_model({"servegen": {"path": str(folder)}})
    weight = np.array([2400.0, 300.0]) / 2700
    assert model.mean_isl == pytest.approx(weight @ [200, 7])
    assert model.mean_osl == pytest.approx(weight @ [10, 9])
    isl, osl = model.sample(stream(1, "l"), 50_000)
    assert isl.mean() == pytest.approx(model.mean_isl, rel=0.02)
    assert set(zip(isl.tolist(), osl.tolist())) == {(100, 10), (300, 10), (7, 9)}
    assert "1 clients have no lengths; those known cover 90.0% of the requests" in model.source


def test_reasoning_shares_are_kept(folder):
    data = read_servegen(folder)
    assert data.lengths[0].reason_ratio.values.tolist() == [0.5]
    assert data.lengths[1].reason_ratio is None


@pytest.mark.parametrize("line", ["x,1,1", "0,-1,1", "0", "0,nan,1"])
def test_bad_rows_are_refused_with_their_place(folder, line):
    (folder / "chunk-1-trace.csv").write_text(f"0,1,1,Gamma,1,1\n{line}\n")
    with pytest.raises(TraceError, match=r"chunk-1-trace\.csv: row 2"):
        read_servegen(folder)


def test_other_folders_are_refused(folder, tmp_path):
    with pytest.raises(TraceError, match="no chunk"):
        read_servegen(tmp_path)
    (folder / "chunk-0-dataset.json").write_text("[1, 2]")
    with pytest.raises(TraceError, match="windows such as"):
        read_servegen(folder)
