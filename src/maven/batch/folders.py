"""Local folders and patterns -> media files; which transcripts lie beside them."""

from __future__ import annotations

import errno
import fnmatch
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from maven.batch.sources import MAGIC, InputError, fixed_part, reason
from maven.files import printable
from maven.transcript import leads_out, neighbour_of

# Of what `maven.container.DEMUXERS` reads; .dv, .gif and bare streams count when named directly.
MEDIA = (
    *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts"),
    *(".m2ts", ".vob", ".wmv", ".asf", ".flv", ".mxf", ".3gp", ".3g2", ".ogv", ".wav", ".mp3"),
    *(".m4a", ".aac", ".flac", ".ogg", ".oga", ".opus", ".wma", ".aiff", ".aif", ".au", ".caf"),
    *(".amr", ".ac3"),
)
ANY_DEPTH = "**"
OUT = "a link out of the folder: name its target itself, or list it in a manifest"
WORDS_OUT = "its transcript is a link out of the folder: list both in a manifest"
KEPT = 200_000  # names of transcripts that are remembered


@dataclass(frozen=True)
class Entry:
    """A media file below a folder: its name from there with "/", or why it is not known.

    A folder that is not listed is an entry too; its name ends in "/".
    """

    path: str
    name: str
    problem: str | None = None


def is_media(name: str) -> bool:
    """Tell by its name whether a file may hold video or sound."""
    return PurePath(name).suffix.lower() in MEDIA


def walk(root: str) -> Iterator[Entry]:
    """List the media files below a folder, by name, folders after the files beside them.

    Hidden files and folders are left out. Links to folders are not followed; a link to a file is
    where it leads to one below the same folder. Those that lead out are entries with a problem:
    whoever made a folder does not so decide what else of this machine is read.

    Raises:
        InputError: the folder itself cannot be listed.
    """
    return _matching(root, (ANY_DEPTH,))


def glob(pattern: str) -> Iterator[Entry]:
    """List the media files that a pattern names: *, ? and [...] within a name, ** for any folders.

    Names are those below the folders in front of the first such part. Hidden ones are left out,
    but where their part of the pattern begins with a full stop. Links are taken as in `walk`; the
    folder is the one in front, which may be named through links.

    Raises:
        InputError: the folder in front of the pattern cannot be listed.
    """
    pattern = pattern.replace(os.sep, "/")
    fixed = fixed_part(pattern)
    return _matching(fixed or ".", tuple(part for part in pattern[len(fixed) :].split("/") if part))


def is_pattern(text: str) -> bool:
    """Tell whether a text that names no file may be a pattern."""
    return MAGIC.search(text) is not None


class Neighbours:
    """Which transcripts lie beside media files; each folder is listed once, however many ask."""

    def __init__(self) -> None:
        # folder -> stem -> names, each with whether it is a link
        self._folders: dict[str, dict[str, list[tuple[str, bool]]]] = {}
        self._kept = 0

    def of(self, path: str) -> list[str]:
        """Name the files beside a media file that may be its transcript, in order.

        They are those among which `maven.transcript.beside` chooses.
        """
        folder, name = os.path.split(path)
        stems = self._folders.get(folder)
        if stems is None:
            stems = self._listed(folder)
        return [
            other
            for other, is_link in stems.get(PurePath(name).stem, ())
            if other != name and not (is_link and leads_out(Path(folder, other), Path(path)))
        ]

    def _listed(self, folder: str) -> dict[str, list[tuple[str, bool]]]:
        stems: dict[str, list[tuple[str, bool]]] = {}
        try:
            with os.scandir(folder) as entries:
                for name, is_link in sorted((e.name, e.is_symlink()) for e in entries):
                    for stem in neighbour_of(name):
                        stems.setdefault(stem, []).append((name, is_link))
        except OSError:
            pass  # the media file is about to say so
        self._kept += 1 + sum(map(len, stems.values()))
        if self._kept > KEPT:
            self._folders.clear()
            self._kept = 0
        self._folders[folder] = stems
        return stems


def _matching(root: str, parts: tuple[str, ...]) -> Iterator[Entry]:
    """Walk the folders that may hold what a pattern names.

    What of the pattern may come next is a set of indices into its parts (an automaton); behind the
    last one a file is accepted.
    """
    top = os.path.realpath(root)
    stack = [(str(Path(root).absolute()), "", _closed({0}, parts))]
    while stack:
        folder, name, at = stack.pop()
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not name:
                raise InputError(f"{printable(root)}: cannot be listed ({reason(error)})") from None
            yield Entry(folder, name, f"cannot be listed ({reason(error)})")
            continue
        links = {entry.name for entry in found if entry.is_symlink()}
        out = {n for n in links if not _inside(os.path.join(folder, n), top)}  # noqa: PTH118
        words_out = {stem for name in out for stem in neighbour_of(name)}
        folders = []
        for entry in found:
            behind = _behind(entry.name, at, parts)
            if not behind:
                continue
            path, below = os.path.join(folder, entry.name), name + entry.name  # noqa: PTH118
            try:
                is_folder = entry.is_dir()
            except OSError as error:
                is_folder = False
                if error.errno != errno.ELOOP:  # a link into a closed folder
                    yield Entry(path, below, f"cannot be looked at ({reason(error)})")
                    continue
            is_link = entry.name in links
            if is_folder:
                if not is_link:
                    folders.append((path, f"{below}/", behind))
                elif entry.name in out and behind != {len(parts)}:  # else nothing below is meant
                    yield Entry(path, f"{below}/", OUT)
            elif len(parts) in behind and is_media(entry.name):
                problem = OUT if entry.name in out else None
                if is_link and PurePath(entry.name).stem in words_out:  # `beside` would take it
                    problem = problem or WORDS_OUT
                yield Entry(path, below, problem)  # a broken link too: looking at it will say so
        stack += reversed(folders)


def _inside(path: str, top: str) -> bool:
    """Tell whether a link leads below a folder, which is given by its real path."""
    return PurePath(os.path.realpath(path)).is_relative_to(top)


def _behind(name: str, at: frozenset[int], parts: tuple[str, ...]) -> frozenset[int]:
    """Give where a pattern may stand behind a name."""
    behind = set()
    for k in at:
        if k == len(parts):
            continue
        if name.startswith(".") and not parts[k].startswith("."):
            continue
        if parts[k] == ANY_DEPTH:
            behind.add(k)
        elif fnmatch.fnmatch(name, parts[k]):
            behind.add(k + 1)
    return _closed(behind, parts)


def _closed(at: set[int], parts: tuple[str, ...]) -> frozenset[int]:
    """Add the places behind "**", which may stand for no folder."""
    for k in sorted(at):
        while k < len(parts) and parts[k] == ANY_DEPTH:
            k += 1
            at.add(k)
    return frozenset(at)
