from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from maven.encoders.base import EncoderError, encode_audio, encode_crops, encode_words
from maven.encoders.paper import HubertAudio, RobertaText, SwinVisual
from maven.media import AUDIO_RATE_HZ, AudioBlock, audio_blocks, read_audio
from toy_models import save_hubert, save_roberta, save_swin

TEXT = "I am really happy to be here with you, nobody told me anything about the fox 😀"
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def swin(swin_dir: Path) -> SwinVisual:
    return SwinVisual(swin_dir, precision="fp32")


@pytest.fixture(scope="module")
def hubert(hubert_dir: Path) -> HubertAudio:
    return HubertAudio(hubert_dir, precision="fp32")


@pytest.fixture(scope="module")
def roberta(roberta_dir: Path) -> RobertaText:
    return RobertaText(roberta_dir, precision="fp32")


def crops_of(n: int, size_px: int = 56) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, size_px, size_px, 3), dtype=np.uint8)


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> np.ndarray:
    samples = round(seconds * AUDIO_RATE_HZ)
    return np.random.default_rng(seed).normal(0, level, samples).astype(np.float32)


# --- Swin ------------------------------------------------------------------------------------


@torch.no_grad()
def swin_itself(folder: Path, crops: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    model = transformers.SwinModel.from_pretrained(folder).eval()
    pixels = (crops.astype(np.float64) / 255 - mean) / std
    tensor = torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32))
    return model(pixel_values=tensor).last_hidden_state.mean(1).numpy()


def test_swin_is_swin(swin: SwinVisual, swin_dir: Path) -> None:
    assert (swin.name, swin.width, swin.size_px) == ("swin", 32, 56)
    crops = crops_of(11)  # more than one pass of the network
    expected = swin_itself(swin_dir, crops, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    features = swin(crops)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=2e-5)
    np.testing.assert_allclose(encode_crops(iter(crops), swin, batch=3), expected, atol=2e-5)
    assert np.abs(features[0] - features[1]).max() > 1e-2
    assert swin(crops[:0]).shape == (0, 32)


def test_swin_at_224_px_follows_the_folders_preprocessing(tmp_path: Path) -> None:
    said = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.5]}
    own = SwinVisual(save_swin(tmp_path / "own", image_px=224, **said), precision="fp32")
    plain = SwinVisual(save_swin(tmp_path / "plain", image_px=224), precision="fp32")
    assert own.size_px == 224
    crops = crops_of(2, 224)
    expected = swin_itself(tmp_path / "own", crops, said["image_mean"], said["image_std"])
    np.testing.assert_allclose(own(crops), expected, atol=2e-5)
    assert own.fingerprint != plain.fingerprint


def test_swin_refuses_other_crops(swin: SwinVisual) -> None:
    with pytest.raises(ValueError, match=r"crops are \(48, 48, 3\) uint8; accepted: \(56, 56, 3\)"):
        swin(crops_of(1, 48))
    with pytest.raises(ValueError, match="float64"):
        swin(crops_of(1) / 255)


# --- HuBERT ----------------------------------------------------------------------------------


@torch.no_grad()
def hubert_itself(folder: Path, sound: np.ndarray) -> np.ndarray:
    model = transformers.HubertModel.from_pretrained(folder).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    values = extractor(sound, sampling_rate=AUDIO_RATE_HZ, return_tensors="pt").input_values
    return model(torch.nn.functional.pad(values, (40, 40))).last_hidden_state[0].numpy()


def test_hubert_is_hubert(hubert: HubertAudio, hubert_dir: Path) -> None:
    assert (hubert.name, hubert.width, hubert.rate_hz) == ("hubert", 32, 50.0)
    for sound in (noise(2.0) + 0.3, noise(0.025), noise(1.013)):
        features = hubert(sound)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, hubert_itself(hubert_dir, sound), atol=1e-4)


