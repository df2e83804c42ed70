"""The notebooks run from a clean kernel, with shorter windows than a reader's."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def played(request, tmp_path_factory):
    """(name, executed notebook); a cell that raises fails the test."""
    notebook = nbformat.read(request.param, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT / "notebooks")}},
    )
    client.execute(env=os.environ | {"FACTORY_SIM_NOTEBOOK": "quick", "IPYTHONDIR": str(tmp_path_factory.mktemp("ip"))})
    return request.param.stem, notebook


def _outputs(notebook, kind: str) -> list[str]:
    return [
        output["data"][kind]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if kind in output.get("data", {})
    ]


def test_both_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["capacity-planning", "twenty-x"]


def test_notebook_draws_and_decides_from_its_numbers(played):
    name, notebook = played
    said = "\n".join(_outputs(notebook, "text/markdown"))
    drawn = _outputs(notebook, "image/png")
    if name == "twenty-x":
        assert len(drawn) == 6
        assert "**In short.**" in said
        assert "times cheaper than the first at 30 tokens/s per user" in said
    else:
        assert len(drawn) == 1
        assert "**Take " in said
        assert "The promise " in said
    assert "nan" not in said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebook_holds_no_outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert not [cell for cell in cells if cell.outputs or cell.execution_count]
