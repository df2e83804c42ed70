"""From the first stage to the last: what each step did to a cost, as lengths on a logarithmic axis.

On such an axis a halving is as long wherever it happens, so the lengths of the steps add up to the length of the
whole.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from factory_sim.reports.charts import style as look
from factory_sim.reports.formatting import format_band, format_value, trust_legend, trust_mark, window_label

_ROW_IN = 0.42


def plot_waterfall(steps: pd.DataFrame, ax: Axes, *, unit: str = "USD", size: float = look.TEXT) -> Axes:
    """Draw one row a step: a bar from the value before it to its own, the factor at the bar, the value at its end.

    steps: name, label, value, low, high in the order of the story; optional factor, factor_low, factor_high (how many
    times less than the step before; NaN in the first row), taken from the values where they are missing, and optional
    trust. Values that are not positive cannot be drawn and raise ValueError. A step that makes it dearer is hatched.
    The last row is the whole way.
    """
    values = steps.value.to_numpy(float)
    if len(values) < 1 or not (values > 0).all():
        raise ValueError("a waterfall needs positive values, one a step")
    low, high = (steps[name].fillna(steps.value).to_numpy(float) for name in ("low", "high"))
    factors = _factors(steps)
    ax.set_xscale("log")
    for row, value in enumerate(values):
        if row:
            _bar(ax, row, values[row - 1], value)
            ax.plot([values[row - 1]] * 2, [row - 1, row], color=look.FAINT, linewidth=0.7, linestyle=":", zorder=1)
            _factor_text(ax, row, max(values[row - 1], high[row]), factors[row], size)
        ax.plot([low[row], high[row]], [row, row], color=look.INK, linewidth=1.0, zorder=4, solid_capstyle="butt")
        ax.plot([value], [row], marker="o", color=look.INK, markersize=4.5, linestyle="none", zorder=5)
        _value_text(ax, row, min(low[row], values[max(row - 1, 0)]), format_value(value, unit), size)
    rows = len(values)
    if rows > 2:
        ends = [values[0], values[-1]]
        ax.plot(ends, [rows, rows], color=look.INK, linewidth=1.2, marker="|", markersize=9, zorder=4)
        _factor_text(ax, rows, max(ends), (values[0] / values[-1], np.nan, np.nan), size)
    _rows_axis(ax, steps, rows + (rows > 2), size)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit, exact=True)))
    room = 2.6 if np.isfinite([ends[1:] for ends in factors]).any() else 1.9
    ax.set_xlim(min(low.min(), values.min()) / 2.1, max(high.max(), values.max()) * room)
    look.log_ticks(ax.xaxis, values.min(), values.max())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit, exact=True)))
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)
    return ax


def waterfall_chart(
    steps: pd.DataFrame, *, title: str = "", subtitle: str = "", footnote: str = "", unit: str = "USD",
    axis_label: str = "Cost per million output tokens, USD (logarithmic: equal lengths are equal factors)",
) -> Figure:  # fmt: skip
    """The way of a cost from the first stage to the last; see `plot_waterfall` for the frame."""
    with look.settings():
        rows = len(steps) + (len(steps) > 2)
        legend = trust_legend(steps.trust) if "trust" in steps else ""
        footnote = "\n".join(filter(None, [legend, footnote]))
        sheet = look.sheet([_ROW_IN * rows], title=title or "From the first stage to the last", subtitle=subtitle,
                           footnote=footnote, left_in=2.05, right_in=0.25, bottom_in=0.55)  # fmt: skip
        ax = sheet.panels[0]
        plot_waterfall(steps, ax, unit=unit)
        ax.set_xlabel(axis_label)
    return sheet.figure


def _factors(steps: pd.DataFrame) -> list[tuple[float, float, float]]:
    """(factor, low, high) of each row against the row before it."""
    values = steps.value.to_numpy(float)
    plain = np.append(np.nan, values[:-1] / values[1:])
    given = steps["factor"].to_numpy(float) if "factor" in steps else plain
    ends = [
        steps[name].to_numpy(float) if name in steps else np.full(len(steps), np.nan)
        for name in ("factor_low", "factor_high")
    ]
    return list(zip(np.where(np.isnan(given), plain, given), *ends))


def _bar(ax: Axes, row: int, before: float, value: float) -> None:
    better = value <= before
    ax.barh(
        row, abs(before - value), left=min(before, value), height=0.5, zorder=2, linewidth=0.8,
        facecolor="#9CCBE8" if better else "white", edgecolor=look.BLUE if better else look.RED,
        hatch=None if better else "////",
    )  # fmt: skip


def _factor_text(ax: Axes, row: int, x: float, factor: tuple[float, float, float], size: float) -> None:
    """ "÷2.49" at the dear end of a bar, or "×1.20" where the step made it dearer; its range behind it."""
    value, low, high = factor
    sign, size_of = ("÷", value) if value >= 1 else ("×", 1 / value)
    text = f"{sign}{format_value(size_of, '')}"
    ax.annotate(text, (x, row), (6, 0), textcoords="offset points", va="center", ha="left", size=size, weight="bold")
    if np.isfinite(low) and np.isfinite(high):
        ends = (low, high) if value >= 1 else (1 / high, 1 / low)
        band = format_band(ends[0], size_of, ends[1])
        shift = 6 + 72 * look.text_width_in(text, size) * 1.12 + 5
        ax.annotate(band, (x, row), (shift, 0), textcoords="offset points", va="center", ha="left", size=size - 1.5,
                    color=look.FAINT)  # fmt: skip


def _value_text(ax: Axes, row: int, x: float, text: str, size: float) -> None:
    ax.annotate(text, (x, row), (-5, 0), textcoords="offset points", va="center", ha="right", size=size)


def _rows_axis(ax: Axes, steps: pd.DataFrame, rows: int, size: float) -> None:
    """Names of the steps at the left, with their trust; first step on top."""
    trust = steps["trust"] if "trust" in steps else [None] * len(steps)
    labels = []
    for name, label, step in zip(steps.name, steps.label, trust):
        lines = look.wrapped(str(label or window_label(name)), 1.75, size)
        labels.append("\n".join(lines) + (f" {trust_mark(step)}" if trust_mark(step) else ""))
    labels += ["first to last"] * (rows - len(labels))
    ax.set_yticks(range(rows), labels, size=size)
    ax.set_ylim(rows - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
