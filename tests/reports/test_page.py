"""The page of a run: one file, nothing fetched, every figure in it, and safe whatever a scenario is called."""

import re
from html.parser import HTMLParser

import pytest

from factory_sim.cli.report import report
from factory_sim.errors import RunError
from factory_sim.reports import page
from factory_sim.reports.charts import write_charts
from factory_sim.results.store import read_run, write_run

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


def figure_rows(stages, services=("all", "chat")):
    windows = ["whole", "week_1", "week_2", *(f"stage_{name}" for name in stages)]
    figures = [("cost_per_million_output_tokens", "USD/million tokens", 3.59), ("revenue", "USD", 1.23e6),
               ("ttft_p95", "s", 2.81), ("slo_attainment", "fraction", 0.973)]  # fmt: skip
    return [
        dict(figure=figure, window=window, service=service, value=value / (1 + place), low=0.9 * value / (1 + place),
             high=1.1 * value / (1 + place), unit=unit, trust="measured")
        for service in services
        for place, window in enumerate(windows)
        for figure, unit, value in figures
    ]  # fmt: skip


def a_summary():
    return {
        "schema": "factory_sim.summary/1",
        "scenario": {"name": "tiny", "digest": "0123456789", "seed": 1, "version": "0.1.0"},
        "figures": figure_rows(["first", "second"]),
        "checks": [{"check": "books_balance", "ok": True, "detail": "to the last nano-dollar"}],
    }


def written(folder, series=None, stages=None, steps=None):
    draw = None if series is None else lambda place: write_charts(place, series=series, stages=stages, steps=steps)
    yaml, provenance = "name: tiny # <b>not bold</b>\n", {"tables": {"gpus.csv": "abc"}}
    return read_run(
        write_run(folder, scenario_yaml=yaml, provenance=provenance, tables={}, summary=a_summary(), charts=draw)
    )


@pytest.fixture(scope="module")
def stored(series, stages, steps, tmp_path_factory):
    return written(tmp_path_factory.mktemp("runs") / "run", series, stages, steps)


@pytest.fixture
def summary():
    return a_summary()


def test_a_run_without_charts_has_a_page_without_them(tmp_path):
    assert "<svg" not in page.run_page(written(tmp_path / "bare"))


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


def test_what_users_write_is_shown_not_obeyed(summary):
    summary["scenario"]["name"] = "<script>alert(1)</script>"
    html = page.page(summary, {"<i>": "<i>"}, "name: tiny # <b>not bold</b>\n", {})
    assert "<script>" not in html
    assert "<i>" not in html
    assert "&lt;b&gt;not bold" in html


def test_a_broken_law_stands_out(summary):
    summary["checks"][0]["ok"] = False
    assert "BROKEN" in page.page(summary, {}, "", {})


def test_several_services_have_a_table_each(summary):
    summary["figures"] += figure_rows(["first"], services=("search",))
    text = " ".join(read(page.page(summary, {}, "", {})).text)
    assert "Service chat, by week" in text
    assert "Service search, by week" in text


def test_the_same_run_gives_the_same_page(stored, tmp_path):
    assert page.write_page(stored, tmp_path / "a.html").read_bytes() == page.run_page(stored).encode()


def test_a_page_that_cannot_be_written_is_one_message(stored, tmp_path):
    with pytest.raises(RunError, match="cannot be written"):
        page.write_page(stored, tmp_path / "nowhere" / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_page_beside_the_run_and_replaces_nothing_else(tmp_path, capsys):
    run = written(tmp_path / "run")
    report(run.folder, None)
    assert capsys.readouterr().out.strip() == str(run.folder / "report.html")
    assert (run.folder / "report.html").read_text() == page.run_page(run)
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(RunError, match="--force"):
        report(run.folder, tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "mine"
    report(run.folder, tmp_path / "mine.html", force=True)
    assert (tmp_path / "mine.html").read_text() == page.run_page(run)


def test_a_chart_in_a_page_has_a_name_for_screen_readers(stored):
    labels = re.findall(r'aria-label="([^"]+)"', page.run_page(stored))
    assert labels == [page.CHART_NAMES[name] for name in ("money", "latency", "traffic", "waterfall")]
