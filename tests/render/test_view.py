from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from demo_pieces import DEMO
from maven.media import frames, probe
from maven.render import view as module
from maven.render.summary import MOMENT_GAP_S, peaks, summarize
from maven.render.view import view
from maven.speech import SpeechSpan
from maven.transcript import Word

from .frames import nothing, person, speak, without
from .told import OBSERVED, SOUND, VALUES, check_view, told


def column(values: list[float | None]) -> np.ndarray:
    return np.array(values, np.float64)


def flags(text: str) -> np.ndarray:
    return np.array(list(text)) == "1"


def test_rows_are_those_of_the_table() -> None:
    table = without(person(duration_s=10, seed=3), slice(40, 70), "face", "answer", "interval")
    shown = view(told(table), stills=False)
    check_view(shown)
    (one,) = shown["people"]
    assert (one["name"], one["face_id"], shown["step_s"]) == ("Person 1", 1, None)
    assert one["time_s"] == table["time_s"].round(4).tolist()
    for name in VALUES:
        np.testing.assert_allclose(column(one[name]), table[name], atol=5.01e-4, err_msg=name)
        assert [value is None for value in one[name]] == table[name].isna().tolist()
    for name in OBSERVED:
        assert flags(one[name]).tolist() == table[name].tolist()
    assert one["box_px"][0] == [100.5, 80.2, 64.0, 72.0]
    assert one["box_px"][40:70] == [None] * 30
    assert (shown["file"], shown["start_s"], shown["end_s"]) == ("clip.mp4", 0.0, 10.0)
    assert shown["video"] == {"width_px": 640, "height_px": 360, "rate_hz": 25.0}
    assert (shown["sound"], shown["interval"]) == (True, 0.9)


def test_summary_and_moments_are_those_of_the_summary() -> None:
    table, words = person(duration_s=60, seed=1), speak(60)
    (one,) = view(told(table, words=words), stills=False)["people"]
    (known,) = summarize(table, words).people
    assert known.valence is not None
    assert one["summary"]["valence"]["mean"] == pytest.approx(known.valence.mean, abs=5e-4)
    assert list(one["summary"]["regions"]) == list(known.regions)
    assert (one["summary"]["seconds"], one["summary"]["words"]) == (60.0, 1.0)
    time_s, intensity = table["time_s"].to_numpy(), table["intensity"].to_numpy()
    highest = [time_s[i] for i in peaks(time_s, intensity, MOMENT_GAP_S)]
    assert len(highest) > 8
    assert [moment["time_s"] for moment in one["moments"]] == pytest.approx(highest[:8])
    assert one["moments"][0]["words"] == known.moments[0].words
    assert one["moments"][0]["still"] is None


def test_only_the_strongest_moment_may_be_neutral() -> None:
    table = person(duration_s=30, seed=1)
    weak = {name: table[name] * 0.15 for name in ("valence", "arousal", "intensity")}
    (one,) = view(told(table.assign(**weak, emotion="Neutral")), stills=False)["people"]
    assert [moment["intensity"] for moment in one["moments"]] == [
        pytest.approx(weak["intensity"].max(), abs=5e-4)
    ]
    (one,) = view(told(table), stills=False)["people"]
    assert len(one["moments"]) > 3
    assert all(moment["intensity"] >= 0.2 for moment in one["moments"])


def test_words_speech_notes_and_provenance() -> None:
    shown = view(
        told(
            person(duration_s=2),
            words=(Word(" </script><b> ", 0.1, 0.40001, 0), Word("\u2028é", 0.5, 0.9, 0, 0.5)),
            speech=(SpeechSpan(0.05, 1.23456),),
            notes=("no words: whisper:/srv/some/models/base is broken", "see https://a.org/b/c"),
            provenance={
                "model": {"intervals": None, "name": "/srv/data/own"},
                "settings": {"asr": "whisper:C:\\Users\\me\\base", "rate_hz": float("nan")},
                "sources": ["file: a/b.srt", ("/x/y", 3)],
                "blanks": [
                    "file: /srv/my user/secret study/clip.srt",
                    "file: C:\\Films of\\Bob Smith\\a.srt",
                    "/a/b/c.mp4 or /a/b/d.mp4",
                ],
            },
        ),
        stills=False,
    )
    check_view(shown)
    assert shown["words"] == [
        {"text": "</script><b>", "start_s": 0.1, "end_s": 0.4},
        {"text": "é", "start_s": 0.5, "end_s": 0.9},
    ]
    assert shown["speech"] == [[0.05, 1.2346]]
    assert shown["notes"] == ["no words: whisper:base is broken", "see https://a.org/b/c"]
    assert shown["interval"] is None
    assert shown["provenance"] == {
        "model": {"intervals": None, "name": "own"},
        "settings": {"asr": "whisper:base", "rate_hz": None},
        "sources": ["file: a/b.srt", ["y", 3]],
        "blanks": ["file: clip.srt", "file: a.srt", "c.mp4 or d.mp4"],
    }


