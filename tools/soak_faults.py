"""State that is damaged, in the way, or changed half-way: noticed, said, mended or refused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import maven
from soak_batch import Found, differences, fingerprint, finish, fresh, left_over, start
from two_nodes import family

Options = tuple[str, ...]
Ran = subprocess.CompletedProcess[str]
SMALL_BYTES = 400_000  # of a disk that is soon full


def faults(clips: Path, work: Path, options: Options) -> list[Found]:
    """Damage the output of a batch in many ways, and look at what the next run says and does."""
    out = fresh(work / "faulty")
    calm = finish(clips, out, *options)
    assert calm.returncode == 0, calm.stderr
    wanted = fingerprint(out)
    results = sorted((out / "results").rglob("*.parquet"))
    found = []

    def again(what: str, *, says: str, redone: int) -> None:
        """The next run notes what it found ("": nothing), does so many again, ends as before."""
        ran = finish(clips, out, *options)
        for aside in out.glob("batch.sqlite.damaged-*"):
            aside.unlink()
        same = not differences(fingerprint(out), wanted) and not left_over(out)
        notes = [line for line in ran.stderr.splitlines() if line.startswith("Note: ")]
        said = next((line for line in notes if says in line), "no note").replace(f"{work}/", "")
        heard = says in said if says else not notes
        todo = f" {redone} to do" in ran.stdout
        ended = f"{redone} to do, all as before" if same and todo else "not as before"
        found.append(Found(what, f"{said}; {ended}", heard and todo and same))

    def refused(what: str, *, says: str) -> None:
        """The next run ends with one line, and changes nothing."""
        found.append(_refusal(what, finish(clips, out, *options), work, says))

    _cut(out / "index.parquet")
    again("index.parquet cut in half", says="index.parquet", redone=0)
    (out / "index.parquet").unlink()
    again("index.parquet gone", says="", redone=0)
    # Results are taken over, and each file is hashed once to see that it is still the same.
    _cut(out / "batch.sqlite")
    again("batch.sqlite cut in half", says="batch.sqlite", redone=len(results))
    (out / "batch.sqlite").write_bytes(os.urandom(10_000))
    again("batch.sqlite overwritten", says="batch.sqlite", redone=len(results))
    _flip(results[0])
    again("a byte of a result flipped", says=results[0].name, redone=1)
    _cut(results[1])
    again("a result cut in half", says=results[1].name, redone=1)
    results[2].unlink()
    again("a result deleted", says="1 result is gone", redone=1)

    shutil.copy(results[3], results[3].with_name("other.parquet"))
    refused("a foreign table among the results", says="other.parquet")
    results[3].with_name("other.parquet").unlink()
    again("the same without it", says="", redone=0)

    process = start(clips, fresh(work / "busy"), *options, log=work / "busy.log")
    _until(work / "busy" / "batch.sqlite")
    ran = finish(clips, work / "busy", *options)
    found.append(_refusal("a second batch on the same folder", ran, work, "in use"))
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    found.append(_model_changed(clips, work, options))
    found += _disk(clips, work, options, wanted)
    return found


def _model_changed(clips: Path, work: Path, options: Options) -> Found:
    """Change the model while a batch runs; its workers are killed, so that new ones load it."""
    model, out = fresh(work / "model"), fresh(work / "changed")
    shutil.copytree(Path(maven.__file__).parent / "weights" / "mini", model)
    process = start(clips, out, *options, "--model", str(model), log=work / "changed.log")
    _until_results(out, 2)
    card = json.loads((model / "config.json").read_text())
    card["smoothing_s"] += 0.5
    (model / "config.json").write_text(json.dumps(card))
    for child in family(process.pid)[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    process.wait()
    said = (work / "changed.log").read_text().splitlines()[-1]
    ran = finish(clips, out, *options, "--model", str(model))
    hashes = _models(out)
    good = process.returncode == 1 and "changed" in said and ran.returncode == 0
    mixed = f"{said.replace(f'{work}/', '')}; then {len(hashes)} model in the results"
    return Found("the model changed half-way", mixed, good and len(hashes) == 1)


def _models(out: Path) -> set[str]:
    """What the results say of the model that made them."""
    import pyarrow.parquet as parquet

    found = set()
    for path in (out / "results").rglob("*.parquet"):
        metadata = parquet.read_schema(path).metadata
        found.add(json.dumps(json.loads(metadata[b"maven"])["model"], sort_keys=True))
    return found


def _disk(clips: Path, work: Path, options: Options, wanted: dict[str, str]) -> list[Found]:
    """Fill a small disk, then enlarge it; write-protect it. Only root may make one."""
    disk = fresh(work / "disk")
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        return [Found("a full disk, a read-only disk", "not tried: needs root", False)]
    try:
        full = _refusal("a full disk", finish(clips, disk / "out", *options), work, "space")
        subprocess.run(["mount", "-o", "remount,size=200M", str(disk)], check=True)
        kept = len(list((disk / "out" / "results").rglob("*.parquet")))
        ran = finish(clips, disk / "out", *options)
        same = not differences(fingerprint(disk / "out"), wanted) and not left_over(disk / "out")
        todo = ran.stdout.splitlines()[0].partition(": ")[2]
        room = Found("the same with room", f"{kept} results kept; {todo}", same)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        ran = finish(clips, disk / "out", *options)
        return [full, room, _refusal("a read-only folder", ran, work, "cannot write")]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def _refusal(what: str, ran: Ran, work: Path, says: str) -> Found:
    """A run that is refused says so in one line and ends with 1 or 2."""
    lines = [line for line in ran.stderr.splitlines() if line.startswith("maven: ")]
    said = lines[0].replace(f"{work}/", "") if lines else "nothing said"
    good = ran.returncode in (1, 2) and len(lines) == 1 and says in said
    return Found(what, said, good and "Traceback" not in ran.stderr)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


def _until(path: Path, within_s: float = 60.0) -> None:
    end_s = time.monotonic() + within_s
    while not path.exists() and time.monotonic() < end_s:
        time.sleep(0.02)


def _until_results(out: Path, number: int, within_s: float = 120.0) -> None:
    end_s = time.monotonic() + within_s
    while len(list(out.glob("results/*/*.parquet"))) < number and time.monotonic() < end_s:
        time.sleep(0.02)
