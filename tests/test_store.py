"""Entries whole or not at all, damage named; manifests; recordings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maven.store import (
    ClipKeys,
    Manifest,
    Store,
    StoreError,
    key,
    load_entry,
    read_manifest,
    words_arrays,
    words_of,
    write_manifest,
)
from maven.transcript import Word

KEY = "0123456789abcdef" * 2
LABELS = {"labels": np.arange(6, dtype=np.float32).reshape(3, 2)}


def partial(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


# --- keys ------------------------------------------------------------------------------------

SETTINGS = st.dictionaries(
    st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5)
)


@given(SETTINGS)
def test_a_key_hashes_canonical_json(settings: dict[str, Any]) -> None:
    shuffled = dict(reversed(settings.items()))
    text = json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()
    assert key(**settings) == key(**shuffled) == hashlib.sha256(text).hexdigest()[:32]


@given(SETTINGS, SETTINGS)
def test_keys_differ_where_settings_do(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (key(**one) == key(**other)) == same


def test_what_is_no_setting_is_refused() -> None:
    with pytest.raises(TypeError):
        key(path=Path("x"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        key(rate_hz=float("nan"))


# --- entries ---------------------------------------------------------------------------------

ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int64]), hnp.array_shapes(min_side=0, max_side=4)
)


@given(ARRAYS, hnp.arrays("<U3", st.integers(0, 3)))
def test_what_was_put_is_got(
    tmp_path_factory: pytest.TempPathFactory, values: Any, texts: Any
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    assert not store.has("audio", KEY)
    store.put("audio", KEY, {"times_s": texts, "values": values, "spans_s": np.zeros((0, 2))})
    assert store.has("audio", KEY)
    held = store.get("audio", KEY)
    for name, array in (("values", values), ("times_s", texts)):
        assert held[name].dtype == array.dtype
        np.testing.assert_array_equal(held[name], array)
        assert not held[name].flags.writeable


def test_arrays_are_mapped_from_their_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("labels", KEY, LABELS)
    labels = store.get("labels", KEY)["labels"]
    assert isinstance(labels, np.memmap)
    assert Path(str(labels.filename)) == tmp_path / f"arrays/labels/01/{KEY}/labels.npy"


def test_kinds_do_not_mix(tmp_path: Path) -> None:
    Store(tmp_path).put("labels", KEY, LABELS)
    assert not Store(tmp_path).has("visual", KEY)
    with pytest.raises(StoreError, match="not in the store; run `maven features` again"):
        Store(tmp_path).get("visual", KEY)


def test_an_entry_that_is_there_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("labels", KEY, LABELS)
    store.put("labels", KEY, {"labels": np.zeros((9, 2), np.float32)})
    np.testing.assert_array_equal(store.get("labels", KEY)["labels"], LABELS["labels"])
    assert partial(tmp_path) == []


def test_opening_a_store_writes_nothing(tmp_path: Path) -> None:
    assert not Store(tmp_path / "none").has("labels", KEY)
    assert not (tmp_path / "none").exists()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 8)


def cut_in_header(path: Path) -> None:
    os.truncate(path, 40)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_text(path: Path) -> None:
    path.write_text("not an array")


def pickle(path: Path) -> None:
    np.save(path, np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize(
    "damage", [cut, cut_in_header, empty, replace_by_text, pickle, Path.unlink]
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = Store(tmp_path)
    store.put("labels", KEY, LABELS)
    path = tmp_path / f"arrays/labels/01/{KEY}/labels.npy"
    damage(path)
    with pytest.raises(StoreError) as caught:
        store.get("labels", KEY)
    message = str(caught.value)
    assert message.startswith(f"{path}: damaged (")
    assert message.endswith("delete its folder, then run `maven features` again")
    assert "\n" not in message


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be written"):
        store.put("labels", KEY, LABELS)


# --- manifests -------------------------------------------------------------------------------


def manifest(name: str = "mini", **changes: Any) -> Manifest:
    about = {"kind": "mini", "source": "x", "revision": None, "name": "n", "fingerprint": "f"}
    encoders = {m: about | {"width": w} for m, w in (("visual", 9), ("audio", 5), ("text", 8))}
    clips = (
        ClipKeys("video59", "train", "", "ff", "v", "a", None, "l", "f", ("no words",)),
        ClipKeys("video59_right", "val", "right", None, None, None, None, None, "f"),
    )
    whole = Manifest(name, encoders, {"asr": "none"}, "corpus", clips, (("bad", "cut"),), "0.1")
    return dataclasses.replace(whole, **changes)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "store", manifest())
    assert path == tmp_path / "store" / "mini.json"
    assert read_manifest(path.parent) == read_manifest(path.parent, "mini") == manifest()
    assert read_manifest(path.parent).widths == {"visual": 9, "audio": 5, "text": 8}
    assert json.loads(path.read_text())["sha256"] == manifest().sha256
    assert list(path.parent.iterdir()) == [path]


def test_the_hash_is_over_keys_and_nothing_else() -> None:
    same = manifest("other", root="copy", settings={}, failed=())
    assert same.sha256 == manifest().sha256
    first, second = manifest().clips
    for field in ("visual", "audio", "words", "labels", "frames", "name", "split"):
        changed = dataclasses.replace(first, **{field: "other"})
        assert manifest(clips=(changed, second)).sha256 != manifest().sha256
    assert manifest(clips=(second, first)).sha256 != manifest().sha256


def test_which_manifest_is_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no feature store; `maven features` makes one"):
        read_manifest(tmp_path / "nowhere")
    (tmp_path / ".mini.123.json").write_text("{")  # another process is writing it
    with pytest.raises(StoreError, match="no manifest named 'mini'; `maven features` makes one"):
        read_manifest(tmp_path, "mini")
    write_manifest(tmp_path, manifest("mini"))
    write_manifest(tmp_path, manifest("paper"))
    assert read_manifest(tmp_path, "paper").name == "paper"
    with pytest.raises(StoreError, match=r"none is named; accepted: mini, paper$"):
        read_manifest(tmp_path)
    with pytest.raises(StoreError, match=r"no manifest named 'x'; accepted: mini, paper$"):
        read_manifest(tmp_path, "x")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"clips": []}', '{"sha256": "", "clips": [1], "failed": []}', "\0"]
)
def test_what_is_no_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mini.json").write_text(text)
    with pytest.raises(StoreError, match=r"mini\.json: not a manifest") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_manifest_changed_by_hand_is_refused(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, manifest())
    path.write_text(path.read_text().replace('"split": "val"', '"split": "train"'))
    with pytest.raises(StoreError, match=r"mini\.json: changed since it was written"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../mini", "a/b", ".hidden", ""])
def test_a_name_that_is_no_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot name a manifest"):
        write_manifest(tmp_path / "store", manifest(name))
    assert list(tmp_path.iterdir()) == []


# --- recordings ------------------------------------------------------------------------------

WORDS = (Word("Hé", 0.1, 0.4, 0, 0.9), Word("you!", 0.5, 0.9, 0), Word("\udc80?", 1.0, 1.1, 3))


def test_words_keep_all_they_say() -> None:
    assert words_of(words_arrays(WORDS)) == WORDS
    assert words_of(words_arrays(())) == ()


def test_a_recording_has_what_its_entries_hold(tmp_path: Path) -> None:
    store = Store(tmp_path)
    frame_s = np.array([0.5, 0.6, 0.75, 0.8])
    store.put("frames", KEY, {"frame_s": frame_s, "held": np.array([4])})
    store.put("labels", KEY, {"labels": np.full((4, 2), -5, np.float32)})
    faces = np.arange(12, dtype=np.float32).reshape(4, 3)
    store.put("visual", KEY, {"frames": np.array([1, 3, 4, 5]), "values": faces})
    voice = np.ones((2, 5), np.float32)
    spans_s = np.array([[0.5, 0.7], [0.9, 1.0]])
    store.put("audio", KEY, {"times_s": frame_s[:2], "values": voice, "spans_s": spans_s})
    vectors = np.ones((3, 8), np.float32)
    store.put("words", KEY, words_arrays(WORDS) | {"vectors": vectors})
    clip = ClipKeys("video5_left", "train", "left", "ff", KEY, KEY, KEY, KEY, KEY)
    recording = load_entry(store, clip)
    assert (recording.name, recording.split, recording.person) == ("video5_left", "train", "left")
    np.testing.assert_array_equal(recording.frame_s, frame_s)
    assert (recording.labels == -5).all()
    assert recording.visual is not None
    np.testing.assert_array_equal(recording.visual.times_s, [0.5, 0.75, 0.8])  # frame 5 is none
    np.testing.assert_array_equal(recording.visual.values, faces[:3])
    assert recording.audio is not None
    np.testing.assert_array_equal(recording.audio.values, voice)
    assert [(span.start_s, span.end_s) for span in recording.speech] == [(0.5, 0.7), (0.9, 1.0)]
    assert recording.words == WORDS
    np.testing.assert_array_equal(recording.text, vectors)


def test_a_recording_of_nothing_but_frames(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("frames", KEY, {"frame_s": np.arange(3.0), "held": np.array([0])})
    recording = load_entry(store, ClipKeys("a", "test", "", None, None, None, None, None, KEY))
    assert recording.labels.shape == (0, 2)
    assert recording.visual is recording.audio is None
    assert recording.speech == recording.words == ()
    assert len(recording.text) == 0
