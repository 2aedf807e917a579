"""Speech recognition: stretches of speech -> timed words.

Whisper runs through faster-whisper and has to fetch its weights once; PocketSphinx is rough,
English only, and needs no download. A recogniser hears nothing but the spans of speech, in chunks,
so that memory does not grow with the length of a video.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from maven.captions import Token, clean_words
from maven.media import AUDIO_RATE_HZ, AudioBlock, audio_blocks
from maven.part import WHOLE, Part
from maven.speech import SpeechSpan
from maven.transcript import MIN_WORD_S, Segment, Transcript, Word, sentences, timed_words

DEFAULT_SIZE = "base"
WHISPER_FILES = ("model.bin", "tokenizer.json")
HUB_TIMEOUT_S = 4.0
MAX_CHUNK_S = 28.0  # whisper hears 30 s at a time
JOIN_S = 2.0  # spans this close are heard together
QUIET_S = 0.2  # a longer span is cut at its quietest 0.2 s
MAX_COMPRESSION = 2.4  # whisper's own limit: text that gzip shrinks further goes round in circles
SURE = 0.5  # a language less probable than this is asked for again in the next chunk

Samples = npt.NDArray[np.float32]
Progress = Callable[[float, float], None]


class RecogniserError(Exception):
    """Speech cannot be recognised; the message is one line."""


class Recogniser(Protocol):
    """Speech to words."""

    name: str

    def transcribe(
        self, samples: Samples, start_s: float, language: str | None
    ) -> tuple[tuple[Word, ...], str | None]:
        """Return the words in (n,) samples at 16 kHz, and the language when it is known.

        `start_s` is the first sample's time; segments count from 0; `language` is None until known.
        """
        ...


class WhisperRecogniser:
    """Whisper through faster-whisper: int8 on a CPU, float16 on a GPU ("cuda") that works with it.

    Raises:
        RecogniserError: it is neither a known size nor a CTranslate2 folder, or its weights are not
            here and cannot be fetched, or do not load.
    """

    def __init__(
        self, size_or_folder: str = DEFAULT_SIZE, *, offline: bool = False, device: str = "cpu"
    ) -> None:
        folder = whisper_folder(size_or_folder, offline)
        self.name = f"whisper:{Path(size_or_folder).name}"
        try:
            self._model = _load(folder, device)
        except Exception as error:  # CTranslate2 and tokenizers raise many kinds
            raise RecogniserError(f"{folder} does not load: {_one_line(error)}") from None

    def transcribe(
        self, samples: Samples, start_s: float, language: str | None
    ) -> tuple[tuple[Word, ...], str | None]:
        """See `Recogniser`; the same samples give the same words.

        Whisper's second tries at a hard passage are random draws, so there are none: a segment that
        fails its test for repetition is left out instead.
        """
        try:
            segments, info = self._model.transcribe(
                samples,
                language=language,
                word_timestamps=True,
                condition_on_previous_text=False,
                temperature=0.0,
            )
            found = [
                Segment(
                    start_s + segment.start,
                    start_s + segment.end,
                    clean_words([_token(word, start_s) for word in segment.words or ()]),
                )
                for segment in segments
                if segment.compression_ratio <= MAX_COMPRESSION
            ]
        except RuntimeError as error:  # CTranslate2: out of memory
            raise RecogniserError(f"{self.name} fails: {_one_line(error)}") from None
        words = timed_words(segment for segment in found if segment.tokens)
        return words, info.language if info.language_probability >= SURE else None


class PocketsphinxRecogniser:
    """PocketSphinx with the US English model inside its package.

    Raises:
        RecogniserError: the package is not installed.
    """

    name = "pocketsphinx"

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise RecogniserError(
                "pocketsphinx is not installed: pip install 'maven[pocketsphinx]'"
            ) from None
        self._decoder: Any = Decoder(samprate=AUDIO_RATE_HZ, loglevel="FATAL")

    def transcribe(
        self, samples: Samples, start_s: float, language: str | None
    ) -> tuple[tuple[Word, ...], str | None]:
        """See `Recogniser`; pauses part the segments."""
        pcm = (np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes()
        self._decoder.reinit_feat()  # forget how the utterance before sounded
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        rate_hz = self._decoder.config["frate"]
        tokens = [
            Token(
                re.sub(r"\(\d+\)$", "", found.word),  # read(2): the second pronunciation
                start_s + found.start_frame / rate_hz,
                start_s + (found.end_frame + 1) / rate_hz,
                min(float(found.prob), 1.0),  # posterior in the lattice
            )
            for found in self._decoder.seg() or ()
            if found.word[0] not in "<["  # <s>, <sil>, [NOISE]
        ]
        return timed_words(Segment(start_s, None, part) for part in sentences(tokens)), "en"


def recognise(
    media_path: Path,
    recogniser: Recogniser,
    spans: Sequence[SpeechSpan],
    progress: Progress | None = None,
    part: Part = WHOLE,
) -> Transcript:
    """Recognise what is said in the spans of a media file; memory does not grow with its length.

    Of the file no more is decoded than the part, in which the spans lie.

    Raises:
        MediaError: the media cannot be read.
        RecogniserError: the recogniser fails.
    """
    total_s = sum(end_s - start_s for start_s, end_s in _regions(spans))
    done_s = 0.0
    language: str | None = None
    words: list[Word] = []
    n_segments = 0
    for chunk in speech_chunks(audio_blocks(media_path, part=part), spans):
        found, language = recogniser.transcribe(chunk.samples, chunk.start_s, language)
        length_s = len(chunk.samples) / AUDIO_RATE_HZ
        end_s = chunk.start_s + length_s
        for word in found:
            word_start_s = min(max(word.start_s, chunk.start_s), end_s - MIN_WORD_S)
            word_end_s = min(max(word.end_s, word_start_s + MIN_WORD_S), end_s)
            segment = n_segments + word.segment
            words.append(replace(word, start_s=word_start_s, end_s=word_end_s, segment=segment))
        n_segments = max((word.segment + 1 for word in words), default=0)
        done_s += length_s
        if progress:
            progress(min(done_s, total_s), total_s)
    words.sort(key=lambda word: word.start_s)
    return Transcript(tuple(words), recogniser.name, language)


def speech_chunks(
    blocks: Iterable[AudioBlock], spans: Sequence[SpeechSpan]
) -> Iterator[AudioBlock]:
    """Cut the speech out of joined blocks of audio: chunks of at most `MAX_CHUNK_S`.

    Spans less than `JOIN_S` apart come together, with the pause between them; what is longer than a
    chunk is cut where it is quietest.
    """
    regions = _regions(spans)
    max_samples = round(MAX_CHUNK_S * AUDIO_RATE_HZ)
    held: Samples = np.zeros(0, dtype=np.float32)
    held_start_s = 0.0
    for block in blocks:
        end_s = block.start_s + len(block.samples) / AUDIO_RATE_HZ
        while regions and regions[0][0] < end_s:
            first, last = (round((t - block.start_s) * AUDIO_RATE_HZ) for t in regions[0])
            first = max(first, 0)
            if len(held) == 0:
                held_start_s = block.start_s + first / AUDIO_RATE_HZ
            held = np.concatenate([held, block.samples[first : max(last, 0)]])
            while len(held) > max_samples:
                cut = _quietest(held, max_samples)
                yield AudioBlock(held_start_s, held[:cut])
                held, held_start_s = held[cut:], held_start_s + cut / AUDIO_RATE_HZ
            if regions[0][1] > end_s:
                break  # goes on in the next block
            if len(held) > 0:
                yield AudioBlock(held_start_s, held)
            held = held[:0]
            del regions[0]
    if len(held) > 0:
        yield AudioBlock(held_start_s, held)


def _regions(spans: Sequence[SpeechSpan]) -> list[tuple[float, float]]:
    """Join neighbouring spans, to (start_s, end_s), as long as a chunk holds them."""
    regions: list[tuple[float, float]] = []
    for span in spans:
        if (
            regions
            and span.start_s - regions[-1][1] < JOIN_S
            and span.end_s - regions[-1][0] <= MAX_CHUNK_S
        ):
            regions[-1] = (regions[-1][0], span.end_s)
        else:
            regions.append((span.start_s, span.end_s))
    return regions


def _quietest(samples: Samples, end: int) -> int:
    """Find the middle of the quietest `QUIET_S` in the second half of samples[:end]."""
    width = round(QUIET_S * AUDIO_RATE_HZ)
    energy = np.cumsum(np.square(samples[end // 2 : end], dtype=np.float64))
    return end // 2 + int(np.argmin(energy[width:] - energy[:-width])) + width // 2


def _token(word: Any, start_s: float) -> Token:
    times_s = start_s + float(word.start), start_s + float(word.end)
    return Token(word.word, *times_s, float(word.probability))


def _load(folder: Path, device: str) -> Any:
    from faster_whisper import WhisperModel

    if device.startswith("cuda"):
        try:
            model = WhisperModel(str(folder), device="cuda", compute_type="float16")
            model.encode(model.feature_extractor(np.zeros(AUDIO_RATE_HZ, dtype=np.float32)))
            return model
        except (RuntimeError, ValueError):  # it needs a CUDA of its own, which may not be here
            pass
    return WhisperModel(str(folder), device="cpu", compute_type="int8")


def whisper_folder(size_or_folder: str, offline: bool) -> Path:
    """Find whisper's weights on this machine, or fetch them."""
    try:
        from faster_whisper import available_models
    except ImportError:
        raise RecogniserError(
            "faster-whisper is not installed: pip install 'maven[whisper]'"
        ) from None
    if size_or_folder in available_models():
        return _fetched(size_or_folder, offline)
    folder = Path(size_or_folder)
    if not folder.is_dir():
        sizes = ", ".join(available_models())
        raise RecogniserError(f"whisper: got {size_or_folder!r}; accepted: a folder, or {sizes}")
    # Without its tokenizer, faster-whisper would look for one on the network.
    missing = [name for name in WHISPER_FILES if not (folder / name).is_file()]
    if missing:
        raise RecogniserError(
            f"{folder}: no {missing[0]}; accepted: a CTranslate2 folder with "
            f"{' and '.join(WHISPER_FILES)}"
        )
    return folder


