"""Policies of a scenario's author at the command line: allowed or not, and what is left when one fails."""

import json
import multiprocessing

import pandas as pd
import pytest
import yaml

from tests.cli.test_run import factory_sim
from tests.conftest import SMALL

CODE = """
def whole(view, rule):
    print("to the log")
    return view.maximum

def late(view, rule):
    if view.time_s > 0.6 * 86400:
        raise RuntimeError("no more")
    return view.maximum
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the small scenario, a file of policies and a run that a policy ended."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    (folder / "own.py").write_text(CODE, encoding="utf-8")
    done = play(folder, "late", "--out", "late", "--allow-code")
    assert done.returncode == 2
    assert "services.chat.autoscaler.policy: raised RuntimeError: no more on day 0.604" in done.stderr
    assert "Traceback" not in done.stderr
    return folder


def play(folder, name, *more):
    policy = f"services.chat.autoscaler.policy=own.py:{name}"
    return factory_sim("run", "small.yaml", "--set", policy, "--no-charts", *more, cwd=folder)


def test_code_is_refused_before_anything_is_played(place):
    done = play(place, "whole", "--out", "refused")
    assert done.returncode == 2
    assert done.stderr.startswith("error: small.yaml: services.chat.autoscaler.policy: 'own.py:whole' is code")
    assert "--allow-code" in done.stderr
    assert not (place / "refused").exists()


def test_a_policy_that_keeps_all_equals_the_fixed_one_and_prints_to_stderr(place):
    done = play(place, "whole", "--out", "whole", "--allow-code", "--json")
    assert done.returncode == 0, done.stderr
    assert "to the log" in done.stderr
    fixed = factory_sim("run", "small.yaml", "--json", "--no-charts", "--out", "fixed", cwd=place)
    assert json.loads(done.stdout)["figures"] == json.loads(fixed.stdout)["figures"]
    assert "own.py" in json.loads((place / "whole" / "provenance.json").read_text())["own_policies"]


def test_the_finished_part_is_kept_and_marked(place):
    manifest = json.loads((place / "late" / "run.json").read_text())
    summary = json.loads((place / "late" / "summary.json").read_text())
    assert manifest["incomplete"] == summary["incomplete"]
    assert "on day 0.604" in summary["incomplete"]
    assert summary["figures"] == []
    windows = pd.read_parquet(place / "late" / "tables" / "windows.parquet")
    assert 0.5 * 86400 < windows.end_s.max() <= 0.604 * 86400 + 60
    assert set(windows.replication) == {0, 1}


def test_timeline_shows_it_and_nothing_else_takes_it_for_a_run(place):
    shown = factory_sim("timeline", "late", "--out", "chart", cwd=place)
    assert shown.returncode == 0
    assert "is incomplete" in shown.stderr
    assert "stopped" in shown.stdout
    assert (place / "chart" / "timeline.png").exists()
    for command in (("report", "late"), ("compare", "late", "late"), ("statement", "late")):
        done = factory_sim(*command, cwd=place)
        assert done.returncode == 2
        assert "is incomplete" in done.stderr


def test_a_stopped_run_replaces_nothing(place):
    before = (place / "late" / "run.json").read_bytes()
    assert play(place, "late", "--out", "late", "--allow-code").returncode == 2
    forced = play(place, "late", "--out", "late", "--allow-code", "--force")
    assert "late.incomplete" in forced.stderr
    assert (place / "late" / "run.json").read_bytes() == before
    assert not multiprocessing.active_children()
