"""The benchmark of the paper's encoders at toy size: both ways see, hear and read the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benches import benches
from maven import media
from maven.checkpoint import Model, load
from maven.encoders.base import encode_audio, encode_words
from maven.encoders.paper import SwinVisual
from maven.faces.detect import CenterFace
from toy_paper import save_toy_paper

CLIP = "talk_long_71s_512.mp4"
SECONDS = 7.0


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with benches("paper") as modules:
        yield modules.paper


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy_paper(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, device="cpu", offline=True)


@pytest.fixture(scope="module")
def published(bench: ModuleType, folder: Path) -> Any:
    return bench.Published(folder / "swin", folder / "hubert", folder / "roberta")


@pytest.fixture(scope="module")
def material(
    bench: ModuleType, model: Model, clips_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    clip = tmp_path_factory.mktemp("clip") / "clip.mp4"
    bench.cut(clips_dir / CLIP, clip, SECONDS)
    return bench.prepare(clip, model.encoders.visual.size_px, CenterFace())


def test_a_clip_is_cut_and_has_a_transcript(material: Any) -> None:
    # 25 a second, one face; packets are in coding order: a few frames beyond the cut come along
    assert 175 <= material.frames == len(material.crops) <= 180
    length_s = material.sound.samples.size / media.AUDIO_RATE_HZ
    assert length_s == pytest.approx(SECONDS, abs=0.1)
    assert [word.text for word in material.words][:3] == ["I", "was", "really"]
    assert material.words[-1].end_s < length_s


def test_segments_are_the_whole_once(material: Any) -> None:
    segments = list(material.segments())
    assert [len(s.pictures) for s in segments] == [125, material.frames - 125]
    np.testing.assert_array_equal(np.concatenate([s.pictures for s in segments]), material.crops)
    sound = np.concatenate([s.sound for s in segments])
    np.testing.assert_array_equal(sound, material.sound.samples)
    text = " ".join(s.text for s in segments).split()
    assert text == [word.text for word in material.words]


def test_the_published_way_computes_what_ours_computes(
    bench: ModuleType, model: Model, folder: Path, published: Any, material: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    """On the pictures that it wrote; sound and text up to their segments: the work is the same."""
    segments = list(material.segments())
    features = published(segments, tmp_path)
    files = [
        tmp_path / f"{number}_{k}.jpg"
        for number, segment in enumerate(segments)
        for k in range(len(segment.pictures))
    ]
    pictures = np.stack([np.asarray(Image.open(file)) for file in files])
    assert 0 < np.abs(pictures.astype(float) - material.crops).mean() < 10  # of 255: small JPEGs
    seen = np.concatenate([frames.numpy() for frames, _, _ in features])
    ours = SwinVisual(folder / "swin", precision="fp32")(pictures)
    np.testing.assert_allclose(seen, ours, atol=2e-5)
    for segment, (_, heard, read) in zip(segments, features, strict=True):
        block = media.AudioBlock(0.0, segment.sound)
        assert abs(len(heard) - len(encode_audio([block], model.encoders.audio)[1])) <= 1
        assert len(read) >= len(encode_words(segment.text.split(), model.encoders.text)) + 2


def test_every_way_is_measured(
    bench: ModuleType, model: Model, published: Any, material: Any, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = bench.measure(material, model, published, CenterFace())
    crops = {name: figures["crops"] for name, figures in run.items()}
    assert crops[bench.PUBLISHED] == crops[bench.EVERY_FRAME] == material.frames
    assert crops[bench.OURS] == crops[bench.ALONE] == pytest.approx(10 * SECONDS, abs=2)
    assert all(figures[k] > 0 for figures in run.values() for k in ("seconds", "cpu_s"))

    report = bench.Report("title", tmp_path / "report.json")
    for name, seconds in ((bench.PUBLISHED, 35.0), (bench.OURS, 5.0), (bench.ALONE, 4.0)):
        run[name] = {"seconds": seconds, "cpu_s": 2 * seconds, "crops": 70}
    bench.tabulate(report, replace(material, frames=175), [run])
    report.close()
    printed = capsys.readouterr().out
    published_row, ours_row = (
        [cell.split(" (")[0] for cell in line.split(" | ")[1:5]]
        for name in (bench.PUBLISHED, bench.OURS)
        for line in printed.splitlines()
        if line.startswith(f"| {name} |")
    )
    assert published_row == ["35.0", "70.0", "70", "5.00"]
    assert ours_row == ["5.0", "10.0", "70", "35.00"]
    assert "ours against published: 7.0 x" in printed
    assert "The encoders alone take 80%" in printed
    assert json.loads((tmp_path / "report.json").read_text())["clip.mp4"]["ratio"] == 7.0


def test_a_model_at_any_size_is_written_whole(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The networks are cut to one layer; widths, vocabulary and crops stay the paper's."""
    import transformers

    real = transformers.SwinConfig, transformers.HubertConfig, transformers.RobertaConfig
    small = {"depths": [1, 1, 1, 1]}, {"num_hidden_layers": 1}, {"num_hidden_layers": 1}
    for config, changes in zip(real, small, strict=True):

        def made(config: type = config, changes: dict[str, object] = changes, **options: object):
            return config(**options | changes)

        monkeypatch.setattr(transformers, config.__name__, made)
    found = load(bench.save_model(tmp_path / "paper"), device="cpu", offline=True)
    widths = [encoder.width for encoder in vars(found.encoders).values()]
    assert widths == [1024, 768, 768]
    assert found.encoders.visual.size_px == 224
    assert found.encoders.text(["well", "then"]).shape == (2, 768)
