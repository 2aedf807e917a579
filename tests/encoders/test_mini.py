"""The embedded encoders on random weights, against NumPy and OpenCV; accuracy is not theirs."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from maven.encoders.base import encode_audio, encode_crops
from maven.encoders.faces import CROP_PX, FACE_BATCH, FaceNet, MiniVisual, grey_faces
from maven.encoders.mini import load_mini
from maven.encoders.voices import (
    FLOOR,
    LEVEL_S,
    MEL_BINS,
    MiniAudio,
    VoiceNet,
    bin_free,
    level_free,
    log_mel,
    mel_filters,
    numbered,
)
from maven.media import AUDIO_RATE_HZ, AudioBlock

HOP = 640  # samples a voice vector


Net = TypeVar("Net", FaceNet, VoiceNet)


def lively(kind: type[Net]) -> Net:
    """A random network with statistics like a trained one's: no BatchNorm is the identity."""
    torch.manual_seed(0)
    net = kind()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.2, 1.5)
    return net


@pytest.fixture(scope="module")
def faces() -> MiniVisual:
    return MiniVisual(lively(FaceNet), "", "cpu")


@pytest.fixture(scope="module")
def voices() -> MiniAudio:
    return MiniAudio([lively(VoiceNet)], "", "cpu")


def speechlike(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise of a changing level and colour, never silent: (n,) float32."""
    random = np.random.default_rng(seed)
    n = round(seconds * AUDIO_RATE_HZ)
    time_s = np.arange(n) / AUDIO_RATE_HZ
    level = 0.03 + 0.1 * np.sin(2 * np.pi * 0.7 * time_s) ** 2
    hum = np.sin(2 * np.pi * (150 * time_s + 20 * np.sin(2 * np.pi * 1.3 * time_s)))
    return np.asarray(level * (random.normal(size=n) * 0.3 + hum), np.float32)


# --- mels --------------------------------------------------------------------------------------


def oracle_filters() -> np.ndarray:
    """The filters (257, 64), triangle by triangle and bin by bin."""

    def mel(hz: float) -> float:
        return 2595 * float(np.log10(1 + hz / 700))

    step = (mel(7600) - mel(60)) / 65
    edges_hz = [700 * (10 ** ((mel(60) + k * step) / 2595) - 1) for k in range(66)]
    filters = np.zeros((257, 64))
    for k in range(64):
        low, peak, high = edges_hz[k : k + 3]
        for j in range(257):
            hz = j * 16_000 / 512
            if low < hz <= peak:
                filters[j, k] = (hz - low) / (peak - low)
            elif peak < hz < high:
                filters[j, k] = (high - hz) / (high - peak)
    return filters / filters.sum(0)


def oracle_log_mel(samples: np.ndarray) -> np.ndarray:
    """Frame k looks at 400 samples centred on sample 160 k + 80; float64 throughout."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    filters = oracle_filters()
    out = np.zeros((64, len(samples) // 160))
    for k in range(out.shape[1]):
        frame = np.zeros(400)
        first = 160 * k + 80 - 200
        for_frame = slice(max(first, 0), min(first + 400, len(samples)))
        frame[for_frame.start - first : for_frame.stop - first] = samples[for_frame]
        power = np.abs(np.fft.rfft(frame * window, 512)) ** 2
        out[:, k] = np.log(power @ filters + 1e-10)
    return out


def test_filters_are_triangles_on_the_mel_scale() -> None:
    filters = mel_filters()
    assert filters.dtype == torch.float32
    np.testing.assert_allclose(filters.numpy(), oracle_filters(), atol=1e-6)
    np.testing.assert_allclose(filters.sum(0).numpy(), 1, atol=1e-5)


@pytest.mark.parametrize("n", [160, 1599, 4000, 16_013])
def test_log_mels_are_those_of_numpy(n: int) -> None:
    samples = speechlike(1.1)[:n]
    np.testing.assert_allclose(
        log_mel(torch.from_numpy(samples), mel_filters()).numpy(),
        oracle_log_mel(samples.astype(np.float64)),
        atol=2e-3,
    )


@settings(max_examples=60, deadline=None)
@given(n=st.one_of(st.integers(0, 1300), st.integers(0, 20_000)))
def test_as_many_vectors_as_whole_hops(voices: MiniAudio, n: int) -> None:
    sound = np.zeros(n, np.float32)
    assert log_mel(torch.from_numpy(sound), mel_filters()).shape == (MEL_BINS, n // 160)
    vectors = voices(sound)
    assert vectors.shape == (n // HOP, MiniAudio.width)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()


def test_the_rate_is_25_hz() -> None:
    assert MiniAudio.rate_hz == 25.0
    assert AUDIO_RATE_HZ / MiniAudio.rate_hz == HOP


@pytest.mark.parametrize("at_s", [1.0, 1.317, 1.5, 1.984])
def test_a_click_is_heard_at_its_time(at_s: float) -> None:
    """Frames near the click see nothing else; no weight is negative, so nothing cancels."""
    samples = np.zeros(3 * AUDIO_RATE_HZ, np.float32)
    first = round(at_s * AUDIO_RATE_HZ)
    samples[first : first + 16] = 0.9
    middles_s = (np.arange(len(samples) // 160) + 0.5) / 100
    mel = log_mel(torch.from_numpy(samples), mel_filters()).exp().sum(0).numpy()
    assert (mel * middles_s).sum() / mel.sum() == pytest.approx(at_s + 0.0005, abs=0.003)

    torch.manual_seed(0)
    net = VoiceNet()
    with torch.no_grad():
        for weight in net.parameters():
            weight.abs_()
        net.spectral[0].weight[:, 1] = 0  # a lone click has no movements
        for head in (net.affect, net.classes, net.attention):
            head.bias.zero_()  # so that silence answers zero
    vectors = MiniAudio([net], "", "cpu")(samples)
    times_s = (np.arange(len(samples) // HOP) + 0.5) / MiniAudio.rate_hz
    near = np.abs(times_s - at_s) < 1.5
    response = np.where(near, np.linalg.norm(vectors, axis=1), 0)
    assert (response * times_s).sum() / response.sum() == pytest.approx(at_s, abs=0.06)
    assert response[np.abs(times_s - at_s).argmin()] > 0.5 * response.max()
    assert response[np.abs(times_s - at_s) > 1.4].max() == 0


def test_the_answer_is_the_mean_of_the_networks() -> None:
    torch.manual_seed(3)
    nets = [lively(VoiceNet), VoiceNet().eval()]
    samples = speechlike(2.0)
    alone = [MiniAudio([net], "", "cpu")(samples) for net in nets]
    np.testing.assert_allclose(MiniAudio(nets, "", "cpu")(samples), np.mean(alone, 0), atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_an_utterance_is_pooled_from_its_frames() -> None:
    net = lively(VoiceNet).eval()
    mel = log_mel(torch.from_numpy(speechlike(2.0)), mel_filters())
    va, shares = MiniAudio([net, net], "", "cpu").utterance(mel)
    with torch.inference_mode():
        frames = net(level_free(mel)[None])[0].double()
        score = net.attention(frames.float())[:, 0].double()
    weight = (score - score.max()).exp()
    pooled = ((weight / weight.sum()) @ frames + frames.mean(0)) / 2
    oracle = net.affect.weight.double() @ pooled + net.affect.bias.double()
    np.testing.assert_allclose(va, oracle.detach().numpy(), atol=1e-4)
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    unseen = torch.zeros(1, len(frames) + 9, VoiceNet.width)
    unseen[0, : len(frames)] = frames.float()
    seen = torch.arange(len(frames) + 9)[None] < len(frames)
    np.testing.assert_allclose(net.pool(unseen, seen)[0].detach(), pooled.detach(), atol=1e-4)


# --- level -------------------------------------------------------------------------------------


def test_level_free_is_relative_to_the_loudness_around() -> None:
    random = np.random.default_rng(0)
    mel = random.normal(-6, 3, (2, MEL_BINS, 700))
    power = np.exp(mel).mean(1)  # (2, 700)
    oracle = np.empty_like(mel)
    radius = round(LEVEL_S * 100)
    for k in range(700):
        around = power[:, max(k - radius, 0) : k + radius + 1].mean(1)
        oracle[:, :, k] = mel[:, :, k] - np.log(around)[:, None]
    got = level_free(torch.from_numpy(mel.astype(np.float32)))
    np.testing.assert_allclose(got.numpy(), oracle.clip(FLOOR), atol=1e-4)
    one = level_free(torch.from_numpy(mel[1].astype(np.float32)))
    torch.testing.assert_close(one, got[1])


def test_bin_free_is_relative_to_each_bins_mean_around() -> None:
    random = np.random.default_rng(1)
    relative = random.normal(-3, 2, (MEL_BINS, 600)).clip(FLOOR)
    relative[:, 300:400] = FLOOR  # silence, which has no say
    weight = (relative - FLOOR).mean(0) + 1e-3
    radius = round(LEVEL_S * 100)
    oracle = np.empty_like(relative)
    for k in range(600):
        part = slice(max(k - radius, 0), k + radius + 1)
        mean = (relative[:, part] * weight[part]).sum(1) / weight[part].sum()
        oracle[:, k] = relative[:, k] - mean
    got = bin_free(torch.from_numpy(relative.astype(np.float32)))
    np.testing.assert_allclose(got.numpy(), oracle, atol=1e-3)


@pytest.mark.parametrize("gain_db", [-20, 20])
def test_a_gain_changes_nothing(voices: MiniAudio, gain_db: float) -> None:
    samples = speechlike(3.0)
    loud = (samples * 10 ** (gain_db / 20)).astype(np.float32)
    mels = [log_mel(torch.from_numpy(s), mel_filters()) for s in (samples, loud)]
    heard = torch.minimum(*mels) > np.log(1e-10 * 3e4)  # the rest is at the numeric floor
    assert heard.float().mean() > 0.98
    before, after = map(level_free, mels)
    torch.testing.assert_close(after[heard], before[heard], atol=1e-4, rtol=0)
    np.testing.assert_allclose(voices(loud), voices(samples), atol=1e-3)


def test_quiet_beside_loud_is_floored() -> None:
    samples = speechlike(4.0)
    samples[2 * AUDIO_RATE_HZ :] *= 1e-4  # -80 dB
    mel = level_free(log_mel(torch.from_numpy(samples), mel_filters()))
    assert mel.min() == FLOOR
    assert (mel[:, 210:350] == FLOOR).all()  # within 2 s of the loud part
    assert (mel[:, :190] > FLOOR).float().mean() > 0.9


# --- sound in chunks ---------------------------------------------------------------------------


def in_blocks(samples: np.ndarray, size: int, start_s: float = 0.0) -> list[AudioBlock]:
    return [
        AudioBlock(start_s + k / AUDIO_RATE_HZ, samples[k : k + size])
        for k in range(0, len(samples), size)
    ]


def test_chunks_give_the_vectors_of_the_whole(voices: MiniAudio) -> None:
    samples = speechlike(17.03)
    samples[5 * AUDIO_RATE_HZ : 8 * AUDIO_RATE_HZ] *= 0.01  # the level is not the same everywhere
    whole = voices(samples)
    times_s, chunked = encode_audio(in_blocks(samples, 16_000, 2.5), voices, chunk_s=2.0)
    assert np.abs(whole).mean() > 0.05
    np.testing.assert_allclose(chunked, whole, atol=1e-3)
    np.testing.assert_allclose(times_s, 2.5 + (np.arange(len(whole)) + 0.5) / 25, atol=1e-9)


def test_less_context_would_not_be_enough(voices: MiniAudio) -> None:
    class Short:
        name, fingerprint = voices.name, ""
        width, rate_hz, context_s = voices.width, voices.rate_hz, 0.5

        def __call__(self, samples: np.ndarray) -> np.ndarray:
            return voices(samples)

    samples = speechlike(9.0)
    samples[4 * AUDIO_RATE_HZ :] *= 0.01
    chunked = encode_audio(in_blocks(samples, 16_000), Short(), chunk_s=1.0)[1]
    assert np.abs(chunked - voices(samples)).max() > 1e-2


def test_block_sizes_do_not_matter(voices: MiniAudio) -> None:
    samples = speechlike(9.7)
    first = encode_audio(in_blocks(samples, 160_000), voices, chunk_s=2.0)[1]
    for size in (1000, 33_333):
        again = encode_audio(in_blocks(samples, size), voices, chunk_s=2.0)[1]
        np.testing.assert_array_equal(again, first)


# --- faces -------------------------------------------------------------------------------------


def crops(n: int, seed: int = 0) -> np.ndarray:
    """Smooth coloured random pictures (n, 56, 56, 3) uint8."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (n, 7, 7, 3), dtype=np.uint8)
    large = [cv2.resize(c, (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC) for c in coarse]
    return np.stack(large) if n else np.zeros((0, CROP_PX, CROP_PX, 3), np.uint8)


def test_grey_is_that_of_opencv() -> None:
    pictures = crops(5)
    grey = grey_faces(torch.from_numpy(pictures))
    assert grey.shape == (5, 1, CROP_PX, CROP_PX)
    rounded = np.stack([cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in pictures])
    np.testing.assert_allclose(grey[:, 0].numpy() * 255, rounded, atol=0.51)


def test_a_mirror_image_has_the_same_vector(faces: MiniVisual) -> None:
    pictures = crops(7)
    vectors = faces(pictures)
    assert vectors.shape == (7, faces.width)
    assert vectors.dtype == np.float32
    assert np.ptp(vectors, axis=0).max() > 0.005
    np.testing.assert_array_equal(faces(np.ascontiguousarray(pictures[:, :, ::-1])), vectors)


def test_batches_do_not_matter(faces: MiniVisual) -> None:
    pictures = crops(FACE_BATCH + 5)
    whole = faces(pictures)
    np.testing.assert_allclose(encode_crops(pictures, faces, batch=9), whole, atol=1e-5)
    np.testing.assert_allclose(faces(pictures[-1:]), whole[-1:], atol=1e-5)


def test_no_faces(faces: MiniVisual) -> None:
    assert faces(crops(0)).shape == (0, faces.width)


def test_light_and_contrast_do_not_matter(faces: MiniVisual) -> None:
    even = crops(3) // 2 * 2
    np.testing.assert_allclose(faces(even // 2 + 40), faces(even), atol=2e-3)


def test_only_the_middle_of_the_crop_is_seen(faces: MiniVisual) -> None:
    pictures = crops(2)
    framed = np.zeros_like(pictures)
    framed[:, 6:54, 4:52] = pictures[:, 6:54, 4:52]
    np.testing.assert_array_equal(faces(framed), faces(pictures))
    framed[:, 6, 4] = 255
    assert (faces(framed) != faces(pictures)).any()


# --- loading -----------------------------------------------------------------------------------


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}


def test_weights_come_back_from_half_precision(
    tmp_path: Path, faces: MiniVisual, voices: MiniAudio
) -> None:
    save_file(halved(faces.net.state_dict()), tmp_path / "visual.safetensors")
    save_file(halved(numbered(voices.nets)), tmp_path / "audio.safetensors")
    loaded = {m: load_mini(m, tmp_path / f"{m}.safetensors", "cpu") for m in ("visual", "audio")}
    np.testing.assert_allclose(loaded["visual"](crops(2)), faces(crops(2)), atol=2e-2)
    sound = speechlike(1.5)
    np.testing.assert_allclose(loaded["audio"](sound), voices(sound), atol=5e-2)

    assert loaded["visual"].fingerprint != loaded["audio"].fingerprint
    again = load_mini("visual", tmp_path / "visual.safetensors", "cpu")
    assert again.fingerprint == loaded["visual"].fingerprint
    with torch.no_grad():
        next(again.net.parameters()).add_(0.01)
    save_file(halved(again.net.state_dict()), tmp_path / "other.safetensors")
    other = load_mini("visual", tmp_path / "other.safetensors", "cpu")
    assert other.fingerprint != again.fingerprint


def test_files_that_are_no_weights(tmp_path: Path, voices: MiniAudio) -> None:
    with pytest.raises(OSError, match="nowhere"):
        load_mini("text", tmp_path / "nowhere.safetensors", "cpu")
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"not weights at all")
    with pytest.raises(SafetensorError):
        load_mini("text", garbage, "cpu")

    weights = tmp_path / "audio.safetensors"
    tensors = numbered(voices.nets)
    save_file(tensors, weights)
    with pytest.raises(KeyError):
        load_mini("smell", weights, "cpu")
    for other in ("visual", "text"):
        with pytest.raises((KeyError, RuntimeError)):
            load_mini(other, weights, "cpu")
    save_file({k: v for k, v in tensors.items() if k != "0.affect.bias"}, weights)
    with pytest.raises(RuntimeError, match=r"affect\.bias"):
        load_mini("audio", weights, "cpu")
    save_file({}, weights)
    with pytest.raises(RuntimeError, match="no network"):
        load_mini("audio", weights, "cpu")
    save_file(tensors | {"0.affect.bias": torch.zeros(3)}, weights)
    with pytest.raises(RuntimeError, match=r"affect\.bias"):
        load_mini("audio", weights, "cpu")
