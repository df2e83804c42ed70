"""The page of a run: one file, nothing fetched, every figure in it, and safe whatever a scenario is called."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pandas as pd
import pytest

from factory_sim.inputs.scenario import Scenario
from factory_sim.reports import page, run_charts
from factory_sim.results.store import read_run

VOID = {"meta", "br", "hr", "img", "link", "input", "path", "use"}


class Reader(HTMLParser):
    """Collects ids, links and text, and notices tags that do not close."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.ids, self.links, self.tags, self.text = [], [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[name] for name in ("src", "href", "xlink:href") if name in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


def figure_rows(stages):
    windows = ["whole", "week_1", "week_2", *(f"stage_{name}" for name in stages)]
    figures = [("cost_per_million_output_tokens", "USD/million tokens", 3.59), ("revenue", "USD", 1.23e6),
               ("ttft_p95", "s", 2.81), ("slo_attainment", "fraction", 0.973)]  # fmt: skip
    return [
        dict(figure=figure, window=window, service=service, value=value / (1 + place), low=0.9 * value / (1 + place),
             high=1.1 * value / (1 + place), unit=unit, trust="measured")
        for service in ("all", "chat")
        for place, window in enumerate(windows)
        for figure, unit, value in figures
    ]  # fmt: skip


@pytest.fixture(scope="module")
def scenario():
    system = dict(gpu="h200", engine="trtllm", precision="fp8", parallelism="tp8pp1ep1dpaFr1")
    first = dict(name="first", from_day=0, gpus=8, system=system, change={"kind": "initial", "duration_days": 0})
    service = dict(model="DeepSeek-R1", slo={"ttft_p95_s": 15, "tpot_p95_s": 0.04}, traffic={"demand": {"load": 0.5}},
                   stages=[first, dict(name="second", from_day=7, gpus=8, system=system)])  # fmt: skip
    factory = dict(name="tiny", start="2026-07-06T00:00:00+00:00", duration_days=14, site={"gpus": 8})
    return Scenario.model_validate({**factory, "services": {"chat": service}})


@pytest.fixture
def run(scenario, make_series):
    return a_run(scenario, make_series)


def a_run(scenario, make_series):
    summary = {
        "schema": "factory_sim.summary/1",
        "scenario": {"name": "tiny", "digest": "0123456789", "seed": 1, "version": "0.1.0"},
        "figures": figure_rows(["first", "second"]),
        "checks": [{"check": "books_balance", "ok": True, "detail": "to the last nano-dollar"}],
    }
    series = pd.concat([make_series(14.0), make_series(14.0, service="chat")], ignore_index=True)
    return SimpleNamespace(
        scenario=scenario, scenario_yaml="name: tiny # <b>not bold</b>\n", provenance={"tables": {"gpus.csv": "abc"}},
        tables={"series": series}, summary=summary, figures=pd.DataFrame(summary["figures"]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def stored(scenario, make_series, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return read_run(page.write_run_with_charts(a_run(scenario, make_series), folder))


def test_a_run_is_written_with_its_charts(stored):
    names = sorted(path.name for path in (stored.folder / "charts").iterdir())
    expected = ["latency", "money", "traffic", "waterfall"]
    assert names == [f"{name}.{kind}" for name in expected for kind in ("png", "svg")]


def test_charts_can_be_left_out(run, tmp_path):
    folder = page.write_run_with_charts(run, tmp_path / "bare", charts=False)
    assert not (folder / "charts").exists()
    assert "<svg" not in page.run_page(read_run(folder))


def test_a_page_is_well_formed_and_fetches_nothing(stored):
    reader = read(page.run_page(stored))
    assert reader.wrong == []
    assert reader.open == []
    assert all(link.startswith("#") for link in reader.links)
    assert not {"script", "link", "img", "iframe"} & set(reader.tags)
    assert "@import" not in page.run_page(stored)


def test_no_id_of_one_chart_is_used_by_another(stored):
    reader = read(page.run_page(stored))
    assert len(set(reader.ids)) == len(reader.ids)
    used = set(re.findall(r"url\(#([^)]+)\)", page.run_page(stored))) | {link[1:] for link in reader.links}
    assert used <= set(reader.ids)


def test_a_page_holds_figures_charts_checks_and_sources(stored):
    text = " ".join(read(page.run_page(stored)).text)
    for wanted in ("$3.59", "3.23–3.95", "$1.23 M", "97.3 %", "● measured", "books_balance", "holds", "gpus.csv"):
        assert wanted in text
    assert "digest 0123456789" in text
    assert page.run_page(stored).count("<svg") == 4


def test_what_users_write_is_shown_not_obeyed(run):
    run.summary["scenario"]["name"] = "<script>alert(1)</script>"
    html = page.page(run.summary, run.provenance, run.scenario_yaml, {})
    assert "<script>" not in html
    assert "&lt;b&gt;not bold" in html


def test_a_broken_law_stands_out(run):
    run.summary["checks"][0]["ok"] = False
    assert "BROKEN" in page.page(run.summary, run.provenance, "", {})


def test_the_same_run_gives_the_same_page(stored, tmp_path):
    assert page.write_page(stored, tmp_path / "a.html").read_bytes() == page.run_page(stored).encode()


def test_stages_of_a_chart_are_those_of_the_scenario(scenario):
    stages = run_charts.stages_frame(scenario, "chat")
    assert stages.name.tolist() == ["first", "second"]
    assert stages.start_s.tolist() == [0.0, 7 * 86400.0]
    assert stages.end_s.tolist() == [7 * 86400.0, 14 * 86400.0]


def test_the_promise_of_a_service_binds_its_figures(scenario):
    assert run_charts.promises(scenario.services["chat"].slo) == {"ttft_p95": 15.0, "tpot_p95": 0.04}


def test_several_services_have_their_own_latency_and_one_factory(run, make_series, tmp_path):
    services = {"chat": run.scenario.services["chat"], "search": run.scenario.services["chat"]}
    run.scenario = run.scenario.model_copy(update={"services": services})
    run.tables["series"] = pd.concat([make_series(14.0, service=name) for name in ("all", "chat", "search")])
    names = [path.name for path in run_charts.write_run_charts(run, tmp_path, formats=["svg"])]
    assert names == ["money.svg", "traffic.svg", "latency-chat.svg", "waterfall-chat.svg", "latency-search.svg"]


def test_the_source_line_says_run_bands_and_trust(run):
    line = run_charts.source_line(run)
    assert "digest 0123456789, seed 1" in line
    assert "P10 to P90 of 8 replications" in line
    assert "measured: first, second" in line


def test_a_chart_in_a_page_has_a_name_for_screen_readers(stored):
    labels = re.findall(r'aria-label="([^"]+)"', page.run_page(stored))
    assert labels == [page.CHART_NAMES[name] for name in ("money", "latency", "traffic", "waterfall")]


def test_formats_of_charts_can_be_chosen(run, tmp_path):
    files = run_charts.write_run_charts(run, tmp_path, formats=["png"])
    assert {path.suffix for path in files} == {".png"}