@pytest.mark.parametrize("rows_a_chunk", [7, 10_000])
def test_many_rows_become_means_of_bins(monkeypatch: pytest.MonkeyPatch, rows_a_chunk: int) -> None:
    monkeypatch.setattr(module, "ROWS", 100)
    table = person(duration_s=30, start_s=2.0, seed=2)
    table = without(table, slice(0, 33), "answer", "interval", "text")
    table = without(table, slice(100, 164), "face")
    shown = view(told(table, rows_a_chunk=rows_a_chunk), stills=False)
    check_view(shown)
    assert shown["step_s"] == 0.5  # 30 s in at most 100, rounded up
    (one,) = shown["people"]
    bins = np.floor((table["time_s"] - 2.0 + 1e-12) / 0.5)
    means = table[["time_s", *VALUES]].groupby(bins).mean()  # pandas leaves out nulls
    assert len(one["time_s"]) == len(means) == 60
    assert one["time_s"] == pytest.approx(means["time_s"].tolist(), abs=1e-4)
    for name in VALUES:
        np.testing.assert_allclose(column(one[name]), means[name], atol=5.01e-4, err_msg=name)
    for name in OBSERVED:
        assert flags(one[name]).tolist() == (table.groupby(bins)[name].mean() >= 0.5).tolist()
    assert one["moments"][0]["intensity"] == pytest.approx(table["intensity"].max(), abs=5e-4)


def test_a_person_has_no_more_rows_than_so_many() -> None:
    hours = person(duration_s=5000, fps=10)  # 50,000 rows
    shown = view(told(hours, rows_a_chunk=2048), stills=False)
    check_view(shown)
    assert shown["step_s"] == 0.5
    assert len(shown["people"][0]["time_s"]) == 10_000
    few = person(duration_s=2000, fps=10)
    shown = view(told(few, rows_a_chunk=2048), stills=False)
    assert (shown["step_s"], len(shown["people"][0]["time_s"])) == (None, 20_000)


def test_bins_without_rows_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 60)
    table = person(duration_s=30)
    gap = table[(table["time_s"] < 5) | (table["time_s"] >= 20)]
    shown = view(told(gap), stills=False)
    check_view(shown)
    assert shown["step_s"] == 1.0
    times_s = np.array(shown["people"][0]["time_s"])
    assert not ((times_s > 5) & (times_s < 20)).any()


def test_voice_alone_and_nothing_at_all() -> None:
    heard = without(person(face_id=None), slice(None), "face")
    heard["face_id"] = pd.array([pd.NA] * len(heard), "Int64")
    shown = view(told(heard, "voice.wav", video=None))
    check_view(shown)
    (one,) = shown["people"]
    assert (one["name"], one["face_id"], shown["video"]) == ("Voice", None, None)
    assert set(one["box_px"]) == {None}

    shown = view(told(nothing(), audio=None), stills=False)
    check_view(shown)
    (one,) = shown["people"]
    assert (one["moments"], one["summary"]["valence"], shown["sound"]) == ([], None, False)
    assert one["summary"]["regions"] == {}
    assert set(one["valence"]) == {None}

    alone = view(told(person(duration_s=0.04)), stills=False)
    check_view(alone)
    assert len(alone["people"][0]["time_s"]) == 1


def test_people_in_order_of_their_numbers() -> None:
    table = pd.concat([person(face_id=k, seed=k) for k in (2, 5, 9)], ignore_index=True)
    shown = view(told(table), stills=False)
    check_view(shown)
    assert [one["face_id"] for one in shown["people"]] == [2, 5, 9]
    assert [one["name"] for one in shown["people"]] == ["Person 2", "Person 5", "Person 9"]


def test_stills_show_the_person_of_the_moment(tmp_path: Path) -> None:
    """Two people stand where the demo's picture is dark and where it is light."""
    picture = next(frames(DEMO)).rgb
    info = probe(DEMO)
    left, right = (person(face_id=k, duration_s=8, seed=k) for k in (1, 2))
    left = left.assign(face_x=0.0, face_y=300.0, face_w=20.0, face_h=20.0)
    right = right.assign(face_x=330.0, face_y=10.0, face_w=20.0, face_h=20.0)
    gone = without(right, slice(None), "face")
    table = pd.concat([left, gone], ignore_index=True)
    shown = view(replace(told(table), media=info))
    check_view(shown)
    for one, size in zip(shown["people"], ((59, 44), (160, 160)), strict=True):
        for moment in one["moments"]:
            still = Image.open(io.BytesIO(base64.b64decode(moment["still"].split(",")[1])))
            assert still.size == size  # the cut is not enlarged; without a face, all of it
    still = np.asarray(Image.open(io.BytesIO(base64.b64decode(
        shown["people"][0]["moments"][0]["still"].split(",")[1]
    ))))  # fmt: skip
    there = picture[289:333, 0:59].mean(axis=(0, 1))
    np.testing.assert_allclose(still.mean(axis=(0, 1)), there, atol=12)


def test_a_sound_file_has_no_stills() -> None:
    shown = view(told(person(), "voice.wav", video=None, audio=SOUND))
    assert all(m["still"] is None for one in shown["people"] for m in one["moments"])
    assert json.dumps(shown, allow_nan=False)
