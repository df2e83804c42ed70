"""Output folders of commands: never written over silently, never left half written."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from factory_sim.errors import RunError

MARK = "made-by-factory-sim"
"""File that tells a folder which a command may replace from one that holds a user's own work."""


@contextmanager
def fresh_folder(folder: Path, force: bool = False) -> Iterator[Path]:
    """A new folder to fill, put in place of `folder` when all went well.

    An existing one needs `force`, and is replaced only if it is empty or such a command made it. Raises RunError.
    """
    if folder.exists():
        if not force:
            raise RunError(f"{folder}: exists; give another name, or --force to replace it")
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).is_file()):
            raise RunError(f"{folder}: was not made by this command, so --force does not replace it; give another name")
    partial = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        (partial / MARK).write_text("charts of factory-sim; may be replaced with --force\n", encoding="utf-8")
        if folder.is_dir():
            shutil.rmtree(folder)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
