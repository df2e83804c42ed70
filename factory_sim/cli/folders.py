"""Output folders of commands: never written over silently, never left half written."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from factory_sim.errors import RunError


@contextmanager
def fresh_folder(folder: Path, force: bool = False) -> Iterator[Path]:
    """A new folder to fill, put in place of `folder` when all went well; an existing one needs `force`."""
    if folder.exists() and not force:
        raise RunError(f"{folder}: exists; give another name, or --force to replace it")
    partial = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.is_dir():
            shutil.rmtree(folder)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
