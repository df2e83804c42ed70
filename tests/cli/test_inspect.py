"""`factory-sim inspect`: the JSON contract, the table, and exit status 2 with one message."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from factory_sim.calibration.importers import FIGURES
from factory_sim.cli.inspect import inspect
from factory_sim.errors import MeasurementError

DATA = Path(__file__).parents[1] / "data" / "importers"
APP = typer.Typer()
APP.command()(inspect)


def run(*arguments):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


def test_json_has_every_figure_and_null_for_what_is_missing():
    result = run(DATA / "otel" / "openai_v2_spans.jsonl", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert list(found) == ["format", "tool", "tool_version", "points", "notes"]
    assert list(found["points"][0])[: len(FIGURES)] == list(FIGURES)
    assert found["points"][0]["ttft_mean_ms"] is None
    assert found["points"][0]["output_tokens"] == 1200


def test_table_shows_figures_and_notes():
    text = run(DATA / "aiperf").stdout
    assert "203.31" in text
    assert "1,183.90" in text
    assert "- phase_manifest.json: left out" in text


def test_missing_figures_are_dashes():
    text = run(DATA / "otel" / "openai_v2_spans.jsonl").stdout
    assert " -  " in text.splitlines()[3]


def test_unusable_file_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "cut.json").write_text((DATA / "vllm" / "concurrency4_detailed.json").read_text()[:9000])
    result = run(tmp_path / "cut.json", "--json")
    assert isinstance(result.exception, MeasurementError)
    assert "line 1, column 9001" in str(result.exception)
    assert result.stdout == ""


@pytest.mark.parametrize("folder", ["vllm", "sglang", "guidellm", "inference-perf", "genai-perf", "litellm"])
def test_json_is_strict(folder):
    result = run(DATA / folder, "--json")
    assert json.loads(result.stdout, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
