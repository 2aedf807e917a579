"""What a frozen encoder promises, and how whole clips are fed to one.

Axis names: `n` things that go in, `m` vectors in time, `d` width. All arrays are numpy; vectors are
float32. The drivers (`encode_crops`, `encode_audio`, `encode_words`) hold the cutting into pieces
and know no encoder: a clip of any length goes in, whole, and each vector is computed with sound or
words on both sides of it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from maven.files import sha256
from maven.media import AUDIO_RATE_HZ

if TYPE_CHECKING:
    from maven.media import AudioBlock

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

CHUNK_S = 20.0  # near the 15.6 s crops that HuBERT was trained on
CROP_BATCH = 32
GAP_S = 1e-3  # blocks of sound further apart than this do not follow one another


class EncoderError(Exception):
    """An encoder cannot be had or built; the message is one line."""


class Encoder(Protocol):
    """What all encoders have."""

    @property
    def name(self) -> str:
        """Short name for people and provenance."""

    @property
    def width(self) -> int:
        """Numbers in a vector, `d`."""

    @property
    def fingerprint(self) -> str:
        """Hash of architecture, weights and preprocessing: equal exactly where vectors agree.

        Number format and device are not part of it: they change a vector by rounding only.
        """


class VisualEncoder(Encoder, Protocol):
    """Face crops -> one vector a crop."""

    @property
    def size_px(self) -> int:
        """Height and width of the crops that it takes."""

    @property
    def rate_hz(self) -> float | None:
        """Crops a second that are worth encoding; None for those of every frame."""

    def __call__(self, crops: Pixels) -> Floats:
        """Encode RGB crops (n, size_px, size_px, 3) uint8 -> (n, d); n may be 0."""


class AudioEncoder(Encoder, Protocol):
    """Sound -> vectors at a fixed rate."""

    @property
    def rate_hz(self) -> float:
        """Vectors a second; a vector spans a whole number of samples, 16000 / rate_hz."""

    @property
    def context_s(self) -> float:
        """Sound further than this on either side changes a vector little or not at all."""

    def __call__(self, samples: Floats) -> Floats:
        """Encode mono 16 kHz samples (n,) -> (m, d), m = floor(n / (16000 / rate_hz)) exactly.

        Vector k stands for the time (k + 0.5) / rate_hz after the first sample. n may be 0.
        """


class TextEncoder(Encoder, Protocol):
    """Words -> one vector a word."""

    def __call__(self, words: Sequence[str]) -> Floats:
        """Encode words, of any number and content, in their order -> (len(words), d)."""


@dataclass(frozen=True)
class Encoders:
    """The three encoders of a model."""

    visual: VisualEncoder
    audio: AudioEncoder
    text: TextEncoder

    @property
    def fingerprint(self) -> str:
        """One hash for the three, as for one encoder."""
        parts = (self.visual.fingerprint, self.audio.fingerprint, self.text.fingerprint)
        return fingerprint({"encoders": parts}, ())


def fingerprint(settings: Mapping[str, object], files: Iterable[Path]) -> str:
    """Hash settings (JSON types) and the bytes of files, in order, to 16 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in files:
        digest.update(bytes.fromhex(sha256(path)))
    return digest.hexdigest()[:16]


def encode_crops(
    crops: Iterable[Pixels], encoder: VisualEncoder, batch: int = CROP_BATCH
) -> Floats:
    """Encode crops, each (size_px, size_px, 3) uint8 RGB, `batch` at a time -> (n, d)."""
    features = [np.empty((0, encoder.width), np.float32)]
    remaining = iter(crops)
    while stack := list(itertools.islice(remaining, batch)):
        features.append(encoder(np.stack(stack)))
    return np.concatenate(features)


def encode_words(words: Sequence[str], encoder: TextEncoder) -> Floats:
    """Encode the words of a whole clip -> (len(words), d), one vector a word at any length."""
    if not words:
        return np.empty((0, encoder.width), np.float32)
    features = encoder(words)
    assert features.shape == (len(words), encoder.width), (encoder.name, features.shape)
    return features


