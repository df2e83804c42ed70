"""Sample results to spoil, and a place to write them."""

import copy
import json
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "data" / "importers"
ARRAYS = ("ttfts", "itls", "errors", "input_lens", "output_lens", "start_times", "generated_texts")


@pytest.fixture
def sample():
    """Return the decoded first document of a sample file, free to change."""

    def load(name):
        return copy.deepcopy(json.loads((DATA / name).read_text().splitlines()[0] if name.endswith("l") else
                                        (DATA / name).read_text()))

    return load


@pytest.fixture
def write(tmp_path):
    """Write text, bytes or something to be JSON under a name; return the path."""

    def put(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return put
