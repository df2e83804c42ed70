"""Runs on disk: whole or absent, never overwritten by accident, the same bytes for the same run, clear when damaged."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

from factory_sim.errors import RunError
from factory_sim.results import store
from factory_sim.results.schema import summary_problems
from factory_sim.streams import stream


def figure(name="cost", window="whole", service="all", value=1.0, low=0.5, high=2.0, unit="USD", trust="measured"):
    return dict(figure=name, window=window, service=service, value=value, low=low, high=high, unit=unit, trust=trust)


@pytest.fixture
def summary():
    return {
        "schema": "factory_sim.summary/1",
        "scenario": {"name": "tiny", "digest": "0123456789ab", "seed": 7, "version": "0.1.0"},
        "figures": [figure(), figure("ttft_p95", value=0.1 + 0.2, low=None, high=None, unit="s")],
        "checks": [{"check": "requests_conserved", "ok": True, "detail": "arrived 5 = completed 5"}],
    }


@pytest.fixture
def tables():
    rng = stream(1, "tables")
    windows = pd.DataFrame({"week": [1, 2], "service": ["chat", "chat"], "output_tokens": rng.random(2) * 1e9})
    latency = pd.DataFrame({"metric": ["ttft"] * 3, "bin": np.arange(3, dtype=np.int32), "count": [1.0, np.nan, 3.0]})
    return {"windows": windows, "latency": latency}


@pytest.fixture
def write(summary, tables):
    def write(folder, **changes):
        given = dict(scenario_yaml="name: tiny\n", provenance={"inputs": []}, tables=tables, summary=summary)
        return store.write_run(folder, **{**given, **changes})

    return write


def all_bytes(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_run_reads_back_as_it_was_written(tmp_path, write, tables, summary):
    folder = write(tmp_path / "runs" / "tiny", charts=lambda charts: (charts / "a.svg").write_text("<svg/>"))
    run = store.read_run(folder)
    assert run.scenario_yaml == "name: tiny\n"
    assert run.summary == summary
    assert list(run.tables) == ["windows", "latency"]
    for name, frame in tables.items():
        pd.testing.assert_frame_equal(run.tables[name], frame)
    assert (folder / "charts" / "a.svg").exists()
    assert run.figures.set_index("figure").value["ttft_p95"] == 0.1 + 0.2


def test_the_same_run_gives_the_same_bytes_in_another_process(tmp_path, write):
    here = all_bytes(write(tmp_path / "here"))
    program = f"""
    import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
    import test_store as t
    from pathlib import Path
    summary, tables = t.summary.__wrapped__(), t.tables.__wrapped__()
    t.write.__wrapped__(summary, tables)(Path(sys.argv[1]))
    """
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "there")]
    subprocess.run(command, check=True, env=environment)
    assert all_bytes(tmp_path / "there") == here


def test_an_existing_folder_stays_as_it_is_without_force(tmp_path, write):
    folder = write(tmp_path / "run")
    before = all_bytes(folder)
    with pytest.raises(RunError, match="--force"):
        write(folder, scenario_yaml="name: other\n")
    assert all_bytes(folder) == before


def test_force_replaces_a_run_whole(tmp_path, write):
    folder = write(tmp_path / "run", charts=lambda charts: (charts / "old.svg").write_text("old"))
    write(folder, scenario_yaml="name: other\n", force=True)
    assert store.read_run(folder).scenario_yaml == "name: other\n"
    assert not (folder / "charts").exists()
    assert os.listdir(tmp_path) == ["run"]


def test_force_never_replaces_what_is_no_run(tmp_path, write):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="other than a run"):
        write(tmp_path, force=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(RunError, match="not a folder"):
        write(tmp_path / "thesis.txt", force=True)


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, MemoryError, ValueError])
def test_trouble_on_the_way_leaves_nothing(tmp_path, write, trouble):
    def charts(folder):
        (folder / "half.svg").write_text("<svg")
        raise trouble

    with pytest.raises(trouble):
        write(tmp_path / "runs" / "deep" / "run", charts=charts)
    assert os.listdir(tmp_path) == []


def test_trouble_on_the_way_keeps_the_older_run(tmp_path, write):
    def charts(folder):
        raise KeyboardInterrupt

    before = all_bytes(write(tmp_path / "run"))
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "run", force=True, charts=charts)
    assert all_bytes(tmp_path / "run") == before
    assert os.listdir(tmp_path) == ["run"]


def test_an_interrupt_from_outside_leaves_nothing(tmp_path):
    program = """
    import sys; sys.path.insert(0, sys.argv[2])
    import time
    from pathlib import Path
    import test_store as t
    def charts(folder):
        print("writing", flush=True)
        time.sleep(60)
    t.write.__wrapped__(t.summary.__wrapped__(), t.tables.__wrapped__())(Path(sys.argv[1]) / "run", charts=charts)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), os.path.dirname(__file__)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in said
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written_is_one_message(tmp_path, write):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="cannot be written"):
        write(tmp_path / "run")


