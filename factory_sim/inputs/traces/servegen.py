"""ServeGen's own client data: one folder a model, two files a client (rates and gaps; length histograms)."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from factory_sim.errors import TraceError
from factory_sim.inputs.traces.rate_series import RateSeries
from factory_sim.inputs.traces.trace import TraceReport

_PAIR = re.compile(r"(\d+(?:\.\d+)?)\s*:\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)")
_TRACE = re.compile(r"chunk-(\d+)-trace\.csv")


@dataclass(frozen=True)
class Histogram:
    """A distribution over values, e.g. of one client's prompt lengths in one window."""

    values: np.ndarray
    """float64, rising."""
    shares: np.ndarray
    """float64, sum 1."""


@dataclass(frozen=True)
class ClientLengths:
    """Lengths of one client in one window of hours."""

    client: int
    start_s: float
    requests: float
    """Requests of the client from this window's start to that of its next one."""
    isl: Histogram
    osl: Histogram
    reason_ratio: Histogram | None


@dataclass(frozen=True)
class ServeGen:
    """All clients of one model."""

    name: str
    start_s: np.ndarray
    """float64, shape (windows,): starts of the windows, seconds from the first."""
    end_s: float
    rate_per_s: np.ndarray
    """float64, shape (clients, windows): requests per second."""
    cv: np.ndarray
    """float64, shape (clients,): coefficient of variation of gaps, mean over windows weighted by requests."""
    lengths: tuple[ClientLengths, ...]
    report: TraceReport

    @property
    def share(self) -> np.ndarray:
        """float64, shape (clients,): shares of the requests."""
        requests = self.rate_per_s @ np.diff(self.start_s, append=self.end_s)
        return requests / requests.sum()

    @property
    def rates(self) -> RateSeries:
        """The rate of all clients together."""
        return RateSeries(
            self.name, self.name, self.start_s, self.rate_per_s.sum(axis=0), self.end_s, self.report.notes
        )


def read_servegen(folder: str | Path) -> ServeGen:
    """Read a folder of ``chunk-i-trace.csv`` (seconds, rate, CV, ...; no header) and ``chunk-i-dataset.json``
    (windows of hours with ``{length: probability}`` of prompts and answers, as text). Clients without lengths are
    counted and told.

    Raises TraceError if the folder has no such files, or none of them has a rate.
    """
    folder = Path(folder)
    files = sorted((int(m[1]), path) for path in folder.glob("chunk-*-trace.csv") if (m := _TRACE.fullmatch(path.name)))
    if not files:
        raise TraceError(f"{folder}: has no chunk-*-trace.csv; a folder of ServeGen's data of one model is needed")
    tables = [_rates(path) for _, path in files]
    start_s = np.unique(np.concatenate([table[:, 0] for table in tables]))
    if len(start_s) < 2:
        raise TraceError(f"{folder}: needs at least two windows")
    window_s = float(np.median(np.diff(start_s)))
    rate, cv = np.zeros((2, len(files), len(start_s)))
    for row, table in enumerate(tables):
        at = np.searchsorted(start_s, table[:, 0])
        rate[row, at], cv[row, at] = table[:, 1], table[:, 2]
    if rate.sum() == 0:
        raise TraceError(f"{folder}: all rates are 0")
    weight = rate * (cv > 0)
    mean_cv = np.divide(
        (weight * cv).sum(axis=1), weight.sum(axis=1), out=np.ones(len(files)), where=weight.sum(axis=1) > 0
    )
    end_s = float(start_s[-1] + window_s - start_s[0])
    lengths, without = [], 0
    for row, (number, _) in enumerate(files):
        path = folder / f"chunk-{number}-dataset.json"
        found = _lengths(path, row, start_s, rate[row] * window_s) if path.exists() else []
        without += not found
        lengths += found
    requests = float(rate.sum() * window_s)
    covered = sum(part.requests for part in lengths) / requests
    notes = (f"{len(files)} clients, {requests:,.0f} requests in {end_s:g} s",)
    if without:
        notes += (f"{without} clients have no lengths; those known cover {covered:.1%} of the requests",)
    report = TraceReport("servegen", "ServeGen", round(requests), notes=notes, file=str(folder))
    return ServeGen(folder.name, start_s - start_s[0], end_s, rate, mean_cv, tuple(lengths), report)


def _rates(path: Path) -> np.ndarray:
    """Return (seconds, rate, cv) of each window of one client."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        cells = line.split(",")
        try:
            row = [float(cells[0]), float(cells[1]), float(cells[2] or 0)]
        except (ValueError, IndexError):
            raise TraceError(f"{path}: row {number}: seconds, rate and CV are needed; found {line[:60]!r}") from None
        if not np.all(np.isfinite(row)) or min(row) < 0:
            raise TraceError(f"{path}: row {number}: seconds, rate and CV must be finite and >= 0; found {line[:60]!r}")
        rows.append(row)
    if not rows:
        raise TraceError(f"{path}: has no rows")
    return np.array(rows)


def _lengths(path: Path, client: int, start_s: np.ndarray, requests: np.ndarray) -> list[ClientLengths]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        windows = sorted((float(start), body) for start, body in document.items())
    except (ValueError, AttributeError) as reason:
        raise TraceError(f'{path}: windows such as {{"0": {{"input_tokens": ...}}}} are needed: {reason}') from None
    found, known = [], []
    for start, body in windows:
        isl, osl = (
            _histogram(body.get(name)) if isinstance(body, dict) else None for name in ("input_tokens", "output_tokens")
        )
        if isl is not None and osl is not None:
            known.append((start, isl, osl, _histogram(body.get("reason_ratio"))))
    for at, (start, isl, osl, ratio) in enumerate(known):
        begin = -np.inf if at == 0 else start
        end = known[at + 1][0] if at + 1 < len(known) else np.inf
        inside = (start_s >= begin) & (start_s < end)
        count = float(requests[inside].sum())
        if count > 0:
            found.append(ClientLengths(client, start, count, isl, osl, ratio))
    return found


def _histogram(text: object) -> Histogram | None:
    pairs = _PAIR.findall(text) if isinstance(text, str) else []
    if isinstance(text, dict):
        pairs = [(key, value) for key, value in text.items()]
    if not pairs:
        return None
    values, shares = np.array(pairs, np.float64).T
    order = np.argsort(values, kind="stable")
    total = shares.sum()
    return Histogram(values[order], shares[order] / total) if total > 0 else None
