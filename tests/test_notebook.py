"""The notebook of the examples runs from its first cell to its last."""

import re

import nbformat
import pytest
from commands import REPOSITORY, environment
from nbclient import NotebookClient

from nls_tune import read_trials

pytestmark = pytest.mark.slow

NOTEBOOK = REPOSITORY / "examples" / "analysis.ipynb"


@pytest.mark.timeout(150)
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    assert not any(cell.outputs or cell.execution_count for cell in cells.values())  # none are committed
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    trials = read_trials(tmp_path / "runs" / "analysis")
    assert trials.groupby("noise_level").size().tolist() == [10, 10]
    shown = {name: [out["data"] for out in cell.outputs if "data" in out] for name, cell in cells.items()}
    *progress, result = shown["search"]
    said = "".join(data["text/plain"] for data in progress)
    assert re.search(r"\[20/20\] symmetric:0\.[24] r=", said)
    assert "As a page with plots: nls-tune report" in said
    assert "<table>" in result["text/html"]
    assert result["text/plain"].startswith("<SearchResult")
    assert ["image/png" in data for name in ("curves", "epochs-plot") for data in shown[name]] == [True, True]
    completed = trials[trials["status"] == "completed"]
    table = shown["best"][0]["text/plain"]
    for rate in completed.loc[completed.groupby(["noise_level", "arm"])["best_val_accuracy"].idxmax(), "smooth_rate"]:
        assert f"{rate:.4f}".rstrip("0")[:6] in table
    assert shown["summaries"][0]["text/plain"].count("True") <= 2  # none where CE has not learned
    streams = [out["text"] for cell in cells.values() for out in cell.outputs if out.get("name") == "stderr"]
    assert streams == []
