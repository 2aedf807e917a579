"""Features as the published extraction makes them: what `paper.py` compares with.

Every picture is written to a file and read back with PIL, prepared as the image processor of
Swin's folder does it (224 px, bicubic; scaled and normalised in NumPy), and encoded in float32 in
batches of 64, one segment after the other, with the whole video's pictures in memory. HuBERT hears
the sound of a segment at once, RoBERTa reads its text, one segment at a time, without batches.

Written anew after its description. Two things are kinder than the original: HuBERT hears all of a
segment's sound, of which the original keeps the first second, and no detector or decoder is
counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image

from maven.media import AUDIO_RATE_HZ

BATCH = 64
MEAN = np.array((0.485, 0.456, 0.406))
STD = np.array((0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Segment:
    """What is seen, heard and said in one segment.

    Attributes:
        pictures: (n, h, w, 3) uint8 RGB, one a frame and face.
        sound: (s,) at 16 kHz, not empty.
        text: the words.
    """

    pictures: npt.NDArray[np.uint8]
    sound: npt.NDArray[np.float32]
    text: str


class Published:
    """The three networks from their folders, in float32, as transformers runs them."""

    def __init__(self, swin: Path, hubert: Path, roberta: Path) -> None:
        self._swin = transformers.SwinModel.from_pretrained(swin).eval()
        self._hubert = transformers.HubertModel.from_pretrained(hubert).eval()
        self._hears = transformers.Wav2Vec2FeatureExtractor.from_pretrained(hubert)
        self._roberta = transformers.RobertaModel.from_pretrained(roberta).eval()
        self._reads = transformers.RobertaTokenizerFast.from_pretrained(roberta)
        self._side_px: int = self._swin.config.image_size

    @torch.no_grad()
    def __call__(
        self, segments: Sequence[Segment], folder: Path
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Write pictures into `folder`; return (frames, sound, text) features of each segment."""
        paths = []
        for number, segment in enumerate(segments):
            paths.append([folder / f"{number}_{k}.jpg" for k in range(len(segment.pictures))])
            for path, picture in zip(paths[-1], segment.pictures, strict=True):
                Image.fromarray(picture).save(path)
        features = []
        for segment, files in zip(segments, paths, strict=True):
            seen = [
                self._swin(pixel_values=torch.stack(batch)).pooler_output
                for k in range(0, len(files), BATCH)
                if (batch := [self._prepared(path) for path in files[k : k + BATCH]])
            ]
            values = self._hears(segment.sound, sampling_rate=AUDIO_RATE_HZ, return_tensors="pt")
            heard = self._hubert(values.input_values).last_hidden_state[0]
            tokens = self._reads(segment.text, truncation=True, return_tensors="pt")
            read = self._roberta(**tokens).last_hidden_state[0]
            features.append((torch.cat(seen), heard, read))
        return features

    def _prepared(self, path: Path) -> torch.Tensor:
        """Read a picture -> (3, side_px, side_px)."""
        with Image.open(path) as file:
            picture = file.convert("RGB")
        side = (self._side_px, self._side_px)
        pixels = np.asarray(picture.resize(side, Image.Resampling.BICUBIC))
        pixels = ((pixels * (1 / 255) - MEAN) / STD).astype(np.float32)
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