def test_hubert_without_normalisation(tmp_path: Path) -> None:
    raw = HubertAudio(save_hubert(tmp_path, do_normalize=False), precision="fp32")
    with torch.no_grad():
        model = transformers.HubertModel.from_pretrained(tmp_path).eval()
        sound = torch.from_numpy(np.pad(noise(1.0), 40))
        expected = model(sound[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(raw(noise(1.0)), expected, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(n=st.one_of(st.integers(0, 1300), st.integers(0, 20_000)))
def test_hubert_gives_50_vectors_a_second_exactly(hubert: HubertAudio, n: int) -> None:
    assert hubert(noise(1.3)[:n]).shape == (n // 320, 32)


def test_hubert_on_silence(hubert: HubertAudio) -> None:
    for level in (0.0, 1.0):
        assert np.isfinite(hubert(np.full(16_000, level, np.float32))).all()


@pytest.mark.parametrize("at_s", [0.61, 1.7, 3.33, 4.9])
def test_a_click_is_heard_when_it_clicks(hubert: HubertAudio, at_s: float) -> None:
    quiet = AudioBlock(2.43, noise(5.0))
    clicked = quiet.samples.copy()
    middle = round(at_s * AUDIO_RATE_HZ)
    clicked[middle - 80 : middle + 80] += np.where(noise(0.01) > 0, 0.5, -0.5)
    times_s, before = encode_audio([quiet], hubert)
    _, after = encode_audio([AudioBlock(2.43, clicked)], hubert)
    loudest = np.linalg.norm(after - before, axis=1).argmax()
    assert times_s[loudest] == pytest.approx(2.43 + at_s, abs=0.04)


def test_delayed_sound_gives_delayed_vectors(hubert: HubertAudio) -> None:
    sound = noise(6.0) * np.repeat(np.random.default_rng(1).uniform(0.2, 1, 60), 1600)
    early = hubert(sound.astype(np.float32))
    late = hubert(np.concatenate((noise(0.5, 0.05), sound)).astype(np.float32))

    def agreement(lag: int) -> float:
        a, b = early[50:250], late[50 + lag : 250 + lag]
        return float(np.corrcoef((a - a.mean(0)).ravel(), (b - b.mean(0)).ravel())[0, 1])

    assert max(range(10, 40), key=agreement) == 25  # 0.5 s at 50 Hz
    assert agreement(25) > 0.95


def test_a_short_clip_is_encoded_whole(hubert: HubertAudio) -> None:
    sound = noise(24.9)
    times_s, features = encode_audio([AudioBlock(-1.0, sound)], hubert)
    np.testing.assert_array_equal(features, hubert(sound))
    np.testing.assert_allclose(times_s, -1.0 + 0.01 + 0.02 * np.arange(1245), atol=1e-9)


def test_a_long_clip_in_chunks_is_near_the_whole(hubert: HubertAudio, clips_dir: Path) -> None:
    """Not equal: attention and normalisation reach over the whole input (see `HubertAudio`)."""
    sound = read_audio(clips_dir / "talk_long_71s_512.mp4")
    assert sound is not None
    whole = hubert(sound.samples)
    times_s, features = encode_audio(audio_blocks(clips_dir / "talk_long_71s_512.mp4"), hubert)
    assert len(times_s) == len(features) == len(whole) == len(sound.samples) // 320
    error = np.linalg.norm(features - whole, axis=1) / np.linalg.norm(whole, axis=1)
    assert np.median(error) < 0.1
    # Aligned everywhere, at the seams of the chunks too: no other lag fits better.
    for first in range(0, len(whole) - 150, 100):
        a = whole[first + 25 : first + 125]
        fits = [np.linalg.norm(features[first + k : first + 100 + k] - a) for k in range(51)]
        assert np.argmin(fits) == 25


def test_steady_sound_in_chunks_is_the_whole(hubert: HubertAudio) -> None:
    """Where the statistics are the same everywhere, so are the vectors."""
    sound = noise(60.0)
    whole = hubert(sound)
    _, features = encode_audio([AudioBlock(0.0, sound)], hubert)
    error = np.linalg.norm(features - whole, axis=1) / np.linalg.norm(whole, axis=1)
    assert error.max() < 0.05


@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=8))
def test_blocks_of_any_size_give_the_same_vectors(hubert: HubertAudio, sizes: list[int]) -> None:
    sound = noise(9.0)
    edges = [0, *(int(k) for k in np.cumsum(sizes) if k < len(sound)), len(sound)]
    blocks = [AudioBlock(1.0 + a / AUDIO_RATE_HZ, sound[a:b]) for a, b in itertools.pairwise(edges)]
    times_s, features = encode_audio(blocks, hubert, chunk_s=1.0)
    reference = encode_audio([AudioBlock(1.0, sound)], hubert, chunk_s=1.0)
    np.testing.assert_array_equal(times_s, reference[0])
    np.testing.assert_array_equal(features, reference[1])


def test_sound_that_begins_late_stays_on_the_clock(hubert: HubertAudio, clips_dir: Path) -> None:
    times_s, features = encode_audio(audio_blocks(clips_dir / "face_then_no_face.mov"), hubert)
    assert 2.4 < times_s[0] < 2.5
    assert len(times_s) == len(features)


def test_weights_under_their_older_names(
    hubert: HubertAudio, hubert_dir: Path, tmp_path: Path
) -> None:
    """facebook/hubert-base-ls960 is a pytorch_model.bin with the names of the old weight norm."""
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(hubert_dir / name, tmp_path)
    weights = load_file(hubert_dir / "model.safetensors")
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in weights.items()
    }
    assert old.keys() != weights.keys()
    torch.save(old, tmp_path / "pytorch_model.bin")
    older = HubertAudio(tmp_path, precision="fp32")
    np.testing.assert_array_equal(older(noise(1.0)), hubert(noise(1.0)))


# --- RoBERTa ---------------------------------------------------------------------------------


@torch.no_grad()
def roberta_itself(folder: Path, words: list[str]) -> np.ndarray:
    model = transformers.RobertaModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    tokens = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    states = model(**tokens).last_hidden_state[0].numpy()
    owners = tokens.word_ids(0)
    return np.stack([states[[owner == k for owner in owners]].mean(0) for k in range(len(words))])


def test_roberta_is_roberta(roberta: RobertaText, roberta_dir: Path) -> None:
    assert (roberta.name, roberta.width) == ("roberta", 32)
    features = encode_words(WORDS, roberta)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, roberta_itself(roberta_dir, WORDS), atol=1e-5)


