"""Opening what users send: any of the usual encodings and compressions, any size, in bounded memory.

`open_bytes` gives UTF-8 bytes to index like an array. Plain UTF-8 files are memory-mapped as they are; the rest are
unpacked or re-encoded, block by block, into an unnamed temporary file that is mapped instead.
"""

import bz2
import codecs
import lzma
import mmap
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from factory_sim.errors import FactorySimError, TraceError

BLOCK_BYTES = 1 << 20
_ZSTD_READ_BYTES = 1 << 14
PARQUET_MAGIC = b"PAR1"
_BINARY_MAGIC = {
    b"\x89PNG": "a PNG picture",
    b"%PDF": "a PDF document",
    b"\x80\x04": "a Python pickle",
    b"\x93NUM": "a NumPy array",
    b"SQLi": "an SQLite database; export the table as CSV",
}
_PACKED = (
    (b"\x1f\x8b", "gzip", lambda handle: _gunzip(handle)),
    (b"BZh", "bzip2", bz2.BZ2File),
    (b"\xfd7zX", "xz", lzma.LZMAFile),
    (b"\x28\xb5\x2f\xfd", "zstd", lambda handle: _unzstd(handle)),
)
_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")


@dataclass
class Source:
    """One opened file: its path, its text as UTF-8 bytes, and what had to be done to read it."""

    path: Path
    data: bytes | mmap.mmap
    """UTF-8 bytes of the whole file (without a byte-order mark); empty for Parquet."""
    notes: list[str] = field(default_factory=list)
    parquet: bool = False
    cut: bool = False
    """The compressed stream or the last character was cut off."""
    counted: tuple[int, int, int] = (0, 1, 0)
    """How far lines were counted: position, its line, and where that line starts."""

    @property
    def name(self) -> str:
        """File name without compression suffix."""
        name = self.path.name
        for suffix in _SUFFIXES:
            name = name.removesuffix(suffix)
        return name

    def line_column(self, position: int) -> tuple[int, int]:
        """Return the line and column, both from 1, of a byte position; quick when positions only grow."""
        at, line, start = self.counted if self.counted[0] <= position else (0, 1, 0)
        while at < position:
            block = self.data[at : min(at + BLOCK_BYTES, position)]
            newlines = block.count(b"\n")
            if newlines:
                line += newlines
                start = at + block.rfind(b"\n") + 1
            at += len(block)
        self.counted = (at, line, start)
        return line, position - start + 1


