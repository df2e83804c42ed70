"""What the commands about money share: the run folder, and numbers as words."""

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(help="Run folder that `factory-sim run` wrote.", show_default=False)]


def finite(value: float) -> float | None:
    """The number, or None where it is not finite."""
    return float(value) if value == value and abs(value) != float("inf") else None


def plain(value):
    """A value for JSON: what is not finite is None."""
    return finite(value) if isinstance(value, float) else value


def short(value: float) -> str:
    """A number for a statement: cents above a thousand, four figures below."""
    if value != value:
        return "undefined"
    return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:,.4g}"