def test_odd_words_get_a_vector_each(roberta: RobertaText) -> None:
    odd = ["", "😀", " ", "\u200b", "\ud800", "a b", "<s>", "", "x" * 3000]
    features = roberta(odd)
    assert features.shape == (len(odd), 32)
    assert np.isfinite(features).all()
    assert [bool(row.any()) for row in features] == [bool(word) for word in odd]
    assert roberta([]).shape == encode_words([], roberta).shape == (0, 32)
    assert not roberta(["", ""]).any()


def test_a_long_text_is_read_in_pieces(tmp_path: Path) -> None:
    """Against the plainest reading: a token is taken from the first piece that has its context."""
    folder = save_roberta(tmp_path, positions=66)  # 64 tokens, 62 of them text
    words = [WORDS[k] for k in np.random.default_rng(0).integers(0, len(WORDS), 400)]
    features = RobertaText(folder, precision="fp32")(words)

    model = transformers.RobertaModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    tokens = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
    ids, owners = tokens.input_ids, tokens.word_ids()
    size, context = 62, 15
    starts = [s for s in range(0, len(ids), size - 2 * context) if s + size < len(ids)]
    starts.append(len(ids) - size)
    assert len(starts) > 10
    with torch.no_grad():
        read = [
            model(torch.tensor([[0, *ids[s : s + size], 2]])).last_hidden_state[0, 1:-1]
            for s in starts
        ]
    sums, counts = np.zeros((len(words), 32)), np.zeros((len(words), 1))
    for k, owner in enumerate(owners):
        p = next((p for p, s in enumerate(starts[:-1]) if k < s + size - context), -1)
        sums[owner] += read[p][k - starts[p]].numpy()
        counts[owner] += 1
    np.testing.assert_allclose(features, sums / counts, atol=1e-5)


