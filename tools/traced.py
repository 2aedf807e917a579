"""Judge what a batch opened: python tools/traced.py LOG... --input FOLDER --out DIR [--secret DIR]

LOG is what `strace -f -y -e trace=%file,%network -o LOG maven batch FOLDER -o DIR` writes. Every
file that was opened, made, renamed, linked or removed must be an input (read only), in the output
folder, or part of the installation, and none of the secrets; links are followed. No program but
Python is started, and there must be no socket. Prints counts and every offence, and exits with 1
where there is one.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CALL = re.compile(r"(?:\[pid +)?(\d+)?\]? *(\w+)\((.*)")
RESUMED = re.compile(r"(?:\[pid +)?(\d+)?\]? *<\.\.\. (\w+) resumed>(.*)")
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"(?:\.\.\.)?')
PLACE = re.compile(r"(?:AT_FDCWD|\d+)<([^>]*)>")
ESCAPE = re.compile(r"\\([0-7]{1,3}|.)", re.DOTALL)
LETTERS = {"n": "\n", "t": "\t", "r": "\r", "v": "\v", "f": "\f"}
OPENS = ("open", "openat", "openat2", "creat")
CHANGES = (
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink"),
    *("unlinkat", "rmdir", "mkdir", "mkdirat", "mknod", "mknodat", "chmod", "fchmodat", "chown"),
    *("lchown", "fchownat", "truncate", "utimensat", "setxattr", "lsetxattr", "mount"),
)
LOOKS = ("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink",
         "readlinkat", "getcwd", "chdir", "statfs")  # fmt: skip
STARTS = ("execve", "execveat")
NETWORK = ("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "sendto",
           "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg")  # fmt: skip
WRITING = re.compile(r"O_(?:WRONLY|RDWR|CREAT|TRUNC|APPEND|TMPFILE)")

# What a process reads beside its own files, and why.
SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib",  # shared libraries, OpenSSL's
    "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ssl",  # settings of the loader and of OpenSSL
    "/usr/share/zoneinfo", "/etc/localtime", "/usr/share/locale",  # time zone and language
    "/usr/share/fonts", "/etc/fonts", "/usr/share/fontconfig",  # matplotlib, where it draws
    "/etc/os-release", "/etc/lsb-release",  # which system this is: `platform`
    "/etc/mime.types",  # `mimetypes`
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/mounts",
    "/proc/sys/vm", "/proc/sys/kernel", "/proc/version",  # what the machine has and does
    "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm",  # processors, memory, its limits
    "/sys/bus/pci/devices", "/sys/class/drm",  # onnxruntime looks which devices there are
    "/dev/null", "/dev/urandom",
)  # fmt: skip
OWN = re.compile(r"/proc/(?:self|thread-self|\d+)/(?:\w+|task(?:/.*)?|fd(?:/.*)?)")  # of processes
WRITABLE = ("/dev/null",)
OWN_WRITABLE = re.compile(r"/proc/self/clear_refs")  # so that a task's own peak can be measured


@dataclass(frozen=True)
class Access:
    """One call about one file: `writes` where it could change something."""

    call: str
    path: str
    writes: bool
    looks: bool = False


def accesses(lines: Iterable[str]) -> Iterator[Access | str]:
    """Read a log: give every access to a file, and the name of each call about a network."""
    begun: dict[tuple[str, str], str] = {}
    for line in lines:
        resumed = RESUMED.match(line)
        call = CALL.match(line)
        if resumed:
            process, name, rest = resumed.groups()
            arguments = begun.pop((process or "", name), "") + rest
        elif call:
            process, name, arguments = call.groups()
            if arguments.rstrip().endswith("<unfinished ...>"):
                begun[process or "", name] = arguments.rstrip()[: -len("<unfinished ...>")]
                continue
        else:
            continue
        yield from _of_call(name, arguments)
    for (_, name), arguments in begun.items():  # the process was killed in it
        yield from _of_call(name, arguments)


def _of_call(name: str, arguments: str) -> Iterator[Access | str]:
    if name in NETWORK:
        yield f"{name}({arguments.strip()[:120]}"
    if name not in (*OPENS, *CHANGES, *LOOKS, *STARTS):
        return
    texts = list(TEXT.finditer(arguments))
    texts = texts[:2] if name in CHANGES and name not in ("mknod", "mkdir") else texts[:1]
    for text in texts:
        places = PLACE.findall(arguments, 0, text.start())  # the last before the name counts
        path = os.path.join(places[-1] if places else "", unescaped(text[1]))  # noqa: PTH118
        writes = name in CHANGES or name == "creat" or bool(WRITING.search(arguments))
        yield Access(name, path, writes and name not in LOOKS, name in LOOKS)


def unescaped(text: str) -> str:
    """Undo how strace writes strings: octal numbers and letters behind a backslash."""

    def byte(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code, 8)) if code[0] in "01234567" else LETTERS.get(code, code)

    return os.fsdecode(ESCAPE.sub(byte, text).encode("latin-1", "replace"))


class Judge:
    """Says which accesses are offences.

    Args:
        inputs: files and folders that may be read.
        outputs: folders that may be read and written.
        secrets: files and folders that nobody may open, wherever links lead.
        folder: in which the traced process was started: names that are not absolute lie there.
    """

    def __init__(
        self,
        inputs: Sequence[Path],
        outputs: Sequence[Path],
        secrets: Sequence[Path] = (),
        folder: Path | None = None,
    ) -> None:
        self._inputs, self._outputs = _both(inputs), _both(outputs)
        self._secrets, self._folder = _both(secrets), str(folder or Path.cwd())
        self._installed = _both(installation())
        own = Path(sysconfig.get_path("scripts"), "maven")
        self._programs = _both([Path(sys.executable), own])

    def offence(self, access: Access) -> str | None:
        """Say what is wrong with an access; None where nothing is."""
        path = os.path.normpath(os.path.join(self._folder, access.path))  # noqa: PTH118
        if access.looks:  # so that a link is refused, where it leads has to be looked at
            return None
        real = os.path.realpath(path)
        if _within(path, self._secrets) or _within(real, self._secrets):
            return f"{access.call} of a secret: {path!a}"
        if access.call in STARTS:
            ours = real in self._programs
            return None if ours else f"{access.call} starts another program: {path!a}"
        if _within(path, self._outputs):
            return None
        if access.writes:
            allowed = path in WRITABLE or OWN_WRITABLE.fullmatch(path)
            return None if allowed else f"{access.call} writes outside the output: {path!a}"
        places = (*self._inputs, *self._installed, *SYSTEM)
        if not (_within(path, places) or _leads_to(path, places) or OWN.fullmatch(path)):
            return f"{access.call} outside inputs, output and installation: {path!a}"
        if _within(path, self._inputs) and not _within(real, (*places, *self._outputs)):
            return f"{access.call} of an input that leads elsewhere: {path!a} -> {real!a}"
        return None


def installation() -> list[Path]:
    """Where Python, its packages and this project lie."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {sys.prefix, sys.base_prefix, sys.exec_prefix}
    import maven

    return [Path(path) for path in sorted(paths)] + [Path(maven.__file__).parent]


