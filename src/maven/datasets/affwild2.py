"""Aff-Wild2's valence-arousal track: which videos there are, their labels, faces, folds, rows.

Layout, each at most three folders below the root, in any place: labels
`VA_Estimation_Challenge/{Train_Set,Validation_Set,Test_Set}/<video>.txt`, faces
`cropped_aligned*/<video>/%05d.jpg`, media `<name>.mp4` (or another of `MEDIA_ENDINGS`). Line n
behind the header of a label file is frame n, counted from 1, as the number of a face is. `_left`
and `_right` at the end of a video's name choose a person; the media file is named without.

The organisers' data comes by EULA from its authors; nothing of it is part of this package.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maven.files import whole

CHALLENGE = "VA_Estimation_Challenge"
SPLITS = {"train": "Train_Set", "val": "Validation_Set", "test": "Test_Set"}
FACES = "cropped_aligned"  # later parts of the corpus come as cropped_aligned_new_50_vids
MEDIA_ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
LEVELS = 3  # folders between the root and what is looked for

LABEL_HEADER = "valence,arousal"
SAMPLE_HEADER = "image_location,valence,arousal"
INVALID = -5.0  # what the organisers write where a frame has no valid label
LARGEST = float(np.finfo(np.float32).max)

PERSON = re.compile(r"_(left|right)$")
FRAME_FILE = re.compile(r"([0-9]{5}|[1-9][0-9]{5,})\.jpg")
SAMPLE_ROW = re.compile(r"(.+/[0-9]+\.jpg)\s*(?:,[^,]*){0,2}")
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# video10_1, 12-24-1920x1080_part2, 5-60-1920x1080-3; but the 000 of train-000 is no part.
PART = re.compile(r"(?:[_-]part_?\d+|(?<=\d)_\d{1,2}|(?:(?<=\dx\d{3})|(?<=\dx\d{4}))-\d{1,2})$")

Labels = npt.NDArray[np.float32]


class CorpusError(Exception):
    """A corpus or a file of it that cannot be used; the message is one line that names it."""


@dataclass(frozen=True)
class Video:
    """One person in one video.

    Attributes:
        name: such as "video59_right".
        split: "train", "val" or "test".
        labels: the label file; None where the organisers keep it.
        media: the video file, None if it was not found.
        faces: the folder of aligned faces, None if there is none.
    """

    name: str
    split: str
    labels: Path | None
    media: Path | None
    faces: Path | None

    @property
    def media_name(self) -> str:
        """The name without "_left" or "_right", as the media file has it."""
        return PERSON.sub("", self.name)

    @property
    def person(self) -> str:
        """ "left", "right", or "" where the name chooses nobody."""
        match = PERSON.search(self.name)
        return match.group(1) if match else ""


@dataclass(frozen=True)
class Tree:
    """What lies where below a root; names as `name_key` gives them, paths in order of depth.

    Attributes:
        labels: label files by split.
        faces: folders of faces by name; the first one counts.
        media: media files by name without ending; the first one counts.
        unread: what could not be looked into, and why.
    """

    labels: dict[str, list[Path]] = field(default_factory=dict)
    faces: dict[str, list[Path]] = field(default_factory=dict)
    media: dict[str, list[Path]] = field(default_factory=dict)
    unread: list[tuple[Path, str]] = field(default_factory=list)


def read_corpus(root: Path) -> list[Video]:
    """List the videos of a corpus: train, val, test, and by name in each.

    Faces folders, and media without faces, that no label file names are videos of "test" without
    labels: the organisers keep those.

    Raises:
        CorpusError: there are no label folders, a split has two, or one cannot be read.
    """
    return videos_of(scan(root))


def scan(root: Path) -> Tree:
    """Look for labels, faces and media below `root`, not into the folders of single videos.

    Hidden files and `__MACOSX` are passed over, and so is a folder met again through a link.
    """
    tree = Tree()
    seen: set[tuple[int, int]] = set()
    splits: dict[str, list[Path]] = {split: [] for split in SPLITS}
    level = [root]
    for _ in range(LEVELS + 1):
        found = [item for folder in level for item in _entries(folder, tree, seen)]
        level = []
        for path, is_folder in found:
            if not is_folder:
                if path.suffix.lower() in MEDIA_ENDINGS:
                    tree.media.setdefault(name_key(path.stem), []).append(path)
            elif path.name == CHALLENGE:
                names = {p.name: p for p, is_set in _entries(path, tree, seen) if is_set}
                for split, name in SPLITS.items():
                    splits[split] += [names[name]] if name in names else []
            elif path.name.startswith(FACES):
                _add_faces(path, tree, seen)
            else:
                level.append(path)
    for split, folders in splits.items():
        if len(folders) > 1:
            raise CorpusError(f"{root}: two label folders of one split: {folders[0]}, {folders[1]}")
        if folders:
            tree.labels[split] = _label_files(folders[0])
    if not tree.labels:
        reason = "".join(f" ({path}: {why})" for path, why in tree.unread[:1])
        wanted = f"{CHALLENGE}/{{{','.join(SPLITS.values())}}}"
        raise CorpusError(f"{root}: no {wanted} at most {LEVELS} folders below it{reason}")
    return tree


def videos_of(tree: Tree) -> list[Video]:
    """Put labels, media and faces together, in the order of `read_corpus`."""
    videos = [
        _video(path.stem, split, path, tree)
        for split, paths in tree.labels.items()
        for path in paths
    ]
    named = {name_key(video.name) for video in videos}
    unlabelled = {name: paths[0].name for name, paths in tree.faces.items() if name not in named}
    videos += [_video(name, "test", None, tree) for name in unlabelled.values()]
    named.update(unlabelled)
    taken = {video.media for video in videos}
    unseen = [paths[0] for name, paths in tree.media.items() if name not in named]
    videos += [_video(path.stem, "test", None, tree) for path in unseen if path not in taken]
    order = list(SPLITS)
    return sorted(videos, key=lambda video: (order.index(video.split), video.name))


def read_labels(path: Path) -> Labels:
    """Read a label file: (n, 2) float32 valence, arousal; row k is frame k + 1.

    Values outside [-1, 1] stay as they are, -5 (invalid) among them. A file without the header is
    read from its first line, so that no frame is lost. Blank lines at the end are none.

    Raises:
        CorpusError: the file cannot be read, or a line is not two finite numbers.
    """
    lines = _lines(path)
    header = bool(lines) and _is_header(lines[0])
    rows = lines[header:]
    if not rows:
        return np.zeros((0, 2), np.float32)
    try:
        values = np.loadtxt(rows, np.float64, comments=None, delimiter=",", ndmin=2)
    except ValueError:
        values = np.zeros((0, 0))
    if values.shape != (len(rows), 2) or not (np.abs(values) <= LARGEST).all():
        number, line = _first_unread(rows, 1 + header)
        raise CorpusError(
            f"{path}: line {number}: got {line[:40]!r}; accepted: valence,arousal as two numbers"
        )
    return values.astype(np.float32)


def has_header(path: Path) -> bool:
    """Tell whether a label file begins with `valence,arousal`; CorpusError if it cannot be read."""
    return any(_is_header(line) for line in _lines(path)[:1])


def frame_number(file_name: str) -> int | None:
    """Read the number from 1 of a face such as "00012.jpg"; None for any other file name."""
    match = FRAME_FILE.fullmatch(file_name)
    return int(match.group(1)) or None if match else None


def face_frames(video: Video) -> npt.NDArray[np.int64]:
    """Return the numbers (n,), from 1, of the frames that have a face, in order.

    Raises:
        CorpusError: the folder cannot be read.
    """
    if video.faces is None:
        return np.zeros(0, np.int64)
    try:
        with os.scandir(video.faces) as entries:
            numbers = [frame_number(entry.name) for entry in entries]
    except OSError as error:
        raise CorpusError(f"{video.faces}: {error.strerror}; accepted: a folder of jpg") from error
    return np.sort(np.array([number for number in numbers if number], np.int64))


def read_sample(path: Path) -> list[str]:
    """Read a submission sample: its rows' image locations, `<video>/<frame>.jpg`, in order.

    Raises:
        CorpusError: the file cannot be read, has no header or no rows, or has a row that is not a
            location with at most two values, or one twice.
    """
    lines = _lines(path)
    if not lines or "".join(lines[0].split()) != SAMPLE_HEADER:
        got = repr(lines[0][:40]) if lines else "an empty file"
        raise CorpusError(f"{path}: line 1: got {got}; accepted: the header {SAMPLE_HEADER}")
    rows: dict[str, int] = {}  # location -> its line
    for number, line in enumerate(lines[1:], start=2):
        match = SAMPLE_ROW.fullmatch(line.strip())
        if match is None:
            accepted = "accepted: a row such as 2-30-640x360/00001.jpg,0.5,-0.5"
            raise CorpusError(f"{path}: line {number}: got {line[:60]!r}; {accepted}")
        first = rows.setdefault(match.group(1), number)
        if first != number:
            raise CorpusError(f"{path}: line {number}: {match.group(1)} stands in line {first} too")
    if not rows:
        raise CorpusError(f"{path}: no row behind the header; accepted: a row a frame")
    return list(rows)


def write_submission(path: Path, rows: Sequence[str], va: npt.ArrayLike) -> None:
    """Write predictions in the form of the submission sample, whole or not at all.

    Args:
        path: where to.
        rows: image locations, as `read_sample` gives them; their order is kept.
        va: (n, 2) valence, arousal of the rows. Nine digits keep a float32 exactly.

    Raises:
        ValueError: there is not one pair a row, or a number is not finite.
        OSError: the file cannot be written.
    """
    values = np.asarray(va, np.float64)
    if values.shape != (len(rows), 2):
        raise ValueError(f"a submission of {len(rows)} rows needs (n, 2), got {values.shape}")
    unfinished = np.flatnonzero(~np.isfinite(values).all(1))
    if len(unfinished):
        raise ValueError(f"{len(unfinished)} rows have no finite value: {rows[unfinished[0]]}, ...")
    with (
        whole(path) as part,
        part.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file,
    ):
        file.write(f"{SAMPLE_HEADER}\n")
        pairs = zip(rows, values.tolist(), strict=True)
        file.writelines(f"{row},{v:.9g},{a:.9g}\n" for row, (v, a) in pairs)


def name_key(name: str) -> str:
    """Bring a name to one Unicode form (NFC): file systems and archives differ in it."""
    return unicodedata.normalize("NFC", name)


def group_of(name: str) -> str:
    """Name what videos share that may show the same person, as far as names tell.

    They do for the persons of one media file (`video5_left`, `video5_right`) and for the numbered
    parts of one recording (`video10_1`, `video10_2`; `5-60-1920x1080-1`, `5-60-1920x1080-2`).
    """
    return PART.sub("", PERSON.sub("", name_key(name)))


def folds(videos: Sequence[Video], count: int = 6) -> list[list[Video]]:
    """Split a corpus as entrants of the challenge do, by video; test videos are in no fold.

    Fold 0 holds the official validation videos. The training videos go into the others, whole
    groups of `group_of` at a time, the longest first, each into the fold with the fewest label
    frames so far: the result depends on names and lengths only. A group that the organisers have in
    both sets stays as they have it (`maven.datasets.check` names it).

    Raises:
        ValueError: `count` is below 2.
        CorpusError: there are no validation videos or fewer groups of training videos than folds
            for them, or a label file cannot be read.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")
    ordered = sorted(videos, key=lambda video: video.name)
    validation = [video for video in ordered if video.split == "val"]
    groups: dict[str, list[Video]] = {}
    for video in ordered:
        if video.split == "train":
            groups.setdefault(group_of(video.name), []).append(video)
    if not validation or len(groups) < count - 1:
        came = (
            f"got {len(validation)} validation videos and {len(groups)} groups of training videos"
        )
        raise CorpusError(f"{count} folds need at least 1 and {count - 1}: {came}")
    frames = {
        name: sum(len(read_labels(video.labels)) for video in group if video.labels)
        for name, group in groups.items()
    }
    dealt: list[list[Video]] = [[] for _ in range(count - 1)]
    totals = [(0, 0, k) for k in range(count - 1)]  # frames, videos, fold
    for name in sorted(groups, key=lambda name: (-frames[name], name)):
        n_frames, n_videos, k = min(totals)
        dealt[k] += groups[name]
        totals[k] = (n_frames + frames[name], n_videos + len(groups[name]), k)
    return [validation, *(sorted(fold, key=lambda video: video.name) for fold in dealt)]


