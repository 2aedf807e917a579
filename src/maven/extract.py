"""A corpus in the Aff-Wild2 layout -> the feature store and its manifest.

One process does it here, one video after the other; `maven.batch.extracting` has workers do it.
Either writes the same manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from maven.checkpoint import MINI_FOLDER, choose_device, find, read_card
from maven.datasets.affwild2 import CorpusError, Video, read_corpus
from maven.encoders.base import fingerprint
from maven.encoders.build import PAPER, EncoderSpec, build
from maven.entries import AGAIN
from maven.extractor import Extractor
from maven.media import MediaError, media_hash
from maven.store import ClipKeys, Manifest, Store, StoreError, read_manifest, write_manifest
from maven.transcribe import Transcriber
from maven.transcript import TranscriptError

# (what is being done, videos done, of how many)
Progress = Callable[[str, int, int], None]

# What a video is left out for. Of the store's own files, OSError comes as StoreError.
UNREADABLE = (MediaError, TranscriptError, CorpusError, OSError)
MOST_COMPARED = 5  # media files, to tell whether a corpus is the same under another name
MOST_LINES = 5  # on damaged entries; more become one


def extract(
    root: Path,
    store_folder: Path,
    encoders_name: str,
    *,
    device: str,
    offline: bool,
    asr: str = "none",
    split: str | None = None,
    names: Collection[str] | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Compute what the store lacks of every video of a corpus, and write the manifest.

    A video that cannot be read is left out and listed in the manifest with the reason. An entry
    that is damaged is made anew.

    Args:
        root: the corpus, in the Aff-Wild2 layout.
        store_folder: where the store is, or shall be.
        encoders_name: "mini", "paper" (from the hub), or a model folder.
        device: "auto", "cpu" or "cuda[:N]".
        offline: never fetch anything.
        asr: speech recognition where there are no transcripts, see `Transcriber`.
        split: of the videos wanted; None for all.
        names: of the videos wanted; None for all.
        progress: called before and during each step and after each video.
        note: told in one line what was found in the store and done about it.

    Raises:
        StoreError: the store cannot be written, is another corpus's, or not one video can be read.
        CorpusError: `root` is no such corpus.
        ModelError, EncoderError, RecogniserError: no such encoders, device or recogniser.
    """
    root = Path(root)
    videos = videos_of(root, split, names)
    extractor, about = extractor_of(store_folder, encoders_name, device, offline, asr)
    for line in succession(store_folder, about["name"], root, videos):
        note(line)
    done: list[ClipKeys | str] = []
    for k, video in enumerate(videos):

        def report(what: str, name: str = video.name, k: int = k) -> None:
            if progress:
                progress(f"{name}: {what}", k, len(videos))

        try:
            done.append(extractor.clip(video, report))
        except UNREADABLE as error:
            done.append(_named(video, getattr(error, "strerror", None) or str(error)))
        if progress:
            progress(video.name, k + 1, len(videos))
    for line in summed_up(extractor.mended()):
        note(line)
    return finish(store_folder, root, about, zip(videos, done, strict=True))


def videos_of(
    root: Path, split: str | None = None, names: Collection[str] | None = None
) -> list[Video]:
    """List the videos of a corpus that are wanted, see `extract`.

    Raises:
        CorpusError: `root` is no such corpus.
        StoreError: it has none of them.
    """
    videos = [
        video
        for video in read_corpus(root)
        if split in (None, video.split) and (names is None or video.name in names)
    ]
    if not videos:
        raise StoreError(f"{root}: holds none of the videos that are wanted")
    return videos


def extractor_of(
    store_folder: Path, encoders_name: str, device: str, offline: bool, asr: str
) -> tuple[Extractor, dict[str, Any]]:
    """Build what extracts, see `extract`, and say what decides its values.

    Returns:
        The extractor, and `name` of the encoders, `encoders` as in a manifest, `settings`, and
        `detection`, further settings where faces are not given as crops.
    """
    device = choose_device(device)
    name, specs, folder = specs_of(encoders_name)
    transcriber = Transcriber(asr, offline=offline, device=device.partition(":")[0])
    encoders = build(specs, folder=folder, device=device, offline=offline)
    extractor = Extractor(Store(store_folder), encoders, transcriber, recogniser_id(asr))
    about = {
        "name": name,
        "encoders": {m: described(specs[m], encoder) for m, encoder in vars(encoders).items()},
        "settings": extractor.settings(),
        "detection": extractor.detection(),
    }
    return extractor, about


