"""Whatever is done to an entry's files, it is found before anything of it is read."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from maven.entries import SUMS, DamagedError, Store, StoreError, key
from maven.store import ClipKeys, Manifest, read_manifest, write_manifest

KEY, OTHER = key(k=0), key(k=1)
AUDIO = {
    "times_s": np.arange(9.0),
    "values": np.arange(36, dtype=np.float32).reshape(9, 4),
    "spans_s": np.array([[0.5, 2.0]]),
}
LABELS = {"labels": np.arange(6, dtype=np.float32).reshape(3, 2)}


def place(store: Path, kind: str = "audio", name: str = KEY) -> Path:
    return store / "arrays" / kind / name[:2] / name


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("entries") / "store"
    store = Store(folder)
    for name, gain in ((KEY, 1), (OTHER, 2)):
        store.put("audio", name, {what: array * gain for what, array in AUDIO.items()})
    store.put("labels", KEY, LABELS)
    return folder


@pytest.fixture
def store(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "store"))


def refused(store: Path, kind: str = "audio") -> str:
    """What is said of the entry, in one line that names what to delete and what to run."""
    with pytest.raises(DamagedError) as caught:
        Store(store).get(kind, KEY)
    message = str(caught.value)
    assert message.startswith(f"{place(store, kind)}/")
    assert message.endswith("; delete its folder, then run `maven features` again")
    assert "\n" not in message
    return message


# --- damage ------------------------------------------------------------------------------------


def test_every_flipped_byte_is_found(store: Path) -> None:
    """One flip at a time: all of sums.json, and 200 places in the arrays, headers included."""
    chance = random.Random(7)
    places = [(place(store) / SUMS, k) for k in range((place(store) / SUMS).stat().st_size)]
    for name in AUDIO:
        path = place(store) / f"{name}.npy"
        at = sorted(chance.sample(range(path.stat().st_size), 67))
        places += [(path, k) for k in at]
    missed = []
    for path, k in places:
        before = path.read_bytes()
        after = bytearray(before)
        after[k] ^= 1 << chance.randrange(8)
        path.write_bytes(after)
        with contextlib.suppress(DamagedError):
            arrays = Store(store).get("audio", KEY)
            # Nothing may come through but what was written: between JSON's tokens, space is air.
            missed.append((path.name, bytes(after[k : k + 1])))
            for name, array in AUDIO.items():
                np.testing.assert_array_equal(arrays[name], array)
        path.write_bytes(before)
    assert {name for name, _ in missed} <= {SUMS}
    assert {byte for _, byte in missed} <= {b"\t", b"\n", b"\r", b" "}


def cut(folder: Path) -> None:
    os.truncate(folder / "values.npy", 200)


def longer(folder: Path) -> None:
    with (folder / "values.npy").open("ab") as file:
        file.write(b"\0")


def swapped_files(folder: Path) -> None:
    one, other = folder / "times_s.npy", folder / "spans_s.npy"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def swapped_entries(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.parent.parent / OTHER[:2] / OTHER, folder)


def array_of_another(folder: Path) -> None:
    shutil.copy(folder.parent.parent / OTHER[:2] / OTHER / "values.npy", folder)


def foreign(folder: Path) -> None:
    (folder / "values.npy").write_bytes(b"\x89PNG")


def folder_in_its_place(folder: Path) -> None:
    (folder / "values.npy").unlink()
    (folder / "values.npy").mkdir()


def pipe(folder: Path) -> None:
    (folder / "values.npy").unlink()
    os.mkfifo(folder / "values.npy")


def without_sums(folder: Path) -> None:
    (folder / SUMS).unlink()


def deep_sums(folder: Path) -> None:
    (folder / SUMS).write_text("[" * 60_000)


def other_sums(folder: Path) -> None:
    (folder / SUMS).write_text('{"kind": "audio", "key": 1}')


def listed_sums(folder: Path) -> None:
    said = json.loads((folder / SUMS).read_text())
    (folder / SUMS).write_text(json.dumps({**said, "files": [*said["files"]]}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "values.npy: damaged (200 bytes, not "),
        (longer, "values.npy: damaged (273 bytes, not 272)"),
        (swapped_files, "times_s.npy: damaged (144 bytes, not 200)"),
        (swapped_entries, "sums.json: damaged (it is of another entry)"),
        (array_of_another, "values.npy: damaged (its content has changed)"),
        (foreign, "values.npy: damaged (4 bytes, not 272)"),
        (folder_in_its_place, "values.npy: damaged (not a file)"),
        (pipe, "values.npy: damaged (not a file)"),
        (without_sums, "sums.json: damaged (no checksums: of an earlier maven)"),
        (deep_sums, "sums.json: damaged ("),
        (other_sums, "sums.json: damaged (it is of another entry)"),
        (listed_sums, "sums.json: damaged ("),
    ],
)
def test_what_is_not_as_it_was_written_is_named(
    store: Path, damage: Callable[[Path], None], says: str
) -> None:
    damage(place(store))
    assert says in refused(store)
    assert (Store(store).get("audio", OTHER)["values"] == 2 * AUDIO["values"]).all()


# --- lies: sums that agree with what was never written here --------------------------------------


def sealed(store: Path, content: bytes) -> None:
    """Put other content into an entry and make its sums agree."""
    import hashlib

    path = place(store, "labels") / "labels.npy"
    path.write_bytes(content)
    sums = path.with_name(SUMS)
    said = json.loads(sums.read_text())
    sha256 = hashlib.sha256(content).hexdigest()
    said["files"] = {path.name: {"bytes": len(content), "sha256": sha256}}
    sums.write_text(json.dumps(said))


def header(text: str, version: int = 1) -> bytes:
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(padded).to_bytes(2, "little") + padded


def declared(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (header(declared("(10000000000, 10000000000)")) + b"\0" * 24, "its header says 4"),
        (header(declared("(4611686018427387905, 4)")) + b"\0" * 16, "its header says 7378"),
        (header(declared("(-3, -2)")) + b"\0" * 24, "152 bytes; its header says"),
        (header(declared("(3, 1)")) + b"\0" * 24, "152 bytes; its header says 140"),
        (header(declared("(3, 2)", "'|O'")) + b"\0" * 24, "it holds Python objects"),
        (header(declared("(3, 2)", "'<U900000000'")) + b"\0" * 24, ""),
        (header("{'descr': __import__('os'), 'fortran_order': False, 'shape': ()}"), ""),
        (header("(" * 100), ""),
        (header(declared("(3, 2)"), version=9) + b"\0" * 24, "of a version that is not written"),
        (b"\x93NUMPY\x01\x00", ""),
        (b"", ""),
        (b"\x80\x04cos\nsystem\n", "magic string is not correct"),
    ],
)
def test_a_header_that_lies_is_not_believed(store: Path, content: bytes, says: str) -> None:
    sealed(store, content)
    message = refused(store, "labels")
    assert "labels.npy: damaged (" in message
    assert says in message


@pytest.mark.parametrize("name", ["../" * 10 + "ab", "A" * 32, "", "0" * 31, "0" * 31 + "\n"])
def test_a_key_that_is_none_reads_nothing(store: Path, name: str) -> None:
    with pytest.raises(StoreError, match="no key of an entry"):
        Store(store).get("audio", name)


# --- mending -----------------------------------------------------------------------------------


def test_a_damaged_entry_is_made_anew_a_sound_one_is_not(store: Path) -> None:
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return AUDIO

    place(store, "labels").rename(place(store, "labels").with_name(OTHER))  # of no use there
    opened = Store(store)
    assert (opened.made("audio", KEY, make)["values"] == AUDIO["values"]).all()
    assert not made
    array_of_another(place(store))
    opened.made("audio", KEY, make)
    assert not made  # it was verified when this process first read it
    opened = Store(store)
    assert (opened.made("audio", KEY, make)["values"] == AUDIO["values"]).all()
    assert made == [1]
    (line,) = opened.mended
    path = place(store) / "values.npy"
    assert line == f"{path}: damaged (its content has changed); made anew"
    Store(store).get("audio", KEY)
    assert not [path for path in store.rglob("*") if path.name.startswith(".")]


def test_what_another_has_mended_meanwhile_is_kept(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two find one damage; the other one has made the entry anew before this one removes it."""
    array_of_another(place(store))
    opened, get = Store(store), Store.get

    def late(self: Store, kind: str, name: str, **options: bool) -> dict[str, np.ndarray]:
        try:
            return get(self, kind, name, **options)
        except DamagedError:
            monkeypatch.undo()
            Store(store).made("audio", KEY, lambda: AUDIO)
            raise

    monkeypatch.setattr(Store, "get", late)
    assert (opened.made("audio", KEY, dict)["values"] == AUDIO["values"]).all()
    assert opened.mended == []