def test_a_parent_that_is_a_file_is_one_message(tmp_path, write):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write(tmp_path / "file" / "run")


def test_a_missing_run_names_the_nearest(tmp_path, write):
    write(tmp_path / "twenty-x-1234")
    with pytest.raises(RunError, match="did you mean 'twenty-x-1234'"):
        store.read_run(tmp_path / "twenty-x-1243")


def test_a_missing_run_names_runs_only(tmp_path, write):
    write(tmp_path / "twenty-x-1234")
    (tmp_path / "zebra").mkdir()
    with pytest.raises(RunError, match="known: twenty-x-1234$"):
        store.read_run(tmp_path / "zzzzz")
    with pytest.raises(RunError, match="no such run$"):
        store.read_run(tmp_path / "zebra" / "nothing")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"no run\.json"):
        store.read_run(tmp_path)


@pytest.mark.parametrize("name", ["scenario.yaml", "provenance.json", "summary.json"])
def test_a_changed_file_is_found(tmp_path, write, name):
    folder = write(tmp_path / "run")
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(RunError, match=f"{name}: was changed or damaged"):
        store.read_run(folder)


def test_a_cut_table_is_found_when_it_is_read(tmp_path, write):
    folder = write(tmp_path / "run")
    table = folder / "tables" / "windows.parquet"
    table.write_bytes(table.read_bytes()[:-10])
    run = store.read_run(folder)
    assert len(run.tables["latency"]) == 3
    with pytest.raises(RunError, match=r"windows\.parquet: was changed or damaged"):
        run.tables["windows"]


@pytest.mark.parametrize("name", ["summary.json", "tables/windows.parquet"])
def test_a_missing_file_is_named(tmp_path, write, name):
    folder = write(tmp_path / "run")
    (folder / name).unlink()
    with pytest.raises(RunError, match=f"{name}: is missing"):
        store.read_run(folder)


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '{"schema": "factory_sim.run/1", "version": "0.1.0"}'])
def test_a_broken_manifest_is_one_message(tmp_path, write, content):
    folder = write(tmp_path / "run")
    (folder / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json: "):
        store.read_run(folder)


def test_a_run_of_another_version_is_refused_with_both_named(tmp_path, write):
    folder = write(tmp_path / "run")
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**manifest, "schema": "factory_sim.run/2"}))
    with pytest.raises(RunError, match=r"factory_sim\.run/2.*factory_sim\.run/1"):
        store.read_run(folder)


def test_an_unknown_table_names_those_that_are_there(tmp_path, write):
    with pytest.raises(RunError, match="did you mean 'windows'"):
        store.read_run(write(tmp_path / "run")).tables["window"]


def test_summary_bytes_do_not_depend_on_the_kind_of_number(summary):
    numpy_numbers = json.loads(json.dumps(summary))
    numpy_numbers["figures"][0]["value"] = np.float64(1.0)
    numpy_numbers["scenario"]["seed"] = np.int64(7)
    numpy_numbers["figures"][1]["low"] = np.nan
    assert store.summary_bytes(numpy_numbers) == store.summary_bytes(summary)


def test_summary_bytes_are_json_in_the_order_built_and_exact(summary):
    content = store.summary_bytes(summary)
    assert content.endswith(b"}\n")
    assert b"\r" not in content
    assert json.loads(content) == summary
    assert list(json.loads(content)) == list(summary)
    assert b"0.30000000000000004" in content


def test_undefined_figures_are_null(summary):
    summary["figures"][0].update(value=np.inf, low=float("nan"), high=None)
    read = json.loads(store.summary_bytes(summary))["figures"][0]
    assert (read["value"], read["low"], read["high"]) == (None, None, None)


def test_a_summary_that_keeps_to_the_schema_has_no_problems(summary):
    assert summary_problems(summary) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (dict(value="1"), "is not of type"),
        (dict(figure="Cost USD"), "does not match"),
        (dict(trust="sure"), "is not one of"),
        (dict(extra=1), "Additional properties"),
        (dict(low=1.5), "are not in order"),
        (dict(high=0.9), "are not in order"),
        (dict(value=None), "a band without a value"),
        (dict(service="chat"), "no row for service all"),
        (dict(window="week_1"), "no row for window whole"),
        (dict(figure="ttft_p95", unit="s"), "is there 2 times"),
    ],
)
def test_what_is_wrong_with_a_summary_is_said(summary, change, problem):
    summary["figures"][0].update(change)
    if "window" in change:
        summary["figures"][1].update(change)
    assert any(problem in line for line in summary_problems(summary))


def test_one_figure_in_two_units_is_a_problem(summary):
    summary["figures"] += [figure(window="week_1", unit="EUR")]
    assert summary_problems(summary) == ["figures: cost is in USD and in EUR"]


@pytest.mark.parametrize("key", ["schema", "scenario", "figures", "checks"])
def test_a_summary_without_a_part_is_a_problem(summary, key):
    del summary[key]
    assert summary_problems(summary) == [f"summary: '{key}' is a required property"]
