"""Weights on the Hugging Face hub: addresses, pinned revisions, checksums, work without network.

An address is ``hf://owner/name``, with ``@revision`` (a commit, tag or branch; a slash in it is
written ``%2F``) and ``/file`` where wanted. Files are kept in the hub's own cache (``HF_HOME``);
``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and ``HF_TOKEN`` mean what they mean to `huggingface_hub`.

A file is checked each time it is used: against the digest under which the hub lists it, and against
the SHA-256 that the user or the registry gives.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.file_download import repo_folder_name

from flairhub.errors import WeightsSourceError, did_you_mean
from flairhub.models.zoo import CARDS, HubWeights, ModelCard, get_card

SCHEME = "hf://"
_ADDRESS = re.compile(
    r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.%-]+))?(?:/(?P<file>[^@]+))?"
)
_SECRET = re.compile(r"hf_\w+|(?<=://)[^/@\s]*:[^/@\s]*(?=@)")
_ENDINGS = (".safetensors", ".ckpt", ".pth", ".pt", ".bin")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Address:
    """Where weights lie on the hub: ``owner/name``, revision and file, None where not given."""

    repository: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``hf://owner/name[@revision][/file]``; raises `WeightsSourceError`."""
        found = _ADDRESS.fullmatch(text)
        if found is None:
            msg = (
                f"{redact(text)!r} is no address on the hub; expected "
                "hf://owner/name[@revision][/file], such as hf://IGNF/NAME or "
                "hf://IGNF/NAME@main/model.safetensors."
            )
            raise WeightsSourceError(msg)
        revision = found["revision"]
        return cls(found["repository"], revision and unquote(revision), found["file"])

    def __str__(self) -> str:
        """Return the address as one writes it."""
        revision = f"@{self.revision.replace('/', '%2F')}" if self.revision else ""
        return f"{SCHEME}{self.repository}{revision}{'/' + self.file if self.file else ''}"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of weights in the cache, checked.

    Parameters
    ----------
    path
        Where it lies here.
    address
        Where it comes from, with the commit and the file.
    sha256
        Its digest.
    """

    path: Path
    address: Address
    sha256: str


def resolve_id(name: str, *, encoder: str | None = None) -> tuple[ModelCard, HubWeights]:
    """Return a card and the repository with its weights.

    Parameters
    ----------
    name
        Id of a published model.
    encoder
        Which weights are wanted where there are several; the first when absent.

    Raises
    ------
    UnknownNameError
        If there is no such model.
    WeightsSourceError
        If no repository with such weights is known.
    """
    card = get_card(name)
    fitting = [w for w in card.weights if encoder in (None, w.encoder)]
    if not fitting:
        known = [f"{c.id} ({w.repository})" for c in CARDS.values() for w in c.weights]
        what = f"{card.id} with {encoder}" if card.weights else card.id
        msg = (
            f"No repository with weights of {what} is known. Give its address, "
            f"hf://owner/name, or a file. Known: {', '.join(known)}."
        )
        raise WeightsSourceError(msg)
    return card, fitting[0]


def registered(repository: str) -> tuple[ModelCard, HubWeights] | None:
    """Return the card and entry that the registry has for a repository, if it has one."""
    for card in CARDS.values():
        for weights in card.weights:
            if weights.repository.lower() == repository.lower():
                return card, weights
    return None


def fetch(
    address: Address,
    *,
    sha256: str | None = None,
    offline: bool = False,
    cache_dir: str | Path | None = None,
    endpoint: str | None = None,
) -> HubFile:
    """Bring a file of weights into the cache, unless it is there, and check it.

    Parameters
    ----------
    address
        Without a revision the newest commit, or offline the one that was used last; without a file
        the only one of the repository that holds weights, safetensors before others. With a commit
        and a file the hub is not asked about what the cache has.
    sha256
        What its digest must be, as 64 hexadecimal digits.
    offline
        Use the cache alone, as with ``HF_HUB_OFFLINE=1``.
    cache_dir
        Folder of the cache; the hub's own when absent.
    endpoint
        Address of the hub; ``HF_ENDPOINT`` or Hugging Face's when absent.

    Raises
    ------
    WeightsSourceError
        If the repository, revision or file does not exist or may not be read, the hub cannot be
        reached, the cache lacks the file, or a digest is another.
    """
    cache = Path(cache_dir or constants.HF_HUB_CACHE)
    offline = offline or constants.is_offline_mode() or _is_cached(address, cache)
    if offline:
        commit = _cached_commit(address, cache)
        names = _cached_names(address, commit, cache)
    else:
        api = huggingface_hub.HfApi(endpoint=endpoint)
        with _explained(address, offline=False):
            info = api.model_info(address.repository, revision=address.revision)
        commit = info.sha or address.revision or constants.DEFAULT_REVISION
        names = [s.rfilename for s in info.siblings or ()]
    file = _choose(address, names)
    with _explained(address, offline=offline):
        path = huggingface_hub.hf_hub_download(
            address.repository,
            file,
            revision=commit,
            cache_dir=cache,
            local_files_only=offline,
            endpoint=endpoint,
        )
    if not offline:
        _remember(address, commit, cache)
    pinned = Address(address.repository, commit, file)
    return HubFile(Path(path), pinned, _verify(Path(path), pinned, sha256))


def redact(text: str) -> str:
    """Return a text without what looks like a token or a password in an address."""
    return _SECRET.sub("***", text)


def _choose(address: Address, names: Iterable[str]) -> str:
    """Return the file to take."""
    found = sorted(names)
    if address.file is not None:
        if address.file not in found:
            near = did_you_mean(address.file, found)
            msg = f"{address.repository} has no file {address.file!r}. {near}"
            raise WeightsSourceError(msg)
        return address.file
    for ending in _ENDINGS:
        fitting = [name for name in found if PurePosixPath(name).suffix == ending]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            msg = (
                f"{address.repository} holds several files of weights: {', '.join(fitting)}. Name "
                f"one: {SCHEME}{address.repository}/FILE."
            )
            raise WeightsSourceError(msg)
    msg = f"{address.repository} holds no file of weights; found {', '.join(found) or 'nothing'}."
    raise WeightsSourceError(msg)


def _folder(address: Address, cache: Path) -> Path:
    return cache / repo_folder_name(repo_id=address.repository, repo_type="model")


def _is_cached(address: Address, cache: Path) -> bool:
    """Tell whether a commit and a file are given, which never change, and lie in the cache."""
    if not (address.file and address.revision and _COMMIT.fullmatch(address.revision)):
        return False
    return (_folder(address, cache) / "snapshots" / address.revision / address.file).exists()


def _cached_commit(address: Address, cache: Path) -> str:
    """Return the commit that the cache has for a revision."""
    revision = address.revision or constants.DEFAULT_REVISION
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        return (_folder(address, cache) / "refs" / revision).read_text().strip()
    except OSError:
        raise WeightsSourceError(_absent(address)) from None


def _absent(address: Address) -> str:
    return (
        f"{address} is not in the cache, and no network may be used (offline, or HF_HUB_OFFLINE). "
        "Load it once with the network."
    )


def _cached_names(address: Address, commit: str, cache: Path) -> list[str]:
    snapshot = _folder(address, cache) / "snapshots" / commit
    if not snapshot.is_dir():
        raise WeightsSourceError(_absent(address))
    return [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()]


def _remember(address: Address, commit: str, cache: Path) -> None:
    """Note which commit a branch or tag was, as the hub's client does, for work offline."""
    revision = address.revision or constants.DEFAULT_REVISION
    if not _COMMIT.fullmatch(revision):
        reference = _folder(address, cache) / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)


