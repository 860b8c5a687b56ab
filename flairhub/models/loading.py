"""``load``: published or own weights, from wherever they lie, into a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from flairhub.errors import CheckpointError, ConfigError, WeightsSourceError
from flairhub.modalities import get_modality
from flairhub.models.first_layers import assumed_bands, channels_in, with_masks
from flairhub.models.flair.options import FlairOptions
from flairhub.models.hub import SCHEME, Address, fetch, registered, resolve_id, verify_file
from flairhub.models.identity import Identity, named_bands, usual_bands
from flairhub.models.ign.options import IgnOptions
from flairhub.models.matching import Bands, Rules
from flairhub.models.published import build, options_of
from flairhub.models.recognition import identify
from flairhub.models.saving import read_header
from flairhub.models.weight_files import read_weights, tensors_in
from flairhub.models.weights import LoadReport, WeightsError, load_state
from flairhub.models.zoo import ModelCard, get_card

Names = Mapping[str, str | Iterable[str]]


class Loaded(NamedTuple):
    """A model and how it got its weights."""

    model: nn.Module
    report: LoadReport


@dataclass(frozen=True)
class Source:
    """Opened weights.

    Parameters
    ----------
    name
        What messages call them.
    tensors
        By name.
    metadata
        Texts of a safetensors header.
    sha256
        Digest of the file, where it was compared.
    address
        Where they came from, with the commit, for weights of the hub.
    card, known_bands
        What the registry knows of their repository.
    """

    name: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    sha256: str | None = None
    address: Address | None = None
    card: ModelCard | None = None
    known_bands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def identify(self, encoder: str | None = None, fusion: str | None = None) -> Identity:
        """Say what the weights fit: their header tells, or the registry and their shapes do."""
        identity = read_header(self.metadata)
        if identity is None:
            identity = identify(self.tensors, encoder=encoder, fusion=fusion)
        elif other := {encoder, fusion} - {None, *_blocks(identity)}:
            told = " and ".join(_blocks(identity))
            msg = f"{self.name} tells that it has {told}; {other.pop()!r} cannot take their place."
            raise CheckpointError(msg)
        if self.card is not None and identity.card is not self.card:
            msg = (
                f"{self.name} should hold {self.card.id} but fits {identity.id or 'no published'} "
                f"model: {', '.join(identity.options.modalities)} to "
                f"{', '.join(identity.options.tasks)}."
            )
            raise CheckpointError(msg)
        return identity.with_bands(self.known_bands)


def load(
    source: str | Path | Mapping[str, Any],
    model: nn.Module | str | None = None,
    *,
    adapt_windows: bool = False,
    adapt_heads: bool = False,
    adapt_bands: bool = False,
    bands: Names | None = None,
    file_bands: Names | None = None,
    fresh: str | Iterable[str] = (),
    drop: str | Iterable[str] = (),
    revision: str | None = None,
    sha256: str | None = None,
    offline: bool = False,
    cache_dir: str | Path | None = None,
    **options: Any,  # noqa: ANN401
) -> Loaded:
    """Load weights into a model, all of them or none.

    Parameters
    ----------
    source
        A file (safetensors, a Lightning checkpoint, a state dict of ``torch.save``), tensors by
        name or an opened checkpoint that holds them, the id of a published model, or ``hf://owner/name[@revision][/file]``.
    model
        A module; or the id of a published model, which is built; or None for what the weights fit.
    adapt_windows, adapt_heads, adapt_bands
        Change relative position biases to other windows, last layers to other classes, first
        layers to other bands, by the rules of `flairhub.models.adapt`.
    bands
        Bands of the model by modality, in the order of its channels; the file's, or for a module
        the usual ones for their number, where absent.
    file_bands
        Bands of the file by modality, where it does not tell them and they are not IGN's.
    fresh, drop
        A beginning of names, or several: tensors of the model that keep their starting values
        though the file may lack them, and tensors of the file that are not used.
    revision
        For the hub: commit, tag or branch.
    sha256
        The digest that the file must have, from the hub or not.
    offline, cache_dir
        For the hub: use the cache alone; folder of the cache.
    **options
        Options of a model that is built: ``tasks={"lpis_1": 23}``, ``sizes={"spot_rgbi": 512}``,
        ``aux=()``.

    Returns
    -------
    Loaded
        The model, in evaluation mode if it was built here, and a `LoadReport`.

    Raises
    ------
    WeightsError
        If a tensor of either side is not accounted for, or does not fit; the model is unchanged.
    CheckpointError
        If the file cannot be read, or nothing is known that it fits.
    WeightsSourceError
        If weights cannot be had from the hub, have another digest, or a revision is asked of what
        is not from there.
    UnknownNameError
        If there is no such model, modality or band, or no tensor begins as `fresh` or `drop` say.
    ConfigError
        If bands are no names by modality, or of what is no input of the model.

    Examples
    --------
    ::

        model, report = load("LC-A")
        print(report)
        load("hf://IGNF/NAME@COMMIT", offline=True)
        load("last.ckpt", "LPIS-A", adapt_heads=True)
    """
    if isinstance(model, nn.Module) and options:
        msg = f"Options are for models built here; a module was given with {', '.join(options)}."
        raise TypeError(msg)
    wanted = named_bands({} if bands is None else bands)
    given = named_bands({} if file_bands is None else file_bands)
    rules = Rules(
        adapt_windows, adapt_heads, adapt_bands, _texts("fresh", fresh), _texts("drop", drop)
    )
    encoder = options.get("encoder")
    fusion = options.get("fusion") if model is None else None  # else it is the model's
    opened = open_source(
        source,
        encoder=encoder,
        revision=revision,
        sha256=sha256,
        offline=offline,
        cache_dir=cache_dir,
    )
    identity = _identify(opened, encoder, fusion, needed=model is None)
    if identity:
        identity = identity.with_bands(given)
    found = identity.bands if identity else {**assumed_bands(opened.tensors), **given}
    if isinstance(model, nn.Module):
        target = model
        known = _usual(model)
    else:
        target = _build(model, identity, wanted, options).eval()
        known = {**_usual(target), **(found if model is None else {})}
    known |= wanted
    _check_told("bands", wanted, "file_bands", found, opened.tensors)
    _check_told("file_bands", given, "bands", known, target.state_dict())
    report = load_state(
        target,
        opened.tensors,
        rules,
        file_bands=_named(with_masks(found, opened.tensors)),
        model_bands=_named(with_masks(known, target.state_dict())),
        source=opened.name,
    )
    return Loaded(
        target,
        replace(
            report,
            revision=opened.address.revision if opened.address else None,
            sha256=opened.sha256,
            notes=identity.notes if identity else (),
        ),
    )


def open_source(
    source: str | Path | Mapping[str, Any],
    *,
    encoder: str | None = None,
    revision: str | None = None,
    sha256: str | None = None,
    offline: bool = False,
    cache_dir: str | Path | None = None,
) -> Source:
    """Open weights from wherever they lie; see `load`. An id may have some of several encoders."""
    if isinstance(source, Mapping):
        _refuse("tensors by name", revision=revision, sha256=sha256)
        return Source("the state dict", tensors_in(source, "the state dict"))
    text = str(source)
    if isinstance(source, str) and not text.startswith(SCHEME) and not Path(text).exists():
        if Path(text).suffix or len(Path(text).parts) > 1:
            msg = f"There is no file {text}."
            raise CheckpointError(msg)
        entry = resolve_id(text, encoder=encoder)[1]
        text = f"{SCHEME}{entry.repository}"
        revision, sha256 = revision or entry.revision, sha256 or entry.sha256
    if not text.startswith(SCHEME):
        _refuse(f"the file {text}", revision=revision)
        file = read_weights(text)
        digest = None if sha256 is None else verify_file(Path(text), sha256)
        return Source(text, file.tensors, file.metadata, digest)
    address = Address.parse(text)
    if revision is not None:
        address = replace(address, revision=revision)
    fetched = fetch(address, sha256=sha256, offline=offline, cache_dir=cache_dir)
    content = read_weights(fetched.path)
    card, weights = registered(address.repository) or (None, None)
    return Source(
        str(fetched.address),
        content.tensors,
        content.metadata,
        fetched.sha256,
        fetched.address,
        card,
        weights.bands if weights else {},
    )


def _refuse(what: str, **given: str | None) -> None:
    """Raise if something is asked of weights that they cannot answer."""
    if wrong := [f"{name}=" for name, value in given.items() if value is not None]:
        msg = f"{' and '.join(wrong)} cannot be checked: {what} was given, nothing of the hub."
        raise WeightsSourceError(msg)


def _blocks(identity: Identity) -> list[str]:
    """Return the encoder and the fusion that a header tells."""
    return [getattr(identity.options, what, "none") for what in ("encoder", "fusion")]


def _identify(
    source: Source, encoder: str | None, fusion: str | None, *, needed: bool
) -> Identity | None:
    """Say what weights fit; None where that is not known and not needed."""
    try:
        return source.identify(encoder, fusion)
    except CheckpointError:
        if needed:
            raise
        return None


def _build(
    model: str | None,
    identity: Identity | None,
    bands: Mapping[str, tuple[str, ...]],
    options: Mapping[str, Any],
) -> nn.Module:
    if model is None and identity is None:
        msg = "It is not known which model the weights fit; give a model."
        raise WeightsError(msg)
    base = identity.options if model is None and identity else options_of(get_card(str(model)))
    counts = {key: len(found) for key, found in bands.items()}
    network: nn.Module = build(base.changed(**options).with_bands(counts))
    return network


def _usual(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the bands that a network's channels usually are, where it says how many it has.

    Wrappers are looked into.
    """
    for module in model.modules():
        options = getattr(module, "options", None)
        if isinstance(options, IgnOptions | FlairOptions):
            return usual_bands({key: options.bands_of(key) for key in options.modalities})
    return assumed_bands(model.state_dict())


def _check_told(
    option: str, given: Iterable[str], other: str, known: Iterable[str], side: Mapping[str, Tensor]
) -> None:
    """Refuse bands that are told of one side and not known of the other, which has them too."""
    channels = channels_in(side)
    if untold := [key for key in given if key in channels and key not in known]:
        key = untold[0]
        msg = (
            f"{option}= tells the bands of {key}, and those of the other side, of {channels[key]} "
            f"channels, are not known: give them by {other}=."
        )
        raise WeightsError(msg)


def _texts(option: str, given: object) -> tuple[str, ...]:
    """Return one or several beginnings of names as several; raises `ConfigError` for others."""
    texts = (given,) if isinstance(given, str) else given
    if isinstance(texts, Iterable):
        texts = tuple(texts)
        if all(isinstance(one, str) and one for one in texts):
            return texts
    msg = f"{option}= is a beginning of names of tensors, or several; got {given!r}."
    raise ConfigError(msg)


def _named(bands: Mapping[str, tuple[str, ...]]) -> Bands:
    return {get_modality(key).source_name: found for key, found in bands.items()}
