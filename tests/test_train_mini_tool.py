"""The recipe of `mini` at toy size: every step of the tool, from corpora to an answer."""

from __future__ import annotations

import csv
import importlib.util
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import maven
from maven import checkpoint
from maven.augment import pad_mels
from maven.config import MODALITIES, MavenConfig
from maven.datasets.prepare import restore_mel
from maven.encoders.faces import FACE_CLASSES
from maven.encoders.mini import load_mini
from maven.encoders.voices import VoiceNet
from maven.encoders.words import BUCKETS, MiniText
from maven.lexicon import RATINGS_FILE, VECTORS_FILE, fit_words
from maven.media import AUDIO_RATE_HZ
from maven.pretrain import Labelled
from media_factory import write_clip
from mini_parts import CROSS_FITS, VOICE_FITS

REPOSITORY = Path(__file__).parent.parent
DEMO = Path(maven.__file__).parent / "assets" / "demo.mp4"
TRAINED = ("prepare", "words", "faces", "voices", "parts", "fusion", "pack")
RIDGE = 1.0
RECIPE = {
    "seed": 0,
    "faces": {"epochs": 1, "batch": 8},
    "voices": {"epochs": 1, "batch": 4},
    "voice_fold_epochs": 3,
    "words": {"ridge": RIDGE},
    "network": {"width": 8, "join_width": 8, "join_layers": 1, "rate_hz": 5.0},
    "fusion_faces": 20,
    "sequence_s": 4.0,
    "val_s": 5.0,
    "fusion": {"steps": 2, "batch": 2},
    "smoothing_s": [0.0, 0.5],
}
Command = Callable[..., None]


def voice(seed: int, seconds: float = 1.6) -> np.ndarray:
    """A buzz between two silences, (1, n) float32 at 16 kHz."""
    random = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * AUDIO_RATE_HZ)) / AUDIO_RATE_HZ
    buzz = np.sign(np.sin(2 * np.pi * (110 + 40 * (seed % 4)) * time_s))
    envelope = (time_s > 0.4) & (time_s < seconds - 0.4)
    return (0.2 * envelope * buzz + random.normal(0, 1e-3, len(time_s)))[None].astype(np.float32)


