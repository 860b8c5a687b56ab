"""Weights on the hub, against a stand-in of its HTTP interface: no network is used."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flairhub.errors import UnknownNameError, WeightsSourceError
from flairhub.models.hub import Address, HubFile, fetch, redact, registered, resolve_id
from flairhub.models.zoo import CARDS
from tests.hub_stand_in import Hub, Repository, commit_of, serve
from tests.processes import run

NAME = "IGNF/FLAIR-HUB_LC-A_IR_swinbase-upernet"
OLD = {"model.safetensors": b"old weights", "README.md": b"a card"}
NEW = {"model.safetensors": b"new weights", "README.md": b"a card", "logs/run.csv": b"1,2"}
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as found:
        commits = {commit_of(OLD): OLD, commit_of(NEW): NEW}
        found.repositories[NAME] = Repository(
            commits, {"main": commit_of(NEW), "v1": commit_of(OLD), "refs/pr/1": commit_of(OLD)}
        )
        yield found


def take(
    hub: Hub, cache: Path, address: str = f"hf://{NAME}", *, offline: bool = False,
    sha256: str | None = None,
) -> HubFile:  # fmt: skip
    return fetch(
        Address.parse(address), cache_dir=cache, endpoint=hub.endpoint, offline=offline,
        sha256=sha256,
    )  # fmt: skip


def test_the_newest_weights_are_fetched_and_pinned(hub: Hub, tmp_path: Path) -> None:
    found = take(hub, tmp_path)
    assert found.path.read_bytes() == NEW["model.safetensors"]
    assert found.sha256 == hashlib.sha256(b"new weights").hexdigest()
    assert found.address == Address(NAME, commit_of(NEW), "model.safetensors")
    assert str(found.address) == f"hf://{NAME}@{commit_of(NEW)}/model.safetensors"


@pytest.mark.parametrize("revision", ["v1", "refs%2Fpr%2F1", commit_of(OLD)])
def test_a_revision_is_what_it_was(hub: Hub, tmp_path: Path, revision: str) -> None:
    found = take(hub, tmp_path, f"hf://{NAME}@{revision}")
    assert found.path.read_bytes() == OLD["model.safetensors"]
    assert found.address.revision == commit_of(OLD)


def test_small_files_are_checked_by_the_digest_of_git(hub: Hub, tmp_path: Path) -> None:
    assert take(hub, tmp_path, f"hf://{NAME}/logs/run.csv").path.read_bytes() == b"1,2"
    found = take(hub, tmp_path, f"hf://{NAME}/README.md")
    found.path.resolve().write_bytes(b"b card")
    with pytest.raises(WeightsSourceError, match="damaged in the cache"):
        take(hub, tmp_path, f"hf://{NAME}/README.md")


def test_what_is_cached_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    take(hub, tmp_path)
    hub.requests.clear()
    take(hub, tmp_path)
    assert not any("/large/" in path for _, path in hub.requests)
    assert hub.requests  # the branch may have moved, so the hub was asked
    hub.requests.clear()
    take(hub, tmp_path, f"hf://{NAME}@{commit_of(NEW)}/model.safetensors")
    assert hub.requests == []


def test_a_branch_that_moved_brings_new_weights(hub: Hub, tmp_path: Path) -> None:
    branch = hub.repositories[NAME].references
    branch["main"] = commit_of(OLD)
    assert take(hub, tmp_path).path.read_bytes() == b"old weights"
    branch["main"] = commit_of(NEW)
    assert take(hub, tmp_path).path.read_bytes() == b"new weights"


def test_offline_gives_what_was_used_last(hub: Hub, tmp_path: Path) -> None:
    online = take(hub, tmp_path)
    hub.requests.clear()
    assert take(hub, tmp_path, offline=True) == online
    assert take(hub, tmp_path, str(online.address), offline=True) == online
    assert hub.requests == []


def test_the_hubs_own_switch_means_offline(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(hub, tmp_path)
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert take(hub, tmp_path).path.read_bytes() == b"new weights"
    assert hub.requests == []
    with pytest.raises(WeightsSourceError, match=r"v1 is not in the cache.*HF_HUB_OFFLINE"):
        take(hub, tmp_path, f"hf://{NAME}@v1")


@pytest.mark.parametrize("address", [f"hf://{NAME}", f"hf://{NAME}@{commit_of(OLD)}"])
def test_offline_without_a_copy_says_so(hub: Hub, tmp_path: Path, address: str) -> None:
    with pytest.raises(WeightsSourceError, match="not in the cache"):
        take(hub, tmp_path, address, offline=True)
    assert hub.requests == []


def test_a_damaged_download_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.spoil = True
    with pytest.raises(WeightsSourceError, match=r"digest|damaged|hash"):
        take(hub, tmp_path)


def test_a_damaged_cache_is_refused(hub: Hub, tmp_path: Path) -> None:
    found = take(hub, tmp_path)
    found.path.resolve().write_bytes(b"new wfights")
    for offline in (True, False):
        with pytest.raises(WeightsSourceError, match="damaged in the cache") as raised:
            take(hub, tmp_path, offline=offline)
        assert found.sha256 in str(raised.value)


def test_the_users_digest_is_compared(hub: Hub, tmp_path: Path) -> None:
    right = hashlib.sha256(b"new weights").hexdigest()
    assert take(hub, tmp_path, sha256=right.upper()).sha256 == right
    with pytest.raises(WeightsSourceError, match=f"SHA-256 {right}, expected {'0' * 64}"):
        take(hub, tmp_path, sha256="0" * 64)


def test_which_file_is_meant(hub: Hub, tmp_path: Path) -> None:
    files = {"a.ckpt": b"1", "b.safetensors": b"2", "notes.txt": b"3"}
    hub.repositories["IGNF/two"] = Repository({commit_of(files): files}, {"main": commit_of(files)})
    assert take(hub, tmp_path, "hf://IGNF/two").address.file == "b.safetensors"
    assert take(hub, tmp_path, "hf://IGNF/two/a.ckpt").path.read_bytes() == b"1"
    with pytest.raises(WeightsSourceError, match=r"no file 'b.safetensor'. Did you mean 'b.safe"):
        take(hub, tmp_path, "hf://IGNF/two/b.safetensor")
    files["c.safetensors"] = b"4"
    with pytest.raises(WeightsSourceError, match=r"several .*: b.safetensors, c.safetensors"):
        take(hub, tmp_path, "hf://IGNF/two")
    for name in list(files):
        if name != "notes.txt":
            del files[name]
    with pytest.raises(WeightsSourceError, match=r"no file of weights; found notes.txt"):
        take(hub, tmp_path, "hf://IGNF/two")


def test_errors_say_what_to_do_and_hold_no_token(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.repositories["IGNF/gated"] = Repository({}, {}, gated=True)
    hub.repositories["IGNF/private"] = Repository({}, {}, private=True)
    messages = []
    for address, expected in (
        ("hf://IGNF/gated", "gated: accept its conditions"),
        ("hf://IGNF/private", "no repository IGNF/private, or it is private"),
        ("hf://IGNF/none", "no repository IGNF/none"),
        (f"hf://{NAME}@v9", "no revision 'v9'"),
        (f"hf://{TOKEN}@IGNF/gated", "no address on the hub"),
        (f"hf://user:{TOKEN}@IGNF/gated", "no address on the hub"),
        ("hf://IGNF", "no address on the hub; expected hf://owner/name"),
    ):
        with pytest.raises(WeightsSourceError, match=expected) as raised:
            take(hub, tmp_path, address)
        messages.append(str(raised.value))
    hub.fail = 500
    with pytest.raises(WeightsSourceError, match=r"Cannot fetch .*500") as raised:
        take(hub, tmp_path)
    messages.append(str(raised.value))
    assert hub.tokens == {("127.0.0.1", f"Bearer {TOKEN}")}  # sent, so it could have been told
    assert not any(TOKEN in message for message in messages)


def test_a_hub_that_does_not_answer(tmp_path: Path) -> None:
    with serve() as gone:
        pass
    with pytest.raises(WeightsSourceError, match=f"Cannot fetch hf://{NAME}"):
        take(gone, tmp_path)


def test_the_environment_chooses_the_hub(hub: Hub, tmp_path: Path) -> None:
    """In a process of its own, since the client reads its environment when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path)}
    code = (
        "import sys; from flairhub.models.hub import Address, fetch;"
        "print(fetch(Address.parse(sys.argv[1])).sha256)"
    )
    words = (sys.executable, "-c", code, f"hf://{NAME}")
    done = run(*words, env=environment)
    assert done.stdout.strip() == hashlib.sha256(b"new weights").hexdigest(), done.stderr
    hub.requests.clear()
    done = run(*words, env={**environment, "HF_HUB_OFFLINE": "1"})
    assert done.stdout.strip() == hashlib.sha256(b"new weights").hexdigest(), done.stderr
    assert hub.requests == []


