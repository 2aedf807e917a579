"""The registry of encoders: kind -> how it is loaded, and the paper's three.

A model stores which encoders it was trained on as one `EncoderSpec` a modality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maven.encoders.base import EncoderError, Encoders

# (modality, source, revision, device, offline) -> encoder
Loader = Callable[[str, str | Path, str | None, str, bool], Any]

MODALITIES = ("visual", "audio", "text")


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder.

    Attributes:
        kind: key of `KINDS`.
        source: weights: a path relative to the model's folder, any other folder, or an id on the
            hub. "mini" takes the first only.
        revision: branch, tag or commit on the hub; None for its default.

    Raises:
        ValueError: one of them is no text of one line.
    """

    kind: str
    source: str
    revision: str | None = None

    def __post_init__(self) -> None:
        for name in ("kind", "source", "revision"):
            value: object = getattr(self, name)
            if (name, value) != ("revision", None) and not (
                isinstance(value, str) and value.isprintable()
            ):
                raise ValueError(
                    f"an encoder's {name} is {value!r:.200}; accepted: one line of text"
                )


@dataclass(frozen=True)
class Kind:
    """How encoders of one kind are loaded, and for which modalities there are any."""

    modalities: tuple[str, ...]
    load: Loader


PAPER: dict[str, EncoderSpec] = {
    "visual": EncoderSpec("swin", "microsoft/swin-base-patch4-window7-224"),
    "audio": EncoderSpec("hubert", "facebook/hubert-base-ls960"),
    "text": EncoderSpec("roberta", "FacebookAI/roberta-base"),
}


def build(
    specs: Mapping[str, EncoderSpec], *, folder: Path | None, device: str, offline: bool
) -> Encoders:
    """Load the encoders of a model.

    Args:
        specs: one each for "visual", "audio" and "text".
        folder: the model's own folder, looked into first for each source.
        device: "cpu", "cuda" or "cuda:N".
        offline: never use the network.

    Raises:
        EncoderError: a modality or a kind is not known, or an encoder cannot be had.
    """
    if set(specs) != set(MODALITIES):
        raise EncoderError(
            f"encoders are given for {_names(specs)}; needed: one each for {_names(MODALITIES)}"
        )
    for modality, spec in specs.items():
        kinds = [name for name, kind in KINDS.items() if modality in kind.modalities]
        if spec.kind not in kinds:
            raise EncoderError(
                f"{modality} encoder of kind {spec.kind!r}; accepted: {_names(kinds)}"
            )
    loaded = {}
    for modality, spec in specs.items():
        source: str | Path = spec.source
        if folder is not None and spec.kind == "mini":
            source = own_file(folder, spec)
        elif folder is not None and (folder / source).exists():
            source = folder / source
        loaded[modality] = KINDS[spec.kind].load(modality, source, spec.revision, device, offline)
    return Encoders(**loaded)


def own_file(folder: Path, spec: EncoderSpec) -> Path:
    """Return an embedded encoder's file, which lies in the model's folder and nowhere else.

    Raises:
        EncoderError: its source leads out of the folder.
    """
    place = Path(spec.source)
    if place.is_absolute() or ".." in place.parts:
        raise EncoderError(
            f"{folder}: an encoder's source is {spec.source!r:.200}; accepted: a file of the folder"
        )
    return folder / place


def _mini(
    modality: str, source: str | Path, revision: str | None, device: str, offline: bool
) -> Any:
    from maven.encoders.mini import load_mini

    try:
        return load_mini(modality, Path(source), device)
    except Exception as error:  # a damaged file raises whatever its reader meets
        reason = str(error).strip().partition("\n")[0]
        raise EncoderError(
            f"{source}: not the weights of a mini {modality} encoder ({reason})"
        ) from error


def _paper(encoder: str) -> Loader:
    def load(
        modality: str, source: str | Path, revision: str | None, device: str, offline: bool
    ) -> Any:
        from maven.encoders import paper

        return getattr(paper, encoder)(source, revision=revision, device=device, offline=offline)

    return load


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


KINDS: dict[str, Kind] = {
    "mini": Kind(MODALITIES, _mini),
    "swin": Kind(("visual",), _paper("SwinVisual")),
    "hubert": Kind(("audio",), _paper("HubertAudio")),
    "roberta": Kind(("text",), _paper("RobertaText")),
}
