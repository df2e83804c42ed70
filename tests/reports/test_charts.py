"""Charts draw what they are given, say their units, leave no label on another, and are the same bytes each time."""

import os
import subprocess
import sys
from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from factory_sim.reports import charts
from factory_sim.reports.charts import over_time, style
from factory_sim.units import DAY_S, HOUR_S

PROMISES = {"ttft_p95": 15.0, "tpot_p95": 0.04}
NOTE = "Source: factory_sim, an invented run with a line of text that is long enough to be broken " * 2
CHARTS = ["money", "latency", "traffic", "waterfall", "frontier", "comparison", "accuracy", "timeline"]


@pytest.fixture(scope="session")
def draw(series, stages, steps, frontier, comparison, accuracy, spans, events):
    common = dict(subtitle="invented · 792 GPUs", footnote=NOTE)
    speed = dict(user_speed_tokens_per_s=30, at_speed={"B200, MTP": "$0.73 / M"})
    notes = {"ttft": "median error 12 %", "tpot": "median error 3 %"}
    makers = {
        "money": lambda: charts.money_chart(series, stages, **common),
        "latency": lambda: charts.latency_chart(series, stages, PROMISES, **common),
        "traffic": lambda: charts.traffic_chart(series, stages, **common),
        "waterfall": lambda: charts.waterfall_chart(steps, **common),
        "frontier": lambda: charts.frontier_chart(frontier, **speed, **common),
        "comparison": lambda: charts.comparison_chart(comparison, **common),
        "accuracy": lambda: charts.accuracy_chart(accuracy, notes, **common),
        "timeline": lambda: charts.timeline_chart(series, spans, events, PROMISES, **common),
    }
    return lambda name: makers[name]()


@pytest.fixture(scope="session")
def drawn(draw):
    """Every chart once, with its texts laid out."""
    figures = {name: draw(name) for name in CHARTS}
    return {name: (figure, texts(figure)) for name, figure in figures.items()}


def texts(figure):
    """(text, box in pixels) of every text that shows, once the figure is laid out."""
    figure.set_dpi(170)
    with charts.settings():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        found = [artist for artist in figure.findobj(matplotlib.text.Text) if artist.get_visible()]
        shown = []
        for artist in found:
            if not artist.get_text().strip() or _off_axis(artist, figure):
                continue
            shown.append((artist.get_text(), matplotlib.text.Text.get_window_extent(artist, renderer)))
    return shown


def _off_axis(artist, figure):
    """Tick labels beyond the limits of their axis are kept by matplotlib but not drawn."""
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * abs(high - low)
            for tick in axis.get_major_ticks():
                if artist in (tick.label1, tick.label2):
                    inside = low - slack <= tick.get_loc() <= high + slack
                    return not (inside and tick.label1.get_visible() and artist is tick.label1)
    return False


def overlaps(shown):
    """Pairs of texts whose boxes share more than a hair."""
    found = []
    for (one, a), (other, b) in combinations(shown, 2):
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        if width > 2 and height > 4:
            found.append((one, other))
    return found


@pytest.mark.parametrize("name", CHARTS)
def test_no_label_lies_on_another(drawn, name):
    assert overlaps(drawn[name][1]) == []


@pytest.mark.parametrize("name", CHARTS)
def test_every_text_is_inside_the_picture(drawn, name):
    figure, shown = drawn[name]
    width, height = figure.canvas.get_width_height()
    outside = [text for text, box in shown if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]
    assert outside == []


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_has_title_subtitle_and_source(drawn, name):
    shown = [text for text, _ in drawn[name][1]]
    assert any(text.startswith("invented") for text in shown)
    assert any("Source: factory_sim" in text for text in shown)


@pytest.mark.parametrize("name", ["money", "latency", "traffic", "frontier", "accuracy"])
def test_every_panel_says_its_units(drawn, name):
    axes = drawn[name][0].axes
    assert all(ax.get_ylabel() for ax in axes)
    assert axes[-1].get_xlabel()


def test_series_of_a_chart_differ_by_more_than_colour():
    dashes, markers = [str(dash) for _, dash, _ in style.CYCLE], [marker for *_, marker in style.CYCLE]
    assert len(set(dashes)) == len(dashes)
    assert len(set(markers)) == len(markers)
    assert len({str(dash) for _, dash in over_time.PERCENTILES.values()}) == 3