def test_nothing_of_a_long_text_is_cut_off(roberta: RobertaText) -> None:
    words = WORDS * 100
    one, other = roberta(words), roberta([*words[:-1], "dog"])
    changed = np.abs(one - other).max(1) > 1e-6
    assert changed[-1]
    assert not changed[: len(words) // 2].any()


# --- what they share -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "save"),
    [(SwinVisual, save_swin), (HubertAudio, save_hubert), (RobertaText, save_roberta)],
)
def test_fingerprint_follows_the_model(
    make: Callable[..., Any], save: Callable[..., Path], tmp_path: Path
) -> None:
    first = make(save(tmp_path / "first"), precision="fp32")
    again = make(str(shutil.copytree(tmp_path / "first", tmp_path / "again")), precision="bf16")
    other = make(save(tmp_path / "other", seed=1))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_bfloat16_is_near_float32(
    swin_dir: Path, hubert_dir: Path, roberta_dir: Path,
    swin: SwinVisual, hubert: HubertAudio, roberta: RobertaText,
) -> None:  # fmt: skip
    cases: list[tuple[Any, Any, Any]] = [
        (swin, SwinVisual(swin_dir, precision="bf16"), crops_of(3)),
        (hubert, HubertAudio(hubert_dir, precision="bf16"), noise(2.0)),
        (roberta, RobertaText(roberta_dir, precision="bf16"), WORDS),
    ]
    for fine, coarse, given_ in cases:
        expected, rounded = fine(given_), coarse(given_)
        assert rounded.dtype == np.float32
        error = np.linalg.norm(rounded - expected) / np.linalg.norm(expected)
        assert 0 < error < 0.05, fine.name


def test_encoders_are_frozen_and_repeatable(hubert: HubertAudio) -> None:
    assert not any(weight.requires_grad for weight in hubert._model.parameters())
    assert not hubert._model.training
    np.testing.assert_array_equal(hubert(noise(1.0)), hubert(noise(1.0)))


def test_loading_is_silent_and_leaves_no_trace(
    roberta_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    RobertaText(roberta_dir)(WORDS * 100)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def refused(make: Callable[..., Any], source: Path | str, **options: Any) -> str:
    with pytest.raises(EncoderError) as caught:
        make(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_faults_are_one_line(
    swin_dir: Path, hubert_dir: Path, roberta_dir: Path, tmp_path: Path
) -> None:
    assert "type 'roberta'; accepted here: 'swin'" in refused(SwinVisual, roberta_dir)
    assert "type 'swin'; accepted here: 'hubert'" in refused(HubertAudio, swin_dir)
    assert "no tokenizer.json or vocab.json" in refused(RobertaText, swin_dir)
    assert "no such folder" in refused(SwinVisual, tmp_path / "nowhere")
    assert "accepted: cpu, cuda, cuda:N" in refused(SwinVisual, swin_dir, device="gpu")
    assert "torch sees" in refused(SwinVisual, swin_dir, device="cuda:99")

    folder = Path(shutil.copytree(swin_dir, tmp_path / "swin"))
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "query.weight" in name)
    save_file({k: v for k, v in weights.items() if k != name}, folder / "model.safetensors")
    assert "lacks 1 weights of SwinModel, such as" in refused(SwinVisual, folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    assert "cannot be loaded as SwinModel" in refused(SwinVisual, folder)
    (folder / "config.json").write_text("{")
    assert "not JSON" in refused(SwinVisual, folder)
    (folder / "config.json").write_text("[]")
    assert "a JSON object is expected" in refused(SwinVisual, folder)
    (folder / "config.json").unlink()
    assert "has no config.json" in refused(SwinVisual, folder)

    folder = Path(shutil.copytree(roberta_dir, tmp_path / "roberta"))
    (folder / "merges.txt").unlink()
    assert str(folder) in refused(RobertaText, folder)
    (folder / "vocab.json").write_text(json.dumps({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    assert "its tokenizer has 5 tokens" in refused(RobertaText, folder)

    folder = Path(shutil.copytree(hubert_dir, tmp_path / "hubert"))
    (folder / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    assert "8000 Hz; accepted: 16000" in refused(HubertAudio, folder)


def test_without_transformers(swin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'maven[paper]'" in refused(SwinVisual, swin_dir)


def test_importing_is_cheap() -> None:
    code = (
        "import sys, maven.encoders.paper, maven.encoders.build; "
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
