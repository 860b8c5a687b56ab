"""FLAIR-HUB and the older FLAIR never share a folder, whatever their domains are called."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from converters.convert import convert
from converters.open import open_source
from flairhub.cli import run
from flairhub.errors import ConversionError
from tests.trees import snapshot


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize(
    ("stores", "tree"), [("store_root", "flair2_tree"), ("flair1_store", "raw_tree")]
)
def test_another_family_is_refused_whatever_its_domains(
    stores: str, tree: str, unfinished: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = open_source(request.getfixturevalue(tree))
    root = tmp_path / "store"
    root.mkdir()
    for path in Path(request.getfixturevalue(stores)).iterdir():
        if path.is_dir():
            (root / path.name).mkdir()
            shutil.copy(path / "zarr.json", root / path.name)
        elif not unfinished:
            shutil.copy(path, root)
    for domain in source.domains():  # none of the same name
        for path in root.glob(f"{domain}.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = snapshot(root)
    assert before
    with pytest.raises(ConversionError, match="needs a folder of its own"):
        convert(source, str(root), workers=1)
    assert run(["convert", str(request.getfixturevalue(tree)), str(root), "--dry-run"]) == 1
    assert snapshot(root) == before


def test_one_family_may_grow(flair1_store: Path, flair2_tree: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(flair1_store, tmp_path / "store"))
    assert run(["convert", str(flair2_tree), str(root), "--dry-run"]) == 0


def test_a_damaged_marker_of_another_domain_stops_nobody(domain_tree: Path, tmp_path: Path) -> None:
    marker = tmp_path / "store" / "D099-2019.zarr" / "zarr.json"
    marker.parent.mkdir(parents=True)
    marker.write_text("{")
    assert run(["convert", str(domain_tree), str(tmp_path / "store"), "--dry-run"]) == 0
