"""Files are opened whatever their encoding and compression; what cannot be read is refused with its reason."""

import bz2
import gzip
import lzma
import random
import tarfile
import zipfile

import pyarrow
import pytest

from factory_sim.errors import MeasurementError, TraceError
from factory_sim.inputs.logs.files import open_bytes

TEXT = '{"name": "größe", "value": 1}\n' * 400


def content(path):
    with open_bytes(path) as source:
        return bytes(source.data).decode(), source.notes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_encodings_give_the_same_text(tmp_path, encoding):
    path = tmp_path / "file.json"
    path.write_bytes(TEXT.encode(encoding))
    assert content(path)[0] == TEXT


def test_latin_1_is_read_and_told(tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(TEXT.encode("latin-1"))
    text, notes = content(path)
    assert text == TEXT
    assert "not UTF-8 (byte 12)" in notes[0]


def zstd(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_compressed_files_are_unpacked_whatever_their_name(tmp_path, pack):
    path = tmp_path / "file.json"
    path.write_bytes(pack(TEXT.encode()))
    assert content(path)[0] == TEXT


def test_gzip_members_one_after_another_are_one_file(tmp_path):
    path = tmp_path / "file.json.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n'))
    assert content(path)[0] == '{"a": 1}\n{"a": 2}\n'


def test_cut_gzip_gives_what_is_there(tmp_path):
    path = tmp_path / "file.json.gz"
    packed = gzip.compress("".join(f'{{"a": {at * 7919 % 10007}}}\n' for at in range(5000)).encode())
    path.write_bytes(packed[: len(packed) // 2])
    text, notes = content(path)
    assert text.startswith('{"a": 0}\n{"a": 7919}\n')
    assert "cut off" in notes[0]


def test_cut_zstd_gives_what_is_there(tmp_path):
    path = tmp_path / "file.jsonl.zst"
    draw = random.Random(1)
    packed = zstd("".join(f'{{"a": {draw.random()}}}\n' for _ in range(50_000)).encode())
    path.write_bytes(packed[: len(packed) // 2])
    text, notes = content(path)
    assert text.startswith('{"a": 0.13436424411240122}\n')
    assert text.count("\n") > 10_000
    assert "zstd stream is cut off" in notes[0]


def test_cut_zip_and_packed_tar_are_refused(tmp_path):
    path = tmp_path / "file.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", TEXT)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TraceError, match="no whole zip archive"):
        content(path)
    inner, folder = tmp_path / "a.json", tmp_path / "results.tar.gz"
    inner.write_text(TEXT)
    with tarfile.open(folder, "w:gz") as archive:
        archive.add(inner, "a.json")
    with pytest.raises(TraceError, match="tar archive; unpack it"):
        content(folder)


def test_zip_of_one_file_is_unpacked_and_of_two_refused(tmp_path):
    for names in (["a.json"], ["a.json", "b.json"]):
        with zipfile.ZipFile(tmp_path / "file.zip", "w") as archive:
            for name in names:
                archive.writestr(name, TEXT)
        if len(names) == 1:
            assert content(tmp_path / "file.zip")[0] == TEXT
        else:
            with pytest.raises(TraceError, match="archive of 2 files"):
                content(tmp_path / "file.zip")


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "is empty"), (b" \n\t\n", "only white space"), (bytes(range(256)) * 20, "binary"),
     (b"\x89PNG\r\n\x1a\n0000", "PNG"), (b"\x28\xb5\x2f\xfd0000", "zstd"), (b"text\0more" * 100, "binary")],
)
def test_what_is_no_text_is_refused(tmp_path, data, reason):
    path = tmp_path / "file.json"
    path.write_bytes(data)
    with pytest.raises(MeasurementError, match=reason), open_bytes(path, MeasurementError):
        pass


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(TraceError, match="No such file"), open_bytes(tmp_path / "none.json"):
        pass


def test_lines_and_columns_are_counted_from_one(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("ab\ncde\n\nf")
    with open_bytes(path) as source:
        assert [source.line_column(at) for at in (0, 2, 3, 5, 8, 3)] == [(1, 1), (1, 3), (2, 1), (2, 3), (4, 1), (2, 1)]
