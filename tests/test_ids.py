from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flairhub.errors import FlairHubError, InvalidIdError
from flairhub.ids import DomainId, PatchId, RoiId

digits = st.text("0123456789", min_size=1, max_size=3)
domains = st.builds(
    DomainId,
    st.from_regex(r"[0-9]{3}([0-9]{3})?", fullmatch=True).filter(str.isascii),
    st.integers(0, 9999),
)
rois = st.builds(
    RoiId,
    st.from_regex(r"[A-Z]{2}", fullmatch=True),
    st.integers(0, 9),
    st.builds("{}{}".format, st.sampled_from(["", "V", "N", "U"]), digits),
) | st.builds(
    RoiId,
    st.from_regex(r"[A-Z]{2}", fullmatch=True),
    st.none(),
    digits,
    st.text("abz", max_size=2),
)
patches = st.builds(PatchId, domains, rois, st.integers(1, 999), st.integers(1, 999))


@given(patches)
def test_ids_survive_printing_and_parsing(patch: PatchId) -> None:
    assert PatchId.parse(str(patch)) == patch
    assert DomainId.parse(str(patch.domain)) == patch.domain
    assert RoiId.parse(str(patch.roi)) == patch.roi


@pytest.mark.parametrize(
    ("text", "department", "year"),
    [("D012-2019", "012", 2019), ("D024047-2021", "024047", 2021)],
)
def test_a_domain_has_its_parts(text: str, department: str, year: int) -> None:
    domain = DomainId.parse(text)
    assert (domain.department, domain.year, str(domain)) == (department, year, text)
    assert domain.code == f"D{department}"


@pytest.mark.parametrize(
    ("text", "strata", "campaign", "counter"),
    [
        ("AF-S1-27", "AF", 1, "27"),
        ("UN-S1-U9", "UN", 1, "U9"),
        ("NV-S2-104", "NV", 2, "104"),
        ("Z12-AN", "AN", None, "12"),  # a zone of FLAIR#1
    ],
)
def test_a_roi_has_its_parts(text: str, strata: str, campaign: int | None, counter: str) -> None:
    roi = RoiId.parse(text)
    assert (roi.strata, roi.campaign, roi.counter, str(roi)) == (strata, campaign, counter, text)


def test_a_patch_has_its_parts() -> None:
    patch = PatchId.parse("D024047-2021_UN-S1-U9_5-10")
    assert (str(patch.domain), str(patch.roi)) == ("D024047-2021", "UN-S1-U9")
    assert (patch.row, patch.column) == (5, 10)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "D12-2019",
        "D0120-2019",
        "D012-195X",  # a raw folder of the historical modality, not a domain
        "d012-2019",
        "D012-2019 ",
        "D012-2019\n",
        "D012_2019",
        "D٠١٢-2019",  # digits of another script
    ],
)
def test_what_is_not_a_domain_is_refused(text: str) -> None:
    with pytest.raises(InvalidIdError, match=r"not a domain; expected a name like 'D012-2019'"):
        DomainId.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A-S1-27",
        "AF-1-27",
        "AF-S12-27",
        "AF-S1-",
        "af-S1-27",
        "Z1_AN",
        "Z-AN",
        "Z1-A",
        "Z1-AN-2",
        "Z1-AN-A",
        "AF-S1-27-a",
    ],
)
def test_what_is_not_a_roi_is_refused(text: str) -> None:
    with pytest.raises(InvalidIdError, match="not a ROI"):
        RoiId.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "D012-2019_AF-S1-27",
        "D012-2019_AF-S1-27_5",
        "D012-2019_AF-S1-27_0-1",
        "D012-2019_AF-S1-27_05-1",
        "D012-2019_AF-S1-27_5-10.tif",
        "D012-2019_AERIAL_RGBI_AF-S1-27_5-10",
    ],
)
def test_what_is_not_a_patch_is_refused(text: str) -> None:
    with pytest.raises(InvalidIdError):
        PatchId.parse(text)


def test_parts_that_would_not_print_are_refused() -> None:
    with pytest.raises(InvalidIdError):
        DomainId("12", 2019)
    with pytest.raises(InvalidIdError):
        RoiId("AF", 12, "27")
    with pytest.raises(InvalidIdError, match="start at 1"):
        PatchId(DomainId("012", 2019), RoiId("AF", 1, "27"), 0, 1)
    assert issubclass(InvalidIdError, FlairHubError)
    assert issubclass(InvalidIdError, ValueError)


def test_patches_sort_as_they_lie_not_as_they_spell() -> None:
    names = [f"D012-2019_AF-S1-27_{row}-1" for row in (10, 9, 2)]
    assert [p.row for p in sorted(map(PatchId.parse, names))] == [2, 9, 10]


@given(patches)
def test_ids_are_keys_and_travel_between_processes(patch: PatchId) -> None:
    assert pickle.loads(pickle.dumps(patch)) == patch
    assert {patch: 1}[PatchId.parse(str(patch))] == 1
