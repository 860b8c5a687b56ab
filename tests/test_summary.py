from __future__ import annotations

import json
from pathlib import Path

import pytest

import flairhub
from flairhub import cli
from flairhub.errors import NotInStoreError, StoreLayoutError
from flairhub.modalities import dataset_modalities
from flairhub.store.summary import summarise


def test_a_folder_is_summarised_from_its_tables(store_root: Path) -> None:
    domains = summarise(store_root)
    assert [f"{d.domain}.zarr" for d in domains] == sorted(
        p.name for p in store_root.glob("*.zarr")
    )
    for domain in domains:
        opened = flairhub.open_domain(store_root / f"{domain.domain}.zarr")
        assert [r.roi for r in domain.rois] == list(opened)
        assert sum(r.patches for r in domain.rois) == domain.patches == len(opened.patches)
        assert sum(domain.splits.values()) <= domain.patches
        assert {v.modality for v in domain.variables} == {m.key for m in dataset_modalities()}


def test_a_summary_tells_what_opening_shows(store_root: Path) -> None:
    domain = summarise(store_root)[0]
    opened = flairhub.open_domain(store_root / f"{domain.domain}.zarr")
    for roi in domain.rois:
        tree = opened[roi.roi]
        for summary in domain.variables:
            variable = tree[summary.path]
            whole = {
                name: size * {"y": roi.rows, "x": roi.columns}.get(name, 1)
                for name, size in summary.patch_sizes.items()
            }
            assert {n: s for n, s in variable.sizes.items() if n != "time"} == whole
            assert str(variable.dtype) == summary.dtype
            assert ("time" in variable.sizes) == (summary.dates is not None)
            if summary.dates is not None:
                assert summary.dates[0] <= variable.sizes["time"] <= summary.dates[1]


def test_bytes_are_those_on_disk(store_root: Path) -> None:
    for domain in summarise(store_root):
        store = store_root / f"{domain.domain}.zarr"
        sizes = [path.stat().st_size for path in store.rglob("*") if path.is_file()]
        assert (domain.objects, domain.bytes) == (len(sizes), sum(sizes))


def test_one_store_is_summarised_alone(store_root: Path) -> None:
    last = summarise(store_root)[-1]
    assert summarise(store_root / f"{last.domain}.zarr") == (last,)


def test_info_prints_json_for_programs_and_a_table_for_people(
    store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["info", str(store_root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps([d.to_plain() for d in summarise(store_root)]))
    assert cli.run(["info", str(store_root)]) == 0
    shown = capsys.readouterr().out
    for domain in found:
        assert f"{domain['domain']}: {len(domain['rois'])} ROIs" in shown


def test_nothing_to_summarise_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotInStoreError, match="holds no complete domain"):
        summarise(tmp_path)
    with pytest.raises(NotInStoreError, match="does not exist"):
        summarise(tmp_path / "nowhere")
    (tmp_path / "other.zarr").mkdir()
    with pytest.raises((StoreLayoutError, ValueError), match="other"):
        summarise(tmp_path / "other.zarr")
    assert cli.run(["info", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