def succession(store_folder: Path, name: str, root: Path, videos: Sequence[Video]) -> list[str]:
    """Compare a corpus with the one whose manifest its own will replace.

    Returns:
        A line where videos have gone from the corpus since, or it has another name.

    Raises:
        StoreError: it is another corpus: the manifest would no longer list its videos, or would
            list others of the same names.
    """
    path = Path(store_folder) / f"{name}.json"
    if not path.exists():
        return []
    try:
        before = read_manifest(store_folder, name)
    except StoreError as error:  # of an earlier maven, damaged, or changed by hand
        return [str(error).replace(AGAIN, "it will be replaced")]
    another = f"give another corpus another store, or delete {path.name} to replace it"
    listed = {*(clip.name for clip in before.clips), *(video for video, _ in before.failed)}
    gone = sorted(listed - {video.name for video in videos})
    if not gone and before.root == root.resolve().name:
        return []
    if not gone and _same_media(before, videos) is False:
        raise StoreError(
            f"{root}: its videos have the names of those that {path} lists, of the corpus"
            f" {before.root!r}, and other content; {another}"
        )
    if not gone:
        return [f"{path}: listed the corpus {before.root!r}, which {root} takes the place of"]
    count = f"{len(gone)} of the {len(listed)} videos that {path} lists"
    if len(gone) == len(listed) or before.root != root.resolve().name:
        raise StoreError(
            f"{root}: has not {count}, of the corpus {before.root!r}, {gone[0]} for one; {another}"
        )
    return [f"{root}: has no longer {count}, {gone[0]} for one; they are left out"]


def _same_media(before: Manifest, videos: Sequence[Video]) -> bool | None:
    """Tell whether one of a few videos still has its media; None where none can be compared."""
    hashes = {clip.name: clip.media_sha256 for clip in before.clips if clip.media_sha256}
    both = [(v.media, hashes[v.name]) for v in videos if v.media is not None and v.name in hashes]
    same = None
    for path, sha256 in both[:MOST_COMPARED]:
        with suppress(MediaError, OSError):  # said when it is extracted
            same = media_hash(path) == sha256
        if same:
            break
    return same


def _named(video: Video, text: str) -> str:
    """Have a reason name the video's file, as workers do."""
    path = str(video.media or video.faces or "")
    return text if path in text else f"{path}: {text}"


def summed_up(mended: Sequence[str]) -> list[str]:
    """Make one line of many on entries that were made anew."""
    if len(mended) <= MOST_LINES:
        return list(mended)
    return [f"{len(mended)} entries were damaged and made anew; for one, {mended[0]}"]


def finish(
    store_folder: Path,
    root: Path,
    about: Mapping[str, Any],
    done: Iterable[tuple[Video, ClipKeys | str]],
) -> Manifest:
    """Write the manifest of what was extracted.

    Args:
        store_folder: of the store.
        root: of the corpus.
        about: as `extractor_of` gives it.
        done: the videos in their order, each with its keys, or with why it was left out.

    Raises:
        StoreError: it cannot be written, not one video could be read, or another corpus's manifest
            has been written meanwhile.
    """
    from maven import __version__

    done = list(done)
    clips, failed, settings = [], [], dict(about["settings"])
    for video, result in done:
        if isinstance(result, str):
            for place in (root.absolute(), root):
                result = result.replace(f"{place}/", "")
            failed.append((video.name, " ".join(result.split())))
        else:
            clips.append(result)
            if video.faces is None:
                settings |= about["detection"]
    if not clips:
        first = f": {': '.join(failed[0])}" if failed else ""
        raise StoreError(f"{root}: none of its {len(failed)} videos can be read{first}")
    succession(store_folder, about["name"], root, [video for video, _ in done])
    manifest = Manifest(
        about["name"],
        dict(about["encoders"]),
        settings,
        root.resolve().name,
        tuple(clips),
        tuple(failed),
        __version__,
    )
    write_manifest(store_folder, manifest)
    return manifest


def specs_of(encoders_name: str) -> tuple[str, dict[str, EncoderSpec], Path | None]:
    """Find encoders by name -> their own name, their specs, and the folder of their model.

    Raises:
        ModelError: neither "mini", "paper" nor a model folder.
    """
    if encoders_name == "paper":
        return "paper", PAPER, None
    folder = MINI_FOLDER if encoders_name == "mini" else find(encoders_name)
    card = read_card(folder)
    return card.name, card.encoders, folder


def described(spec: EncoderSpec, encoder: Any) -> dict[str, Any]:
    """What the manifest says of an encoder."""
    names = ("name", "fingerprint", "width")
    return asdict(spec) | {name: getattr(encoder, name) for name in names}


def recogniser_id(asr: str) -> str:
    """Name a recogniser by what decides its words: a folder of weights by its content."""
    folder = Path(asr.partition(":")[2])
    if asr.startswith("whisper:") and folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return f"whisper:{fingerprint({}, files)}"
    return asr