def write_sources(folder: Path) -> Path:
    """Corpora of a few samples each, in their documented layout."""
    (folder / "text").mkdir(parents=True)
    random = np.random.default_rng(0)
    words = ("good", "bad", "day", "night", "very", "not", "we", "they", "saw", "lost")
    with (folder / "text" / "emobank.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "split", "V", "A", "D", "text"))
        for k in range(30):
            said = [words[i] for i in random.integers(0, len(words), 6)]
            v = 3 + 0.5 * said.count("good") - 0.5 * said.count("bad")
            a = 3 + 0.5 * said.count("very") - 0.5 * said.count("night")
            split = "dev" if k % 5 == 0 else "train"
            writer.writerow((f"s{k}", split, v, a, 3.0, " ".join(said) + "."))

    for actor in (1, 2, 17, 18):
        place = folder / "speech" / "ravdess" / f"Actor_{actor:02}"
        place.mkdir(parents=True)
        for emotion in (1, 3, 5):
            name = f"03-01-{emotion:02}-01-01-01-{actor:02}.flac"
            sound = voice(10 * actor + emotion)
            write_clip(place / name, sound=sound, sound_rate_hz=AUDIO_RATE_HZ, sound_codec="flac")
    nemo = folder / "speech" / "nemo"
    nemo.mkdir()
    with (nemo / "data.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("file_id", "emotion", "speaker_id", "gender"))
        for k, emotion in enumerate(("anger", "sadness", "surprised")):
            writer.writerow((f"AB0_{emotion}_1.wav", emotion, " AB0", "female"))
            write_clip(
                nemo / f"AB0_{emotion}_1.ogg",
                sound=voice(k, 1.9),
                sound_rate_hz=AUDIO_RATE_HZ,
                sound_codec="libopus",
            )

    (folder / "faces").mkdir()
    n = 32
    np.savez(
        folder / "faces" / "fer.npz",
        images=random.integers(0, 256, (n, 48, 48), dtype=np.uint8),
        labels=np.arange(n) % len(FACE_CLASSES),
        usage=np.array(["PublicTest" if k % 4 == 0 else "Training" for k in range(n)]),
        classes=np.array(FACE_CLASSES),
    )
    return folder


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_mini", REPOSITORY / "tools/train_mini.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def command(tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Run one step of the tool as its command line does; --config comes by itself."""
    config = tmp_path_factory.mktemp("config") / "toy.yaml"
    config.write_text(yaml.safe_dump(RECIPE))

    def run(step: str, **options: Path) -> None:
        named = {"config": config, **options}
        arguments = [part for k, v in named.items() for part in (f"--{k}", str(v))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["train_mini.py", step, *arguments])
            tool.main()

    return run


@pytest.fixture(scope="module")
def made(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the whole recipe run in it: sources, work, out."""
    folder = tmp_path_factory.mktemp("mini")
    sources = write_sources(folder / "sources")
    for step in TRAINED:
        command(step, sources=sources, work=folder / "work", out=folder / "out" / "toy")
    return folder


def test_what_is_prepared(made: Path) -> None:
    with np.load(made / "work" / "faces.npz") as faces:
        assert faces["crops"].shape == (32, 56, 56)
        assert (faces["splits"] == "val").sum() == 8
    with np.load(made / "work" / "voices.npz") as voices:
        assert len(voices["bounds"]) == 12 + 3 + 1
        assert voices["bounds"][-1] == len(voices["mels"])
        assert (voices["splits"] == "val").sum() == 6
        assert set(voices["speakers"].tolist()) == {
            "ravdess-01", "ravdess-02", "ravdess-17", "ravdess-18", "nemo-AB0",
        }  # fmt: skip
        lengths = np.diff(voices["bounds"])
    sounding = [110] * 3 + [80] * 12  # nEMO's come first
    np.testing.assert_allclose(lengths, np.add(sounding, 40), atol=6)  # 0.2 s on either side


def test_parts_come_from_their_splits(made: Path) -> None:
    for split, faces, voices, sentences in (("train", 20, 2 * 9, 2 * 24), ("val", 8, 6, 6)):
        with np.load(made / "work" / f"parts_{split}.npz") as parts:
            assert parts["faces"].shape == (faces, 9)
            assert parts["face_va"].shape == (faces, 2)
            assert len(parts["voice_lengths"]) == len(parts["speakers"]) == voices
            assert parts["voice_lengths"].sum() == len(parts["voices"])
            assert len(parts["sentence_lengths"]) == len(parts["sentence_va"]) == sentences
            assert (parts["sentence_lengths"][: 6 if split == "val" else 24] == 6).all()
            held_out = {"ravdess-17", "ravdess-18"}
            assert set(parts["speakers"].tolist()) == (
                held_out if split == "val" else {"ravdess-01", "ravdess-02", "nemo-AB0"}
            )
            assert all(np.isfinite(parts[name]).all() for name in ("faces", "voices", "sentences"))


def test_training_faces_are_seen_changed(made: Path) -> None:
    """Those of the validation split are seen as they are."""
    encoder = load_mini("visual", made / "work" / "visual.safetensors", "cpu")
    with np.load(made / "work" / "faces.npz") as faces:
        crops, splits = faces["crops"], faces["splits"]
    for split, same in (("train", False), ("val", True)):
        clean = encoder(np.repeat(crops[splits == split][..., None], 3, 3))
        with np.load(made / "work" / f"parts_{split}.npz") as parts:
            distance = np.abs(parts["faces"][:, None] - clean).max(2).min(1)
        assert ((distance < 1e-4) == same).all()


def test_every_fold_of_the_voices_goes_without_its_speakers(
    tool: ModuleType, made: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the training clips are encoded by a network that never heard their speakers, twice."""
    work = made / "work"
    (tmp_path / "voices.npz").symlink_to(work / "voices.npz")
    given: list[Labelled] = []

    def spy(train: Labelled, *_: object) -> VoiceNet:
        given.append(train)
        return VoiceNet()

    monkeypatch.setattr(tool, "train_voices", spy)
    command("voices", work=tmp_path)
    assert len(given) == VOICE_FITS + tool.VOICE_NETS

    with np.load(work / "voices.npz") as content:
        data = dict(content)
    mels = [restore_mel(mel) for mel in np.split(data["mels"], data["bounds"][1:-1])]
    inputs = pad_mels(mels, tool.VOICE_FRAMES)[0]
    trained = np.flatnonzero(data["splits"] == "train")
    heard = []
    for train in given:
        rows = {row.numpy().tobytes() for row in train.inputs}
        clips = {k for k in range(len(mels)) if inputs[k].tobytes() in rows}
        assert clips <= set(trained.tolist())
        heard.append({str(data["speakers"][k]) for k in clips})
        assert train.weights is not None
        assert len(train.weights) == len(rows)
        assert (train.weights > 0).all()
    speakers = {str(name) for name in data["speakers"][trained]}
    assert all(names == speakers for names in heard[VOICE_FITS:])
    assert all(names < speakers for names in heard[:VOICE_FITS])

    encoders = [
        load_mini("audio", work / f"audio_without_{k}.safetensors", "cpu")
        for k in range(VOICE_FITS)
    ]
    with np.load(work / "parts_train.npz") as parts:
        lengths, va, names = parts["voice_lengths"], parts["voice_va"], parts["speakers"]
        stored = np.split(parts["voices"], lengths.cumsum()[:-1])
    n = len(trained)
    for both in (lengths, va, names):
        np.testing.assert_array_equal(both[:n], both[n:])
    np.testing.assert_array_equal(va[:n], data["va"][trained])
    for k, clean, noisy, name in zip(trained, stored[:n], stored[n:], names[:n], strict=True):
        mel = torch.from_numpy(mels[k].T.copy())
        same = []
        for encoder in encoders:
            fast = encoder.answer(mel)  # 25 Hz; a step of the grid of 5 Hz is the mean of 5
            means = [fast[max(5 * t - 3, 0) : 5 * t + 2].mean(0) for t in range(len(clean))]
            same.append(np.allclose(clean, means, atol=1e-4))
        assert sum(same) == 1
        assert name not in heard[same.index(True)]
        assert np.abs(clean - noisy).max() > 1e-2


def test_sentences_are_encoded_by_lexica_that_have_not_seen_them(made: Path) -> None:
    """Those of the training split a second time, with a recogniser's errors."""
    with (made / "sources" / "text" / "emobank.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for split, name in (("train", "train"), ("val", "dev")):
        texts = [row["text"] for row in rows if row["split"] == name]
        with np.load(made / "work" / f"parts_{split}.npz") as parts:
            lengths, va = parts["sentence_lengths"], parts["sentence_va"]
            stored = np.split(parts["sentences"], lengths.cumsum()[:-1])
        n = len(texts)
        for k, text in enumerate(texts):
            if split == "train":
                seen = [j for j in range(n) if j % CROSS_FITS != k % CROSS_FITS]
                lexicon = fit_words([texts[j] for j in seen], va[seen], RIDGE)
                encode = MiniText(lexicon, "")
            else:
                encode = load_mini("text", made / "work" / "text.safetensors", "cpu")
            np.testing.assert_allclose(stored[k], encode(text.split()), atol=1e-5)
        if split == "train":
            np.testing.assert_array_equal(va[:n], va[n:])
            pairs = list(zip(stored[:n], stored[n:], strict=True))
            assert len({len(second) for _, second in pairs}) > 1
            same = [len(a) == len(b) and np.allclose(a, b, atol=1e-3) for a, b in pairs]
            assert np.mean(same) < 0.5


def test_knowledge_of_words_enters_the_lexicon(
    made: Path, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "known"
    for name in (RATINGS_FILE, VECTORS_FILE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / RATINGS_FILE).write_text("splendid\t3.0\t0.5\t[]\nawful\t-3.0\t0.5\t[]\n")
    vectors = {"splendid": [1.0, 0.0], "good": [0.9, 0.1], "awful": [0.0, 1.0]}
    content = {"dimensions": 2, "words": list(vectors), "vectors": vectors}
    (folder / VECTORS_FILE).write_text(json.dumps(content))
    command("words", sources=made / "sources", knowledge=folder, work=tmp_path)
    without = load_file(made / "work" / "text.safetensors")
    lexicon = load_file(tmp_path / "text.safetensors")
    assert len(without["names"]) == len(without["added"]) == 0
    known = set(lexicon["names"].tolist())
    assert {zlib.crc32(name.encode()) for name in ("splendid", "not awful", "good")} <= known
    assert lexicon["added"].shape == (len(known), 2)


def test_parts_are_the_same_again(made: Path, command: Command, tmp_path: Path) -> None:
    before = {split: (made / "work" / f"parts_{split}.npz") for split in ("train", "val")}
    for path in (made / "work").iterdir():
        if path.name in ("faces.npz", "voices.npz") or path.suffix == ".safetensors":
            (tmp_path / path.name).symlink_to(path)
    torch.manual_seed(1234)  # what was drawn before does not matter
    command("parts", sources=made / "sources", work=tmp_path)
    for split, path in before.items():
        with np.load(path) as first, np.load(tmp_path / f"parts_{split}.npz") as again:
            assert set(first) == set(again)
            for name in first:
                np.testing.assert_array_equal(first[name], again[name])


def test_the_log_has_the_figures_of_every_step_that_trains(made: Path) -> None:
    lines = (made / "work" / "log.jsonl").read_text().splitlines()
    figures = [json.loads(line) for line in lines]
    assert {f["step"] for f in figures} == {"words", "faces", "voices", "fusion"}
    by_step = {step: [f for f in figures if f["step"] == step] for step in ("words", "fusion")}
    assert set(by_step["words"][0]) == {"step", "ccc_valence", "ccc_arousal"}
    assert [f["modalities"] for f in by_step["fusion"] if "modalities" in f] == [
        "all", "visual_only", "audio_only", "text_only",
    ]  # fmt: skip
    assert by_step["fusion"][-1]["smoothing_s"] in RECIPE["smoothing_s"]  # type: ignore[operator]


def test_the_packed_folder_is_a_model(tool: ModuleType, made: Path) -> None:
    folder = made / "out" / "toy"
    names = {"config.json", "model.safetensors", *(f"{m}.safetensors" for m in MODALITIES)}
    assert {path.name for path in folder.iterdir()} == names
    for path in folder.iterdir():
        assert path.read_bytes() == (made / "work" / path.name).read_bytes()
        assert path.stat().st_mode & 0o044 == 0o044  # others may read what is installed
    left = {path.name for path in (made / "work").iterdir() if path.name.startswith(".")}
    assert not left

    numbers = {name.partition(".")[0] for name in load_file(folder / "audio.safetensors")}
    assert numbers == {str(k) for k in range(tool.VOICE_NETS)}
    for m in MODALITIES:
        tensors = load_file(folder / f"{m}.safetensors")
        assert all(t.dtype == torch.float16 for t in tensors.values() if t.is_floating_point())
    assert load_file(folder / "text.safetensors")["table"].shape == (BUCKETS, 2)

    model = checkpoint.load(str(folder), device="cpu")
    assert model.card.training["recipe"] == RECIPE
    assert model.card.smoothing_s in RECIPE["smoothing_s"]  # type: ignore[operator]
    assert set(model.card.training["figures"]) == {"all", *(f"{m}_only" for m in MODALITIES)}
    assert set(model.card.training["sha256"]) >= {"parts_train.npz", "visual.safetensors"}
    assert model.card.config.rate_hz == 5.0
    rest = np.array(model.card.rest)
    assert rest.shape == (len(MODALITIES), 2)
    assert rest.any(1).all()  # of the origin, where nothing was measured
    assert np.linalg.norm(rest.sum(0)) <= 1  # an answer
    assert not model.network.training
    for m, encoder in (("visual", model.encoders.visual), ("audio", model.encoders.audio)):
        assert model.card.config.input_width(m) == encoder.width
        moments = model.network.get_buffer(f"project.{m}.scale")
        assert (moments > 0).all()
        assert not torch.equal(moments, torch.ones_like(moments))


def test_the_model_answers(made: Path) -> None:
    model = checkpoint.load(str(made / "out" / "toy"), device="cpu")
    analysis = maven.analyze(DEMO, model, asr="none", rate_hz=1.0)
    table = analysis.frames
    assert len(table) >= 14
    assert table.has_face.mean() > 0.9
    assert table.has_speech.any()
    assert table.has_text.any()
    answered = table[table.has_face | table.has_speech | table.has_text]
    assert np.isfinite(answered[["valence", "arousal"]]).all(axis=None)
    assert (np.hypot(answered.valence, answered.arousal) <= 1).all()
    shares = answered[[f"{m}_weight" for m in MODALITIES]].to_numpy()
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("step", ["prepare", "words", "parts"])
def test_a_step_that_reads_the_corpora_asks_for_them(
    step: str, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command(step, work=tmp_path / "work")
    assert f"{step} reads the corpora: give --sources" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_the_shipped_recipe_is_one(tool: ModuleType) -> None:
    """Every setting of configs/mini.yaml is known to what it configures."""
    recipe = yaml.safe_load((REPOSITORY / "configs" / "mini.yaml").read_text())
    assert set(recipe) == set(RECIPE)
    tool.PretrainConfig(seed=recipe["seed"], **recipe["faces"])
    tool.PretrainConfig(seed=recipe["seed"], **recipe["voices"])
    settings, steps = tool.fusion_settings(recipe, "cpu")
    assert settings.epochs * steps == recipe["fusion"]["steps"]
    config = MavenConfig(9, 11, 8, **recipe["network"])
    assert recipe["sequence_s"] > config.reach_s
    assert 0.0 in recipe["smoothing_s"]
