"""The notebook runs from its first cell to its last."""

import shutil
from pathlib import Path

import pytest

from engine.parser import PROJECT


@pytest.mark.slow
def test_notebook_runs(path_to_data: str, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="pip install -e '.[dev]' brings nbclient")
    nbclient = pytest.importorskip("nbclient", reason="pip install -e '.[dev]' brings it")
    ignored = shutil.ignore_patterns("data", "runs", "tests", ".*")
    project = shutil.copytree(PROJECT, tmp_path / "project", ignore=ignored)
    shutil.copytree(path_to_data, project / "data")
    notebook = nbformat.read(project / "notebooks" / "explore.ipynb", as_version=4)
    resources = {"metadata": {"path": str(project / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=120, resources=resources).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [output.get("data", {}) for cell in cells for output in cell.outputs]
    assert sum("image/png" in each for each in shown) == 2
    printed = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert "samples to train on" in printed
    assert "\n15 " in printed  # a training step of the loop's last line