def _verify(path: Path, address: Address, sha256: str | None) -> str:
    """Return the SHA-256 of a file after comparing it with every digest that is known."""
    size = path.stat().st_size
    whole, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            whole.update(block)
            blob.update(block)
    found = whole.hexdigest()
    # the cache names a file by the hub's etag: SHA-256 of large files, git's SHA-1 of others
    listed = PurePosixPath(os.readlink(path)).name if path.is_symlink() else ""
    digests = {64: found, 40: blob.hexdigest()}
    if re.fullmatch(r"[0-9a-f]+", listed) and digests.get(len(listed), listed) != listed:
        msg = (
            f"{address} is damaged in the cache: the hub lists digest {listed}, the file has "
            f"{digests[len(listed)]}. Delete {path.resolve()} and load it again."
        )
        raise WeightsSourceError(msg)
    _compare(str(address), found, sha256)
    return found


def verify_file(path: Path, sha256: str) -> str:
    """Return the SHA-256 of a file of one's own; raises `WeightsSourceError` if it is another."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    _compare(str(path), found, sha256)
    return found


def _compare(name: str, found: str, sha256: str | None) -> None:
    """Raise unless a digest is the one expected."""
    if sha256 is not None and found != sha256.lower():
        msg = (
            f"{name} is not the file expected: SHA-256 {found}, expected {sha256.lower()}. It was "
            "changed, or the digest is of another file."
        )
        raise WeightsSourceError(msg)


@contextmanager
def _explained(address: Address, *, offline: bool) -> Iterator[None]:
    """Turn errors of the hub's client into `WeightsSourceError`, without secrets."""
    try:
        yield
    except Exception as error:  # of whichever HTTP library the client's release uses
        raise WeightsSourceError(_explain(address, error, offline=offline)) from None


def _explain(address: Address, error: Exception, *, offline: bool) -> str:
    """Say what went wrong and what to do."""
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{address.repository} is gated: accept its conditions on the hub, and give a token of "
            "your account in HF_TOKEN."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"The hub has no repository {address.repository}, or it is private: check the name; "
            "for a private one give a token in HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{address.repository} has no revision {address.revision!r}."
    if offline:
        return _absent(address)
    reason = redact(str(error.__cause__ or error)).strip().splitlines()
    what = reason[0].rstrip(".") if reason else type(error).__name__
    return (
        f"Cannot fetch {address}: {what}. Check the network, HF_ENDPOINT and proxies; offline=True "
        "(HF_HUB_OFFLINE=1) uses what was fetched before."
    )