def test_the_line_and_the_band_are_those_of_the_frame(series):
    scale = style.time_scale(28 * DAY_S)
    figure = charts.money_chart(series)
    own = series[series.figure == "margin"]
    line = next(line for line in figure.axes[2].lines if len(line.get_xdata()) > 2)
    assert line.get_ydata()[::2].tolist() == own.value.tolist()
    assert line.get_xdata()[::2].tolist() == (own.start_s / scale.unit_s).tolist()
    band = figure.axes[2].collections[0].get_datalim(figure.axes[2].transData)
    assert band.y0 == pytest.approx(own.low.min())
    assert band.y1 == pytest.approx(own.high.max())


def test_a_gap_in_time_is_a_gap_in_the_line(series):
    scale = style.time_scale(28 * DAY_S)
    own = series[(series.figure == "margin") & ((series.start_s < DAY_S) | (series.start_s >= 2 * DAY_S))]
    x, value, *_ = style.steps(own, scale)
    assert np.isnan(value).sum() == 1
    assert x[np.isnan(value)] == [1.0]


def test_served_and_turned_away_add_up_to_what_arrived(series):
    figure = charts.traffic_chart(series)
    areas = [area.get_datalim(figure.axes[0].transData) for area in figure.axes[0].collections]
    arrived = series[series.figure == "requests_arrived"].value
    assert max(box.y1 for box in areas[:3]) == pytest.approx(arrived.max())


@pytest.mark.parametrize("name", ["money", "frontier"])
def test_a_chart_is_the_same_bytes_each_time_whatever_the_users_settings(draw, name, tmp_path):
    first = charts.save(draw(name), tmp_path, "first")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.hashsalt": "mine", "axes.grid": False}):
        second = charts.save(draw(name), tmp_path, "second")
    for one, other in zip(first, second):
        assert one.read_bytes() == other.read_bytes()


