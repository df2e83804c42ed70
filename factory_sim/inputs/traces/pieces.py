"""A large file of lines, piece by piece."""

from collections.abc import Iterator

from factory_sim.inputs.logs.files import Source


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