def encode_audio(
    blocks: Iterable[AudioBlock], encoder: AudioEncoder, *, chunk_s: float = CHUNK_S
) -> tuple[Times, Floats]:
    """Encode blocks of sound as they come, in chunks with `context_s` on both sides of each.

    The network sees windows of chunk_s + 2 context_s; all have that length, the last one too (it
    reaches further back), unless the clip is shorter. So whatever statistics an encoder takes over
    its input rest on as much sound at the end of a clip as in its middle. Where the windows lie
    depends on the sound alone, not on the sizes of the blocks.

    Args:
        blocks: sound, each block beginning where the one before ended.
        encoder: the encoder.
        chunk_s: how much sound a window adds.

    Returns:
        times_s (m,) on the clock of the blocks, and features (m, d); m = 0 where there is no sound.

    Raises:
        ValueError: a block does not begin where the one before ended.
    """
    hop = round(AUDIO_RATE_HZ / encoder.rate_hz)  # samples a vector
    assert math.isclose(hop * encoder.rate_hz, AUDIO_RATE_HZ), encoder.rate_hz
    chunk = max(1, round(chunk_s * encoder.rate_hz))  # in vectors, as are all counts below
    context = math.ceil(encoder.context_s * encoder.rate_hz)

    blocks = iter(blocks)
    first_block = next(blocks, None)
    if first_block is None:
        return np.empty(0), np.empty((0, encoder.width), np.float32)

    sound = _contiguous(itertools.chain((first_block,), blocks))
    features: list[Floats] = []
    done = 0
    for start, samples, is_last in _windows(sound, chunk + 2 * context, chunk, hop):
        vectors = encoder(samples)
        assert vectors.shape == (samples.size // hop, encoder.width), (encoder.name, vectors.shape)
        stop = len(vectors) - (0 if is_last else context)
        features.append(vectors[done - start : stop].copy())  # a view would hold its window
        done = start + stop
    middles = np.arange(done, dtype=np.float64) + 0.5  # in vectors
    times_s: Times = first_block.start_s + middles / encoder.rate_hz
    return times_s, np.concatenate(features)


def pieces(count: int, size: int, context: int) -> Iterator[tuple[slice, slice]]:
    """Cut a sequence into overlapping pieces of `size`, the last one ending at the end.

    Yields:
        (what a piece holds, what is kept of it), both as slices of the whole sequence. The kept
        parts cover it once; each has `context` (less than size / 2) on both sides within its piece,
        except at the two ends. A sequence of at most `size` is one piece, shorter where it is.
    """
    kept = 0
    for start in range(0, count - size, size - 2 * context):
        stop = start + size - context
        yield slice(start, start + size), slice(kept, stop)
        kept = stop
    yield slice(max(0, count - size), count), slice(kept, count)


def _contiguous(blocks: Iterable[AudioBlock]) -> Iterator[Floats]:
    expected_s = None
    for block in blocks:
        if expected_s is not None and abs(block.start_s - expected_s) > GAP_S:
            raise ValueError(
                f"a block of sound begins at {block.start_s:.3f} s; "
                f"the one before ended at {expected_s:.3f} s"
            )
        expected_s = block.start_s + block.samples.size / AUDIO_RATE_HZ
        yield block.samples


def _windows(
    sound: Iterable[Floats], length: int, stride: int, hop: int
) -> Iterator[tuple[int, Floats, bool]]:
    """Cut streamed sound as `pieces` does; yields (start in vectors, samples, is it the last).

    The last window also has the samples (fewer than `hop`) that follow the last whole vector. It
    needs the end of the sound, so a window is let go only once a sample beyond it has come.
    """
    held: list[Floats] = []
    held_from = 0  # in samples: where the previous window began
    count = 0  # samples held
    start = 0  # in vectors: where the next window begins
    for samples in sound:
        held.append(samples)
        count += samples.size
        while held_from + count > (start + length) * hop:
            joined = np.concatenate(held)[start * hop - held_from :]
            held, held_from, count = [joined], start * hop, joined.size
            yield start, joined[: length * hop], False
            start += stride
    end = (held_from + count) // hop
    start = max(0, end - length)
    yield start, np.concatenate(held)[start * hop - held_from :], True