def _entries(folder: Path, tree: Tree, seen: set[tuple[int, int]]) -> list[tuple[Path, bool]]:
    """List (path, is a folder) by name; what cannot be read goes into `tree.unread`."""
    found = []
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return []
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                path = folder / entry.name
                try:
                    is_folder = entry.is_dir()
                    if is_folder or entry.is_file():
                        found.append((path, is_folder))
                    elif entry.is_symlink():
                        tree.unread.append((path, "a broken link"))
                except OSError as error:  # a link in a circle, or into a closed folder
                    tree.unread.append((path, str(error.strerror)))
    except OSError as error:
        tree.unread.append((folder, str(error.strerror)))
    return found


def _add_faces(folder: Path, tree: Tree, seen: set[tuple[int, int]]) -> None:
    for path, is_folder in _entries(folder, tree, seen):
        if is_folder and path.name.startswith(FACES):  # an archive unpacked into its own folder
            _add_faces(path, tree, seen)
        elif is_folder:
            tree.faces.setdefault(name_key(path.name), []).append(path)


def _label_files(folder: Path) -> list[Path]:
    """List the label files of a split; broken links too, for a video must not get lost."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise CorpusError(f"{folder}: {error.strerror}; accepted: a folder of labels") from error
    return [folder / n for n in names if n.lower().endswith(".txt") and not n.startswith(".")]


def _video(name: str, split: str, labels: Path | None, tree: Tree) -> Video:
    media, faces = tree.media, tree.faces.get(name_key(name), [])
    base = name_key(PERSON.sub("", name))
    found = media.get(base) or media.get(name_key(name)) or []
    return Video(name, split, labels, next(iter(found), None), next(iter(faces), None))


def _lines(path: Path) -> list[str]:
    """Read a text file's lines, whatever ends them, without the blank ones at its end."""
    try:
        content = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}; accepted: a text file") from error
    content = content.rstrip()
    return content.split("\n") if content else []


def _is_header(line: str) -> bool:
    return "".join(line.split()).lower() == LABEL_HEADER


def _first_unread(rows: list[str], first_number: int) -> tuple[int, str]:
    """Find the (number, text) of the first line that is not two finite numbers."""
    for number, line in enumerate(rows, start=first_number):
        parts = [part.strip() for part in line.split(",")]
        numbers = [float(part) for part in parts if NUMBER.fullmatch(part)]
        if not len(parts) == len(numbers) == 2 or max(map(abs, numbers)) > LARGEST:
            return number, line
    raise AssertionError("every line by itself is two numbers")
