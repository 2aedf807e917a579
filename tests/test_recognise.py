"""Recognisers: what they hear, where their words lie, and what happens without a network."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import GRID_CLIPS
from maven.media import AudioBlock, audio_blocks, read_audio
from maven.recognise import (
    JOIN_S,
    MAX_CHUNK_S,
    PocketsphinxRecogniser,
    RecogniserError,
    WhisperRecogniser,
    recognise,
    speech_chunks,
)
from maven.speech import SpeechDetector, SpeechSpan
from maven.transcript import Word, read_transcript
from media_factory import remux
from toy_whisper import write_toy_whisper

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return write_toy_whisper(tmp_path_factory.mktemp("whisper"))


def detect(path: Path) -> tuple[SpeechSpan, ...]:
    detector = SpeechDetector()
    for block in audio_blocks(path):
        detector.push(block)
    return detector.finish()


def assert_sound(words: tuple[Word, ...], start_s: float, end_s: float) -> None:
    for word in words:
        assert word.text
        assert start_s <= word.start_s < word.end_s <= end_s
        assert word.confidence is not None
        assert 0 <= word.confidence <= 1
    starts_s = [word.start_s for word in words]
    assert starts_s == sorted(starts_s)
    assert sorted({word.segment for word in words}) == list(range(len({w.segment for w in words})))


class Echo:
    """A recogniser that says one word a chunk and writes down what it heard."""

    name = "echo"

    def __init__(self) -> None:
        self.heard: list[tuple[float, int, str | None]] = []

    def transcribe(
        self, samples: npt.NDArray[np.float32], start_s: float, language: str | None
    ) -> tuple[tuple[Word, ...], str | None]:
        self.heard.append((start_s, len(samples), language))
        return (Word("a", start_s - 1.0, start_s + 99.0, 0), Word("b", start_s, start_s, 1)), "en"


@settings(max_examples=60, deadline=None)
@given(
    lengths_s=st.lists(st.floats(0.2, 40.0), min_size=1, max_size=6),
    gaps_s=st.lists(st.floats(0.3, 6.0), min_size=7, max_size=7),
    block_s=st.floats(1.0, 30.0),
    first_s=st.floats(-1.0, 5.0),
)
def test_chunks_hold_the_speech_at_its_time(
    lengths_s: list[float], gaps_s: list[float], block_s: float, first_s: float
) -> None:
    spans, at_s = [], first_s
    for gap_s, length_s in zip(gaps_s, lengths_s, strict=False):
        spans.append(SpeechSpan(at_s + gap_s, at_s + gap_s + length_s))
        at_s = spans[-1].end_s
    n = round((at_s + gaps_s[-1] - first_s) * RATE_HZ)
    counted = np.arange(n, dtype=np.float32)  # a sample is its own number, exact below 2^24
    step = round(block_s * RATE_HZ)
    blocks = (AudioBlock(first_s + k / RATE_HZ, counted[k : k + step]) for k in range(0, n, step))
    heard = np.zeros(n, dtype=int)
    for chunk in speech_chunks(blocks, spans):
        assert 0 < len(chunk.samples) <= MAX_CHUNK_S * RATE_HZ
        number = round((chunk.start_s - first_s) * RATE_HZ)
        np.testing.assert_array_equal(chunk.samples, np.arange(number, number + len(chunk.samples)))
        heard[number : number + len(chunk.samples)] += 1
    assert heard.max() == 1
    time_s = first_s + np.arange(n) / RATE_HZ
    speech = np.zeros(n, dtype=bool)
    near = np.zeros(n, dtype=bool)
    for span in spans:
        speech |= (time_s > span.start_s + 1e-3) & (time_s < span.end_s - 1e-3)
        near |= (time_s > span.start_s - JOIN_S) & (time_s < span.end_s + JOIN_S)
    assert heard[speech].all()
    assert not heard[~near].any()


def test_long_speech_is_cut_in_a_pause() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 60 * RATE_HZ).astype(np.float32)
    for pause_s in (20, 41):
        samples[pause_s * RATE_HZ : round((pause_s + 0.25) * RATE_HZ)] = 0
    chunks = list(speech_chunks([AudioBlock(3.0, samples)], [SpeechSpan(3.0, 63.0)]))
    cuts_s = [chunk.start_s for chunk in chunks[1:]]
    assert cuts_s == pytest.approx([23.125, 44.125], abs=0.03)


def test_words_are_kept_inside_their_chunk_and_segments_count_on(clips_dir: Path) -> None:
    echo, steps = Echo(), []
    spans = [SpeechSpan(0.5, 1.5), SpeechSpan(2.0, 3.0), SpeechSpan(6.0, 40.0)]
    transcript = recognise(
        clips_dir / "talk_long_71s_512.mp4", echo, spans, lambda *step: steps.append(step)
    )
    assert [start_s for start_s, _, _ in echo.heard[:2]] == [0.5, 6.0]
    assert len(echo.heard) == 3
    assert [language for _, _, language in echo.heard] == [None, "en", "en"]
    assert transcript.source == "echo"
    assert transcript.language == "en"
    assert [word.segment for word in transcript.words] == [0, 1, 2, 3, 4, 5]
    assert all(0 < word.end_s - word.start_s < MAX_CHUNK_S + 1e-6 for word in transcript.words)
    assert (transcript.words[0].start_s, transcript.words[0].end_s) == pytest.approx((0.5, 3.0))
    assert steps[-1] == pytest.approx((36.5, 36.5))
    assert [done_s for done_s, _ in steps] == sorted(done_s for done_s, _ in steps)


def test_whisper_runs_end_to_end(
    whisper_folder: Path, clips_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recogniser = WhisperRecogniser(str(whisper_folder), offline=True)
    assert recogniser.name == "whisper:toy"
    clip = remux(clips_dir / "grid_s1_srbu6n.mpg", tmp_path / "late.mkv", audio_delay_s=20.0)
    (span,) = detect(clip)
    assert span.start_s > 20.0
    assert recognise(clip, recogniser, [span]).words == ()  # random weights go round in circles
    monkeypatch.setattr("maven.recognise.MAX_COMPRESSION", np.inf)
    transcript = recognise(clip, recogniser, [span])
    assert transcript.source == "whisper:toy"
    assert transcript.words
    assert_sound(transcript.words, span.start_s - 1e-3, span.end_s + 1e-3)
    assert recognise(clip, recogniser, [span]) == transcript


def test_whisper_takes_a_language_or_finds_it(whisper_folder: Path, clips_dir: Path) -> None:
    recogniser = WhisperRecogniser(str(whisper_folder), offline=True)
    assert recogniser._model.model.is_multilingual
    block = read_audio(clips_dir / "grid_s1_srbu6n.mpg")
    assert block is not None
    # Random weights are not sure of any of a hundred languages.
    assert recogniser.transcribe(block.samples, 0.0, None)[1] is None
    assert recogniser.transcribe(block.samples, 0.0, "pl")[1] == "pl"


def test_whisper_without_a_usable_gpu_runs_on_the_cpu(whisper_folder: Path) -> None:
    silence = np.zeros(RATE_HZ, dtype=np.float32)
    recogniser = WhisperRecogniser(str(whisper_folder), device="cuda")
    words, _ = recogniser.transcribe(silence, 5.0, "en")
    assert all(np.isfinite([word.start_s, word.end_s]).all() for word in words)


def test_whisper_folders_that_do_not_serve(whisper_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RecogniserError, match=r"got 'no-such'; accepted: a folder, or tiny\.en, tiny"
    ):
        WhisperRecogniser("no-such")
    with pytest.raises(RecogniserError, match=r"no model\.bin; accepted: a CTranslate2 folder"):
        WhisperRecogniser(str(tmp_path))
    for name in ("tokenizer.json", "config.json", "vocabulary.json"):
        (tmp_path / name).write_bytes((whisper_folder / name).read_bytes())
    (tmp_path / "model.bin").write_bytes(b"broken")
    with pytest.raises(RecogniserError, match="does not load: ") as caught:
        WhisperRecogniser(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights are on this machine, and fetching them is a failure."""
    import faster_whisper

    def download_model(size: str, local_files_only: bool = False) -> str:
        assert local_files_only, "nothing may be fetched"
        raise FileNotFoundError(size)

    monkeypatch.setattr(faster_whisper, "download_model", download_model)