@contextmanager
def open_bytes(path: str | Path, error: type[FactorySimError] = TraceError) -> Iterator[Source]:
    """Open `path` whatever its compression and encoding.

    Compressions are gzip, bzip2, xz, zstd and zip; encodings UTF-8, UTF-16, UTF-32 and Windows-1252.

    Raises `error` when the file is missing, empty, binary or cannot be read.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        handle = path.open("rb")
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror}") from None
    with handle:
        head = handle.read(4)
        handle.seek(0)
        if head == PARQUET_MAGIC:
            yield Source(path, b"", parquet=True)
            return
        for magic, what in _BINARY_MAGIC.items():
            if head.startswith(magic):
                raise error(f"{path}: is {what}; a JSON, JSONL, YAML, CSV or Parquet file would do")
        source = Source(path, b"")
        plain = _unpacked(handle, head, source, error)
        try:
            text = _utf8(plain, source, error)
            text.seek(0, 2)
            size = text.tell()
            if size == 0:
                raise error(f"{path}: is empty; a result file, a trace or a log was expected")
            text.flush()
            mapped = mmap.mmap(text.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as reason:
            raise error(f"{path}: cannot be read: {reason}") from None
        try:
            source.data = mapped
            if _blank(mapped):
                raise error(f"{path}: holds only white space; a result file, a trace or a log was expected")
            yield source
        finally:
            source.data = b""
            with suppress(BufferError):  # a view of it may still be alive; the collector closes it later
                mapped.close()
            if text is not handle:
                text.close()


def _blank(data: mmap.mmap) -> bool:
    return not any(data[at : at + BLOCK_BYTES].strip() for at in range(0, len(data), BLOCK_BYTES))


def _unpacked(handle, head: bytes, source: Source, error: type[FactorySimError]):
    """Return a readable stream of the unpacked bytes (the handle itself when nothing was packed)."""
    packed = next((item for item in _PACKED if head.startswith(item[0])), None)
    if packed:
        _, kind, unpack = packed
        stream = unpack(handle)
    elif head.startswith(b"PK\x03\x04"):
        try:
            archive = zipfile.ZipFile(handle)
        except zipfile.BadZipFile:
            raise error(f"{source.path}: is no whole zip archive (cut off or damaged); its list of files is missing "
                        "from the end") from None
        names = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
        if "xl/workbook.xml" in names:
            raise error(f"{source.path}: is an Excel workbook; save the sheet as CSV")
        if len(names) != 1:
            raise error(f"{source.path}: is an archive of {len(names)} files; unpack it and give the folder")
        try:
            kind, stream = "zip", archive.open(names[0])
        except (RuntimeError, NotImplementedError) as reason:  # a password, or a compression of its own
            raise error(f"{source.path}: cannot be unpacked: {reason}") from None
    else:
        return handle
    out = tempfile.TemporaryFile()  # noqa: SIM115 closed by open_bytes
    try:
        # what a cut zstd stream holds is lost from the last whole read on
        size = _ZSTD_READ_BYTES if kind == "zstd" else BLOCK_BYTES
        for block in stream if kind == "gzip" else iter(lambda: stream.read(size), b""):
            out.write(block)
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, OSError, ValueError) as reason:
        if out.tell() == 0:
            raise error(f"{source.path}: is not a whole {kind} file: {reason}") from None
        source.cut = True
        source.notes.append(f"{source.path.name}: the {kind} stream is cut off or damaged ({reason}); what could be "
                            "unpacked was read")
    out.seek(0)
    return out


def _unzstd(handle):
    """Return a readable stream of the content of a zstd file."""
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(handle, mode="r"), "zstd")


def _gunzip(handle) -> Iterator[bytes]:
    """Yield the content of a gzip file, member by member, up to where it may be cut off."""
    unpacker = zlib.decompressobj(wbits=31)
    packed = b""
    while packed or (packed := handle.read(BLOCK_BYTES)):
        yield unpacker.decompress(packed, BLOCK_BYTES)
        packed = unpacker.unconsumed_tail
        if unpacker.eof:
            packed = unpacker.unused_data.lstrip(b"\0") or handle.read(BLOCK_BYTES)
            if packed:
                unpacker = zlib.decompressobj(wbits=31)
    if not unpacker.eof:
        yield unpacker.flush()
        raise EOFError("it ends before its end mark")


def _utf8(handle, source: Source, error: type[FactorySimError]):
    """Return a file of UTF-8 bytes without byte-order mark: `handle` itself where it is one already."""
    head = handle.read(4096)
    handle.seek(0)
    encoding = _marked_encoding(head)
    if encoding is None:
        bad_at = _first_bad_utf8(handle)
        if bad_at is None:
            if head[257:262] == b"ustar":
                raise error(f"{source.path}: is a tar archive; unpack it and give the folder")
            if b"\0" in head:
                raise error(f"{source.path}: is a binary file (byte 0 found); text or Parquet was expected")
            return handle
        handle.seek(0, 2)
        if _ends_in_a_character(handle, bad_at):
            source.cut = True
            source.notes.append(f"{source.path.name}: ends in the middle of a character")
            encoding = "utf-8"
        else:
            control = sum(byte < 9 or 13 < byte < 27 for byte in head)
            if control > len(head) // 50:
                raise error(f"{source.path}: is a binary file (byte {bad_at}); text or Parquet was expected")
            encoding = "cp1252"
            source.notes.append(f"{source.path.name}: is not UTF-8 (byte {bad_at}); read as Windows-1252 (Latin-1)")
    elif encoding != "utf-8-sig":
        source.notes.append(f"{source.path.name}: is {encoding.upper()}; re-encoded to UTF-8 while reading")
    text, cut = _reencode(handle, encoding)
    if cut and not source.cut:
        source.cut = True
        source.notes.append(f"{source.path.name}: ends in the middle of a character")
    return text


def _marked_encoding(head: bytes) -> str | None:
    """Encoding told by a byte-order mark, or by the zeros of unmarked UTF-16; None where UTF-8 may be tried."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            return name
    if len(head) >= 4:
        even, odd = head[0::2].count(0), head[1::2].count(0)
        if odd > 0.4 * len(head[1::2]) and even < 0.1 * len(head[0::2]):
            return "utf-16-le"
        if even > 0.4 * len(head[0::2]) and odd < 0.1 * len(head[1::2]):
            return "utf-16-be"
    return None


def _first_bad_utf8(handle) -> int | None:
    decoder, at = codecs.getincrementaldecoder("utf-8")(), 0
    handle.seek(0)
    while block := handle.read(BLOCK_BYTES):
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(block)
        except UnicodeDecodeError as reason:
            return at - held + reason.start
        at += len(block)
    held = len(decoder.getstate()[0])
    handle.seek(0)
    return at - held if held else None


def _ends_in_a_character(handle, bad_at: int) -> bool:
    """Whether the bytes from `bad_at` on are the beginning of one UTF-8 character, and no others come after."""
    handle.seek(bad_at)
    rest = handle.read(4)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(rest)
    except UnicodeDecodeError:
        return False
    return len(rest) <= 3


def _reencode(handle, encoding: str):
    """(A file of UTF-8 bytes, whether the last character was cut off.)"""
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    out = tempfile.TemporaryFile()  # noqa: SIM115 closed by open_bytes
    handle.seek(0)
    while block := handle.read(BLOCK_BYTES):
        out.write(decoder.decode(block).encode())
    tail = decoder.decode(b"", final=True)
    out.write(tail.replace("\N{REPLACEMENT CHARACTER}", "").encode())
    out.seek(0)
    return out, bool(tail)
