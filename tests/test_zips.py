"""IGN's zips are read in place, and what a zip must not hold is refused."""

from __future__ import annotations

import shutil
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from converters.convert import convert
from converters.files import RawTree
from converters.flairhub_tree import FlairHubTree
from converters.verify import verify
from flairhub.cli import run
from flairhub.errors import SourceDataError
from tests.trees import snapshot


def pack(tree: Path, target: Path, every: int = 1, prefix: bool = True) -> Path:
    """Copy a tree with every n-th folder as a zip, as IGN publishes them."""
    target.mkdir()
    for number, path in enumerate(sorted(tree.iterdir())):
        if path.is_file():
            shutil.copy2(path, target / path.name)
        elif number % every:
            shutil.copytree(path, target / path.name)
        else:
            with zipfile.ZipFile(target / f"{path.name}.zip", "w", zipfile.ZIP_DEFLATED) as out:
                for file in sorted(path.rglob("*")):
                    out.write(file, file.relative_to(tree if prefix else path))
    return target


@pytest.mark.parametrize(("every", "prefix"), [(1, True), (2, True), (1, False)])
def test_zips_give_the_same_store(
    domain_tree: Path, domain_store: dict[str, bytes], tmp_path: Path, every: int, prefix: bool
) -> None:
    packed = pack(domain_tree, tmp_path / "packed", every, prefix)
    before = snapshot(packed)
    report = convert(FlairHubTree(packed), str(tmp_path / "store"), workers=1)
    assert snapshot(tmp_path / "store") == domain_store
    assert report.source_bytes == sum(p.stat().st_size for p in domain_tree.rglob("*.tif"))
    assert verify(FlairHubTree(packed), str(tmp_path / "store")).passed
    assert snapshot(packed) == before, "nothing is unpacked beside the zips"


def test_a_folder_goes_before_the_zip_of_its_name(domain_tree: Path, tmp_path: Path) -> None:
    packed = pack(domain_tree, tmp_path / "packed")
    folder = next(domain_tree.glob("*_SPOT_RGBI"))
    shutil.copytree(folder, packed / folder.name)
    tree = RawTree(packed)
    files = tree.files(folder.name)
    assert files
    assert not any(file.member for file in files.values())


def test_links_to_folders_and_files_are_followed(domain_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    for path in domain_tree.iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    linked, there = RawTree(tmp_path / "links"), RawTree(domain_tree)
    assert linked.names == there.names
    assert {n: f.size for n, f in linked.files_here.items()} == {
        n: f.size for n, f in there.files_here.items()
    }
    for name in there.names:
        assert linked.files(name).keys() == there.files(name).keys()


def test_without_csvs_and_splits_everything_is_converted(domain_tree: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(domain_tree, tmp_path / "raw"))
    for path in [*tree.rglob("*.csv"), *tree.rglob("*SPLIT.gpkg")]:
        path.unlink()
    report = convert(FlairHubTree(tree), str(tmp_path / "store"), workers=1)
    assert report.files == len(list(tree.rglob("*.tif")))


def _zip(path: Path, name: str, data: bytes = b"x") -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("D012-2019_SPOT_RGBI/AF-S1-27/D012-2019_SPOT_RGBI_AF-S1-27_1-1.tif", b"x")
        out.writestr(zipfile.ZipInfo(name), data)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../outside.tif", "D012-2019_SPOT_RGBI/../../outside.tif", "C:/x.tif"]
)
def test_members_that_leave_the_zip_are_refused(tmp_path: Path, name: str) -> None:
    _zip(tmp_path / "D012-2019_SPOT_RGBI.zip", name)
    source = FlairHubTree(tmp_path)
    with pytest.raises(SourceDataError, match="leaves the zip"):
        source.tree.files("D012-2019_SPOT_RGBI")
    assert run(["convert", str(tmp_path), str(tmp_path / "store"), "--modalities=spot_rgbi"]) == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("method", "name", "size"),
    [
        (zipfile.ZIP_BZIP2, "bomb.tif", 200_000_000),
        (zipfile.ZIP_DEFLATED, "bomb.tif", 40_000_000),
        (zipfile.ZIP_DEFLATED, "bomb.gpkg", 100_000_000),
    ],
)
def test_a_bomb_is_refused_unread(tmp_path: Path, method: int, name: str, size: int) -> None:
    path = tmp_path / "D012-2019_SPOT_RGBI.zip"
    with zipfile.ZipFile(path, "w", method) as out:
        out.writestr(f"D012-2019_SPOT_RGBI/AF-S1-27/{name}", bytes(size))
    assert path.stat().st_size < 100_000
    with pytest.raises(SourceDataError, match="would grow from"):
        FlairHubTree(tmp_path).tree.files("D012-2019_SPOT_RGBI")


def test_one_class_of_a_whole_mask_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "D012-2019_AERIAL_LABEL-COSIA.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("AF-S1-27/mask.tif", bytes(512 * 512))
        assert out.infolist()[0].file_size > 500 * out.infolist()[0].compress_size
    assert RawTree(tmp_path).files("D012-2019_AERIAL_LABEL-COSIA").keys() == {"AF-S1-27/mask.tif"}


def test_a_member_is_read_as_far_as_it_says_it_goes(tmp_path: Path) -> None:
    """A bomb that lies about its size: the zip's directory says 10 bytes, and they are read."""
    path = tmp_path / "D012-2019_SPOT_RGBI.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("AF-S1-27/bomb.tif", bytes(40_000_000))
    size = (40_000_000).to_bytes(4, "little")
    data = path.read_bytes()
    assert data.count(size) == 2
    path.write_bytes(data.replace(size, (10).to_bytes(4, "little")))
    (file,) = RawTree(tmp_path).files("D012-2019_SPOT_RGBI").values()
    tracemalloc.start()
    with pytest.raises(SourceDataError, match="cannot be read"):
        file.read()
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_zip_that_is_cut_short_is_named(domain_tree: Path, tmp_path: Path) -> None:
    packed = pack(domain_tree, tmp_path / "packed")
    path = next(packed.glob("*_DEM_ELEV.zip"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceDataError, match=f"{path.name} cannot be opened as zip"):
        convert(FlairHubTree(packed), str(tmp_path / "store"), workers=1)


def test_a_flipped_bit_in_a_zip_is_named(domain_tree: Path, tmp_path: Path) -> None:
    packed = pack(domain_tree, tmp_path / "packed")
    path = next(packed.glob("*_DEM_ELEV.zip"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(SourceDataError, match=path.name):
        convert(FlairHubTree(packed), str(tmp_path / "store"), workers=1)
