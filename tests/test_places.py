"""Where raw files and stores lie: local URLs, other schemes, links; and paths that are none."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from converters.convert import convert
from converters.files import RawTree
from converters.open import open_source
from converters.verify import verify
from flairhub.cli import run
from flairhub.errors import NotInStoreError, SourceDataError
from flairhub.store.access import resolve
from flairhub.store.local import local_path
from tests.trees import first_tiff, snapshot

Capture = pytest.CaptureFixture[str]


def test_file_urls_give_the_same_store(
    domain_tree: Path,
    domain_store: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    source = open_source(domain_tree.as_uri())
    convert(source, (tmp_path / "store").as_uri(), workers=1)
    assert snapshot(tmp_path / "store") == domain_store
    assert verify(source, (tmp_path / "store").as_uri()).passed


@pytest.mark.parametrize("layout", ["flair1_tree", "flair2_tree", "raw_tree"])
@pytest.mark.parametrize("scheme", ["file://", "file://localhost", "local://"])
def test_unpacked_trees_are_found_behind_urls(
    layout: str, scheme: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = request.getfixturevalue(layout)
    monkeypatch.chdir(folder.parent)
    there, behind = open_source(folder), open_source(f"{scheme}{folder}")
    assert there.domains()
    assert behind.domains() == there.domains()
    domain = there.domains()[0]
    for one, other in zip(
        there.rois(domain, there.modalities), behind.rois(domain, behind.modalities), strict=True
    ):
        assert other.files.keys() == one.files.keys()
        assert other.folds == one.folds
        assert other.problem is None


@pytest.mark.parametrize("place", ["file://store", "file://host/store", "file://"])
def test_a_file_url_with_a_host_is_refused(
    domain_tree: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    word = "file:///absolute/path" if place != "file://" else "is empty"
    for command in (["convert", str(domain_tree), place], ["convert", place, "store"]):
        assert run([*command, "--workers", "1"]) == 1
        assert word in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotInStoreError, match=word):
        resolve(place)


def test_local_paths() -> None:
    assert local_path("a/b") == "a/b"
    assert local_path("~") == os.path.expanduser("~")
    assert local_path("file:///a b/c#d?e") == "/a b/c#d?e"
    assert local_path("s3://bucket/a") is None
    with pytest.raises(NotInStoreError, match="empty"):
        resolve("", read_only=False)


@pytest.mark.parametrize("target", ["nowhere.tif", "itself"])
def test_a_link_that_leads_nowhere_is_named(
    domain_tree: Path, tmp_path: Path, target: str, capsys: Capture
) -> None:
    tree = Path(shutil.copytree(domain_tree, tmp_path / "raw"))
    path = first_tiff(tree, "SPOT_RGBI")
    path.unlink()
    path.symlink_to(path if target == "itself" else target)
    command = ["convert", str(tree), str(tmp_path / "store"), "--modalities", "spot_rgbi"]
    assert run([*command, "--workers", "1"]) == 1
    error = capsys.readouterr().err
    assert f"{path} is a link to" in error
    assert "remove it" in error


@pytest.mark.parametrize("upwards", [True, False])
def test_links_that_go_round_are_named_shortly(tmp_path: Path, upwards: bool) -> None:
    folder = tmp_path / "raw" / "D012-2019_SPOT_RGBI"
    folder.mkdir(parents=True)
    if upwards:
        (folder / "AF-S1-27").symlink_to(tmp_path / "raw")
    else:
        (tmp_path / "other").mkdir()
        (folder / "AF-S1-27").symlink_to(tmp_path / "other")
        (tmp_path / "other" / "back").symlink_to(folder)
    with pytest.raises(SourceDataError, match="leads back") as caught:
        RawTree(tmp_path / "raw").files(folder.name)
    assert len(str(caught.value)) < 600


def test_two_links_to_one_folder_are_no_loop(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "D012-2019_SPOT_RGBI"
    folder.mkdir(parents=True)
    (tmp_path / "roi").mkdir()
    (tmp_path / "roi" / "a.tif").touch()
    for name in ("AF-S1-27", "AF-S1-28"):
        (folder / name).symlink_to(tmp_path / "roi")
    found = RawTree(tmp_path / "raw").files(folder.name)
    assert list(found) == ["AF-S1-27/a.tif", "AF-S1-28/a.tif"]


def test_a_member_without_a_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "D012-2019_SPOT_RGBI.zip", "w") as out:
        out.writestr(".", b"x")
    with pytest.raises(SourceDataError, match=r"holds '\.'"):
        RawTree(tmp_path).files("D012-2019_SPOT_RGBI")
