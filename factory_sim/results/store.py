"""A run on disk: a folder that is whole or not there, the same bytes for the same run.

    <folder>/run.json          schema, version and SHA-256 of every data file; `incomplete` and why, if it was stopped
             scenario.yaml     the scenario as resolved
             provenance.json   digest and source of every input
             summary.json      figures and checks (`factory_sim.summary/1`)
             tables/*.parquet  one file a table
             charts/           pictures, PNG and SVG

The folder is made under a temporary name beside its place and renamed when it is complete, so an interrupted run
leaves nothing behind. No file holds a time of day.
"""

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd

from factory_sim import __version__
from factory_sim.errors import RunError, closest
from factory_sim.results.schema import SUMMARY_SCHEMA

RUN_SCHEMA = "factory_sim.run/1"
MANIFEST, SCENARIO, PROVENANCE, SUMMARY = "run.json", "scenario.yaml", "provenance.json", "summary.json"


class Tables(Mapping):
    """The tables of a stored run by name, each read when first asked for and kept from then on."""

    def __init__(self, folder: Path, digests: dict[str, str]):
        self._folder, self._digests, self._read = folder, digests, {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._digests:
            raise RunError(f"{self._folder}: no table '{name}'{closest(name, self._digests)}")
        if name not in self._read:
            self._read[name] = _read_table(self._folder / "tables" / f"{name}.parquet", self._digests[name])
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._digests

    def __iter__(self) -> Iterator[str]:
        return iter(self._digests)

    def __len__(self) -> int:
        return len(self._digests)


@dataclass(frozen=True)
class StoredRun:
    """A run as read back from its folder."""

    folder: Path
    scenario_yaml: str
    provenance: dict
    summary: dict
    tables: Tables
    version: str
    """Version of factory_sim that made the run."""

    @property
    def figures(self) -> pd.DataFrame:
        """The figures of the summary as a tidy frame; what is undefined is NaN."""
        return figures_frame(self.summary)


def figures_frame(summary: dict) -> pd.DataFrame:
    """Return the figures of a summary as a frame: figure, window, service, value, low, high, unit, trust."""
    columns = ["figure", "window", "service", "value", "low", "high", "unit", "trust"]
    frame = pd.DataFrame(summary["figures"], columns=columns)
    return frame.astype({name: float for name in ("value", "low", "high")})


def summary_bytes(summary: dict) -> bytes:
    """Return the one spelling of a summary: what `summary.json` holds and `--json` prints.

    UTF-8 JSON in the order in which the summary was built, one line for each figure and check, floats by their
    shortest exact form, NaN and infinities (undefined figures) as null, a newline at the end. The same values give
    the same bytes, whether they come as Python or NumPy numbers.
    """
    lines = [f"  {json.dumps(key)}: {_json_block(value)}" for key, value in summary.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _json_block(value) -> str:
    """A list of objects one line an object; anything else on one line."""
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        return "[\n" + ",\n".join(f"    {_json_line(item)}" for item in value) + "\n  ]"
    return _json_line(value)


def _json_line(value) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value):
    """Plain Python values: NumPy scalars and arrays unwrapped, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


def check_free(folder: str | Path, force: bool = False) -> Path:
    """Return `folder` as an absolute path once it is sure that a run can be written there; write nothing.

    Call it before a long simulation as well: `write_run` asks the same. Raises RunError if something is there and
    `force` is not given, or if what is there is no run (`force` replaces runs and empty folders only).
    """
    folder = Path(os.path.abspath(folder))
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise RunError(f"{folder}: is not a folder; give a new name")
    if not folder.exists():
        return folder
    if not force:
        raise RunError(f"{folder}: is already there; give another folder, or --force to replace it")
    if any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise RunError(f"{folder}: holds something other than a run; --force replaces only runs (no {MANIFEST} in it)")
    return folder


def write_run(
    folder: str | Path,
    *,
    scenario_yaml: str,
    provenance: dict,
    tables: Mapping[str, pd.DataFrame],
    summary: dict,
    charts: Callable[[Path], None] | None = None,
    force: bool = False,
) -> Path:
    """Write a run whole or not at all; return its folder.

    charts: called with the `charts` folder to fill; None writes none. Whatever is raised on the way, Ctrl-C included,
    removes what was written, parent folders made for it too, and leaves an older run in its place. Raises RunError if
    the folder is taken (see `check_free`) or cannot be written.
    """
    folder = check_free(folder, force)
    made = [parent for parent in folder.parents if not parent.exists()]
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.partial")
        partial.mkdir()
        _fill(partial, scenario_yaml, provenance, tables, summary, charts)
        _put_in_place(partial, folder)
    except BaseException as error:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if isinstance(error, OSError):
            raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from error
        raise
    return folder


def _fill(partial: Path, scenario_yaml: str, provenance: dict, tables: Mapping, summary: dict, charts) -> None:
    contents = {
        SCENARIO: scenario_yaml.encode(),
        PROVENANCE: _provenance_bytes(provenance),
        SUMMARY: summary_bytes(summary),
    }
    for name, content in contents.items():
        (partial / name).write_bytes(content)
    (partial / "tables").mkdir()
    for name, frame in tables.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"table name '{name}': lower case letters, digits and underscores only")
        write_table(frame, partial / "tables" / f"{name}.parquet")
    if charts is not None:
        (partial / "charts").mkdir()
        charts(partial / "charts")
    names = [*contents, *(f"tables/{name}.parquet" for name in tables)]
    manifest = {
        "schema": RUN_SCHEMA,
        "version": __version__,
        **({"incomplete": summary["incomplete"]} if "incomplete" in summary else {}),
        "files": [{"file": name, "sha256": _digest(partial / name)} for name in names],
    }
    (partial / MANIFEST).write_bytes(summary_bytes(manifest))


def _provenance_bytes(provenance: dict) -> bytes:
    return (json.dumps(_plain(provenance), ensure_ascii=False, allow_nan=False, indent=2) + "\n").encode()


def _put_in_place(partial: Path, folder: Path) -> None:
    """Rename `partial` to `folder`; an older run there is set aside first and put back if that fails."""
    if not folder.exists():
        partial.rename(folder)
        return
    older = partial.with_suffix(".replaced")
    folder.rename(older)
    try:
        partial.rename(folder)
    except BaseException:
        older.rename(folder)
        raise
    shutil.rmtree(older, ignore_errors=True)


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as parquet with the same bytes for the same values: no index, no pandas metadata, zstd level 3."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, path, compression="zstd", compression_level=3, row_group_size=1 << 20)


def read_run(folder: str | Path, *, unfinished: bool = False) -> StoredRun:
    """Read a run back; its tables are read as they are asked for.

    Raises RunError if the folder is missing, is no run, is of another version of the format, was changed or damaged
    since it was written (SHA-256 of every data file), or holds a run that was stopped (unless `unfinished` will do).
    """
    folder = Path(folder)
    if not folder.is_dir():
        beside = sorted(path.parent.name for path in folder.parent.glob(f"*/{MANIFEST}"))
        raise RunError(f"{folder}: no such run{closest(folder.name, beside)}")
    if not (folder / MANIFEST).is_file():
        raise RunError(f"{folder}: is not a run: it has no {MANIFEST}; give a folder that `factory-sim run` wrote")
    manifest = _json(folder / MANIFEST)
    _same_format(folder / MANIFEST, manifest, RUN_SCHEMA)
    try:
        digests = {row["file"]: row["sha256"] for row in manifest["files"]}
        made_by = manifest["version"]
        tables = {name[7:-8]: digest for name, digest in digests.items() if re.fullmatch(r"tables/\w+\.parquet", name)}
        texts = {name: _intact(folder / name, digests[name]) for name in (SCENARIO, PROVENANCE, SUMMARY)}
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder / MANIFEST}: is damaged: {error!r} is missing; run the scenario again") from None
    for name in tables:
        if not (folder / "tables" / f"{name}.parquet").is_file():
            raise RunError(f"{folder / 'tables' / name}.parquet: is missing; run the scenario again")
    summary = _json(folder / SUMMARY)
    _same_format(folder / SUMMARY, summary, SUMMARY_SCHEMA)
    if "incomplete" in summary and not unfinished:
        raise RunError(
            f"{folder}: is incomplete ({summary['incomplete']}): it has no figures; `factory-sim timeline` shows what happened"
        )
    provenance, scenario = _json(folder / PROVENANCE), texts[SCENARIO].decode()
    return StoredRun(folder, scenario, provenance, summary, Tables(folder, tables), made_by)


def _read_table(path: Path, digest: str) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = _intact(path, digest)
    try:
        return pq.read_table(pa.BufferReader(content)).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{path}: cannot be read as parquet: {error}") from None


def _intact(path: Path, digest: str) -> bytes:
    """The bytes of a file, if they are still those that were written."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path}: is missing; run the scenario again") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise RunError(f"{path}: was changed or damaged after the run wrote it; run the scenario again")
    return content


def _json(path: Path) -> dict:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise RunError(f"{path}: is not JSON: {error}") from None
    if not isinstance(read, dict):
        raise RunError(f"{path}: holds {type(read).__name__}, not an object")
    return read


def _same_format(path: Path, read: dict, schema: str) -> None:
    found = read.get("schema")
    if found != schema:
        raise RunError(f"{path}: has format '{found}', this version reads '{schema}'; run the scenario again")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
