"""What every request log and trace is turned into: lengths and times of requests, and a list of what was refused."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

    from factory_sim.inputs.logs.files import Source
    from factory_sim.inputs.logs.jsonscan import Loss

BATCH_ROWS = 50_000


class Request(NamedTuple):
    """One request of a log or trace. Missing numbers are NaN, missing names None; no text is ever kept."""

    start_s: float = float("nan")
    """Start: seconds since 1970, or since any fixed moment of the file."""
    isl: float = float("nan")
    """Input tokens."""
    osl: float = float("nan")
    """Output tokens, reasoning included."""
    cached_tokens: float = float("nan")
    """Input tokens served from a prefix cache."""
    reasoning_tokens: float = float("nan")
    ttft_s: float = float("nan")
    decode_s: float = float("nan")
    """From the first to the last output token, seconds."""
    e2e_s: float = float("nan")
    ok: bool = True
    session: object = None
    tenant: object = None
    model: object = None
    spend_usd: float = float("nan")
    key: object = None
    """Identity of the request, to recognise the same one in another file."""


COLUMNS = Request._fields
NUMBER_COLUMNS = tuple(
    name for name in COLUMNS if name not in ("ok", "session", "tenant", "model", "key")
)


def batch(requests: list[Request]) -> "pd.DataFrame":
    """Return requests as a table with the columns of `Request`."""
    import pandas as pd

    frame = pd.DataFrame.from_records(requests, columns=list(COLUMNS)).astype(
        {name: "float64" for name in NUMBER_COLUMNS} | {"ok": "bool"}
    )
    for name in ("session", "tenant", "model"):  # a log may hold anything there
        cells = [cell if isinstance(cell, str | int) else None for cell in frame[name]]
        frame[name] = pd.Series(cells, index=frame.index, dtype=object)
    return frame


@dataclass
class Complaints:
    """What was refused or repaired while reading: counted in full, spelled out for the first few of each kind."""

    shown_per_kind: int = 5
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str, times: int = 1) -> None:
        """Note that `kind` of trouble was met at `where` (a line, a row and column, a member)."""
        self.counts[kind] = self.counts.get(kind, 0) + times
        shown = self.examples.setdefault(kind, [])
        if len(shown) < self.shown_per_kind:
            shown.append(where)

    def add_loss(self, loss: "Loss", source: "Source") -> None:
        """Note a document of `source` that could not be read to its end."""
        line, column = source.line_column(loss.position)
        kind = "dropped, cut off" if loss.cut else "dropped, not JSON"
        self.add(kind, f"line {line}, column {column}: {loss.message}")

    def add_rows(self, kind: str, rows: Iterable[int], column: str = "", found: Iterable[object] = ()) -> None:
        """Note many rows at once; `found` are their cells."""
        rows, found = list(rows), list(found)
        if not rows:
            return
        self.counts[kind] = self.counts.get(kind, 0) + len(rows)
        shown = self.examples.setdefault(kind, [])
        for at, row in enumerate(rows[: max(0, self.shown_per_kind - len(shown))]):
            cell = f", found {found[at]!r}" if at < len(found) else ""
            shown.append(f"row {row}" + (f", column {column}" if column else "") + cell)

    @property
    def total(self) -> int:
        """Number of rows or members complained of."""
        return sum(self.counts.values())

    def notes(self) -> list[str]:
        """Return one sentence for each kind of trouble."""
        lines = []
        for kind, times in self.counts.items():
            examples = self.examples[kind]
            more = f"; and {times - len(examples)} more" if times > len(examples) else ""
            lines.append(f"{kind}: {'; '.join(examples)}{more}")
        return lines
