"""A network and a corpus, or a feature store -> the clips that the network can read.

Features of other encoders would fit in shape and mean nothing: they are refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from maven.checkpoint import MINI_FOLDER, ModelError
from maven.config import MODALITIES
from maven.datasets.clips import load_clips
from maven.encoders.build import build
from maven.extract import extract
from maven.store import StoreError, read_manifest

if TYPE_CHECKING:
    from maven.checkpoint import Network
    from maven.datasets.clips import Clip
    from maven.observe import Progress
    from maven.store import Manifest


def is_store(folder: Path) -> bool:
    """Tell whether a folder is a feature store; else it is taken for a corpus."""
    return (folder / "arrays").is_dir()


@contextmanager
def clips_of(
    found: Network,
    data: Path,
    split: str | None,
    *,
    names: Collection[str] | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Iterator[tuple[list[Clip], list[str]]]:
    """Yield the clips of a store or a corpus on the network's grid.

    The features of a corpus are extracted first, into a folder that is gone afterwards.

    Args:
        found: the network.
        data: a store or a corpus.
        split: of the clips; None for all.
        names: of the videos that are wanted of a corpus; None for those of the split.
        offline: never fetch anything.
        progress: told how many videos have features.

    Yields:
        The clips, and the names of those videos, of any split in a store, that could not be read.

    Raises:
        StoreError: the store has no features of the network's encoders, or no clip of the split.
        ModelError: network and encoders of the model do not fit together.
        CorpusError, ModelError, EncoderError: as `extract`.
    """
    if is_store(data):
        manifest = manifest_for(found, data)
        yield _split(found, data, manifest, split), [name for name, _ in manifest.failed]
        return

    def told(_: str, done: int, total: int) -> None:
        if progress:
            progress("features", done, total)

    name = "mini" if found.folder == MINI_FOLDER else str(found.folder)
    with TemporaryDirectory(prefix="maven-features-") as folder:
        manifest = extract(
            data, Path(folder), name, device=found.device, offline=offline, split=split,
            names=names, progress=told,
        )  # fmt: skip
        if reason := difference(found, manifest):
            raise ModelError(f"{found.folder} does not fit together: {reason}")
        yield _split(found, Path(folder), manifest, split), [name for name, _ in manifest.failed]


def _split(found: Network, store: Path, manifest: Manifest, split: str | None) -> list[Clip]:
    clips = load_clips(store, found.card.config.rate_hz, split, manifest.name)
    if not clips:
        there = ", ".join(sorted({clip.split for clip in manifest.clips}))
        raise StoreError(f"{manifest.root}: no video of the split {split!r}; it has: {there}")
    return clips


def manifest_for(found: Network, store: Path) -> Manifest:
    """Find the features of a network's encoders in a store.

    Raises:
        StoreError: there are none.
    """
    names = sorted(path.stem for path in store.glob("[!.]*.json"))
    if not names:
        read_manifest(store)  # says what is wrong
    others = []
    for name in names:
        manifest = read_manifest(store, name)
        reason = difference(found, manifest)
        if reason is None:
            return manifest
        others.append(f"{name} ({reason})")
    raise StoreError(
        f"{store}: no features of the encoders of the model {found.card.name};"
        f" it has {', '.join(others)}"
    )


def difference(found: Network, manifest: Manifest) -> str | None:
    """Say in what the encoders of a network and of a manifest differ; None where in nothing."""
    recorded = found.card.training.get("encoders", {})
    for modality in MODALITIES:
        about, spec = manifest.encoders[modality], found.card.encoders[modality]
        width = found.card.config.input_width(modality)
        if about["width"] != width:
            return f"{modality}: {about['width']} wide, not {width}"
        if about["kind"] != spec.kind:
            return f"{modality}: {about['kind']}, not {spec.kind}"
        if spec.kind == "mini":  # small enough to look at
            known = _fingerprint(found, modality)
        else:
            known = recorded.get(modality, {}).get("fingerprint")
        if known is None:
            came = _named(about["source"], about["revision"])
            wanted = _named(spec.source, spec.revision)
            if came != wanted:
                return f"{modality}: {came}, not {wanted}"
        elif known != about["fingerprint"]:
            return f"{modality}: other weights or preparation"
    return None


def _named(source: str, revision: str | None) -> str:
    return source if revision is None else f"{source}@{revision}"


def _fingerprint(found: Network, modality: str) -> str:
    try:
        encoders = build(found.card.encoders, folder=found.folder, device="cpu", offline=True)
    except Exception as error:
        raise ModelError(f"{found.folder}: its encoders cannot be read ({error})") from error
    return str(getattr(encoders, modality).fingerprint)