def _both(paths: Sequence[Path]) -> tuple[str, ...]:
    """As they are named, and where they lead."""
    named = [os.path.abspath(path) for path in paths]  # noqa: PTH100
    return tuple(dict.fromkeys([*named, *map(os.path.realpath, named)]))


def _within(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(place.rstrip("/") + "/") for place in places)


def _leads_to(path: str, places: Iterable[str]) -> bool:
    """Whether it is a folder on the way to one of the places: imports list those."""
    return any(place.startswith(path.rstrip("/") + "/") for place in places)


def judged(logs: Sequence[Path], judge: Judge) -> tuple[Counter[str], list[str]]:
    """Read logs; return how often each call was made, and every offence once."""
    counts: Counter[str] = Counter()
    offences: dict[str, None] = {}
    for log in logs:
        with log.open(encoding="utf-8", errors="surrogateescape") as lines:
            for access in accesses(lines):
                if isinstance(access, str):
                    counts["network"] += 1
                    offences[f"a network call: {access}"] = None
                    continue
                kind = "looked at" if access.looks else "written" if access.writes else "read"
                counts["started" if access.call in STARTS else kind] += 1
                offence = judge.offence(access)
                if offence:
                    offences[offence] = None
    return counts, list(offences)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--input", action="append", type=Path, required=True)
    parser.add_argument("--out", action="append", type=Path, required=True)
    parser.add_argument("--secret", action="append", type=Path, default=[])
    parser.add_argument("--folder", type=Path, help="in which the process was started")
    given = parser.parse_args()
    counts, offences = judged(given.logs, Judge(given.input, given.out, given.secret, given.folder))
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    print(*offences, f"{len(offences)} offences", sep="\n")
    sys.exit(bool(offences))


if __name__ == "__main__":
    main()