@pytest.fixture
def mute_server() -> Iterator[str]:
    """An address that takes connections and never says a word, as some networks do."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.usefixtures("no_weights")
def test_offline_fetches_nothing() -> None:
    with pytest.raises(RecogniserError, match="whisper:base is not on this machine and may not"):
        WhisperRecogniser(offline=True)


@pytest.mark.usefixtures("no_weights")
def test_a_hub_that_does_not_answer_is_noticed_soon(
    monkeypatch: pytest.MonkeyPatch, mute_server: str
) -> None:
    import huggingface_hub

    monkeypatch.setattr("maven.recognise.HUB_TIMEOUT_S", 0.5)
    for address in (mute_server, "http://127.0.0.1:9"):  # mute; refuses
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        start_s = time.perf_counter()
        with pytest.raises(RecogniserError, match="its hub does not answer") as caught:
            WhisperRecogniser("tiny")
        assert time.perf_counter() - start_s < 3.0
        assert "\n" not in str(caught.value)


def test_weights_on_this_machine_or_fetched(
    monkeypatch: pytest.MonkeyPatch, whisper_folder: Path, tmp_path: Path
) -> None:
    import faster_whisper

    here = {"tiny": str(whisper_folder), "base": str(tmp_path)}  # base broke off
    asked: list[tuple[str, bool]] = []

    def download_model(size: str, local_files_only: bool = False) -> str:
        asked.append((size, local_files_only))
        return here[size] if local_files_only else str(whisper_folder)

    monkeypatch.setattr(faster_whisper, "download_model", download_model)
    monkeypatch.setattr("maven.recognise._hub_answers", lambda: True)
    assert WhisperRecogniser("tiny", offline=True).name == "whisper:tiny"
    assert WhisperRecogniser("base").name == "whisper:base"
    assert asked == [("tiny", True), ("base", True), ("base", False)]


def test_pocketsphinx_hears_some_grid_words_in_their_place(clips_dir: Path) -> None:
    """It knows these clipped sentences badly (23 of 30 words wrong); its times are good."""
    pytest.importorskip("pocketsphinx")
    recogniser = PocketsphinxRecogniser()
    right = 0
    for clip in GRID_CLIPS:
        path = clips_dir / f"grid_s1_{clip}.mpg"
        spans = detect(path)
        transcript = recognise(path, recogniser, spans)
        assert transcript.source == "pocketsphinx"
        assert_sound(transcript.words, spans[0].start_s - 1e-3, spans[-1].end_s + 1e-3)
        spoken = read_transcript(clips_dir / f"grid_s1_{clip}.align").words
        for word in spoken:
            right += any(
                word.text == found.text and abs(word.start_s - found.start_s) < 0.1
                for found in transcript.words
            )
    assert right >= 5


def test_pocketsphinx_does_not_remember_what_it_heard(clips_dir: Path) -> None:
    pytest.importorskip("pocketsphinx")
    recogniser = PocketsphinxRecogniser()
    first = read_audio(clips_dir / "grid_s1_srbu6n.mpg")
    other = read_audio(clips_dir / "talk_ntsc_2997.mp4")
    assert first is not None
    assert other is not None
    words = recogniser.transcribe(first.samples, 0.0, None)
    assert recogniser.transcribe(other.samples, 0.0, None) != words
    assert recogniser.transcribe(first.samples, 0.0, None) == words
    later, language = recogniser.transcribe(first.samples, 7.0, None)
    assert language == "en"
    assert [w.start_s - 7.0 for w in later] == pytest.approx([w.start_s for w in words[0]])
