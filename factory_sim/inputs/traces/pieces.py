"""A large file of lines, piece by piece."""

import json
from collections.abc import Iterator

from factory_sim.inputs.logs.files import Source
from factory_sim.inputs.logs.records import Complaints


def pieces(source: Source, size_bytes: int, start: int = 0, line: int = 1) -> Iterator[tuple[bytes, int]]:
    """Yield (whole lines, number of the first) of about `size_bytes` each, from byte `start`, which begins line
    `line`."""
    position = start
    while position < len(source.data):
        end = min(position + size_bytes, len(source.data))
        if end < len(source.data):
            newline = source.data.find(b"\n", end)
            end = len(source.data) if newline < 0 else newline + 1
        piece = bytes(source.data[position:end])
        yield piece, line
        position, line = end, line + piece.count(b"\n")


def objects(piece: bytes, line: int, complaints: Complaints) -> Iterator[tuple[dict, int]]:
    """Yield the JSON objects of a piece that begins at `line`, with their lines; what is none is complained of."""
    texts = piece.decode("utf-8", "replace").split("\n")
    for number, text in enumerate(texts, line):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except ValueError:
            at_end = number == line + len(texts) - 1
            complaints.add("dropped, cut off" if at_end else "dropped, not JSON", f"line {number}: {text[:40]!r}")
            continue
        if isinstance(record, dict):
            yield record, number
        else:
            complaints.add("dropped, not an object", f"line {number}: {text[:40]!r}")
