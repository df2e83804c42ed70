"""Terminal tables: every figure is shown at every width, in colour, in a pipe and where only ASCII prints."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console

from factory_sim.reports import tables

FIGURES = [
    ("cost_per_million_output_tokens", "USD", 0.5),
    ("revenue", "USD", 1.2e6),
    ("output_tokens", "tokens", 3e11),
    ("ttft_p95", "s", 3.1),
    ("slo_attainment", "fraction", 0.9731),
    ("energy", "kWh", 1.3e5),
]
WINDOWS = ["week_1", "week_2", "week_3", "week_4", "whole", "stage_h200-trtllm-fp8-tp8", "stage_b200"]


def figures_frame():
    rows = [
        (figure, window, "all", value * (1 + n), value * (1 + n) * 0.9, value * (1 + n) * 1.1, unit, "measured")
        for n, window in enumerate(WINDOWS)
        for figure, unit, value in FIGURES
        if value * (1 + n) < 1 or unit != "fraction"
    ]
    rows.append(("cost_reduction_first_to_last_week", "whole", "all", 22.04, 19.1, 25.3, "ratio", "interpolated"))
    return pd.DataFrame(rows, columns=["figure", "window", "service", "value", "low", "high", "unit", "trust"])


def shown(renderable, width, encoding="utf-8", terminal=False):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=out, width=width, force_terminal=terminal, legacy_windows=False)
    console.print(renderable)
    out.flush()
    return out.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_figure_is_cut_at_any_width(width):
    frame = figures_frame()
    text = shown(tables.figures_grid(frame, WINDOWS, title="by window"), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    for wanted in ("$0.50 ●", "0.45–0.55", "$1.20 M ●", "300 B ●", "3.10 s ●", "97.3 % ●", "130 MWh ●", "22.0× ◐"):
        assert wanted in text
    assert text.count(" ●") == (frame.trust == "measured").sum()


def test_a_wide_table_has_a_figure_on_one_line_and_a_narrow_one_on_two():
    grid = tables.figures_grid(figures_frame(), ["week_1", "week_2"], title="weeks")
    assert "$0.50 ●  0.45–0.55" in shown(grid, 160)
    assert "$0.50 ●  0.45–0.55" not in shown(grid, 60)


def test_a_pipe_gets_no_colour_and_a_terminal_does():
    grid = tables.figures_grid(figures_frame(), ["week_1"], title="weeks")
    assert "\x1b" not in shown(grid, 80)
    assert "\x1b" in shown(grid, 80, terminal=True)


def test_ascii_output_keeps_every_figure_and_its_trust():
    text = shown(tables.figures_grid(figures_frame(), WINDOWS, title="by window"), 80, encoding="ascii")
    assert "$0.50 M" in text
    assert "0.45-0.55" in text
    assert "M measured" in text
    assert "?" not in text


def test_an_undefined_figure_is_a_dash_without_a_mark():
    frame = figures_frame().assign(value=np.nan, low=np.nan, high=np.nan)
    text = shown(tables.figures_grid(frame, ["whole"], title="whole"), 80)
    assert "–" in text
    assert "●" not in text.split("● measured")[0]


def test_weeks_come_in_order_with_the_whole_run_last():
    assert tables.windows_of(figures_frame(), "week") == ["week_1", "week_2", "week_3", "week_4", "whole"]
    assert tables.windows_of(figures_frame(), "stage") == ["stage_h200-trtllm-fp8-tp8", "stage_b200"]


def comparison():
    first = pd.DataFrame(
        [("revenue", "held", 2e6, 1.9e6, 2.1e6, "USD", "measured", 1.0, 1.0, 1.0),
         ("cost", "held", 1e6, 0.9e6, 1.1e6, "USD", "measured", 1.0, 1.0, 1.0),
         ("revenue", "follows-cost", 1e6, 0.9e6, 1.1e6, "USD", "measured", 0.5, 0.48, 0.52),
         ("cost", "follows-cost", 1.01e6, 0.9e6, 1.1e6, "USD", "measured", 1.01, 0.98, 1.04)],
        columns=["figure", "run", "value", "low", "high", "unit", "trust", "ratio", "ratio_low", "ratio_high"],
    )  # fmt: skip
    return first


@pytest.mark.parametrize("width", [60, 80, 160])
def test_runs_stand_side_by_side_with_their_ratio(width):
    text = shown(tables.comparison_grid(comparison(), title="two runs"), width)
    for wanted in ("$2.00 M", "$1.00 M", "0.500×", "0.480–0.520"):
        assert wanted in text


def test_a_ratio_whose_band_holds_one_is_no_difference():
    text = shown(tables.comparison_grid(comparison(), title="two runs"), 160)
    assert "1.01× ≈" in text
    assert "0.500× ≈" not in text
    assert "no difference" in text


def profiles():
    return pd.DataFrame(
        {
            "profile": ["deepseek-r1-h200-trtllm-fp8", "gpt-oss-120b-mi300x"],
            "rows": [1456, 0],
            "tpot_median_error_fraction": [0.0612, np.nan],
            "tpot_p95_s": [0.0384, np.nan],
            "rent_usd_per_gpu_hour": [2.9, 1.99],
            "fitted": [True, False],
            "note": ["fitted by playing the benchmark at each concurrency", None],
        }
    )


@pytest.mark.parametrize("width", [40, 80, 160])
def test_any_frame_is_shown_whole_at_any_width(width):
    text = shown(tables.tidy_table(profiles(), title="Profiles"), width)
    assert max(map(cell_len, text.splitlines())) <= width
    squeezed = "".join(text.split())
    for wanted in ("1,456", "6.12%", "38.4ms", "$2.90", "yes", "no", "concurrency"):
        assert wanted in squeezed
    if width == 160:
        assert "deepseek-r1-h200-trtllm-fp8" in text


def test_the_unit_of_a_column_is_in_its_name():
    assert tables.column_unit("ttft_p95_s") == "s"
    assert tables.column_unit("rent_usd_per_gpu_hour") == "USD"
    assert tables.column_unit("output_tokens_per_s") == "tokens/s"
    assert tables.column_unit("requests") == ""


def test_units_can_be_given_by_column():
    frame = pd.DataFrame({"name": ["a"], "latency": [0.02]})
    assert "20.0 ms" in shown(tables.tidy_table(frame, units={"latency": "s"}), 80)


def test_an_empty_frame_is_a_table_of_headers():
    assert "Output" in shown(tables.tidy_table(pd.DataFrame({"output_usd": pd.Series([], dtype=float)})), 80)


def test_a_broken_check_stands_out():
    broken = {"check": "littles_law", "ok": False, "detail": "off by 3 %"}
    text = shown(tables.checks_table([broken, {"check": "books", "ok": True, "detail": ""}]), 80)
    assert "BROKEN" in text
    assert "holds" in text


def a_summary(ok=True, services=("all", "chat")):
    rows = pd.concat([figures_frame().assign(service=service) for service in services]).to_dict("records")
    scenario = {"name": "tiny", "digest": "0123456789", "seed": 1, "version": "0.1.0"}
    check = {"check": "littles_law", "ok": ok, "detail": "off by 3 %"}
    return {"schema": "factory_sim.summary/1", "scenario": scenario, "figures": rows, "checks": [check]}


def test_a_run_is_reported_by_week_and_by_stage():
    text = shown(tables.run_report(a_summary()), 80)
    assert "tiny, by week" in text
    assert "tiny, by stage" in text
    assert "service chat" not in text
    assert "all 1 checks hold" in text


def test_each_of_several_services_is_reported():
    text = shown(tables.run_report(a_summary(services=("all", "chat", "search"))), 80)
    assert "service chat, by week" in text
    assert "service search, by week" in text


def test_a_broken_law_is_reported_with_its_detail():
    text = shown(tables.run_report(a_summary(ok=False)), 80)
    assert "BROKEN" in text
    assert "off by 3 %" in text
