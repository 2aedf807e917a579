"""Where somebody speaks: 16 kHz audio -> spans of speech on the media clock.

Silero VAD (MIT) gives the probability of speech for every 32 ms of audio. Its ONNX file ships with
this package (`assets/silero_vad.onnx`), because its own requires torch. Hysteresis turns
probabilities into spans: speech begins at `SPEECH_THRESHOLD` and ends where the probability stays
below `SILENCE_THRESHOLD`. Audio is pushed block by block and dropped at once, so memory does not
grow with the length of a video.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maven.media import AUDIO_RATE_HZ

if TYPE_CHECKING:
    from maven.media import AudioBlock

SILERO_PATH = Path(__file__).parent / "assets" / "silero_vad.onnx"
SILERO_VERSION = "6.2.3"

CHUNK_SAMPLES = 512  # one probability; fixed by the model at 16 kHz
CHUNK_S = CHUNK_SAMPLES / AUDIO_RATE_HZ
CONTEXT_SAMPLES = 64  # the end of the chunk before, which the model sees again

SPEECH_THRESHOLD = 0.5
SILENCE_THRESHOLD = 0.35
MIN_SPEECH_S = 0.2
MIN_SILENCE_S = 0.3
PAD_S = 0.1  # each side; at most MIN_SILENCE_S / 2, so that spans never overlap

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SpeechSpan:
    """A stretch in which somebody speaks, in seconds on the media clock; start_s < end_s."""

    start_s: float
    end_s: float


class SileroVad:
    """The network: chunks of 512 samples -> probabilities; it remembers what it has heard."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            SILERO_PATH, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.reset()

    def reset(self) -> None:
        """Forget the audio heard so far."""
        self._state = (np.zeros((1, 1, 128), np.float32), np.zeros((1, 1, 128), np.float32))
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)

    def probabilities(self, chunks: Samples) -> Samples:
        """Return the probabilities (k,), in [0, 1], of speech in chunks (k, 512) at 16 kHz."""
        if not len(chunks):
            return np.zeros(0, np.float32)
        ends = np.concatenate((self._context[None], chunks[:-1, -CONTEXT_SAMPLES:]))
        h, c = self._state
        found, h, c = self._session.run(
            None, {"input": np.concatenate((ends, chunks), 1), "h": h, "c": c}
        )
        self._state, self._context = (h, c), chunks[-1, -CONTEXT_SAMPLES:].copy()
        probabilities: Samples = found
        return probabilities


class SpeechDetector:
    """Blocks of audio in, spans of speech out; blocks join, as `media.audio_blocks` yields them."""

    def __init__(self) -> None:
        self._vad = SileroVad()
        self._spans: list[SpeechSpan] = []
        self._first_s: float | None = None  # time of the first sample; None before any audio
        self._n_samples = 0
        self._n_chunks = 0
        self._pending = np.zeros(0, dtype=np.float32)  # samples that do not fill a chunk yet
        self._speech_start_s: float | None = None
        self._silence_start_s: float | None = None  # inside speech: since when it may be over

    def push(self, block: AudioBlock) -> None:
        """Take the next block of audio."""
        if self._first_s is None:
            self._first_s = block.start_s
        assert abs(block.start_s - self._end_s()) < CHUNK_S, "blocks must join"
        self._n_samples += len(block.samples)
        samples = np.concatenate([self._pending, block.samples])
        whole = len(samples) // CHUNK_SAMPLES * CHUNK_SAMPLES
        self._step(samples[:whole].reshape(-1, CHUNK_SAMPLES))
        self._pending = samples[whole:].copy()

    def finish(self) -> tuple[SpeechSpan, ...]:
        """Close the last span; return all of them, in order, without overlap."""
        if len(self._pending) > 0:
            self._step(np.pad(self._pending, (0, CHUNK_SAMPLES - len(self._pending)))[None])
            self._pending = self._pending[:0]
        if self._speech_start_s is not None:
            self._end_speech(self._spoken_until_s())
        return tuple(self._spans)

    def so_far(self, since_s: float = -math.inf) -> tuple[SpeechSpan, ...]:
        """Spans in what was pushed; those that ended before `since_s` are forgotten.

        They are what `finish` would give, but speech that is not over lasts on for `PAD_S`.
        """
        self._spans = [span for span in self._spans if span.end_s >= since_s]
        if self._speech_start_s is None:
            return tuple(self._spans)
        end_s = self._spoken_until_s()
        start_s = self._padded_start_s(end_s)
        going_on = () if start_s is None else (SpeechSpan(start_s, end_s + PAD_S),)
        return (*self._spans, *going_on)

    def _end_s(self) -> float:
        assert self._first_s is not None
        return self._first_s + self._n_samples / AUDIO_RATE_HZ

    def _step(self, chunks: Samples) -> None:
        for probability in self._vad.probabilities(chunks).tolist():
            self._decide(probability)

    def _decide(self, probability: float) -> None:
        assert self._first_s is not None
        start_s = self._first_s + self._n_chunks * CHUNK_S
        self._n_chunks += 1
        if probability >= SPEECH_THRESHOLD:
            self._silence_start_s = None
            if self._speech_start_s is None:
                self._speech_start_s = start_s
        elif probability < SILENCE_THRESHOLD and self._speech_start_s is not None:
            if self._silence_start_s is None:
                self._silence_start_s = start_s
            if start_s - self._silence_start_s >= MIN_SILENCE_S:
                self._end_speech(self._silence_start_s)

    def _spoken_until_s(self) -> float:
        """Where the speech that is not over ends as far as is known."""
        return self._end_s() if self._silence_start_s is None else self._silence_start_s

    def _padded_start_s(self, end_s: float) -> float | None:
        """Where the span of speech that ends then begins; None if it is too short to be one."""
        assert self._first_s is not None
        assert self._speech_start_s is not None
        if end_s - self._speech_start_s < MIN_SPEECH_S:
            return None
        return max(self._speech_start_s - PAD_S, self._first_s)

    def _end_speech(self, end_s: float) -> None:
        start_s = self._padded_start_s(end_s)
        if start_s is not None:
            self._spans.append(SpeechSpan(start_s, min(end_s + PAD_S, self._end_s())))
        self._speech_start_s = self._silence_start_s = None