def test_a_hub_that_does_not_answer_is_told_with_what_helps(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9"  # nothing listens
    with pytest.raises(WeightsSourceError, match=r"Cannot fetch .*HF_ENDPOINT.*offline=True"):
        fetch(Address.parse(f"hf://{NAME}"), cache_dir=tmp_path, endpoint=nobody)


def test_secrets_leave_texts() -> None:
    assert redact(f"Bearer {TOKEN} of https://me:word@host/x") == "Bearer *** of https://***@host/x"


def test_ids_have_the_repositories_that_are_known() -> None:
    card, weights = resolve_id("lc-a")
    assert (card.id, weights.repository) == ("LC-A", NAME)
    tiny = resolve_id("LC-A", encoder="swin_tiny_patch4_window7_224")[1]
    assert tiny.bands == {"aerial_rgbi": ("red", "green", "blue")}
    assert registered(NAME.lower()) == (CARDS["LC-A"], weights)
    assert registered("IGNF/other") is None
    with pytest.raises(WeightsSourceError, match=r"LC-B is known.*hf://.*LPIS-J \(IGNF/"):
        resolve_id("LC-B")
    with pytest.raises(WeightsSourceError, match="LC-A with resnet34"):
        resolve_id("LC-A", encoder="resnet34")
    with pytest.raises(UnknownNameError, match="LC-L"):
        resolve_id("LC-LL")
