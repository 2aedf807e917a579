"""Fuzz the parsers of text: transcripts, captions, labels, ratings, manifests, recipes, cards.

    python tools/fuzz.py --cases 1000000 --seed 0 --processes 2

Case k of a parser depends on the seed and k alone, whatever the number of processes. A fault is an
exception that is not the parser's own, of one line; a result that breaks a promise; more than 1 s
of a core; more than 100 MiB of memory. A case that fails is made smaller and shown.
Exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numpy

from fuzz_parsers import PARSERS, Parser

LONGEST_S = 1.0  # of one core, for a case
PATIENCE_S = 5.0  # after which a case is stopped
MEMORY_BYTES = 100 * 2**20  # that a case may add to the largest size so far
CEILING_BYTES = 2 * 2**30  # of data, above which memory is refused
SHRINK_S = 5.0  # to make a failing case smaller
CHUNK = 5000  # cases that a process does at a time
LONGEST_MESSAGE = 2000  # characters
SHOWN_BYTES = 300


class TooSlowError(BaseException):
    """A case took `PATIENCE_S` of a core; no handler of a parser is to catch it."""


@dataclass(frozen=True)
class Fault:
    """What went wrong first in a way; `case` is made small, `size_bytes` is what it was made of."""

    parser: str
    number: int
    what: str
    where: str
    case: bytes
    size_bytes: int


@dataclass(frozen=True)
class Part:
    """What became of a chunk of cases; `refused` is how many the parser did not take, seconds are
    those of a core."""

    parser: str
    cases: int
    refused: int
    seconds: float
    faults: list[Fault]


def case_of(parser: Parser, seed: int, number: int) -> bytes:
    """Make one case."""
    return parser.make(Random(f"{seed} {parser.name} {number}"))


def warm(parser: Parser, folder: Path) -> None:
    """Import what is imported on first use, which counts for no case."""
    parser.refusals()
    with suppress(Exception):
        parser.read(b"", folder)


def fault_of(parser: Parser, case: bytes, folder: Path) -> tuple[str, str] | bool:
    """Read a case: what went wrong and where, else whether it was refused."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_s = time.thread_time()
    refused = False
    signal.signal(signal.SIGPROF, _stop)
    try:
        signal.setitimer(signal.ITIMER_PROF, PATIENCE_S)
        try:
            parser.read(case, folder)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except TooSlowError:
        return f"took more than {PATIENCE_S:g} s", ""
    except Exception as error:
        refused = True
        if not isinstance(error, parser.refusals()):
            return f"{type(error).__name__}: {error}"[:300], _place(error)
        is_own = type(error).__module__.startswith("maven.")
        if is_own and len(str(error).splitlines()) != 1:
            return f"{type(error).__name__} of several lines: {str(error)[:200]!r}", _place(error)
        if is_own and len(str(error)) > LONGEST_MESSAGE:
            return f"{type(error).__name__} of {len(str(error))} characters", _place(error)
    took_s = time.thread_time() - start_s
    if took_s > LONGEST_S:
        return f"took {took_s:.1f} s", ""
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return ("took more memory than the limit", "") if grown > MEMORY_BYTES else refused


def shrunk(parser: Parser, case: bytes, fault: tuple[str, str], folder: Path) -> bytes:
    """Leave out of a case what is not needed for the same fault."""
    end_s = time.monotonic() + SHRINK_S
    kind = fault[0].partition(":")[0], fault[1]
    size = len(case) // 2
    while size and time.monotonic() < end_s:
        at = 0
        while at < len(case) and time.monotonic() < end_s:
            shorter = case[:at] + case[at + size :]
            found = fault_of(parser, shorter, folder)
            if isinstance(found, tuple) and (found[0].partition(":")[0], found[1]) == kind:
                case = shorter
            else:
                at += size
        size //= 2
    return case


def fuzz(name: str, seed: int, first: int, count: int) -> Part:
    """Do the cases first ... first + count - 1 of one parser."""
    parser = next(parser for parser in PARSERS if parser.name == name)
    faults: dict[tuple[str, str], Fault] = {}
    refused = 0
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as temporary:
        folder = Path(temporary)
        warm(parser, folder)
        start_s = time.process_time()
        for number in range(first, first + count):
            case = case_of(parser, seed, number)
            found = fault_of(parser, case, folder)
            if isinstance(found, bool):
                refused += found
                continue
            kind = found[0].partition(":")[0], found[1]
            if kind not in faults:
                small = shrunk(parser, case, found, folder)
                faults[kind] = Fault(name, number, *found, small, len(case))
        seconds = time.process_time() - start_s
    return Part(name, count, refused, seconds, list(faults.values()))


def parts(cases: int, seed: int, processes: int, chosen: Sequence[Parser]) -> Iterator[Part]:
    """Share cases among parsers and processes."""
    total = sum(parser.share for parser in chosen)
    with ProcessPoolExecutor(processes, initializer=_limit) as pool:
        futures = [
            pool.submit(fuzz, parser.name, seed, first, min(CHUNK, count - first))
            for parser in chosen
            for count in [max(round(cases * parser.share / total), 1)]
            for first in range(0, count, CHUNK)
        ]
        for future in futures:
            yield future.result()


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, print a line a parser and every fault; 1 if there is any."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000, help="of all parsers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", help="parsers whose names begin so")
    asked = parser.parse_args(arguments)
    chosen = [p for p in PARSERS if p.name.startswith(asked.only or "")]
    if not chosen or asked.cases < 1 or asked.processes < 1:
        parser.error(f"--only: one of {', '.join(p.name for p in PARSERS)}; numbers from 1")
    cases, refused, seconds = Counter[str](), Counter[str](), Counter[str]()
    faults: dict[tuple[str, str, str], Fault] = {}
    start_s = time.monotonic()
    try:
        for part in parts(asked.cases, asked.seed, asked.processes, chosen):
            cases[part.parser] += part.cases
            refused[part.parser] += part.refused
            seconds[part.parser] += part.seconds  # type: ignore[assignment]
            for fault in part.faults:
                faults.setdefault((fault.parser, fault.what.partition(":")[0], fault.where), fault)
    except BrokenProcessPool:
        print(f"a process crashed, after {dict(cases)}", file=sys.stderr)
        return 1
    took_s = time.monotonic() - start_s
    for name, count in cases.items():
        rate = count / max(seconds[name], 1e-9)
        share = refused[name] / count
        print(f"{name:20} {count:9,} cases  {rate:8,.0f} a core second  {share:4.0%} refused")
    total = sum(cases.values())
    print(f"{'all':20} {total:9,} cases  {total / took_s:8,.0f} a second  {took_s:.0f} s")
    for fault in faults.values():
        shown = repr(fault.case[:SHOWN_BYTES]) + ("..." if len(fault.case) > SHOWN_BYTES else "")
        print(
            f"\n{fault.parser}, seed {asked.seed}, case {fault.number}, {fault.size_bytes} bytes:"
        )
        print(f"  {fault.what}\n  {fault.where}\n  {shown}")
    print(f"{len(faults)} faults" if faults else "no faults")
    return 1 if faults else 0


def _place(error: BaseException) -> str:
    """Name the last two places in the package that an exception came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "maven" in f.filename]
    return " <- ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames[:-3:-1])


def _memory_folder() -> str | None:
    """Give a folder in memory, where there is one: a million files need no disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _stop(*_: object) -> None:
    raise TooSlowError


def _limit() -> None:
    """Limit this process; what it has already counts as well."""
    resource.setrlimit(resource.RLIMIT_DATA, (CEILING_BYTES, CEILING_BYTES))


if __name__ == "__main__":
    sys.exit(main())
