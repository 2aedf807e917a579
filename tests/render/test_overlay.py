"""The overlay: what comes out when it is decoded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests import media_factory
from tests.render import frames
from tests.render.in_step import check_in_step, check_times, file_size_limit

from demo_pieces import copy_piece
from maven import media
from maven.faces import track as tracking
from maven.faces.detect import CenterFace
from maven.render import overlay, tables
from maven.render.overlay import OverlayError, blur_face, draw_boxes, write_overlay
from maven.render.panel import PEOPLE, layout
from maven.render.shown import Face

GREEN = PEOPLE[0]
Rgb = media_factory.Picture


def table_at(times_s: Sequence[float], face_id: int | None = 1) -> pd.DataFrame:
    """Rows at these times, of a face in the box 100.5, 80.25, 64, 72."""
    table = frames.person(face_id, duration_s=len(times_s) / 25)
    table["time_s"] = np.asarray(times_s)
    return tables.conform(table)


def rows_of(path: Path) -> pd.DataFrame:
    return table_at([frame.time_s for frame in media.frames(path)])


def near(rgb: Rgb, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(rgb.astype(int) - colour).max(axis=-1) < 60


def grey_clip(path: Path, times_s: Sequence[float], size: tuple[int, int] = (640, 360)) -> Path:
    picture = np.full((size[1], size[0], 3), 128, np.uint8)
    pictures = [picture for _ in times_s]
    return media_factory.write_clip(path, frame_times_s=times_s, pictures=pictures)


@pytest.mark.parametrize(
    ("name", "until_s"),
    [
        ("grid_s1_bbaf2n.mpg", None),
        ("talk_face1_22fps.mp4", 1.6),
        ("talk_ntsc_2997.mp4", 1.6),
        ("face_then_no_face.mov", 3.6),  # its sound begins at 2.4 s, its rate varies
        ("six_faces_360p.mp4", 2.5),  # its picture begins at 0.85 s
    ],
)
def test_times_and_sound_are_the_source_s(
    name: str, until_s: float | None, clips_dir: Path, tmp_path: Path
) -> None:
    source = clips_dir / name
    if until_s is not None:
        source = copy_piece(tmp_path / name, until_s, source=source)
    table = rows_of(source)
    target = write_overlay(source, table, frames.speak(3.0), tmp_path / "out" / "overlay.mp4")
    check_times(target, table["time_s"].tolist())
    check_in_step(source, target)
    assert list(target.parent.iterdir()) == [target]


def test_an_avi_and_uneven_times_with_late_sound(tmp_path: Path) -> None:
    sound = media_factory.tone(300, 2.0) * np.linspace(0.1, 1, 96_000, dtype=np.float32)
    uneven_s = [0.3, 0.34, 0.5, 0.51, 1.0, 1.4, 1.45, 2.0]
    even_s = [k / 25 for k in range(40)]
    for name, times_s, codec, start_s in (
        ("clip.avi", even_s, "libmp3lame", 0.0),
        ("clip.mkv", uneven_s, "flac", 0.9),
    ):
        source = media_factory.write_clip(
            tmp_path / name,
            frame_times_s=times_s,
            video_codec="mpeg4" if name.endswith("avi") else "libx264",
            sound=sound,
            sound_codec=codec,
            sound_start_s=start_s,
        )
        table = rows_of(source)
        target = write_overlay(source, table, (), tmp_path / f"{name}.mp4")
        check_times(target, table["time_s"].tolist())
        new, old = media.read_audio(target), media.read_audio(source)
        assert old is not None
        assert new is not None
        # A swelling tone: where half its loudness is reached.
        halves_s = [
            sound.start_s + np.argmax(np.abs(sound.samples) > 0.25) / media.AUDIO_RATE_HZ
            for sound in (old, new)
        ]
        assert halves_s[1] == pytest.approx(halves_s[0], abs=0.02)


def test_a_recording_that_begins_after_hours_begins_at_0(tmp_path: Path) -> None:
    times_s = [36_000 + k / 25 for k in range(10)]
    source = grey_clip(tmp_path / "late.mkv", times_s)
    target = write_overlay(source, table_at(times_s), (), tmp_path / "out.mp4")
    check_times(target, times_s, shift_s=-36_000)


def test_the_box_is_where_the_table_says_and_the_picture_stays(tmp_path: Path) -> None:
    times_s = [k / 25 for k in range(12)]
    source = grey_clip(tmp_path / "grey.mp4", times_s)
    table = frames.without(table_at(times_s), slice(6, 12), "face")
    target = write_overlay(source, table, (), tmp_path / "out.mp4")
    for k, frame in enumerate(media.frames(target)):
        picture = frame.rgb[:360]
        assert frame.rgb.shape == (360 + layout(640, 360, 1, False).height_px, 640, 3)
        outside = np.ones((360, 640), bool)
        if k < 6:
            edges = near(picture[70:165, 90:180], GREEN)
            rows, columns = np.flatnonzero(edges.sum(1) > 40), np.flatnonzero(edges.sum(0) > 40)
            assert columns[0] + 90 == pytest.approx(100.5, abs=2)
            assert columns[-1] + 90 == pytest.approx(164.5, abs=2)
            assert rows[-1] + 70 == pytest.approx(152.25, abs=2)
            outside[50:160, 90:190] = False
            inside = picture[90:145, 110:155]
            assert np.abs(inside.astype(int) - 128).max() < 12
        assert np.abs(picture[outside].astype(int) - 128).max() < 12


def test_rows_fewer_than_pictures_move_the_box_evenly(tmp_path: Path) -> None:
    times_s = [k / 25 for k in range(50)]
    source = grey_clip(tmp_path / "grey.mp4", times_s)
    table = table_at([0.0, 1.0, 2.0])
    table["face_x"] = [100.0, 200.0, 300.0]
    target = write_overlay(source, table, (), tmp_path / "out.mp4")
    for k, frame in enumerate(media.frames(target)):
        edges = np.flatnonzero(near(frame.rgb[95:140], GREEN).sum(axis=0) > 30)
        assert edges[0] == pytest.approx(100 + 4 * k, abs=2.5)


@pytest.mark.parametrize("size", [(64, 48), (255, 255), (90, 160), (2400, 100)])
def test_pictures_of_any_size_get_a_canvas_of_even_size(
    size: tuple[int, int], tmp_path: Path
) -> None:
    times_s = [0.0, 0.04]
    pictures = [media_factory.numbered(k, *size) for k in range(2)]
    source = media_factory.write_clip(
        tmp_path / "clip.mkv",
        frame_times_s=times_s,
        pictures=pictures,
        video_codec="ffv1",
        pixel_format="bgr0",
    )
    target = write_overlay(source, table_at(times_s), frames.speak(1.0), tmp_path / "out.mp4")
    video = media.probe(target).video
    assert video is not None
    assert video.width_px % 2 == video.height_px % 2 == 0
    assert 480 <= video.width_px <= 1920
    upright = size[1] > size[0]
    assert video.width_px >= (480 if upright else 640)
    picture_px = video.width_px * size[1] / size[0]
    assert picture_px < video.height_px


@pytest.mark.parametrize("size", [(100, 1920), (16, 400), (90, 160), (1080, 1920)])
def test_upright_pictures_do_not_grow_beyond_bounds(size: tuple[int, int], tmp_path: Path) -> None:
    source = grey_clip(tmp_path / "clip.mp4", [0.0, 0.04], size)
    target = write_overlay(source, table_at([0.0, 0.04]), frames.speak(1.0), tmp_path / "out.mp4")
    video = media.probe(target).video
    assert video is not None
    assert video.height_px < 1.5 * overlay.LONGEST_PX


def test_boxes_fit_pictures_whose_size_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in broadcasts; from its third picture on this one is half as large."""
    times_s = [k / 25 for k in range(4)]
    source = grey_clip(tmp_path / "grey.mp4", times_s)
    small = np.full((180, 320, 3), 128, np.uint8)
    table = table_at(times_s)
    table.loc[2:, ["face_x", "face_y", "face_w", "face_h"]] /= 2
    real = list(media.frames(source))
    shown = [*real[:2], *(replace(frame, rgb=small) for frame in real[2:])]
    with monkeypatch.context() as patch:
        patch.setattr(overlay.media, "frames", lambda path: iter(shown))
        target = write_overlay(source, table, (), tmp_path / "out.mp4")
    for frame in media.frames(target):
        edges = np.flatnonzero(near(frame.rgb[95:140, 90:180], GREEN).sum(axis=0) > 30)
        assert edges[0] + 90 == pytest.approx(100.5, abs=2)
        assert edges[-1] + 90 == pytest.approx(164.5, abs=2)