def test_what_another_removes_is_put_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two find one damage; the other one removes the entry that this one has just made anew."""
    array_of_another(place(store))
    opened, put = Store(store), Store.put
    made: list[int] = []

    def gone(self: Store, kind: str, name: str, arrays: dict[str, np.ndarray]) -> None:
        put(self, kind, name, arrays)
        monkeypatch.undo()
        shutil.rmtree(place(store))

    monkeypatch.setattr(Store, "put", gone)

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return AUDIO

    opened.made("audio", KEY, make)
    assert made == [1]
    assert (Store(store).get("audio", KEY)["values"] == AUDIO["values"]).all()


def test_many_may_mend_one_entry_at_once(store: Path) -> None:
    for _ in range(5):
        array_of_another(place(store))
        begin = threading.Barrier(8)

        def mend(begin: threading.Barrier = begin) -> np.ndarray:
            opened = Store(store)
            begin.wait()
            return opened.made("audio", KEY, lambda: AUDIO)["values"]

        with ThreadPoolExecutor(8) as pool:
            for values in [pool.submit(mend) for _ in range(8)]:
                assert (values.result() == AUDIO["values"]).all()
        Store(store).get("audio", KEY)


def test_a_share_is_verified_where_only_a_share_is_wanted(store: Path) -> None:
    array_of_another(place(store))
    opened = Store(store)
    opened.get("audio", KEY, check=False)
    with pytest.raises(DamagedError, match="content has changed"):
        opened.get("audio", KEY)
    cut(place(store))
    with pytest.raises(DamagedError, match="200 bytes"):
        Store(store).get("audio", KEY, check=False)


# --- the disk ----------------------------------------------------------------------------------

SYNCED = """
import os, sys
from pathlib import Path
import numpy as np
from maven.entries import Store

