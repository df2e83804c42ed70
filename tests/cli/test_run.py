"""`factory-sim run` and `compare` as a stranger uses them: results on stdout, messages on stderr, honest exit codes."""

import json
import signal
import subprocess
import sys

import pytest
import yaml


def factory_sim(*arguments, cwd) -> subprocess.CompletedProcess:
    code = "from factory_sim.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the small scenario and one run of it."""
    from tests.conftest import SMALL

    place = tmp_path_factory.mktemp("cli")
    (place / "small.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    done = factory_sim("run", "small.yaml", "--out", "first", "--json", "--no-charts", cwd=place)
    assert done.returncode == 0, done.stderr
    (place / "stdout.json").write_text(done.stdout, encoding="utf-8")
    return place


def test_json_is_the_bytes_of_summary_json(folder):
    text = (folder / "stdout.json").read_text(encoding="utf-8")
    assert text == (folder / "first" / "summary.json").read_text(encoding="utf-8")
    summary = json.loads(text)
    assert summary["schema"] == "factory_sim.summary/1"
    windows = {row["window"] for row in summary["figures"]}
    assert {"whole", "week_1", "stage_old", "stage_new"} <= windows
    assert all(
        {"figure", "window", "service", "value", "low", "high", "unit", "trust"} == set(row)
        for row in summary["figures"]
    )


def test_a_second_process_writes_the_same_bytes_and_tables_come_as_text(folder):
    done = factory_sim("run", "small.yaml", "--out", "second", "--no-charts", "--quiet", cwd=folder)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "Cost / M output tokens" in done.stdout
    for path in sorted((folder / "first").rglob("*.*")):
        other = folder / "second" / path.relative_to(folder / "first")
        assert path.read_bytes() == other.read_bytes(), path.name


def test_an_existing_run_is_not_overwritten(folder):
    before = (folder / "first" / "summary.json").read_bytes()
    done = factory_sim("run", "small.yaml", "--out", "first", "--seed", "9", "--no-charts", cwd=folder)
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert (folder / "first" / "summary.json").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "nothing.yaml"),
        ("run", "small.yaml", "--set", "slo.ttft_p95_sec=3"),
        ("run", "small.yaml", "--set", "stages.old.system.gpu=h201"),
        ("run", "small.yaml", "--set", "stages.old.system.parallelism=tp3"),
        ("run", "small.yaml", "--variant", "none"),
        ("run", "small.yaml", "--seed", "-3"),
        ("capacity", "small.yaml", "--seed", "-3"),
        ("compare", "first", "nowhere"),
        ("compare", "first"),
    ],
)
def test_bad_input_is_one_message_and_exit_status_2(folder, arguments):
    before = sorted(path.name for path in folder.iterdir())
    done = factory_sim(*arguments, cwd=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == before


def test_compare_puts_runs_side_by_side_with_ratios(folder):
    done = factory_sim(
        "run",
        "small.yaml",
        "--out",
        "dearer",
        "--no-charts",
        "--set",
        "money.plans.chat.output_usd_per_million=4",
        "--set",
        "name=dearer",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    done = factory_sim("compare", "first", "dearer", "--json", "--out", "chart", cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = {
        (row["figure"], row["run"]): row
        for row in json.loads(done.stdout)["figures"]
        if row["window"] == "whole" and row["service"] == "all"
    }
    assert rows["cost", "dearer"]["ratio"] == 1.0
    assert 1.5 < rows["revenue", "dearer"]["ratio"] < 2.0
    assert (folder / "chart" / "comparison.svg").stat().st_size > 1000


def test_help_and_version(folder):
    assert "Token economics" in factory_sim("--help", cwd=folder).stdout
    assert factory_sim("--version", cwd=folder).stdout.startswith("factory-sim 0.")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_leaves_nothing_and_says_so(folder):
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # background shells ignore it
    code = f"{heard}; from factory_sim.cli import main; main()"
    command = [sys.executable, "-c", code, "run", "small.yaml", "--out", "stopped", "--set", "simulation.replications=200"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "playing" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert "interrupted; nothing was written" in rest
    assert "Traceback" not in rest
    assert not [path.name for path in folder.iterdir() if "stopped" in path.name]
