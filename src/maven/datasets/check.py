"""What does not fit in an Aff-Wild2 tree: labels against media and faces, names, splits.

An error is what training or scoring would trip over or silently get wrong; a note is what a reader
should know and the organisers' own data has too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maven.container import MediaError, opened, pick
from maven.datasets.affwild2 import (
    INVALID,
    SPLITS,
    CorpusError,
    Labels,
    Tree,
    Video,
    frame_number,
    group_of,
    has_header,
    name_key,
    read_labels,
    scan,
    videos_of,
)
from maven.metrics import valid_labels

Progress = Callable[[int, int], None]
Remark = tuple[str, str, str]  # kind, severity, detail


@dataclass(frozen=True)
class Finding:
    """Something that does not fit.

    Attributes:
        video: its name; "" for the corpus as a whole.
        kind: "labels", "frames", "media", "faces", "names" or "split".
        severity: "error" or "note".
        detail: one line.
    """

    video: str
    kind: str
    severity: str
    detail: str


def check(root: Path, progress: Progress | None = None) -> list[Finding]:
    """Read a whole corpus and report what does not fit, in the order of its videos.

    Media are read but not decoded; of the faces of a video three are decoded.

    Args:
        root: of the Aff-Wild2 tree.
        progress: called with the videos done and their total.

    Raises:
        CorpusError: there is no corpus at `root` (`maven.datasets.affwild2.read_corpus`).
    """
    tree = scan(root)
    videos = videos_of(tree)
    frames: dict[Path, int | MediaError] = {}
    findings = []
    for k, video in enumerate(videos):
        findings += [_finding(video.name, *remark) for remark in _of_video(video, tree, frames)]
        if progress:
            progress(k + 1, len(videos))
    return findings + list(_of_corpus(videos, tree))


def summary(videos: list[Video]) -> dict[str, dict[str, float | None]]:
    """Count what a corpus holds, for each split that has videos.

    Returns:
        split -> videos; frames (that have a label line); valid_share, of these, with both values
        in [-1, 1]; minutes of the distinct media files. None is what is not known: frames and
        share without any label, minutes where a video has no readable media of stated length.
        Label files that cannot be read count no frames.
    """
    result: dict[str, dict[str, float | None]] = {}
    for split in SPLITS:
        chosen = [video for video in videos if video.split == split]
        if not chosen:
            continue
        labels = np.concatenate([np.zeros((0, 2), np.float32), *map(_readable_labels, chosen)])
        durations_s = [_duration_s(path) for path in {video.media for video in chosen}]
        known_s = [duration_s for duration_s in durations_s if duration_s is not None]
        result[split] = {
            "videos": len(chosen),
            "frames": len(labels) or None,
            "valid_share": float(valid_labels(*labels.T).mean()) if len(labels) else None,
            "minutes": sum(known_s) / 60 if len(known_s) == len(durations_s) else None,
        }
    return result


def count_frames(path: Path) -> int:
    """Count the frames of a media file's video by its packets, without decoding.

    Empty packets and those that an edit list cuts away are no frames.

    Raises:
        MediaError: the file cannot be read or has no video.
    """
    with opened(path) as container:
        stream = pick(container, "video")
        if stream is None:
            raise MediaError(f"{path}: holds no video")
        frames_n = 0
        try:
            for packet in container.demux(stream):
                frames_n += packet.size > 0 and not packet.is_discard
        except IndexError:  # PyAV's own flush, where streams turned up in mid-file
            pass
        return frames_n


def _of_video(video: Video, tree: Tree, frames: dict[Path, int | MediaError]) -> Iterator[Remark]:
    labels_n = None
    if video.labels is not None:
        try:
            labels = read_labels(video.labels)
        except CorpusError as error:
            yield "labels", "error", str(error)
        else:
            labels_n = len(labels)
            yield from _of_labels(labels, has_header(video.labels))
    yield from _of_media(video, tree)
    media_n = None
    if video.media is not None:
        if video.media not in frames:
            frames[video.media] = _frames_or_error(video.media)
        counted = frames[video.media]
        if isinstance(counted, MediaError):
            yield "media", "error", str(counted)
        else:
            media_n = counted
    if labels_n is not None and media_n is not None and labels_n != media_n and video.media:
        severity = "note" if abs(labels_n - media_n) == 1 else "error"
        known = ": the organisers' count can be one more" if labels_n == media_n + 1 else ""
        yield (
            "frames",
            severity,
            f"{labels_n} labels, {media_n} frames in {video.media.name}{known}",
        )
    if len(places := tree.faces.get(name_key(video.name), [])) > 1:
        yield "faces", "note", f"{len(places)} folders of faces; taken: {places[0]}"
    yield from _of_faces(video, labels_n, media_n)


def _of_labels(labels: Labels, header: bool) -> Iterator[Remark]:
    if not header:
        yield (
            "labels",
            "error",
            "the header valence,arousal is missing; line 1 is taken for frame 1",
        )
    if not len(labels):
        yield "labels", "error", "no labels"
        return
    outside = np.flatnonzero(((np.abs(labels) > 1) & (labels != INVALID)).any(1))
    if len(outside):
        valence, arousal = labels[outside[0]]
        first = f"the first: {valence:g},{arousal:g} of frame {outside[0] + 1}"
        yield "labels", "error", f"frames outside [-1, 1] and not -5: {len(outside)}; {first}"
    invalid_n = int((labels == INVALID).any(1).sum())
    if invalid_n:
        severity = "error" if invalid_n == len(labels) else "note"
        share = f"{invalid_n} of {len(labels)} ({invalid_n / len(labels):.1%})"
        yield "labels", severity, f"frames marked invalid (-5): {share}"


def _of_media(video: Video, tree: Tree) -> Iterator[Remark]:
    name = video.media_name
    places = tree.media.get(name_key(name), [])
    if video.media is None:
        without = f" (the name without _{video.person})" if video.person else ""
        severity = "note" if video.faces else "error"
        yield "media", severity, f"no media file {name}{without}"
    elif not places:
        yield "media", "note", f"no media file {name}; taken: {video.media.name}"
    elif len(places) > 1:
        yield "media", "note", f"{len(places)} media files {name}; taken: {video.media}"


def _of_faces(video: Video, labels_n: int | None, media_n: int | None) -> Iterator[Remark]:
    gone = "note" if video.media else "error"
    if video.faces is None:
        yield "faces", gone, "no folder of faces"
        return
    try:
        sizes, strange = _face_sizes(video.faces)
    except OSError as error:
        yield "faces", "error", f"{video.faces}: {error.strerror}"
        return
    if strange:
        yield "names", "note", f"files of faces not named %05d.jpg: {_some(strange)}"
    if not sizes:
        yield "faces", gone, "no faces in their folder"
        return
    limit, of = (media_n, "frame") if labels_n is None else (labels_n, "label")
    beyond = [] if limit is None else [number for number in sizes if number > limit]
    if beyond and limit is not None:
        severity = "note" if max(beyond) == limit + 1 else "error"
        detail = f"faces beyond the last {of} ({limit}): {len(beyond)}, up to {max(beyond)}"
        yield "faces", severity, detail
    numbers = sorted(sizes)
    empty = [number for number in numbers if not sizes[number]]
    if empty:
        yield "faces", "error", f"empty or out of reach: {_some(list(map(_face_file, empty)))}"
    sampled = {numbers[0], numbers[len(numbers) // 2], numbers[-1]}.difference(empty)
    broken = [n for n in sorted(sampled) if not _is_picture(video.faces / _face_file(n))]
    if broken:
        files = _some(list(map(_face_file, broken)))
        yield "faces", "error", f"not decoded, of {len(sampled)} sampled: {files}"


def _of_corpus(videos: list[Video], tree: Tree) -> Iterator[Finding]:
    labelled = [video for video in videos if video.labels]
    splits: dict[str, list[str]] = {}  # by name
    groups: dict[str, list[Video]] = {}
    for video in labelled:
        splits.setdefault(name_key(video.name), []).append(video.split)
        groups.setdefault(group_of(video.name), []).append(video)
    for name, found in splits.items():
        if len(found) > 1:
            yield _finding(name, "split", "error", f"labels in {' and '.join(found)}")
    for group in groups.values():
        names = {name_key(video.name) for video in group}
        if len({video.split for video in group}) > 1 and len(names) > 1:
            where = ", ".join(f"{video.name} ({video.split})" for video in group)
            yield _finding(group[0].name, "split", "note", f"may show the same people: {where}")
    for split in ("train", "val"):
        if not tree.labels.get(split):
            yield _finding("", "labels", "note", f"no label files of {split} ({SPLITS[split]})")
    for path, reason in tree.unread:
        yield _finding("", "names", "note", f"{path} was passed over: {reason}")


def _finding(video: str, kind: str, severity: str, detail: str) -> Finding:
    """Make a finding that prints everywhere: file names may hold bytes that are no text."""
    return Finding(
        video.encode(errors="replace").decode(),
        kind,
        severity,
        detail.encode(errors="replace").decode().replace("\n", " "),
    )


def _frames_or_error(path: Path) -> int | MediaError:
    try:
        return count_frames(path)
    except MediaError as error:
        return error


def _readable_labels(video: Video) -> Labels:
    try:
        if video.labels is not None:
            return read_labels(video.labels)
    except CorpusError:
        pass
    return np.zeros((0, 2), np.float32)


def _duration_s(path: Path | None) -> float | None:
    if path is None:
        return None
    try:
        with opened(path) as container:
            return None if container.duration is None else float(container.duration / 1e6)
    except MediaError:
        return None


def _face_sizes(folder: Path) -> tuple[dict[int, int], list[str]]:
    """Return the bytes of each face by frame number, 0 for one that is out of reach, and the names
    of other files."""
    sizes: dict[int, int] = {}
    strange = []
    with os.scandir(folder) as entries:
        for entry in entries:
            number = frame_number(entry.name)
            if number is None:
                strange += [] if entry.name.startswith(".") else [entry.name]
                continue
            try:
                sizes[number] = entry.stat().st_size
            except OSError:  # a broken link
                sizes[number] = 0
    return sizes, sorted(strange)


def _face_file(number: int) -> str:
    return f"{number:05d}.jpg"


def _is_picture(path: Path) -> bool:
    import cv2

    try:
        content = np.fromfile(path, np.uint8)
    except OSError:
        return False
    return len(content) > 0 and cv2.imdecode(content, cv2.IMREAD_COLOR) is not None


def _some(names: list[str]) -> str:
    """Write how many, and the first three."""
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