def detail(rgb: Rgb) -> float:
    """How much neighbouring pixels differ."""
    return float(np.abs(np.diff(rgb.astype(float), axis=1)).mean())


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A second of the demo, and rows with the boxes that a detector finds."""
    source = copy_piece(tmp_path_factory.mktemp("speaker") / "piece.mp4", 1.0)
    detector = CenterFace()
    seen = [(frame.time_s, detector(frame.rgb)[0].box_px) for frame in media.frames(source)]
    table = table_at([time_s for time_s, _ in seen])
    table[["face_x", "face_y", "face_w", "face_h"]] = np.array([box for _, box in seen])
    return source, table


def test_a_blurred_face_is_not_found_again(
    speaker: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    """Nor in the pictures in which it was not found, before, between and after the others."""
    source, table = speaker
    gappy = frames.without(table, slice(0, 5), "face")
    gappy = frames.without(gappy, slice(10, 15), "face")
    gappy = frames.without(gappy, slice(len(table) - 4, None), "face")
    target = write_overlay(source, gappy, (), tmp_path / "out.mp4", blur=True)
    info = media.probe(source).video
    assert info is not None
    detector = CenterFace()
    pairs = zip(media.frames(source), media.frames(target), strict=True)
    for k, (old, new) in enumerate(pairs):
        factor = new.rgb.shape[1] / info.width_px
        picture = new.rgb[: round(info.height_px * factor)]
        assert not [face for face in detector(picture) if face.score > 0.5], f"picture {k}"
        x, y, width, height = table.loc[k, ["face_x", "face_y", "face_w", "face_h"]]
        inner = [round(v) for v in (x + 0.2 * width, x + 0.8 * width, y + 0.2 * height, y + height)]
        left, right, top, bottom = inner
        face = old.rgb[top:bottom, left:right]
        left, right, top, bottom = (round(value * factor) for value in inner)
        assert detail(picture[top:bottom, left:right]) < 0.25 * detail(face)


def test_a_face_is_covered_where_it_gets_another_id(tmp_path: Path) -> None:
    """It is lost for longer than a track lives, and not for longer than a blur lasts."""
    noise = np.random.default_rng(0).integers(0, 255, (360, 640, 3), dtype=np.uint8)
    times_s = [k / 10 for k in range(25)]
    source = media_factory.write_clip(
        tmp_path / "clip.mp4", frame_times_s=times_s, pictures=[noise] * len(times_s)
    )
    boxes = np.tile(np.float32([100, 80, 64, 72]), (3, 1))
    faces = [Face(np.array(s), boxes, 0.1) for s in ([0.0, 0.1, 0.2], [2.2, 2.3, 2.4])]
    assert tracking.LOST_S < 2.0 <= overlay.BLUR_GAP_S
    target = write_overlay(
        source, frames.nothing(), (), tmp_path / "out.mp4", blur=True, others=faces
    )
    for frame in media.frames(target):
        blurred, sharp = frame.rgb[80:152, 100:164], frame.rgb[200:300, 300:400]
        assert detail(blurred) < 0.25 * detail(sharp), frame.time_s


def test_without_blur_the_face_stays_as_it_is(
    speaker: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    source, table = speaker
    target = write_overlay(source, table, (), tmp_path / "out.mp4")
    detector = CenterFace()
    for frame in list(media.frames(target))[::8]:
        assert detector(frame.rgb)


def test_a_blur_reaches_beyond_the_box_and_not_over_the_edge() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    for box in ((80.0, 80.0, 40.0, 40.0), (-20.0, -10.0, 50.0, 50.0), (300.0, 10.0, 20.0, 20.0)):
        blurred = picture.copy()
        blur_face(blurred, box)
        changed = np.argwhere((blurred != picture).any(axis=-1))
        x, y, width, height = box
        if x < 200:
            assert changed[:, 1].max() >= x + 1.3 * width
            assert changed[:, 0].max() >= y + 1.3 * height
            assert changed[:, 0].min() <= max(y - 0.5 * height, 0)
        else:
            assert not len(changed)


def test_names_cover_no_face() -> None:
    """At the upper edge the name goes below; between neighbours it finds its place."""
    place = layout(640, 360, 4, False)
    boxes = [
        ("Person 1", (0.0, 2.0, 60.0, 80.0)),
        ("Person 2", (62.0, 0.0, 60.0, 80.0)),
        ("Person 3", (575.0, 150.0, 60.0, 80.0)),
        ("Person 4", (580.0, 235.0, 58.0, 80.0)),
    ]
    picture = np.full((360, 640, 3), 128, np.uint8)
    draw_boxes(picture, boxes, {f"Person {k + 1}": PEOPLE[k] for k in range(4)}, place)
    for name, (x, y, width, height) in boxes:
        inside = picture[int(y) + 6 : int(y + height) - 6, int(x) + 6 : int(x + width) - 6]
        assert (inside == 128).all(), name
    for colour in PEOPLE:
        filled = (picture == colour).all(axis=-1)
        solid = [filled[y, x : x + 30].mean() > 0.9 for y in range(360) for x in range(0, 610, 5)]
        assert any(solid)


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    times_s = [1.0 + k / 25 for k in range(25)]
    source = grey_clip(tmp_path / "grey.mp4", times_s, (64, 64))
    told: list[tuple[str, float, float | None]] = []
    write_overlay(
        source,
        table_at(times_s),
        (),
        tmp_path / "out.mp4",
        progress=lambda *news: told.append(news),
    )
    done = [seconds for _, seconds, _ in told]
    assert {stage for stage, _, _ in told} == {"overlay"}
    assert done == sorted(done)
    assert done[0] == 0.0
    assert done[-1] == pytest.approx(0.96, abs=1e-3)


def test_sound_without_a_picture_is_refused(tmp_path: Path) -> None:
    source = media_factory.write_clip(
        tmp_path / "voice.wav", sound=media_factory.tone(300, 0.5), sound_codec="pcm_s16le"
    )
    with pytest.raises(OverlayError, match=r"voice\.wav: holds sound only") as caught:
        write_overlay(source, frames.nothing(), (), tmp_path / "out.mp4")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.mp4").exists()


def test_an_overlay_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    source = grey_clip(tmp_path / "grey.mp4", [0.0, 0.04], (64, 64))
    target = tmp_path / "out" / "overlay.mp4"
    target.parent.mkdir()
    target.write_bytes(b"an older one")

    def stop(stage: str, done: float, total: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_overlay(source, table_at([0.0, 0.04]), (), target, progress=stop)
    sparse = tmp_path / "loud.mkv"
    noise = np.random.default_rng(0).normal(0, 0.3, (1, 96_000)).astype(np.float32)
    media_factory.write_clip(sparse, frame_times_s=[0.0, 1.0], sound=noise, sound_codec="flac")
    with file_size_limit(8_000), pytest.raises(OverlayError, match=r"overlay\.mp4: writing it"):
        write_overlay(sparse, table_at([0.0, 1.0]), (), target)
    assert target.read_bytes() == b"an older one"
    assert list(target.parent.iterdir()) == [target]