def _fetched(size: str, offline: bool) -> Path:
    """Return the folder of a published size; that there is no network is noticed in seconds."""
    from faster_whisper import download_model

    try:
        folder = Path(download_model(size, local_files_only=True))
        if all((folder / name).is_file() for name in WHISPER_FILES):  # not one that broke off
            return folder
    except Exception:  # the hub's many ways to say that it is not here
        pass
    if offline:
        raise RecogniserError(f"whisper:{size} is not on this machine and may not be fetched")
    if not _hub_answers():
        raise RecogniserError(
            f"whisper:{size} is not on this machine and its hub does not answer; a transcript file "
            "beside the video, a whisper folder or pocketsphinx serve as well"
        )
    try:
        return Path(download_model(size))
    except Exception as error:
        raise RecogniserError(f"whisper:{size} cannot be fetched: {_one_line(error)}") from None


def _hub_answers() -> bool:
    """Tell whether the hub answers within `HUB_TIMEOUT_S`; its own retries take minutes."""
    import huggingface_hub

    answers: list[object] = []

    def ask() -> None:
        try:
            session = huggingface_hub.get_session()
            answers.append(session.head(huggingface_hub.constants.ENDPOINT, timeout=HUB_TIMEOUT_S))
        except Exception:  # refused, no such name, timed out, offline mode
            return

    # A thread, because looking up a name has no timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S)
    return bool(answers)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