def told(event, name):
    print(event, Path(name).name if event == "file" else Path(name).relative_to(root), flush=True)

root, fsync, rename = Path(sys.argv[1]), os.fsync, Path.rename
def synced(handle):
    name = os.readlink(f"/proc/self/fd/{handle}")
    told("folder" if os.path.isdir(name) else "file", name)
    fsync(handle)
def renamed(self, target):
    print("rename", flush=True)
    return rename(self, target)
os.fsync, Path.rename = synced, renamed
Store(root / "store").put("labels", sys.argv[2], {"labels": np.zeros((3, 2), np.float32)})
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
def test_all_is_on_the_disk_before_the_name_and_then_the_name(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SYNCED, str(tmp_path), KEY],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = done.stdout.split("\n")[:-1]
    at = said.index("rename")
    assert {"file labels.npy", "file sums.json"} < set(said[:at])
    assert "folder store/arrays/labels" in said[:at]  # that holds the new folder of two digits
    assert said[at - 1].startswith(f"folder store/arrays/labels/{KEY[:2]}/.")
    assert said[at + 1 :] == [f"folder store/arrays/labels/{KEY[:2]}"]


# --- the manifest ------------------------------------------------------------------------------


def test_every_flipped_byte_of_a_manifest_is_found(tmp_path: Path) -> None:
    encoder = {"kind": "mini", "source": "x", "revision": None, "name": "n", "width": 9}
    clip = ClipKeys("a", "train", "", "ff", KEY, None, None, OTHER, KEY, ("no sound",))
    manifest = Manifest(
        "m", {"visual": encoder}, {"asr": "none"}, "c", (clip,), (("b", "cut"),), "1"
    )
    path = write_manifest(tmp_path, manifest)
    whole, chance = path.read_bytes(), random.Random(3)
    for k in range(len(whole)):
        flipped = bytearray(whole)
        flipped[k] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        if bytes(flipped[k : k + 1]).isspace() and whole[k : k + 1].isspace():
            continue
        with pytest.raises(StoreError) as caught:
            read_manifest(tmp_path, "m")
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_a_manifest_of_an_earlier_version(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, Manifest("m", {}, {}, "c", (), (), "1"))
    content = json.loads(path.read_text())
    del content["content_sha256"]
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"m\.json: has no checksum, as an earlier maven wrote it"):
        read_manifest(tmp_path)