def test_charts_are_the_same_bytes_in_another_process_and_never_touch_pyplot(steps, tmp_path):
    program = (
        "import sys, pandas;"
        "from factory_sim.reports import charts;"
        "steps = pandas.read_json(sys.argv[1] + '/steps.json', orient='table');"
        "charts.save(charts.waterfall_chart(steps), sys.argv[1], 'there');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    steps.to_json(tmp_path / "steps.json", orient="table", index=False, double_precision=15)
    environment = {**os.environ, "PYTHONHASHSEED": "99"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment)
    for path in charts.save(charts.waterfall_chart(steps), tmp_path, "here"):
        assert path.read_bytes() == (tmp_path / f"there{path.suffix}").read_bytes()


def test_a_file_holds_no_date(steps, tmp_path):
    svg, png = charts.save(charts.waterfall_chart(steps), tmp_path, "steps")
    assert "dc:date" not in svg.read_text()
    assert b"Creation Time" not in png.read_bytes()


def test_a_run_gets_the_charts_that_its_tables_allow(series, stages, steps, tmp_path):
    files = charts.write_charts(tmp_path, series=series, stages=stages, steps=steps, formats=["svg"])
    assert [path.name for path in files] == ["money.svg", "latency.svg", "traffic.svg", "waterfall.svg"]
    few = series[series.figure == "requests_completed"]
    assert [path.name for path in charts.write_charts(tmp_path, series=few, formats=["svg"])] == ["traffic.svg"]
    assert charts.write_charts(tmp_path, series=few.assign(service="other"), formats=["svg"]) == []


def test_a_factory_of_several_services_has_their_latency_and_waterfall_apart(make_series, stages, steps, tmp_path):
    series = pd.concat([make_series(service=name) for name in ("all", "chat", "search")])
    chat = {"stages": stages, "promises": PROMISES, "steps": steps}
    files = charts.write_charts(tmp_path, series=series, by_service={"chat": chat, "search": {}}, formats=["svg"])
    names = ["money", "latency", "traffic", "latency-chat", "waterfall-chat", "latency-search"]
    assert [path.stem for path in files] == names


@pytest.mark.parametrize("days", [0.2, 1, 2, 5, 28, 100, 365, 2000])
def test_any_horizon_has_an_axis_with_a_few_ticks_and_no_overlap(make_series, days):
    figure = charts.latency_chart(make_series(days, days * DAY_S / 40), promises=PROMISES)
    assert overlaps(texts(figure)) == []
    ax = figure.axes[-1]
    low, high = ax.get_xlim()
    assert 2 <= sum(low <= tick <= high for tick in ax.get_xticks()) <= 15


def test_lines_that_end_together_have_labels_apart(series):
    near = series.assign(value=series.value.where(~series.figure.str.startswith("tpot"), 0.0395))
    figure = charts.latency_chart(near, promises=PROMISES)
    assert overlaps(texts(figure)) == []
    assert sum(text.endswith("39.5 ms") for text, _ in texts(figure)) == 3


def test_many_stages_are_numbered_and_named_below(series):
    stages = pd.DataFrame(
        [(f"s{n}", n * 2 * DAY_S, (n + 1) * 2 * DAY_S, f"Stage with a long name, number {n}") for n in range(14)],
        columns=["name", "start_s", "end_s", "label"],
    )
    figure = charts.money_chart(series, stages)
    assert overlaps(texts(figure)) == []
    assert any("14 Stage with a long name, number 13" in text.replace("\n", " ") for text, _ in texts(figure))


def test_undefined_values_leave_gaps_and_no_error(series, stages, tmp_path):
    series = series.copy()
    series.loc[series.start_s < 5 * DAY_S, ["value", "low", "high"]] = np.nan
    series.loc[series.figure == "ttft_p99", ["low", "high"]] = np.nan
    files = charts.write_charts(tmp_path, series=series, stages=stages, promises=PROMISES, formats=["png"])
    assert len(files) == 3


def test_a_run_of_one_interval_is_drawn(make_series, tmp_path):
    files = charts.write_charts(tmp_path, series=make_series(1, DAY_S), promises=PROMISES, formats=["png"])
    assert len(files) == 3


def test_a_step_that_makes_it_dearer_reads_as_a_multiple(steps):
    shown = [text for text, _ in texts(charts.waterfall_chart(steps))]
    assert "÷2.49" in shown
    assert "×1.16" in shown
    assert "÷22.4" in shown


def test_a_waterfall_of_nothing_or_of_zero_is_refused(steps):
    with pytest.raises(ValueError, match="positive"):
        charts.waterfall_chart(steps.assign(value=0.0))


def test_more_rows_than_fit_are_counted(series, events):
    spans = pd.DataFrame(
        [(f"replica {n}", 0.0, 28 * DAY_S, "serving") for n in range(200)], columns=["row", "start_s", "end_s", "state"]
    )
    shown = [text for text, _ in texts(charts.timeline_chart(series, spans, events))]
    assert "and 170 more" in shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(HOUR_S, "hour"), (6 * HOUR_S, "6 h"), (DAY_S, "day"), (7 * DAY_S, "week"), (900.0, "15 min"), (90.0, "90 s")],
)
def test_an_interval_is_named(seconds, said):
    frame = pd.DataFrame({"start_s": np.arange(5) * seconds, "end_s": np.arange(1, 6) * seconds})
    assert over_time.interval_label(frame) == said


def test_intervals_that_differ_have_no_name():
    assert over_time.interval_label(pd.DataFrame({"start_s": [0.0, 1, 3], "end_s": [1.0, 3, 7]})) == "interval"


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(1, 40)), min_size=1, max_size=12))
def test_spread_labels_keep_their_order_and_their_room(items):
    wanted = np.sort(np.array([place for place, _ in items]))
    room = np.array([need for _, need in items])
    places = style.spread(wanted, room)
    assert (np.diff(places) >= (room[:-1] + room[1:]) / 2 - 1e-6).all()
    if (np.diff(wanted) > (room[:-1] + room[1:]) / 2).all():
        np.testing.assert_allclose(places, wanted, atol=1e-9)
    else:
        assert abs(places.mean() - wanted.mean()) < room.sum()


@pytest.mark.parametrize("text", ["B200, TensorRT-LLM, FP4", "p95  38.5 ms", "i", "MMMM WWWW"])
def test_the_width_of_a_text_is_as_drawn(text):
    figure = matplotlib.figure.Figure(figsize=(6, 1), dpi=200)
    with charts.settings():
        drawn = figure.text(0, 0.5, text, size=20)
        renderer = FigureCanvasAgg(figure).get_renderer()
        width = drawn.get_window_extent(renderer).width / 200
    assert style.text_width_in(text, 20) == pytest.approx(width, abs=0.04)
