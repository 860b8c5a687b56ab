"""The notebooks run from top to bottom, and are kept in git without their outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells in a kernel of its own; an error in a cell is raised."""
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()


def pictures(notebook: NotebookNode) -> list[str]:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
    return [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})]


def test_there_are_notebooks() -> None:
    assert "01_explore.ipynb" in {path.name for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert cell.metadata == {}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert "/home/" not in path.read_text("utf-8")


def test_exploring_the_converted_sample(
    store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAIRHUB_ROOT", str(store_root))
    notebook = read(NOTEBOOKS[0])
    execute(notebook, tmp_path)
    printed = [o for cell in notebook.cells for o in cell.get("outputs", ())]
    assert not [o.text for o in printed if o.get("name") == "stderr"]  # no warnings either
    drawn = pictures(notebook)  # the modalities, the curves, the legends
    assert len(drawn) == 3
    assert min(map(len, drawn)) > 20_000
    assert list(tmp_path.iterdir()) == []


def test_exploring_without_a_store_makes_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLAIRHUB_ROOT", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = read(NOTEBOOKS[0])
    opened = next(i for i, c in enumerate(notebook.cells) if "open_domain" in c.source)
    notebook.cells = notebook.cells[: opened + 1]
    execute(notebook, tmp_path)
    assert "flairhub.Domain" in notebook.cells[opened].outputs[0].data["text/plain"]
    assert len(list(tmp_path.glob("flairhub-*/store/*.zarr"))) == 1
