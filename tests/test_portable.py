"""Exported graphs without torch: the shipped ones are those of the shipped weights."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import maven
from maven import media
from maven.checkpoint import MINI_FOLDER, Model
from maven.config import MODALITIES, MavenConfig
from maven.encoders.mini import mini_fingerprint
from maven.faces.crop import crop
from maven.faces.detect import CenterFace
from maven.faces.track import track_faces
from maven.model import Maven
from maven.portable import ABOUT, GRAPHS, GraphError, OnnxAudio, OnnxNetwork, read_graph
from toy_mini import save_toy_mini

CLIPS = ("silent_happy_256.mp4", "silent_sadgirl_clip1.mp4", "single_face_short.mp4")
WITHOUT_TORCH = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
"""
ANALYSE = """
import json, maven
model = maven.load("mini", runtime="onnx", threads=1, offline=True)
frames = maven.analyze(sys.argv[1], model, asr="none", offline=True).frames
assert "torch" not in sys.modules
print(json.dumps([model.runtime, frames[["valence", "arousal"]].to_numpy().tolist()]))
"""
REFUSED = """
import maven
from maven.checkpoint import ModelError, available, choose_device, load_network
assert maven.load("mini").runtime == "onnx"
assert choose_device("auto") == "cpu"
assert available()[0][0] == "mini"
for call in (lambda: maven.load("mini", runtime="torch"), load_network, lambda: maven.load(TOY)):
    try:
        call()
    except ModelError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def portable() -> Model:
    return maven.load("mini", runtime="onnx", threads=1)


@pytest.fixture(scope="module")
def plain() -> Model:
    return maven.load("mini", runtime="torch", device="cpu")


def without_torch(script: str, *arguments: object) -> str:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


# --- without torch -----------------------------------------------------------------------------


def test_a_clip_is_analysed_without_torch(clips_dir: Path, plain: Model) -> None:
    path = clips_dir / "single_face_short.mp4"
    runtime, va = json.loads(without_torch(ANALYSE, path).splitlines()[-1])
    assert runtime == "onnx"
    frames = maven.analyze(path, plain, asr="none", offline=True).frames
    expected = frames[["valence", "arousal"]].to_numpy()
    assert len(va) == len(expected) > 50
    assert np.sqrt(np.nanmean((np.array(va, float) - expected) ** 2)) < 0.01


def test_what_needs_torch_says_so_in_one_line(tmp_path: Path) -> None:
    toy = save_toy_mini(tmp_path / "toy")
    lines = without_torch(f"TOY = {str(toy)!r}" + REFUSED).splitlines()
    assert lines == [
        f"{name} needs torch, which is not installed: pip install 'maven[torch]'"
        for name in ("mini", "mini", "toy")
    ]


# --- the shipped graphs ------------------------------------------------------------------------


def test_the_shipped_graphs_are_of_the_shipped_weights(portable: Model, plain: Model) -> None:
    """After a change of the weights: python tools/quantise_mini.py."""
    weights = (MINI_FOLDER / "model.safetensors").read_bytes()
    assert portable.weights_hash == plain.weights_hash == hashlib.sha256(weights).hexdigest()
    assert (portable.runtime, portable.device, plain.runtime) == ("onnx", "cpu", "torch")
    assert portable.encoders.fingerprint == plain.encoders.fingerprint
    for modality in ("visual", "audio"):
        path = MINI_FOLDER / f"{modality}.safetensors"
        found, known = (getattr(model.encoders, modality) for model in (portable, plain))
        assert found.fingerprint == mini_fingerprint(modality, path)
        for name in ("name", "width", "rate_hz"):
            assert getattr(found, name) == getattr(known, name)
    assert portable.encoders.visual.size_px == plain.encoders.visual.size_px
    assert portable.encoders.audio.context_s == plain.encoders.audio.context_s
    files = [path for path in MINI_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6


def test_the_shipped_graphs_hold_no_path_of_who_made_them() -> None:
    for file in GRAPHS.values():
        assert not re.search(rb"/\w+/\w+\.py|site-packages", (MINI_FOLDER / file).read_bytes())


@pytest.mark.parametrize("t", [1, 7, 20, 21, 333])
@pytest.mark.parametrize("ways", [1, 7])
def test_the_shipped_network_answers_as_the_weights_do(
    portable: Model, plain: Model, t: int, ways: int
) -> None:
    random = np.random.default_rng(t)
    config = plain.card.config
    values = {
        m: random.normal(size=(t, config.input_width(m))).astype(np.float32) for m in MODALITIES
    }
    observed = {m: random.uniform(size=(ways, t)) < 0.6 for m in MODALITIES}
    observed["text"][0] = False
    time_s = 7000.3 + np.arange(t) / config.rate_hz
    answers = portable.network.answers(values, observed, time_s)
    assert answers.shape == (ways, t, 2)
    assert answers.dtype == np.float64
    expected = plain.network.answers(values, observed, time_s)
    np.testing.assert_allclose(answers, expected, atol=1e-4)


def test_the_shipped_voice_hears_what_the_weights_do(
    portable: Model, plain: Model, clips_dir: Path
) -> None:
    blocks = media.audio_blocks(clips_dir / "expressive_audio_512.mp4")
    samples = np.concatenate([block.samples for block in blocks])
    for part in (samples, samples[: 3 * 16_000 + 411], samples[:640], samples[:639], samples[:0]):
        vectors = portable.encoders.audio(part)
        assert vectors.shape == (len(part) // 640, portable.encoders.audio.width)
        np.testing.assert_allclose(vectors, plain.encoders.audio(part), atol=1e-4)


def test_the_shipped_face_network_sees_nearly_what_the_weights_do(
    portable: Model, plain: Model, clips_dir: Path
) -> None:
    """It is int8, and says how far it may be off."""
    about = read_graph(MINI_FOLDER / GRAPHS["visual"], "visual").about
    assert about["precision"] == "int8"
    crops = []
    for name in CLIPS:
        for tracked in track_faces(media.frames(clips_dir / name, rate_hz=5), CenterFace()):
            crops += [crop(tracked.frame.rgb, face.landmarks_px, 56) for face in tracked.faces]
    faces = np.stack(crops)
    assert len(faces) > 40
    vectors, expected = portable.encoders.visual(faces), plain.encoders.visual(faces)
    assert vectors.shape == (len(faces), 9)
    apart = vectors - expected
    assert np.sqrt(np.square(apart[:, :2]).mean()) < about["tolerance"]
    assert np.abs(apart[:, :2].mean(0)).max() < about["tolerance"] / 2
    assert np.ptp(expected[:, 0]) > 20 * about["tolerance"]
    assert portable.encoders.visual(faces[:0]).shape == (0, 9)
    np.testing.assert_array_equal(portable.encoders.visual(faces[:3]), vectors[:3])


# --- graphs ------------------------------------------------------------------------------------


def test_frames_denser_than_the_grid_are_refused(portable: Model) -> None:
    t = 300
    widths = {m: portable.card.config.input_width(m) for m in MODALITIES}
    values = {m: np.zeros((t, width), np.float32) for m, width in widths.items()}
    observed = {m: np.ones((1, t), bool) for m in MODALITIES}
    portable.network.answers(values, observed, np.arange(t) / 10)
    portable.network.answers(values, observed, np.arange(t) / 9.1)
    with pytest.raises(GraphError, match="at most 10 frames a second"):
        portable.network.answers(values, observed, np.arange(t) / 10.6)


def test_files_that_are_no_graphs_of_ours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    with pytest.raises(GraphError, match=r"network\.onnx: not a graph"):
        read_graph(path, "network")
    for content in (b"", b"nothing of the kind", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(GraphError, match=r"network\.onnx: not a graph"):
            read_graph(path, "network")
    shutil.copyfile(MINI_FOLDER / GRAPHS["audio"], path)
    with pytest.raises(GraphError, match=r"network\.onnx: the graph of audio, not of network"):
        read_graph(path, "network")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(GraphError, match=f"it lacks '{ABOUT}'"):
        read_graph(path, "network")


def test_threads_and_waiting_are_as_asked() -> None:
    options = read_graph(MINI_FOLDER / GRAPHS["audio"], "audio", 2).session.get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_they_have_the_names_of_the_protocols(portable: Model) -> None:
    """What `Network` and the encoders' protocols ask for, and no torch module."""
    assert isinstance(portable.network, OnnxNetwork)
    assert not isinstance(portable.network, Maven)
    assert isinstance(portable.network.config, MavenConfig)
    assert isinstance(portable.encoders.audio, OnnxAudio)
